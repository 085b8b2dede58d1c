//! Errors as a person at a terminal reads them: what failed, why, what to do.

use tonic::Status;
use tonic_types::StatusExt;

/// The text for standard error.
pub(crate) fn text(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Status>() {
        Some(status) => status_text(status),
        None => format!("error: {error:#}"),
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
        for (key, value) in &info.metadata {
            text.push_str(&format!("\n  {key}: {value}"));
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
