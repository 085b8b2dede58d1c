//! Who is alive, judged by the log: its append times and the heartbeats of others, never by our own clock.
//!
//! A member is dead when 2 s of log time and four heartbeats of some other member have passed without one of its own. If
//! Kafka stops, no time passes in the log and nobody dies.

use std::collections::HashMap;

use sluice_proto::internal::control::v1::{MemberHeartbeat, MemberPhase};

/// Log time without a heartbeat after which a member may be dead.
const SILENT_MS: i64 = 2_000;
/// Heartbeats of one other member that prove that the log went on.
const OTHERS_BEATS: u64 = 4;
/// Members kept; beyond it the one that was silent for longest goes.
const MEMBERS_MAX: usize = 1_000;

/// The members as the log shows them.
#[derive(Debug, Default)]
pub struct Membership {
    members: HashMap<String, Member>,
    log_time_ms: i64,
}

/// What the log says of one start of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It was heard of lately.
    Alive,
    /// It left, died, or was started anew.
    Gone,
    /// The log does not know the gateway.
    Unknown,
}

#[derive(Debug)]
struct Member {
    last: MemberHeartbeat,
    last_ms: i64,
    beats: u64,
    /// How many beats each other member had at this one's last.
    others: HashMap<String, u64>,
}

impl Membership {
    /// A heartbeat was read; `time_ms` is its append time.
    pub fn beat(&mut self, heartbeat: MemberHeartbeat, time_ms: i64) {
        self.log_time_ms = self.log_time_ms.max(time_ms);
        let id = heartbeat.gateway_id.clone();
        let others = self.members.iter().filter(|(other, _)| **other != id).map(|(other, m)| (other.clone(), m.beats));
        let others = others.collect();
        let beats = self.members.get(&id).map_or(0, |member| member.beats) + 1;
        self.members.insert(id, Member { last: heartbeat, last_ms: time_ms, beats, others });
        if self.members.len() > MEMBERS_MAX
            && let Some(oldest) = self.members.iter().min_by_key(|(_, m)| m.last_ms).map(|(id, _)| id.clone())
        {
            self.members.remove(&oldest);
        }
    }

    /// Those who serve and are alive, by id.
    pub fn live(&self) -> Vec<MemberHeartbeat> {
        let serving = |member: &&Member| member.last.phase() == MemberPhase::Serving && !self.is_dead(member);
        let mut live: Vec<_> = self.members.values().filter(serving).map(|member| member.last.clone()).collect();
        live.sort_by(|a, b| a.gateway_id.cmp(&b.gateway_id));
        live
    }

    /// Whether that start of that gateway may still act: a gateway that started anew, left or fell silent has no old self.
    pub fn liveness(&self, gateway_id: &str, boot_id: &str) -> Liveness {
        let Some(member) = self.members.get(gateway_id) else { return Liveness::Unknown };
        if member.last.boot_id != boot_id || member.last.phase() == MemberPhase::Left || self.is_dead(member) {
            return Liveness::Gone;
        }
        Liveness::Alive
    }

    fn is_dead(&self, member: &Member) -> bool {
        let beats_since = |(id, other): (&String, &Member)| other.beats - member.others.get(id).copied().unwrap_or(0);
        let others = self.members.iter().filter(|(id, _)| **id != member.last.gateway_id);
        self.log_time_ms - member.last_ms >= SILENT_MS && others.map(beats_since).any(|beats| beats >= OTHERS_BEATS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(members: &mut Membership, id: &str, time_ms: i64, phase: MemberPhase) {
        let heartbeat = MemberHeartbeat { gateway_id: id.into(), phase: phase.into(), ..Default::default() };
        members.beat(heartbeat, time_ms);
    }

    fn live(members: &Membership) -> Vec<String> {
        members.live().into_iter().map(|member| member.gateway_id).collect()
    }

    #[test]
    fn a_silent_member_dies_when_others_go_on() {
        let mut members = Membership::default();
        beat(&mut members, "a", 0, MemberPhase::Serving);
        for time in [0, 500, 1000, 1500] {
            beat(&mut members, "b", time, MemberPhase::Serving);
        }
        assert_eq!(live(&members), ["a", "b"]);
        beat(&mut members, "b", 2000, MemberPhase::Serving);
        assert_eq!(live(&members), ["b"]);
        beat(&mut members, "a", 2100, MemberPhase::Serving);
        assert_eq!(live(&members), ["a", "b"]);
    }

    #[test]
    fn a_gap_of_the_whole_log_kills_nobody() {
        let mut members = Membership::default();
        beat(&mut members, "a", 0, MemberPhase::Serving);
        beat(&mut members, "b", 100, MemberPhase::Serving);
        beat(&mut members, "b", 20_000, MemberPhase::Serving);
        assert_eq!(live(&members), ["a", "b"], "b's one beat does not prove that a had a chance");
    }

    #[test]
    fn who_left_or_started_anew_is_gone_and_who_drains_is_not() {
        let mut members = Membership::default();
        let mut say = |boot: &str, phase: MemberPhase| {
            let heartbeat = MemberHeartbeat {
                gateway_id: "a".into(),
                boot_id: boot.into(),
                phase: phase.into(),
                ..Default::default()
            };
            members.beat(heartbeat, 0);
            (members.liveness("a", "1"), members.liveness("a", "2"), members.liveness("b", "1"))
        };
        use Liveness::{Alive, Gone, Unknown};
        assert_eq!(say("1", MemberPhase::Serving), (Alive, Gone, Unknown));
        assert_eq!(say("1", MemberPhase::Draining), (Alive, Gone, Unknown));
        assert_eq!(say("1", MemberPhase::Left), (Gone, Gone, Unknown));
        assert_eq!(say("2", MemberPhase::Starting), (Gone, Alive, Unknown));
    }

    #[test]
    fn only_who_serves_is_listed() {
        let mut members = Membership::default();
        beat(&mut members, "a", 0, MemberPhase::Starting);
        beat(&mut members, "b", 0, MemberPhase::Draining);
        beat(&mut members, "c", 0, MemberPhase::Left);
        assert!(live(&members).is_empty());
    }
}
