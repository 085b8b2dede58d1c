//! Layer 10: the tenant's limits, before the body is read.
//!
//! Takes one request, of the data or of the admin rate; refuses a produce call while the tenant owes more bytes than its burst, whatever the call brings (it takes
//! nothing: the exact bytes are taken by the handler, which knows them); and holds the body's bytes against the tenant's and
//! the process's bytes in flight until the answer is there, as declared, or as they come where nothing is declared.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tonic::Status;

use sluice_edge::body_limit::declared_length;
use sluice_edge::call::Call;
use sluice_edge::{Answer, Body, Inner, Middleware, Next, Request, call_of};
use sluice_runtime::statuses;
use sluice_types::error::Error;

use crate::layers::authorize::DECIDED_HERE;
use crate::quota::{InFlightGuard, ProcessBytes, TenantLimiter};

const PRODUCE: &str = "records.produce";

/// The layer.
pub struct Quota {
    /// What all calls may hold together.
    pub process: ProcessBytes,
}

/// The bytes held for a call; in the request's extensions, so that inflation can hold more.
#[derive(Clone)]
pub(crate) struct Held(Arc<Mutex<[InFlightGuard; 2]>>);

impl Held {
    /// Holds more.
    pub(crate) fn grow(&self, bytes: u64) -> Result<(), Error> {
        self.0.lock().iter_mut().try_for_each(|guard| guard.grow(bytes))
    }
}

impl Middleware for Quota {
    const NAME: &'static str = "quota";

    async fn handle<S: Inner>(&self, mut request: Request, next: Next<'_, S>) -> Answer {
        let call = call_of(&request)?;
        let Some(limiter) = request.extensions().get::<Arc<TenantLimiter>>().cloned() else {
            return next.run(request).await;
        };
        take_request(&call, &limiter)?;
        // Its messages come and go: what it holds is bounded per message and stream.
        if call.target.is_request_stream() {
            return next.run(request).await;
        }
        let declared = declared_length(request.headers())?;
        if let Some(length) = declared
            && call.target.rpc().is_some_and(|rpc| rpc.permission == PRODUCE)
        {
            limiter.check_ingress(length)?;
        }
        let bytes = declared.unwrap_or(0);
        let of_tenant = match call.target.is_admin() {
            true => limiter.admin_in_flight(bytes)?,
            false => limiter.in_flight(bytes)?,
        };
        let held = Held(Arc::new(Mutex::new([of_tenant, self.process.hold(bytes)?])));
        request.extensions_mut().insert(held.clone());
        let request = request.map(|inner| match declared {
            None if !inner.is_end_stream() => {
                Body::new(Counted { inner, held: held.clone(), request_id: call.request_id.clone() })
            }
            _ => inner,
        });
        // `held` lives until the answer is there.
        let answer = next.run(request).await;
        drop(held);
        answer
    }
}

fn take_request(call: &Call, limiter: &TenantLimiter) -> Result<(), Error> {
    let data = call.target.rpc().is_none_or(|rpc| DECIDED_HERE.contains(&rpc.service));
    let (state, taken) = if data { limiter.take_request() } else { limiter.take_forwarded() };
    call.facts.lock().rate = Some(state);
    taken
}

/// A body whose bytes are held as they come.
struct Counted {
    inner: Body,
    held: Held,
    request_id: Arc<str>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(error) = self.held.grow(data.len() as u64)
        {
            return Poll::Ready(Some(Err(statuses::to_tonic(&error, &self.request_id))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
