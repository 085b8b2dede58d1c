//! Which RPC a method and a path mean.

use http::Method;
use sluice_proto::{Audience, RPCS, RouteError, RouteMatch, allowed_methods, match_route, rpc_by_path, rpcs};

fn get(path: &str) -> Result<RouteMatch, RouteError> {
    match_route(Audience::Tenant, &Method::GET, path)
}

/// Values for the variables of a rule, one sample per kind of resource.
fn sample(field: &str, template: &str) -> String {
    let start = template.find(&format!("{{{field}=")).unwrap() + field.len() + 2;
    let pattern = &template[start..start + template[start..].find('}').unwrap()];
    pattern.replace('*', "a-1.b_c~é %/:x".split('/').next().unwrap())
}

#[test]
fn every_rule_expands_to_a_path_that_leads_back_to_it() {
    let mut rules = 0;
    for rpc in RPCS {
        assert_eq!(rpc_by_path(rpc.path), Some(*rpc));
        for rule in rpc.http {
            let values: Vec<(&str, String)> = rule.variables().map(|v| (v, sample(v, rule.template))).collect();
            let values: Vec<(&str, &str)> = values.iter().map(|(f, v)| (*f, v.as_str())).collect();
            let path = rule.expand(&values).unwrap();
            let found = match_route(rpc.audience, &rule.method, &path).unwrap_or_else(|e| panic!("{path}: {e}"));
            assert_eq!(found.rpc.path, rpc.path, "{path}");
            assert!(std::ptr::eq(found.rule, rule), "{path}");
            assert_eq!(found.vars.iter().map(|(f, v)| (*f, v.as_str())).collect::<Vec<_>>(), values, "{path}");
            rules += 1;
        }
    }
    assert!(rules > 30, "{rules}");
}

#[test]
fn unknown_grpc_paths_have_no_rpc() {
    for path in ["", "/", "/sluice.admin.v1.TopicService", "/sluice.admin.v1.TopicService/CreateTopic/", "/x/Y"] {
        assert_eq!(rpc_by_path(path), None, "{path}");
    }
}

#[test]
fn a_verb_is_split_at_the_last_colon_of_the_last_segment() {
    let metadata = get("/v1/namespaces/demo/topics/flights:metadata").unwrap();
    assert_eq!(metadata.rpc, &rpcs::STREAM_SERVICE_GET_TOPIC_METADATA);
    assert_eq!(metadata.vars[0], ("topic", "namespaces/demo/topics/flights".to_owned()));
    let odd = get("/v1/namespaces/demo/topics/a:b:metadata").unwrap();
    assert_eq!(odd.vars[0].1, "namespaces/demo/topics/a:b");
    let topic = get("/v1/namespaces/demo/topics/flights").unwrap();
    assert_eq!(topic.rpc, &rpcs::TOPIC_SERVICE_GET_TOPIC);
}

#[test]
fn an_unknown_verb_stays_in_the_name_and_fails_there() {
    let found = get("/v1/namespaces/demo/topics/flights:metadatum").unwrap();
    assert_eq!(found.rpc, &rpcs::TOPIC_SERVICE_GET_TOPIC);
    assert_eq!(found.vars[0].1, "namespaces/demo/topics/flights:metadatum");
    let nameless = get("/v1/namespaces/demo/topics/:metadata").unwrap();
    assert_eq!(nameless.vars[0].1, "namespaces/demo/topics/:metadata");
}

#[test]
fn topic_ids_may_hold_dots_underscores_and_dashes() {
    for id in ["a.b", "orders.v1-2_x", "..", "-", "records"] {
        let found = get(&format!("/v1/namespaces/demo/topics/{id}")).unwrap();
        assert_eq!(found.vars[0].1, format!("namespaces/demo/topics/{id}"));
        let records = get(&format!("/v1/namespaces/demo/topics/{id}/records")).unwrap();
        assert_eq!(records.rpc, &rpcs::STREAM_SERVICE_FETCH);
    }
}

#[test]
fn an_encoded_slash_never_changes_the_route_and_an_encoded_colon_is_a_colon() {
    let slash = get("/v1/namespaces/demo/topics/a%2Frecords").unwrap();
    assert_eq!(slash.rpc, &rpcs::TOPIC_SERVICE_GET_TOPIC);
    assert_eq!(slash.vars[0].1, "namespaces/demo/topics/a/records");
    for colon in [":", "%3A", "%3a"] {
        let verb = get(&format!("/v1/namespaces/demo/topics/a{colon}metadata")).unwrap();
        assert_eq!(verb.rpc, &rpcs::STREAM_SERVICE_GET_TOPIC_METADATA);
        assert_eq!(verb.vars[0].1, "namespaces/demo/topics/a");
        let nobodys = get(&format!("/v1/namespaces/demo/topics/a{colon}b")).unwrap();
        assert_eq!(
            (nobodys.rpc, nobodys.vars[0].1.as_str()),
            (&rpcs::TOPIC_SERVICE_GET_TOPIC, "namespaces/demo/topics/a:b")
        );
    }
    assert_eq!(get("/v1/n%61mespaces/demo").unwrap_err(), RouteError::NotFound);
}

#[test]
fn broken_escapes_are_malformed() {
    for path in ["/v1/namespaces/a%", "/v1/namespaces/a%2", "/v1/namespaces/%zz", "/v1/namespaces/%ff"] {
        assert_eq!(get(path).unwrap_err(), RouteError::Malformed { field: "name" }, "{path}");
    }
}

#[test]
fn trailing_slashes_and_empty_segments_are_other_paths() {
    let deep = "/x".repeat(40);
    for path in [
        "",
        "/",
        "v1/tenant",
        "/v1/tenant/",
        "//v1/tenant",
        "/v1//tenant",
        "/v1/namespaces/",
        "/v1/namespaces//topics",
        &deep,
    ] {
        assert_eq!(get(path).unwrap_err(), RouteError::NotFound, "{path}");
        assert!(allowed_methods(Audience::Tenant, path).is_empty());
    }
}

#[test]
fn a_path_with_other_methods_says_which() {
    let allow = |path: &str| match match_route(Audience::Tenant, &Method::PUT, path) {
        Err(RouteError::MethodNotAllowed { allow }) => {
            let mut methods: Vec<String> = allow.split(", ").map(str::to_owned).collect();
            methods.sort();
            methods.join(" ")
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(allow("/v1/namespaces/demo/topics/flights"), "DELETE GET PATCH");
    assert_eq!(allow("/v1/namespaces/demo/topics/flights/records"), "GET POST");
    // A verb's path takes only the verb's method, though it also looks like a topic.
    assert_eq!(allow("/v1/namespaces/demo/topics/flights:listOffsets"), "POST");
    let with_the_resources_method = get("/v1/namespaces/demo/topics/flights:listOffsets").unwrap_err();
    assert_eq!(with_the_resources_method, RouteError::MethodNotAllowed { allow: "POST".into() });
}

#[test]
fn an_audience_does_not_see_the_paths_of_another() {
    assert_eq!(get("/v1/tenants/acme").unwrap_err(), RouteError::NotFound);
    assert!(match_route(Audience::Operator, &Method::GET, "/v1/tenants/acme").is_ok());
    assert_eq!(match_route(Audience::Operator, &Method::GET, "/v1/tenant").unwrap_err(), RouteError::NotFound);
    assert!(RPCS.iter().filter(|rpc| rpc.audience == Audience::Internal).all(|rpc| rpc.http.is_empty()));
}

#[test]
fn expanding_refuses_values_that_do_not_fit() {
    let rule = &rpcs::TOPIC_SERVICE_GET_TOPIC.http[0];
    for name in ["", "namespaces/a", "namespaces/a/topics/", "namespaces/a/topics/b/c", "tenants/a/topics/b"] {
        assert!(rule.expand(&[("name", name)]).is_err(), "{name}");
    }
    assert!(rule.expand(&[]).is_err());
    let wait = &rpcs::OPERATION_SERVICE_WAIT_OPERATION.http[0];
    assert_eq!(wait.expand(&[("name", "operations/x y")]).unwrap(), "/v1/operations/x%20y:wait");
}

#[test]
fn questions_that_read_records_are_told_from_all_others() {
    let mut readers: Vec<&str> = RPCS.iter().filter(|rpc| rpc.gives_records).map(|rpc| rpc.method).collect();
    readers.sort_unstable();
    assert_eq!(readers, ["Attach", "Consume", "Fetch", "Pull", "Subscribe"]);
}
