//! What one broker knows: a change reaches brokers one after the other, and a client may ask any of them.

use std::time::Duration;

use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::Result;
use crate::metadata::{self, ClusterMetadata};
use crate::pool::Lane;

impl Client {
    /// This broker's own view of topics; a topic's error is in its entry. Not put into the cache.
    pub async fn metadata_of_broker(&self, broker: i32, topics: &[&str], timeout: Duration) -> Result<ClusterMetadata> {
        let deadline = Deadline::after(timeout);
        let connection = self.connection(broker, Lane::Control, deadline).await?;
        metadata::parse(connection.call(&metadata::request(Some(topics)), Duration::ZERO, deadline).await?)
    }
}
