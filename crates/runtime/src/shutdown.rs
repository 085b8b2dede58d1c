//! From a signal to a token: the first SIGTERM or SIGINT begins the orderly shutdown.
//!
//! Further signals change nothing: the shutdown is bounded by its own deadlines.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that the first SIGTERM or SIGINT cancels. Must be called within a runtime.
///
/// # Errors
/// The system refuses the signal handlers.
pub fn shutdown_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let shutdown = token.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "shutdown begins");
        shutdown.cancel();
    });
    Ok(token)
}
