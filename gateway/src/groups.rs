//! Consumer groups: deliver records under leases, with an acknowledgement per record, through any gateway.
//!
//! Two halves. The *door* (`door`) is the gateway a client talks to: it has authenticated and authorized the call, makes and
//! checks ack ids, encodes payloads, charges egress and counts usage. The *dispatcher* (`dispatch`) is the one gateway that
//! owns a group, chosen by rendezvous hashing over the live gateways (`owner`): only it joins the group in Kafka, keeps a
//! [`window`] per partition and commits. They meet in the trait [`model::Dispatch`]: implemented by the dispatcher of this
//! process, and by `remote` for those of others, which `serve` answers over mutual TLS.
//!
//! One invariant carries the rest: an acknowledgement is answered OK only after a commit that holds it was taken by Kafka
//! from a member that is still one. Who owns a group is a hint; Kafka's epochs decide.

pub mod ack_id;
pub mod dispatch;
pub mod door;
pub mod home;
pub mod keyring;
pub mod model;
pub mod owner;
pub mod remote;
pub mod serve;
pub mod window;
