//! From a call that passed the layers to its service, for both protocols: a table by name, from the services that a process
//! has. Nothing here knows a service, so a new RPC needs no line here.
//!
//! A listener refuses to be built if an RPC of its audience has no service or no permission, or if it was given a service of
//! another audience.

use std::collections::BTreeMap;
use std::sync::Arc;

use tonic::metadata::MetadataMap;

use sluice_proto::dispatch::HttpCall;
use sluice_proto::serve::Served;
use sluice_proto::{Audience, RPCS, RouteMatch, Rpc};
use sluice_types::error::Error;

use crate::body_limit::read_whole;
use crate::call::{Call, Target, foreign, nowhere};
use crate::replies::{http_answer, ours};
use crate::standard::Standard;
use crate::{Answer, Handler, Request, call_of, query};

/// Why a listener cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum RoutesError {
    /// An RPC of the audience that nobody decided about, or that nobody serves.
    #[error("the RPC {0} has no permission or no service on this listener")]
    Undecided(&'static str),
    /// A service with an RPC for somebody else.
    #[error("the RPC {0} belongs to another listener")]
    Foreign(&'static str),
    /// The descriptors cannot be read.
    #[error("read the descriptors")]
    Descriptors,
    /// The descriptors cannot be served by reflection.
    #[error("set up reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// The services of a listener; clones are the same.
#[derive(Clone)]
pub struct Routes(Arc<Table>);

struct Table {
    services: BTreeMap<&'static str, Box<dyn Served>>,
    standard: Standard,
    body_bytes_max: u64,
}

impl Routes {
    /// `body_bytes_max` as the body limit of the same listener has it.
    ///
    /// # Errors
    /// See [`RoutesError`].
    pub fn new(
        audience: Audience,
        services: Vec<Box<dyn Served>>,
        standard: Standard,
        body_bytes_max: u64,
    ) -> Result<Self, RoutesError> {
        let services: BTreeMap<_, _> = services.into_iter().map(|service| (service.name(), service)).collect();
        for rpc in RPCS {
            match (rpc.audience == audience, services.contains_key(rpc.service)) {
                (true, served) if !served || rpc.permission.is_empty() => {
                    return Err(RoutesError::Undecided(rpc.path));
                }
                (false, true) => return Err(RoutesError::Foreign(rpc.path)),
                _ => {}
            }
        }
        Ok(Self(Arc::new(Table { services, standard, body_bytes_max })))
    }

    /// Serves a gRPC call.
    ///
    /// # Errors
    /// The library could not read its message.
    pub async fn grpc(&self, rpc: &'static Rpc, request: Request) -> Answer {
        let response = self.service(rpc)?.grpc(request).await;
        ours(response, Target::Grpc(rpc).body_bytes_max(self.0.body_bytes_max))
    }

    /// Serves an HTTP call whose body was read.
    ///
    /// # Errors
    /// Those of the service, and INVALID_ARGUMENT for a request that cannot be understood.
    pub async fn http(&self, call: HttpCall) -> Answer {
        http_answer(self.service(call.route.rpc)?.http(call).await)
    }

    /// Serves what is no RPC of ours, or refuses it.
    ///
    /// # Errors
    /// It goes nowhere.
    pub async fn other(&self, call: &Call, request: Request) -> Answer {
        match &call.target {
            Target::Nowhere(error) => Err(nowhere(call.protocol, error)),
            Target::Foreign(format) => Err(foreign(format)),
            Target::Common | Target::Grpc(_) | Target::Http(_) => self.0.standard.call(request).await,
        }
    }

    fn service(&self, rpc: &'static Rpc) -> Result<&dyn Served, Error> {
        let service = self.0.services.get(rpc.service).map(Box::as_ref);
        service.ok_or_else(|| Error::internal(format!("{} is in the access table and not served", rpc.service)))
    }

    async fn read_and_serve(&self, route: RouteMatch, request: Request) -> Answer {
        let (parts, body) = request.into_parts();
        let max = Target::Http(route.clone()).body_bytes_max(self.0.body_bytes_max);
        let body = read_whole(&parts.headers, body, max, |_| Ok(())).await?;
        let query = query::pairs(&parts.uri)?;
        let metadata = MetadataMap::from_headers(parts.headers);
        self.http(HttpCall { route, metadata, extensions: parts.extensions, query, body }).await
    }
}

/// A listener without handlers of its own.
impl Handler for Routes {
    async fn answer(&self, request: Request) -> Answer {
        let call = call_of(&request)?;
        match &call.target {
            Target::Grpc(rpc) => self.grpc(rpc, request).await,
            Target::Http(route) => self.read_and_serve(route.clone(), request).await,
            _ => self.other(&call, request).await,
        }
    }
}
