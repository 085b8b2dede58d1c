//! A case: a call that must be refused, and what its refusal must say. Failures are collected, so that one run shows all.

use serde_json::Value;
use sluice_e2e::Api;
use sluice_e2e::raw::{self, RawAnswer};
use sluice_proto::stream::v1::stream_service_client::StreamServiceClient;
use sluice_proto::stream::v1::{FetchRequest, ProduceRecord};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{TOPIC, WITHIN};

/// One of these is in every refusal: what to do.
const REMEDIES: &[&str] = &[
    "send",
    "must",
    "at most",
    "split",
    "remove",
    "choose",
    "takes",
    "lists",
    "has the partitions",
    // Of what cannot be parsed, the place is what helps.
    "at line",
];

pub(super) struct Cases {
    pub(super) address: String,
    pub(super) key: String,
    pub(super) api: Api,
    pub(super) faults: Vec<String>,
    pub(super) run: usize,
}

impl Cases {
    /// An HTTP call that must be refused with this status and reason; the answer must name all of `says`.
    pub(super) async fn http(
        &mut self,
        name: &str,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: &[u8],
        (status, reason): (u16, &str),
        says: &[&str],
    ) -> Option<RawAnswer> {
        self.run += 1;
        let authorization = format!("Bearer {}", self.key);
        let mut all = vec![("authorization", authorization.as_str())];
        all.extend_from_slice(headers);
        let answer = match raw::http(&self.address, method, path, &all, body, WITHIN).await {
            Ok(answer) => answer,
            Err(error) => {
                self.faults.push(format!("{name}: {error:#}"));
                return None;
            }
        };
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let message = json["error"]["message"].as_str().unwrap_or_default();
        let details = json["error"]["details"].to_string();
        let found =
            json["error"]["details"].as_array().and_then(|all| all.iter().find_map(|one| one["reason"].as_str()));
        let fits = answer.status == status && found == Some(reason) && answer.header("x-request-id").is_some();
        if !fits || !names(message, &details, says) {
            self.faults.push(format!("{name}: wanted {status} {reason} naming {says:?}, got {}", answer.shown()));
        }
        Some(answer)
    }

    pub(super) async fn json(&mut self, name: &str, body: &Value, reason: &str, says: &[&str]) {
        let path = format!("/v1/{TOPIC}/records");
        let body = body.to_string();
        self.http(name, ("POST", &path), &[("content-type", "application/json")], body.as_bytes(), (400, reason), says)
            .await;
    }

    pub(super) async fn text(&mut self, name: &str, body: &[u8], reason: &str, says: &[&str]) {
        let path = format!("/v1/{TOPIC}/records");
        self.http(name, ("POST", &path), &[("content-type", "application/json")], body, (400, reason), says).await;
    }

    /// A gRPC call that must have been refused.
    pub(super) fn grpc<T: std::fmt::Debug>(
        &mut self,
        name: &str,
        answer: Result<T, Status>,
        code: Code,
        says: &[&str],
    ) {
        self.run += 1;
        match answer {
            Ok(taken) => {
                let mut text = format!("{taken:?}");
                text.truncate(300);
                self.faults.push(format!("{name}: was taken: {text}"));
            }
            Err(status) => {
                let details = format!("{:?}", status.get_error_details());
                if status.code() != code || !names(status.message(), &details, says) {
                    self.faults.push(format!("{name}: wanted {code:?} naming {says:?}, got {status:?}"));
                }
            }
        }
    }

    pub(super) async fn produce(&mut self, name: &str, records: Vec<ProduceRecord>, says: &[&str]) {
        let answer = self.api.produce(TOPIC, records).await;
        self.grpc(name, answer, Code::InvalidArgument, says);
    }

    pub(super) async fn fetch(&mut self, name: &str, request: FetchRequest, code: Code, says: &[&str]) {
        let request = FetchRequest { topic: TOPIC.into(), ..request };
        let mut client = StreamServiceClient::new(self.api.channel.clone());
        let answer = client.fetch(self.api.request(request)).await.map(tonic::Response::into_inner);
        self.grpc(name, answer, code, says);
    }
}

/// Whether the message names it all, and a remedy. Separators within numbers do not matter.
fn names(message: &str, details: &str, says: &[&str]) -> bool {
    let plain = |text: &str| text.replace([',', '_'], "").to_lowercase();
    let (message, details) = (plain(message), plain(details));
    let named = says.iter().all(|word| message.contains(&plain(word)) || details.contains(&plain(word)));
    named && REMEDIES.iter().any(|remedy| message.contains(remedy))
}
