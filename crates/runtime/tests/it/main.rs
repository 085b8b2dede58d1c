//! The runtime's promises, over real sockets and real TLS.

mod admin;
mod drain;
mod edges;
mod internal;
mod reload;
mod support;
mod token;
