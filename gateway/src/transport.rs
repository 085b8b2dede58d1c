//! How far a client's transport has taken what it was sent.
//!
//! Over HTTP/2 the transport passes a frame on when the client's window has room beyond all that came before, and only then
//! comes for the next but one; over HTTP/1.1 it comes when little is buffered. So the last byte of what is in a frame goes as a
//! frame of its own: when the transport comes after that, all before it has left. This is as near as a server can tell to "the
//! client got it"; from then on a lease runs, a delivery counts, and memory is free.
//!
//! An answer that is taken as a whole says only then that it has ended, over HTTP/2: else nobody would come after its last byte.
//! Over HTTP/1.1 nobody does, once the declared length was taken.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Status;

use sluice_edge::Body;

use crate::quota::InFlightGuard;

/// Of one stream; clones are the same. In the extensions of its answer until [`watched`] has found it.
#[derive(Clone)]
pub(crate) struct Progress(Arc<Stream>);

struct Stream {
    /// Messages that went into the body.
    handed: AtomicU64,
    /// The number of the message that the transport comes for, from 1.
    asked: watch::Sender<u64>,
    /// What is in the transport when its stream has ended: free when the transport lets go of it.
    left: Mutex<Option<InFlightGuard>>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Stream { handed: AtomicU64::new(0), asked: watch::Sender::new(0), left: Mutex::default() }))
    }

    /// Tells whenever the transport comes for a message: for which one.
    pub(crate) fn asked(&self) -> watch::Receiver<u64> {
        self.0.asked.subscribe()
    }

    /// A message goes into the body.
    pub(crate) fn hand(&self) {
        self.0.handed.fetch_add(1, Ordering::AcqRel);
    }

    /// Keeps bytes charged until the transport lets go of them.
    pub(crate) fn leave(&self, held: InFlightGuard) {
        *self.0.left.lock() = Some(held);
    }

    /// The transport comes for the next frame: what it had is gone.
    pub(crate) fn ask(&self) {
        let next = self.0.handed.load(Ordering::Acquire) + 1;
        self.0.asked.send_if_modified(|asked| {
            let is_new = *asked < next;
            *asked = next.max(*asked);
            is_new
        });
    }
}

/// One answer that is taken as a whole or not at all; clones are the same. In the extensions of an answer, as [`Progress`]. What its
/// end owns (memory that is charged, bytes that were booked) lives as long as the answer does.
#[derive(Clone)]
pub(crate) struct TrackedAnswer(Arc<Sent>);

struct Sent(Mutex<Option<Then>>);

/// What is told, once, whether the answer was taken.
type Then = Box<dyn FnOnce(bool) + Send>;

impl TrackedAnswer {
    /// `then` is told once whether the transport took the answer.
    pub(crate) fn new(then: impl FnOnce(bool) + Send + 'static) -> Self {
        Self(Arc::new(Sent(Mutex::new(Some(Box::new(then))))))
    }

    /// The transport took the answer.
    #[cfg(test)]
    pub(crate) fn taken(&self) {
        self.0.end(true);
    }
}

impl Sent {
    fn end(&self, taken: bool) {
        let then = self.0.lock().take();
        if let Some(then) = then {
            then(taken);
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.end(false);
    }
}

/// An answer, to a request of this version, whose body tells how far it was taken, if somebody wants to know.
pub(crate) fn watched(mut response: http::Response<Body>, version: Version) -> http::Response<Body> {
    let extensions = response.extensions_mut();
    let (progress, parcel) = (extensions.remove::<Progress>(), extensions.remove::<TrackedAnswer>());
    if progress.is_none() && parcel.is_none() {
        return response;
    }
    let ends_late = parcel.is_some() && version == Version::HTTP_2;
    response.map(|body| Body::new(Watched { body, progress, parcel, last: None, ends_late, has_ended: false }))
}

struct Watched {
    body: Body,
    progress: Option<Progress>,
    parcel: Option<TrackedAnswer>,
    /// The last byte of the frame that went before.
    last: Option<Bytes>,
    /// It has ended when the transport has come after its last byte.
    ends_late: bool,
    /// The transport has.
    has_ended: bool,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(last) = self.last.take() {
            return Poll::Ready(Some(Ok(Frame::data(last))));
        }
        if let Some(progress) = &self.progress {
            progress.ask();
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.has_ended |= frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers));
        Poll::Ready(frame.map(|frame| {
            Ok(frame?.map_data(|mut data| {
                if data.len() > 1 {
                    self.last = Some(data.split_off(data.len() - 1));
                }
                data
            }))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.last.is_none() && self.body.is_end_stream() && (self.has_ended || !self.ends_late)
    }

    fn size_hint(&self) -> SizeHint {
        let last = self.last.as_ref().map_or(0, Bytes::len) as u64;
        let rest = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + last);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + last);
        }
        hint
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(TrackedAnswer(sent)) = &self.parcel {
            sent.end(http_body::Body::is_end_stream(&*self));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI8;

    use futures::{FutureExt as _, StreamExt as _};
    use http_body::Body as _;
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    fn parcel(version: Version) -> (http::Response<Body>, Arc<AtomicI8>) {
        let told = Arc::new(AtomicI8::new(-1));
        let tell = Arc::clone(&told);
        let mut response = http::Response::new(Body::new(Full::new(Bytes::from_static(b"records"))));
        let parcel = TrackedAnswer::new(move |taken| tell.store(i8::from(taken), Ordering::Relaxed));
        response.extensions_mut().insert(parcel);
        (watched(response, version), told)
    }

    async fn next(response: &mut http::Response<Body>) -> Bytes {
        let frame = response.body_mut().frame().await.expect("a frame").expect("good");
        frame.into_data().expect("data")
    }

    #[tokio::test]
    async fn a_message_was_taken_when_the_transport_comes_after_its_last_byte() {
        let progress = Progress::new();
        let asked = progress.asked();
        let (sender, messages) = tokio::sync::mpsc::channel::<&'static str>(4);
        let of_stream = progress.clone();
        let messages = tokio_stream::wrappers::ReceiverStream::new(messages).map(move |message| {
            of_stream.hand();
            Ok::<_, Status>(Frame::data(Bytes::from_static(message.as_bytes())))
        });
        let mut response = http::Response::new(Body::new(http_body_util::StreamBody::new(messages)));
        response.extensions_mut().insert(progress);
        let mut response = watched(response, Version::HTTP_2);
        assert_eq!(*asked.borrow(), 0, "nobody has come yet");
        sender.send("one").await.expect("room");
        assert_eq!(next(&mut response).await, "on");
        assert_eq!(next(&mut response).await, "e");
        assert_eq!(*asked.borrow(), 1);
        assert!(next(&mut response).now_or_never().is_none());
        assert_eq!(*asked.borrow(), 2);
    }

    #[tokio::test]
    async fn an_answer_tells_whether_it_was_taken() {
        let (mut response, told) = parcel(Version::HTTP_11);
        assert_eq!(response.body().size_hint().exact(), Some(7));
        assert_eq!(next(&mut response).await, "record");
        assert_eq!((told.load(Ordering::Relaxed), response.body().size_hint().exact()), (-1, Some(1)));
        assert_eq!(next(&mut response).await, "s");
        drop(response);
        assert_eq!(told.load(Ordering::Relaxed), 1);
        let (response, told) = parcel(Version::HTTP_11);
        drop(response);
        assert_eq!(told.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn over_http2_an_answer_was_taken_when_the_transport_comes_after_its_last_byte() {
        for comes in [false, true] {
            let (mut response, told) = parcel(Version::HTTP_2);
            assert_eq!(next(&mut response).await, "record");
            // It has this in its hand before it knows whether it may send it.
            assert_eq!(next(&mut response).await, "s");
            if comes {
                assert!(!response.body().is_end_stream());
                assert!(response.body_mut().frame().await.is_none() && response.body().is_end_stream());
            }
            drop(response);
            assert_eq!(told.load(Ordering::Relaxed), i8::from(comes));
        }
    }
}
