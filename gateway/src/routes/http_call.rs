//! HTTP calls: the whole body, then a hot handler or the dispatcher of the service.

use bytes::Bytes;
use http::StatusCode;
use tonic::metadata::MetadataMap;

use sluice_edge::body_limit::read_whole;
use sluice_edge::call::Target;
use sluice_edge::query::pairs;
use sluice_edge::replies::unreadable;
use sluice_edge::{Answer, Request};
use sluice_proto::dispatch;
use sluice_proto::stream::v1::SubscribeRequest;
use sluice_proto::{RouteMatch, decode_request};
use sluice_types::error::Error;

use crate::access::DataCall;
use crate::data::{HttpCall, SomeFailed, accepts_protobuf};
use crate::layers::authorize::{CONSUMER_SERVICE, DATA_SERVICE};
use crate::layers::quota::Held;
use crate::routes::{Router, query::spell_encoding};

impl Router {
    pub(super) async fn http(&self, route: RouteMatch, request: Request) -> Answer {
        let (parts, body) = request.into_parts();
        let held = parts.extensions.get::<Held>().cloned();
        let take = |bytes| held.as_ref().map_or(Ok(()), |held| held.grow(bytes));
        let max = Target::Http(route.clone()).body_bytes_max(self.body_bytes_max);
        let body = read_whole(&parts.headers, body, max, take).await?;
        if route.rpc.service == DATA_SERVICE && matches!(route.rpc.method, "Produce" | "Fetch") {
            let topic = route.vars.iter().find(|(field, _)| *field == "topic").map(|(_, value)| value.clone());
            let topic = topic.ok_or_else(|| Error::internal("the route of a data call has no topic"))?;
            let call = DataCall::of(&parts.extensions)?;
            let hot = HttpCall { parts, topic, body, call };
            return match route.rpc.method {
                "Produce" => self.data.http_produce(hot).await,
                _ => self.data.http_fetch(hot).await,
            };
        }
        let mut query = pairs(&parts.uri)?;
        if route.rpc.service == CONSUMER_SERVICE {
            spell_encoding(&mut query);
            if matches!(route.rpc.method, "Pull" | "Subscribe") {
                return self.deliver(&route, &parts, &query, &body).await;
            }
        }
        let call = dispatch::HttpCall {
            query,
            metadata: MetadataMap::from_headers(parts.headers),
            extensions: parts.extensions,
            route,
            body,
        };
        let mut response = self.routes.http(call).await?;
        if response.extensions().get::<SomeFailed>().is_some() {
            *response.status_mut() = StatusCode::MULTI_STATUS;
        }
        Ok(response)
    }

    /// What the door serves by hand: pulls, and server-sent events, for which there is no generated dispatcher.
    async fn deliver(
        &self,
        route: &RouteMatch,
        parts: &http::request::Parts,
        query: &[(String, String)],
        body: &Bytes,
    ) -> Answer {
        let call = DataCall::of(&parts.extensions)?;
        if route.rpc.method == "Pull" {
            let request = decode_request(route, query, body).map_err(unreadable)?;
            return self.door.http_pull(&call, request, accepts_protobuf(&parts.headers)).await;
        }
        let request: SubscribeRequest = decode_request(route, query, body).map_err(unreadable)?;
        self.door.http_subscribe(&call, &request).await
    }
}
