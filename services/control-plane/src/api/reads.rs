//! Lists: a page, and the token of the next one.

use sluice_proto::ApiRequest;

use crate::changes::Txn;
use crate::domain::page::List;
use crate::error::Fault;

/// What to read for a page, and how to name the next.
pub(super) struct Page {
    caller: String,
    method: &'static str,
    arguments: String,
    size: i64,
    /// The last key of the page before.
    pub(super) after: Option<String>,
}

impl Page {
    /// Checks size and token. `arguments` is what else decides the result.
    pub(super) fn begin(txn: &Txn, size: i32, token: &str, arguments: String) -> Result<Self, Fault> {
        let size = crate::domain::fields::page_size(size)?;
        let (caller, method) = (txn.caller_key(), txn.rpc_path());
        let list = List { caller: &caller, method, arguments: &arguments };
        let after = txn.plane().pages.last_key(list, token)?;
        Ok(Self { caller, method, arguments, size, after })
    }

    /// How many rows to read: one more than the page has, to know whether there is a next.
    pub(super) fn limit(&self) -> i64 {
        self.size + 1
    }

    /// Cuts the rows to the page and names the next one.
    pub(super) fn finish<T>(&self, txn: &Txn, mut rows: Vec<T>, key: impl Fn(&T) -> String) -> (Vec<T>, String) {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        if rows.len() <= size {
            return (rows, String::new());
        }
        rows.truncate(size);
        let list = List { caller: &self.caller, method: self.method, arguments: &self.arguments };
        let token = rows.last().map(|last| txn.plane().pages.token(list, &key(last))).unwrap_or_default();
        (rows, token)
    }
}

/// The RPC of a request, for reads.
pub(super) fn rpc_of<R: ApiRequest>(_: &R) -> &'static sluice_proto::Rpc {
    R::rpc()
}
