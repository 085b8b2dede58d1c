//! Page tokens: where a list goes on, bound to its caller and arguments.
//!
//! A token is `base64url(mac, last key)`. The MAC covers tenant, principal, method, arguments and key, so a token of
//! somebody else, of another list, or a made-up one is refused, all with the same text.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sluice_types::Error;

const MAC_BYTES: usize = 16;
const TOKEN_BYTES_MAX: usize = 1_024;

/// Makes and reads tokens.
#[derive(Clone)]
pub(crate) struct Pages {
    key: [u8; 32],
}

/// The list a token belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct List<'a> {
    /// Tenant and principal, or the operator.
    pub(crate) caller: &'a str,
    /// The RPC's path.
    pub(crate) method: &'a str,
    /// What else decides the result: parent, filter, order.
    pub(crate) arguments: &'a str,
}

impl Pages {
    /// From the installation's secret; every instance makes the same tokens.
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        Self { key: blake3::derive_key("sluice control-plane page token v1", secret) }
    }

    /// The token of the page after `last_key`.
    pub(crate) fn token(&self, list: List<'_>, last_key: &str) -> String {
        let mut bytes = self.mac(list, last_key).to_vec();
        bytes.extend_from_slice(last_key.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The last key of the page before; `None` for the first page.
    pub(crate) fn last_key(&self, list: List<'_>, token: &str) -> Result<Option<String>, Error> {
        if token.is_empty() {
            return Ok(None);
        }
        self.read(list, token).map(Some).ok_or_else(|| {
            Error::invalid(
                "page_token",
                "is not one of this list; take next_page_token of its last page, or leave it empty",
            )
        })
    }

    fn read(&self, list: List<'_>, token: &str) -> Option<String> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (mac, key) = bytes.split_at_checked(MAC_BYTES)?;
        let key = std::str::from_utf8(key).ok()?;
        // Without an early end: the time must not tell how many bytes of a guess are right.
        let expected = self.mac(list, key);
        let equal = expected.iter().zip(mac).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0;
        equal.then(|| key.to_owned())
    }

    fn mac(&self, list: List<'_>, last_key: &str) -> [u8; MAC_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in [list.caller, list.method, list.arguments, last_key] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&hasher.finalize().as_bytes()[..MAC_BYTES]);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_works_only_for_its_own_list_and_caller() {
        let pages = Pages::new(&[7; 32]);
        let list = List { caller: "a", method: "m", arguments: "x" };
        let token = pages.token(list, "orders");
        assert_eq!(pages.last_key(list, &token).ok(), Some(Some("orders".into())));
        assert_eq!(pages.last_key(list, "").ok(), Some(None));
        let foreign = [
            List { caller: "b", ..list },
            List { method: "n", ..list },
            List { arguments: "y", ..list },
            List { caller: "am", method: "", ..list },
        ];
        let refused = pages.last_key(list, "AAAA").expect_err("made up").message;
        for other in foreign {
            assert_eq!(pages.last_key(other, &token).expect_err("foreign").message, refused);
        }
        for i in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[i] = if bytes[i] == b'A' { b'B' } else { b'A' };
            let tampered = String::from_utf8(bytes).expect("ascii");
            assert!(pages.last_key(list, &tampered).is_err(), "{i}");
        }
    }
}
