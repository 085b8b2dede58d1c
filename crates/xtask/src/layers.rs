//! The layers of the workspace: a crate may depend only on crates of lower layers.
//!
//! Processes never depend on each other: they meet through `sluice-proto`. A new crate must be given its layer here.

use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand};

/// Layer by crate. Lower numbers know less of the world.
const LAYERS: [(&str, u8); 24] = [
    ("sluice-features", 0),
    ("sluice-types", 0),
    ("sluice-version", 0),
    ("sluice-proto", 1),
    ("sluice-log", 2),
    ("sluice-wire", 2),
    ("sluice-kafka", 2),
    ("sluice-db", 2),
    ("sluice-installation", 3),
    ("sluice-control-log", 3),
    ("sluice-runtime", 3),
    ("sluice-edge", 4),
    ("sluice-process", 4),
    ("sluice-reconcile", 4),
    ("sluice-gateway", 5),
    ("sluice-control-plane", 5),
    ("sluice-provisioning", 5),
    ("sluice-billing", 5),
    ("sluice-devstack", 6),
    ("sluice", 7),
    ("sluiced", 7),
    ("sluice-e2e", 8),
    ("sluice-loadtest", 9),
    ("xtask", 9),
];

/// External crates that stay in the crates named here, with the reason.
const FENCED: [(&str, &[&str], &str); 3] = [
    ("rdkafka", &["sluice-kafka", "sluice-e2e", "sluice-loadtest"], "librdkafka's traps stay behind one wrapper"),
    ("kacrab-protocol", &["sluice-wire"], "the codec may be replaced"),
    (
        "sqlx",
        &["sluice-db", "sluice-installation", "sluice-control-plane", "sluice-billing", "sluice-e2e"],
        "SQL stays with who makes databases and with the owners of a schema",
    ),
];

pub(crate) fn faults(root: &Path) -> Result<Vec<String>> {
    let metadata =
        MetadataCommand::new().manifest_path(root.join("Cargo.toml")).no_deps().exec().context("cargo metadata")?;
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let Some(layer) = layer(name) else {
            faults.push(format!("{name}: give it a layer in crates/xtask/src/layers.rs"));
            continue;
        };
        for dependency in &package.dependencies {
            // Tests may use the harness; only what ships has a direction.
            if dependency.kind == DependencyKind::Development {
                continue;
            }
            if let Some(below) = self::layer(&dependency.name)
                && below >= layer
            {
                faults.push(format!(
                    "{name} (layer {layer}) depends on {} (layer {below}): arrows go down",
                    dependency.name
                ));
            }
            if let Some((fenced, users, reason)) = FENCED.iter().find(|(fenced, ..)| *fenced == dependency.name)
                && !users.contains(&name)
            {
                faults.push(format!("{name} depends on {fenced}: {reason}"));
            }
        }
    }
    if metadata.packages.len() > LAYERS.len() {
        faults.push(format!("{} crates; at most {}: fold neighbours together", metadata.packages.len(), LAYERS.len()));
    }
    Ok(faults)
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}
