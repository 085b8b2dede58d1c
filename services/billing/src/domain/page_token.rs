//! Page tokens of the list of usage: the last topic of a page, bound to the caller and the arguments by the MAC of
//! [`sluice_process::page_token`].

use sluice_process::page_token::{PageKey, not_of_this_list};
use sluice_types::Error;

const SEPARATOR: char = '\u{1f}';

/// Makes and reads tokens.
#[derive(Clone)]
pub struct TokenKey(PageKey);

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

impl TokenKey {
    /// From 32 secret bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(PageKey::new(bytes))
    }

    /// The token of the page behind `after`.
    pub fn seal(&self, binding: Binding<'_>, after: &After) -> String {
        let place = format!("{}{SEPARATOR}{}{SEPARATOR}{}", after.namespace_id, after.topic_id, after.topic_uid);
        self.0.seal(binding.parts(), &place)
    }

    /// Reads a token back.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: not a token of this caller for these arguments.
    pub fn open(&self, binding: Binding<'_>, token: &str) -> Result<After, Error> {
        let place = self.0.open(binding.parts(), token);
        place.as_deref().and_then(After::parse).ok_or_else(not_of_this_list)
    }
}

impl<'a> Binding<'a> {
    fn parts(self) -> impl Iterator<Item = &'a str> {
        [self.tenant, self.account].into_iter().chain(self.arguments.iter().copied())
    }
}

impl After {
    fn parse(place: &str) -> Option<Self> {
        let mut parts = place.split(SEPARATOR);
        let (namespace_id, topic_id) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        Some(Self { namespace_id, topic_id, topic_uid: parts.next()?.parse().ok()? })
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
        assert_eq!(key.open(mine, &token).ok(), Some(after));
        for other in [
            Binding { tenant: "t2", ..mine },
            Binding { account: "a2", ..mine },
            Binding { arguments: &["x", ""], ..mine },
        ] {
            assert!(key.open(other, &token).is_err());
        }
    }
}
