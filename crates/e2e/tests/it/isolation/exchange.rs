//! One RPC tried by gRPC and by each of its HTTP rules, and its answers made comparable.

use std::time::Duration;

use anyhow::{Context, Result};
use prost_reflect::DescriptorPool;
use serde_json::Value as Json;
use sluice_e2e::Installation;
use sluice_e2e::raw::{self, RawAnswer};
use sluice_e2e::requests::{self, Effect, Names};
use sluice_proto::{Audience, RPCS, Rpc};

const WITHIN: Duration = Duration::from_secs(20);
/// Sent with every call, so that answers need not differ in it.
const REQUEST_ID: &str = "isolation-1";

pub(super) fn tenants_rpcs() -> impl Iterator<Item = &'static Rpc> {
    RPCS.iter().copied().filter(|rpc| rpc.audience == Audience::Tenant)
}

/// How a call was sent, and what came back.
pub(super) struct Exchange {
    pub(super) label: String,
    pub(super) answer: RawAnswer,
    pub(super) ok: bool,
    /// The texts that the request carried.
    pub(super) sent: Vec<String>,
}

/// One RPC by gRPC and by each HTTP rule.
pub(super) async fn exchanges(
    it: &Installation,
    pool: &DescriptorPool,
    rpc: &'static Rpc,
    names: &Names,
    authorization: Option<&str>,
    effect: Effect,
) -> Result<Vec<Exchange>> {
    let built = requests::build(pool, rpc, names, effect)?;
    let message = built.message();
    let mut metadata = vec![("x-request-id", REQUEST_ID)];
    metadata.extend(authorization.map(|value| ("authorization", value)));
    let channel = it.api(0, "none")?.channel;
    let answer = tokio::time::timeout(WITHIN, raw::grpc(&channel, rpc.path, &metadata, &message, false))
        .await
        .with_context(|| format!("{}: no answer", rpc.path))??;
    let carried = |haystack: &[u8]| -> Vec<String> {
        let within = |text: &String| haystack.windows(text.len()).any(|window| window == text.as_bytes());
        names.texts().into_iter().filter(within).collect()
    };
    let ok = answer.grpc_code() == Some(0);
    let mut all = vec![Exchange { label: format!("gRPC {}", rpc.path), answer, ok, sent: carried(&message) }];
    for rule in rpc.http {
        let request = built.http(rule)?;
        let body = request.body.as_ref().map(Json::to_string).unwrap_or_default();
        let mut headers = metadata.clone();
        if request.body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let answer =
            raw::http(it.gateway(0), &request.method, &request.path, &headers, body.as_bytes(), WITHIN).await?;
        let ok = answer.status == 200;
        let sent = carried(format!("{} {body}", request.path).as_bytes());
        all.push(Exchange { label: format!("{} {}", request.method, rule.template), answer, ok, sent });
    }
    Ok(all)
}

/// The answer without what may differ: the date, the revision, rate limits, and the text that the caller sent itself. What
/// a successful answer holds of the server's own making (uids, times) is masked by field name.
pub(super) fn masked(exchange: &Exchange, pool: &DescriptorPool, rpc: &Rpc) -> Result<RawAnswer> {
    let mut answer = exchange.answer.clone();
    let gone = |name: &String| {
        matches!(name.as_str(), "date" | "sluice-revision" | "traceparent") || name.starts_with("ratelimit-")
    };
    answer.headers.retain(|name, _| !gone(name));
    if exchange.ok {
        answer.headers.remove("content-length");
        let mut json = match exchange.label.starts_with("gRPC") {
            true => requests::json_of(pool, rpc.response_type, &answer.body)?,
            false => serde_json::from_slice(&answer.body)?,
        };
        mask_made(&mut json);
        answer.body = json.to_string().into_bytes();
    }
    for text in &exchange.sent {
        answer.body = replaced(&answer.body, text);
        for values in answer.headers.values_mut() {
            for value in values {
                *value = replaced(value, text);
            }
        }
    }
    Ok(answer)
}

fn mask_made(json: &mut Json) {
    const MADE: &[&str] = &[
        "uid",
        "etag",
        "createTime",
        "updateTime",
        "endTime",
        "revokeTime",
        "revision",
        "lastTransitionTime",
        "prefix",
    ];
    match json {
        Json::Object(fields) => {
            for (name, value) in fields {
                let operation = name == "name" && value.as_str().is_some_and(|text| text.starts_with("operations/"));
                if MADE.contains(&name.as_str()) || operation {
                    *value = "made".into();
                } else {
                    mask_made(value);
                }
            }
        }
        Json::Array(values) => values.iter_mut().for_each(mask_made),
        _ => {}
    }
}

pub(super) fn replaced(bytes: &[u8], text: &str) -> Vec<u8> {
    let mut made = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(text.as_bytes()) {
            made.extend_from_slice(b"<sent>");
            at += text.len();
        } else {
            made.push(bytes[at]);
            at += 1;
        }
    }
    made
}
