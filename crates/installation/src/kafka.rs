//! What a Kafka cluster needs to be ours.
//!
//! Rights that our own principal needs: Describe and DescribeConfigs on the cluster to look; Alter on the cluster for users and
//! access rules; Create, Describe, DescribeConfigs and AlterConfigs on topics that begin with `sluice.`. It need not be a super user.

pub mod access;
mod apply;
pub mod brokers;
mod observe;
mod plan;
pub mod principals;
pub mod topics;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use secrecy::SecretString;
use sluice_wire::{AclBinding, AclOperation, ConfigEntry};

pub use apply::{ApplyError, apply};
pub use observe::observe;
pub use plan::plan;
pub use principals::Principals;

use crate::difference;

/// What must be.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Our own principal, which looks and applies.
    pub admin: String,
    /// The processes' principals.
    pub principals: Principals,
    /// Whether it has the internal topics: the first cluster of an installation, and no other.
    pub internal_topics: bool,
    /// Replicas of internal topics; absent: one on each of up to three brokers.
    pub replication: Option<u8>,
    /// Passwords of principals, where they are known. One that is not known is not checked.
    pub passwords: BTreeMap<String, SecretString>,
}

/// What is there. What we may not see says so.
#[derive(Debug, Clone)]
pub struct Observed {
    /// What our principal may do on the cluster as a whole.
    pub rights: HashSet<AclOperation>,
    /// Settings of each broker that answers, by its id.
    pub brokers: BTreeMap<i32, Seen<BTreeMap<String, ConfigEntry>>>,
    /// Internal topics by name.
    pub topics: BTreeMap<String, Seen<topics::Found>>,
    /// All access rules.
    pub access: Seen<Vec<AclBinding>>,
    /// Principals with a password.
    pub users: Seen<BTreeSet<String>>,
    /// Those of them that Kafka does not let in with the password we know.
    pub locked_out: BTreeSet<String>,
}

/// What was seen, or why it was not.
pub type Seen<T> = Result<T, Unseen>;

/// Why something could not be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unseen {
    /// Our principal has no right to.
    Right(&'static str),
    /// The cluster has no authorizer: there are no rules, and everybody may do everything.
    NoAuthorizer,
}

/// What mends a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make a user, or set its password.
    SetPassword {
        /// The user.
        user: String,
    },
    /// Make an internal topic.
    CreateTopic {
        /// Its name.
        name: String,
        /// Replicas of each partition.
        replication: usize,
    },
    /// Set a topic's setting.
    SetTopicSetting {
        /// The topic.
        topic: String,
        /// Kafka's name of the setting.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// Add access rules.
    AddRules(Vec<AclBinding>),
    /// Remove access rules of our principals.
    RemoveRules(Vec<AclBinding>),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetPassword { user } => write!(f, "set the password of {user}, which makes the user"),
            Self::CreateTopic { name, replication } => write!(f, "make {name} with {replication} replicas"),
            Self::SetTopicSetting { topic, key, value } => write!(f, "set {key}={value} on {topic}"),
            Self::AddRules(rules) => write!(f, "add {}", counted(rules)),
            Self::RemoveRules(rules) => write!(f, "remove {}", counted(rules)),
        }
    }
}

fn counted(rules: &[AclBinding]) -> String {
    if rules.len() == 1 { "1 rule".to_owned() } else { format!("{} rules", rules.len()) }
}

/// A difference of a Kafka cluster.
pub type Difference = difference::Difference<Action>;
