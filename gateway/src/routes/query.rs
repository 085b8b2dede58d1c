//! What the tenants' HTTP API lets callers write shorter in a query.

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
