//! Page tokens: where a list goes on, bound to its caller and arguments by the MAC of [`sluice_process::page_token`].

use sluice_process::page_token::{PageKey, not_of_this_list};
use sluice_types::Error;

/// Makes and reads tokens.
#[derive(Clone)]
pub(crate) struct Pages(PageKey);

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

impl List<'_> {
    fn parts(&self) -> [&str; 3] {
        [self.caller, self.method, self.arguments]
    }
}

impl Pages {
    /// From the installation's secret; every instance makes the same tokens.
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        Self(PageKey::derived("sluice control-plane page token v1", secret))
    }

    /// The token of the page after `last_key`.
    pub(crate) fn token(&self, list: List<'_>, last_key: &str) -> String {
        self.0.seal(list.parts(), last_key)
    }

    /// The last key of the page before; `None` for the first page.
    pub(crate) fn last_key(&self, list: List<'_>, token: &str) -> Result<Option<String>, Error> {
        if token.is_empty() {
            return Ok(None);
        }
        self.0.open(list.parts(), token).map(Some).ok_or_else(not_of_this_list)
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
    }
}
