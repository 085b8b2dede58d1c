//! Rules that the protos keep beyond `buf lint`.

use prost_reflect::{DescriptorPool, FieldDescriptor, Value};
use sluice_proto::{Audience, FILE_DESCRIPTOR_SET, RPCS};

/// `name`, `parent`, `topic` in requests that are optional on purpose.
const OPTIONAL: &[&str] = &["sluice.billing.v1.GetUsageRequest.topic", "sluice.stream.v1.ResetOffsetsRequest.topic"];

fn required(pool: &DescriptorPool, field: &FieldDescriptor) -> bool {
    let behavior = pool.get_extension_by_name("google.api.field_behavior").unwrap();
    match field.options().get_extension(&behavior).as_ref() {
        Value::List(values) => values.iter().any(|v| v.as_enum_number() == Some(2)),
        _ => false,
    }
}

#[test]
fn requests_say_which_fields_they_require() {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    for rpc in RPCS.iter().filter(|rpc| rpc.audience != Audience::Internal) {
        let request = pool.get_message_by_name(rpc.request_type).unwrap();
        assert!(rpc.request_fields().eq(request.fields().map(|f| f.name().to_owned())));
        for field in request.fields() {
            let wanted = matches!(field.name(), "name" | "parent" | "topic")
                || field.name().ends_with("_id") && {
                    // The id a client chooses, as in `topic_id` of CreateTopic.
                    field.name() != "request_id" && rpc.method.starts_with("Create")
                };
            if wanted && !OPTIONAL.contains(&field.full_name()) {
                assert!(required(&pool, &field), "{} is not REQUIRED", field.full_name());
            }
        }
        // What the path or the body is, is required too.
        for rule in rpc.http {
            let body = match rule.body {
                sluice_proto::Body::Field(body) => Some(body),
                _ => None,
            };
            for name in rule.variables().map(|v| v.split('.').next().unwrap()).chain(body) {
                assert!(required(&pool, &request.get_field_by_name(name).unwrap()), "{}.{name}", rpc.request_type);
            }
        }
    }
}

#[test]
fn every_public_rpc_has_an_example() {
    for rpc in RPCS.iter().filter(|rpc| rpc.audience != Audience::Internal) {
        assert!(rpc.doc.contains("Example"), "{} has no Example", rpc.path);
        assert!(rpc.doc.contains("curl"), "{}'s example is not a call", rpc.path);
    }
}

#[test]
fn mutations_take_a_request_id_and_validate_only() {
    for rpc in RPCS.iter().filter(|rpc| rpc.mutation) {
        for field in ["request_id", "validate_only"] {
            assert!(rpc.request_fields().any(|f| f == field), "{} has no {field}", rpc.request_type);
        }
    }
}

#[test]
fn only_reads_are_not_mutations() {
    // The data plane changes records and positions, not resources.
    let resources = |rpc: &&&sluice_proto::Rpc| !rpc.service.starts_with("sluice.stream.");
    for rpc in RPCS.iter().filter(|rpc| rpc.audience != Audience::Internal && !rpc.mutation).filter(resources) {
        let reading = ["Get", "List", "Wait"].iter().any(|verb| rpc.method.starts_with(verb));
        assert!(reading, "{} looks like a mutation", rpc.path);
    }
}

#[test]
fn permissions_are_a_resource_and_an_action() {
    for rpc in RPCS.iter() {
        let parts: Vec<&str> = rpc.permission.split('.').collect();
        let internal = rpc.audience == Audience::Internal;
        assert_eq!(parts.len(), if internal { 3 } else { 2 }, "{}", rpc.permission);
        assert_eq!(parts[0] == "internal", internal, "{}", rpc.permission);
    }
}
