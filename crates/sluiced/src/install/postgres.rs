//! The PostgreSQL server of an installation.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use sluice_db::DbError;
use sluice_installation::postgres::{self, Action, PARTS, Server, Service, Wanted};

use super::config::Postgres;
use super::report::{Report, Row};
use crate::local::write_secret;
use crate::secrets::{Secrets, given, given_or_made};

/// How to reach it, and what must be there.
pub(super) struct Target<'a> {
    admin_url: SecretString,
    services: Vec<Service>,
    secrets: &'a Secrets,
}

impl<'a> Target<'a> {
    pub(super) fn new(config: &Postgres, secrets: &'a Secrets) -> Result<Self> {
        let service = |name: &str, database: &str| Service { name: name.to_owned(), database: database.to_owned() };
        let services = vec![service("control", &config.control_database), service("billing", &config.billing_database)];
        Ok(Self { admin_url: config.admin_url_file.read()?, services, secrets })
    }

    /// What is not as it must be, on the server and in the files with its URLs.
    pub(super) async fn differences(&self) -> Result<Vec<Row>> {
        let wanted = self.wanted()?;
        let mut server = self.connect().await?;
        let observed = server.observe(&wanted).await.map_err(explained).context("look at PostgreSQL")?;
        server.close().await?;
        let mut rows: Vec<Row> = postgres::plan(&wanted, &observed).iter().map(Row::of).collect();
        for (path, url) in self.urls(&wanted)? {
            let is = given(&path)?;
            if is.as_ref().map(ExposeSecret::expose_secret) != Some(url.as_str()) {
                let state = if is.is_some() { "differs" } else { "missing" };
                rows.push(Row {
                    kind: "file",
                    name: path.display().to_string(),
                    item: String::new(),
                    state,
                    is: None,
                    must: "the URL for its role".to_owned(),
                    by: "apply",
                    how: "write it".to_owned(),
                });
            }
        }
        Ok(rows)
    }

    /// Mends what can be mended, until something is refused.
    pub(super) async fn apply(&self, report: &mut Report) -> Result<()> {
        let mut wanted = self.wanted()?;
        let mut server = self.connect().await?;
        server.lock().await?;
        let observed = server.observe(&wanted).await.map_err(explained).context("look at PostgreSQL")?;
        for difference in postgres::plan(&wanted, &observed) {
            let Some(action) = difference.action() else { continue };
            if let Action::CreateRole { role } = action {
                self.make_password(role, &mut wanted)?;
            }
            match server.apply(action, |role| wanted.passwords.get(role).cloned()).await {
                Ok(()) => report.done.push(action.to_string()),
                Err(error) => {
                    report.failed = Some(explained(error).context(format!("{action}")));
                    return Ok(());
                }
            }
        }
        server.close().await?;
        for (path, url) in self.urls(&wanted)? {
            if given(&path)?.as_ref().map(ExposeSecret::expose_secret) != Some(url.as_str()) {
                write_secret(&path, &url)?;
                report.done.push(format!("write {}", path.display()));
            }
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Server> {
        Server::connect(&self.admin_url)
            .await
            .map_err(explained)
            .context("connect to PostgreSQL as postgres.admin_url_file says")
    }

    fn wanted(&self) -> Result<Wanted> {
        let mut passwords = BTreeMap::new();
        for (service, part) in self.parts() {
            if let Some(password) = given(&self.secrets.database_password(&service.name, part))? {
                passwords.insert(service.role(part), password);
            }
        }
        Ok(Wanted { services: self.services.clone(), passwords })
    }

    /// The password is in its file before the server knows it: otherwise nobody would.
    fn make_password(&self, role: &str, wanted: &mut Wanted) -> Result<()> {
        let (service, part) =
            self.parts().find(|(service, part)| service.role(part) == role).context("a role of ours")?;
        let password = given_or_made(&self.secrets.database_password(&service.name, part))?;
        wanted.passwords.insert(role.to_owned(), password);
        Ok(())
    }

    /// The files with URLs and what must be in them, for roles whose password we know.
    fn urls(&self, wanted: &Wanted) -> Result<Vec<(std::path::PathBuf, String)>> {
        let mut urls = Vec::new();
        for (service, part) in self.parts() {
            let role = service.role(part);
            let Some(password) = wanted.passwords.get(&role) else { continue };
            let url = url_as(self.admin_url.expose_secret(), &role, password.expose_secret(), &service.database)
                .context("postgres.admin_url_file must hold postgres://user:password@host:port/database?…")?;
            urls.push((self.secrets.database_url(&service.name, part), url));
        }
        Ok(urls)
    }

    fn parts(&self) -> impl Iterator<Item = (&Service, &'static str)> {
        self.services.iter().flat_map(|service| PARTS.map(|part| (service, part)))
    }
}

/// The same server and parameters, as another role in another database.
fn url_as(admin_url: &str, role: &str, password: &str, database: &str) -> Option<String> {
    let (_, rest) = admin_url.split_once("://")?;
    let (rest, parameters) = rest.split_once('?').map_or((rest, None), |(rest, parameters)| (rest, Some(parameters)));
    let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let password = utf8_percent_encode(password, NON_ALPHANUMERIC);
    let parameters = parameters.map(|parameters| format!("?{parameters}")).unwrap_or_default();
    Some(format!("postgres://{role}:{password}@{host}/{database}{parameters}"))
}

fn explained(error: DbError) -> anyhow::Error {
    match error {
        DbError::Denied(_) => anyhow::Error::from(error)
            .context("PostgreSQL refuses it: our own role needs CREATEROLE and CREATEDB, or to own what is there"),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::url_as;

    #[test]
    fn a_roles_url_keeps_server_and_parameters() {
        let url = |admin| url_as(admin, "sluice_control_app", "a/b:c", "sluice_control").expect("a URL");
        assert_eq!(
            url("postgres://dba:p%40ss@db.example.com:5432/postgres?sslmode=require"),
            "postgres://sluice_control_app:a%2Fb%3Ac@db.example.com:5432/sluice_control?sslmode=require"
        );
        assert_eq!(url("postgresql://db:5432"), "postgres://sluice_control_app:a%2Fb%3Ac@db:5432/sluice_control");
    }
}
