//! Records as standard output gets them.

use std::fmt::Write as _;

use sluice_proto::stream::v1::ReceivedRecord;

use crate::args::Output;
use crate::args::consume::Encoding;
use crate::commands::short_topic;
use crate::commands::shown::{Payload, time_member};
use crate::output::printable;

/// How records are written.
#[derive(Clone, Copy)]
pub(in crate::commands) struct Form {
    pub(in crate::commands) output: Output,
    pub(in crate::commands) encoding: Encoding,
    /// With what there is to settle.
    pub(in crate::commands) ids: bool,
}

/// A line; in words two, if there is an id to be copied.
pub(in crate::commands) fn line(form: Form, received: &ReceivedRecord) -> String {
    let mut text = String::new();
    // Writing to a text cannot fail.
    let _ = match form.output {
        Output::Table => words(&mut text, form, received),
        Output::Json => json(&mut text, form, received),
    };
    text
}

fn words(text: &mut String, form: Form, received: &ReceivedRecord) -> std::fmt::Result {
    let record = received.record.clone().unwrap_or_default();
    let payload = Payload::of(&record).encoded(form.encoding);
    let topic = printable(&short_topic(&received.topic));
    write!(text, "{topic}/{}/{}  {}", record.partition, record.offset, payload.time())?;
    if received.attempt > 1 {
        write!(text, "  attempt={}", received.attempt)?;
    }
    writeln!(text, "  {}", payload.words())?;
    if form.ids {
        writeln!(text, "  {}", printable(&received.ack_id))?;
    }
    Ok(())
}

fn json(text: &mut String, form: Form, received: &ReceivedRecord) -> std::fmt::Result {
    let record = received.record.clone().unwrap_or_default();
    let payload = Payload::of(&record).encoded(form.encoding);
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    writeln!(
        text,
        "{{\"topic\":{},\"partition\":{},\"offset\":\"{}\",\"attempt\":{},\"ackId\":{}{}{}{}}}",
        quoted(&received.topic),
        record.partition,
        record.offset,
        received.attempt,
        quoted(&received.ack_id),
        payload.members(),
        time_member("timestamp", record.timestamp.as_ref()),
        time_member("leaseEndTime", received.lease_end_time.as_ref()),
    )
}

#[cfg(test)]
mod tests {
    use sluice_proto::stream::v1::{Record, record};
    use sluice_proto::wkt::Timestamp;

    use super::*;

    fn received() -> ReceivedRecord {
        let record = Record {
            partition: 1,
            offset: 7,
            timestamp: Some(Timestamp::from_millis(0)),
            key_kind: Some(record::KeyKind::Key("k".into())),
            value_kind: Some(record::ValueKind::Value("{\"n\":12345678901234567890}".into())),
            headers: Vec::new(),
            append_time: None,
        };
        ReceivedRecord {
            ack_id: "A-b_c".into(),
            topic: "namespaces/demo/topics/orders".into(),
            record: Some(record),
            attempt: 2,
            lease_end_time: Some(Timestamp::from_millis(30_000)),
        }
    }

    #[test]
    fn a_record_is_one_json_object_with_what_settles_it() {
        let form = Form { output: Output::Json, encoding: Encoding::Json, ids: false };
        assert_eq!(
            line(form, &received()),
            "{\"topic\":\"namespaces/demo/topics/orders\",\"partition\":1,\"offset\":\"7\",\"attempt\":2,\
             \"ackId\":\"A-b_c\",\"keyText\":\"k\",\"valueJson\":{\"n\":12345678901234567890},\"headers\":[],\
             \"timestamp\":\"1970-01-01T00:00:00.000Z\",\"leaseEndTime\":\"1970-01-01T00:00:30.000Z\"}\n"
        );
        let bytes = line(Form { encoding: Encoding::Bytes, ..form }, &received());
        assert!(bytes.contains("\"key\":\"aw==\""), "{bytes}");
    }

    #[test]
    fn in_words_the_id_stands_alone_on_its_line() {
        let form = Form { output: Output::Table, encoding: Encoding::Json, ids: true };
        assert_eq!(
            line(form, &received()),
            "demo/orders/1/7  1970-01-01T00:00:00.000Z  attempt=2  k  {\"n\":12345678901234567890}\n  A-b_c\n"
        );
    }
}
