//! Consumer groups: who coordinates them, being a member, their committed offsets, and looking at them.
//!
//! Speaks the broker-driven protocol (heartbeats that carry assignments) only. Membership of thousands of groups costs a
//! few tasks and a few connections per broker: [`shard`] owns the time, [`slot`] one membership in it, [`state`] the
//! rules, without I/O or clock.

pub(crate) mod committed;
pub(crate) mod coordinator;
pub(crate) mod describe;
mod heartbeat;
pub(crate) mod member;
pub(crate) mod memberships;
mod names;
mod shard;
mod slot;
mod state;
#[cfg(test)]
mod state_tests;
