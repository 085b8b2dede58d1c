//! One stack for a whole test run.
//!
//! `devstack run -- <command>` starts a stack, names its connection file in `SLUICE_TEST_STACK`, runs the command, and
//! ends the stack. [`shared`] gives the tests that connection, in however many processes they run. Without the variable
//! the first caller in a process starts a temporary stack that ends with the process, so a lone `cargo test` works too.
//!
//! Tests that stop Kafka or PostgreSQL must not do that to the others: they build a [`Stack`] of their own.

use tokio::sync::OnceCell;

use crate::connection::Connection;
use crate::error::Result;
use crate::paths;
use crate::stack::Stack;

static SHARED: OnceCell<Shared> = OnceCell::const_new();

struct Shared {
    connection: Connection,
    /// Never dropped: the watchdog ends it when this process ends.
    _own: Option<Stack>,
}

/// The connection of the run's shared stack. Topics and databases in it belong to whoever made them: use fresh names.
pub async fn shared() -> Result<&'static Connection> {
    let shared = SHARED.get_or_try_init(async || match paths::shared_stack_file() {
        Some(file) => Ok(Shared { connection: Connection::read(&file)?, _own: None }),
        None => {
            let stack = Stack::builder().build().await?;
            Ok(Shared { connection: stack.connection().clone(), _own: Some(stack) })
        }
    });
    shared.await.map(|shared| &shared.connection)
}
