//! gRPC reflection of what tenants may call; internal and operator contracts are left out.

use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::service::Routes;

use sluice_proto::FILE_DESCRIPTOR_SET;

use crate::error::BuildError;
use crate::layers::{Request, Response};

/// Both versions of the protocol.
#[derive(Clone)]
pub(super) struct Reflection(Routes);

impl Reflection {
    pub(super) fn new() -> Result<Self, BuildError> {
        let mut set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET)
            .map_err(|_| BuildError::Authorization("(the descriptors cannot be read)".into()))?;
        let hidden = ["sluice.internal.", "sluice.operator."];
        set.file.retain(|file| !hidden.iter().any(|package| file.package().starts_with(package)));
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_file_descriptor_set(set.clone())
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let routes = Routes::new(builder().build_v1()?).add_service(builder().build_v1alpha()?);
        Ok(Self(routes.prepare()))
    }

    pub(super) async fn call(&self, request: Request) -> Response {
        use tower::Service;
        let Ok(response) = self.0.clone().call(request).await;
        response
    }
}
