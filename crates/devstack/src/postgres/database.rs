//! Databases, fresh ones and copies of a template, from any process that knows the connection.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::connection::PostgresConnection;
use crate::error::{Error, Result};
use crate::ready::poll_until;
use crate::secrets::random_hex;

const SQL_WITHIN: Duration = Duration::from_secs(30);
const TEMPLATE_WITHIN: Duration = Duration::from_secs(120);
const NAME_BYTES_MAX: usize = 63;

impl PostgresConnection {
    /// Makes the database unless it is there. Returns its URL.
    pub async fn database(&self, name: &str) -> Result<String> {
        check_name(name)?;
        if !self.exists(name).await? {
            self.execute("postgres", &format!("CREATE DATABASE \"{name}\"")).await?;
        }
        Ok(self.url(name))
    }

    /// Makes a template database once per cluster, whatever number of processes ask: `fill` gets the URL of an empty
    /// database and must have closed its connections when it returns. Put a hash of the migrations into the name.
    pub async fn template<E>(
        &self,
        name: &str,
        fill: impl AsyncFnOnce(String) -> std::result::Result<(), E>,
    ) -> Result<()>
    where
        E: std::fmt::Display,
    {
        check_name(name)?;
        let _lock = self.lock(name).await?;
        if self.exists(name).await? {
            return Ok(());
        }
        // It gets its name by a rename when it is complete: a run that dies here leaves no half-filled template.
        let draft = format!("draft_{}", random_hex(8)?);
        let url = self.database(&draft).await?;
        fill(url).await.map_err(|error| Error::Command {
            what: format!("filling the template database {name}"),
            detail: error.to_string(),
        })?;
        self.when_unused(&format!("ALTER DATABASE \"{draft}\" RENAME TO \"{name}\"")).await
    }

    /// Makes `name` as a copy of the template. Returns its URL.
    pub async fn database_from(&self, template: &str, name: &str) -> Result<String> {
        check_name(template)?;
        check_name(name)?;
        self.when_unused(&format!("CREATE DATABASE \"{name}\" TEMPLATE \"{template}\" STRATEGY FILE_COPY")).await?;
        Ok(self.url(name))
    }

    /// A name no other database has: the prefix and 16 random characters.
    pub fn fresh_name(&self, prefix: &str) -> Result<String> {
        Ok(format!("{prefix}_{}", random_hex(8)?))
    }

    /// Drops the database, cutting its sessions.
    pub async fn drop_database(&self, name: &str) -> Result<()> {
        check_name(name)?;
        self.execute("postgres", &format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)")).await.map(drop)
    }

    /// Runs SQL as the super user, in one session, stopping at the first error. Returns the rows, columns parted by `|`.
    pub async fn execute(&self, database: &str, sql: &str) -> Result<String> {
        let run = async {
            let mut child = Command::new(&self.psql)
                .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"])
                .args(["--host", &self.host, "--port", &self.port.to_string(), "--username", &self.user, database])
                .env("PGPASSWORD", &self.password)
                .env("PGCONNECT_TIMEOUT", "10")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            if let Some(mut input) = child.stdin.take() {
                // When psql cannot connect it closes its input; its own message says more than our broken pipe.
                let _ = input.write_all(sql.as_bytes()).await;
            }
            child.wait_with_output().await
        };
        let output = match tokio::time::timeout(SQL_WITHIN, run).await {
            Ok(output) => output.map_err(Error::io("run", &self.psql))?,
            Err(_) => {
                return Err(Error::Deadline { what: "SQL".to_owned(), after: SQL_WITHIN, detail: sql.to_owned() });
            }
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
        }
        let detail = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        Err(Error::Command { what: format!("SQL in the database {database}"), detail })
    }

    async fn exists(&self, name: &str) -> Result<bool> {
        let found = self.execute("postgres", &format!("SELECT 1 FROM pg_database WHERE datname = '{name}'")).await?;
        Ok(!found.is_empty())
    }

    /// Repeats while another session is on the database: a client's close reaches the server a little later.
    async fn when_unused(&self, sql: &str) -> Result<()> {
        let outcome = poll_until("sessions leaving the template database", SQL_WITHIN, async || {
            match self.execute("postgres", sql).await {
                Err(Error::Command { detail, .. }) if detail.contains("being accessed by other users") => None,
                other => Some(other.map(drop)),
            }
        });
        outcome.await?
    }

    async fn lock(&self, name: &str) -> Result<File> {
        let path = self.lock_dir.join(format!("template-{name}.lock"));
        let file = File::create(&path).map_err(Error::io("open the lock", &path))?;
        let what = format!("another process filling the template database {name}");
        poll_until(&what, TEMPLATE_WITHIN, async || file.try_lock().ok()).await?;
        Ok(file)
    }
}

/// Names go into SQL between double quotes.
fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(fits) {
        return Ok(());
    }
    Err(Error::Invalid(format!("a database name is 1 to {NAME_BYTES_MAX} of a-z 0-9 _ -, and not {name:?}")))
}
