//! Every 30 s all of it: every intent against every physical topic, whoever changed what without telling.
//!
//! Scans all topics and asks for the configs of each; fine to some ten thousand within the 30 s, then by slices.

use std::collections::{HashMap, HashSet};

use futures::StreamExt as _;
use sluice_types::physical::PhysicalTopic;

use super::reconcile::Reconciler;
use crate::cluster::ClusterError;
use crate::domain::configs;
use crate::domain::intent::{Intent, Want};
use crate::domain::orphans::Orphans;
use crate::domain::plan::Physical;
use crate::intents::CallError;

/// Topics whose configs are asked for at once.
const CONFIGS_AT_ONCE: usize = 16;

/// Why a resync did not come about.
#[derive(Debug, thiserror::Error)]
pub enum ResyncError {
    /// Kafka.
    #[error("list physical topics")]
    Kafka(#[from] ClusterError),
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
    /// All topics that intents name.
    pub intended: HashSet<PhysicalTopic>,
}

/// Compares all with all.
pub async fn resync(reconciler: &Reconciler, orphans: &mut Orphans) -> Result<Found, ResyncError> {
    // The world first: what it shows was intended before, so a later list of intents has it.
    let world = reconciler.cluster.list().await?;
    let intents = reconciler.intents.list().await?;
    let intended: HashSet<PhysicalTopic> = intents.iter().map(Intent::name).collect();
    let strays = orphans.judge(world.iter().map(|(name, physical)| (name.clone(), physical.topic_id)), &intended);
    for (name, id) in &strays {
        tracing::error!(?name, %id, "physical topic that no intent names; it is left alone: look whose it is");
    }
    let world: HashMap<PhysicalTopic, Physical> = world.into_iter().collect();
    let mut found = Found { orphans: strays.len(), intended, ..Found::default() };
    let checked: Vec<(Intent, bool)> = futures::stream::iter(intents)
        .map(|intent| async {
            let matches = matches(reconciler, &intent, world.get(&intent.name())).await;
            (intent, matches)
        })
        .buffer_unordered(CONFIGS_AT_ONCE)
        .collect()
        .await;
    for (intent, matches) in checked {
        if !matches {
            found.drifted += u64::from(intent.want == Want::Present && intent.observed_generation == intent.generation);
            found.work.push(intent);
        }
    }
    Ok(found)
}

/// Whether nothing is to be done. In doubt something is: a run looks closer and is harmless.
async fn matches(reconciler: &Reconciler, intent: &Intent, physical: Option<&Physical>) -> bool {
    let Some(physical) = physical else { return false };
    let settled = intent.want == Want::Present
        && intent.observed_generation == intent.generation
        && intent.kafka_topic_id == Some(physical.topic_id)
        && physical.partitions >= intent.partitions;
    if !settled {
        return false;
    }
    let Ok(wanted) = configs::effective(&intent.configs) else { return false };
    match reconciler.cluster.configs(&intent.name()).await {
        Ok(actual) => configs::changes(&wanted, &actual).is_empty(),
        // Kafka is troubled: no drift was seen, and the next resync looks again.
        Err(_) => true,
    }
}
