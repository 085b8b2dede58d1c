//! Layer 11: sees what authorization and handlers deny, with who asked for what.
//!
//! The gateway has no database: denials go to an [`AuditSink`]. Today's sink counts and logs them; the sink that writes
//! `sluice.audit` takes its place without a change here. Mutations are audited by the control plane in their transaction.

use std::sync::Arc;

use sluice_edge::{Answer, Inner, Middleware, Next, Request, call_of};
use sluice_types::error::Error;
use sluice_types::{ErrorKind, OpContext};

/// A call that was denied.
#[derive(Debug)]
pub struct Denial<'a> {
    /// Who asked.
    pub context: &'a OpContext,
    /// For what.
    pub permission: &'static str,
}

/// Where denials go. Must not block.
pub trait AuditSink: Send + Sync + 'static {
    /// A call was denied.
    fn denied(&self, denial: Denial<'_>);
}

/// The layer.
pub struct Audit {
    /// Where denials go.
    pub sink: Arc<dyn AuditSink>,
}

impl Middleware for Audit {
    const NAME: &'static str = "audit";

    async fn handle<S: Inner>(&self, request: Request, next: Next<'_, S>) -> Answer {
        let call = call_of(&request)?;
        let context = request.extensions().get::<Arc<OpContext>>().cloned();
        let answer = next.run(request).await;
        if let (Some(context), Some(rpc), true) = (context, call.target.rpc(), is_denial(&answer)) {
            self.sink.denied(Denial { context: &context, permission: rpc.permission });
        }
        answer
    }
}

fn is_denial(answer: &Answer) -> bool {
    match answer {
        Err(Error { kind, .. }) => *kind == ErrorKind::PermissionDenied,
        Ok(response) => response.headers().get("grpc-status").is_some_and(|code| code == "7"),
    }
}
