//! The database and the control log are made to agree again, whichever of them lost something. What counts is what a reader
//! of the log holds: of each resource the first record with its highest version.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use prost::Message as _;
use sluice_control_plane::Unknown;
use sluice_devstack::{ADMIN, Stack};
use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::internal::control::v1::{ControlRecord, Life, LookupKeyRequest, MemberHeartbeat, MemberPhase};
use sluice_proto::operator::v1::{ResumeTenantRequest, SuspendTenantRequest};
use sluice_types::Uid;
use sluice_types::physical::{CONTROL_COMPLETE_KEY, CONTROL_TOPIC, MEMBERS_TOPIC};
use sluice_wire::{Client, ConfigChange, Isolation, LogTail, OffsetAt, OutRecord, TailOptions};
use tonic::Code;

use crate::support::{Plant, Principal, SOON, eventually, refused};

const CALL: Duration = Duration::from_secs(10);

/// What a reader holds that followed the log from its beginning.
pub(crate) async fn held(kafka: &Client) -> HashMap<String, ControlRecord> {
    let options = TailOptions { isolation: Isolation::ReadUncommitted, ..TailOptions::default() };
    let mut tail = LogTail::new(kafka.clone(), CONTROL_TOPIC, 0, OffsetAt::Earliest, options);
    let mut held: HashMap<String, ControlRecord> = HashMap::new();
    loop {
        let batch = tail.next(CALL).await.unwrap();
        for record in &batch.records {
            let key = String::from_utf8(record.key.clone().unwrap().to_vec()).unwrap();
            let value = ControlRecord::decode(record.value.clone().unwrap()).unwrap();
            if held.get(&key).is_none_or(|known| known.version < value.version) {
                held.insert(key, value);
            }
        }
        if batch.is_caught_up() {
            return held;
        }
    }
}

fn life(held: &HashMap<String, ControlRecord>, uid: &str) -> Option<Life> {
    Some(match held.get(uid)?.resource.as_ref()? {
        Resource::Namespace(it) => it.life(),
        Resource::Key(it) => it.life(),
        other => panic!("{other:?}"),
    })
}

fn is_suspended(held: &HashMap<String, ControlRecord>, tenant: &str) -> bool {
    let Some(Resource::Tenant(tenant)) = held[tenant].resource.as_ref() else { panic!("a tenant") };
    tenant.suspended
}

async fn suspend(plant: &Plant) {
    let request = SuspendTenantRequest { name: "tenants/acme".into(), ..Default::default() };
    plant.operator().suspend_tenant(plant.as_operator(request)).await.unwrap();
}

async fn resume(plant: &Plant) {
    let request = ResumeTenantRequest { name: "tenants/acme".into(), ..Default::default() };
    plant.operator().resume_tenant(plant.as_operator(request)).await.unwrap();
}

async fn uid_of(plant: &Plant, table: &str, condition: &str) -> String {
    let uid: i64 = plant.sql(&format!("SELECT uid FROM control.{table} WHERE {condition}")).await.parse().unwrap();
    Uid::from_u64(uid as u64).to_string()
}

async fn later(plant: &Plant, owner: &Principal) -> (String, String) {
    let namespace = owner.make_namespace("later").await;
    for _ in 0..2 {
        suspend(plant).await;
        resume(plant).await;
    }
    let key = owner.make_key("owner").await.unwrap();
    (namespace.uid, key.uid)
}

#[tokio::test]
async fn a_database_restored_from_a_backup_is_right_and_its_changes_are_seen() {
    let stack = Stack::builder().build().await.unwrap();
    let kafka = stack.connection().kafka().unwrap().client(ADMIN).unwrap();
    let mut plant = Plant::prepare(stack.connection()).await;
    plant.run().await;
    let owner = plant.tenant("acme").await;
    owner.make_namespace("prod").await;
    plant.stop().await;
    let backup = plant.backup().await;
    plant.run().await;
    let owner = plant.owner("acme").await;
    let (namespace, key) = later(&plant, &owner).await;
    let tenant = uid_of(&plant, "tenant", "id = 'acme'").await;
    let before = held(&kafka).await;
    let version = before[&tenant].version;
    plant.stop().await;

    // Whoever restores does not know yet what it lacks: it is told, and nothing ends.
    plant.restore(backup);
    plant.run().await;
    let reported = plant.health().component("unknown_resources").unwrap();
    assert!(!reported.ok && reported.detail.starts_with("3 resources"), "{reported:?}");
    let ids: i64 = plant.sql("SELECT last_value FROM control.outbox_id_seq").await.parse().unwrap();
    assert!(before.values().all(|record| record.outbox_id <= ids), "ids order the lives of a name");
    suspend(&plant).await;
    let now = held(&kafka).await;
    assert!(is_suspended(&now, &tenant), "{now:?}");
    assert!(now[&tenant].version > version);
    assert_eq!((life(&now, &namespace), life(&now, &key)), (Some(Life::Active), Some(Life::Active)));
    let published = || async { plant.sql("SELECT count(*) FROM control.outbox WHERE published_offset IS NULL").await };
    eventually("all is published", || async { published().await == "0" }).await;
    plant.stop().await;

    // Told to, it ends what it does not know, and then both agree and nothing goes on being published.
    plant.config().control_log.unknown = Unknown::End;
    plant.run().await;
    eventually("what the database does not know has ended", || async {
        let now = held(&kafka).await;
        (life(&now, &namespace), life(&now, &key)) == (Some(Life::Gone), Some(Life::Gone))
    })
    .await;
    eventually("nothing is unknown any more", || async {
        plant.health().component("unknown_resources").is_some_and(|status| status.ok)
    })
    .await;
    plant.stop().await;
    let before = end(&kafka).await;
    plant.run().await;
    assert!(plant.health().component("control_log").unwrap().ok);
    assert_eq!(end(&kafka).await, before, "nothing is published twice");
    plant.stop().await;
    stack.stop().await;
}

async fn end(kafka: &Client) -> i64 {
    let at = OffsetAt::Latest;
    kafka.list_offset(CONTROL_TOPIC, 0, at, Isolation::ReadUncommitted, CALL).await.unwrap().offset.unwrap()
}

/// Lets no published row be published again, and counts the tries.
const REFUSE_MENDS: &str = "
    CREATE SEQUENCE control.refused;
    CREATE FUNCTION control.refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF OLD.published_offset IS NOT NULL AND NEW.published_offset IS NULL THEN
            PERFORM nextval('control.refused');
            RAISE EXCEPTION 'refused';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse BEFORE UPDATE ON control.outbox FOR EACH ROW EXECUTE FUNCTION control.refuse();";

#[tokio::test]
async fn what_a_log_lost_is_published_to_it_again() {
    let stack = Stack::builder().build().await.unwrap();
    let kafka = stack.connection().kafka().unwrap().client(ADMIN).unwrap();
    let mut plant = Plant::prepare(stack.connection()).await;
    plant.run().await;
    let owner = plant.tenant("acme").await;
    let namespace = owner.make_namespace("prod").await;
    let whole = held(&kafka).await;
    assert!(whole.contains_key(CONTROL_COMPLETE_KEY), "{whole:?}");

    // Kafka deletes records of a log that is not only compacted.
    let policy = |value: &str| BTreeMap::from([("cleanup.policy".to_owned(), ConfigChange::Set(value.to_owned()))]);
    kafka.incremental_alter_configs(CONTROL_TOPIC, &policy("compact,delete"), false, CALL).await.unwrap();
    let cut = end(&kafka).await;
    plant.sql(REFUSE_MENDS).await;
    assert_eq!(kafka.delete_records_before(CONTROL_TOPIC, 0, cut, CALL).await.unwrap(), cut);
    owner.make_namespace("other").await;
    // A mend that fails is tried again, and the log is not said to be complete without it.
    eventually("a second try", || async {
        plant.sql("SELECT last_value FROM control.refused").await.parse::<i64>().unwrap() >= 2
    })
    .await;
    assert!(!held(&kafka).await.contains_key(CONTROL_COMPLETE_KEY));
    plant.sql("DROP TRIGGER refuse ON control.outbox").await;
    eventually("all is there again, and said to be", || async {
        let now = held(&kafka).await;
        whole.iter().all(|(key, record)| now.get(key).is_some_and(|known| known.version == record.version))
    })
    .await;
    assert_eq!(life(&held(&kafka).await, &namespace.uid), Some(Life::Active));
    plant.stop().await;

    // And the setting is put right by whoever starts.
    plant.run().await;
    eventually("the log is only compacted", || async {
        let settings = kafka.describe_topic_configs(CONTROL_TOPIC, Some(&["cleanup.policy"]), CALL).await.unwrap();
        settings["cleanup.policy"].value.as_deref() == Some("compact")
    })
    .await;
    plant.stop().await;
    stack.stop().await;
}

/// What a gateway says that saw a loss.
async fn ask(kafka: &Client, wait: &str) {
    let heartbeat = MemberHeartbeat {
        gateway_id: "gateway-a".into(),
        applied_offset: -1,
        control_topic_id: kafka.topic(CONTROL_TOPIC, CALL).await.unwrap().topic_id.to_string(),
        phase: MemberPhase::Serving as i32,
        awaits_complete: wait.into(),
        ..Default::default()
    };
    let (key, value) = (Some("gateway-a".into()), Some(heartbeat.encode_to_vec().into()));
    let record = OutRecord { key, value, ..Default::default() };
    kafka.produce_batch(MEMBERS_TOPIC, 0, &[record], CALL).await.unwrap();
}

/// The keys that stand in the log before it answers the wait.
async fn keys_before_the_answer(kafka: &Client, wait: &str) -> HashSet<String> {
    let mut tail = LogTail::new(kafka.clone(), CONTROL_TOPIC, 0, OffsetAt::Earliest, TailOptions::default());
    let mut keys = HashSet::new();
    let read = async {
        loop {
            for record in tail.next(CALL).await.unwrap().records {
                let value = ControlRecord::decode(record.value.unwrap()).unwrap();
                match value.resource {
                    Some(Resource::Complete(complete)) if complete.answers.iter().any(|answer| answer == wait) => {
                        return;
                    }
                    _ => keys.insert(String::from_utf8(record.key.unwrap().to_vec()).unwrap()),
                };
            }
        }
    };
    tokio::time::timeout(SOON, read).await.expect("an answer");
    keys
}

/// Lets the relay believe that it published what comes.
const LOSE_RECORDS: &str = "
    CREATE FUNCTION control.lose() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN NEW.published_offset := 0; RETURN NEW; END $$;
    CREATE TRIGGER lose BEFORE INSERT ON control.outbox FOR EACH ROW EXECUTE FUNCTION control.lose();";

#[tokio::test]
async fn a_loss_that_only_a_gateway_saw_is_mended_at_once_and_the_gateway_is_told() {
    let stack = Stack::builder().build().await.unwrap();
    let kafka = stack.connection().kafka().unwrap().client(ADMIN).unwrap();
    let mut plant = Plant::prepare(stack.connection()).await;
    plant.run().await;
    let owner = plant.tenant("acme").await;
    plant.sql(LOSE_RECORDS).await;
    let lost = owner.make_namespace("prod").await.uid;
    plant.sql("DROP TRIGGER lose ON control.outbox").await;

    ask(&kafka, "first").await;
    assert!(keys_before_the_answer(&kafka, "first").await.contains(&lost));
    // Also a gateway that lost nothing that matters goes on only when it is told.
    ask(&kafka, "second").await;
    keys_before_the_answer(&kafka, "second").await;
    plant.stop().await;
    stack.stop().await;
}

#[tokio::test]
async fn a_role_of_a_newer_version_outlives_changes_of_this_one() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    let colleague = owner.colleague(&plant, "ci", &[]).await;
    drop(colleague);
    let account = uid_of(&plant, "service_account", "id = 'ci'").await;
    let kafka = plant.connection.kafka().unwrap().client(ADMIN).unwrap();
    plant
        .sql(
            "ALTER TABLE control.role_binding DROP CONSTRAINT role_binding_role_check;
             INSERT INTO control.role_binding SELECT tenant_uid, uid, 1, 'auditor', '*' FROM control.service_account
             WHERE id = 'ci'",
        )
        .await;
    let request = sluice_proto::admin::v1::UpdateServiceAccountRequest {
        service_account: Some(sluice_proto::admin::v1::ServiceAccount {
            name: "serviceAccounts/ci".into(),
            display_name: "CI".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    owner.accounts().update_service_account(owner.call(request)).await.unwrap();
    assert_eq!(plant.sql("SELECT role FROM control.role_binding WHERE role = 'auditor'").await, "auditor");
    let now = held(&kafka).await;
    let Some(Resource::Account(published)) = &now[&account].resource else { panic!("an account") };
    assert_eq!(published.grants[0].role, "auditor");
}

#[tokio::test]
async fn a_key_of_which_only_the_tombstone_is_left_is_not_found() {
    let plant = Plant::start().await;
    let owner = plant.tenant("acme").await;
    let request = LookupKeyRequest { key_id: owner.key.uid.clone() };
    assert_eq!(plant.lookup().lookup_key(request.clone()).await.unwrap().into_inner().records.len(), 3);
    plant
        .sql(
            "INSERT INTO control.outbox (tenant_uid, aggregate_uid, version, payload, gone)
             SELECT tenant_uid, uid, version + 1, NULL, true FROM control.api_key",
        )
        .await;
    assert_eq!(refused(plant.lookup().lookup_key(request).await), Code::NotFound);
}

#[tokio::test]
async fn two_processes_of_one_instance_never_hold_a_lease_together() {
    let plant = Plant::start().await;
    eventually("the first relays", || async {
        plant.sql("SELECT count(*) FROM control.lease WHERE name = 'relay'").await == "1"
    })
    .await;
    let holder = plant.sql("SELECT holder FROM control.lease WHERE name = 'relay'").await;
    let twin = plant.sibling("control-plane-1").await;
    let health = twin.health();
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(twin.run(stop.clone()));
    eventually("the twin stands by", || async {
        health.component("relay").is_some_and(|status| status.detail == "standing by")
    })
    .await;
    assert_eq!(plant.sql("SELECT holder FROM control.lease WHERE name = 'relay'").await, holder);
    stop.cancel();
    running.await.unwrap().unwrap();
}
