//! The gateway's edge on a real Kafka: what is published is served, what is forwarded is signed, and what is restarted or
//! cut off goes on. The data path is a small stand-in here; its own tests are elsewhere.

mod control_plane;
mod data;
mod edge;
mod egress;
mod faults;
mod groups_dispatch;
mod groups_door;
mod payloads;
mod server_info;
mod streams_limit;
mod throttled;
mod waiting;
mod world;
