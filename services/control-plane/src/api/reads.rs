//! Lists: a page, and the token of the next one.

use prost::Message;
use sluice_proto::ApiRequest;

use crate::changes::Txn;
use crate::domain::page::List;
use crate::error::Fault;

/// Bytes of a page's resources; gRPC takes messages of 4 MiB unless it is told otherwise.
const PAGE_BYTES_MAX: usize = 2 << 20;

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

    /// Cuts the rows to the page, as the API shows them, and names the next one. A page ends early when its answer would
    /// become larger than a message between our processes may be.
    pub(super) fn finish<T, M: Message>(
        &self,
        txn: &Txn,
        rows: &[T],
        key: impl Fn(&T) -> String,
        show: impl Fn(&T) -> M,
    ) -> (Vec<M>, String) {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let (mut shown, mut bytes) = (Vec::new(), 0);
        for message in rows.iter().take(size).map(show) {
            bytes += message.encoded_len();
            if bytes > PAGE_BYTES_MAX && !shown.is_empty() {
                break;
            }
            shown.push(message);
        }
        let last = rows.get(shown.len().wrapping_sub(1)).filter(|_| shown.len() < rows.len());
        let list = List { caller: &self.caller, method: self.method, arguments: &self.arguments };
        let token = last.map(|last| txn.plane().pages.token(list, &key(last))).unwrap_or_default();
        (shown, token)
    }
}

/// The RPC of a request, for reads.
pub(super) fn rpc_of<R: ApiRequest>(_: &R) -> &'static sluice_proto::Rpc {
    R::rpc()
}
