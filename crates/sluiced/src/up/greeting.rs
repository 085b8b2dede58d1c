//! What `up` says when it is ready: addresses, and commands that work as they stand, from the folder it was started in.

use std::path::Path;

use super::demo_tenant::{DemoTenant, NAMESPACE, TOPIC};
use crate::local::Local;

/// The text.
pub(super) fn text(local: &Local, tenant: &DemoTenant) -> String {
    let records = format!("$SLUICE_URL/v1/namespaces/{NAMESPACE}/topics/{TOPIC}/records");
    let authorization = "-H \"Authorization: Bearer $SLUICE_API_KEY\"";
    let others: String = local.public.iter().skip(1).map(|other| format!(", http://{other}")).collect();
    format!(
        "
  gateway    http://{gateway}{others}   (gRPC and HTTP)
  operator   http://{operator}   (token in {token})
  data       {dir}   (logs in {dir}/logs)

  In another terminal, from this folder:

  . {env}
  curl -sS {authorization} -H 'Content-Type: application/json' \\
       -d '{{\"records\":[{{\"keyText\":\"N14228\",\"valueJson\":{{\"delay\":11}}}}]}}' \"{records}\"
  curl -sS {authorization} \"{records}?offset=earliest&encoding=JSON&wait_ms=5000\"
  {sluice} topics create {NAMESPACE}/orders --partitions 3
  seq 1000 | {sluice} produce {NAMESPACE}/orders
  {sluice} fetch {NAMESPACE}/orders --max 5
  {sluice} usage

  Ctrl-C stops everything; the data stays.",
        gateway = local.public[0],
        operator = local.operator,
        token = from_here(&local.operator_token_file),
        dir = from_here(&local.dir),
        env = for_dot(&tenant.env_file),
        sluice = sluice(),
    )
}

/// The command line beside this server.
fn sluice() -> String {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("sluice")).filter(|path| path.exists());
    beside.map_or_else(|| "sluice".to_owned(), |path| from_here(&path))
}

/// Relative to the working directory where it lies below, and quoted where a shell would take it apart.
fn from_here(path: &Path) -> String {
    let here = std::env::current_dir().and_then(|here| here.canonicalize()).ok();
    let shown = here.as_deref().and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path).display().to_string();
    if shown.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c)) {
        shown
    } else {
        format!("'{}'", shown.replace('\'', r"'\''"))
    }
}

/// `.` looks for a name without a slash on the PATH.
fn for_dot(path: &Path) -> String {
    let shown = from_here(path);
    if shown.contains('/') { shown } else { format!("./{shown}") }
}
