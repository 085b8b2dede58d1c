//! The reference tells the truth: every row of `docs/reference/errors.md` and `docs/reference/limits.md` is provoked at the
//! public door and must answer what the page says. A row that has no case here fails the test.

mod errors;
mod limits;
mod shop;

use anyhow::{Context, Result, bail, ensure};
use sluice_e2e::http::Answer;
use sluice_e2e::{Installation, Options};
use sluiced::role::Role;

use self::shop::Shop;

/// What a case found.
enum Seen {
    /// The call was refused.
    Refused(Answer),
    /// The call was answered, and this is what it says of one of its parts.
    Inside(String),
    /// The limit is no refusal; the case looked for itself.
    Kept,
    /// The limit that was found, which the row must name.
    Limit(u32),
    /// No call of a tenant can bring it about in this installation: a test of this name does, or the page says that no
    /// caller gets it.
    Elsewhere { file: &'static str, test: &'static str },
}

/// Limits that a test can reach. So many calls of one address at a time.
fn small(calls_per_peer: u32) -> Options {
    let failures = "failed_authentications_per_second = 1\nfailed_authentications_burst = 8";
    let gateway = format!("\n[limits]\ncalls_per_peer = {calls_per_peer}\n{failures}\n");
    let control = "\n[limits]\nservice_accounts = 3\nkeys_per_account = 3\ngroups_per_namespace = 3\n";
    Options {
        gateways: 1,
        extra: vec![(Role::Gateway, gateway), (Role::ControlPlane, control.into())],
        ..Options::default()
    }
}

fn page(name: &str) -> Result<String> {
    let path = format!("{}/../../docs/reference/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).with_context(|| path)
}

/// Whether what a case found is what its row says.
fn judge(row: &str, says: &str, seen: Seen) -> Result<()> {
    match seen {
        Seen::Refused(answer) => {
            let reason = answer.reason();
            ensure!(says.contains(&reason) && !reason.is_empty(), "{row}: answered {reason}: {}", answer.message());
            ensure!(!answer.message().is_empty(), "{row}: no sentence");
            if says.contains(" / ") {
                ensure!(says.contains(&answer.status.to_string()), "{row}: answered {}", answer.status);
            }
            ensure!(answer.status != 500, "{row}: our fault");
        }
        Seen::Inside(text) => ensure!(text.contains(row), "{row}: {text}"),
        Seen::Kept => {}
        Seen::Limit(limit) => ensure!(says.replace(',', "").contains(&limit.to_string()), "{row}: it is {limit}"),
        Seen::Elsewhere { file, test } => {
            let path = format!("{}/../../{file}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(&path).with_context(|| format!("{row}: {path}"))?;
            ensure!(text.contains(&format!("fn {test}(")), "{row}: {file} has no test {test}");
        }
    }
    Ok(())
}

/// Runs a case for each row, all of them, and tells all that failed.
async fn walk(shop: &Shop, rows: &[(String, String)], case: impl AsyncFn(&Shop, &str) -> Result<Seen>) -> Result<()> {
    ensure!(rows.len() > 10, "the page was not understood: {rows:?}");
    let mut faults = Vec::new();
    for (row, says) in rows {
        let begun = std::time::Instant::now();
        let done = match case(shop, row).await {
            Ok(seen) => judge(row, says, seen),
            Err(error) => Err(error.context(row.clone())),
        };
        println!("{row}: {done:?} in {:?}", begun.elapsed());
        if let Err(error) = done {
            faults.push(format!("{error:#}"));
        }
    }
    if !faults.is_empty() {
        bail!("{} rows:\n{}", faults.len(), faults.join("\n"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_of_the_error_reference_is_answered_as_it_says() -> Result<()> {
    let shop = Shop::open(Installation::start(small(24)).await?).await?;
    walk(&shop, &errors::rows(&page("errors.md")?), errors::provoke).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_of_the_limits_reference_holds_as_it_says() -> Result<()> {
    let shop = Shop::open(Installation::start(small(4_000)).await?).await?;
    walk(&shop, &limits::rows(&page("limits.md")?), limits::reach).await
}
