//! A case for each reason. Those that stop something come last.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use sluice_e2e::{Installation, bad_keys};
use sluice_proto::admin::v1::TenantLimits;
use sluice_proto::operator::v1::clusters_service_client::ClustersServiceClient;
use sluice_proto::operator::v1::{CreateClusterRequest, SuspendTenantRequest};
use tokio::io::AsyncWriteExt as _;

use super::Seen;
use super::shop::{GROUP, Shop, TOPIC, first_refused, until_status};

/// What stops something, in this order, after all others.
const LAST: &[&str] = &[
    "CONTENDED",
    "BILLING_UNAVAILABLE",
    "OUTCOME_UNKNOWN",
    "CLUSTER_UNAVAILABLE",
    "NOT_SENT",
    "CREDENTIAL_UNVERIFIED",
    "CONTROL_PLANE_UNAVAILABLE",
];

const REQUEST_ID: &str = "6f1c1f9e-5c0e-4b3e-9a43-0d6c7c1f2b11";

/// Reasons with their paragraphs.
pub(super) fn rows(page: &str) -> Vec<(String, String)> {
    let paragraphs = page.split("\n### ").skip(1).filter_map(|text| text.split_once('\n'));
    let mut rows: Vec<(String, String)> =
        paragraphs.map(|(reason, says)| (reason.trim().to_owned(), format!("{reason} {says}"))).collect();
    rows.sort_by_key(|(reason, _)| LAST.iter().position(|last| last == reason).map_or(0, |at| at + 1));
    rows
}

pub(super) async fn provoke(shop: &Shop, reason: &str) -> Result<Seen> {
    let Shop { it, owner, viewer, key } = shop;
    Ok(Seen::Refused(match reason {
        "INVALID_FIELD" => owner.post("/v1/namespaces?namespaceId=UPPER", &json!({})).await?,
        "MALFORMED_BODY" => owner.post_bytes("/v1/namespaces?namespaceId=x", "application/json", "{").await?,
        "TOO_LARGE" => owner.post(&format!("{TOPIC}/records"), &record((1 << 20) + 1)).await?,
        "ROUTE_NOT_FOUND" => owner.get("/v1/nowhere").await?,
        "CREDENTIAL_MISSING" => owner.with_key(None).get("/v1/namespaces").await?,
        "CREDENTIAL_INVALID" => owner.with_key(Some(&bad_keys::with_other_secret(key)?)).get("/v1/namespaces").await?,
        "TENANT_SUSPENDED" => {
            let tenant = it.tenant("suspended").await?;
            let (mut operator, token) = it.operator()?;
            let request = SuspendTenantRequest { name: "tenants/suspended".into(), ..Default::default() };
            operator.suspend_tenant(Installation::operator_request(request, &token)?).await?;
            owner.with_key(Some(&tenant.key)).get("/v1/namespaces").await?
        }
        "PERMISSION_MISSING" => viewer.post("/v1/namespaces?namespaceId=x", &json!({})).await?,
        "RESOURCE_NOT_FOUND" => owner.get("/v1/namespaces/nothing").await?,
        "RESOURCE_EXISTS" => owner.post("/v1/namespaces?namespaceId=prod", &json!({})).await?,
        "ETAG_MISMATCH" => {
            let old = owner.get("/v1/namespaces/prod").await?.json()["etag"].clone();
            shop.send(Method::PATCH, "/v1/namespaces/prod", json!({"displayName": "Production"})).await?;
            shop.send(Method::PATCH, "/v1/namespaces/prod", json!({"displayName": "x", "etag": old})).await?
        }
        "REQUEST_ID_REUSED" => {
            shop.made(&format!("/v1/namespaces?namespaceId=once&requestId={REQUEST_ID}"), json!({})).await?;
            let path = format!("/v1/serviceAccounts/viewer/apiKeys?requestId={REQUEST_ID}");
            owner.post(&path, &json!({})).await?
        }
        "DELETION_PROTECTED" => {
            shop.made("/v1/namespaces?namespaceId=kept", json!({"deletionProtection": true})).await?;
            owner.send(owner.request(Method::DELETE, "/v1/namespaces/kept")).await?
        }
        "RESOURCE_NOT_EMPTY" => owner.send(owner.request(Method::DELETE, "/v1/namespaces/prod")).await?,
        "TOPICS_ON_SEVERAL_CLUSTERS" => {
            let (channel, token) = it.operator_channel()?;
            let request = CreateClusterRequest { cluster_id: "second".into(), ..Default::default() };
            let request = Installation::operator_request(request, &token)?;
            ClustersServiceClient::new(channel).create_cluster(request).await?;
            shop.made("/v1/namespaces?namespaceId=placed", json!({})).await?;
            for (cluster, topic) in [("first", "a"), ("second", "b")] {
                it.place("acme", "placed", cluster).await?;
                shop.made(&format!("/v1/namespaces/placed/topics?topicId={topic}"), json!({})).await?;
            }
            let topics = ["namespaces/placed/topics/a", "namespaces/placed/topics/b"];
            owner.post("/v1/namespaces/placed/groups?groupId=both", &json!({ "topics": topics })).await?
        }
        "RESOURCE_STATE" => owner.send(owner.request(Method::DELETE, "/v1/serviceAccounts/owner")).await?,
        "RATE_LIMITED" => {
            let limits = TenantLimits { requests_per_second: 1, ..Default::default() };
            let slow = shop.limited("slow", limits).await?;
            slow.get(&format!("{TOPIC}:metadata")).await?;
            slow.get(&format!("{TOPIC}:metadata")).await?
        }
        "AUTHENTICATION_RATE_LIMITED" => {
            let elsewhere = shop.at("127.0.0.9")?.with_key(Some(&bad_keys::with_other_secret(key)?));
            until_status(429, async || elsewhere.get("/v1/namespaces").await).await?
        }
        "IN_FLIGHT_LIMITED" => {
            let limits = TenantLimits { bytes_in_flight: 1_000, ..Default::default() };
            let narrow = shop.limited("narrow", limits).await?;
            let first = hanging(shop, &narrow.key, 900).await?;
            let other = hanging(shop, &narrow.key, 900).await?;
            // One of them is answered, and the other's body does not come.
            futures::future::select_ok([Box::pin(first.readable()), Box::pin(other.readable())]).await?;
            narrow.post(&format!("{TOPIC}/records"), &record(900)).await?
        }
        "QUOTA_EXCEEDED" => {
            let limits = TenantLimits { namespaces: 1, ..Default::default() };
            let small = shop.limited("small", limits).await?;
            small.post("/v1/namespaces?namespaceId=a", &json!({})).await?;
            small.post("/v1/namespaces?namespaceId=b", &json!({})).await?
        }
        "OVERLOADED" => {
            let crowd = shop.at("127.0.0.8")?;
            first_refused(&crowd, &format!("{TOPIC}/records?partition=0&offset=0&wait=2s"), 40).await?
        }
        "OFFSET_OUT_OF_RANGE" => owner.get(&format!("{TOPIC}/records?partition=0&offset=1000")).await?,
        "REVISION_BEHIND" => {
            let revision = owner.post("/v1/namespaces?namespaceId=seen", &json!({})).await?;
            let revision = revision.headers.get("sluice-revision").context("no revision")?.to_str()?.to_owned();
            let (log, _) = revision.rsplit_once('-').context("no offset")?;
            let request = owner
                .request(Method::GET, &format!("{TOPIC}:metadata"))
                .header("sluice-revision", format!("{log}-{}", i64::MAX / 2))
                .header("x-request-timeout-ms", 5_000);
            owner.send(request).await?
        }
        "CONSUMERS_CONNECTED" => {
            owner.post(&format!("{GROUP}:pull"), &json!({})).await?;
            owner.post(&format!("{GROUP}:reset"), &json!({"position": "POSITION_EARLIEST"})).await?
        }
        "NO_DEAD_LETTER_TOPIC" => owner.get(&format!("{GROUP}/deadLetters")).await?,
        "STALE_LEASE" => {
            shop.made(&format!("{TOPIC}/records"), record(1)).await?;
            let pulled = shop.made(&format!("{GROUP}:pull"), json!({"maxRecords": 1, "wait": "10s"})).await?;
            let ids = json!({ "ackIds": [pulled["records"][0]["ackId"]] });
            owner.post(&format!("{GROUP}:nack"), &ids).await?;
            return inside(shop, &format!("{GROUP}:ack"), ids).await;
        }
        "ACK_ID_INVALID" => return inside(shop, &format!("{GROUP}:ack"), json!({"ackIds": ["x"]})).await,
        "DEADLINE_EXCEEDED" => shop.within(1, Method::GET, "/v1/namespaces", None).await?,
        "CONTENDED" => {
            let sql = "SELECT pg_advisory_lock(uid), pg_sleep(6) FROM control.tenant WHERE id = 'acme'";
            let change = async {
                loop {
                    let answer = owner.post("/v1/namespaces?namespaceId=later", &json!({})).await?;
                    // Until the other one holds the lock.
                    if answer.status != 200 && answer.status != 409 {
                        return Ok::<_, anyhow::Error>(answer);
                    }
                }
            };
            let (_, answer) = tokio::join!(it.local.connection.postgres()?.execute("sluice_control", sql), change);
            answer?
        }
        "BILLING_UNAVAILABLE" => {
            it.process("billing")?.kill9().await;
            owner.get("/v1/usage").await?
        }
        "OUTCOME_UNKNOWN" => {
            shop.made(&format!("{TOPIC}/records"), record(1)).await?;
            it.stack.kafka()?.pause(1).await?;
            return produced(shop).await;
        }
        "CLUSTER_UNAVAILABLE" => {
            let path = format!("{TOPIC}/records?partition=0&offset=0");
            shop.within(4_000, Method::GET, &path, None).await?
        }
        "NOT_SENT" => {
            it.stack.kafka()?.resume(1)?;
            it.stack.kafka()?.kill9(1).await?;
            // The first ones may have been on their way.
            for _ in 0..4 {
                if let Seen::Inside(text) = produced(shop).await?
                    && text.contains(reason)
                {
                    return Ok(Seen::Inside(text));
                }
            }
            bail!("records seem to be sent to a broker that is gone")
        }
        "CREDENTIAL_UNVERIFIED" => {
            it.process("control-plane")?.kill9().await;
            owner.with_key(Some(&bad_keys::unknown())).get("/v1/namespaces").await?
        }
        "CONTROL_PLANE_UNAVAILABLE" => owner.get("/v1/namespaces").await?,
        "TIMESTAMP_TOO_OLD" => {
            let old = json!({"records": [{"valueText": "v", "timestamp": "2001-01-01T00:00:00Z"}]});
            let answer = owner.post(&format!("{TOPIC}/records"), &old).await?;
            return Ok(Seen::Inside(String::from_utf8_lossy(&answer.body).into_owned()));
        }
        "RESOURCE_PENDING" => {
            let stopped = it.process("provisioning")?.stop(std::time::Duration::from_secs(35)).await;
            ensure!(stopped.success(), "{stopped}");
            let made = owner.post("/v1/namespaces/prod/topics?topicId=pending", &json!({"partitionCount": 1})).await?;
            ensure!(made.status == 200, "{}", made.message());
            let early = json!({"records": [{"valueText": "v"}]});
            let answer = owner.post("/v1/namespaces/prod/topics/pending/records", &early).await?;
            it.restart("provisioning").await?;
            answer
        }
        "CLIENT_NOT_READING" => {
            return Ok(Seen::Elsewhere {
                file: "gateway/tests/it/groups_door/pacing.rs",
                test: "a_client_that_takes_nothing_is_given_up_and_what_it_did_not_take_goes_to_others",
            });
        }
        "GROUP_MOVING" => {
            return Ok(Seen::Elsewhere {
                file: "gateway/tests/it/groups_dispatch/moving.rs",
                test: "one_that_may_be_alive_is_made_to_leave_after_a_moment",
            });
        }
        "SHUTTING_DOWN" => {
            return Ok(Seen::Elsewhere {
                file: "gateway/tests/it/groups_door/streams.rs",
                test: "events_flow_over_http_and_a_drain_tells_clients_to_go_elsewhere",
            });
        }
        "CALLER_UNVERIFIED" => {
            return Ok(Seen::Elsewhere {
                file: "crates/runtime/tests/it/internal.rs",
                test: "a_forwarded_call_arrives_with_its_caller",
            });
        }
        // Between our processes only.
        "LEASE_LOST" => {
            return Ok(Seen::Elsewhere {
                file: "services/control-plane/tests/it/topics.rs",
                test: "only_the_holder_of_the_lease_is_believed",
            });
        }
        "NOT_DISPATCHER" => {
            return Ok(Seen::Elsewhere {
                file: "gateway/tests/it/groups_dispatch/moving.rs",
                test: "one_that_was_replaced_unawares_stores_nothing_more",
            });
        }
        // A fault of ours that we know of is mended, not provoked.
        "INTERNAL" => return Ok(Seen::Kept),
        _ => bail!("no case provokes it: write one"),
    }))
}

/// A record of this many bytes.
fn record(bytes: usize) -> Value {
    json!({"records": [{"valueText": "v".repeat(bytes)}, {"keyText": "k".repeat(bytes)}]})
}

async fn produced(shop: &Shop) -> Result<Seen> {
    let path = format!("{TOPIC}/records");
    let answer = shop.within(3_000, Method::POST, &path, Some(json!({"records": [{"valueText": "v"}]}))).await?;
    Ok(Seen::Inside(String::from_utf8_lossy(&answer.body).into_owned()))
}

async fn inside(shop: &Shop, path: &str, body: Value) -> Result<Seen> {
    let answer = shop.owner.post(path, &body).await?;
    Ok(Seen::Inside(String::from_utf8_lossy(&answer.body).into_owned()))
}

/// A call whose body does not come.
async fn hanging(shop: &Shop, key: &Option<String>, bytes: usize) -> Result<tokio::net::TcpStream> {
    let mut stream = tokio::net::TcpStream::connect(shop.it.gateway(0)).await?;
    let key = key.as_deref().unwrap_or_default();
    let head = format!(
        "POST {TOPIC}/records HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         content-length: {bytes}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    tokio::time::timeout(Duration::from_secs(5), stream.flush()).await??;
    Ok(stream)
}
