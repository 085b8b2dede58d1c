//! What is refused: bad fields by name, and what is not the caller's as if it did not exist.

use reqwest::StatusCode;
use serde_json::{Value, json};

use sluice_proto::internal::control::v1::Life;

use crate::world::Tenant;

use super::{GROUP, Shop};

#[tokio::test(flavor = "multi_thread")]
async fn bad_fields_are_named_and_what_is_not_the_callers_does_not_exist() {
    let shop = Shop::open().await;
    bad_fields(&shop).await;
    strangers(&shop).await;
    hurried(&shop).await;
    a_pull_ends_with_its_key(&shop).await;
    shop.close().await;
}

/// Revokes the key, so it comes last.
async fn a_pull_ends_with_its_key(shop: &Shop) {
    // Empties what is there, so that the pull waits.
    while shop.post(0, "pull", &json!({"wait": "1s"})).await.1["records"].as_array().is_some_and(|r| !r.is_empty()) {}
    let waiting = json!({"wait": "20s"});
    let ((status, answer), offset) = tokio::join!(shop.post(0, "pull", &waiting), async {
        let offset = shop.world.publish(&shop.tenant.key_state(2, Life::Gone)).await;
        shop.world.applied(&shop.gateways[0], offset).await;
        shop.produce("after").await;
        offset
    });
    assert!(offset > 0);
    assert_eq!((status, &answer["records"]), (StatusCode::UNAUTHORIZED, &Value::Null), "{answer}");
}

async fn bad_fields(shop: &Shop) {
    let many: Vec<&str> = vec!["x"; 10_001];
    let cases: Vec<(&str, Value, &str)> = vec![
        ("pull", json!({"maxRecords": 1_001}), "maxRecords"),
        ("pull", json!({"maxRecords": -1}), "maxRecords"),
        ("pull", json!({"maxBytes": (8 << 20) + 1}), "maxBytes"),
        ("pull", json!({"wait": "31s"}), "wait"),
        ("pull", json!({"encoding": 9}), "encoding"),
        ("pull", json!({"nonsense": 1}), "nonsense"),
        ("ack", json!({}), "ackIds"),
        ("ack", json!({"ackIds": many}), "ackIds"),
        ("nack", json!({"ackIds": ["x"], "delay": "61s"}), "delay"),
        ("nack", json!({"ackIds": ["x"], "reason": "x".repeat(1_001)}), "reason"),
        ("extend", json!({"ackIds": ["x"], "ackDeadline": "0.5s"}), "ackDeadline"),
        ("extend", json!({"ackIds": ["x"], "ackDeadline": "601s"}), "ackDeadline"),
        ("reset", json!({}), "position"),
        ("reset", json!({"position": "POSITION_UNSPECIFIED"}), "position"),
        ("reset", json!({"offset": "-1"}), "offset"),
        ("reset", json!({"offset": "1", "topic": "namespaces/prod/topics/other"}), "topic"),
        ("reset", json!({"offset": "1", "partitions": [0]}), "partitions"),
        (
            "reset",
            json!({"offset": "1", "topic": "namespaces/prod/topics/orders", "partitions": [0, 3]}),
            "partitions[1]",
        ),
    ];
    for (verb, body, field) in cases {
        let (status, answer) = shop.post(0, verb, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{verb} {field}: {answer}");
        let named = answer["error"]["details"]
            .as_array()
            .expect("details")
            .iter()
            .find_map(|detail| detail["fieldViolations"][0]["field"].as_str());
        assert_eq!(named, Some(field), "{verb}: {answer}");
    }
    for (path, field) in [
        (":stream?maxOutstandingRecords=10001", "maxOutstandingRecords"),
        (":stream?encoding=9", "encoding"),
        (":stream?nonsense=1", "nonsense"),
    ] {
        let (status, answer) = shop.gateways[0].get(&format!("/v1/{GROUP}{path}"), &shop.tenant.key).await;
        assert_eq!((status, answer["error"]["status"].as_str()), (400, Some("INVALID_ARGUMENT")), "{field}: {answer}");
    }
    let (status, answer) = shop.gateways[0].get(&format!("/v1/{GROUP}/deadLetters"), &shop.tenant.key).await;
    let reason = &answer["error"]["details"][0]["reason"];
    assert_eq!((status, reason.as_str()), (400, Some("NO_DEAD_LETTER_TOPIC")), "{answer}");
}

/// Whose own time is over hears that, and not that the group moves or its dispatcher is slow.
async fn hurried(shop: &Shop) {
    shop.produce("hurried").await;
    let leased = shop.pull(0, 3).await;
    let ids = super::ids(&leased);
    let client = reqwest::Client::new();
    let calls = [
        ("GET", ":status", Value::Null),
        ("POST", ":reset", json!({"position": "POSITION_EARLIEST", "dryRun": true})),
        ("POST", ":nack", json!({"ackIds": ids, "delay": "0s"})),
        ("POST", ":ack", json!({"ackIds": ids})),
    ];
    let mut late = 0;
    for gateway in &shop.gateways {
        for (method, verb, body) in &calls {
            for millis in [1, 1, 2, 3, 5, 10, 20] {
                let url = gateway.url(&format!("/v1/{GROUP}{verb}"));
                let request = client.request(method.parse().expect("a method"), url);
                let request = request.bearer_auth(shop.tenant.key.expose());
                let request = request.header("x-request-timeout-ms", millis.to_string());
                let request = if body.is_null() { request } else { request.json(body) };
                let answer = request.send().await.expect("an answer");
                let text = answer.text().await.expect("text");
                let is_blamed = text.contains("GROUP_MOVING") || text.contains("OVERLOADED");
                assert!(!is_blamed, "{verb} within {millis} ms: {text}");
                late += usize::from(text.contains("DEADLINE_EXCEEDED"));
            }
        }
    }
    assert!(late > 0, "1 ms is too short for some of them");
}

/// Every route answers another tenant for this group byte for byte as for one that never was.
async fn strangers(shop: &Shop) {
    let stranger = Tenant::new("stranger");
    for record in stranger.base() {
        shop.world.publish(&record).await;
    }
    let offset = shop.world.publish(&stranger.key_state(1, Life::Active)).await;
    for gateway in &shop.gateways {
        shop.world.applied(gateway, offset).await;
    }
    let client = reqwest::Client::new();
    let routes = [
        ("POST", ":pull", json!({})),
        ("POST", ":ack", json!({"ackIds": ["x"]})),
        ("POST", ":nack", json!({"ackIds": ["x"]})),
        ("POST", ":extend", json!({"ackIds": ["x"]})),
        ("GET", ":stream", Value::Null),
        ("GET", ":status", Value::Null),
        ("POST", ":reset", json!({"offset": "1"})),
        ("GET", "/deadLetters", Value::Null),
        ("POST", "/deadLetters:redrive", json!({"all": true})),
    ];
    for (method, route, body) in routes {
        let mut answers = Vec::new();
        for name in [GROUP, "namespaces/prod/groups/missing"] {
            let url = shop.gateways[0].url(&format!("/v1/{name}{route}"));
            let request = client.request(method.parse().expect("a method"), url).bearer_auth(stranger.key.expose());
            let request = request.header("x-request-id", "same");
            let request = if body.is_null() { request } else { request.json(&body) };
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{route}");
            answers.push(answer.text().await.expect("text").replace("missing", "billing"));
        }
        assert_eq!(answers[0], answers[1], "{route}");
    }
}
