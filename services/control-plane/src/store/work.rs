//! What provisioning has to do, over all tenants.

use sluice_db::SystemTx;
use sluice_types::{ClusterUid, GroupUid, NamespaceUid, TopicUid};

use super::Result;
use super::topic::{TopicRow, columns};

/// Channel on which a changed intent wakes provisioning.
pub(crate) const INTENT_CHANNEL: &str = "sluice_intent";
/// Channel on which the end of an operation, whose uid is said, wakes those who wait for it.
pub(crate) const OPERATION_CHANNEL: &str = "sluice_operation";

/// Topics whose world does not match the intent and whose next attempt is due: of each cluster the oldest of each tenant, then the
/// second of each, and so on, so that neither a tenant nor a cluster with more of them than one answer holds keeps others' waiting: the
/// clusters take turns. And how long until
/// the next one is due, in ms, when there is one. Sorts all that is due: tens of thousands of topics at most.
pub(crate) async fn work_due(tx: &mut SystemTx, limit: i64) -> Result<(Vec<TopicRow>, Option<i64>)> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM control.topic JOIN (\
             SELECT due_uid, due_since, \
                    row_number() OVER (PARTITION BY due_on ORDER BY turn, due_since, due_uid) AS turn \
             FROM (SELECT uid AS due_uid, attempt_time AS due_since, cluster_uid AS due_on, \
                          row_number() OVER (PARTITION BY cluster_uid, tenant_uid ORDER BY attempt_time, uid) AS turn \
                   FROM control.topic WHERE state IN ('CREATING', 'UPDATING', 'DELETING') AND attempt_time <= now()) each \
             ORDER BY turn, due_since LIMIT $1) due ON uid = due_uid ORDER BY turn, due_since"
    );
    let due: Vec<TopicRow> = sqlx::query_as(sql).bind(limit).fetch_all(tx.conn()).await?;
    if !due.is_empty() {
        return Ok((due, None));
    }
    let sql = "SELECT ceil(extract(epoch FROM min(attempt_time) - now()) * 1000)::bigint FROM control.topic \
               WHERE state IN ('CREATING', 'UPDATING', 'DELETING')";
    Ok((due, sqlx::query_scalar(sql).fetch_one(tx.conn()).await?))
}

/// All topics that should exist or are on their way out, by uid, those after `after`.
pub(crate) async fn work_list(tx: &mut SystemTx, after: Option<TopicUid>, limit: i64) -> Result<Vec<TopicRow>> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM control.topic WHERE state <> 'DELETED' AND ($1::bigint IS NULL OR uid > $1) ORDER BY uid LIMIT $2"
    );
    Ok(sqlx::query_as(sql).bind(after.map(TopicUid::as_i64)).bind(limit).fetch_all(tx.conn()).await?)
}

/// A deleted group that Kafka may still hold.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct DeletedGroupRow {
    uid: i64,
    namespace_uid: i64,
    /// Where gateways read of the deletion.
    pub(crate) published_offset: i64,
    cluster_uids: Vec<i64>,
}

impl DeletedGroupRow {
    pub(crate) fn uid(&self) -> GroupUid {
        GroupUid::from_i64(self.uid)
    }

    pub(crate) fn namespace_uid(&self) -> NamespaceUid {
        NamespaceUid::from_i64(self.namespace_uid)
    }

    /// The clusters that may hold it: those of topics that its namespace has or had, and the one that it is placed on.
    pub(crate) fn cluster_uids(&self) -> impl Iterator<Item = ClusterUid> {
        self.cluster_uids.iter().copied().map(ClusterUid::from_i64)
    }
}

/// Deleted groups that Kafka may still hold, and whose deletion was published, by uid, those after `after`.
pub(crate) async fn work_deleted_groups(
    tx: &mut SystemTx,
    after: Option<GroupUid>,
    limit: i64,
) -> Result<Vec<DeletedGroupRow>> {
    // The clusters are looked up once for each namespace of the page, not for each group.
    let sql = "WITH page AS MATERIALIZED ( \
                   SELECT g.uid, g.namespace_uid, o.published_offset FROM control.consumer_group g \
                   JOIN LATERAL (SELECT published_offset FROM control.outbox WHERE aggregate_uid = g.uid \
                                 ORDER BY id DESC LIMIT 1) o ON o.published_offset IS NOT NULL \
                   WHERE g.state = 'DELETED' AND g.kafka_gone < 2 AND g.kafka_look_time <= now() \
                   AND ($1::bigint IS NULL OR g.uid > $1) ORDER BY g.uid LIMIT $2), \
               places AS MATERIALIZED ( \
                   SELECT at.namespace_uid, array_agg(DISTINCT at.cluster_uid) AS cluster_uids FROM ( \
                       SELECT namespace_uid, cluster_uid FROM control.topic \
                       WHERE namespace_uid IN (SELECT namespace_uid FROM page) \
                       UNION ALL \
                       SELECT uid, cluster_uid FROM control.namespace WHERE uid IN (SELECT namespace_uid FROM page)) at \
                   GROUP BY at.namespace_uid) \
               SELECT page.uid, page.namespace_uid, page.published_offset, \
                      coalesce(places.cluster_uids, '{}') AS cluster_uids \
               FROM page LEFT JOIN places USING (namespace_uid) ORDER BY page.uid";
    Ok(sqlx::query_as(sql).bind(after.map(GroupUid::as_i64)).bind(limit).fetch_all(tx.conn()).await?)
}

/// Kafka does not hold a deleted group. To be looked at once more after a while; a report that comes again meanwhile changes nothing.
pub(crate) async fn work_group_gone(tx: &mut SystemTx, group: GroupUid) -> Result<()> {
    let sql = "UPDATE control.consumer_group SET kafka_gone = kafka_gone + 1, \
               kafka_look_time = now() + interval '2 minutes' \
               WHERE uid = $1 AND state = 'DELETED' AND kafka_gone < 2 AND kafka_look_time <= now()";
    sqlx::query(sql).bind(group.as_i64()).execute(tx.conn()).await?;
    Ok(())
}

/// Wakes the listeners of a channel when the transaction commits.
pub(crate) async fn notify(conn: &mut sqlx::PgConnection, channel: &str) -> Result<()> {
    sqlx::query("SELECT pg_notify($1, '')").bind(channel).execute(conn).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture::TestDatabase;

    #[tokio::test]
    async fn a_tenant_with_more_work_than_an_answer_holds_keeps_nobody_waiting() {
        let test = TestDatabase::prepare().await;
        // Of the first tenant twenty, for long; of the others two each, since a moment; and one that is not due.
        test.sql(
            "INSERT INTO control.tenant (uid, id, display_name, state) SELECT i, 't' || i, '', 'ACTIVE'
                 FROM generate_series(1, 3) i;
             INSERT INTO control.namespace (uid, tenant_uid, id, display_name, state)
                 SELECT i, i, 'n', '', 'ACTIVE' FROM generate_series(1, 3) i;
             INSERT INTO control.topic (uid, tenant_uid, namespace_uid, namespace_id, id, display_name, cleanup_policy,
                                        effective_partitions, effective_retention_ms, state, attempt_time)
                 SELECT i, 1, 1, 'n', 't' || i, '', 0, 1, 1, 'CREATING', now() - make_interval(hours => 1, secs => -i)
                     FROM generate_series(1, 20) i UNION ALL
                 SELECT 100 * i + j, i, i, 'n', 't' || j, '', 0, 1, 1, 'CREATING', now() - make_interval(secs => 100 - j)
                     FROM generate_series(2, 3) i, generate_series(1, 2) j UNION ALL
                 SELECT 1000, 3, 3, 'n', 'later', '', 0, 1, 1, 'CREATING', now() + interval '1 hour'",
        )
        .await;
        let mut tx = test.database.system().begin().await.expect("begin");
        let (due, _) = work_due(&mut tx, 7).await.expect("work");
        tx.rollback().await.expect("rollback");
        let uids: Vec<i64> = due.iter().map(|row| row.uid).collect();
        assert_eq!((uids[0], uids[3], uids[6]), (1, 2, 3), "the oldest of each tenant first");
        let mut firsts = uids[1..3].to_vec();
        firsts.sort_unstable();
        let mut seconds = uids[4..6].to_vec();
        seconds.sort_unstable();
        assert_eq!((firsts, seconds), (vec![201, 301], vec![202, 302]));
    }

    #[tokio::test]
    async fn a_cluster_with_more_work_than_an_answer_holds_keeps_no_other_waiting() {
        let test = TestDatabase::prepare().await;
        // Twenty tenants have waited long for one cluster; one has just come with a topic on another one.
        test.sql(
            "INSERT INTO control.cluster (uid, id) VALUES (5, 'second');
             INSERT INTO control.tenant (uid, id, display_name, state) SELECT i, 't' || i, '', 'ACTIVE'
                 FROM generate_series(1, 21) i;
             INSERT INTO control.namespace (uid, tenant_uid, id, display_name, state)
                 SELECT i, i, 'n', '', 'ACTIVE' FROM generate_series(1, 21) i;
             INSERT INTO control.topic (uid, tenant_uid, namespace_uid, namespace_id, id, display_name, cleanup_policy,
                                        effective_partitions, effective_retention_ms, state, attempt_time, cluster_uid)
                 SELECT i, i, i, 'n', 't', '', 0, 1, 1, 'CREATING', now() - interval '1 hour', 5
                     FROM generate_series(1, 20) i UNION ALL
                 SELECT 21, 21, 21, 'n', 't', '', 0, 1, 1, 'CREATING', now(), 0",
        )
        .await;
        let mut tx = test.database.system().begin().await.expect("begin");
        let (due, _) = work_due(&mut tx, 7).await.expect("work");
        tx.rollback().await.expect("rollback");
        let uids: Vec<i64> = due.iter().map(|row| row.uid).collect();
        assert!(uids.len() == 7 && uids[..2].contains(&21), "{uids:?}");
    }
}
