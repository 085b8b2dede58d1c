//! A record that always fails: attempts, backoff, dead letter; who waits for it and who does not.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sluice_e2e::consumer::{Ledger, ack_ids, place, text};
use sluice_e2e::tenant::record;
use sluice_e2e::{Installation, Options, kafka_reader, wait};
use sluice_proto::admin::v1::group::Ordering;
use sluice_proto::admin::v1::{Group, RetryPolicy};
use sluice_proto::stream::v1::{DeliveryState, PullResponse};

use super::{NAMESPACE, World};

const ATTEMPTS: i32 = 4;
const BACKOFFS: [u64; 3] = [1_000, 2_000, 4_000];

fn shape(ordering: Ordering) -> impl FnOnce(Group) -> Group {
    move |group| Group {
        ordering: ordering.into(),
        retry_policy: Some(RetryPolicy {
            max_attempts: ATTEMPTS,
            minimum_backoff: Some(Duration::from_millis(BACKOFFS[0]).into()),
            ..RetryPolicy::default()
        }),
        dead_letter_topic: format!("namespaces/{NAMESPACE}/topics/failed"),
        ..group
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_record_is_tried_put_aside_and_holds_back_only_its_key() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let world = World::new(&it, 1, |group| group).await?;
    let failed = world.apis[0].create_topic(NAMESPACE, "failed", 1).await?;
    for (id, ordering) in [("keyed", Ordering::Key), ("unordered", Ordering::None)] {
        let group = sluice_e2e::consumer::group_of(NAMESPACE, &["orders"]);
        world.apis[0].create_group(NAMESPACE, id, shape(ordering)(group)).await?;
    }
    let mut records = vec![record(Some(b"bad"), b"poison"), record(Some(b"bad"), b"behind")];
    records.extend((0..20).map(|i| record(Some(format!("good-{i}").as_bytes()), b"other")));
    world.apis[0].produce_all(&world.topic.name, records).await?;

    for (id, keyed) in [("keyed", true), ("unordered", false)] {
        let group = format!("namespaces/{NAMESPACE}/groups/{id}");
        let (attempts, behind_at, died_at) = fail_always(&world, &group).await?;
        ensure!(attempts.len() == usize::try_from(ATTEMPTS)?, "{id}: {} attempts", attempts.len());
        for (pair, wanted) in attempts.windows(2).zip(BACKOFFS) {
            let waited = pair[1].duration_since(pair[0]);
            let wanted = Duration::from_millis(wanted);
            println!("{id}: waited {waited:?} of {wanted:?}");
            ensure!(waited >= wanted.mul_f64(0.8) && waited <= wanted.mul_f64(1.2), "{id}: {waited:?} for {wanted:?}");
        }
        let first = attempts[0];
        match keyed {
            true => ensure!(behind_at >= died_at, "the one behind came {:?} too early", died_at - behind_at),
            false => ensure!(behind_at.duration_since(first) < Duration::from_secs(1), "somebody waited under NONE"),
        }
        // Nothing is left, and the partition goes on.
        wait::until("no lag", Duration::from_secs(10), async || {
            let status = world.apis[1].group_status(&group).await?;
            ensure!(status.lag == 0, "{status:?}");
            Ok(Some(()))
        })
        .await?;
    }
    let raw = it.physical(&world.namespace.uid, &failed.uid)?;
    let kafka = it.kafka()?.clone();
    let letters = tokio::task::spawn_blocking(move || {
        let mut letters = Vec::new();
        kafka_reader::read_topic(&kafka, &raw, |raw| letters.push(raw)).map(|_| letters)
    })
    .await??;
    ensure!(letters.len() == 2, "{letters:?}");
    for letter in &letters {
        let header = |name: &str| -> Result<String> {
            let found = letter.headers.iter().find(|(known, _)| known == name).with_context(|| format!("no {name}"))?;
            Ok(String::from_utf8(found.1.clone().unwrap_or_default())?)
        };
        ensure!(letter.value.as_deref() == Some(b"poison") && letter.key.as_deref() == Some(b"bad"), "{letter:?}");
        ensure!(header("sluice-dlq-attempts")? == ATTEMPTS.to_string(), "{letter:?}");
        ensure!(header("sluice-dlq-reason")? == "it is poison", "{letter:?}");
        ensure!(header("sluice-dlq-topic")? == world.topic.name, "{letter:?}");
        ensure!(header("sluice-dlq-offset")? == "0" && header("sluice-dlq-partition")? == "0", "{letter:?}");
    }
    it.stop().await
}

/// Nacks the poison each time it comes and acknowledges all others: when it came, when the one behind it came, and when the
/// last nack was answered.
async fn fail_always(world: &World, group: &str) -> Result<(Vec<Instant>, Instant, Instant)> {
    let ledger = Ledger::default();
    let mut attempts = Vec::new();
    let (mut behind_at, mut died_at) = (None, None);
    let deadline = Instant::now() + Duration::from_secs(30);
    for turn in 0.. {
        ensure!(Instant::now() < deadline, "{} attempts, behind: {behind_at:?}", attempts.len());
        if let (Some(behind), Some(died)) = (behind_at, died_at) {
            return Ok((attempts, behind, died));
        }
        let api = &world.apis[turn % 2];
        let PullResponse { records, state } = api.pull(group, 100, Duration::from_secs(5)).await?;
        if records.is_empty() {
            let state = DeliveryState::try_from(state)?;
            let waits = [DeliveryState::WaitingForAcks, DeliveryState::NoRecords, DeliveryState::Assigning];
            ensure!(waits.contains(&state), "{state:?}");
            continue;
        }
        let now = Instant::now();
        records.iter().for_each(|record| ledger.delivered(record));
        let (bad, good): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| text(record) == "poison");
        if good.iter().any(|record| text(record) == "behind") {
            behind_at = Some(now);
        }
        if !good.is_empty() {
            let results = world.apis[(turn + 1) % 2].ack(group, ack_ids(&good)).await?;
            ledger.acked(&good.iter().map(place).collect::<Vec<_>>(), &results);
        }
        if let [bad] = &bad[..] {
            attempts.push(now);
            ensure!(usize::try_from(bad.attempt)? == attempts.len(), "{bad:?} at attempt {}", attempts.len());
            let results = api.nack(group, vec![bad.ack_id.clone()], None, "it is poison").await?;
            ensure!(results.len() == 1 && results[0].error.is_none(), "{results:?}");
            died_at = (bad.attempt == ATTEMPTS).then(Instant::now);
        }
    }
    anyhow::bail!("never ends")
}
