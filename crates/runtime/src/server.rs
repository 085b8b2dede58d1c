//! Listeners with edges.

mod info;

pub use info::{Alpn, ConnInfo};
