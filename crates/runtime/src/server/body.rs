//! A request's body with a limit on how long it may keep its reader waiting.
//!
//! The time runs only while somebody waits for the next bytes, and begins anew with each of them. Handlers of long-lived
//! client streams, where silence is no fault, switch it off with [`RequestBody::allow_idle`].

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::unread::Rest;
use crate::body::BoxError;

/// The client stopped sending in the middle of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no byte of the request body came for {0:?}")]
pub struct BodyTimeout(pub Duration);

/// The body of a request as the accept loop hands it on.
#[derive(Debug)]
pub struct RequestBody {
    kind: Kind,
    idle: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    /// Its end was seen, or it broke.
    over: bool,
}

#[derive(Debug)]
enum Kind {
    Incoming(Incoming, Rest),
    Known(Full<Bytes>),
}

impl RequestBody {
    pub(super) fn new(body: Incoming, rest: Rest, idle: Duration) -> Self {
        Self { kind: Kind::Incoming(body, rest), idle: Some(idle), timer: None, waiting: false, over: false }
    }

    /// Lets the client be silent for as long as it likes.
    #[must_use]
    pub fn allow_idle(mut self) -> Self {
        self.idle = None;
        self
    }
}

impl From<Bytes> for RequestBody {
    /// A body that is known whole, for tests and for requests that a process makes to itself.
    fn from(bytes: Bytes) -> Self {
        Self { kind: Kind::Known(Full::new(bytes)), idle: None, timer: None, waiting: false, over: false }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let polled = match &mut this.kind {
            Kind::Incoming(body, rest) => {
                rest.asked();
                Pin::new(body).poll_frame(cx).map_err(Into::into)
            }
            Kind::Known(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        };
        if let Poll::Ready(frame) = &polled {
            this.waiting = false;
            this.over = !matches!(frame, Some(Ok(_)));
            return polled;
        }
        let Some(idle) = this.idle else { return Poll::Pending };
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        if !this.waiting {
            this.waiting = true;
            timer.as_mut().reset(Instant::now() + idle);
        }
        timer.as_mut().poll(cx).map(|()| Some(Err(BodyTimeout(idle).into())))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Incoming(body, _) => body.is_end_stream(),
            Kind::Known(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Incoming(body, _) => body.size_hint(),
            Kind::Known(body) => body.size_hint(),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let kind = std::mem::replace(&mut self.kind, Kind::Known(Full::default()));
        if let Kind::Incoming(body, rest) = kind
            && !self.over
            && !body.is_end_stream()
        {
            rest.leave(body);
        }
    }
}
