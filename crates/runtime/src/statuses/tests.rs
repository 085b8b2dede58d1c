//! Both protocols say the same, and what was said comes back as it was.

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::Value;
use sluice_types::{Error, ErrorKind, Reason};
use tonic_types::StatusExt;

use super::*;

fn errors() -> Vec<Error> {
    vec![
        Error::not_found("namespaces/prod"),
        Error::invalid("topic.partitions", "must be 1..1000"),
        Error::unavailable(Reason::ClusterUnavailable, "the cluster does not answer"),
        Error::new(ErrorKind::ResourceExhausted, Reason::RateLimited, "over 10 requests/s")
            .with_retry_after(Duration::from_micros(1_234_500))
            .with_metadata("limit", "requests_per_second"),
        Error::new(ErrorKind::ResourceExhausted, Reason::QuotaExceeded, "at most 10 topics").with_metadata("a", "b"),
        Error::new(ErrorKind::Unauthenticated, Reason::CredentialInvalid, "the credential does not work"),
        Error::internal("secret inside"),
    ]
}

#[tokio::test]
async fn grpc_and_http_carry_the_same_content() {
    for error in errors() {
        let status = to_tonic(&error, "req-1");
        let response = to_http(&error, "req-1");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("body").to_bytes();
        let json: Value = serde_json::from_slice(&body).expect("JSON");
        let json = &json["error"];
        let detail = |name: &str| {
            let kind = format!("type.googleapis.com/google.rpc.{name}");
            json["details"].as_array().and_then(|all| all.iter().find(|one| one["@type"] == kind.as_str())).cloned()
        };

        assert_eq!(i32::from(status.code()), error.kind.grpc_code());
        assert_eq!(head.status.as_u16(), error.kind.http_status());
        assert_eq!(json["code"], error.kind.http_status());
        assert_eq!(json["status"], error.kind.as_str());
        assert_eq!(json["message"], status.message());

        let details = status.get_error_details();
        let info = details.error_info().expect("ErrorInfo");
        let shown = detail("ErrorInfo").expect("ErrorInfo");
        assert_eq!((shown["reason"].as_str(), shown["domain"].as_str()), (Some(&*info.reason), Some(&*info.domain)));
        for (key, value) in &info.metadata {
            assert_eq!(shown["metadata"][key], value.as_str());
        }
        let field = details.bad_request().map(|bad| bad.field_violations[0].field.clone());
        assert_eq!(field, error.field);
        assert_eq!(detail("BadRequest").map(|bad| bad["fieldViolations"][0]["field"].clone()), field.map(Into::into));
        let delay = details.retry_info().and_then(|retry| retry.retry_delay);
        let shown = detail("RetryInfo").and_then(|retry| Some(retry["retryDelay"].as_str()?.to_owned()));
        let shown = shown.map(|text| (text.trim_end_matches('s').parse::<f64>().expect("s") * 1e3).round() as u128);
        assert_eq!(shown, delay.map(|delay| delay.as_millis()));
        let quota = details.quota_failure().map(|quota| quota.violations[0].subject.clone());
        assert_eq!(
            detail("QuotaFailure").map(|quota| quota["violations"][0]["subject"].clone()),
            quota.map(Into::into)
        );
        assert_eq!(detail("RequestInfo").expect("RequestInfo")["requestId"], "req-1");
        assert_eq!(details.request_info().expect("RequestInfo").request_id, "req-1");

        for name in [RETRY_AFTER, RETRY_AFTER_MS, REQUEST_ID] {
            let over_http = head.headers.get(name).map(|value| value.to_str().expect("text").to_owned());
            let over_grpc = status.metadata().get(name).map(|value| value.to_str().expect("text").to_owned());
            assert_eq!(over_http, over_grpc, "{name}");
        }
        assert!(!String::from_utf8_lossy(&body).contains("secret inside"));
        assert!(!format!("{status:?}").contains("secret inside"));
    }
}

#[test]
fn waiting_is_told_in_whole_seconds_rounded_up_and_in_exact_milliseconds() {
    let response = to_http(&errors()[3], "r");
    assert_eq!(response.headers()[RETRY_AFTER], "2");
    assert_eq!(response.headers()[RETRY_AFTER_MS], "1235");
    // Unavailable always says when to come back; an exhausted plan is no matter of time.
    assert_eq!(to_http(&errors()[2], "r").headers()[RETRY_AFTER], "1");
    assert!(to_http(&errors()[4], "r").headers().get(RETRY_AFTER).is_none());
    assert_eq!(to_http(&errors()[5], "r").headers()["www-authenticate"], "Bearer");
}

#[test]
fn an_error_comes_back_from_its_status() {
    for error in errors() {
        let back = from_tonic(&to_tonic(&error, "r"));
        assert_eq!((back.kind, back.reason, &back.message), (error.kind, error.reason, &error.message));
        assert_eq!((&back.field, &back.metadata), (&error.field, &error.metadata));
        // Sent on, it says the same again.
        assert_eq!(to_json(&back, "r"), to_json(&error, "r"));
    }
}

#[test]
fn a_status_that_is_not_ours_tells_nothing_of_its_inside() {
    let foreign = [
        (tonic::Status::unavailable("tcp connect error 10.0.0.7:9000"), ErrorKind::Unavailable),
        (tonic::Status::internal("stack"), ErrorKind::Internal),
        (tonic::Status::deadline_exceeded("x"), ErrorKind::DeadlineExceeded),
        (tonic::Status::not_found("x"), ErrorKind::Internal),
    ];
    for (status, kind) in foreign {
        let error = from_tonic_for(&status, Reason::BillingUnavailable);
        assert_eq!(error.kind, kind);
        assert!(!error.message.contains(status.message()) || status.message() == "x");
        if kind == ErrorKind::Unavailable {
            assert_eq!(error.reason, Reason::BillingUnavailable);
        }
    }
}
