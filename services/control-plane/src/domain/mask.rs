//! Update masks: which fields an update means.

use sluice_proto::wkt::FieldMask;
use sluice_types::Error;

/// Stands for all.
const ALL: &str = "*";

/// The paths an update is about, out of `known`.
///
/// Without a mask: those present in the body. A mask that names nothing: none. `*` alone: all. `*` beside others is refused, and so is
/// a path that is not `known`, with the list.
pub(crate) fn paths(
    mask: Option<&FieldMask>,
    known: &'static [&'static str],
    present: impl Fn(&str) -> bool,
) -> Result<Vec<&'static str>, Error> {
    let Some(FieldMask { paths: sent }) = mask else {
        return Ok(known.iter().copied().filter(|path| present(path)).collect());
    };
    if sent.iter().any(|path| path == ALL) {
        return match sent.len() {
            1 => Ok(known.to_vec()),
            _ => Err(Error::invalid("update_mask", "has * beside other paths; send * alone, or the paths without it")),
        };
    }
    let find = |path: &String| {
        known.iter().copied().find(|known| known == path).ok_or_else(|| {
            Error::invalid(
                "update_mask",
                format!("has an unknown or unchangeable path; it may hold {}", known.join(", ")),
            )
        })
    };
    sent.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["display_name", "labels"];

    #[test]
    fn unknown_paths_are_refused_and_absent_masks_mean_what_is_there() {
        let mask = |text| FieldMask::parse(text).ok();
        let all = |mask: Option<FieldMask>| paths(mask.as_ref(), KNOWN, |path| path == "labels");
        assert_eq!(all(None).ok(), Some(vec!["labels"]));
        assert_eq!(all(Some(FieldMask::default())).ok(), Some(vec![]));
        assert_eq!(all(mask("displayName")).ok(), Some(vec!["display_name"]));
        assert!(all(mask("uid")).is_err());
        assert_eq!(all(mask("*")).ok(), Some(KNOWN.to_vec()));
        for more in ["*,labels", "labels,*", "*,*"] {
            assert_eq!(all(mask(more)).expect_err(more).field.as_deref(), Some("update_mask"));
        }
        assert!(all(Some(FieldMask { paths: vec!["labels.*".into()] })).is_err());
    }
}
