//! What differs between what must be and what is there. Pure.

use std::collections::BTreeSet;

use sluice_wire::AclOperation;

use super::{Action, Difference, Observed, Unseen, Wanted, access, brokers, topics};
use crate::difference::{Remedy, State};

/// All differences, in the order in which they are best mended.
pub fn plan(wanted: &Wanted, observed: &Observed) -> Vec<Difference> {
    let mut differences = users(wanted, observed);
    match &observed.access {
        Ok(present) => differences.extend(access::plan(&wanted.principals, present)),
        Err(unseen) => differences.push(hidden(wanted, "access", "all rules", unseen)),
    }
    for (name, found) in &observed.topics {
        match found {
            Ok(found) => {
                let replication = topics::replication(wanted.replication, observed.brokers.len());
                differences.extend(topics::plan(name, found, replication));
            }
            Err(unseen) => differences.push(hidden(wanted, "topic", name, unseen)),
        }
    }
    for (broker, found) in &observed.brokers {
        match found {
            Ok(found) => differences.extend(brokers::plan(*broker, found)),
            Err(unseen) => differences.push(hidden(wanted, "broker", &broker.to_string(), unseen)),
        }
    }
    differences.extend(right(wanted, observed, &differences));
    differences
}

fn users(wanted: &Wanted, observed: &Observed) -> Vec<Difference> {
    let present = match &observed.users {
        Ok(present) => present,
        Err(unseen) => return vec![hidden(wanted, "user", "all users", unseen)],
    };
    let distinct: BTreeSet<&str> = wanted.principals.by_role().into_iter().map(|(_, user)| user).collect();
    let wrong = distinct.into_iter().filter_map(|user| {
        let (item, state, must) = if !present.contains(user) {
            ("", State::Missing, "a user with SCRAM-SHA-512")
        } else if observed.locked_out.contains(user) {
            ("password", State::Differs, "the password in its file")
        } else {
            return None;
        };
        Some(Difference {
            kind: "user",
            name: user.to_owned(),
            item: item.to_owned(),
            state,
            is: None,
            must: must.to_owned(),
            remedy: Remedy::Apply(Action::SetPassword { user: user.to_owned() }),
        })
    });
    wrong.collect()
}

/// What `apply` would be refused.
fn right(wanted: &Wanted, observed: &Observed, differences: &[Difference]) -> Option<Difference> {
    let needed = differences.iter().any(|difference| {
        matches!(difference.action(), Some(Action::SetPassword { .. } | Action::AddRules(_) | Action::RemoveRules(_)))
    });
    let has = |operation| observed.rights.contains(&operation);
    (needed && !has(AclOperation::Alter) && !has(AclOperation::All)).then(|| Difference {
        kind: "right",
        name: wanted.admin.clone(),
        item: "Alter on the cluster".to_owned(),
        state: State::Missing,
        is: None,
        must: "to make users and access rules".to_owned(),
        remedy: Remedy::Person(grant(wanted, "Alter on the cluster")),
    })
}

fn hidden(wanted: &Wanted, kind: &'static str, name: &str, unseen: &Unseen) -> Difference {
    let (state, must, how) = match unseen {
        Unseen::Right(right) => (State::Hidden, format!("{} needs {right}", wanted.admin), grant(wanted, right)),
        Unseen::NoAuthorizer => (
            State::Missing,
            "an authorizer".to_owned(),
            "set authorizer.class.name on the brokers: without one everybody may do everything".to_owned(),
        ),
    };
    Difference { kind, name: name.to_owned(), item: String::new(), state, is: None, must, remedy: Remedy::Person(how) }
}

fn grant(wanted: &Wanted, right: &str) -> String {
    format!("give User:{} {right} (kafka-acls.sh --add)", wanted.admin)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Principals, topics::Found};
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            admin: "installer".to_owned(),
            principals: Principals::default(),
            internal_topics: true,
            replication: None,
            passwords: BTreeMap::new(),
        }
    }

    fn empty() -> Observed {
        Observed {
            rights: [AclOperation::Alter, AclOperation::Describe].into(),
            brokers: [(1, Ok(BTreeMap::new()))].into(),
            topics: topics::NAMES.map(|name| (name.to_owned(), Ok(Found::Absent { refused: None }))).into(),
            access: Ok(Vec::new()),
            users: Ok(BTreeSet::new()),
            locked_out: BTreeSet::new(),
        }
    }

    fn kinds(differences: &[Difference], kind: &str) -> usize {
        differences.iter().filter(|difference| difference.kind == kind).count()
    }

    #[test]
    fn an_empty_cluster_lacks_everything_and_apply_can_make_it() {
        let differences = plan(&wanted(), &empty());
        assert_eq!((kinds(&differences, "user"), kinds(&differences, "topic")), (4, 3));
        assert!(kinds(&differences, "access") >= 4);
        assert!(
            differences.iter().all(|difference| difference.state == State::Missing && difference.action().is_some())
        );
    }

    #[test]
    fn a_password_that_kafka_refuses_differs() {
        let mut observed = empty();
        let names = wanted().principals.by_role().map(|(_, name)| name.to_owned());
        observed.locked_out = [names[0].clone()].into();
        observed.users = Ok(names.into());
        let differences = plan(&wanted(), &observed);
        let users: Vec<_> = differences.iter().filter(|difference| difference.kind == "user").collect();
        assert_eq!(users.len(), 1);
        assert_eq!(users[0].state, State::Differs);
    }

    #[test]
    fn what_may_not_be_seen_is_told_with_the_right_that_is_missing_beside_the_rest() {
        let mut observed = empty();
        observed.access = Err(Unseen::Right("Describe on the cluster"));
        let differences = plan(&wanted(), &observed);
        let hidden: Vec<_> = differences.iter().filter(|difference| difference.state == State::Hidden).collect();
        assert_eq!(hidden.len(), 1);
        assert_eq!(hidden[0].must, "installer needs Describe on the cluster");
        assert_eq!(kinds(&differences, "topic"), 3);
    }

    #[test]
    fn a_principal_without_alter_is_told_before_it_applies() {
        let mut observed = empty();
        observed.rights = [AclOperation::Describe].into();
        let differences = plan(&wanted(), &observed);
        let right = differences.iter().find(|difference| difference.kind == "right").expect("a missing right");
        assert_eq!(right.item, "Alter on the cluster");
        assert_eq!(right.action(), None);
    }
}
