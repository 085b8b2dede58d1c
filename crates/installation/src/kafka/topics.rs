//! The internal topics: how they are laid out and set, what is there, what differs.

mod layout;

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_types::physical::{CONTROL_TOPIC, MEMBERS_TOPIC, USAGE_TOPIC};
use sluice_wire::{Client, ConfigChange, ConfigEntry, Error, NewTopic, Topic, code};

use self::layout::{Layout, layout};
use super::{Action, Difference};
use crate::difference::{Remedy, State};

/// All internal topics.
pub const NAMES: [&str; 3] = [CONTROL_TOPIC, MEMBERS_TOPIC, USAGE_TOPIC];
/// Replicas of a topic that is made, if the operator did not say and there are so many brokers.
const REPLICATION: usize = 3;

/// A topic as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is not there; why Kafka would refuse to make it, if it would.
    Absent {
        /// What Kafka said.
        refused: Option<String>,
    },
    /// It is there.
    Present(Present),
}

/// A topic that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// How many partitions it has.
    pub partitions: usize,
    /// Replicas of the partition that has the fewest.
    pub replicas: usize,
    /// The settings that we rely on.
    pub settings: BTreeMap<String, ConfigEntry>,
}

/// How many replicas an internal topic gets: what the operator said, or one on each of up to three brokers.
pub fn replication(wanted: Option<u8>, brokers: usize) -> usize {
    wanted.map_or_else(|| brokers.clamp(1, REPLICATION), usize::from)
}

/// An internal topic to be made.
pub fn new_topic(name: &str, replication: usize) -> NewTopic {
    let layout = layout(name, replication);
    NewTopic {
        name: name.to_owned(),
        partitions: i32::from(layout.partitions),
        replication: i16::try_from(replication).unwrap_or(i16::MAX),
        configs: layout.settings.into_iter().map(|setting| (setting.key.to_owned(), setting.value)).collect(),
    }
}

/// Makes it; one that is there by now is as good.
pub async fn create(kafka: &Client, name: &str, replication: usize, within: Duration) -> Result<(), Error> {
    match kafka.create_topic(&new_topic(name, replication), within).await {
        Err(Error::Kafka(error)) if error.code == code::TOPIC_ALREADY_EXISTS => Ok(()),
        other => other.map(drop),
    }
}

/// Sets one setting.
pub async fn set(kafka: &Client, topic: &str, key: &str, value: &str, within: Duration) -> Result<(), Error> {
    let change = [(key.to_owned(), ConfigChange::Set(value.to_owned()))].into();
    kafka.incremental_alter_configs(topic, &change, false, within).await
}

/// Looks at a topic that metadata shows without error.
pub async fn look(kafka: &Client, topic: &Topic, within: Duration) -> Result<Present, Error> {
    let replicas = replicas(topic);
    let layout = layout(&topic.name, replicas);
    let keys: Vec<&str> = layout.settings.iter().map(|setting| setting.key).collect();
    let settings = kafka.describe_topic_configs(&topic.name, Some(&keys), within).await?;
    Ok(Present { partitions: topic.partitions.len(), replicas, settings })
}

fn replicas(topic: &Topic) -> usize {
    topic.partitions.values().map(|partition| partition.replicas.len()).min().unwrap_or_default()
}

/// What differs in one topic. `replication` is how many replicas it should have.
pub fn plan(name: &str, found: &Found, replication: usize) -> Vec<Difference> {
    match found {
        Found::Absent { refused } => vec![missing(name, replication, refused.as_deref())],
        Found::Present(present) => {
            // By the replicas that there are: with more in sync than that nothing could be written.
            let layout = layout(name, present.replicas);
            let mut differences = shape(name, present, &layout, replication);
            differences.extend(settings(name, present, &layout));
            differences
        }
    }
}

fn missing(name: &str, replication: usize, refused: Option<&str>) -> Difference {
    let layout = layout(name, replication);
    Difference {
        kind: "topic",
        name: name.to_owned(),
        item: String::new(),
        state: State::Missing,
        is: None,
        must: format!("{} × {replication}, {} settings", partitions(layout.partitions.into()), layout.settings.len()),
        remedy: match refused {
            None => Remedy::Apply(Action::CreateTopic { name: name.to_owned(), replication }),
            Some(refused) => Remedy::Person(format!("Kafka would refuse to make it: {refused}")),
        },
    }
}

/// What only a person can change.
fn shape(name: &str, present: &Present, layout: &Layout, replication: usize) -> Vec<Difference> {
    let differs = |item: &str, is: usize, must: usize, how: String| Difference {
        kind: "topic",
        name: name.to_owned(),
        item: item.to_owned(),
        state: State::Differs,
        is: Some(is.to_string()),
        must: must.to_string(),
        remedy: Remedy::Person(how),
    };
    let mut differences = Vec::new();
    let must = usize::from(layout.partitions);
    if layout.partitions_fixed && present.partitions != must {
        let how = format!("make it anew: it has {} and must have {must}", partitions(present.partitions));
        differences.push(differs("partitions", present.partitions, must, how));
    }
    if present.replicas < replication {
        let how = "reassign its partitions (kafka-reassign-partitions.sh), or ask for fewer replicas".to_owned();
        differences.push(differs("replicas", present.replicas, replication, how));
    }
    differences
}

fn settings<'a>(name: &'a str, present: &'a Present, layout: &'a Layout) -> impl Iterator<Item = Difference> + 'a {
    let wrong = layout.settings.iter().filter(|setting| {
        !present.settings.get(setting.key).is_some_and(|entry| setting.is_met(entry.value.as_deref(), entry.is_set))
    });
    wrong.map(|setting| Difference {
        kind: "topic",
        name: name.to_owned(),
        item: setting.key.to_owned(),
        state: State::Differs,
        is: present.settings.get(setting.key).and_then(|entry| entry.value.clone()),
        must: setting.wanted(),
        remedy: Remedy::Apply(Action::SetTopicSetting {
            topic: name.to_owned(),
            key: setting.key,
            value: setting.value.clone(),
        }),
    })
}

fn partitions(count: usize) -> String {
    if count == 1 { "1 partition".to_owned() } else { format!("{count} partitions") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(name: &str, replicas: usize) -> Present {
        let layout = layout(name, replicas);
        let entry = |value: String| ConfigEntry { value: Some(value), is_set: true };
        Present {
            partitions: layout.partitions.into(),
            replicas,
            settings: layout.settings.into_iter().map(|s| (s.key.to_owned(), entry(s.value))).collect(),
        }
    }

    #[test]
    fn a_topic_as_it_is_made_has_no_difference() {
        for name in NAMES {
            for replicas in [1, 3] {
                assert_eq!(plan(name, &Found::Present(present(name, replicas)), replicas), []);
            }
        }
    }

    #[test]
    fn a_setting_that_was_changed_is_the_only_difference() {
        let mut changed = present(USAGE_TOPIC, 3);
        changed
            .settings
            .insert("retention.ms".to_owned(), ConfigEntry { value: Some("1000".to_owned()), is_set: true });
        let differences = plan(USAGE_TOPIC, &Found::Present(changed), 3);
        let [difference] = differences.as_slice() else { panic!("{differences:?}") };
        assert_eq!((difference.item.as_str(), difference.state), ("retention.ms", State::Differs));
        assert_eq!(difference.is.as_deref(), Some("1000"));
        let value = (30 * 24 * 3_600_000_i64).to_string();
        let set = Action::SetTopicSetting { topic: USAGE_TOPIC.to_owned(), key: "retention.ms", value };
        assert_eq!(difference.action(), Some(&set));
    }

    #[test]
    fn what_only_a_person_can_change_is_not_applied() {
        let mut grown = present(CONTROL_TOPIC, 1);
        grown.partitions = 2;
        let differences = plan(CONTROL_TOPIC, &Found::Present(grown), 3);
        let items: Vec<&str> = differences.iter().map(|difference| difference.item.as_str()).collect();
        assert_eq!(items, ["partitions", "replicas"]);
        assert!(differences.iter().all(|difference| difference.action().is_none()));
    }

    #[test]
    fn replicas_are_what_the_operator_said_or_one_on_each_of_up_to_three_brokers() {
        assert_eq!([1, 2, 3, 7].map(|brokers| replication(None, brokers)), [1, 2, 3, 3]);
        assert_eq!(replication(Some(5), 3), 5);
    }
}
