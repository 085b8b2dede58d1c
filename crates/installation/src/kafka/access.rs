//! Who may do what on Kafka: for each role what it does, and no more. No rule denies.
//!
//! Kafka has no patterns beyond "begins with". A tenant's topic is `{13 base32}.{13 base32}`; ours begin with `sluice.`,
//! Kafka's own with `__`. One rule for `*` would open the latter two, and a deny beside it would have to know every
//! topic that we will ever add. Instead the rules name the fewest beginnings that cover every base32 name and none of
//! ours ([`tenant_prefixes`], 218 of them), so that a new `sluice.` topic is closed until somebody opens it.
//!
//! Of the rules that exist, ours are those that allow one of our principals something on a name that our rules name, on any
//! name that begins with `sluice.`, or on `*`. The others are left alone: what denies is somebody's intention.

mod grants;

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use sluice_types::physical::INTERNAL_PREFIX;
use sluice_wire::{AclBinding, AclFilter, Client, Error, PatternType, Permission, ResourceType};

pub use self::grants::Grant;
use self::grants::grants;
use super::{Action, Difference, Principals};
use crate::difference::{Remedy, State};

/// Rules in one request.
const RULES_PER_REQUEST: usize = 500;

/// All rules.
pub fn rules(principals: &Principals) -> Vec<AclBinding> {
    grants(principals).iter().flat_map(Grant::rules).collect()
}

/// What differs, one difference for each grant of which rules are missing, and one for each principal that may do more.
pub fn plan(principals: &Principals, present: &[AclBinding]) -> Vec<Difference> {
    let known: HashSet<&AclBinding> = present.iter().collect();
    let grants = grants(principals);
    let mut differences: Vec<Difference> = grants.iter().filter_map(|grant| missing(grant, &known)).collect();
    let wanted: HashSet<AclBinding> = grants.iter().flat_map(Grant::rules).collect();
    let names: HashSet<&str> = wanted.iter().map(|rule| rule.name.as_str()).collect();
    for (_, user) in principals.by_role() {
        let principal = format!("User:{user}");
        let surplus = present
            .iter()
            .filter(|rule| rule.principal == principal && is_ours(rule, &names) && !wanted.contains(rule));
        differences.extend(unwanted(user, surplus.cloned().collect()));
    }
    differences
}

/// Makes the rules as they must be, and leaves those of others alone.
pub async fn ensure(kafka: &Client, principals: &Principals, within: Duration) -> Result<(), Error> {
    let present = kafka.describe_acls(&AclFilter::default(), within).await?;
    for difference in plan(principals, &present) {
        match difference.action() {
            Some(Action::AddRules(rules)) => add(kafka, rules, within).await?,
            Some(Action::RemoveRules(rules)) => remove(kafka, rules, within).await?,
            _ => {}
        }
    }
    Ok(())
}

pub(super) async fn add(kafka: &Client, rules: &[AclBinding], within: Duration) -> Result<(), Error> {
    for some in rules.chunks(RULES_PER_REQUEST) {
        kafka.create_acls(some, within).await?;
    }
    Ok(())
}

pub(super) async fn remove(kafka: &Client, rules: &[AclBinding], within: Duration) -> Result<(), Error> {
    for some in rules.chunks(RULES_PER_REQUEST) {
        kafka.delete_acl_bindings(some, within).await?;
    }
    Ok(())
}

fn is_ours(rule: &AclBinding, names: &HashSet<&str>) -> bool {
    let name = rule.name.as_str();
    rule.permission == Permission::Allow && (name == "*" || name.starts_with(INTERNAL_PREFIX) || names.contains(name))
}

fn missing(grant: &Grant, known: &HashSet<&AclBinding>) -> Option<Difference> {
    let rules = grant.rules();
    let all = rules.len();
    let missing: Vec<AclBinding> = rules.into_iter().filter(|rule| !known.contains(rule)).collect();
    let must = match missing.as_slice() {
        [] => return None,
        [one] if all > 1 => shown(one),
        _ => grant.operations(),
    };
    Some(Difference {
        kind: "access",
        name: grant.user.clone(),
        item: grant.what.clone(),
        state: State::Missing,
        is: Some(format!("{} of {all} rules", all - missing.len())),
        must,
        remedy: Remedy::Apply(Action::AddRules(missing)),
    })
}

fn unwanted(user: &str, surplus: Vec<AclBinding>) -> Option<Difference> {
    // Which is listed, in a fixed order; a handful is enough to know what it is about.
    let shown: BTreeSet<String> = surplus.iter().map(shown).collect();
    let first = shown.first()?;
    let is = if shown.len() == 1 { first.clone() } else { format!("{first} and {} more", shown.len() - 1) };
    Some(Difference {
        kind: "access",
        name: user.to_owned(),
        item: "more than it needs".to_owned(),
        state: State::Unwanted,
        is: Some(is),
        must: "no such rule".to_owned(),
        remedy: Remedy::Apply(Action::RemoveRules(surplus)),
    })
}

fn shown(rule: &AclBinding) -> String {
    let resource = match rule.resource {
        ResourceType::Topic => "topic",
        ResourceType::Group => "group",
        ResourceType::Cluster => "cluster",
        _ => "transactional id",
    };
    let end = if rule.pattern == PatternType::Prefixed { "…" } else { "" };
    format!("{:?} on {resource} {}{end}", rule.operation, rule.name)
}

#[cfg(test)]
mod tests;
