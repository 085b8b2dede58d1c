//! The gateway's edge on a real Kafka: what is published is served, what is forwarded is signed, and what is restarted or
//! cut off goes on.

mod clusters;
mod control_plane;
mod edge;
mod egress;
mod faults;
mod groups_dispatch;
mod groups_door;
mod payloads;
mod server_info;
mod streams_limit;
mod waiting;
mod world;
