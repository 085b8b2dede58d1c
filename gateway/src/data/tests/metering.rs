//! What is metered is what the log holds.

use std::collections::BTreeMap;

use sluice_types::record::{client_headers, logical_bytes};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_metered_is_what_the_log_holds() {
    let world = World::new(3).await;
    for call in 0..20 {
        let mut records: Vec<_> = (0..50).map(|i| keyed(&format!("k{i}"), &"v".repeat(call * i))).collect();
        records.push(ProduceRecord::default());
        let answer = world.produce(records).await;
        assert!(answer.results.iter().all(|r| r.outcome() == Outcome::Persisted && r.offset.is_some()));
    }
    let mut fetched = 0;
    let mut next = 0;
    loop {
        let request = FetchRequest { start: Some(Start::Offset(next)), max_records: 100, ..Default::default() };
        let answer = world.fetch(request).await.expect("read");
        if answer.records.is_empty() {
            break;
        }
        assert!(answer.records.iter().all(|record| record.headers.is_empty()), "our own headers stay with us");
        fetched += answer.records.len() as u64;
        next = answer.next_offset;
    }

    let windows = world.windows().await;
    assert!(windows.iter().zip(1..).all(|(window, number)| window.number == number));
    assert!(windows.last().is_some_and(|window| window.last));
    let (mut covered, mut delivered) = (BTreeMap::new(), 0);
    for window in &windows {
        for partition in &window.produced {
            assert_eq!(partition.topic_uid, world.topic.to_string());
            for interval in &partition.intervals {
                let sums: &mut (i64, u64) = covered.entry(partition.partition).or_default();
                sums.0 += interval.end - interval.start;
                sums.1 += interval.bytes;
            }
        }
        delivered += window.delivered.iter().map(|partition| partition.records).sum::<u64>();
    }
    assert_eq!(delivered, fetched);
    for partition in 0..3 {
        let log = world.read(world.physical.as_str(), partition).await;
        let bytes: u64 = log
            .iter()
            .map(|record| {
                let headers = client_headers(record.headers.clone());
                let headers = headers.iter().map(|(name, value)| (&name[..], value.as_deref()));
                logical_bytes(record.key.as_deref(), record.value.as_deref(), headers)
            })
            .sum();
        assert_eq!(covered.get(&partition).copied().unwrap_or_default(), (log.len() as i64, bytes));
        assert!(log.iter().all(|record| record.headers.len() == 2), "each has the call's trace and its mark");
    }
}
