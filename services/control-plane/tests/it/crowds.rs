//! One tenant's calls in a crowd are its own concern: others, provisioning and the operator go on.

use std::time::Instant;

use sluice_proto::admin::v1::{CreateNamespaceRequest, ListNamespacesRequest, Namespace};
use sluice_proto::internal::control::v1::LookupKeyRequest;
use sluice_proto::internal::control::v1::report_topic_request::Observed;
use sluice_proto::operator::v1::IssueOwnerKeyRequest;
use sluice_runtime::statuses::from_tonic;
use sluice_types::{ErrorKind, Reason};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::provisioner::{lease, report, work};
use crate::support::{Plant, Principal, eventually, url};

/// Calls of the busy tenant: more than there are connections.
const CROWD: usize = 40;
/// Connections that the operator's calls share with upkeep, but for the one that listens.
const OPERATOR_CONNECTIONS: usize = 4;

/// Somebody in the middle of a change of the tenant, for as long as the connection lives.
async fn hold_changes(plant: &Plant, tenant: &str) -> PgConnection {
    let uid: i64 = plant.sql(&format!("SELECT uid FROM control.tenant WHERE id = '{tenant}'")).await.parse().unwrap();
    let mut holder = PgConnection::connect(&url(&plant.connection, &plant.database, "system")).await.unwrap();
    sqlx::query("SELECT pg_advisory_lock($1)").bind(uid).execute(&mut holder).await.unwrap();
    holder
}

/// Connections of this role that wait for a tenant's changes.
async fn waiting_in_the_database(plant: &Plant, part: &str) -> usize {
    let waiting = format!(
        "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
         WHERE l.locktype = 'advisory' AND NOT l.granted AND a.datname = current_database()
         AND a.usename = 'sluice_control_{part}'"
    );
    plant.sql(&waiting).await.parse().unwrap()
}

async fn create(owner: Principal, id: String) -> Result<(), Status> {
    let request =
        CreateNamespaceRequest { namespace_id: id, namespace: Some(Namespace::default()), ..Default::default() };
    owner.namespaces().create_namespace(owner.call(request)).await.map(drop)
}

#[tokio::test]
async fn a_tenant_whose_changes_wait_keeps_one_connection_and_nobody_else_waiting() {
    let plant = Plant::start().await;
    let (busy, quiet) = (plant.tenant("busy").await, plant.tenant("quiet").await);
    let holder = hold_changes(&plant, "busy").await;
    let crowd: Vec<_> = (0..CROWD).map(|i| tokio::spawn(create(busy.clone(), format!("n{i}")))).collect();
    let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                   WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()";
    eventually("a change waits", || async { plant.sql(waiting).await == "1" }).await;
    let begun = Instant::now();
    for id in ["a", "b", "c"] {
        quiet.make_namespace(id).await;
        quiet.namespaces().list_namespaces(quiet.call(ListNamespacesRequest::default())).await.unwrap();
        busy.namespaces().list_namespaces(busy.call(ListNamespacesRequest::default())).await.unwrap();
    }
    assert_eq!(plant.sql(waiting).await, "1", "the others wait without a connection ({:?})", begun.elapsed());
    drop(holder);
    for call in crowd {
        // Those that were too late for their turn are told to come back, as unavailable.
        let Err(status) = call.await.unwrap() else { continue };
        let error = from_tonic(&status);
        assert_eq!((error.kind, error.reason), (ErrorKind::Unavailable, Reason::Contended), "{status:?}");
        assert!(error.retry_after.is_some());
    }
}

#[tokio::test]
async fn a_report_about_a_busy_tenant_is_put_off_and_the_lease_stays() {
    let plant = Plant::start().await;
    let (busy, quiet) = (plant.tenant("busy").await, plant.tenant("quiet").await);
    for owner in [&busy, &quiet] {
        owner.make_namespace("prod").await;
    }
    let topic = |owner: &Principal| {
        let (owner, call) = (owner.clone(), owner.create_topic("prod", "orders", Default::default()));
        tokio::spawn(async move { owner.topics().create_topic(call).await.unwrap().into_inner() })
    };
    let (of_busy, of_quiet) = (topic(&busy), topic(&quiet));
    let mut client = plant.intents();
    let epoch = lease(&mut client, "provisioner", 60_000).await;
    let mut intents = Vec::new();
    eventually("both topics are to be made", || {
        let mut client = client.clone();
        async move { work(&mut client).await.len() == 2 }
    })
    .await;
    intents.extend(work(&mut client).await);
    let tenant = busy_uid(&plant).await;
    let (theirs, others): (Vec<_>, Vec<_>) = intents.into_iter().partition(|intent| intent.tenant_uid == tenant);
    let holder = hold_changes(&plant, "busy").await;
    // Changes of the tenant: one has its turn and waits in the database, the others wait for theirs.
    let changes: Vec<_> = (0..4).map(|i| tokio::spawn(create(busy.clone(), format!("n{i}")))).collect();
    eventually("a change waits", || async { waiting_in_the_database(&plant, "app").await == 1 }).await;
    // More reports than provisioning has connections.
    let reports: Vec<_> = (0..8)
        .map(|_| {
            let (mut client, request) = (client.clone(), report(epoch, &theirs[0], Observed::Ready));
            tokio::spawn(async move { client.report_topic(request).await })
        })
        .collect();
    // They are put off within seconds, so they are looked at from the beginning.
    let mut most = 0;
    while most == 0 && !reports.iter().all(JoinHandle::is_finished) {
        most = waiting_in_the_database(&plant, "system").await;
    }
    client.report_topic(report(epoch, &others[0], Observed::Ready)).await.unwrap();
    assert!(of_quiet.await.unwrap().done);
    while !reports.iter().all(JoinHandle::is_finished) {
        most = most.max(waiting_in_the_database(&plant, "system").await);
    }
    assert_eq!(most, 1, "reports take turns, and not those of changes: none of these had one");
    for put_off in reports {
        let error = from_tonic(&put_off.await.unwrap().unwrap_err());
        assert_eq!((error.kind, error.reason), (ErrorKind::Unavailable, Reason::Contended));
    }
    drop(holder);
    eventually("the report is taken", || {
        let (mut client, request) = (client.clone(), report(epoch, &theirs[0], Observed::Ready));
        async move { client.report_topic(request).await.is_ok() }
    })
    .await;
    for change in changes {
        // Those that were too late for their turn are told so.
        let _ = change.await.unwrap();
    }
    let operation = of_busy.await.unwrap();
    assert!(operation.done || !operation.name.is_empty());
    // A lease that is not held any more has its own reason.
    let old = from_tonic(&client.report_topic(report(epoch - 1, &others[0], Observed::Ready)).await.unwrap_err());
    assert_eq!((old.kind, old.reason), (ErrorKind::Aborted, Reason::LeaseLost));
}

async fn busy_uid(plant: &Plant) -> String {
    let uid: i64 = plant.sql("SELECT uid FROM control.tenant WHERE id = 'busy'").await.parse().unwrap();
    sluice_types::TenantUid::from_i64(uid).to_string()
}

#[tokio::test]
async fn gateways_get_keys_beside_a_crowd_that_waits_with_all_connections_of_others() {
    let plant = Plant::start().await;
    let (busy, quiet) = (plant.tenant("busy").await, plant.tenant("quiet").await);
    let holder = hold_changes(&plant, "busy").await;
    // Who waited too long is told so, and comes again. The operator takes no turns: those calls wait with a connection each.
    let over = CancellationToken::new();
    let crowd: Vec<_> = (0..CROWD)
        .map(|i| {
            let (over, busy, mut operator, token) =
                (over.clone(), busy.clone(), plant.operator(), plant.operator_token());
            tokio::spawn(async move {
                while !over.is_cancelled() {
                    let mut key =
                        Request::new(IssueOwnerKeyRequest { name: "tenants/busy".into(), ..Default::default() });
                    key.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
                    let _ = tokio::join!(create(busy.clone(), format!("n{i}")), operator.issue_owner_key(key));
                }
            })
        })
        .collect();
    eventually("all wait that can", || async {
        waiting_in_the_database(&plant, "app").await == 1
            && waiting_in_the_database(&plant, "system").await == OPERATOR_CONNECTIONS
    })
    .await;

    for key in [&busy.key, &quiet.key] {
        let found = plant.lookup().lookup_key(LookupKeyRequest { key_id: key.uid.clone() }).await;
        assert_eq!(found.unwrap().into_inner().records.len(), 3, "key, account and tenant");
    }

    over.cancel();
    drop(holder);
    for calls in crowd {
        calls.await.unwrap();
    }
}
