//! Requests that any broker can answer: metadata, coordinators, descriptions.
//!
//! A broker that cannot be reached, or says nothing, must not hold up those who only want to know where to go instead.
//! Brokers that failed lately are asked last, and when one does not answer soon the next is asked beside it.

use std::collections::HashSet;
use std::time::Duration;

use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};

use crate::client::Client;
use crate::codec::Request;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::pool::{Lane, Node};
use crate::transport::Address;

/// A broker that is well answers within some milliseconds.
const NEXT_AFTER: Duration = Duration::from_millis(300);

impl Client {
    /// Sends to any broker, the request must be safe to repeat: known ones first, then the bootstrap addresses.
    pub(crate) async fn call_any<R: Request>(
        &self,
        request: &R,
        lane: Lane,
        deadline: Deadline,
    ) -> Result<R::Response> {
        let mut next = self.candidates().into_iter();
        let mut asked = FuturesUnordered::new();
        let mut last = Error::DeadlineExceeded;
        // The one asked last; it is under suspicion if the next one is asked beside it.
        let mut current: Option<Address> = None;
        loop {
            if asked.is_empty() || current.is_none() {
                match next.next() {
                    Some((node, address)) if !deadline.passed() => {
                        current = Some(address.clone());
                        asked.push(self.ask(node, address, request, lane, deadline).boxed());
                    }
                    _ if asked.is_empty() => return Err(last),
                    _ => {}
                }
            }
            let is_last = next.len() == 0;
            tokio::select! {
                Some((address, outcome)) = asked.next() => match outcome {
                    Ok(response) => {
                        self.inner.pool.absolve(&address);
                        return Ok(response);
                    }
                    Err(error @ (Error::Connect { .. } | Error::Disconnected { .. } | Error::Tls { .. })) => {
                        self.inner.pool.suspect(&address);
                        last = error;
                        current = None;
                    }
                    Err(error) => return Err(error),
                },
                () = tokio::time::sleep(NEXT_AFTER), if !is_last => {
                    if let Some(slow) = current.take() {
                        self.inner.pool.suspect(&slow);
                    }
                }
            }
        }
    }

    async fn ask<R: Request>(
        &self,
        node: Node,
        address: Address,
        request: &R,
        lane: Lane,
        deadline: Deadline,
    ) -> (Address, Result<R::Response>) {
        let answer = async {
            let connection = self.inner.pool.get(node, lane, &address, &self.inner.config, deadline).await?;
            connection.call(request, Duration::ZERO, deadline).await
        };
        let outcome = answer.await;
        (address, outcome)
    }

    /// Whom to ask, each address once: in a fixed order, so that two questions are not answered by two brokers' views
    /// without need; those under suspicion last.
    fn candidates(&self) -> Vec<(Node, Address)> {
        let known = self.inner.cache.brokers().into_iter().map(|(id, address)| (Node::Broker(id), address));
        let bootstrap =
            self.inner.bootstrap.iter().cloned().enumerate().map(|(at, address)| (Node::Bootstrap(at), address));
        let mut seen = HashSet::new();
        let mut all: Vec<_> = known.chain(bootstrap).filter(|(_, address)| seen.insert(address.clone())).collect();
        all.sort_by_key(|(_, address)| self.inner.pool.is_suspect(address));
        all
    }
}
