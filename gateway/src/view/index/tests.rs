//! Records in every order: versions, deletions, new lives of a name.

use super::*;
use crate::view::{TopicLookup, View};
use sluice_log::Placement;
use sluice_types::{ClusterUid, LogUid, TenantScope};

struct World {
    view: View,
    tenant: TenantUid,
    namespace: NamespaceUid,
    order: std::cell::Cell<i64>,
}

impl World {
    fn new() -> Self {
        let world = Self {
            view: View::default(),
            tenant: TenantUid::random(),
            namespace: NamespaceUid::random(),
            order: std::cell::Cell::new(0),
        };
        world.apply(world.record(
            1,
            Resource::Tenant(control::TenantState {
                uid: world.tenant.to_string(),
                id: "acme".into(),
                life: Life::Active.into(),
                ..Default::default()
            }),
        ));
        world
    }

    fn record(&self, version: i64, resource: Resource) -> ControlRecord {
        self.order.set(self.order.get() + 1);
        ControlRecord {
            version,
            tenant_uid: self.tenant.to_string(),
            outbox_id: self.order.get(),
            resource: Some(resource),
            ..Default::default()
        }
    }

    fn namespace(&self, version: i64, life: Life) -> ControlRecord {
        self.record(
            version,
            Resource::Namespace(control::NamespaceState {
                uid: self.namespace.to_string(),
                id: "prod".into(),
                life: life.into(),
            }),
        )
    }

    fn topic(&self, uid: TopicUid, version: i64, life: Life, partitions: i32) -> ControlRecord {
        self.record(
            version,
            Resource::Topic(control::TopicState {
                uid: uid.to_string(),
                id: "orders".into(),
                namespace_uid: self.namespace.to_string(),
                namespace_id: "prod".into(),
                life: life.into(),
                partitions,
                ..Default::default()
            }),
        )
    }

    fn apply(&self, record: ControlRecord) -> Change {
        self.view.index().apply(record).expect("a good record")
    }

    fn lookup(&self) -> TopicLookup {
        let scope = TenantScope::from_verified(self.tenant, "acme".parse().expect("id"));
        self.view.topic_lookup(&scope, &"prod".parse().expect("id"), &"orders".parse().expect("id"))
    }

    fn active_uid(&self) -> Option<TopicUid> {
        match self.lookup() {
            TopicLookup::Active(topic) => Some(topic.topic_uid),
            _ => None,
        }
    }
}

#[test]
fn a_topic_goes_from_absent_over_pending_to_active_and_gone() {
    let world = World::new();
    let uid = TopicUid::random();
    world.apply(world.namespace(1, Life::Active));
    assert_eq!(world.lookup(), TopicLookup::Absent);
    world.apply(world.topic(uid, 1, Life::Pending, 0));
    assert_eq!(world.lookup(), TopicLookup::Pending);
    assert!(matches!(world.apply(world.topic(uid, 2, Life::Active, 3)), Change::Serve(_)));
    assert_eq!(world.active_uid(), Some(uid));
    assert_eq!(world.apply(world.topic(uid, 3, Life::Active, 3)), Change::None, "only labels changed");
    assert!(matches!(world.apply(world.topic(uid, 4, Life::Active, 6)), Change::Serve(t) if t.partitions == 6));
    assert!(matches!(world.apply(world.topic(uid, 5, Life::Gone, 6)), Change::Forget(_)));
    assert_eq!(world.lookup(), TopicLookup::Absent);
}

/// The same record with a placement.
fn placed(mut record: ControlRecord, placement: control::TopicPlacement) -> ControlRecord {
    if let Some(Resource::Topic(topic)) = &mut record.resource {
        topic.placement = Some(placement);
    }
    record
}

#[test]
fn a_topic_is_served_where_its_record_says_that_it_is() {
    let world = World::new();
    let (uid, log) = (TopicUid::random(), LogUid::random());
    world.apply(world.namespace(1, Life::Active));
    let placement = Placement::unmoved(ClusterUid::FIRST, log).record();
    world.apply(placed(world.topic(uid, 1, Life::Active, 3), placement));
    let TopicLookup::Active(topic) = world.lookup() else { panic!("in service") };
    assert_eq!(topic.physical, PhysicalTopic::of_log(world.namespace, log));
    assert_eq!(topic.placement.appends(), (ClusterUid::FIRST, log));
}

#[test]
fn a_topic_on_another_cluster_that_the_gateway_is_configured_for_is_served() {
    let world = World::new();
    let (uid, second) = (TopicUid::random(), ClusterUid::random());
    let served = [ClusterUid::FIRST, second].into_iter().collect();
    world.view.replace(Arc::new(Index::new(TenantLimits::default(), served)));
    world.apply(world.namespace(1, Life::Active));
    let there = Placement::unmoved(second, LogUid::first_of(uid)).record();
    assert!(matches!(world.apply(placed(world.topic(uid, 1, Life::Active, 3), there)), Change::Serve(_)));
    let TopicLookup::Active(topic) = world.lookup() else { panic!("in service") };
    assert_eq!(topic.placement.appends(), (second, LogUid::first_of(uid)));
}

#[test]
fn a_topic_that_went_where_this_gateway_cannot_follow_is_not_served_where_it_was() {
    let (uid, first) = (TopicUid::random(), ClusterUid::FIRST);
    let log = LogUid::first_of(uid);
    let moved = control::TopicPlacement {
        epoch: 1,
        moved: vec![control::PartitionSpans {
            spans: vec![control::TopicSpan {
                start: 0,
                end: None,
                place: Some(control::topic_span::Place::Log(control::LogSpan {
                    cluster_uid: first.to_string(),
                    log_uid: log.to_string(),
                    delta: 0,
                })),
            }],
        }],
        ..Placement::unmoved(first, log).record()
    };
    let elsewhere = Placement::unmoved(ClusterUid::random(), log).record();
    let replaced = Placement::unmoved(first, LogUid::random()).record();
    let unreadable = control::TopicPlacement::default();
    // Those after a placement that was served, and one that is the first that is read.
    let cases = [
        ("the topic has moved", true, moved),
        ("cannot follow", true, replaced),
        ("cannot be understood", true, unreadable),
        ("on a cluster that this gateway is not configured for", false, elsewhere),
    ];
    for (why, was_served, placement) in cases {
        let world = World::new();
        world.apply(world.namespace(1, Life::Active));
        if was_served {
            world.apply(world.topic(uid, 1, Life::Active, 1));
            assert_eq!(world.active_uid(), Some(uid));
        }
        let record = placed(world.topic(uid, 2, Life::Active, 1), placement);
        let value = Bytes::from(record.encode_to_vec());
        let refused = world.view.index().apply_value(&uid.to_string(), value.into()).expect_err(why);
        assert!(refused.what.contains(why), "{why}: {}", refused.what);
        assert_eq!(world.lookup(), TopicLookup::Pending, "{why}");
    }
}

#[test]
fn an_old_record_never_brings_back_what_is_gone() {
    let world = World::new();
    let uid = TopicUid::random();
    world.apply(world.namespace(1, Life::Active));
    let old = world.topic(uid, 2, Life::Active, 1);
    world.apply(world.topic(uid, 3, Life::Gone, 1));
    assert_eq!(world.apply(old), Change::None);
    assert_eq!(world.lookup(), TopicLookup::Absent);
}

#[test]
fn a_name_made_again_is_the_new_life_even_if_the_old_ones_end_comes_late() {
    let world = World::new();
    let (first, second) = (TopicUid::random(), TopicUid::random());
    world.apply(world.namespace(1, Life::Active));
    world.apply(world.topic(first, 1, Life::Active, 1));
    let end = world.topic(first, 2, Life::Gone, 1);
    world.apply(world.topic(second, 1, Life::Active, 1));
    assert_eq!(world.active_uid(), Some(second));
    world.apply(end);
    assert_eq!(world.active_uid(), Some(second));
}

#[test]
fn a_new_life_that_is_being_made_is_not_the_old_one() {
    let world = World::new();
    let (first, second) = (TopicUid::random(), TopicUid::random());
    world.apply(world.namespace(1, Life::Active));
    world.apply(world.topic(first, 1, Life::Active, 1));
    world.apply(world.topic(first, 2, Life::Gone, 1));
    world.apply(world.topic(second, 1, Life::Pending, 0));
    assert_eq!(world.lookup(), TopicLookup::Pending);
}

#[test]
fn a_topic_may_come_before_its_namespace_and_goes_with_it() {
    let world = World::new();
    let uid = TopicUid::random();
    world.apply(world.topic(uid, 1, Life::Active, 1));
    assert_eq!(world.lookup(), TopicLookup::Absent);
    world.apply(world.namespace(1, Life::Active));
    assert_eq!(world.active_uid(), Some(uid));
    world.apply(world.namespace(2, Life::Gone));
    assert_eq!(world.lookup(), TopicLookup::Absent);
}

#[test]
fn a_tombstone_removes_everything_that_is_known() {
    let world = World::new();
    let uid = TopicUid::random();
    world.apply(world.namespace(1, Life::Active));
    world.apply(world.topic(uid, 1, Life::Active, 1));
    assert!(matches!(world.view.index().remove(&uid.to_string()), Change::Forget(_)));
    assert_eq!(world.lookup(), TopicLookup::Absent);
    world.view.index().remove(&world.tenant.to_string());
    assert!(world.view.tenant(world.tenant).expect("its namespace is left").state().is_none());
    world.view.index().remove(&world.namespace.to_string());
    assert!(world.view.tenant(world.tenant).is_none());
}

#[test]
fn keys_and_accounts_keep_their_newest_version() {
    let world = World::new();
    let (key, account) = (KeyUid::random(), AccountUid::random());
    let state = |life: Life| {
        Resource::Key(control::KeyState {
            key_id: key.to_string(),
            account_uid: account.to_string(),
            hash: vec![7; 32].into(),
            life: life.into(),
            expire_time_ms: 0,
        })
    };
    let active = world.record(1, state(Life::Active));
    world.apply(world.record(2, state(Life::Gone)));
    world.apply(active);
    assert!(!world.view.key(key).expect("held").active);
    let grants = vec![
        control::Grant { role: "producer".into(), resource: String::new() },
        control::Grant { role: "of the future".into(), resource: "*".into() },
    ];
    world.apply(world.record(
        1,
        Resource::Account(control::AccountState {
            uid: account.to_string(),
            id: "ci".into(),
            life: Life::Active.into(),
            grants,
        }),
    ));
    let held = world.view.account(account).expect("held");
    assert_eq!(held.grants.len(), 1);
    assert_eq!(held.grants[0].resource, "*");
}

#[test]
fn limits_that_are_not_set_are_the_defaults() {
    let world = World::new();
    world.apply(world.record(
        2,
        Resource::Tenant(control::TenantState {
            uid: world.tenant.to_string(),
            id: "acme".into(),
            life: Life::Active.into(),
            suspended: true,
            limits: Some(control::Limits { ingress_bytes_per_second: 1 << 20, ..Default::default() }),
        }),
    ));
    let tenant = world.view.tenant(world.tenant).expect("held");
    assert!(tenant.state().expect("state").suspended);
    assert_eq!(tenant.limiter.limits().ingress_bytes_per_second, 1 << 20);
    assert_eq!(tenant.limiter.limits().requests_per_second, TenantLimits::default().requests_per_second);
}

#[test]
fn a_record_that_makes_no_sense_changes_nothing() {
    let world = World::new();
    let broken = world.record(1, Resource::Key(control::KeyState { key_id: "x".into(), ..Default::default() }));
    assert!(world.view.index().apply(broken).is_err());
    assert!(world.view.index().apply(ControlRecord::default()).is_err());
}

fn log_of(records: &[ControlRecord]) -> WholeLog<Value> {
    let mut log = WholeLog::default();
    for record in records {
        let value = record.encode_to_vec().into();
        let uid = resource_uid(record).expect("a resource");
        log.see(sluice_control_log::Change::of(uid, 0, Some(&value)).expect("a use for it"));
    }
    log
}

fn tenant_of(world: &World, version: i64, suspended: bool) -> ControlRecord {
    world.record(
        version,
        Resource::Tenant(control::TenantState {
            uid: world.tenant.to_string(),
            id: "acme".into(),
            life: Life::Active.into(),
            suspended,
            ..Default::default()
        }),
    )
}

#[test]
fn another_log_is_adopted_whatever_its_versions_and_who_holds_a_tenants_entry_sees_it() {
    let world = World::new();
    let (kept, lost) = (TopicUid::random(), TopicUid::random());
    world.apply(world.namespace(4, Life::Active));
    world.apply(world.topic(lost, 4, Life::Active, 1));
    let dispatchers = world.view.tenant(world.tenant).expect("held");
    let mut told = dispatchers.changes();
    told.mark_unchanged();

    let records = [tenant_of(&world, 1, true), world.namespace(1, Life::Active), world.topic(kept, 1, Life::Active, 2)];
    let (changes, errors) = world.view.index().adopt(log_of(&records));

    assert!(errors.is_empty());
    assert!(changes.iter().any(|change| matches!(change, Change::Forget(topic) if topic.topic_uid == lost)));
    assert!(changes.iter().any(|change| matches!(change, Change::Serve(topic) if topic.topic_uid == kept)));
    assert_eq!(world.active_uid(), Some(kept));
    assert!(dispatchers.state().expect("state").suspended, "the entry that is held goes on being changed");
    assert!(told.has_changed().expect("open"));
    assert_eq!(world.view.index().len(), 3);
    // And reading goes on from there.
    world.apply(tenant_of(&world, 2, false));
    assert!(!dispatchers.state().expect("state").suspended);
}

#[test]
fn a_log_that_says_the_same_changes_nothing() {
    let world = World::new();
    let uid = TopicUid::random();
    let records = [tenant_of(&world, 2, false), world.namespace(1, Life::Active), world.topic(uid, 1, Life::Active, 2)];
    let apply = |record: &ControlRecord| {
        let uid = resource_uid(record).expect("a resource").to_owned();
        world.view.index().apply_value(&uid, Bytes::from(record.encode_to_vec()).into()).expect("a good record")
    };
    records.iter().for_each(|record| drop(apply(record)));
    let (changes, _) = world.view.index().adopt(log_of(&records));
    assert!(changes.iter().all(|change| *change == Change::None), "{changes:?}");
    assert_eq!(world.active_uid(), Some(uid));
}

#[test]
fn what_this_build_cannot_read_is_kept_for_the_next_one() {
    let world = World::new();
    let index = world.view.index();
    let mut unknown = ControlRecord { version: 3, ..ControlRecord::default() }.encode_to_vec();
    prost::encoding::int64::encode(4_000, &77, &mut unknown);
    let mut newer = world.namespace(5, Life::Active).encode_to_vec();
    prost::encoding::int64::encode(4_000, &77, &mut newer);
    assert!(index.apply_value("of the future", Bytes::from(unknown.clone()).into()).is_err());
    assert!(index.apply_value("not a record", Bytes::from_static(&[0xff]).into()).is_err());
    index.apply_value(&world.namespace.to_string(), Bytes::from(newer.clone()).into()).expect("known but for a field");
    let mut records = index.values();
    records.sort();
    let wanted = [
        (world.namespace.to_string(), newer.into()),
        ("not a record".to_owned(), Bytes::from_static(&[0xff])),
        ("of the future".to_owned(), unknown.into()),
    ];
    let mut wanted = wanted.to_vec();
    wanted.sort();
    assert_eq!(records, wanted, "byte for byte; what a look-up brought is not of the log");
}

#[test]
fn a_record_of_a_look_up_gives_way_to_the_logs_own() {
    let world = World::new();
    let index = world.view.index();
    let record = world.namespace(1, Life::Active);
    index.apply(record.clone()).expect("a good record");
    assert!(index.values().is_empty());
    index.apply_value(&world.namespace.to_string(), Bytes::from(record.encode_to_vec()).into()).expect("a good record");
    assert_eq!(index.values().len(), 1);
}
