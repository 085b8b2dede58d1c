//! What the door serves over HTTP by hand; the rest goes through the generated dispatcher.

use std::sync::Arc;

use sluice_proto::stream::v1::SubscribeRequest;
use sluice_types::error::Error;

use crate::groups::door::{Door, sse};
use crate::ports::{Body, DataCall};

impl Door {
    /// `GET …/groups/{group}:stream`.
    pub async fn http_subscribe(
        &self,
        call: &Arc<DataCall>,
        request: &SubscribeRequest,
    ) -> Result<http::Response<Body>, Error> {
        let outgoing = self.0.subscribe(call, request).await?;
        Ok(sse::response(outgoing, &call.context.request_id))
    }
}
