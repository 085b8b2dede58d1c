//! What the window says of single records.

use std::sync::Arc;

use super::Millis;

/// A record that may be leased now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// Which.
    pub offset: i64,
    /// The attempt its lease would be, from 1.
    pub attempt: u32,
    /// Its size as it was read.
    pub bytes: u32,
}

/// A record handed to a client for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Which.
    pub offset: i64,
    /// Which delivery this is, from 1.
    pub attempt: u32,
    /// When it runs out.
    pub end: Millis,
}

/// What became of an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    /// The record is done now.
    Done,
    /// It was before.
    AlreadyDone,
    /// This was not the current lease.
    Stale,
}

/// What became of a nack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The record is delivered again from this time on.
    Retry {
        /// When.
        at: Millis,
    },
    /// Its attempts are over: it waits to be dead-lettered.
    Dead,
    /// This was not the current lease.
    Stale,
}

/// A record whose attempts are over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// Which.
    pub offset: i64,
    /// How often it failed.
    pub attempts: u32,
    /// When it was first delivered, as far as this window knows: a takeover forgets it.
    pub first_delivery: Millis,
    /// How the last attempt ended.
    pub reason: DeathReason,
}

/// How the last attempt of a record ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeathReason {
    /// A client refused it, with these words.
    Refused(Arc<str>),
    /// Its lease ran out.
    DeadlineExceeded,
}
