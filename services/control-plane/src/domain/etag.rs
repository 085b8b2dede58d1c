//! Etags: opaque to callers, another one with every change of the resource.

use sluice_types::{Error, ErrorKind, Reason, Uid};

/// The etag of a resource at a version.
pub(crate) fn etag(uid: Uid, version: i64) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&uid.as_u64().to_be_bytes());
    hasher.update(&version.to_be_bytes());
    hasher.finalize().to_hex()[..16].to_owned()
}

/// Refuses an etag that is not the current one; an empty one asks for no check.
pub(crate) fn check(sent: &str, uid: Uid, version: i64) -> Result<(), Error> {
    if sent.is_empty() || sent == etag(uid, version) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Aborted,
        Reason::EtagMismatch,
        "etag: is not the current one; read the resource again and repeat the change",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_another_etag() {
        let uid = Uid::random();
        assert_ne!(etag(uid, 1), etag(uid, 2));
        assert!(check(&etag(uid, 2), uid, 2).is_ok());
        assert!(check("", uid, 2).is_ok());
        assert_eq!(check(&etag(uid, 1), uid, 2).expect_err("old").kind, ErrorKind::Aborted);
    }
}
