//! `KeyLookupService`: what gateways ask about key ids they do not know. The gateway's role is checked by the layer.

use prost::Message as _;
use sluice_db::DbError;
use sluice_proto::internal::control::v1::key_lookup_service_server::KeyLookupService;
use sluice_proto::internal::control::v1::{ControlRecord, LookupKeyRequest, LookupKeyResponse};
use sluice_types::{Error, KeyUid, Reason};
use tonic::{Request, Response, Status};

use super::{Api, refuse};
use crate::domain::record::with_outbox_id;

#[tonic::async_trait]
impl KeyLookupService for Api {
    async fn lookup_key(&self, request: Request<LookupKeyRequest>) -> Result<Response<LookupKeyResponse>, Status> {
        let key_id = request.into_inner().key_id;
        self.lookup(&key_id).await.map(Response::new).map_err(|error| refuse(error, ""))
    }
}

impl Api {
    async fn lookup(&self, key_id: &str) -> Result<LookupKeyResponse, Error> {
        let key: KeyUid = key_id.parse().map_err(|_| Error::invalid("key_id", "is not a key id"))?;
        let system = self.plane.scopes.lookup.clone();
        let work = async move {
            let mut tx = system.begin().await?;
            let rows = crate::store::lookup::lookup_key(&mut tx, key).await?;
            tx.rollback().await?;
            Ok::<_, DbError>(rows)
        };
        let rows = self.plane.db.run(work).await.map_err(|error| error.into_error(Reason::ControlPlaneUnavailable))?;
        if rows.is_empty() {
            return Err(Error::not_found("the key"));
        }
        let decode = |(id, payload): (i64, Vec<u8>)| {
            ControlRecord::decode(with_outbox_id(&payload, id).as_slice()).map_err(Error::internal)
        };
        Ok(LookupKeyResponse { records: rows.into_iter().map(decode).collect::<Result<_, _>>()? })
    }
}
