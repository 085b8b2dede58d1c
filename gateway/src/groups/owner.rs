//! Who dispatches which group: the highest hash of gateway and group among those who serve.
//!
//! All gateways compute the same from the same log, so they agree within a heartbeat; when a gateway comes or goes only its own
//! groups move. It is a hint that makes the right one join: Kafka's epochs decide who may commit.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::watch;

use sluice_proto::internal::control::v1::MemberHeartbeat;
use sluice_types::GroupUid;

use crate::groups::model::{Owner, Owners, Peer};
use crate::members::live::{Liveness, Membership};

/// For a port to refuse a connection; one that does not in this time is not dead.
const REFUSED_WITHIN: Duration = Duration::from_millis(200);
/// A gateway that was heard of after it was taken for dead is not doubted again so soon.
const TRUSTED_FOR: Duration = Duration::from_secs(10);
/// A heartbeat may have been written before its gateway died.
const ON_ITS_WAY: Duration = Duration::from_millis(600);
/// Gateways doubted at a time.
const DOUBTED_MAX: usize = 100;

/// Owners by the members' log.
pub struct MemberOwners {
    gateway_id: Arc<str>,
    boot_id: Arc<str>,
    members: Mutex<Membership>,
    serving: ArcSwap<Vec<Candidate>>,
    /// By boot: those whose port refuses connections, and those that were heard of after that.
    doubted: Mutex<HashMap<Arc<str>, Doubt>>,
    changes: watch::Sender<u64>,
}

/// What a refused connection tells of a gateway that the log still takes for alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// It is dead since then.
    Dead(Instant),
    /// It was heard of all the same, at this time.
    Alive(Instant),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    peer: Peer,
    seed: u64,
}

impl Doubt {
    fn is_dead(self) -> bool {
        matches!(self, Self::Dead(_))
    }

    /// A heartbeat was read. One that was on its way when the port was found closed proves nothing.
    fn heard(&mut self, now: Instant) {
        match *self {
            Self::Dead(since) if now.duration_since(since) < ON_ITS_WAY => {}
            Self::Dead(_) | Self::Alive(_) => *self = Self::Alive(now),
        }
    }
}

impl MemberOwners {
    /// For this start of this gateway; nobody owns anything until the log was read.
    pub fn new(gateway_id: Arc<str>, boot_id: Arc<str>) -> Arc<Self> {
        let (members, changes) = (Mutex::default(), watch::Sender::new(0));
        let doubted = Mutex::default();
        Arc::new(Self { gateway_id, boot_id, members, serving: ArcSwap::default(), doubted, changes })
    }

    /// Heartbeats were read, with their append times.
    pub fn heard(&self, heartbeats: impl Iterator<Item = (MemberHeartbeat, i64)>) {
        let mut members = self.members.lock();
        for (heartbeat, time_ms) in heartbeats {
            if let Some(doubt) = self.doubted.lock().get_mut(&*heartbeat.boot_id) {
                doubt.heard(Instant::now());
            }
            members.beat(heartbeat, time_ms);
        }
        self.look(&members);
    }

    /// The log was read from its beginning.
    pub fn replace(&self, members: Membership) {
        let mut held = self.members.lock();
        *held = members;
        self.look(&held);
    }

    /// Gateways that serve and are alive, by id.
    pub fn serving(&self) -> Vec<Peer> {
        self.serving.load().iter().map(|candidate| candidate.peer.clone()).collect()
    }

    /// Whether a member of a Kafka group may still be at work. Its id is `{gateway}/{boot}/{random}`; of this very process it is
    /// one that was left behind.
    pub fn liveness(&self, member_id: &str) -> Liveness {
        let mut parts = member_id.rsplitn(3, '/');
        let (Some(_random), Some(boot_id), Some(gateway_id)) = (parts.next(), parts.next(), parts.next()) else {
            return Liveness::Unknown;
        };
        if gateway_id == &*self.gateway_id {
            return Liveness::Gone;
        }
        if self.doubted.lock().get(boot_id).is_some_and(|doubt| doubt.is_dead()) {
            return Liveness::Gone;
        }
        self.members.lock().liveness(gateway_id, boot_id)
    }

    /// Nobody listens where this gateway did: it owns nothing, until it is heard of again.
    fn take_for_dead(&self, peer: &Peer) {
        tracing::info!(gateway = &*peer.gateway_id, "a gateway refuses connections: its groups move");
        let mut doubted = self.doubted.lock();
        if doubted.len() >= DOUBTED_MAX {
            // Long known to the log, most of them; who is not is doubted again.
            doubted.clear();
        }
        doubted.insert(Arc::clone(&peer.boot_id), Doubt::Dead(Instant::now()));
        drop(doubted);
        self.look(&self.members.lock());
    }

    fn look(&self, members: &Membership) {
        let serving = members.live().into_iter().map(Candidate::of);
        let doubted = self.doubted.lock();
        let serving: Vec<Candidate> =
            serving.filter(|one| doubted.get(&one.peer.boot_id).is_none_or(|doubt| !doubt.is_dead())).collect();
        drop(doubted);
        if **self.serving.load() == serving {
            return;
        }
        tracing::debug!(gateways = serving.len(), "the serving gateways changed");
        self.serving.store(Arc::new(serving));
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Owners for MemberOwners {
    fn owner(&self, group: GroupUid) -> Owner {
        let serving = self.serving.load();
        match highest(&serving, group) {
            Some(candidate) if candidate.peer.gateway_id == self.gateway_id => {
                // A heartbeat of before this start names a process that is no more.
                if candidate.peer.boot_id == self.boot_id { Owner::Here } else { Owner::Nobody }
            }
            Some(candidate) => Owner::There(candidate.peer.clone()),
            None => Owner::Nobody,
        }
    }

    fn doubt<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            match self.doubted.lock().get(&peer.boot_id) {
                Some(Doubt::Dead(_)) => return,
                Some(Doubt::Alive(heard)) if heard.elapsed() < TRUSTED_FOR => return,
                Some(Doubt::Alive(_)) | None => {}
            }
            let connect = tokio::time::timeout(REFUSED_WITHIN, TcpStream::connect(&*peer.address)).await;
            if matches!(connect, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused) {
                self.take_for_dead(peer);
            }
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Candidate {
    fn of(heartbeat: MemberHeartbeat) -> Self {
        let seed = seed(&heartbeat.gateway_id);
        let peer = Peer {
            gateway_id: heartbeat.gateway_id.into(),
            boot_id: heartbeat.boot_id.into(),
            address: heartbeat.internal_address.into(),
        };
        Self { peer, seed }
    }
}

fn highest(serving: &[Candidate], group: GroupUid) -> Option<&Candidate> {
    let group = mix(group.uid().as_u64());
    serving.iter().max_by_key(|candidate| (mix(candidate.seed ^ group), &candidate.peer.gateway_id))
}

/// A number for a gateway that no build changes: all must agree, also during an upgrade.
fn seed(gateway_id: &str) -> u64 {
    let hash = blake3::hash(gateway_id.as_bytes());
    let head = hash.as_bytes().first_chunk::<8>().copied().unwrap_or_default();
    u64::from_be_bytes(head)
}

/// The finalizer of SplitMix64.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use sluice_proto::internal::control::v1::MemberPhase;
    use sluice_types::Uid;

    use super::*;

    fn groups() -> impl Iterator<Item = GroupUid> {
        (0..10_000_u64).map(|number| GroupUid::from_uid(Uid::from_u64(number)))
    }

    fn candidates(count: usize) -> Vec<Candidate> {
        let of = |number| MemberHeartbeat { gateway_id: format!("gateway-{number}"), ..Default::default() };
        (0..count).map(|number| Candidate::of(of(number))).collect()
    }

    fn owner_id(serving: &[Candidate], group: GroupUid) -> Arc<str> {
        Arc::clone(&highest(serving, group).expect("somebody serves").peer.gateway_id)
    }

    #[test]
    fn a_closed_port_is_death_until_the_log_proves_life() {
        let found = Instant::now();
        let mut doubt = Doubt::Dead(found);
        doubt.heard(found + Duration::from_millis(100));
        assert!(doubt.is_dead(), "that heartbeat may be older than the death");
        doubt.heard(found + Duration::from_secs(1));
        assert_eq!(doubt, Doubt::Alive(found + Duration::from_secs(1)));
    }

    #[tokio::test]
    async fn only_a_port_that_refuses_connections_makes_a_gateway_dead() {
        let owners = MemberOwners::new("a".into(), "1".into());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let beat = |id: &str, boot: &str, address: &str| MemberHeartbeat {
            gateway_id: id.into(),
            boot_id: boot.into(),
            internal_address: address.into(),
            phase: MemberPhase::Serving.into(),
            ..Default::default()
        };
        owners.heard([(beat("a", "1", "127.0.0.1:1"), 0), (beat("b", "7", &address), 1)].into_iter());
        let peer = owners.serving().into_iter().find(|peer| &*peer.gateway_id == "b").expect("b serves");
        owners.doubt(&peer).await;
        assert_eq!(owners.serving().len(), 2, "it listens, though nobody answers");
        drop(listener);
        owners.doubt(&peer).await;
        assert_eq!(owners.serving().len(), 1);
        assert_eq!(owners.liveness("b/7/x"), Liveness::Gone);
        owners.heard(std::iter::once((beat("b", "8", &address), 2)));
        assert_eq!(owners.serving().len(), 2, "a new start is another one");
    }

    #[test]
    fn groups_are_spread_evenly() {
        let serving = candidates(5);
        let mut counts: HashMap<Arc<str>, u32> = HashMap::new();
        groups().for_each(|group| *counts.entry(owner_id(&serving, group)).or_default() += 1);
        assert_eq!(counts.len(), 5);
        assert!(counts.values().all(|count| (1_850..2_150).contains(count)), "{counts:?}");
    }

    #[test]
    fn only_the_groups_of_who_goes_move() {
        let (all, mut rest) = (candidates(5), candidates(5));
        let gone = rest.remove(2);
        for group in groups() {
            let before = owner_id(&all, group);
            assert!(before == owner_id(&rest, group) || before == gone.peer.gateway_id);
        }
    }

    #[test]
    fn the_choice_never_changes_between_builds() {
        let serving = candidates(5);
        let choice: Vec<_> = groups().take(8).map(|group| owner_id(&serving, group).to_string()).collect();
        let numbers: Vec<_> = choice.iter().map(|id| id.trim_start_matches("gateway-")).collect();
        assert_eq!(numbers.join(" "), "4 1 2 0 1 4 2 0");
    }

    fn beat(id: &str, boot: &str, phase: MemberPhase) -> (MemberHeartbeat, i64) {
        let heartbeat =
            MemberHeartbeat { gateway_id: id.into(), boot_id: boot.into(), phase: phase.into(), ..Default::default() };
        (heartbeat, 0)
    }

    #[test]
    fn a_gateway_owns_nothing_by_the_heartbeats_of_its_former_self() {
        let owners = MemberOwners::new("a".into(), "2".into());
        let mut changes = owners.changes();
        owners.heard([beat("a", "1", MemberPhase::Serving)].into_iter());
        assert_eq!(owners.owner(GroupUid::random()), Owner::Nobody);
        owners.heard([beat("a", "2", MemberPhase::Serving)].into_iter());
        assert_eq!(owners.owner(GroupUid::random()), Owner::Here);
        assert!(changes.has_changed().expect("open"));
        changes.mark_unchanged();
        owners.heard([beat("a", "2", MemberPhase::Serving)].into_iter());
        assert!(!changes.has_changed().expect("open"), "a heartbeat that tells nothing new moves nothing");
    }

    #[test]
    fn members_of_kafka_are_judged_by_their_gateways() {
        let owners = MemberOwners::new("a".into(), "2".into());
        owners.heard([beat("b", "7", MemberPhase::Serving)].into_iter());
        assert_eq!(owners.liveness("b/7/x"), Liveness::Alive);
        assert_eq!(owners.liveness("b/6/x"), Liveness::Gone);
        assert_eq!(owners.liveness("a/2/x"), Liveness::Gone);
        assert_eq!(owners.liveness("c/1/x"), Liveness::Unknown);
        assert_eq!(owners.liveness("stranger"), Liveness::Unknown);
    }
}
