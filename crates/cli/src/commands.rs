//! The commands, a file per noun.

mod accounts;
mod fetch;
mod keys;
mod namespaces;
mod operations;
mod produce;
mod tenants;
mod topics;
mod usage;

use anyhow::Result;

use crate::args::{Cli, Command};

pub(crate) async fn run(cli: Cli) -> Result<()> {
    let global = cli.global;
    match cli.command {
        Command::Tenants(command) => tenants::run(&global, command).await,
        Command::Whoami => tenants::whoami(&global).await,
        Command::Namespaces(command) => namespaces::run(&global, command).await,
        Command::Topics(command) => topics::run(&global, command).await,
        Command::ServiceAccounts(command) => accounts::run(&global, command).await,
        Command::Keys(command) => keys::run(&global, command).await,
        Command::Operations(command) => operations::run(&global, command).await,
        Command::Produce(command) => produce::run(&global, command).await,
        Command::Fetch(command) => fetch::run(&global, command).await,
        Command::Usage(command) => usage::run(&global, command).await,
    }
}

/// `prod/orders` and the full name both mean `namespaces/prod/topics/orders`.
pub(crate) fn topic_name(text: &str) -> String {
    match text.split_once('/') {
        Some((namespace, topic)) if namespace != "namespaces" => format!("namespaces/{namespace}/topics/{topic}"),
        _ => text.to_owned(),
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

/// Collects pages until `limit` or the last one.
macro_rules! pages {
    ($session:expr, $client:expr, $method:ident, $limit:expr, $field:ident, $request:expr) => {{
        let mut found = Vec::new();
        let mut token = String::new();
        let template = $request;
        loop {
            let mut request = template.clone();
            request.page_size = 1000.min(($limit - found.len()) as i32).max(1);
            request.page_token = token;
            let page = $session.take($client.$method($session.request(request)).await)?;
            found.extend(page.$field);
            token = page.next_page_token;
            if token.is_empty() || found.len() >= $limit {
                break;
            }
        }
        found.truncate($limit);
        found
    }};
}
pub(crate) use pages;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_made_whole() {
        assert_eq!(topic_name("prod/orders"), "namespaces/prod/topics/orders");
        assert_eq!(topic_name("namespaces/prod/topics/orders"), "namespaces/prod/topics/orders");
        assert_eq!(full_name("namespaces", "prod"), "namespaces/prod");
        assert_eq!(full_name("namespaces", "namespaces/prod"), "namespaces/prod");
    }
}
