//! Admin calls: topics, records, configs, ACLs, users, the cluster itself.
//!
//! Calls that change the cluster go to the controller; if it moved, they follow once the cluster tells where.

pub(crate) mod acls;
pub(crate) mod broker_view;
pub(crate) mod cluster;
pub(crate) mod configs;
pub(crate) mod quotas;
pub(crate) mod records;
pub(crate) mod topics;
pub(crate) mod users;

use std::time::Duration;

use crate::client::Client;
use crate::codec::{Request, Text};
use crate::deadline::Deadline;
use crate::error::{Error, Result, code};
use crate::pool::Lane;

/// Tries to find a moved controller.
const ATTEMPTS: u32 = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(100);

impl Client {
    /// Sends to the controller; `errors` lists the answer's error codes, to see whether it was the right node.
    pub(crate) async fn call_controller<R: Request>(
        &self,
        request: &R,
        errors: impl Fn(&R::Response) -> Vec<i16>,
        deadline: Deadline,
    ) -> Result<R::Response> {
        for attempt in 1.. {
            let outcome = self.call_controller_once(request, deadline).await;
            let moved = match &outcome {
                Ok(response) => errors(response).contains(&code::NOT_CONTROLLER),
                // Not sent at all, so nothing can have happened.
                Err(Error::Connect { .. } | Error::UnknownBroker { .. } | Error::NoController) => true,
                Err(_) => false,
            };
            if !moved || attempt >= ATTEMPTS || deadline.pause(RETRY_PAUSE * attempt).await.is_err() {
                return outcome;
            }
            self.refresh_cluster(deadline).await?;
        }
        Err(Error::DeadlineExceeded)
    }

    async fn call_controller_once<R: Request>(&self, request: &R, deadline: Deadline) -> Result<R::Response> {
        let controller = self.controller(deadline).await?;
        let call = async {
            let connection = self.connection(controller, Lane::Admin, deadline).await?;
            connection.call(request, deadline.remaining(), deadline).await
        };
        let outcome = call.await;
        if matches!(&outcome, Err(error) if error.is_retriable()) {
            self.inner.cache.forget_controller();
        }
        outcome
    }
}

/// Milliseconds left, for a request's own timeout field.
fn timeout_ms(deadline: Deadline) -> i32 {
    i32::try_from(deadline.remaining().as_millis()).unwrap_or(i32::MAX)
}

fn message(text: Option<Text>) -> Option<String> {
    text.map(|text| text.to_string())
}
