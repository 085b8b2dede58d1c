//! What is refused, with which field; what an update leaves; what a row means.

use super::*;

fn base() -> Group {
    Group { topics: vec!["namespaces/prod/topics/orders".into()], ..Group::default() }
}

fn made(sent: &Group) -> Result<GroupRow, Error> {
    let row = read(sent, &"billing".parse().expect("id"), &"prod".parse().expect("id"))?;
    check(&row).map(|()| row)
}

fn retry(max_attempts: i32, minimum: Option<i64>, maximum: Option<i64>) -> Option<RetryPolicy> {
    let backoff = |ms: Option<i64>| ms.map(Duration::from_millis);
    Some(RetryPolicy { max_attempts, minimum_backoff: backoff(minimum), maximum_backoff: backoff(maximum) })
}

#[test]
fn every_refusal_names_its_field() {
    let topics = |count: usize| (0..count).map(|i| format!("namespaces/prod/topics/t{i}")).collect::<Vec<_>>();
    let dead = || "namespaces/prod/topics/dead".to_owned();
    let position = |number| Some(Start::StartPosition(number));
    let time = |seconds, nanos| Some(Start::StartTime(Timestamp { seconds, nanos }));
    let deadline = |ms| Some(Duration::from_millis(ms));
    for (field, sent) in [
        ("group.topics", Group::default()),
        ("group.topics", Group { topics: topics(17), ..base() }),
        ("group.topics[1]", Group { topics: [topics(1), topics(1)].concat(), ..base() }),
        ("group.topics[0]", Group { topics: vec!["namespaces/other/topics/a".into()], ..base() }),
        ("group.topics[0]", Group { topics: vec!["orders".into()], ..base() }),
        ("group.topics[0]", Group { topics: vec![String::new()], ..base() }),
        ("group.display_name", Group { display_name: "x".repeat(201), ..base() }),
        ("group.labels", Group { labels: [(String::new(), String::new())].into(), ..base() }),
        ("group.start_position", Group { start: position(3), ..base() }),
        ("group.start_time", Group { start: time(-1, 0), ..base() }),
        ("group.start_time", Group { start: time(1, 1), ..base() }),
        ("group.start_time", Group { start: time(i64::MAX, 0), ..base() }),
        ("group.ordering", Group { ordering: 3, ..base() }),
        ("group.ordering", Group { ordering: -1, ..base() }),
        ("group.ack_deadline", Group { ack_deadline: deadline(9_999), ..base() }),
        ("group.ack_deadline", Group { ack_deadline: deadline(600_001), ..base() }),
        ("group.ack_deadline", Group { ack_deadline: Some(Duration { seconds: 20, nanos: 1 }), ..base() }),
        ("group.dead_letter_topic", Group { dead_letter_topic: "dead".into(), ..base() }),
        ("group.dead_letter_topic", Group { dead_letter_topic: "namespaces/other/topics/dead".into(), ..base() }),
        ("group.dead_letter_topic", Group { dead_letter_topic: base().topics.remove(0), ..base() }),
        ("group.retry_policy.max_attempts", Group { retry_policy: retry(1, None, None), ..base() }),
        (
            "group.retry_policy.max_attempts",
            Group { retry_policy: retry(101, None, None), dead_letter_topic: dead(), ..base() },
        ),
        (
            "group.retry_policy.max_attempts",
            Group { retry_policy: retry(-1, None, None), dead_letter_topic: dead(), ..base() },
        ),
        ("group.retry_policy.minimum_backoff", Group { retry_policy: retry(0, Some(60_001), None), ..base() }),
        ("group.retry_policy.minimum_backoff", Group { retry_policy: retry(0, Some(-1), None), ..base() }),
        ("group.retry_policy.maximum_backoff", Group { retry_policy: retry(0, None, Some(60_001)), ..base() }),
        ("group.retry_policy.maximum_backoff", Group { retry_policy: retry(0, Some(500), Some(499)), ..base() }),
        ("group.retry_policy.maximum_backoff", Group { retry_policy: retry(0, None, Some(1_999)), ..base() }),
    ] {
        let error = made(&sent).expect_err(field);
        assert_eq!(error.field.as_deref(), Some(field), "{}", error.message);
        assert_eq!(error.kind, sluice_types::ErrorKind::InvalidArgument);
    }
    for sent in [
        Group { topics: topics(16), ..base() },
        Group { ack_deadline: deadline(10_000), ..base() },
        Group { ack_deadline: deadline(600_000), ..base() },
        Group { retry_policy: retry(100, Some(0), Some(0)), dead_letter_topic: dead(), ..base() },
        Group { retry_policy: retry(0, Some(60_000), None), ..base() },
        Group { start: time(0, 0), ordering: 2, ..base() },
    ] {
        assert!(made(&sent).is_ok(), "{sent:?}");
    }
}

#[test]
fn defaults_stand_in_for_what_is_absent() {
    let plain = effective(&made(&base()).expect("plain"));
    let expected = Effective {
        start: Beginning::Earliest,
        key_ordered: true,
        ack_deadline_ms: 30_000,
        max_attempts: 0,
        minimum_backoff_ms: 2_000,
        maximum_backoff_ms: 60_000,
    };
    assert_eq!(plain, expected);
    let dead = Group { dead_letter_topic: "namespaces/prod/topics/dead".into(), ..base() };
    assert_eq!(effective(&made(&dead).expect("dead")).max_attempts, 5);
    let latest = Group { start: Some(Start::StartPosition(StartPosition::Latest as i32)), ordering: 2, ..base() };
    let latest = effective(&made(&latest).expect("latest"));
    assert_eq!((latest.start, latest.key_ordered), (Beginning::Latest, false));
}

#[test]
fn an_update_changes_what_its_mask_names_and_no_rule_of_the_whole() {
    let dead = || "namespaces/prod/topics/dead".to_owned();
    let old = made(&Group { retry_policy: retry(3, None, None), dead_letter_topic: dead(), ..base() }).expect("old");
    let sent = |group: &Group| read(group, &"billing".parse().expect("id"), &"prod".parse().expect("id"));
    let body = sent(&Group { display_name: "x".into(), ack_deadline: Some(Duration::from_millis(60_000)), ..base() });
    let body = body.expect("body");
    let now = update(&old, &body, &["ack_deadline"]).expect("update");
    assert_eq!((now.ack_deadline_ms, now.display_name.as_str()), (Some(60_000), ""));
    assert_eq!((now.uid, &now.dead_letter_topic_id), (old.uid, &old.dead_letter_topic_id));
    // Taken away, the dead-letter topic leaves a number of attempts without a meaning.
    let error = update(&old, &body, &["dead_letter_topic"]).expect_err("attempts");
    assert_eq!(error.field.as_deref(), Some("group.retry_policy.max_attempts"));
    assert!(update(&old, &body, &["dead_letter_topic", "retry_policy"]).is_ok());
    let none = sent(&Group::default()).expect("empty body");
    assert_eq!(update(&old, &none, &["topics"]).expect_err("topics").field.as_deref(), Some("group.topics"));
}

#[test]
fn start_and_ordering_stay_but_may_be_repeated() {
    let old = made(&base()).expect("old");
    let start = |start| Group { start: Some(start), ..Group::default() };
    let position = |position: StartPosition| start(Start::StartPosition(position as i32));
    let ordering = |ordering: Ordering| Group { ordering: ordering as i32, ..Group::default() };
    let id = "billing".parse().expect("id");
    for (sent, refused) in [
        (Group::default(), None),
        (position(StartPosition::Unspecified), None),
        (position(StartPosition::Earliest), None),
        (position(StartPosition::Latest), Some("group.start_position")),
        (start(Start::StartTime(Timestamp::from_millis(1))), Some("group.start_time")),
        (ordering(Ordering::Key), None),
        (ordering(Ordering::None), Some("group.ordering")),
    ] {
        let body = read(&sent, &id, &"prod".parse().expect("id")).expect("body");
        let error = update(&old, &body, &[]).err();
        assert_eq!(error.as_ref().and_then(|error| error.field.as_deref()), refused, "{sent:?}");
    }
}
