//! Page tokens: where the next page begins, readable by nobody but us and usable by nobody but the caller.
//!
//! A token carries the last key of a page and a keyed BLAKE3 hash over it, the caller and the arguments. So another
//! tenant's token, a changed filter, or a token made up are all the same: invalid. There is no expiry; a token only says
//! where to go on, and what is read there is authorized anew.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;

const MAC_BYTES: usize = 16;
/// Longest token that is looked at: two names and a uid.
const TOKEN_BYTES_MAX: usize = 1_024;
const SEPARATOR: char = '\u{1f}';

/// The key of the hash, 32 bytes from a file.
#[derive(Clone)]
pub struct TokenKey([u8; 32]);

/// What a token is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// The tenant's uid as text.
    pub tenant: &'a str,
    /// The account's uid as text.
    pub account: &'a str,
    /// All arguments but the page's own, in a fixed order.
    pub arguments: &'a [&'a str],
}

/// The last topic of a page, in the order of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After {
    /// Namespace id.
    pub namespace_id: String,
    /// Topic id.
    pub topic_id: String,
    /// Topic uid, as PostgreSQL keeps it.
    pub topic_uid: i64,
}

/// Not a token of this caller for these arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("page token does not fit")]
pub struct TokenError;

impl TokenKey {
    /// From 32 secret bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The token of the page behind `after`.
    pub fn seal(&self, binding: Binding<'_>, after: &After) -> String {
        let body = format!("{}{SEPARATOR}{}{SEPARATOR}{}", after.namespace_id, after.topic_id, after.topic_uid);
        let mut token = self.mac(binding, body.as_bytes()).to_vec();
        token.extend_from_slice(body.as_bytes());
        URL_SAFE_NO_PAD.encode(token)
    }

    /// Reads a token back.
    pub fn open(&self, binding: Binding<'_>, token: &str) -> Result<After, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| TokenError)?;
        let (mac, body) = bytes.split_at_checked(MAC_BYTES).ok_or(TokenError)?;
        if !bool::from(self.mac(binding, body).ct_eq(mac)) {
            return Err(TokenError);
        }
        let body = std::str::from_utf8(body).map_err(|_| TokenError)?;
        let mut parts = body.split(SEPARATOR);
        let mut next = || parts.next().ok_or(TokenError);
        Ok(After {
            namespace_id: next()?.to_owned(),
            topic_id: next()?.to_owned(),
            topic_uid: next()?.parse().map_err(|_| TokenError)?,
        })
    }

    fn mac(&self, binding: Binding<'_>, body: &[u8]) -> [u8; MAC_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        let arguments = binding.arguments.iter().map(|argument| argument.as_bytes());
        for part in [binding.tenant.as_bytes(), binding.account.as_bytes(), body].into_iter().chain(arguments) {
            // With lengths, so that no two lists of parts hash alike.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
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
    fn a_token_works_for_its_caller_and_arguments_only() {
        let key = TokenKey::new([7; 32]);
        let after = After { namespace_id: "prod".into(), topic_id: "a.b".into(), topic_uid: -5 };
        let mine = Binding { tenant: "t1", account: "a1", arguments: &["", "x"] };
        let token = key.seal(mine, &after);
        assert_eq!(key.open(mine, &token), Ok(after));
        for other in [
            Binding { tenant: "t2", ..mine },
            Binding { account: "a2", ..mine },
            Binding { arguments: &["x", ""], ..mine },
        ] {
            assert_eq!(key.open(other, &token), Err(TokenError));
        }
        assert_eq!(TokenKey::new([8; 32]).open(mine, &token), Err(TokenError));
        for wrong in ["", "!", "AAAA", &token[1..], &"A".repeat(2_000)] {
            assert_eq!(key.open(mine, wrong), Err(TokenError));
        }
    }
}
