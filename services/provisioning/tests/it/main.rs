//! Provisioning over a real Kafka, with a control plane that keeps its state and its rules in this process.
#![allow(clippy::unwrap_used)]

mod clusters;
mod crash;
mod forgetting;
mod lifecycle;
mod ownership;
mod plane;
mod support;
