//! The Kafka clusters of an installation: the first one, which has the internal topics, and those that the operator added.
//!
//! Each cluster has a client of its own, with its own connections. What one cluster does, or does not do any more, is
//! nothing that the client of another one waits for.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_runtime::config::{Faults, KafkaConfig, Validate};
use sluice_types::ClusterUid;
use sluice_wire::Client;

use crate::error::Error;
use crate::frame::kafka_client;

/// The section `[clusters]`: a table `[clusters.<cluster uid>]` for each cluster but the first, with the keys of `[kafka]`. The uid is
/// what the operator's `CreateCluster` answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct ClustersConfig(BTreeMap<String, KafkaConfig>);

impl ClustersConfig {
    /// Of these clusters.
    pub fn new(clusters: impl IntoIterator<Item = (ClusterUid, KafkaConfig)>) -> Self {
        Self(clusters.into_iter().map(|(uid, config)| (uid.to_string(), config)).collect())
    }

    /// Whether there is none: the installation has the first cluster only. For `skip_serializing_if`, too.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each with its uid.
    ///
    /// # Errors
    /// The first name that is no uid, or is that of the first cluster, and why it is refused.
    pub fn read(&self) -> Result<BTreeMap<ClusterUid, &KafkaConfig>, String> {
        self.0.iter().map(|(text, config)| Ok((uid(text)?, config))).collect()
    }
}

/// The uid of a cluster that may have a section of its own.
fn uid(text: &str) -> Result<ClusterUid, String> {
    match text.parse() {
        Ok(ClusterUid::FIRST) => Err(format!("{text} is the first cluster, whose section is [kafka]")),
        Ok(uid) => Ok(uid),
        Err(_) => Err("is not a cluster's uid: 13 characters of a-z and 2-7, the first one of a-p".to_owned()),
    }
}

impl Validate for ClustersConfig {
    fn faults(&self, faults: &mut Faults) {
        for (text, config) in &self.0 {
            if let Err(what) = uid(text) {
                faults.add(text, what);
            }
            faults.section(text, config);
        }
    }

    fn files(&self, faults: &mut Faults) {
        for (text, config) in &self.0 {
            faults.section_files(text, config);
        }
    }
}

/// A Kafka cluster that the configuration names.
#[derive(Clone)]
pub struct ClusterAccess {
    /// Which one it is.
    pub uid: ClusterUid,
    /// How it is reached.
    pub config: KafkaConfig,
    /// Our own client of it. Connects when it is first used; clones share its connections.
    pub client: Client,
}

/// The Kafka clusters that the configuration names. Does not change while the process runs. Clones are the same.
#[derive(Clone)]
pub struct Clusters(Arc<All>);

struct All {
    system: ClusterAccess,
    others: BTreeMap<ClusterUid, ClusterAccess>,
}

impl Clusters {
    /// With a client for each, which says that it is of the role `name`. Connects to none of them.
    ///
    /// # Errors
    /// A section's name is no uid, or one of its files cannot be used.
    pub fn new(name: &str, first: &KafkaConfig, others: &ClustersConfig) -> Result<Self, Error> {
        let others = others.read().map_err(Error::Refused)?;
        let access = |uid, config: &KafkaConfig| {
            let key = match uid {
                ClusterUid::FIRST => "kafka.password_file",
                _ => "clusters.<uid>.password_file",
            };
            Ok::<_, Error>(ClusterAccess { uid, config: config.clone(), client: kafka_client(name, key, config)? })
        };
        Ok(Self(Arc::new(All {
            system: access(ClusterUid::FIRST, first)?,
            others: others
                .into_iter()
                .map(|(uid, config)| Ok((uid, access(uid, config)?)))
                .collect::<Result<_, Error>>()?,
        })))
    }

    /// The first cluster: it has the internal topics (`sluice.*`).
    pub fn system(&self) -> &ClusterAccess {
        &self.0.system
    }

    /// One of them; `None` if the configuration does not name it.
    pub fn get(&self, uid: ClusterUid) -> Option<&ClusterAccess> {
        if uid == ClusterUid::FIRST { Some(&self.0.system) } else { self.0.others.get(&uid) }
    }

    /// All of them, the first one first, the others by uid.
    pub fn iter(&self) -> impl Iterator<Item = &ClusterAccess> {
        std::iter::once(&self.0.system).chain(self.0.others.values())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sluice_runtime::config::{SecretFile, parse};

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Config {
        #[serde(default)]
        clusters: ClustersConfig,
    }

    impl Validate for Config {
        fn faults(&self, faults: &mut Faults) {
            faults.section("clusters", &self.clusters);
        }
    }

    fn section(uid: &str, bootstrap: &str) -> String {
        format!(
            "[clusters.{uid}]\nbootstrap = [\"{bootstrap}\"]\nca = \"ca.pem\"\nusername = \"u\"\npassword_file = \"p\"\n"
        )
    }

    fn read(text: &str) -> Result<Config, Vec<String>> {
        let read = parse::<Config>(text, Path::new("a.toml"));
        read.map_err(|error| error.faults.into_iter().map(|fault| fault.at).collect())
    }

    #[test]
    fn a_section_is_a_cluster_and_none_is_none() {
        assert!(read("").expect("none").clusters.is_empty());
        let uid = ClusterUid::random();
        let config = read(&section(&uid.to_string(), "b:1")).expect("one").clusters;
        assert_eq!(config.read().expect("uids").keys().copied().collect::<Vec<_>>(), [uid]);
        assert_eq!(ClustersConfig::new([(uid, config.read().expect("uids")[&uid].clone())]), config);
    }

    #[test]
    fn names_that_are_no_uid_the_first_cluster_and_wrong_values_are_faults() {
        let first = ClusterUid::FIRST.to_string();
        let text = [section("second", "b:1"), section(&first, "b:1"), section("baaaaaaaaaaaa", "b")].concat();
        let faults = read(&text).expect_err("three faults");
        assert_eq!(
            faults,
            [format!("clusters.{first}"), "clusters.baaaaaaaaaaaa.bootstrap".into(), "clusters.second".into()]
        );
    }

    #[test]
    fn clusters_are_known_by_uid_and_the_first_comes_first() {
        let dir = tempfile::tempdir().expect("directory");
        let ca = sluice_devstack::Ca::load_or_create(&dir.path().join("ca")).expect("CA");
        let password = dir.path().join("password");
        std::fs::write(&password, "hush").expect("write");
        std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
        let config = |port: u16| KafkaConfig {
            bootstrap: vec![format!("127.0.0.1:{port}")],
            ca: ca.cert_file(),
            username: "u".into(),
            password_file: SecretFile::new(&password),
        };
        let uid = ClusterUid::random();
        let clusters = Clusters::new("noted", &config(1), &ClustersConfig::new([(uid, config(2))])).expect("clusters");
        assert_eq!(clusters.iter().map(|cluster| cluster.uid).collect::<Vec<_>>(), [ClusterUid::FIRST, uid]);
        assert_eq!(clusters.system().config, config(1));
        assert_eq!(clusters.get(ClusterUid::FIRST).expect("first").config, config(1));
        assert_eq!(clusters.get(uid).expect("second").config, config(2));
        assert!(clusters.get(ClusterUid::random()).is_none());
    }
}
