//! The MAC of page tokens: a token says where a list goes on, and is bound to its caller and arguments.
//!
//! A token is `base64url(mac, place)`. The MAC covers everything that the list depends on and the place. So a token of somebody else,
//! of another list, or a made-up one is refused, and nobody learns which of these it was. There is no expiry: a token only says
//! where to go on, and what is read there is authorized anew.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sluice_types::Error;
use subtle::ConstantTimeEq;

const MAC_BYTES: usize = 16;
/// Longest token that is looked at: two names and a uid.
const TOKEN_BYTES_MAX: usize = 1_024;

/// The key of the MACs; the same for all instances of a service.
#[derive(Clone)]
pub struct PageKey([u8; 32]);

impl PageKey {
    /// From 32 secret bytes that are used for nothing else.
    pub fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// From a secret that is used for something else, too. The context is a constant text of the service.
    pub fn derived(context: &str, secret: &[u8; 32]) -> Self {
        Self(blake3::derive_key(context, secret))
    }

    /// The token of a place in the list that `bound_to` describes: caller, method, arguments.
    pub fn seal<'a>(&self, bound_to: impl IntoIterator<Item = &'a str>, place: &'a str) -> String {
        let mut bytes = self.mac(bound_to, place).to_vec();
        bytes.extend_from_slice(place.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The place; `None` for what is no token of this list.
    pub fn open<'a>(&self, bound_to: impl IntoIterator<Item = &'a str>, token: &str) -> Option<String> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (mac, place) = bytes.split_at_checked(MAC_BYTES)?;
        let place = std::str::from_utf8(place).ok()?;
        // Without an early end: the time must not tell how many bytes of a guess are right.
        bool::from(self.mac(bound_to, place).ct_eq(mac)).then(|| place.to_owned())
    }

    fn mac<'a>(&self, bound_to: impl IntoIterator<Item = &'a str>, place: &str) -> [u8; MAC_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        let mut part = |part: &str| {
            // With lengths, so that no two lists of parts hash alike.
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        };
        bound_to.into_iter().for_each(&mut part);
        part(place);
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&hasher.finalize().as_bytes()[..MAC_BYTES]);
        mac
    }
}

/// The one refusal of all tokens that are not of a list.
pub fn not_of_this_list() -> Error {
    Error::invalid("page_token", "is not one of this list; take next_page_token of its last page, or leave it empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_works_for_what_it_is_bound_to_and_for_nothing_else() {
        let key = PageKey::new([7; 32]);
        let mine = ["tenant", "method", "x"];
        let token = key.seal(mine, "orders");
        assert_eq!(key.open(mine, &token).as_deref(), Some("orders"));
        for other in [["other", "method", "x"], ["tenant", "m", "x"], ["tenantm", "ethod", "x"]] {
            assert_eq!(key.open(other, &token), None, "{other:?}");
        }
        assert_eq!(key.open(["tenant", "method"], &token), None);
        assert_eq!(PageKey::new([8; 32]).open(mine, &token), None);
        assert_eq!(PageKey::derived("a service", &[7; 32]).open(mine, &token), None);
        for wrong in ["", "!", "AAAA", &token[1..], &"A".repeat(2_000)] {
            assert_eq!(key.open(mine, wrong), None, "{wrong}");
        }
        for i in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[i] = if bytes[i] == b'A' { b'B' } else { b'A' };
            assert_eq!(key.open(mine, &String::from_utf8(bytes).expect("ascii")), None, "{i}");
        }
    }
}
