//! A model of Kafka: logs, a group's coordinator, its committed positions.
//!
//! What it models: offsets with gaps, leader epochs and their divergence, retention, a log that is cut off, partitions that are
//! added, topics that are deleted; members with epochs that give back what they are to lose before others get it, fencing, sessions
//! that end; commits that are refused to those who are no members, as Kafka checks who commits and not who owns the partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use sluice_wire::{EpochStart, Error, KafkaError, KafkaTopicId, Record, TimestampType, TopicPartition, code};

use crate::groups::dispatch::reading::{Place, Read, Wanted};
use crate::groups::dispatch::taking::Target;
use crate::groups::window::{Seen, Window};

/// A member that is silent for so long is removed.
pub(super) const SESSION_MS: u64 = 10_000;
/// Records of one read, at most.
const READ_MAX: usize = 40;
const KEYS: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];

/// Topic in Kafka, and partition.
pub(super) type Tp = (Arc<str>, i32);

#[derive(Debug, Clone)]
pub(super) struct Rec {
    /// Which record of all.
    pub(super) id: usize,
    pub(super) offset: i64,
    pub(super) key: Option<u8>,
    /// What it is taken to hold; in memory it is a number.
    pub(super) size: u32,
    epoch: i32,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) records: Vec<Rec>,
    pub(super) start: i64,
    pub(super) end: i64,
    epoch: i32,
    /// Where it ended at most.
    pub(super) end_ever: i64,
    /// Nobody leads it until then.
    pub(super) away_until: u64,
}

pub(super) struct Committed {
    pub(super) offset: i64,
    pub(super) leader_epoch: Option<i32>,
    pub(super) metadata: String,
    /// What it says.
    pub(super) window: Window,
}

#[derive(Debug, Default)]
pub(super) struct Member {
    epoch: i32,
    pub(super) topics: Vec<Arc<str>>,
    /// What it has, or is about to hear that it has.
    held: Target,
    target: Target,
    pub(super) last_beat: u64,
}

#[derive(Default)]
pub(super) struct Kafka {
    pub(super) logs: BTreeMap<Tp, Log>,
    pub(super) members: BTreeMap<Arc<str>, Member>,
    group_epoch: i32,
    pub(super) committed: BTreeMap<Tp, Committed>,
    pub(super) away_until: u64,
}

pub(super) fn refused(code: i16) -> Error {
    Error::Kafka(KafkaError { code, name: code.to_string(), retriable: false, message: None })
}

impl Log {
    pub(super) fn append(&mut self, id: usize, key: Option<u8>, size: u32, gap: i64) -> i64 {
        let offset = self.end + gap;
        self.records.push(Rec { id, offset, key, size, epoch: self.epoch });
        self.end = offset + 1;
        offset
    }

    pub(super) fn at(&self, offset: i64) -> Option<&Rec> {
        let at = self.records.binary_search_by_key(&offset, |rec| rec.offset).ok()?;
        self.records.get(at).filter(|_| offset >= self.start)
    }

    /// Retention takes what lies below an offset.
    pub(super) fn trim(&mut self, start: i64) {
        self.start = self.start.max(start.min(self.end));
    }

    /// An unclean election: what lies from an offset on is lost.
    pub(super) fn cut(&mut self, end: i64) {
        self.end = end.clamp(self.start, self.end);
        let end = self.end;
        self.records.retain(|rec| rec.offset < end);
        self.epoch += 1;
    }

    /// Where what a reader of an epoch knows ends in this log.
    fn end_of(&self, epoch: i32) -> i64 {
        self.records.iter().find(|rec| rec.epoch > epoch).map_or(self.end, |rec| rec.offset)
    }

    fn read(&self, place: &Place, wanted: &Wanted) -> Result<Read, Error> {
        let (topic, partition, offset) = (place.topic.to_string(), place.partition, wanted.offset);
        if let Some(epoch) = place.last_epoch {
            let end_offset = self.end_of(epoch);
            if end_offset < offset {
                return Err(Error::LogTruncated { topic, partition, offset, epoch, end_offset });
            }
        }
        if !(self.start..=self.end).contains(&offset) {
            let (log_start_offset, end_offset) = (self.start, self.end);
            return Err(Error::OffsetOutOfRange { topic, partition, offset, log_start_offset, end_offset });
        }
        let first = self.records.partition_point(|rec| rec.offset < offset);
        let bytes_max = wanted.held_bytes.min(wanted.fetch_bytes as usize);
        let mut read = Read { end: self.end, log_start: self.start, next_offset: self.end, ..Read::default() };
        for rec in &self.records[first..] {
            let is_over = read.bytes + rec.size as usize > bytes_max || read.records.len() >= READ_MAX;
            if is_over && !read.records.is_empty() {
                read.next_offset = rec.offset;
                read.is_cut = true;
                break;
            }
            if read.epochs.last().is_none_or(|last| last.epoch != rec.epoch) {
                read.epochs.push(EpochStart { offset: rec.offset, epoch: rec.epoch });
            }
            read.bytes += rec.size as usize;
            read.seen.push(Seen { offset: rec.offset, key: rec.key.map(u64::from), bytes: rec.size });
            read.records.push(rec.record());
        }
        read.fetched_bytes = read.bytes;
        Ok(read)
    }
}

impl Rec {
    pub(super) fn record(&self) -> Record {
        Record {
            offset: self.offset,
            timestamp_ms: 1,
            timestamp_type: TimestampType::CreateTime,
            key: self.key.map(|key| Bytes::from_static(KEYS[usize::from(key)])),
            value: Some(Bytes::copy_from_slice(&self.id.to_le_bytes())),
            headers: Vec::new(),
        }
    }
}

/// Which record of all it is.
pub(super) fn id_of(value: Option<&Bytes>) -> usize {
    let value = value.and_then(|value| <[u8; 8]>::try_from(&value[..]).ok());
    usize::from_le_bytes(value.expect("a record of ours"))
}

impl Kafka {
    /// The log, if somebody leads it.
    pub(super) fn led(&self, tp: &Tp, now: u64) -> Result<&Log, Error> {
        let (topic, partition) = (tp.0.to_string(), tp.1);
        let log = self.logs.get(tp).ok_or_else(|| Error::UnknownPartition { topic: topic.clone(), partition })?;
        if now < log.away_until { Err(Error::NoLeader { topic, partition }) } else { Ok(log) }
    }

    /// What a read brings; `None`: it waits.
    pub(super) fn read(&self, place: &Place, wanted: &Wanted, now: u64) -> Result<Option<Read>, Error> {
        let read = self.led(&(Arc::clone(&place.topic), place.partition), now)?.read(place, wanted)?;
        Ok(Some(read).filter(|read| !wanted.waits || !read.records.is_empty() || read.next_offset > wanted.offset))
    }

    pub(super) fn is_away(&self, now: u64) -> Result<(), Error> {
        if now < self.away_until { Err(Error::DeadlineExceeded) } else { Ok(()) }
    }

    /// Whether somebody may commit now.
    pub(super) fn is_member(&self, id: &str, epoch: i32) -> Result<(), Error> {
        match self.members.get(id) {
            None => Err(refused(code::UNKNOWN_MEMBER_ID)),
            Some(member) if member.epoch != epoch => Err(refused(code::STALE_MEMBER_EPOCH)),
            Some(_) => Ok(()),
        }
    }

    /// The members have changed, or the topics.
    pub(super) fn rebalance(&mut self) {
        self.group_epoch += 1;
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        self.members.values_mut().for_each(|member| member.target.clear());
        for (at, tp) in self.logs.keys().enumerate() {
            let wants = |id: &&Arc<str>| self.members.get(*id).is_some_and(|member| member.topics.contains(&tp.0));
            let able: Vec<&Arc<str>> = ids.iter().filter(wants).collect();
            let Some(id) = able.get(at % able.len().max(1)) else { continue };
            if let Some(member) = self.members.get_mut(*id) {
                member.target.insert(tp.clone());
            }
        }
    }

    /// A heartbeat of a member; a new one joins. Gives its epoch and what it may use.
    pub(super) fn beat(
        &mut self,
        id: &Arc<str>,
        epoch: Option<i32>,
        topics: &[Arc<str>],
        held: &Target,
        now: u64,
    ) -> Result<(i32, Target), Error> {
        match (self.members.get_mut(id), epoch) {
            (Some(_), None) => {}
            (None, None) => {
                self.members.insert(Arc::clone(id), Member { topics: topics.to_vec(), ..Member::default() });
                self.rebalance();
            }
            (None, Some(_)) => return Err(refused(code::UNKNOWN_MEMBER_ID)),
            (Some(member), Some(epoch)) if epoch > member.epoch => return Err(refused(code::FENCED_MEMBER_EPOCH)),
            (Some(member), Some(epoch)) => {
                // What an answer gave that was lost is still given.
                if epoch == member.epoch {
                    member.held.retain(|tp| held.contains(tp) || member.target.contains(tp));
                }
            }
        }
        let changed = self.members.get_mut(id).is_some_and(|member| {
            member.last_beat = now;
            std::mem::replace(&mut member.topics, topics.to_vec()) != *topics
        });
        if changed {
            self.rebalance();
        }
        let free = |tp: &&Tp| self.members.iter().all(|(other, member)| other == id || !member.held.contains(*tp));
        let Some(member) = self.members.get(id) else { return Err(refused(code::UNKNOWN_MEMBER_ID)) };
        let kept: Target = member.held.intersection(&member.target).cloned().collect();
        let (is_revoking, group_epoch) = (kept.len() < member.held.len(), self.group_epoch);
        let given: Target = if is_revoking { kept } else { member.target.iter().filter(free).cloned().collect() };
        let Some(member) = self.members.get_mut(id) else { return Err(refused(code::UNKNOWN_MEMBER_ID)) };
        if !is_revoking {
            member.epoch = group_epoch;
            member.held.clone_from(&given);
        }
        Ok((member.epoch, given))
    }

    /// A member has gone.
    pub(super) fn leave(&mut self, id: &str) -> bool {
        let was_there = self.members.remove(id).is_some();
        if was_there {
            self.rebalance();
        }
        was_there
    }

    /// Sessions end.
    pub(super) fn expire(&mut self, now: u64) {
        let silent: Vec<Arc<str>> = self
            .members
            .iter()
            .filter(|(_, member)| now > member.last_beat + SESSION_MS)
            .map(|(id, _)| Arc::clone(id))
            .collect();
        for id in silent {
            self.leave(&id);
        }
    }

    /// What a member is to have, once it is there in the group's epoch.
    pub(super) fn target_of(&self, id: &str) -> Option<(bool, &Target)> {
        self.members.get(id).map(|member| (member.epoch > 0, &member.target))
    }
}

pub(super) fn partitions(of: &Target) -> Vec<TopicPartition> {
    let one = |(topic, partition): &Tp| TopicPartition {
        topic: Arc::clone(topic),
        topic_id: KafkaTopicId::ZERO,
        partition: *partition,
    };
    of.iter().map(one).collect()
}
