//! Turns `proto/` into Rust: messages, clients, servers, canonical JSON and the tables this crate is about.
//!
//! Runs without `protoc`. Promises: the build fails when an RPC of ours lacks an authorization or (unless it is internal) an
//! HTTP rule, so that no server can be built that holds an RPC nobody decided about.

mod adapters;
mod messages;
mod model;
mod openapi;
mod schema;
mod tables;
mod template;

use std::error::Error;
use std::path::{Path, PathBuf};

/// What the generated tables name.
const USES: &str = "use crate::access::{ApiRequest, Audience, Rpc};
use crate::route::{Body, HttpRule, Segment, Var};
use crate::schema::{FieldSchema, Kind, Label, MessageSchema};

";

#[expect(clippy::disallowed_methods, reason = "cargo hands its directories to build scripts in the environment")]
#[expect(clippy::print_stdout, reason = "cargo reads it")]
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
    let pool = compiler.descriptor_pool();
    messages::write(compiler.file_descriptor_set(), &pool, &out)?;
    let rpcs = model::read(&pool)?;
    let parts = [USES.to_owned(), schema::write(&pool, &rpcs), tables::write(&rpcs), adapters::write(&rpcs)];
    std::fs::write(out.join("tables.rs"), parts.concat())?;
    for (audience, file, title) in
        [("Tenant", "openapi.json", "Sluice"), ("Operator", "operator.json", "Sluice operator")]
    {
        std::fs::write(out.join(file), openapi::write(&pool, &rpcs, audience, title))?;
    }
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
