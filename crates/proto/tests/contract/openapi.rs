//! The OpenAPI documents are whole: every route is there, every reference leads somewhere.

use std::collections::BTreeSet;

use serde_json::Value;
use sluice_proto::{Audience, OPENAPI, OPENAPI_OPERATOR, RPCS};

fn operations(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap();
    let all = paths.values().flat_map(|path| path.as_object().unwrap().values());
    all.map(|operation| operation["operationId"].as_str().unwrap().to_owned()).collect()
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|v| references(v, found));
        }
        Value::Array(values) => values.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

#[test]
fn each_audience_has_all_its_routes_and_no_others() {
    for (text, audience) in [(OPENAPI, Audience::Tenant), (OPENAPI_OPERATOR, Audience::Operator)] {
        let document: Value = serde_json::from_str(text).unwrap();
        // What a client streams has no route.
        let rpcs = RPCS.iter().filter(|rpc| rpc.audience == audience && !rpc.http.is_empty());
        let expected = rpcs.map(|rpc| format!("{}_{}", rpc.service.rsplit('.').next().unwrap(), rpc.method)).collect();
        assert_eq!(operations(&document), expected);
    }
}

#[test]
fn every_reference_leads_somewhere() {
    for text in [OPENAPI, OPENAPI_OPERATOR] {
        let document: Value = serde_json::from_str(text).unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            let target = document.pointer(reference.strip_prefix('#').unwrap());
            assert!(target.is_some_and(Value::is_object), "{reference}");
        }
    }
}

#[test]
fn parameters_and_bodies_follow_the_rules() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let create = &document["paths"]["/v1/namespaces/{namespace}/topics"]["post"];
    let names: Vec<&str> =
        create["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["namespace", "topicId", "requestId", "validateOnly", "Idempotency-Key"]);
    let body = &create["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(body["$ref"], "#/components/schemas/admin.v1.Topic");
    let produce = &document["paths"]["/v1/namespaces/{namespace}/topics/{topic}/records"]["post"];
    let body = &produce["requestBody"]["content"]["application/json"]["schema"];
    assert!(body["properties"]["records"].is_object() && body["properties"].get("topic").is_none());
    let topic = &document["components"]["schemas"]["admin.v1.Topic"]["properties"];
    assert_eq!((&topic["uid"]["readOnly"], &topic["generation"]["type"]), (&true.into(), &"string".into()));
}
