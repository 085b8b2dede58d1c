//! Errors as a person at a terminal reads them: what failed, why, what to do.

use std::error::Error as _;
use std::time::Duration;

use tonic::Status;
use tonic_types::StatusExt;

/// What the caller got wrong before anything was sent; exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Ctrl-C, after what was begun has ended; exit code 130.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// What to do about a refusal that the server cannot know: it knows nothing of this command line.
#[derive(Debug)]
pub(crate) struct Hint(pub(crate) String);

impl std::fmt::Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The exit code.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() {
        2
    } else if error.is::<Interrupted>() {
        130
    } else {
        1
    }
}

/// The text of a call that got no answer from Sluice itself; `None` if it was Sluice that refused.
/// `was_answered`: it answered a call before, so the address is right.
pub(crate) fn unanswered(status: &Status, url: &str, timeout: Duration, was_answered: bool) -> Option<String> {
    if status.get_details_error_info().is_some() || status.metadata().contains_key("x-request-id") {
        return None;
    }
    if status.message() == "Timeout expired" {
        return Some(format!("{url} did not answer within {timeout:?}; --timeout sets how long to wait"));
    }
    let mut cause: &dyn std::error::Error = status.source()?;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let cause = cause.to_string();
    if was_answered {
        let what = if is_unsent(status) { "no connection to" } else { "the connection broke to" };
        return Some(format!("{what} {url}: {cause}\n  it answered before: it has ended, or the way to it is cut"));
    }
    let hint = if cause.contains("InvalidContentType") || cause.contains("corrupt message") {
        "it does not speak TLS there: try http://"
    } else if cause.contains("certificate") {
        "--ca-file names the CA certificates to trust"
    } else if url.starts_with("http:") && !cause.contains("refused") && !cause.contains("lookup") {
        "if it speaks TLS there, the address begins with https://"
    } else {
        "is it running, and is the address right? (--url or SLUICE_URL; `tenants`: --operator-url)"
    };
    Some(format!("no connection to {url}: {cause}\n  {hint}"))
}

/// Whether nothing of a call was sent: no connection could be made, or the one there was had ended before.
pub(crate) fn is_unsent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        let unsent = error.is::<tonic::ConnectError>()
            || error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
        if unsent {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The text for standard error.
pub(crate) fn text(error: &anyhow::Error) -> String {
    match (error.downcast_ref::<Status>(), error.downcast_ref::<Hint>()) {
        (Some(status), Some(Hint(hint))) => format!("{}\n  {hint}", status_text(status)),
        (Some(status), None) => status_text(status),
        (None, _) => format!("error: {error:#}"),
    }
}

/// Whether the reader of our output went away.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

fn status_text(status: &Status) -> String {
    let details = status.get_error_details();
    let mut text = format!("error: {}", status.message());
    if let Some(info) = details.error_info() {
        text.push_str(&format!("\n  reason:     {} ({:?})", info.reason, status.code()));
        let mut metadata: Vec<_> = info.metadata.iter().collect();
        metadata.sort();
        for (key, value) in metadata {
            text.push_str(&format!("\n  {:<11} {value}", format!("{key}:")));
        }
    } else {
        text.push_str(&format!(" ({:?})", status.code()));
    }
    if let Some(after) = details.retry_info().and_then(|retry| retry.retry_delay) {
        text.push_str(&format!("\n  try again:  in {:.3} s", after.as_secs_f64()));
    }
    if let Some(id) = status.metadata().get("x-request-id").and_then(|id| id.to_str().ok()) {
        text.push_str(&format!("\n  request id: {id}"));
    }
    text
}
