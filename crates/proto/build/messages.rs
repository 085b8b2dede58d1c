//! Writes messages, clients and servers by prost and tonic, and their JSON by pbjson.

use std::error::Error;
use std::path::Path;

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind};

use crate::model::{camel, snake};

/// The types of `google.protobuf` that we define ourselves, with canonical proto3 JSON.
const WELL_KNOWN: &str = "crate::wkt";

pub(crate) fn write(
    mut set: prost_types::FileDescriptorSet,
    pool: &DescriptorPool,
    out: &Path,
) -> Result<(), Box<dyn Error>> {
    // Only messages of these: nobody here serves `google.longrunning.Operations`, and `google.api` is only options.
    set.file.retain(|f| !f.package().starts_with("google.api"));
    for file in &mut set.file {
        if file.package().starts_with("google.") {
            file.service.clear();
        }
    }
    let mut config = prost_build::Config::new();
    config.enable_type_names().type_name_domain(["."], "type.googleapis.com");
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", WELL_KNOWN)
        .bytes(".")
        .btree_map(".")
        .compile_fds_with_config(set.clone(), config)?;
    // Messages of ours write default values (`"partition": 0`); in error details they would only be noise.
    json(&set, &[".sluice", ".google.longrunning"], true)?;
    json(&set, &[".google.rpc"], false)?;
    keep_nulls(pool, out)
}

fn json(set: &prost_types::FileDescriptorSet, packages: &[&str], defaults: bool) -> Result<(), Box<dyn Error>> {
    let mut json = pbjson_build::Builder::new();
    for file in &set.file {
        json.register_file_descriptor(file.clone());
    }
    json.extern_path(".google.protobuf", WELL_KNOWN).btree_map(["."]);
    if defaults {
        json.emit_fields();
    }
    Ok(json.build(packages)?)
}

/// In a oneof, pbjson takes null for an absent member; for `google.protobuf.Value` null is a value (`"valueJson": null` is a
/// record that says null, not a tombstone).
fn keep_nulls(pool: &DescriptorPool, out: &Path) -> Result<(), Box<dyn Error>> {
    let is_value =
        |f: &FieldDescriptor| matches!(f.kind(), Kind::Message(m) if m.full_name() == "google.protobuf.Value");
    for message in pool.all_messages().filter(|m| m.full_name().starts_with("sluice.")) {
        for field in message.fields().filter(is_value) {
            let Some(oneof) = field.containing_oneof() else { continue };
            let path = out.join(format!("{}.serde.rs", message.parent_file().package_name()));
            let variant = format!("{}::{}::{}", snake(message.name()), camel(oneof.name()), camel(field.name()));
            let code = std::fs::read_to_string(&path)?;
            let with = format!("Some({variant}(map_.next_value()?))");
            let fixed = code.replace(&format!("map_.next_value::<::std::option::Option<_>>()?.map({variant})"), &with);
            if fixed == code {
                return Err(format!("the generated JSON of {} does not look as expected", field.full_name()).into());
            }
            std::fs::write(&path, fixed)?;
        }
    }
    Ok(())
}
