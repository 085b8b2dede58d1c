//! The control plane against a real PostgreSQL and a real Kafka: what a change leaves behind, who may make it, and that
//! none is lost.
#![allow(clippy::unwrap_used)]

mod access;
mod barrier;
mod changes;
mod clusters;
mod comparison;
mod crowds;
mod fences;
mod groups;
mod internal_topics;
mod operator;
mod operator_wall;
mod provisioner;
mod relay;
mod republishing;
mod support;
mod topics;
