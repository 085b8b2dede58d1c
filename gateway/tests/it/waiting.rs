//! Calls that wait, beside those that do not, on one connection.

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::egress::Shop;

/// Streams and calls that wait, of one connection.
const WAITING: usize = 900;

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_and_a_pull_that_do_not_wait_are_taken_beside_as_many_as_may_wait() {
    let shop = Shop::open(1, "").await;
    // All on one connection.
    let client = Client::builder().http2_prior_knowledge().build().expect("a client");
    let call = async |method: Method, path: &str, body: &Value| {
        let request = client.request(method.clone(), shop.gateway.url(path)).bearer_auth(shop.tenant.key.expose());
        let request = if method == Method::POST { request.json(body) } else { request };
        request.send().await.expect("an answer")
    };
    let mut streams = Vec::new();
    for _ in 0..WAITING {
        let stream =
            call(Method::GET, "/v1/namespaces/prod/groups/billing:stream?maxOutstandingRecords=1", &Value::Null).await;
        assert_eq!(stream.status(), 200);
        streams.push(stream);
    }
    let fetch =
        |wait_ms| format!("/v1/namespaces/prod/topics/orders/records?partition=0&offset=latest&wait_ms={wait_ms}");
    let pull = "/v1/namespaces/prod/groups/billing:pull";
    assert_eq!(call(Method::GET, &fetch(0), &Value::Null).await.status(), 200);
    assert_eq!(call(Method::POST, pull, &json!({})).await.status(), 200);
    for answer in
        [call(Method::GET, &fetch(1), &Value::Null).await, call(Method::POST, pull, &json!({"wait": "1s"})).await]
    {
        assert_eq!(answer.status(), 429);
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(answer["error"]["details"][0]["reason"], "OVERLOADED", "{answer}");
    }
    drop(streams);
    drop(client);
    shop.gateway.stop().await.expect("an orderly end");
}
