//! Asks the control plane for a key that the view does not hold.
//!
//! Within a budget, so that random keys do not become its load: 50 a second per gateway, 5 a second per peer. Callers with
//! the same key share one question. "No such key" is remembered for less than a second, which no client can notice: a key
//! made now is in the view before its maker hears of it. Nobody whose key works asks here, so what is remembered harms none.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use moka::sync::Cache;
use parking_lot::Mutex;

use sluice_proto::internal::control::v1::ControlRecord;
use sluice_runtime::server::source_of;
use sluice_types::error::Error;
use sluice_types::gcra::{Decision, Gcra, Rate};
use sluice_types::{KeyUid, Reason};

use crate::metrics::LookupMetrics;
use crate::view::View;

/// Questions of this gateway.
const GATEWAY_BUDGET: Rate = Rate { units_per_second: 50, burst_units: 50 };
/// Questions for one peer.
const PEER_BUDGET: Rate = Rate { units_per_second: 5, burst_units: 5 };
const PEERS_MAX: u64 = 10_000;
/// How long "no such key" is remembered.
const ABSENT_FOR: Duration = Duration::from_millis(900);
const ABSENT_MAX: u64 = 10_000;
/// How long one question may take.
const ASK_WITHIN: Duration = Duration::from_secs(1);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupFailure {
    /// There is no such key.
    #[error("no such key")]
    Absent,
    /// The control plane or its database does not answer.
    #[error("look up key: {0}")]
    Unavailable(String),
}

/// Who is asked.
pub trait KeySource: Send + Sync + 'static {
    /// The key, its account and its tenant, as they stand in the log.
    fn look_up(&self, id: KeyUid) -> BoxFuture<'static, Result<Vec<ControlRecord>, LookupFailure>>;
}

type Asked = Shared<BoxFuture<'static, Result<(), LookupFailure>>>;

/// The look-up with its budgets.
pub struct KeyLookup {
    source: Arc<dyn KeySource>,
    view: Arc<View>,
    metrics: LookupMetrics,
    epoch: Instant,
    gateway: Gcra,
    peers: Cache<IpAddr, Arc<Gcra>>,
    absent: Cache<KeyUid, ()>,
    /// Questions under way; the budgets bound how many.
    asked: Arc<Mutex<HashMap<KeyUid, Asked>>>,
}

impl KeyLookup {
    /// Asks `source`, and puts what it says into `view`.
    pub fn new(source: Arc<dyn KeySource>, view: Arc<View>, metrics: LookupMetrics) -> Self {
        Self {
            source,
            view,
            metrics,
            epoch: Instant::now(),
            gateway: Gcra::new(),
            peers: Cache::builder().max_capacity(PEERS_MAX).time_to_idle(Duration::from_secs(60)).build(),
            absent: Cache::builder().max_capacity(ABSENT_MAX).time_to_live(ABSENT_FOR).build(),
            asked: Arc::default(),
        }
    }

    /// True when the key is in the view now, false when there is no such key; UNAVAILABLE when nobody can tell.
    pub async fn ask(&self, id: KeyUid, peer: IpAddr) -> Result<bool, Error> {
        if self.absent.contains_key(&id) {
            self.metrics.absent_cached.inc();
            return Ok(false);
        }
        let outcome = match self.join(id, peer)? {
            Some(asked) => asked.await,
            None => return Err(unverified("too many unknown keys at the moment")),
        };
        match outcome {
            Ok(()) => Ok(true),
            Err(LookupFailure::Absent) => Ok(false),
            Err(failure) => Err(unverified("the key cannot be checked at the moment").with_source(failure)),
        }
    }

    /// The answer about this key did not help: for a moment nobody asks again.
    pub fn in_vain(&self, id: KeyUid) {
        self.absent.insert(id, ());
    }

    /// The question about this key: one under way, or a new one if the budgets allow it.
    fn join(&self, id: KeyUid, peer: IpAddr) -> Result<Option<Asked>, Error> {
        let mut asked = self.asked.lock();
        if let Some(under_way) = asked.get(&id) {
            return Ok(Some(under_way.clone()));
        }
        let now = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let of_peer = self.peers.get_with(source_of(peer), Arc::default);
        let within = |limiter: &Gcra, rate| match limiter.request(rate, 1, now) {
            Decision::Accepted { .. } => Ok(()),
            Decision::Refused { retry_after } => {
                self.metrics.over_budget.inc();
                Err(unverified("too many unknown keys at the moment").with_retry_after(retry_after))
            }
        };
        within(&of_peer, PEER_BUDGET)?;
        within(&self.gateway, GATEWAY_BUDGET)?;
        self.metrics.asked.inc();
        let question = self.question(id);
        asked.insert(id, question.clone());
        // In a task of its own: it goes on for the others when the caller that began it goes away.
        tokio::spawn(question.clone());
        Ok(Some(question))
    }

    fn question(&self, id: KeyUid) -> Asked {
        let answer = self.source.look_up(id);
        let (view, absent, asked) = (Arc::clone(&self.view), self.absent.clone(), Arc::clone(&self.asked));
        let work: BoxFuture<'static, _> = Box::pin(async move {
            let answer = tokio::time::timeout(ASK_WITHIN, answer).await;
            let outcome = match answer.unwrap_or_else(|_| Err(LookupFailure::Unavailable("no answer in time".into()))) {
                Ok(records) => {
                    let index = view.index();
                    for record in records {
                        if let Err(error) = index.apply(record) {
                            tracing::error!(%error, "record of a key look-up skipped");
                        }
                    }
                    match view.key(id) {
                        Some(_) => Ok(()),
                        // Of a key that ended long ago its account and tenant may be all that is left.
                        None => {
                            absent.insert(id, ());
                            Err(LookupFailure::Absent)
                        }
                    }
                }
                Err(failure) => {
                    if failure == LookupFailure::Absent {
                        absent.insert(id, ());
                    }
                    Err(failure)
                }
            };
            asked.lock().remove(&id);
            outcome
        });
        work.shared()
    }
}

fn unverified(what: &str) -> Error {
    Error::unavailable(Reason::CredentialUnverified, format!("{what}; try again"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Source {
        asked: AtomicUsize,
        answer: Result<Vec<ControlRecord>, LookupFailure>,
    }

    impl KeySource for Source {
        fn look_up(&self, _: KeyUid) -> BoxFuture<'static, Result<Vec<ControlRecord>, LookupFailure>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let answer = self.answer.clone();
            Box::pin(async move {
                tokio::task::yield_now().await;
                answer
            })
        }
    }

    fn lookup(answer: Result<Vec<ControlRecord>, LookupFailure>) -> (Arc<Source>, KeyLookup) {
        let source = Arc::new(Source { asked: AtomicUsize::new(0), answer });
        let lookup = KeyLookup::new(source.clone(), Arc::default(), LookupMetrics::default());
        (source, lookup)
    }

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn many_calls_with_one_unknown_key_ask_once() {
        let (source, lookup) = lookup(Err(LookupFailure::Absent));
        let id = KeyUid::random();
        let calls = futures::future::join_all((0..100).map(|_| lookup.ask(id, PEER))).await;
        assert!(calls.into_iter().all(|found| !found.expect("an answer")));
        assert!(!lookup.ask(id, PEER).await.expect("remembered"));
        assert_eq!(source.asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_key_of_which_only_the_tenant_is_left_is_absent_and_not_asked_again_at_once() {
        let tenant = sluice_types::TenantUid::random().to_string();
        let state = sluice_proto::internal::control::v1::TenantState {
            uid: tenant.clone(),
            id: "acme".into(),
            ..Default::default()
        };
        let resource = sluice_proto::internal::control::v1::control_record::Resource::Tenant(state);
        let record = ControlRecord { version: 1, tenant_uid: tenant, resource: Some(resource), ..Default::default() };
        let (source, lookup) = lookup(Ok(vec![record]));
        let id = KeyUid::random();
        for _ in 0..10 {
            assert!(!lookup.ask(id, PEER).await.expect("an answer"));
        }
        assert_eq!(source.asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_peer_with_random_keys_is_stopped_by_its_budget_and_others_are_not() {
        let (source, lookup) = lookup(Err(LookupFailure::Absent));
        let mut refused = 0;
        for _ in 0..100 {
            if let Err(error) = lookup.ask(KeyUid::random(), PEER).await {
                assert_eq!(error.reason, Reason::CredentialUnverified);
                assert!(error.retry_after.is_some());
                refused += 1;
            }
        }
        assert!(refused >= 90, "{refused}");
        assert!(source.asked.load(Ordering::Relaxed) <= 10);
        assert!(!lookup.ask(KeyUid::random(), IpAddr::from([192, 0, 2, 1])).await.expect("its own budget"));
    }

    #[tokio::test]
    async fn many_peers_together_stay_within_the_gateways_budget() {
        let (source, lookup) = lookup(Err(LookupFailure::Absent));
        for i in 0..=255u8 {
            let _ = lookup.ask(KeyUid::random(), IpAddr::from([192, 0, 2, i])).await;
        }
        assert!(source.asked.load(Ordering::Relaxed) <= 60);
    }

    #[tokio::test]
    async fn a_control_plane_that_does_not_answer_is_not_a_wrong_key() {
        let (_, lookup) = lookup(Err(LookupFailure::Unavailable("refused".into())));
        let error = lookup.ask(KeyUid::random(), PEER).await.expect_err("nobody can tell");
        assert_eq!(error.reason, Reason::CredentialUnverified);
        assert_eq!(error.kind, sluice_types::ErrorKind::Unavailable);
    }
}
