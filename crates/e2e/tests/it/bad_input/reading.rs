//! Reads that are wrong.

use std::time::Duration;

use sluice_proto::stream::v1::FetchRequest;
use sluice_proto::stream::v1::fetch_request::Start;
use sluice_proto::stream::v1::stream_service_client::StreamServiceClient;
use tonic::Code;
use tonic_types::StatusExt;

use super::cases::Cases;
use super::{PARTITIONS, TOPIC};

pub(super) async fn reading(cases: &mut Cases) {
    let plain = FetchRequest::default;
    for partition in [-1, PARTITIONS] {
        let request = FetchRequest { partition, ..plain() };
        cases
            .fetch(&format!("fetch of partition {partition}"), request, Code::InvalidArgument, &["partition", "3"])
            .await;
    }
    let request = FetchRequest { max_bytes: -1, ..plain() };
    cases.fetch("a negative number of bytes", request, Code::InvalidArgument, &["max_bytes"]).await;
    let request = FetchRequest { max_bytes: i32::MAX, ..plain() };
    cases.fetch("too many bytes", request, Code::InvalidArgument, &["max_bytes", "8388608"]).await;
    let request = FetchRequest { max_records: 10_001, ..plain() };
    cases.fetch("too many records", request, Code::InvalidArgument, &["max_records", "10000"]).await;
    let request = FetchRequest { wait: Some(Duration::from_secs(31).into()), ..plain() };
    cases.fetch("too long a wait", request, Code::InvalidArgument, &["wait", "30"]).await;
    let request = FetchRequest { start: Some(Start::Offset(-1)), ..plain() };
    cases.fetch("a negative offset", request, Code::InvalidArgument, &["offset"]).await;
    let request = FetchRequest { start: Some(Start::Position(7)), ..plain() };
    cases.fetch("an unknown position", request, Code::InvalidArgument, &["position"]).await;
    let request = FetchRequest { start: Some(Start::Offset(1)), ..plain() };
    cases.run += 1;
    let mut client = StreamServiceClient::new(cases.api.channel.clone());
    let request = FetchRequest { topic: TOPIC.into(), ..request };
    match client.fetch(cases.api.request(request)).await {
        Err(status) if status.code() == Code::OutOfRange => {
            let metadata =
                status.get_error_details().error_info().map(|info| info.metadata.clone()).unwrap_or_default();
            if metadata.len() < 2 {
                cases.faults.push(format!("an offset behind the end: no positions: {status:?}"));
            }
        }
        other => cases.faults.push(format!("an offset behind the end: {other:?}")),
    }
    let path = format!("/v1/{TOPIC}/records");
    for (what, query, field) in [
        ("a partition that is none", "partition=x", "partition"),
        ("an offset that is none", "offset=now", "offset"),
        ("a time that is none", "time=yesterday", "time"),
        ("a wait that is none", "wait_ms=long", "wait"),
        ("too long a wait", "wait_ms=30001", "wait"),
        ("an unknown parameter", "colour=red", "colour"),
        ("two starts", "offset=1&time=2026-01-01T00:00:00Z", "offset; send one"),
        ("a parameter twice", "partition=1&partition=2", "partition"),
    ] {
        let what = format!("GET with {what}");
        cases.http(&what, ("GET", &format!("{path}?{query}")), &[], b"", (400, "INVALID_FIELD"), &[field]).await;
    }
}
