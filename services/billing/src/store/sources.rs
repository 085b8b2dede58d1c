//! The sources of usage windows, and the windows of them that are missing.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_db::sqlx::{self, Row as _, postgres::PgConnection};
use sluice_db::{DbError, SystemScope};

use crate::domain::source::Source;

/// What is missing, and what was given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Missing {
    /// Sources with windows that are missing and not declared lost.
    pub sources: i64,
    /// Those windows.
    pub windows: i64,
    /// Windows that were declared lost, ever, and did not come since.
    pub lost: i64,
}

/// The sources of these names that are known.
pub async fn source_list_on_conn(conn: &mut PgConnection, names: &[&str]) -> Result<BTreeMap<String, Source>, DbError> {
    let rows =
        sqlx::query("SELECT source, highest_window, last_seen_ms, ended FROM billing.source WHERE source = ANY($1)")
            .bind(names)
            .fetch_all(&mut *conn)
            .await?;
    let mut sources = BTreeMap::new();
    for row in rows {
        let source = Source {
            highest_window: row.try_get(1)?,
            holes: BTreeMap::new(),
            last_seen_ms: row.try_get(2)?,
            ended: row.try_get(3)?,
        };
        sources.insert(row.try_get::<String, _>(0)?, source);
    }
    let holes = sqlx::query("SELECT source, first_window, end_window FROM billing.source_hole WHERE source = ANY($1)")
        .bind(names)
        .fetch_all(conn)
        .await?;
    for row in holes {
        if let Some(source) = sources.get_mut(row.try_get::<&str, _>(0)?) {
            source.holes.insert(row.try_get(1)?, row.try_get(2)?);
        }
    }
    Ok(sources)
}

/// Writes what changed.
pub async fn source_store_on_conn(
    conn: &mut PgConnection,
    before: &BTreeMap<String, Source>,
    after: &BTreeMap<String, Source>,
) -> Result<(), DbError> {
    let changed: Vec<_> = after.iter().filter(|(name, source)| before.get(*name) != Some(source)).collect();
    let names: Vec<&str> = changed.iter().map(|(name, _)| name.as_str()).collect();
    let highest: Vec<i64> = changed.iter().map(|(_, source)| source.highest_window).collect();
    let last_seen: Vec<i64> = changed.iter().map(|(_, source)| source.last_seen_ms).collect();
    let ended: Vec<bool> = changed.iter().map(|(_, source)| source.ended).collect();
    sqlx::query(
        "INSERT INTO billing.source (source, highest_window, last_seen_ms, ended)
         SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::boolean[])
         ON CONFLICT (source) DO UPDATE SET highest_window = excluded.highest_window,
             last_seen_ms = excluded.last_seen_ms, ended = excluded.ended",
    )
    .bind(&names)
    .bind(&highest)
    .bind(&last_seen)
    .bind(&ended)
    .execute(&mut *conn)
    .await?;
    hole_store(conn, before, &changed).await
}

/// Holes that were filled go; what is left of one is as old as it was, and as lost.
async fn hole_store(
    conn: &mut PgConnection,
    before: &BTreeMap<String, Source>,
    changed: &[(&String, &Source)],
) -> Result<(), DbError> {
    let (mut made, mut cut, mut gone) = (Holes::default(), Holes::default(), Holes::default());
    let none = BTreeMap::new();
    for (name, source) in changed {
        let old = before.get(*name).map_or(&none, |source| &source.holes);
        for (first, end) in &source.holes {
            match old.get(first) {
                None => made.push(name, *first, *end),
                Some(was) if was != end => cut.push(name, *first, *end),
                Some(_) => {}
            }
        }
        for (first, end) in old.iter().filter(|(first, _)| !source.holes.contains_key(first)) {
            gone.push(name, *first, *end);
        }
    }
    // Those that were split off look at what they come from, so they are first.
    made.execute(
        conn,
        "INSERT INTO billing.source_hole (source, first_window, end_window, found_at, lost_at)
         SELECT n.source, n.first, n.last, coalesce(p.found_at, now()), p.lost_at
         FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS n (source, first, last)
         LEFT JOIN billing.source_hole AS p
             ON p.source = n.source AND p.first_window < n.first AND p.end_window >= n.last",
    )
    .await?;
    cut.execute(
        conn,
        "UPDATE billing.source_hole AS h SET end_window = n.last
         FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS n (source, first, last)
         WHERE h.source = n.source AND h.first_window = n.first",
    )
    .await?;
    gone.execute(
        conn,
        "DELETE FROM billing.source_hole AS h USING unnest($1::text[], $2::bigint[], $3::bigint[]) AS n (source, first, last)
         WHERE h.source = n.source AND h.first_window = n.first",
    )
    .await
}

/// Holes as columns.
#[derive(Default)]
struct Holes<'a> {
    sources: Vec<&'a str>,
    firsts: Vec<i64>,
    ends: Vec<i64>,
}

impl<'a> Holes<'a> {
    fn push(&mut self, source: &'a str, first: i64, end: i64) {
        self.sources.push(source);
        self.firsts.push(first);
        self.ends.push(end);
    }

    /// Nearly always there are none.
    async fn execute(&self, conn: &mut PgConnection, sql: &'static str) -> Result<(), DbError> {
        if !self.sources.is_empty() {
            sqlx::query(sql).bind(&self.sources).bind(&self.firsts).bind(&self.ends).execute(conn).await?;
        }
        Ok(())
    }
}

/// Declares holes lost that are older than this; how many windows that were.
pub async fn hole_declare_lost(system: &SystemScope, older_than: Duration) -> Result<i64, DbError> {
    let mut tx = system.begin().await?;
    let lost = sqlx::query_scalar(
        "WITH lost AS (
             UPDATE billing.source_hole SET lost_at = now()
             WHERE lost_at IS NULL AND found_at < now() - make_interval(secs => $1)
             RETURNING end_window - first_window AS windows
         )
         SELECT coalesce(sum(windows), 0)::bigint FROM lost",
    )
    .bind(older_than.as_secs_f64())
    .fetch_one(tx.conn())
    .await?;
    tx.commit().await?;
    Ok(lost)
}

/// What is missing now.
pub async fn hole_count(system: &SystemScope) -> Result<Missing, DbError> {
    let mut tx = system.begin().await?;
    let row = sqlx::query(
        "SELECT count(DISTINCT source) FILTER (WHERE lost_at IS NULL),
             coalesce(sum(end_window - first_window) FILTER (WHERE lost_at IS NULL), 0)::bigint,
             coalesce(sum(end_window - first_window) FILTER (WHERE lost_at IS NOT NULL), 0)::bigint
         FROM billing.source_hole",
    )
    .fetch_one(tx.conn())
    .await?;
    tx.rollback().await?;
    Ok(Missing { sources: row.try_get(0)?, windows: row.try_get(1)?, lost: row.try_get(2)? })
}
