//! Chooses free TCP ports.
//!
//! They are taken from below the kernel's ephemeral range, not by binding port 0: while a server is down for a fault
//! test, its clients keep dialling `localhost:port`, and inside the ephemeral range the kernel may give such a dial the
//! very same port as its source. The connection then meets itself, and the server can no longer bind. Another process
//! can still take a port between our look and the server's bind; whoever starts a server retries with other ports.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};

use crate::error::{Error, Result};

const LOWEST: u16 = 10_000;
const EPHEMERAL_START_DEFAULT: u16 = 32_768;
const TRIES_MAX: usize = 1_000;

/// `count` different ports on 127.0.0.1 that nobody listens on.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    let end = ephemeral_start().max(LOWEST + 1_000);
    let mut ports = BTreeSet::new();
    for _ in 0..TRIES_MAX {
        if ports.len() == count {
            break;
        }
        let port = LOWEST + random_u16()? % (end - LOWEST);
        if is_free(port) {
            ports.insert(port);
        }
    }
    if ports.len() < count {
        return Err(Error::Invalid(format!("found no {count} free ports between {LOWEST} and {end} on 127.0.0.1")));
    }
    Ok(ports.into_iter().collect())
}

/// Whether a server could bind the port on 127.0.0.1 now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn ephemeral_start() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or(EPHEMERAL_START_DEFAULT)
}

fn random_u16() -> Result<u16> {
    let mut bytes = [0_u8; 2];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::Invalid(format!("the system gives no random bytes: {error}")))?;
    Ok(u16::from_ne_bytes(bytes))
}
