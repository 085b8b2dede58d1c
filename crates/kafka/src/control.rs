//! The control thread of a sink: everything that blocks. It asks brokers whether they are there, looks topics up, wakes lanes
//! that wait, and replaces producers that failed for good.
//!
//! Questions block for at most [`PROBE_WAIT`] each, and one thread asks them all: with the cluster away a look-up waits
//! for those before it, which does not matter, because none of them can succeed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::instance::Instance;
use crate::native::Look;
use crate::outcome::Failure;
use crate::shared::Shared;

/// How often it looks around without being asked.
const TICK: Duration = Duration::from_millis(100);
const PROBE_WAIT: Duration = Duration::from_millis(400);
/// Pause between probes while no broker answers, and between looks at a topic that is not there yet.
const PROBE_PAUSE: Duration = Duration::from_millis(100);
const LOOK_PAUSE: Duration = Duration::from_millis(15);
/// A topic that all brokers deny for so long is gone: what waits for it is refused.
const UNKNOWN_AFTER: Duration = Duration::from_secs(1);

/// Work for the control thread.
pub(crate) enum Job {
    /// Something changed.
    Look,
    /// See to it that these partitions can be used.
    Ensure(Ensure),
    /// The topic is gone.
    Forget(Arc<str>),
    /// End.
    Stop,
}

/// A request to use a topic. Dropped `done`: nobody waits any more.
pub(crate) struct Ensure {
    pub(crate) topic: Arc<str>,
    pub(crate) partitions: i32,
    pub(crate) until: Instant,
    pub(crate) done: oneshot::Sender<bool>,
}

pub(crate) struct Control {
    shared: Arc<Shared>,
    jobs: Receiver<Job>,
    ensures: Vec<Ensure>,
    /// Topics that lanes wait for and brokers deny, since when.
    denied: HashMap<Arc<str>, Instant>,
    next_probe: Instant,
}

impl Control {
    pub(crate) fn new(shared: Arc<Shared>, jobs: Receiver<Job>) -> Self {
        Self { shared, jobs, ensures: Vec::new(), denied: HashMap::new(), next_probe: Instant::now() }
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self) {
        loop {
            let wait = if self.ensures.is_empty() { TICK } else { LOOK_PAUSE };
            match self.jobs.recv_timeout(wait) {
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(job) => self.take(job),
                Err(RecvTimeoutError::Timeout) => {}
            }
            while let Ok(job) = self.jobs.try_recv() {
                if matches!(job, Job::Stop) {
                    return self.end();
                }
                self.take(job);
            }
            self.replace_failed();
            self.see_brokers();
            self.serve_lanes();
            self.serve_wishes();
        }
        self.end();
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Look | Job::Stop => {}
            Job::Ensure(ensure) => self.ensures.push(ensure),
            Job::Forget(topic) => {
                for instance in self.shared.instances() {
                    instance.forget(&topic);
                }
                for lane in self.shared.drop_lanes(&topic) {
                    lane.refuse_all(Failure::UnknownTopic);
                }
                self.denied.remove(&topic);
            }
        }
    }

    fn replace_failed(&self) {
        for (producer, instance) in self.shared.instances().into_iter().enumerate() {
            if !instance.is_fatal() {
                continue;
            }
            match Instance::start(&self.shared) {
                Ok(fresh) => {
                    self.shared.replace_instance(producer, fresh);
                    instance.stop();
                }
                Err(error) => tracing::error!(%error, "start a producer in place of a failed one"),
            }
        }
    }

    /// Opens and closes the sink.
    fn see_brokers(&mut self) {
        let suspect = self.shared.suspect.swap(false, Ordering::SeqCst) || self.shared.is_stalled();
        if suspect && self.shared.set_open(false) {
            tracing::debug!("brokers do not answer; records wait");
            self.next_probe = Instant::now();
        }
        if self.shared.is_open() || Instant::now() < self.next_probe {
            return;
        }
        // Each producer has connections of its own; all must be of use. All are asked, also behind one that gets no answer: who is
        // silent, and since when, is known of each.
        let instances = self.shared.instances();
        if instances.iter().filter(|instance| instance.probe(PROBE_WAIT)).count() == instances.len() {
            self.shared.alive();
            self.shared.set_open(true);
        } else {
            self.next_probe = Instant::now() + PROBE_PAUSE;
        }
    }

    /// Wakes lanes that wait, and looks up the topics they wait for.
    fn serve_lanes(&mut self) {
        let lanes = self.shared.take_waiting();
        if self.shared.is_open() {
            let mut wanted: HashMap<Arc<str>, Vec<i32>> = HashMap::new();
            for lane in &lanes {
                wanted.entry(Arc::clone(&lane.topic)).or_default().push(lane.partition);
            }
            self.denied.retain(|topic, _| wanted.contains_key(topic));
            for (topic, partitions) in wanted {
                self.look(&topic, &partitions);
            }
        }
        for lane in lanes {
            let gone = self.denied.get(&lane.topic).is_some_and(|since| since.elapsed() >= UNKNOWN_AFTER);
            if gone {
                lane.refuse_all(Failure::UnknownTopic);
            }
            lane.wake_listed();
        }
    }

    /// Looks a topic up where a producer does not know leaders of these partitions.
    fn look(&mut self, topic: &Arc<str>, partitions: &[i32]) {
        for instance in self.shared.instances() {
            let Some(native) = instance.meet(topic) else { continue };
            if partitions.iter().all(|partition| native.is_led(*partition)) {
                continue;
            }
            match native.look(PROBE_WAIT) {
                Look::Led(_) => {}
                Look::Unknown => {
                    self.denied.entry(Arc::clone(topic)).or_insert_with(Instant::now);
                    return;
                }
                Look::Failed(code) => {
                    tracing::debug!(%topic, ?code, "look a topic up");
                    return;
                }
            }
        }
        self.denied.remove(topic);
    }

    fn serve_wishes(&mut self) {
        let ensures = std::mem::take(&mut self.ensures);
        for ensure in ensures {
            if ensure.done.is_closed() {
                continue;
            }
            if self.shared.is_open() && self.fulfil(&ensure) {
                let _ = ensure.done.send(true);
                self.wake_topic(&ensure.topic);
            } else if Instant::now() >= ensure.until {
                let _ = ensure.done.send(false);
            } else {
                self.ensures.push(ensure);
            }
        }
    }

    fn wake_topic(&self, topic: &str) {
        for lane in self.shared.lanes_of(topic) {
            lane.wake();
        }
    }

    /// Whether every producer knows a leader of each partition.
    fn fulfil(&self, ensure: &Ensure) -> bool {
        self.shared.instances().iter().all(|instance| {
            let Some(topic) = instance.meet(&ensure.topic) else { return false };
            topic.are_led(ensure.partitions)
                || matches!(topic.look(PROBE_WAIT), Look::Led(led) if led.has_first(ensure.partitions))
        })
    }

    fn end(self) {
        for lane in self.shared.drop_all_lanes() {
            lane.refuse_all(Failure::Closing);
        }
        for instance in self.shared.instances() {
            instance.stop();
        }
        self.shared.set_instances(Vec::new());
    }
}
