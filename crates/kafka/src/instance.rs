//! One librdkafka producer with its poll thread and the topics it knows.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rdkafka_sys::rd_kafka_resp_err_t as Code;

use crate::native::{Events, Native, NativeTopic};
use crate::shared::Shared;
use crate::sink::SinkError;

const POLL_WAIT: Duration = Duration::from_millis(100);
/// How often an instance that ends gives up again what is still outstanding.
const PURGE_PAUSE: Duration = Duration::from_secs(1);

/// A producer.
pub(crate) struct Instance {
    native: Arc<Native>,
    bootstrap: String,
    topics: RwLock<HashMap<Arc<str>, Arc<NativeTopic>>>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Failed for good, or given up.
    fatal: AtomicBool,
    stopped: AtomicBool,
    /// Since when no broker answers its probes.
    silent_since: Mutex<Option<Instant>>,
}

impl Instance {
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Arc<Self>, SinkError> {
        let state = Arc::new(State::default());
        let watch = Watch { shared: Arc::downgrade(shared), state: Arc::clone(&state) };
        let native = Native::new(&shared.config.properties(), Arc::new(watch)).map_err(SinkError::Configuration)?;
        let this = Self {
            native: Arc::clone(&native),
            bootstrap: shared.config.bootstrap.join(","),
            topics: RwLock::default(),
            state: Arc::clone(&state),
        };
        std::thread::Builder::new()
            .name("kafka-poll".into())
            .spawn(move || poll(&native, &state))
            .map_err(SinkError::Thread)?;
        Ok(Arc::new(this))
    }

    /// A topic it has met.
    pub(crate) fn topic(&self, name: &str) -> Option<Arc<NativeTopic>> {
        self.topics.read().get(name).cloned()
    }

    /// A topic, met now if not before. `None` only for names that no topic can have.
    pub(crate) fn meet(&self, name: &str) -> Option<Arc<NativeTopic>> {
        if let Some(topic) = self.topic(name) {
            return Some(topic);
        }
        let topic = Arc::new(self.native.topic(name)?);
        Some(Arc::clone(self.topics.write().entry(name.into()).or_insert(topic)))
    }

    pub(crate) fn forget(&self, name: &str) {
        self.topics.write().remove(name);
    }

    /// Whether a broker answers it. Blocks for at most `wait`.
    pub(crate) fn probe(&self, wait: Duration) -> bool {
        // With a topic the question is a small one, however many topics this producer knows.
        let topic = self.topics.read().values().next().cloned();
        let answered = self.native.probe(topic.as_deref(), wait);
        let mut silent_since = self.state.silent_since.lock();
        *silent_since = if answered { None } else { silent_since.or_else(|| Some(Instant::now())) };
        answered
    }

    /// Whether no broker has answered its probes for so long.
    pub(crate) fn is_silent_for(&self, time: Duration) -> bool {
        self.state.silent_since.lock().is_some_and(|since| since.elapsed() >= time)
    }

    /// Tells it the brokers to start from once more.
    pub(crate) fn remind(&self) {
        self.native.add_brokers(&self.bootstrap);
    }

    /// It shall be replaced.
    pub(crate) fn give_up(&self) {
        self.state.fatal.store(true, Ordering::SeqCst);
    }

    #[cfg(test)]
    pub(crate) fn fail(&self) {
        self.native.fail();
    }

    pub(crate) fn is_fatal(&self) -> bool {
        self.state.fatal.load(Ordering::SeqCst)
    }

    /// Gives up what is outstanding and ends, in the background.
    pub(crate) fn stop(&self) {
        self.native.purge();
        self.topics.write().clear();
        self.state.stopped.store(true, Ordering::SeqCst);
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.stop();
    }
}

fn poll(native: &Arc<Native>, state: &State) {
    while !state.stopped.load(Ordering::SeqCst) {
        native.poll(POLL_WAIT);
    }
    // Every report is heard, however late: what a sink holds, and what lanes have out, is counted until then. A lane that has the
    // topic in its hands may hand over after the purge, so it must let go of it first; that is looked at before what is outstanding.
    let mut purge_at = Instant::now() + PURGE_PAUSE;
    while Arc::strong_count(native) > 1 || native.outstanding() > 0 {
        native.poll(POLL_WAIT);
        if Instant::now() >= purge_at {
            native.purge();
            purge_at = Instant::now() + PURGE_PAUSE;
        }
    }
}

/// Hears the producer's errors.
struct Watch {
    shared: std::sync::Weak<Shared>,
    state: Arc<State>,
}

impl Events for Watch {
    fn error(&self, code: Code, reason: &str) {
        match code {
            Code::RD_KAFKA_RESP_ERR__FATAL => {
                tracing::error!(reason, "a producer failed for good and is replaced");
                self.state.fatal.store(true, Ordering::SeqCst);
            }
            Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN => {
                tracing::debug!(reason, "no broker is connected");
                if let Some(shared) = self.shared.upgrade() {
                    shared.suspect.store(true, Ordering::SeqCst);
                }
            }
            _ => {
                tracing::debug!(reason, "producer error");
                return;
            }
        }
        if let Some(shared) = self.shared.upgrade() {
            shared.nudge();
        }
    }
}
