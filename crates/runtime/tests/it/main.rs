//! The runtime's promises, over real sockets and real TLS.

mod admin;
mod clients;
mod drain;
mod edges;
mod farewell;
mod internal;
mod places;
mod reload;
mod support;
mod token;
mod unread;
