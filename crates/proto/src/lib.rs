//! The API contracts as Rust: messages, clients, servers, canonical JSON, and the tables that say who may call what and how.
//!
//! Everything comes from `proto/` at build time and is static. Modules are named after the packages without `sluice`:
//! [`stream::v1`], [`admin::v1`], [`operator::v1`], [`billing::v1`], [`internal`], and Google's [`google::rpc`] and
//! [`google::longrunning`]. `bytes` fields are `bytes::Bytes`, maps are `BTreeMap` (so encodings are the same every time),
//! [`wkt`] has the well-known types.
//!
//! # JSON
//!
//! Every message has serde's traits, meaning canonical proto3 JSON: `lowerCamelCase` (`snake_case` is read too), enum names,
//! 64-bit integers as strings, RFC 3339 times. Unknown fields are refused by name. Messages of ours write fields that have
//! their default value; `google.rpc` ones do not. [`Any`] knows the messages we pack.
//!
//! ```
//! use sluice_proto::{Any, google::rpc};
//! let info = rpc::ErrorInfo { reason: "TOPIC_NOT_FOUND".into(), domain: "sluice".into(), ..Default::default() };
//! let status = rpc::Status { code: 5, message: "no such topic".into(), details: vec![Any::pack(&info)] };
//! let json = serde_json::to_value(&status)?;
//! assert_eq!(json["details"][0]["reason"], "TOPIC_NOT_FOUND");
//! assert_eq!(status.details[0].unpack::<rpc::ErrorInfo>(), Some(Ok(info)));
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! # Who may call what
//!
//! [`RPCS`] lists every RPC with audience, permission and HTTP rules; each is also a static in [`rpcs`]. Every request message
//! is an [`ApiRequest`], which knows its RPC, its resource and its `request_id`. (The build fails for an RPC without an
//! authorization, so a table with holes cannot exist.)
//!
//! ```
//! use sluice_proto::{ApiRequest, Audience, admin::v1::GetTopicRequest, resource_of, rpc_by_path, rpcs};
//! let rpc = rpc_by_path("/sluice.admin.v1.TopicService/GetTopic").ok_or("unknown")?;
//! assert_eq!((rpc.audience, rpc.permission, rpc.mutation), (Audience::Tenant, "topics.get", false));
//! assert_eq!(rpc, &rpcs::TOPIC_SERVICE_GET_TOPIC);
//! let request = GetTopicRequest { name: "namespaces/prod/topics/orders".into() };
//! assert_eq!(GetTopicRequest::rpc(), rpc);
//! assert_eq!(resource_of(&request), Some("namespaces/prod/topics/orders"));
//! # Ok::<(), &str>(())
//! ```
//!
//! # HTTP
//!
//! [`match_route`] finds the RPC, a `dispatch_…_http` function of [`dispatch`] (one per service) decodes the request, calls
//! the service trait and encodes the answer. To serve an RPC by hand, compare `route.rpc` with its static first.
//!
//! ```
//! # use sluice_proto::stream::v1::stream_service_server::StreamService;
//! use bytes::Bytes;
//! use http::Method;
//! use sluice_proto::dispatch::{HttpCall, HttpError, HttpReply, dispatch_stream_service_http};
//! use sluice_proto::{Audience, match_route, rpcs};
//! use tonic::{Extensions, metadata::MetadataMap};
//!
//! async fn serve(
//!     stream: &impl StreamService, method: Method, path: &str, query: Vec<(String, String)>, body: Bytes,
//! ) -> Result<HttpReply, HttpError> {
//!     let route = match match_route(Audience::Tenant, &method, path) {
//!         Ok(route) => route,
//!         Err(e) => return Err(tonic::Status::not_found(e.to_string()).into()), // 404, 405 with Allow, or 400
//!     };
//!     if route.rpc == &rpcs::STREAM_SERVICE_PRODUCE {
//!         // the hand-written handler
//!     }
//!     let call = HttpCall { route, metadata: MetadataMap::new(), extensions: Extensions::new(), query, body };
//!     dispatch_stream_service_http(stream, call).await
//! }
//! ```
//!
//! [`OPENAPI`] and [`OPENAPI_OPERATOR`] describe the two HTTP APIs.
//!
//! A listener needs no type of any service: [`serve`] makes each one a [`serve::Served`].
//!
//! # Forwarding
//!
//! [`forward::Forward`] implements the admin and billing service traits by calling another process; see [`forward`].

mod access;
pub mod dispatch;
pub mod forward;
mod generated;
mod query;
mod route;
mod schema;
pub mod serve;
mod tables;
mod transcode;
pub mod wkt;

pub use access::{ApiRequest, Audience, RPCS, Rpc, resource_of, rpc_by_path, services};
pub use generated::google;
pub use generated::sluice::{admin, billing, internal, operator, options, server, stream};
pub use query::query_pairs;
pub use route::{Body, HttpRule, RouteError, RouteMatch, Vars, allowed_methods, match_route};
pub use tables::rpcs;
pub use transcode::{TranscodeError, decode_request};
pub use wkt::Any;

/// All our descriptors (an encoded `FileDescriptorSet` with imports and options, without comments), for gRPC reflection.
pub static FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// OpenAPI 3.1 of the tenants' HTTP API, as JSON.
pub static OPENAPI: &str = include_str!(concat!(env!("OUT_DIR"), "/openapi.json"));

/// OpenAPI 3.1 of the operator's HTTP API, as JSON.
pub static OPENAPI_OPERATOR: &str = include_str!(concat!(env!("OUT_DIR"), "/operator.json"));
