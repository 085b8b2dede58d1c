//! Query parameters of a request.

use http::Uri;

use sluice_types::error::Error;

/// The parameters of a request, decoded, in order; see [`sluice_proto::query_pairs`].
///
/// # Errors
/// INVALID_ARGUMENT on `query`.
pub fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Error> {
    sluice_proto::query_pairs(uri.query().unwrap_or_default())
        .map_err(|error| Error::invalid(error.field, error.reason))
}
