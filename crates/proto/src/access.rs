//! Who may call what: every RPC of ours with its authorization, its HTTP rules and its documentation.
//!
//! Written by the build script from the options in the protos; the build fails for an RPC that lacks them, so the table is
//! complete by construction.

use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::route::HttpRule;
use crate::schema::MessageSchema;

/// The side of the product an RPC belongs to; decides the listener and the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Audience {
    /// Tenants' principals, through the gateway.
    Tenant,
    /// The operator, on the operator listener.
    Operator,
    /// Our own processes, over mutual TLS.
    Internal,
}

/// One RPC.
#[derive(Debug)]
pub struct Rpc {
    /// Full name of the service, e.g. `sluice.admin.v1.TopicService`.
    pub service: &'static str,
    /// Name of the method, e.g. `CreateTopic`.
    pub method: &'static str,
    /// The gRPC path, e.g. `/sluice.admin.v1.TopicService/CreateTopic`.
    pub path: &'static str,
    /// Who calls it.
    pub audience: Audience,
    /// What the principal needs, e.g. `topics.create`.
    pub permission: &'static str,
    /// The field with the resource that `permission` is checked on, e.g. `topic.name`; absent: the whole tenant.
    pub resource_field: Option<&'static str>,
    /// It changes something.
    pub mutation: bool,
    /// Its answer holds records, so asking reads and charges.
    pub gives_records: bool,
    /// Its HTTP rules; empty for internal RPCs.
    pub http: &'static [HttpRule],
    /// Full name of the request message.
    pub request_type: &'static str,
    /// Full name of the response message.
    pub response_type: &'static str,
    /// The client sends a stream.
    pub client_streaming: bool,
    /// The server sends a stream.
    pub server_streaming: bool,
    /// The comment in the proto.
    pub doc: &'static str,
    pub(crate) request: &'static MessageSchema,
}

impl PartialEq for Rpc {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for Rpc {}

impl Rpc {
    /// The names of the request's fields, as in the proto.
    pub fn request_fields(&self) -> impl Iterator<Item = &'static str> {
        self.request.fields.iter().map(|f| f.name)
    }
}

/// A request message of one of our RPCs. Each belongs to exactly one RPC.
pub trait ApiRequest: Message + Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The RPC it belongs to.
    fn rpc() -> &'static Rpc;

    /// The resource that the RPC's permission is checked on: the value of `resource_field`. `None` when the RPC has no such
    /// field, or the field is empty: then the permission is needed on the whole tenant.
    fn resource_name(&self) -> Option<&str>;

    /// The client's `request_id`, where the message has that field; empty if the client sent none.
    fn request_id(&self) -> Option<&str>;

    /// The same, to fill it from `Idempotency-Key`.
    fn request_id_mut(&mut self) -> Option<&mut String>;
}

/// Every RPC of our services, sorted by path.
pub static RPCS: &[&Rpc] = crate::tables::RPCS;

/// The full names of the services of an audience, sorted.
pub fn services(audience: Audience) -> Vec<&'static str> {
    let mut services: Vec<_> = RPCS.iter().filter(|rpc| rpc.audience == audience).map(|rpc| rpc.service).collect();
    services.dedup();
    services
}

/// The RPC at a gRPC path, e.g. `/sluice.stream.v1.StreamService/Produce`.
pub fn rpc_by_path(path: &str) -> Option<&'static Rpc> {
    RPCS.binary_search_by(|rpc| rpc.path.cmp(path)).ok().map(|i| RPCS[i])
}

/// The resource a decoded request is about; see [`ApiRequest::resource_name`].
pub fn resource_of<R: ApiRequest>(request: &R) -> Option<&str> {
    request.resource_name()
}
