//! Waiting for a condition with a deadline; never for time alone.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks until the answer is there.
///
/// # Errors
/// After `within`, with the last word of the condition.
pub async fn until<T>(
    what: &str,
    within: Duration,
    mut condition: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    let mut last;
    loop {
        match condition().await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => last = String::new(),
            Err(error) => last = format!(": {error:#}"),
        }
        if started.elapsed() > within {
            bail!("{what}: not within {within:?}{last}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
