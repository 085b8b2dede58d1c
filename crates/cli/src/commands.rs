//! The commands, a file per noun.

mod accounts;
mod clusters;
mod confirm;
mod consume;
mod fetch;
mod groups;
mod keys;
mod namespaces;
mod operations;
mod produce;
mod shown;
mod tenants;
mod topics;
mod usage;
mod version;

use anyhow::Result;

use crate::args::{Cli, Command};

pub(crate) async fn run(cli: Cli) -> Result<()> {
    let global = cli.global;
    match cli.command {
        Command::Tenants(command) => tenants::run(&global, command).await,
        Command::Clusters(command) => clusters::run(&global, command).await,
        Command::Whoami => tenants::whoami(&global).await,
        Command::Namespaces(command) => namespaces::run(&global, command).await,
        Command::Topics(command) => topics::run(&global, command).await,
        Command::Groups(command) => groups::run(&global, command).await,
        Command::ServiceAccounts(command) => accounts::run(&global, command).await,
        Command::Keys(command) => keys::run(&global, command).await,
        Command::Operations(command) => operations::run(&global, command).await,
        Command::Produce(command) => produce::run(&global, command).await,
        Command::Fetch(command) => fetch::run(&global, command).await,
        Command::Consume(command) => consume::run(&global, command).await,
        Command::Usage(command) => usage::run(&global, command).await,
        Command::Version => version::run(&global).await,
    }
}

/// `prod` and `namespaces/prod` both mean the latter.
pub(crate) fn full_name(collection: &str, text: &str) -> String {
    if text.starts_with(&format!("{collection}/")) { text.to_owned() } else { format!("{collection}/{text}") }
}

/// The last part of a name.
pub(crate) fn last_part(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// `namespaces/prod/topics/orders` as commands take it: `prod/orders`.
pub(crate) fn short_topic(name: &str) -> String {
    name.strip_prefix("namespaces/").unwrap_or(name).replacen("/topics/", "/", 1)
}

/// `namespaces/prod/groups/billing` as commands take it: `prod/billing`.
pub(crate) fn short_group(name: &str) -> String {
    name.strip_prefix("namespaces/").unwrap_or(name).replacen("/groups/", "/", 1)
}

/// Collects pages until `limit` or the last one.
macro_rules! pages {
    ($global:expr, $session:expr, $client:expr, $method:ident, $limit:expr, $field:ident, $request:expr) => {{
        let limit = $limit as usize;
        let mut found = Vec::new();
        let mut token = String::new();
        let template = $request;
        loop {
            let mut request = template.clone();
            request.page_size = 1000.min(limit - found.len()) as i32;
            request.page_token = token;
            let page = $session.take($client.$method($session.request(request)).await)?;
            found.extend(page.$field);
            token = page.next_page_token;
            if token.is_empty() || found.len() >= limit {
                break;
            }
        }
        if !token.is_empty() || found.len() > limit {
            $crate::output::note(
                $global,
                &format!("note: there are more than {limit}; --limit sets how many are shown"),
            );
        }
        found.truncate(limit);
        found
    }};
}
pub(crate) use pages;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_made_whole() {
        assert_eq!(full_name("namespaces", "prod"), "namespaces/prod");
        assert_eq!(full_name("namespaces", "namespaces/prod"), "namespaces/prod");
    }
}
