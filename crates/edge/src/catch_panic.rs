//! A panic in a handler is an INTERNAL error of that call, not the end of the connection or the process.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;

use sluice_types::error::Error;

use crate::{Answer, Inner, Middleware, Next, Request};

/// The layer.
pub struct CatchPanic;

impl Middleware for CatchPanic {
    const NAME: &'static str = "catch_panic";

    async fn handle<S: Inner>(&self, request: Request, next: Next<'_, S>) -> Answer {
        // Whatever the panic left behind belongs to this call and is dropped with it; shared state guards itself.
        match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(answer) => answer,
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                Err(Error::internal(format!("panic: {}", text.unwrap_or_default())))
            }
        }
    }
}
