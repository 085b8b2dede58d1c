//! Every dependency that a manifest names is used by the code that it is named for.
//!
//! A library that nobody calls is still compiled, licensed and watched for faults. The check looks for `name::` and `use name`
//! in the package's sources: in the build script for a build dependency, in what ships for a normal one, anywhere for a
//! dependency of tests. It does not see what macros and generated code use; such cases stand in `UNSEEN`, with the reason.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// Package, dependency and why the sources do not show its use.
const UNSEEN: [(&str, &str, &str); 0] = [];

/// Packages that have no code of their own, with the reason.
const CODELESS: [(&str, &str); 1] = [("sluice-features", "it only adds features to libraries")];

pub(crate) fn faults(root: &Path) -> Result<Vec<String>> {
    let metadata =
        MetadataCommand::new().manifest_path(root.join("Cargo.toml")).no_deps().exec().context("cargo metadata")?;
    let mut faults = Vec::new();
    for package in &metadata.packages {
        if CODELESS.iter().any(|(name, _)| *name == package.name.as_str()) {
            continue;
        }
        faults.extend(unused(package)?);
    }
    faults.extend(unused_of_workspace(root, &metadata.packages)?);
    Ok(faults)
}

fn unused(package: &Package) -> Result<Vec<String>> {
    let code = Code::of(package)?;
    let mut faults = Vec::new();
    for dependency in &package.dependencies {
        let name = dependency.rename.as_deref().unwrap_or(&dependency.name).replace('-', "_");
        let (used, place) = match dependency.kind {
            DependencyKind::Build => (names(&code.build, &name), "its build script"),
            DependencyKind::Development => (names(&code.tests, &name) || names(&code.shipped, &name), "its tests"),
            _ => (names(&code.shipped, &name), "its code"),
        };
        let known = UNSEEN.iter().find(|(of, on, _)| *of == package.name.as_str() && *on == dependency.name);
        match (used, known) {
            (false, None) => {
                faults.push(format!("{}: {place} does not use the dependency {}", package.name, dependency.name));
            }
            (true, Some(_)) => faults.push(format!(
                "{}: its sources show that it uses {}; take the pair out of UNSEEN",
                package.name, dependency.name
            )),
            _ => {}
        }
    }
    Ok(faults)
}

/// Versions in the root manifest that no package takes.
fn unused_of_workspace(root: &Path, packages: &[Package]) -> Result<Vec<String>> {
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).context("read Cargo.toml")?;
    let taken: BTreeSet<&str> =
        packages.iter().flat_map(|package| &package.dependencies).map(|dependency| dependency.name.as_str()).collect();
    Ok(workspace_dependencies(&manifest)
        .filter(|name| !taken.contains(name))
        .map(|name| format!("Cargo.toml: no package takes {name} of [workspace.dependencies]"))
        .collect())
}

fn workspace_dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    manifest
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.split_once(" = ")?.0))
}

/// The text of a package's sources, by what it is for.
#[derive(Default)]
struct Code {
    build: String,
    shipped: String,
    tests: String,
}

impl Code {
    fn of(package: &Package) -> Result<Self> {
        let folder = package.manifest_path.parent().context("a manifest lies in a folder")?.as_std_path();
        let mut code = Self::default();
        for path in crate::files(folder, &[".rs"])? {
            let text = std::fs::read_to_string(&path)?;
            let within = path.strip_prefix(folder)?;
            let is = |part: &str| within.iter().any(|piece| piece == part);
            if within.starts_with("build") || within == Path::new("build.rs") {
                code.build.push_str(&text);
            } else if is("tests") || is("tests.rs") || is("examples") || is("benches") {
                code.tests.push_str(&text);
            } else {
                // Unit tests stand at the end of a file.
                let (shipped, tests) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((&text, ""));
                code.shipped.push_str(shipped);
                code.tests.push_str(tests);
            }
        }
        Ok(code)
    }
}

/// Whether `text` names the crate as a path, an import or a macro, outside comments.
fn names(text: &str, krate: &str) -> bool {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
        line.match_indices(krate).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + krate.len()..]);
            let starts = !before.ends_with(|last: char| last.is_alphanumeric() || last == '_' || last == '.');
            let imported = before.ends_with("use ") && after.starts_with([';', ' ']);
            starts && (imported || after.starts_with("::"))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{names, workspace_dependencies};

    #[test]
    fn a_crate_is_named_by_a_path_or_an_import() {
        for text in ["use http::Uri;", "use hex;", "use hex as h;", "    fn a(b: ::http::Uri) {", "#[hex::it]"] {
            let found = if text.contains("http") { "http" } else { "hex" };
            assert!(names(text, found), "{text}");
        }
    }

    #[test]
    fn a_comment_another_crate_and_a_module_do_not_name_it() {
        for text in
            ["// http::Uri", "use axum_http::Uri;", "use http_body::Body;", "self.http::<u8>()", "let http = 1;"]
        {
            assert!(!names(text, "http"), "{text}");
        }
    }

    #[test]
    fn only_the_dependencies_of_the_workspace_are_read() {
        let manifest = "[workspace]\na = 1\n[workspace.dependencies]\n# b = 1\nc = \"1\"\nd = { version = \"1\" }\n[profile]\ne = 1\n";
        assert_eq!(workspace_dependencies(manifest).collect::<Vec<_>>(), vec!["c", "d"]);
    }
}
