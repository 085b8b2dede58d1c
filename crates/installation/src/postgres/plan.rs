//! What differs between what must be and what is there. Pure.

use super::{Action, Attributes, Database, Difference, Observed, Service, Wanted};
use crate::difference::{Remedy, State};

/// The oldest server that is tested.
const VERSION_LEAST: i32 = 150_000;

/// All differences, in the order in which they are mended.
pub fn plan(wanted: &Wanted, observed: &Observed) -> Vec<Difference> {
    let mut differences: Vec<Difference> = version(observed).into_iter().collect();
    for service in &wanted.services {
        for role in service.roles() {
            differences.extend(of_role(&role, observed));
        }
        differences.extend(of_database(service, observed));
    }
    differences.extend(rights(observed, &differences));
    differences
}

fn version(observed: &Observed) -> Option<Difference> {
    (observed.version < VERSION_LEAST).then(|| Difference {
        kind: "server",
        name: "PostgreSQL".to_owned(),
        item: "version".to_owned(),
        state: State::Differs,
        is: Some((observed.version / 10_000).to_string()),
        must: format!("at least {}", VERSION_LEAST / 10_000),
        remedy: Remedy::Person("upgrade the server".to_owned()),
    })
}

fn of_role(role: &str, observed: &Observed) -> Vec<Difference> {
    let difference = |item: &str, state, must: &str, action| Difference {
        kind: "role",
        name: role.to_owned(),
        item: item.to_owned(),
        state,
        is: None,
        must: must.to_owned(),
        remedy: Remedy::Apply(action),
    };
    let Some(attributes) = observed.roles.get(role) else {
        let action = Action::CreateRole { role: role.to_owned() };
        return vec![difference("", State::Missing, "a role that may log in", action)];
    };
    let mut differences = Vec::new();
    if observed.locked_out.contains(role) {
        let action = Action::SetPassword { role: role.to_owned() };
        differences.push(difference("password", State::Differs, "the password in its file", action));
    }
    for attribute in wrong_attributes(*attributes) {
        let action = Action::SetAttribute { role: role.to_owned(), attribute };
        differences.push(difference("attribute", State::Differs, attribute, action));
    }
    differences
}

/// No role of ours may bypass row-level security, make roles or make databases.
fn wrong_attributes(is: Attributes) -> impl Iterator<Item = &'static str> {
    let wrong = [
        (!is.login, "LOGIN"),
        (is.superuser, "NOSUPERUSER"),
        (is.create_database, "NOCREATEDB"),
        (is.create_role, "NOCREATEROLE"),
        (is.replication, "NOREPLICATION"),
        (is.bypass_rls, "NOBYPASSRLS"),
    ];
    wrong.into_iter().filter_map(|(wrong, attribute)| wrong.then_some(attribute))
}

fn of_database(service: &Service, observed: &Observed) -> Vec<Difference> {
    let database = &service.database;
    let difference = |item: &str, state, must: &str, remedy| Difference {
        kind: "database",
        name: database.clone(),
        item: item.to_owned(),
        state,
        is: None,
        must: must.to_owned(),
        remedy,
    };
    let found = observed.databases.get(database);
    let mut differences = Vec::new();
    match found {
        None => {
            let (owner, database) = (service.role("owner"), database.clone());
            let must = format!("a database of {owner}");
            let create = Remedy::Apply(Action::CreateDatabase { database, owner });
            differences.push(difference("", State::Missing, &must, create));
        }
        Some(found) if found.encoding != "UTF8" => {
            let how = Remedy::Person("make the database anew with ENCODING 'UTF8'".to_owned());
            let wrong = difference("encoding", State::Differs, "UTF8", how);
            differences.push(Difference { is: Some(found.encoding.clone()), ..wrong });
        }
        Some(_) => {}
    }
    if is_open(found) {
        let close = Remedy::Apply(Action::CloseDatabase { database: database.clone() });
        differences.push(difference("PUBLIC", State::Unwanted, "nothing for everybody", close));
    }
    for (part, privilege) in [("owner", "CREATE"), ("owner", "CONNECT"), ("app", "CONNECT"), ("system", "CONNECT")] {
        let role = service.role(part);
        let granted = found.is_some_and(|found| found.grants.contains(&(role.clone(), privilege.to_owned())));
        if !granted {
            let must = format!("{privilege} for {role}");
            let grant = Remedy::Apply(Action::Grant { database: database.clone(), role, privilege });
            differences.push(difference("grant", State::Missing, &must, grant));
        }
    }
    let inside = |state, must: &str, remedy| difference("schema public", state, must, remedy);
    match found.map_or(Some(true), |found| found.public_schema_open) {
        Some(false) => {}
        Some(true) => {
            let close = Remedy::Apply(Action::CloseSchema { database: database.clone() });
            differences.push(inside(State::Unwanted, "nothing for everybody", close));
        }
        None => {
            let how = format!("let {} connect to the database", observed.admin.name);
            differences.push(inside(State::Hidden, "nothing for everybody", Remedy::Person(how)));
        }
    }
    differences
}

/// Everybody may connect to a new database.
fn is_open(found: Option<&Database>) -> bool {
    found.is_none_or(|found| found.grants.iter().any(|(role, _)| role == "PUBLIC"))
}

/// What `apply` would be refused.
fn rights(observed: &Observed, differences: &[Difference]) -> Vec<Difference> {
    let admin = &observed.admin;
    let needs = |matches: fn(&Action) -> bool| differences.iter().filter_map(Difference::action).any(matches);
    let roles = |action: &Action| {
        matches!(action, Action::CreateRole { .. } | Action::SetPassword { .. } | Action::SetAttribute { .. })
    };
    let missing = |right: &str, why: &str| Difference {
        kind: "right",
        name: admin.name.clone(),
        item: right.to_owned(),
        state: State::Missing,
        is: None,
        must: why.to_owned(),
        remedy: Remedy::Person(format!("ALTER ROLE {} {right}", admin.name)),
    };
    let mut missing_rights = Vec::new();
    if needs(roles) && !admin.superuser && !admin.create_role {
        missing_rights.push(missing("CREATEROLE", "to make and change roles"));
    }
    let databases = |action: &Action| matches!(action, Action::CreateDatabase { .. });
    if needs(databases) && !admin.superuser && !admin.create_database {
        missing_rights.push(missing("CREATEDB", "to make databases"));
    }
    missing_rights
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::Admin;
    use super::*;

    fn wanted() -> Wanted {
        let service = Service { name: "control".to_owned(), database: "sluice_control".to_owned() };
        Wanted { services: vec![service], passwords: BTreeMap::new() }
    }

    fn empty() -> Observed {
        let admin = Admin { name: "dba".to_owned(), superuser: false, create_role: true, create_database: true };
        Observed {
            admin,
            version: 150_004,
            roles: BTreeMap::new(),
            locked_out: BTreeSet::new(),
            databases: BTreeMap::new(),
        }
    }

    fn complete() -> Observed {
        let service = &wanted().services[0];
        let grant = |part: &str, privilege: &str| (service.role(part), privilege.to_owned());
        let database = Database {
            encoding: "UTF8".to_owned(),
            grants: [
                grant("owner", "CREATE"),
                grant("owner", "CONNECT"),
                grant("owner", "TEMPORARY"),
                grant("app", "CONNECT"),
                grant("system", "CONNECT"),
            ]
            .into(),
            public_schema_open: Some(false),
        };
        let login = Attributes { login: true, ..Attributes::default() };
        Observed {
            roles: service.roles().map(|role| (role, login)).into(),
            databases: [(service.database.clone(), database)].into(),
            ..empty()
        }
    }

    #[test]
    fn a_complete_installation_has_no_difference() {
        assert_eq!(plan(&wanted(), &complete()), []);
    }

    #[test]
    fn an_empty_server_gets_roles_before_their_database_and_the_database_before_its_grants() {
        let differences = plan(&wanted(), &empty());
        let kinds: Vec<_> = differences.iter().map(|difference| (difference.kind, difference.item.as_str())).collect();
        let role = ("role", "");
        let grant = ("database", "grant");
        let rest =
            [("database", ""), ("database", "PUBLIC"), grant, grant, grant, grant, ("database", "schema public")];
        assert_eq!(kinds, [[role, role, role].as_slice(), &rest].concat());
        assert!(differences.iter().all(|difference| difference.action().is_some()));
    }

    #[test]
    fn a_role_that_bypasses_row_level_security_is_put_right() {
        let mut observed = complete();
        observed.roles.get_mut("sluice_control_app").expect("a role").bypass_rls = true;
        let differences = plan(&wanted(), &observed);
        let [difference] = differences.as_slice() else { panic!("{differences:?}") };
        let role = "sluice_control_app".to_owned();
        assert_eq!(difference.action(), Some(&Action::SetAttribute { role, attribute: "NOBYPASSRLS" }));
    }

    #[test]
    fn rights_that_our_own_role_lacks_are_told_only_where_they_are_needed() {
        let mut observed = empty();
        observed.admin.create_role = false;
        observed.admin.create_database = false;
        let rights = |observed: &Observed| {
            let differences = plan(&wanted(), observed);
            let rights = differences.into_iter().filter(|difference| difference.kind == "right");
            rights.map(|difference| difference.item).collect::<Vec<_>>()
        };
        assert_eq!(rights(&observed), ["CREATEROLE", "CREATEDB"]);
        assert_eq!(rights(&Observed { admin: observed.admin, ..complete() }), [] as [String; 0]);
    }

    #[test]
    fn an_encoding_that_cannot_hold_all_names_is_a_persons_work() {
        let mut observed = complete();
        observed.databases.get_mut("sluice_control").expect("a database").encoding = "LATIN1".to_owned();
        let differences = plan(&wanted(), &observed);
        let [difference] = differences.as_slice() else { panic!("{differences:?}") };
        assert_eq!((difference.is.as_deref(), difference.action()), (Some("LATIN1"), None));
    }
}
