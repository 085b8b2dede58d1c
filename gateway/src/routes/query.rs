//! Query parameters of the calls that the gateway serves by hand.

use http::Uri;
use sluice_types::error::Error;

/// The parameters of a request.
pub fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Error> {
    sluice_proto::query_pairs(uri.query().unwrap_or_default())
        .map_err(|error| Error::invalid(error.field, error.reason))
}

/// Lets `encoding` do without its prefix: `encoding=JSON`.
pub fn spell_encoding(pairs: &mut [(String, String)]) {
    const PREFIX: &str = "PAYLOAD_ENCODING_";
    for (_, value) in pairs.iter_mut().filter(|(name, _)| name == "encoding") {
        if !value.starts_with(PREFIX) && value.parse::<i32>().is_err() {
            *value = format!("{PREFIX}{}", value.to_ascii_uppercase());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_may_be_named_shortly() {
        let mut pairs: Vec<(String, String)> =
            ["json", "PAYLOAD_ENCODING_TEXT", "7"].map(|value| ("encoding".to_owned(), value.to_owned())).into();
        spell_encoding(&mut pairs);
        let values: Vec<&str> = pairs.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["PAYLOAD_ENCODING_JSON", "PAYLOAD_ENCODING_TEXT", "7"]);
    }
}
