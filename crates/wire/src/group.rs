//! Consumer groups: who coordinates them, being a member, their committed offsets, and looking at them.
//!
//! Speaks the broker-driven protocol (heartbeats that carry assignments) only. Membership of thousands of groups costs a
//! few tasks and a few connections per broker: [`driver`] owns the time, [`state`] the rules, without I/O or clock.

pub(crate) mod committed;
pub(crate) mod coordinator;
pub(crate) mod describe;
pub(crate) mod driver;
mod heartbeat;
pub(crate) mod member;
mod state;
#[cfg(test)]
mod state_tests;
