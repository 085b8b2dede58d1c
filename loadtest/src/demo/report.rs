//! The table, and what differs.

use comfy_table::{Table, presets};

use super::Seen;

/// A column per tenant, a row per count.
pub(crate) fn table(seen: &[Seen]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(std::iter::once("").chain(seen.iter().map(|seen| seen.tenant.as_str())));
    for (name, count) in ROWS {
        table.add_row(std::iter::once((*name).to_owned()).chain(seen.iter().map(count)));
    }
    table.to_string()
}

/// Everything that is not as it must be.
pub(crate) fn differences(seen: &Seen) -> Vec<String> {
    let tenant = &seen.tenant;
    let mut found = Vec::new();
    let mut same = |what: &str, wanted: u128, got: u128| {
        if wanted != got {
            found.push(format!("{tenant}: {what}: {got} instead of {wanted}"));
        }
    };
    let sent = &seen.sent;
    same("records persisted", sent.records.into(), seen.published.persisted.into());
    same("records not persisted", 0, seen.published.not_persisted.into());
    same("records possibly persisted", 0, seen.published.possibly.into());
    for (who, digest) in [("read back through the API", &seen.read_back.digest), ("read from Kafka", &seen.kafka)] {
        same(&format!("records {who}"), sent.records.into(), digest.records.into());
        same(&format!("bytes {who}"), sent.bytes.into(), digest.bytes.into());
        same(&format!("checksum {who}"), sent.sum, digest.sum);
    }
    same("inversions of order per key", 0, seen.read_back.inversions.into());
    let grouped = &seen.grouped;
    same("records delivered to the group", sent.records.into(), grouped.delivered.records.into());
    same("checksum delivered to the group", sent.sum, grouped.delivered.sum);
    same("records acknowledged", sent.records.into(), grouped.acked.into());
    same("deliveries after an acknowledgement", 0, grouped.after_ack.into());
    same("inversions of order per key in the group", 0, grouped.inversions.into());
    same("lag of the group", 0, grouped.lag.unsigned_abs().into());
    same("records billed", sent.records.into(), seen.billed_records.into());
    same("bytes billed", sent.bytes.into(), seen.billed_bytes.into());
    same("offsets not billed", 0, seen.uncovered.into());
    found
}

type Count = fn(&Seen) -> String;

const ROWS: &[(&str, Count)] = &[
    ("events sent", |seen| number(seen.sent.records)),
    ("  without a key", |seen| number(seen.without_key)),
    ("answered PERSISTED", |seen| number(seen.published.persisted)),
    ("answered NOT_PERSISTED", |seen| number(seen.published.not_persisted)),
    ("answered POSSIBLY_PERSISTED", |seen| number(seen.published.possibly)),
    ("calls refused by a limit, repeated", |seen| number(seen.published.refused_and_repeated)),
    ("read back through the API", |seen| number(seen.read_back.digest.records)),
    ("  keys", |seen| number(seen.read_back.keys)),
    ("  inversions of order per key", |seen| number(seen.read_back.inversions)),
    ("delivered to the group", |seen| number(seen.grouped.delivered.records)),
    ("  of these over gRPC Consume", |seen| number(seen.grouped.by_stream)),
    ("  delivered again", |seen| number(seen.grouped.redelivered)),
    ("  after their acknowledgement", |seen| number(seen.grouped.after_ack)),
    ("  inversions of order per key", |seen| number(seen.grouped.inversions)),
    ("acknowledged", |seen| number(seen.grouped.acked)),
    ("lag at the end", |seen| seen.grouped.lag.to_string()),
    ("dispatcher killed, next record after", |seen| {
        seen.grouped.takeover.map_or_else(|| "-".to_owned(), |took| format!("{:.2} s", took.as_secs_f64()))
    }),
    ("billed records", |seen| number(seen.billed_records)),
    ("billed offsets missing", |seen| number(seen.uncovered)),
    ("in Kafka, read directly", |seen| number(seen.kafka.records)),
    ("bytes sent", |seen| number(seen.sent.bytes)),
    ("bytes read back", |seen| number(seen.read_back.digest.bytes)),
    ("bytes billed", |seen| number(seen.billed_bytes)),
    ("bytes in Kafka, read directly", |seen| number(seen.kafka.bytes)),
    ("checksum sent", |seen| format!("{:016x}", seen.sent.sum >> 64)),
    ("checksum read back", |seen| format!("{:016x}", seen.read_back.digest.sum >> 64)),
    ("checksum in Kafka", |seen| format!("{:016x}", seen.kafka.sum >> 64)),
];

fn number(count: u64) -> String {
    indicatif::HumanCount(count).to_string()
}
