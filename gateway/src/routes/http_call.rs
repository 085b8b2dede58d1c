//! HTTP calls: the whole body, then a hot handler or the dispatcher of the service.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::Full;
use tonic::metadata::MetadataMap;

use sluice_proto::dispatch::{self, HttpError, HttpReply};
use sluice_proto::forward::ForwardContext;
use sluice_proto::stream::v1::SubscribeRequest;
use sluice_proto::stream::v1::stream_service_server::StreamService;
use sluice_proto::{RouteMatch, TranscodeError, decode_request};
use sluice_runtime::statuses;
use sluice_types::error::Error;
use sluice_types::{ErrorKind, Reason};

use crate::data::accepts_protobuf;
use crate::layers::authorize::{CONSUMER_SERVICE, DATA_SERVICE};
use crate::layers::body_limit::read_whole;
use crate::layers::call::Target;
use crate::layers::quota::Held;
use crate::layers::{Answer, Request, Response};
use crate::ports::{Body, DataCall, DataPath, HttpCall, SomeFailed};
use crate::routes::{Served, query};

impl<D: StreamService + DataPath, C: ForwardContext> Served<D, C> {
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
        let mut query = query::pairs(&parts.uri)?;
        if route.rpc.service == CONSUMER_SERVICE {
            query::spell_encoding(&mut query);
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
        match self.dispatch(call).await {
            Ok(reply) => Ok(answer(reply)),
            Err(HttpError::Request(error)) => Err(unreadable(error)),
            Err(HttpError::Status(status)) => Err(statuses::from_tonic(&status)),
        }
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

    async fn dispatch(&self, call: dispatch::HttpCall) -> Result<HttpReply, HttpError> {
        match call.route.rpc.service {
            "sluice.admin.v1.TenantService" => dispatch::dispatch_tenant_service_http(&self.control, call).await,
            "sluice.admin.v1.NamespaceService" => dispatch::dispatch_namespace_service_http(&self.control, call).await,
            "sluice.admin.v1.TopicService" => dispatch::dispatch_topic_service_http(&self.control, call).await,
            "sluice.admin.v1.GroupService" => dispatch::dispatch_group_service_http(&self.control, call).await,
            "sluice.stream.v1.ConsumerService" => dispatch::dispatch_consumer_service_http(&self.door, call).await,
            "sluice.admin.v1.ServiceAccountService" => {
                dispatch::dispatch_service_account_service_http(&self.control, call).await
            }
            "sluice.admin.v1.OperationService" => dispatch::dispatch_operation_service_http(&self.control, call).await,
            "sluice.billing.v1.UsageService" => dispatch::dispatch_usage_service_http(&self.usage, call).await,
            "sluice.server.v1.ServerService" => dispatch::dispatch_server_service_http(&self.info, call).await,
            _ => dispatch::dispatch_stream_service_http(&*self.data, call).await,
        }
    }
}

fn answer(reply: HttpReply) -> Response {
    let mut response = http::Response::new(Body::new(Full::new(reply.body)));
    *response.extensions_mut() = reply.extensions;
    if response.extensions().get::<SomeFailed>().is_some() {
        *response.status_mut() = StatusCode::MULTI_STATUS;
    }
    *response.headers_mut() = reply.metadata.into_headers();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn unreadable(error: TranscodeError) -> Error {
    match error.field.as_str() {
        "" => Error::new(ErrorKind::InvalidArgument, Reason::MalformedBody, error.to_string()),
        field => Error::invalid(field, &error.reason),
    }
}
