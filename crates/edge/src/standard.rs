//! What every listener serves beside its own services: gRPC health, gRPC reflection, and its OpenAPI document.

use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower::Service;

use sluice_proto::{Audience, FILE_DESCRIPTOR_SET, OPENAPI, OPENAPI_OPERATOR};

use crate::call::OPENAPI_PATH;
use crate::openapi::Document;
use crate::routes::RoutesError;
use crate::{Answer, Request};

/// The services; clones are the same.
#[derive(Clone)]
pub struct Standard {
    health: HealthServer<HealthService>,
    /// Both versions of the protocol.
    reflection: Routes,
    openapi: Document,
}

impl Standard {
    /// For the calls of one audience. The reporter tells gRPC health what to say.
    ///
    /// # Errors
    /// The descriptors cannot be served.
    pub fn new(audience: Audience) -> Result<(Self, HealthReporter), RoutesError> {
        let reporter = HealthReporter::new();
        let health = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
        let openapi = match audience {
            Audience::Tenant => Document::public(OPENAPI),
            Audience::Operator | Audience::Internal => Document::private(OPENAPI_OPERATOR),
        };
        Ok((Self { health, reflection: reflection(audience)?, openapi }, reporter))
    }

    /// Answers a call to one of them.
    pub async fn call(&self, request: Request) -> Answer {
        match request.uri().path() {
            OPENAPI_PATH => Ok(self.openapi.answer(request.headers())),
            path if path.starts_with("/grpc.health.") => {
                let Ok(response) = self.health.clone().call(request).await;
                Ok(response)
            }
            _ => {
                let Ok(response) = self.reflection.clone().call(request).await;
                Ok(response)
            }
        }
    }
}

/// Tenants do not see internal and operators' contracts.
fn reflection(audience: Audience) -> Result<Routes, RoutesError> {
    let mut set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).map_err(|_| RoutesError::Descriptors)?;
    let hidden: &[&str] = match audience {
        Audience::Tenant => &["sluice.internal.", "sluice.operator."],
        Audience::Operator | Audience::Internal => &[],
    };
    set.file.retain(|file| !hidden.iter().any(|package| file.package().starts_with(package)));
    // What ours import declares services that nobody serves here.
    set.file.iter_mut().filter(|file| !file.package().starts_with("sluice.")).for_each(|file| file.service.clear());
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_file_descriptor_set(set.clone())
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Routes::new(builder().build_v1()?).add_service(builder().build_v1alpha()?).prepare())
}
