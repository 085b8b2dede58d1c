//! `sluice groups dead-letters`: look at records that a group gave up, and publish them once more.

use std::io::Write;

use anyhow::{Context, Result, bail};
use sluice_proto::stream::v1::consumer_service_client::ConsumerServiceClient;
use sluice_proto::stream::v1::{
    DeadLetter, ListDeadLettersRequest, ListDeadLettersResponse, PartitionFailure, PayloadEncoding,
    RedriveDeadLettersRequest, RedriveDeadLettersResponse,
};
use tonic::transport::Channel;

use super::{last_part, while_moving};
use crate::args::groups::DeadLetters;
use crate::args::{Global, Output};
use crate::commands::shown::Payload;
use crate::connect::Session;
use crate::failure::Interrupted;
use crate::output::printable;
use crate::{output, when};

/// Ids of one call.
const IDS_MAX: usize = 1_000;
/// Calls that redrove nothing though something was left, before we give up.
const IDLE_CALLS_MAX: u32 = 5;

pub(super) async fn run(global: &Global, session: &Session, command: DeadLetters) -> Result<()> {
    let client = ConsumerServiceClient::new(session.channel.clone());
    let calls = Calls { global, session, client };
    match command {
        DeadLetters::List { name, page } => {
            let Found { letters, failures } = calls.list(name.full()?, page.limit as usize).await?;
            if global.output == Output::Json {
                let objects: Vec<_> = letters.iter().map(json).collect();
                let failed = serde_json::to_string(&failures)?;
                writeln!(std::io::stdout(), "{{\"deadLetters\":[{}],\"failures\":{failed}}}", objects.join(",\n"))?;
            } else {
                let columns = ["id", "from", "attempts", "given up", "key", "reason"];
                writeln!(std::io::stdout(), "{}", output::table(&columns, letters.iter().map(row)))?;
            }
            all_read(&failures)
        }
        DeadLetters::Show { name, id } => {
            let found = calls.find(name.full()?, &id).await?;
            match global.output {
                Output::Json => writeln!(std::io::stdout(), "{}", json(&found))?,
                Output::Table => write!(std::io::stdout(), "{}", output::pairs(&pairs(&found)))?,
            }
            Ok(())
        }
        DeadLetters::Redrive { name, ids, all, dry_run } => calls.redrive(name.full()?, ids, all, dry_run).await,
    }
}

/// Letters, and the partitions of the dead-letter topic that could not be read.
#[derive(Default)]
struct Found {
    letters: Vec<DeadLetter>,
    failures: Vec<PartitionFailure>,
}

struct Calls<'a> {
    global: &'a Global,
    session: &'a Session,
    client: ConsumerServiceClient<Channel>,
}

impl Calls<'_> {
    async fn page(&self, group: &str, page_size: usize, page_token: String) -> Result<ListDeadLettersResponse> {
        let request = ListDeadLettersRequest {
            group: group.to_owned(),
            page_size: page_size.min(1_000) as i32,
            page_token,
            encoding: PayloadEncoding::Bytes.into(),
        };
        while_moving(self.global, self.session, &request, |request| {
            let mut client = self.client.clone();
            async move { client.list_dead_letters(request).await }
        })
        .await
    }

    async fn list(&self, group: String, limit: usize) -> Result<Found> {
        let mut found = Found::default();
        let mut token = String::new();
        loop {
            let page = self.page(&group, limit - found.letters.len(), token).await?;
            found.letters.extend(page.dead_letters);
            found.failures.extend(page.failures);
            token = page.next_page_token;
            if token.is_empty() || found.letters.len() >= limit {
                break;
            }
        }
        if !token.is_empty() {
            output::note(
                self.global,
                &format!("note: there may be more than {limit}; --limit sets how many are shown"),
            );
        }
        Ok(found)
    }

    async fn find(&self, group: String, id: &str) -> Result<DeadLetter> {
        let mut token = String::new();
        let mut failures = Vec::new();
        loop {
            let page = self.page(&group, 1_000, token).await?;
            failures.extend(page.failures);
            if let Some(found) = page.dead_letters.into_iter().find(|letter| letter.id == id) {
                return Ok(found);
            }
            token = page.next_page_token;
            if token.is_empty() {
                all_read(&failures)?;
                bail!("{id} is no dead letter of the group: never, or redriven since; `list` shows those that are");
            }
        }
    }

    async fn redrive(&self, group: String, ids: Vec<String>, all: bool, dry_run: bool) -> Result<()> {
        let asked = ids.len() as u64;
        let template = RedriveDeadLettersRequest { group, all, dry_run, ids: Vec::new() };
        let mut requests: Vec<_> = ids
            .chunks(IDS_MAX)
            .map(|ids| RedriveDeadLettersRequest { ids: ids.to_vec(), ..template.clone() })
            .collect();
        if all {
            requests.push(template);
        }
        let bar = output::progress(self.global, if dry_run { "found" } else { "redriven" });
        let mut total = RedriveDeadLettersResponse::default();
        let mut failure = None;
        'requests: for request in requests {
            let (mut idle, mut failures) = (0, Vec::new());
            loop {
                // A call that was begun is waited for, so that the count is true.
                let mut call = std::pin::pin!(self.call(&request));
                let mut interrupted = false;
                let answer = loop {
                    tokio::select! {
                        answer = &mut call => break answer,
                        signal = tokio::signal::ctrl_c(), if !interrupted => {
                            signal.context("listen for Ctrl-C")?;
                            interrupted = true;
                        }
                    }
                };
                match answer {
                    Ok(answer) => {
                        total.redriven += answer.redriven;
                        total.remaining = answer.remaining;
                        failures = answer.failures;
                        bar.set_position(total.redriven.unsigned_abs());
                        idle = if answer.redriven == 0 { idle + 1 } else { 0 };
                    }
                    Err(error) => failure = Some(error),
                }
                if interrupted && failure.is_none() {
                    failure = Some(Interrupted.into());
                }
                if failure.is_some() {
                    break 'requests;
                }
                // A dry run would only tell the same once more.
                if !total.remaining || dry_run {
                    break;
                }
                if idle >= IDLE_CALLS_MAX && !failures.is_empty() {
                    break;
                }
                if idle >= IDLE_CALLS_MAX {
                    failure = Some(anyhow::anyhow!("some are left that cannot be redriven now; try again"));
                    break 'requests;
                }
            }
            let is_new =
                |failure: &PartitionFailure| !total.failures.iter().any(|known| known.partition == failure.partition);
            failures.retain(is_new);
            total.failures.append(&mut failures);
        }
        bar.finish_and_clear();
        self.report(&total, dry_run, (!all).then_some(asked))?;
        failure.map_or_else(|| all_read(&total.failures), Err)
    }

    async fn call(&self, request: &RedriveDeadLettersRequest) -> Result<RedriveDeadLettersResponse> {
        while_moving(self.global, self.session, request, |request| {
            let mut client = self.client.clone();
            async move { client.redrive_dead_letters(request).await }
        })
        .await
    }

    fn report(&self, total: &RedriveDeadLettersResponse, dry_run: bool, asked: Option<u64>) -> Result<()> {
        if self.global.output == Output::Json {
            writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(total)?)?;
            return Ok(());
        }
        let count = total.redriven.unsigned_abs();
        let more = if total.remaining && dry_run { " or more" } else { "" };
        let verb = if dry_run { "would be redriven" } else { "redriven" };
        writeln!(std::io::stdout(), "{}{more} {verb}", output::records(count))?;
        if let Some(left) =
            asked.map(|asked| asked.saturating_sub(count)).filter(|left| *left > 0 && total.failures.is_empty())
        {
            output::note(
                self.global,
                &format!("note: {left} of the ids: redriven before, or no dead letter of the group"),
            );
        }
        Ok(())
    }
}

/// What is known was shown; the command fails if a partition could not be read.
fn all_read(failures: &[PartitionFailure]) -> Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    let why = |failure: &PartitionFailure| {
        let message = failure.error.as_ref().map_or("unknown", |error| &*error.message);
        format!("{}: {message}", failure.partition)
    };
    let partitions: Vec<String> = failures.iter().map(why).collect();
    bail!("dead letters of these partitions could not be read; try again later\n  {}", partitions.join("\n  "))
}

fn origin(letter: &DeadLetter) -> String {
    let topic = printable(last_part(&letter.topic));
    letter.record.as_ref().map_or(topic.clone(), |record| format!("{topic}/{}/{}", record.partition, record.offset))
}

fn row(letter: &DeadLetter) -> Vec<String> {
    let key = letter.record.as_ref().map_or("-".into(), |record| Payload::of(record).key_words());
    vec![
        letter.id.clone(),
        origin(letter),
        letter.attempts.to_string(),
        when::shown(letter.dead_letter_time.as_ref()),
        key,
        letter.reason.clone(),
    ]
}

fn pairs(letter: &DeadLetter) -> Vec<(&'static str, String)> {
    let mut pairs = vec![
        ("id", letter.id.clone()),
        ("from", origin(letter)),
        ("attempts", letter.attempts.to_string()),
        ("reason", letter.reason.clone()),
        ("first delivered", when::shown(letter.first_delivery_time.as_ref())),
        ("given up", when::shown(letter.dead_letter_time.as_ref())),
    ];
    if let Some(record) = &letter.record {
        pairs.push(("published", Payload::of(record).time()));
        pairs.push(("record", Payload::of(record).words()));
    }
    pairs
}

/// As the HTTP API has it, on one line.
fn json(letter: &DeadLetter) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let time = |name: &str, time: Option<&sluice_proto::wkt::Timestamp>| {
        time.map_or(String::new(), |time| format!(",\"{name}\":\"{}\"", when::shown(Some(time))))
    };
    let record =
        letter.record.as_ref().map_or(String::new(), |record| format!(",\"record\":{}", Payload::of(record).json()));
    format!(
        "{{\"id\":{}{record},\"topic\":{},\"attempts\":{},\"reason\":{}{}{}}}",
        text(&letter.id),
        text(&letter.topic),
        letter.attempts,
        text(&letter.reason),
        time("firstDeliveryTime", letter.first_delivery_time.as_ref()),
        time("deadLetterTime", letter.dead_letter_time.as_ref()),
    )
}

#[cfg(test)]
mod tests {
    use sluice_proto::stream::v1::{Record, record};
    use sluice_proto::wkt::Timestamp;

    use super::*;

    fn letter() -> DeadLetter {
        DeadLetter {
            id: "0-17".into(),
            record: Some(Record {
                partition: 3,
                offset: 42,
                value_kind: Some(record::ValueKind::Value("{\"id\":12345678901234567890}".into())),
                ..Default::default()
            }),
            topic: "namespaces/demo/topics/orders".into(),
            attempts: 5,
            reason: "no \"stock\"\u{1b}[2J".into(),
            first_delivery_time: None,
            dead_letter_time: Some(Timestamp::from_millis(0)),
        }
    }

    #[test]
    fn a_dead_letter_shows_where_it_came_from_and_why() {
        assert_eq!(row(&letter())[..3], ["0-17", "orders/3/42", "5"]);
        let text = output::pairs(&pairs(&letter()));
        assert!(text.contains("12345678901234567890") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn its_json_is_whole_and_keeps_numbers() {
        let text = json(&letter());
        assert!(text.contains("\"valueJson\":{\"id\":12345678901234567890}"), "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!((&value["record"]["offset"], &value["attempts"]), (&"42".into(), &5.into()));
        assert_eq!(value["deadLetterTime"], "1970-01-01T00:00:00.000Z");
    }
}
