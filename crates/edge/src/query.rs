//! Query parameters: names and values, decoded, in order.

use http::Uri;
use percent_encoding::percent_decode_str;

use sluice_types::error::Error;

/// Parameters at most.
const PARAMETERS_MAX: usize = 64;

/// The parameters of a request; `+` is a space, as forms write it.
pub fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Error> {
    let Some(query) = uri.query().filter(|query| !query.is_empty()) else { return Ok(Vec::new()) };
    let parts: Vec<&str> = query.split('&').filter(|part| !part.is_empty()).take(PARAMETERS_MAX + 1).collect();
    if parts.len() > PARAMETERS_MAX {
        return Err(Error::invalid("query", format!("must have at most {PARAMETERS_MAX} parameters")));
    }
    parts
        .into_iter()
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

fn decode(text: &str) -> Result<String, Error> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| Error::invalid("query", "must be percent-encoded UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_decoded_and_in_order() {
        let uri: Uri = "/x?b=1&a=x%20y+z&b=&flag&=v".parse().expect("uri");
        let pairs = pairs(&uri).expect("good");
        let wanted = [("b", "1"), ("a", "x y z"), ("b", ""), ("flag", ""), ("", "v")];
        assert!(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).eq(wanted), "{pairs:?}");
    }

    #[test]
    fn too_many_and_broken_ones_are_refused() {
        let many: Uri = format!("/x?{}", "a=1&".repeat(65)).parse().expect("uri");
        assert!(pairs(&many).is_err());
        let broken: Uri = "/x?a=%ff".parse().expect("uri");
        assert_eq!(pairs(&broken).expect_err("not UTF-8").field.as_deref(), Some("query"));
    }
}
