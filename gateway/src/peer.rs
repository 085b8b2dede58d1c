//! What other gateways and the control plane may ask this one, over mutual TLS.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use sluice_proto::internal::gateway::v1::peer_service_server::PeerService;
use sluice_proto::internal::gateway::v1::{GetStateRequest, GetStateResponse};

use crate::members::Heartbeats;

/// Roles that may ask.
pub const PEER_ROLES: &[&str] = &[crate::ROLE, "control-plane"];

/// The service.
pub struct Peer(pub Arc<Heartbeats>);

#[tonic::async_trait]
impl PeerService for Peer {
    async fn get_state(&self, _: Request<GetStateRequest>) -> Result<Response<GetStateResponse>, Status> {
        Ok(Response::new(GetStateResponse { member: Some(self.0.message()) }))
    }
}
