//! A case for each row: what is just over the limit is refused, or cut, as the row says.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::{Map, Value, json};
use sluice_e2e::bad_keys;
use sluice_e2e::http::Answer;
use sluice_proto::admin::v1::TenantLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Seen;
use super::shop::{GROUP, Shop, TOPIC, first_refused, until_status};

const NAMESPACE: &str = "/v1/namespaces/prod";

/// Rows by their first cell, with what the third says.
pub(super) fn rows(page: &str) -> Vec<(String, String)> {
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows = page.lines().filter(|line| line.starts_with("| ")).map(cells).filter(|cells| cells.len() == 3);
    let rows = rows.skip(1).map(|cells| match cells.as_slice() {
        // A field that breaks its rule has this reason, which the page leaves out.
        [what, limit, over] if over == "INVALID_ARGUMENT" => {
            (what.clone(), format!("{limit}: {over}, `INVALID_FIELD`"))
        }
        [what, limit, over] => (what.clone(), format!("{limit}: {over}")),
        _ => (String::new(), String::new()),
    });
    rows.collect()
}

pub(super) async fn reach(shop: &Shop, row: &str) -> Result<Seen> {
    let Shop { it, owner, key, .. } = shop;
    let records = format!("{TOPIC}/records");
    let topics = format!("{NAMESPACE}/topics");
    let groups = format!("{NAMESPACE}/groups");
    let of_orders = json!(["namespaces/prod/topics/orders"]);
    Ok(Seen::Refused(match row {
        "Record: key + value + headers" => owner.post(&records, &values(1, (1 << 20) + 1)).await?,
        "Produce call" => {
            let many = owner.post(&records, &values(10_001, 1)).await?;
            ensure!(many.reason() == "INVALID_FIELD", "{}", many.message());
            owner.post(&records, &values(5, 1 << 20)).await?
        }
        "Request body, as sent and inflated" => {
            // Refused unread: the client need not send any of it.
            let mut stream = without_its_body(shop, key, &records, (8 << 20) + 6).await?;
            let mut text = String::new();
            while !text.contains("TOO_LARGE") {
                let mut part = [0; 4_096];
                let length = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut part)).await??;
                ensure!(length > 0, "the connection ended: {text}");
                text.push_str(&String::from_utf8_lossy(&part[..length]));
            }
            ensure!(text.starts_with("HTTP/1.1 400"), "{text}");
            return Ok(Seen::Kept);
        }
        "Body of an admin, usage or operator's call" => {
            let labels: Map<String, Value> = (0..250_000).map(|i| (format!("k{i}"), "".into())).collect();
            owner.post(&format!("{topics}?topicId=labels"), &json!({ "labels": labels })).await?
        }
        "Parameters of a query" => owner.get(&format!("/v1/namespaces?{}", "pageSize=1&".repeat(65))).await?,
        "Headers of a record" => {
            let headers: Vec<Value> = (0..101).map(|i| json!({"name": format!("h{i}"), "value": "eA=="})).collect();
            owner.post(&records, &json!({"records": [{"valueText": "v", "headers": headers}]})).await?
        }
        "Fetch answer" => {
            let path = format!("{records}?partition=0&offset=0");
            let bytes = owner.get(&format!("{path}&maxBytes={}", (8 << 20) + 1)).await?;
            ensure!(bytes.status == 400, "{}", bytes.message());
            owner.get(&format!("{path}&maxRecords=10001")).await?
        }
        "Fetch wait" => owner.get(&format!("{records}?partition=0&offset=0&wait=30.001s")).await?,
        "Deadline of a call" => {
            let answer = shop.within(3_600_000, Method::GET, "/v1/namespaces", None).await?;
            ensure!(answer.status == 200, "{}", answer.message());
            return Ok(Seen::Kept);
        }
        "Topic id" => owner.post(&format!("{topics}?topicId={}", "x".repeat(250)), &json!({})).await?,
        "Tenant, namespace, account id" => {
            let id = "x".repeat(64);
            let account = owner.post(&format!("/v1/serviceAccounts?serviceAccountId={id}"), &json!({})).await?;
            ensure!(account.status == 400, "{}", account.message());
            owner.post(&format!("/v1/namespaces?namespaceId={id}"), &json!({})).await?
        }
        "Display name; labels of a resource" => {
            let name = owner.post("/v1/namespaces?namespaceId=n", &json!({"displayName": "x".repeat(201)})).await?;
            ensure!(name.message().contains("at most 200"), "{}", name.message());
            let labels: Map<String, Value> = (0..33).map(|i| (format!("k{i}"), "".into())).collect();
            owner.post("/v1/namespaces?namespaceId=n", &json!({ "labels": labels })).await?
        }
        "Grants of an account" => {
            let grants = vec![json!({"role": "ROLE_VIEWER", "resource": "*"}); 33];
            owner.post("/v1/serviceAccounts?serviceAccountId=n", &json!({ "grants": grants })).await?
        }
        "Partitions of a topic" => {
            let many = owner.post(&format!("{topics}?topicId=many"), &json!({"partitionCount": 1_001})).await?;
            ensure!(many.status == 400, "{}", many.message());
            let topic = json!({"partitionCount": 2});
            shop.made(&format!("{topics}?topicId=two"), topic).await?;
            shop.send(Method::PATCH, &format!("{topics}/two"), json!({"partitionCount": 1})).await?
        }
        "Retention" => owner.post(&format!("{topics}?topicId=r"), &json!({"retention": "10799s"})).await?,
        "Topics of a group" => {
            let topics: Vec<String> = (0..17).map(|i| format!("namespaces/prod/topics/t{i}")).collect();
            owner.post(&format!("{groups}?groupId=g"), &json!({ "topics": topics })).await?
        }
        "Topics, partitions, namespaces of a tenant" => {
            let limits = TenantLimits { namespaces: 1, topics: 1, ..Default::default() };
            let small = shop.limited("small", limits).await?;
            small.post("/v1/namespaces?namespaceId=prod", &json!({})).await?;
            let namespace = small.post("/v1/namespaces?namespaceId=more", &json!({})).await?;
            ensure!(namespace.reason() == "QUOTA_EXCEEDED", "{}", namespace.message());
            small.post(&format!("{topics}?topicId=a"), &json!({})).await?;
            small.post(&format!("{topics}?topicId=b"), &json!({})).await?
        }
        "Accounts of a tenant; keys of an account that work" => {
            let keys = until_refused(4, async |_| owner.post("/v1/serviceAccounts/viewer/apiKeys", &json!({})).await);
            let keys = keys.await?;
            ensure!(keys.reason() == "QUOTA_EXCEEDED", "{}", keys.message());
            let path = |i| format!("/v1/serviceAccounts?serviceAccountId=a{i}");
            until_refused(4, async |i| owner.post(&path(i), &json!({})).await).await?
        }
        "Groups of a namespace" => {
            let path = |i| format!("{groups}?groupId=g{i}");
            until_refused(4, async |i| owner.post(&path(i), &json!({ "topics": of_orders })).await).await?
        }
        "Consumers of a group" => {
            // Each pull that waits is one; in several connections, which have limits of their own.
            let mut pulls = tokio::task::JoinSet::new();
            for _ in 0..11 {
                let api = it.api(0, key)?;
                for _ in 0..95 {
                    let api = api.clone();
                    pulls.spawn(
                        async move { api.pull("namespaces/prod/groups/billing", 1, Duration::from_secs(8)).await },
                    );
                }
            }
            let refused = loop {
                let pull = pulls.join_next().await.context("more than a thousand consumers were taken")??;
                match pull {
                    Err(status) if status.code() == tonic::Code::ResourceExhausted => break status,
                    Err(status) => bail!("{status:?}"),
                    Ok(_) => {}
                }
            };
            let details = tonic_types::StatusExt::get_error_details(&refused);
            let reason = details.error_info().map(|info| info.reason.as_str());
            ensure!(reason == Some("QUOTA_EXCEEDED"), "{refused:?}");
            return Ok(Seen::Kept);
        }
        "Pull" => {
            let bytes = owner.post(&format!("{GROUP}:pull"), &json!({"maxBytes": (8 << 20) + 1})).await?;
            ensure!(bytes.status == 400, "{}", bytes.message());
            owner.post(&format!("{GROUP}:pull"), &json!({"maxRecords": 1_001})).await?
        }
        "Ack, nack, extend" => {
            let reason = json!({"ackIds": ["x"], "reason": "x".repeat(1_001)});
            let long = owner.post(&format!("{GROUP}:nack"), &reason).await?;
            ensure!(long.status == 400, "{}", long.message());
            owner.post(&format!("{GROUP}:ack"), &json!({"ackIds": vec!["x"; 10_001]})).await?
        }
        "Releases of a record" => {
            return Ok(Seen::Elsewhere {
                file: "gateway/src/groups/window/tests.rs",
                test: "who_releases_again_and_again_waits_and_then_fails",
            });
        }
        "Credit of a stream" => owner.get(&format!("{GROUP}:stream?maxOutstandingRecords=10001")).await?,
        "Ack deadline; backoff; attempts" => {
            let body = json!({ "topics": of_orders, "ackDeadline": "9s" });
            let deadline = owner.post(&format!("{groups}?groupId=d"), &body).await?;
            ensure!(deadline.status == 400, "{}", deadline.message());
            let body = json!({ "topics": of_orders, "retryPolicy": {"maxAttempts": 101} });
            owner.post(&format!("{groups}?groupId=d"), &body).await?
        }
        "Age of a record, by its `timestamp`" => {
            let old = json!({"records": [{"valueText": "v", "timestamp": "2001-01-01T00:00:00Z"}]});
            let answer = owner.post(&records, &old).await?;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            ensure!(text.contains("TIMESTAMP_TOO_OLD") && text.contains("NOT_PERSISTED"), "{text}");
            return Ok(Seen::Kept);
        }
        "A record's `timestamp` ahead of the gateway's clock" => {
            let early = json!({"records": [{"valueText": "v", "timestamp": "2999-01-01T00:00:00Z"}]});
            let answer = owner.post(&records, &early).await?;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            ensure!(text.contains("INVALID_FIELD") && text.contains("timestamp"), "{text}");
            return Ok(Seen::Kept);
        }
        "Fetch answer in protobuf, where it is larger than its records" => {
            return Ok(Seen::Elsewhere {
                file: "gateway/src/data/tests/reading.rs",
                test: "json_that_grows_as_a_message_is_read_to_its_end_by_a_client_of_the_default_size",
            });
        }
        "Answer to a pull; message of a stream" => {
            return Ok(Seen::Elsewhere {
                file: "gateway/tests/it/groups_door/pacing.rs",
                test: "a_pull_of_the_most_bytes_fits_into_what_clients_take_by_default",
            });
        }
        "Read ahead for groups, gateway; group" => {
            return Ok(Seen::Elsewhere {
                file: "gateway/src/groups/dispatch/budget.rs",
                test: "who_holds_more_than_its_share_gives_back_to_who_lacks",
            });
        }
        "A stream's client takes nothing" => {
            return Ok(Seen::Elsewhere {
                file: "gateway/tests/it/groups_door/pacing.rs",
                test: "a_client_that_takes_nothing_is_given_up_and_what_it_did_not_take_goes_to_others",
            });
        }
        "Groups that give one record up, each with a dead letter" => {
            return Ok(Seen::Elsewhere {
                file: "gateway/tests/it/groups_dispatch/letters.rs",
                test: "a_record_that_comes_back_as_the_letter_of_another_group_gets_no_further_letter",
            });
        }
        "Window of a partition of a group" => {
            return Ok(Seen::Elsewhere {
                file: "gateway/src/groups/window/tests.rs",
                test: "a_full_window_takes_no_more_offsets_and_goes_on_once_an_eighth_is_free",
            });
        }
        "Streams of consumers, gateway; tenant and gateway" => {
            return Ok(Seen::Elsewhere {
                file: "gateway/src/groups/door/admission.rs",
                test: "one_tenant_cannot_take_all_places",
            });
        }
        "Page size" => {
            let answer = owner.get("/v1/namespaces?pageSize=1001").await?;
            ensure!(answer.status == 200, "{}", answer.message());
            let usage = owner.get("/v1/usage?pageSize=1001").await?;
            ensure!(usage.status == 200, "{}", usage.message());
            let letters = owner.get(&format!("{GROUP}/deadLetters?pageSize=1001")).await?;
            ensure!(letters.reason() == "NO_DEAD_LETTER_TOPIC", "{}", letters.message());
            return Ok(Seen::Kept);
        }
        "Requests a second, tenant and gateway" => {
            let limits = TenantLimits { requests_per_second: 1, ..Default::default() };
            let slow = shop.limited("slow", limits).await?;
            slow.get(&format!("{TOPIC}:metadata")).await?;
            slow.get(&format!("{TOPIC}:metadata")).await?
        }
        "Calls of the admin and usage services, tenant and gateway" => {
            let many = shop.limited("many", TenantLimits::default()).await?;
            let mut refused = None;
            while refused.is_none() {
                refused = first_refused(&many, "/v1/namespaces", 20).await.ok();
            }
            refused.context("none was refused")?
        }
        "Bytes of admin and usage calls in flight, tenant and gateway" => {
            let wide = shop.limited("wide", TenantLimits::default()).await?;
            let key = wide.key.as_deref().unwrap_or_default();
            let mut hanging = Vec::new();
            // One more than fit, and nothing beside them: the one too many is answered, and the others hold all there is.
            for _ in 0..=(4 << 20) / (256 << 10) {
                hanging.push(without_its_body(shop, key, "/v1/namespaces?namespaceId=w", 256 << 10).await?);
            }
            futures::future::select_ok(hanging.iter().map(|stream| Box::pin(stream.readable()))).await?;
            wide.post("/v1/namespaces?namespaceId=x", &json!({"displayName": "x"})).await?
        }
        "Changes of a tenant at a time" => {
            return Ok(Seen::Elsewhere {
                file: "services/control-plane/tests/it/crowds.rs",
                test: "a_tenant_whose_changes_wait_keeps_one_connection_and_nobody_else_waiting",
            });
        }
        "Produced bytes a second, tenant and gateway" => {
            let limits = TenantLimits { ingress_bytes_per_second: 1_000, ..Default::default() };
            let slow = shop.limited("slow-in", limits).await?;
            ready(&slow).await?;
            slow.post(&records, &values(1, 10_000)).await?;
            slow.post(&records, &values(1, 10_000)).await?
        }
        "Fetched bytes a second, tenant and gateway" => {
            let limits = TenantLimits { egress_bytes_per_second: 1_000, ..Default::default() };
            let slow = shop.limited("slow-out", limits).await?;
            ready(&slow).await?;
            slow.post(&records, &values(1, 10_000)).await?;
            let path = format!("{records}?partition=0&offset=0");
            slow.get(&path).await?;
            slow.get(&path).await?
        }
        "Bytes in flight, tenant and gateway" => {
            let limits = TenantLimits { bytes_in_flight: 1_000, ..Default::default() };
            let narrow = shop.limited("narrow", limits).await?;
            let key = narrow.key.as_deref().unwrap_or_default();
            let first = without_its_body(shop, key, &records, 900).await?;
            let other = without_its_body(shop, key, &records, 900).await?;
            // One of them is answered, and the other's body does not come.
            futures::future::select_ok([Box::pin(first.readable()), Box::pin(other.readable())]).await?;
            narrow.post(&records, &values(1, 900)).await?
        }
        "Look-ups of unknown keys" => {
            let elsewhere = shop.at("127.0.0.7")?;
            let unknown = async || elsewhere.with_key(Some(&bad_keys::unknown())).get("/v1/namespaces").await;
            until_status(503, unknown).await?
        }
        "HTTP/2 streams of a connection" => return Ok(Seen::Limit(streams_offered(it.gateway(0)).await?)),
        "Connections of a gateway; of one address (IPv6: a /64)" => {
            return Ok(Seen::Elsewhere {
                file: "crates/runtime/tests/it/places.rs",
                test: "those_who_only_connect_keep_nobody_out",
            });
        }
        "Idle connection; one without a credential yet" => {
            return Ok(Seen::Elsewhere {
                file: "crates/runtime/tests/it/places.rs",
                test: "a_connection_without_a_credential_idles_for_a_shorter_time",
            });
        }
        "Of these, streams and calls that wait (Consume, Subscribe; Pull and Fetch with a `wait`)" => {
            return Ok(Seen::Elsewhere {
                file: "gateway/tests/it/waiting.rs",
                test: "a_fetch_and_a_pull_that_do_not_wait_are_taken_beside_as_many_as_may_wait",
            });
        }
        "Body that is read on after an answer that did not wait for it" => {
            return Ok(Seen::Elsewhere {
                file: "crates/runtime/tests/it/unread.rs",
                test: "a_body_that_never_ends_is_not_read_for_ever",
            });
        }
        "Failed authentications of one address" => {
            let wrong = shop.at("127.0.0.9")?.with_key(Some(&bad_keys::with_other_secret(key)?));
            until_status(429, async || wrong.get("/v1/namespaces").await).await?
        }
        "Failed authentications of one address on the operator's listener" => {
            return Ok(Seen::Elsewhere {
                file: "services/control-plane/tests/it/operator_wall.rs",
                test: "who_guesses_the_token_is_told_to_wait_and_who_has_it_is_not",
            });
        }
        "Calls at a time on the operator's listener" => {
            return Ok(Seen::Elsewhere { file: "crates/edge/src/admit.rs", test: "one_peer_cannot_take_all_places" });
        }
        "Header list of a request" => {
            let big = owner.request(Method::GET, "/v1/namespaces").header("x-large", "x".repeat(17 << 10));
            let answer = owner.send(big).await?;
            ensure!(answer.status == 431, "{}", answer.status);
            return Ok(Seen::Kept);
        }
        "TLS handshake, first byte; headers" => {
            let mut silent = tokio::net::TcpStream::connect(it.gateway(0)).await?;
            let read = tokio::time::timeout(Duration::from_secs(20), silent.read(&mut [0; 64])).await;
            ensure!(matches!(read, Ok(Ok(0) | Err(_))), "a silent connection stays: {read:?}");
            return Ok(Seen::Kept);
        }
        _ => bail!("no case reaches it ({key:.4}…): write one"),
    }))
}

/// So many records of so many bytes.
fn values(count: usize, bytes: usize) -> Value {
    json!({ "records": vec![json!({"valueText": "v".repeat(bytes)}); count] })
}

/// Makes the shop's topic for another tenant.
async fn ready(http: &sluice_e2e::Http) -> Result<()> {
    for (path, body) in [
        ("/v1/namespaces?namespaceId=prod", json!({})),
        ("/v1/namespaces/prod/topics?topicId=orders", json!({"partitionCount": 1})),
    ] {
        let answer = http.post(path, &body).await?;
        ensure!(answer.status == 200, "{}", answer.message());
    }
    Ok(())
}

async fn until_refused(most: usize, call: impl AsyncFn(usize) -> Result<Answer>) -> Result<Answer> {
    for i in 0..most {
        let answer = call(i).await?;
        if answer.status != 200 {
            return Ok(answer);
        }
    }
    bail!("{most} were taken")
}

async fn without_its_body(shop: &Shop, key: &str, path: &str, bytes: usize) -> Result<tokio::net::TcpStream> {
    let mut stream = tokio::net::TcpStream::connect(shop.it.gateway(0)).await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         content-length: {bytes}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    Ok(stream)
}

/// What the server says in its first frame: SETTINGS_MAX_CONCURRENT_STREAMS.
async fn streams_offered(address: &str) -> Result<u32> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    ensure!(head[3] == 4, "the first frame is of type {}", head[3]);
    let mut settings = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut settings).await?;
    let found =
        settings.chunks_exact(6).find(|setting| setting[..2] == [0, 3]).context("no limit of streams is told")?;
    Ok(u32::from_be_bytes([found[2], found[3], found[4], found[5]]))
}
