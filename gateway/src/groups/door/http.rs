//! What the door serves over HTTP by hand; the rest goes through the generated dispatcher.

use std::sync::Arc;

use http::StatusCode;
use prost::Message;

use sluice_edge::Body;
use sluice_proto::stream::v1::{PullRequest, SubscribeRequest};
use sluice_types::error::Error;

use crate::access::DataCall;
use crate::data::encode::IntoJson;
use crate::data::{JSON, PROTOBUF, respond};
use crate::groups::door::pull::Form;
use crate::groups::door::{Door, sse};

impl Door {
    /// `POST …/groups/{group}:pull`: JSON whose JSON payloads keep every digit, or the message, if the client asks for that.
    pub async fn http_pull(
        &self,
        call: &Arc<DataCall>,
        request: PullRequest,
        protobuf: bool,
    ) -> Result<http::Response<Body>, Error> {
        let form = if protobuf { Form::Message } else { Form::Json };
        let mut pulled = self.0.pull(call, request, form).await?;
        let parcel = pulled.parcel.take();
        let (body, kind) = match form {
            Form::Message => (pulled.into_message().encode_to_vec(), PROTOBUF),
            Form::Json => (pulled.into_json().map_err(Error::internal)?, JSON),
        };
        let mut response = respond(StatusCode::OK, body, kind);
        parcel.map(|parcel| response.extensions_mut().insert(parcel));
        Ok(response)
    }

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
