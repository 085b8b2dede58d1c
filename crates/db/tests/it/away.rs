//! A database that is stopped, killed or frozen: UNAVAILABLE within a bound, and well again when it is back.

use std::time::{Duration, Instant};

use sluice_db::DbError;
use sluice_devstack::Stack;

use crate::support::fresh;

/// Acquire timeout and some air for a busy machine.
const FAST: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_database_that_is_away_fails_fast_and_comes_back() {
    let stack = Stack::builder().without_kafka().build().await.unwrap();
    let postgres = stack.postgres().unwrap();
    let (_, database) = fresh(postgres.connection()).await;
    database.ping().await.unwrap();

    postgres.kill9().await;
    let begun = Instant::now();
    let error = database.ping().await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(begun.elapsed() < FAST, "{:?}", begun.elapsed());
    let answer = error.into_error(sluice_types::Reason::ControlPlaneUnavailable);
    assert_eq!(answer.kind, sluice_types::ErrorKind::Unavailable);
    assert!(answer.retry_after.is_some());

    postgres.start_server().await.unwrap();
    well_again(&database).await;

    postgres.pause().await.unwrap();
    let begun = Instant::now();
    let error = database.ping().await.unwrap_err();
    assert!(matches!(error, DbError::Unavailable(_)), "{error:?}");
    assert!(begun.elapsed() < FAST, "{:?}", begun.elapsed());
    postgres.resume();
    well_again(&database).await;
    stack.stop().await;
}

async fn well_again(database: &sluice_db::Database) {
    let begun = Instant::now();
    while let Err(error) = database.ping().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{error:?}");
    }
}
