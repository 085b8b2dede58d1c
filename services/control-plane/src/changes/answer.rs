//! What a change answers, and what of it is remembered for a replay. Never a key's text.

use prost::Message;
use sluice_proto::admin::v1::{ApiKey, ServiceAccount};
use sluice_proto::operator::v1::{Cluster, Namespace, Tenant};
use sluice_proto::wkt::Any;
use sluice_types::{Error, OperationUid};

/// An answer that can be remembered.
pub(crate) trait Answer: Sized + Send + 'static {
    /// What to keep.
    fn stored(&self) -> Vec<u8>;
    /// The answer of a replay.
    fn replayed(bytes: &[u8]) -> Result<Self, Error>;
}

/// The answer of a change that goes on after its transaction.
#[derive(Debug, Clone)]
pub(crate) struct Started {
    /// The operation to look at.
    pub(crate) operation: OperationUid,
    /// The resource as this transaction left it; empty in a replay, which looks at the operation.
    pub(crate) resource: Any,
}

impl Answer for Started {
    fn stored(&self) -> Vec<u8> {
        self.operation.as_i64().to_be_bytes().to_vec()
    }

    fn replayed(bytes: &[u8]) -> Result<Self, Error> {
        let bytes = bytes.try_into().map_err(Error::internal)?;
        Ok(Self { operation: OperationUid::from_i64(i64::from_be_bytes(bytes)), resource: Any::default() })
    }
}

/// For work that nobody waits for.
impl Answer for () {
    fn stored(&self) -> Vec<u8> {
        Vec::new()
    }

    fn replayed(_: &[u8]) -> Result<Self, Error> {
        Ok(())
    }
}

impl Answer for ServiceAccount {
    fn stored(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    fn replayed(bytes: &[u8]) -> Result<Self, Error> {
        Self::decode(bytes).map_err(Error::internal)
    }
}

impl Answer for ApiKey {
    fn stored(&self) -> Vec<u8> {
        Self { key: String::new(), ..self.clone() }.encode_to_vec()
    }

    fn replayed(bytes: &[u8]) -> Result<Self, Error> {
        Self::decode(bytes).map_err(Error::internal)
    }
}

impl Answer for Tenant {
    fn stored(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    fn replayed(bytes: &[u8]) -> Result<Self, Error> {
        Self::decode(bytes).map_err(Error::internal)
    }
}

impl Answer for Cluster {
    fn stored(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    fn replayed(bytes: &[u8]) -> Result<Self, Error> {
        Self::decode(bytes).map_err(Error::internal)
    }
}

impl Answer for Namespace {
    fn stored(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    fn replayed(bytes: &[u8]) -> Result<Self, Error> {
        Self::decode(bytes).map_err(Error::internal)
    }
}
