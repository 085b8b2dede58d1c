//! Every 30 s all of it: every intent against every physical topic, whoever changed what without telling.
//!
//! Each cluster is looked at by itself. What cannot be seen of one says nothing about the topics of another.
//!
//! Scans all topics and asks for the configs of each; fine to some ten thousand within the 30 s, then by slices.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt as _;
use futures::future::join_all;
use sluice_types::ClusterUid;
use sluice_types::physical::PhysicalTopic;

use super::reconcile::Reconciler;
use crate::cluster::{Cluster, ClusterError};
use crate::domain::configs;
use crate::domain::intent::{Intent, Want};
use crate::domain::orphans::Orphans;
use crate::domain::plan::Physical;
use crate::intents::CallError;

/// Topics of a cluster whose configs are asked for at once.
const CONFIGS_AT_ONCE: usize = 16;

/// Why a resync did not come about.
#[derive(Debug, thiserror::Error)]
pub enum ResyncError {
    /// The control plane.
    #[error("read intents")]
    Intents(#[from] CallError),
}

/// What a resync found.
#[derive(Debug, Default)]
pub struct Found {
    /// Intents that the world does not match, or that were never seen to match.
    pub work: Vec<Intent>,
    /// Of those, the ones that did match once.
    pub drifted: u64,
    /// Physical topics that no intent names, seen twice.
    pub orphans: usize,
    /// How many intents there are.
    pub intents: usize,
    /// Clusters that could not be looked at: nothing is known of their topics.
    pub unseen: BTreeMap<ClusterUid, ClusterError>,
}

/// Compares all with all.
pub async fn resync(
    reconciler: &Reconciler,
    orphans: &mut BTreeMap<ClusterUid, Orphans>,
) -> Result<Found, ResyncError> {
    // The world first: what it shows was intended before, so a later list of intents has it.
    let listings = reconciler.clusters.values().map(|cluster| async move { (cluster, cluster.list().await) });
    let listings = join_all(listings).await;
    let mut intents: BTreeMap<ClusterUid, Vec<Intent>> = BTreeMap::new();
    let mut found = Found::default();
    for intent in reconciler.intents.list().await? {
        found.intents += 1;
        intents.entry(intent.cluster).or_default().push(intent);
    }
    let mut comparisons = Vec::new();
    for (cluster, listing) in listings {
        let intents = intents.remove(&cluster.uid()).unwrap_or_default();
        match listing {
            Ok(world) => {
                found.orphans += strays(orphans.entry(cluster.uid()).or_default(), &world, &intents);
                comparisons.push(compare(cluster, world, intents));
            }
            Err(error) => drop(found.unseen.insert(cluster.uid(), error)),
        }
    }
    // On clusters that nobody told us of: a run says so.
    found.work.extend(intents.into_values().flatten());
    for (work, drifted) in join_all(comparisons).await {
        found.work.extend(work);
        found.drifted += drifted;
    }
    Ok(found)
}

/// Tells of physical topics of one cluster that no intent names; how many.
fn strays(orphans: &mut Orphans, world: &BTreeMap<PhysicalTopic, Physical>, intents: &[Intent]) -> usize {
    let intended: HashSet<PhysicalTopic> = intents.iter().map(Intent::name).collect();
    let strays = orphans.judge(world.iter().map(|(name, physical)| (name.clone(), physical.topic_id)), &intended);
    for (name, id) in &strays {
        tracing::error!(?name, %id, "physical topic that no intent names; it is left alone: look whose it is");
    }
    strays.len()
}

/// The intents of one cluster that its topics do not match, and how many of them did once.
async fn compare(
    cluster: &Cluster,
    world: BTreeMap<PhysicalTopic, Physical>,
    intents: Vec<Intent>,
) -> (Vec<Intent>, u64) {
    let (world, silent) = (&world, &AtomicBool::new(false));
    let checked: Vec<(Intent, bool)> = futures::stream::iter(intents)
        .map(|intent| async move {
            let matches = matches(cluster, &intent, world.get(&intent.name()), silent).await;
            (intent, matches)
        })
        .buffer_unordered(CONFIGS_AT_ONCE)
        .collect()
        .await;
    let (mut work, mut drifted) = (Vec::new(), 0);
    for (intent, matches) in checked {
        if !matches {
            drifted += u64::from(intent.want == Want::Present && intent.observed_generation == intent.generation);
            work.push(intent);
        }
    }
    (work, drifted)
}

/// Whether nothing is to be done. In doubt something is: a run looks closer and is harmless. A cluster that fell silent is not
/// asked any more: each question would take its whole time.
async fn matches(cluster: &Cluster, intent: &Intent, physical: Option<&Physical>, silent: &AtomicBool) -> bool {
    let Some(physical) = physical else { return false };
    let settled = intent.want == Want::Present
        && intent.observed_generation == intent.generation
        && intent.kafka_topic_id == Some(physical.topic_id)
        && physical.partitions >= intent.partitions;
    if !settled {
        return false;
    }
    let Ok(wanted) = configs::effective(&intent.configs) else { return false };
    if silent.load(Ordering::Relaxed) {
        return true;
    }
    match cluster.configs(&intent.name()).await {
        Ok(actual) => configs::changes(&wanted, &actual).is_empty(),
        // Kafka is troubled: no drift was seen, and the next resync looks again.
        Err(error) => {
            silent.fetch_or(error.is_no_answer(), Ordering::Relaxed);
            true
        }
    }
}
