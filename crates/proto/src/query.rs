//! Query strings: names and values, decoded, in order.

use percent_encoding::percent_decode_str;

use crate::TranscodeError;

/// Parameters of a query at most.
const PARAMETERS_MAX: usize = 64;

/// The parameters of a URL's query, as forms write them: `+` is a space, a name without `=` has an empty value.
///
/// ```
/// let pairs = sluice_proto::query_pairs("pageSize=10&filter=a%20b+c")?;
/// assert_eq!(pairs[1], ("filter".to_owned(), "a b c".to_owned()));
/// # Ok::<(), sluice_proto::TranscodeError>(())
/// ```
///
/// # Errors
/// More than 64 parameters, or bytes that are not UTF-8. The field is `query`.
pub fn query_pairs(query: &str) -> Result<Vec<(String, String)>, TranscodeError> {
    let refused = |reason: String| TranscodeError { field: "query".to_owned(), reason };
    // The library writes U+FFFD for what is not UTF-8. Separators are ASCII, so the whole is UTF-8 exactly if every part is.
    if percent_decode_str(query).decode_utf8().is_err() {
        return Err(refused("must be percent-encoded UTF-8".to_owned()));
    }
    let parameters = form_urlencoded::parse(query.as_bytes()).take(PARAMETERS_MAX + 1);
    let pairs: Vec<_> = parameters.map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    if pairs.len() > PARAMETERS_MAX {
        return Err(refused(format!("must have at most {PARAMETERS_MAX} parameters")));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_decoded_and_in_order() {
        let pairs = query_pairs("b=1&a=x%20y+z%2B&&b=&flag&=v&c=%zz&d=1=2").expect("good");
        let wanted = [("b", "1"), ("a", "x y z+"), ("b", ""), ("flag", ""), ("", "v"), ("c", "%zz"), ("d", "1=2")];
        assert!(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).eq(wanted), "{pairs:?}");
        assert_eq!(query_pairs(""), Ok(Vec::new()));
    }

    #[test]
    fn too_many_parameters_are_refused() {
        assert_eq!(query_pairs(&"a=1&".repeat(64)).expect("64 are allowed").len(), 64);
        assert_eq!(query_pairs(&"a=1&".repeat(65)).expect_err("too many").field, "query");
    }

    #[test]
    fn bytes_that_are_not_text_are_refused_wherever_they_stand() {
        for query in ["a=%ff", "%ff=a", "a=1&b=%c3&c=%a9", "a=%c3=%a9", "a=%c3+%a9"] {
            assert_eq!(query_pairs(query).expect_err(query).field, "query");
        }
        assert_eq!(query_pairs("a=%EF%BF%BD").expect("a replacement character that was sent")[0].1, "\u{fffd}");
    }
}
