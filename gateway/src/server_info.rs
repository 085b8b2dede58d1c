//! What this gateway is: version, build, packages served, applied revision. Answered from memory.

use tonic::{Request, Response, Status};

use sluice_proto::server::v1::server_service_server::ServerService;
use sluice_proto::server::v1::{GetServerInfoRequest, ServerInfo};
use sluice_proto::{Audience, services};

use crate::view::applied::Applied;

/// Serves `sluice.server.v1`.
#[derive(Clone)]
pub struct ServerInfos {
    applied: Applied,
    commit: &'static str,
}

impl ServerInfos {
    /// Tells the revision of `applied`, and the commit that the program was built from.
    pub fn new(applied: Applied, commit: &'static str) -> Self {
        Self { applied, commit }
    }
}

#[tonic::async_trait]
impl ServerService for ServerInfos {
    async fn get_server_info(&self, _: Request<GetServerInfoRequest>) -> Result<Response<ServerInfo>, Status> {
        Ok(Response::new(ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: self.commit.to_owned(),
            api_versions: packages(),
            revision: self.applied.revision().map(|revision| revision.to_string()).unwrap_or_default(),
        }))
    }
}

/// The packages of the services that are served, sorted.
fn packages() -> Vec<String> {
    let services = services(Audience::Tenant);
    let mut packages: Vec<&str> = services.iter().filter_map(|service| Some(service.rsplit_once('.')?.0)).collect();
    packages.dedup();
    packages.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_is_told_once_and_with_its_version() {
        let packages = packages();
        assert!(packages.contains(&"sluice.stream.v1".to_owned()), "{packages:?}");
        assert!(packages.is_sorted() && packages.iter().all(|package| package.ends_with(".v1")), "{packages:?}");
        assert!(packages.windows(2).all(|pair| pair[0] != pair[1]), "{packages:?}");
    }
}
