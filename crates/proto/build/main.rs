//! Turns `proto/` into Rust: messages, clients, servers, canonical JSON and the tables this crate is about.
//!
//! Runs without `protoc`. Promises: the build fails when an RPC of ours lacks an authorization or (unless it is internal) an
//! HTTP rule, so that no server can be built that holds an RPC nobody decided about.

mod adapters;
mod model;
mod schema;
mod tables;
mod template;

use std::error::Error;
use std::path::{Path, PathBuf};

/// The types of `google.protobuf` that we define ourselves, with canonical proto3 JSON.
const WELL_KNOWN: &str = "crate::wkt";

/// What the generated tables name.
const USES: &str = "use crate::access::{ApiRequest, Audience, Rpc};
use crate::route::{Body, HttpRule, Segment, Var};
use crate::schema::{FieldSchema, Kind, Label, MessageSchema};

";

#[expect(clippy::disallowed_methods, reason = "cargo hands its directories to build scripts in the environment")]
fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let includes = [root.join("proto"), root.join("third_party/googleapis")];
    println!("cargo:rerun-if-changed=build");
    for include in &includes {
        println!("cargo:rerun-if-changed={}", include.display());
    }
    let mut files = Vec::new();
    find_protos(&includes[0], &includes[0], &mut files)?;
    files.push("google/rpc/error_details.proto".into());
    files.sort();

    // For reflection: with options, without comments.
    let mut plain = protox::Compiler::new(&includes)?;
    plain.include_imports(true).include_source_info(false).open_files(&files)?;
    std::fs::write(out.join("descriptors.bin"), plain.encode_file_descriptor_set())?;

    let mut compiler = protox::Compiler::new(&includes)?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    messages(compiler.file_descriptor_set())?;
    let pool = compiler.descriptor_pool();
    let rpcs = model::read(&pool)?;
    let parts = [USES.to_owned(), schema::write(&pool, &rpcs), tables::write(&rpcs), adapters::write(&rpcs)];
    std::fs::write(out.join("tables.rs"), parts.concat())?;
    Ok(())
}

/// Messages, clients and servers by prost and tonic, their JSON by pbjson.
fn messages(mut set: prost_types::FileDescriptorSet) -> Result<(), Box<dyn Error>> {
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

    let mut json = pbjson_build::Builder::new();
    for file in set.file {
        json.register_file_descriptor(file);
    }
    json.extern_path(".google.protobuf", WELL_KNOWN).btree_map(["."]).build(&[
        ".sluice",
        ".google.rpc",
        ".google.longrunning",
    ])?;
    Ok(())
}

fn find_protos(base: &Path, dir: &Path, found: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            find_protos(base, &path, found)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            found.push(path.strip_prefix(base)?.to_path_buf());
        }
    }
    Ok(())
}
