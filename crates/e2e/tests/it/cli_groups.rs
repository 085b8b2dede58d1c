//! Consumer groups through the real `sluice`: made, consumed from, explained, reset, redriven.

mod giving_back;
mod stopped;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sluice_e2e::{Installation, Options, wait};
use sluiced::role::Role;

use crate::program::Sluice;

const LONG: Duration = Duration::from_secs(30);

/// Two gateways, a tenant, and its `sluice` at either.
async fn installation() -> Result<(Installation, Sluice, Sluice)> {
    installation_with("").await
}

/// The same with these lines in the gateways' configuration.
async fn installation_with(lines: &str) -> Result<(Installation, Sluice, Sluice)> {
    let extra = vec![(Role::Gateway, lines.to_owned())];
    let it = Installation::start(Options { gateways: 2, extra, ..Options::default() }).await?;
    let tenant = it.tenant("acme").await?;
    let at = |gateway: usize| -> Result<Sluice> {
        Ok(Sluice::new(&it.local.dir)?
            .env("SLUICE_URL", &format!("http://{}", it.gateway(gateway)))
            .env("SLUICE_API_KEY", &tenant.key))
    };
    let (one, two) = (at(0)?, at(1)?);
    one.done(&["namespaces", "create", "prod"])?;
    one.done(&["topics", "create", "prod/orders", "-p", "3"])?;
    Ok((it, one, two))
}

fn publish(sluice: &Sluice, topic: &str, range: std::ops::Range<u32>) -> Result<()> {
    let lines: String = range.map(|i| format!("key-{}:{i}\n", i % 10)).collect();
    let output = sluice.with_input(lines.as_bytes(), &["produce", topic, "--key-separator", ":"])?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

fn values(lines: &str) -> Result<Vec<u32>> {
    lines.lines().map(value_of).collect()
}

/// The number in a record.
fn value_of(line: &str) -> Result<u32> {
    let record: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
    let value = record["valueJson"].as_u64().with_context(|| line.to_owned())?;
    Ok(u32::try_from(value)?)
}

/// A consumer that runs.
struct Consumer {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    notes: Receiver<String>,
}

impl Consumer {
    fn start(sluice: &Sluice, args: &[&str]) -> Result<Self> {
        let args = [&["consume", "--output", "json"], args].concat();
        let mut child = sluice.command(&args).stdin(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let lines = lines_of(child.stdout.take().context("its output")?);
        let notes = lines_of(child.stderr.take().context("its notes")?);
        Ok(Self { child, input, lines, notes })
    }

    /// The next record.
    fn record(&self) -> Result<Value> {
        let line = tokio::task::block_in_place(|| self.lines.recv_timeout(LONG)).context("a record")?;
        serde_json::from_str(&line).context(line)
    }

    fn say(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.input.as_mut().context("its input")?, "{line}")?)
    }

    /// A note with these words; those before it are passed over.
    fn note(&self, words: &str) -> Result<String> {
        tokio::task::block_in_place(|| {
            loop {
                let note = self.notes.recv_timeout(LONG).with_context(|| format!("a note with {words:?}"))?;
                if note.contains(words) {
                    return Ok(note);
                }
            }
        })
    }

    /// Asks it to stop: its exit code, and what it had still to say.
    fn interrupt(mut self) -> Result<(i32, String, String)> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGINT)?;
        let status = tokio::task::block_in_place(|| self.child.wait())?;
        let rest = |lines: &Receiver<String>| lines.iter().map(|line| line + "\n").collect::<String>();
        Ok((status.code().context("its exit code")?, rest(&self.lines), rest(&self.notes)))
    }
}

impl Drop for Consumer {
    /// A test that fails leaves none behind.
    fn drop(&mut self) {
        // It has ended already if the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    receiver
}

fn id(record: &Value) -> Result<&str> {
    record["ackId"].as_str().context("its ack id")
}

/// Waits until the status says that nothing is left to be done.
async fn all_done(sluice: &Sluice, group: &str) -> Result<()> {
    wait::until("all is done", LONG, async || {
        let lag = sluice.json(&["groups", "describe", group])?["status"]["lag"].clone();
        // 64-bit numbers are strings, and nothing at all when they are 0.
        Ok((lag.is_null() || lag == "0").then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_from_its_birth_to_its_end() -> Result<()> {
    let (it, sluice, other) = installation().await?;
    for topic in ["prod/refunds", "prod/dead"] {
        sluice.done(&["topics", "create", topic])?;
    }
    let create = ["groups", "create", "prod/billing", "--topic", "orders"];
    let policy = ["--dead-letter-topic", "dead", "--max-attempts", "3", "--ack-deadline", "20s", "--label", "team=a"];
    let group = sluice.json(&[&create[..], &policy].concat())?;
    ensure!(group["name"] == "namespaces/prod/groups/billing" && group["ackDeadline"] == "20s", "{group}");
    ensure!(group["retryPolicy"]["maxAttempts"] == 3, "{group}");
    let list = other.json(&["groups", "list", "prod"])?;
    ensure!(list["groups"][0]["uid"] == group["uid"], "{list}");

    let update = ["groups", "update", "prod/billing", "--add-topic", "refunds", "--min-backoff", "1s"];
    let group = other.json(&[&update[..], &["--label", "tier=1"]].concat())?;
    ensure!(group["topics"].as_array().map(Vec::len) == Some(2), "{group}");
    ensure!(group["retryPolicy"] == serde_json::json!({"maxAttempts": 3, "minimumBackoff": "1s"}), "{group}");
    ensure!(group["labels"] == serde_json::json!({"team": "a", "tier": "1"}), "{group}");

    let described = sluice.clone().env("SLUICE_NAMESPACE", "prod").done(&["groups", "describe", "billing"])?;
    for words in ["orders refunds", "3 deliveries, then to dead", "nobody consumes", "PART"] {
        ensure!(described.contains(words), "{words:?}: {described}");
    }
    ensure!(described.lines().all(|line| line.chars().count() <= 120), "{described}");
    let explained = sluice.done(&["groups", "explain", "prod/billing"])?;
    ensure!(explained.contains("nobody consumes"), "{explained}");

    for (args, code, words) in [
        (vec!["groups", "create", "billing", "--topic", "orders"], 2, "--namespace"),
        (vec!["groups", "create", "prod/billing", "--topic", "orders"], 1, "exists already"),
        (vec!["groups", "create", "prod/x", "--topic", "nope"], 1, "namespaces/prod/topics/nope"),
        (vec!["groups", "create", "prod/x", "--topic", "orders", "--max-attempts", "3"], 2, "--dead-letter-topic"),
        (vec!["groups", "create", "prod/x", "--topic", "orders", "--ack-deadline", "1s"], 1, "ack_deadline"),
        (vec!["groups", "create", "prod/x"], 2, "--topic"),
        (vec!["groups", "describe", "prod/nope"], 1, "namespaces/prod/groups/nope does not exist"),
        (vec!["groups", "explain", "prod/nope"], 1, "namespaces/prod/groups/nope does not exist"),
        (vec!["groups", "update", "prod/billing", "--remove-topic", "nope"], 2, "--remove-topic"),
        (vec!["groups", "reset", "prod/billing", "--to", "earliest", "--topic", "dead"], 1, "not one of the group's"),
        (vec!["groups", "dead-letters", "show", "prod/billing", "0-7"], 1, "0-7"),
        (vec!["groups", "delete", "prod/billing"], 2, "--yes"),
        (vec!["consume", "--group", "prod/nope"], 1, "namespaces/prod/groups/nope does not exist"),
        (vec!["consume", "--group", "prod/nope"], 1, "--topic"),
        (vec!["groups", "reset", "prod/billing", "--to", "1764500000"], 1, "2025-11-30T10:53:20"),
        (vec!["groups", "reset", "prod/billing", "--to", "1"], 1, "beyond the end"),
        (vec!["consume", "--group", "nope"], 2, "--group"),
        (vec!["consume", "--group", "prod/billing", "--url", "http://127.0.0.1:1"], 1, "no connection"),
    ] {
        let text = sluice.refused(code, &args)?;
        ensure!(text.contains(words), "{args:?}: {text}");
    }

    other.done(&["groups", "delete", "prod/billing", "--yes"])?;
    ensure!(sluice.refused(1, &["groups", "describe", "prod/billing"])?.contains("does not exist"), "deleted");
    sluice.done(&["groups", "delete", "prod/billing", "--yes", "--allow-missing"])?;
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_acknowledged_after_they_were_written() -> Result<()> {
    let (it, one, two) = installation().await?;
    publish(&one, "prod/orders", 0..1_000)?;

    // The group is made on first use. `--max` is exact, and leaves the rest to others, at any gateway, by either transport.
    let first = one.done(&["consume", "--group", "prod/billing", "--topic", "orders", "--max", "300", "-o", "json"])?;
    let second = two.done(&["consume", "--group", "prod/billing", "--max", "200", "-o", "json"])?;
    let pull = ["consume", "--group", "prod/billing", "--transport", "pull", "-o", "json"];
    let third = one.done(&[&pull[..], &["--max", "300"]].concat())?;
    let fourth = two.done(&[&pull[..], &["--max", "200", "--credit", "7"]].concat())?;
    let mut seen = BTreeSet::new();
    for (lines, count) in [(&first, 300), (&second, 200), (&third, 300), (&fourth, 200)] {
        let values = values(lines)?;
        ensure!(values.len() == count, "{} instead of {count}", values.len());
        seen.extend(values);
    }
    ensure!(seen.len() == 1_000, "{} of 1000: some came twice, and others not", seen.len());
    all_done(&one, "prod/billing").await?;
    let record: Value = serde_json::from_str(first.lines().next().context("a record")?)?;
    for field in ["topic", "partition", "offset", "attempt", "ackId", "headers", "timestamp", "leaseEndTime", "keyText"]
    {
        ensure!(!record[field].is_null(), "{field} is missing: {record}");
    }

    // As it comes; Ctrl-C ends well, and what was written is done.
    let consumer = Consumer::start(&two, &["--group", "prod/billing", "--verbose"])?;
    let mut came = Vec::new();
    for i in 1_000..1_010 {
        publish(&one, "prod/orders", i..i + 1)?;
        came.push(value_of(&consumer.record()?.to_string())?);
    }
    ensure!(came == (1_000..1_010).collect::<Vec<_>>(), "{came:?}");
    consumer.note("no records")?;
    let (code, rest, notes) = consumer.interrupt()?;
    ensure!(code == 0 && rest.is_empty(), "{code}: {rest}");
    ensure!(notes.contains("10 records written, 10 acknowledged"), "{notes}");
    all_done(&one, "prod/billing").await?;

    // A reader that has seen enough takes what it read and no more.
    publish(&one, "prod/orders", 2_000..2_100)?;
    let mut child = one.command(&["consume", "--group", "prod/billing", "-o", "json"]).spawn()?;
    let mut output = child.stdout.take().context("its output")?;
    let (mut lines, mut byte) = (0, [0]);
    while lines < 3 {
        output.read_exact(&mut byte)?;
        lines += u32::from(byte == *b"\n");
    }
    drop(output);
    let ended = tokio::task::block_in_place(|| child.wait_with_output())?;
    let notes = String::from_utf8(ended.stderr)?;
    ensure!(ended.status.success() && notes.contains("3 records written, 3 acknowledged"), "{notes}");
    // Nor does it leave records on their way to it, which would hold their keys up until their leases end.
    let status = one.json(&["groups", "describe", "prod/billing"])?;
    let partitions = status["status"]["partitions"].as_array().context("partitions")?;
    let out = |partition: &Value| {
        let out = &partition["outstandingRecords"];
        out.as_i64().or_else(|| out.as_str()?.parse().ok()).unwrap_or_default()
    };
    ensure!(partitions.iter().map(out).sum::<i64>() == 0, "{status}");
    let rest = two.done(&["consume", "--group", "prod/billing", "--max", "97", "-o", "json"])?;
    let rest: BTreeSet<u32> = values(&rest)?.into_iter().collect();
    ensure!(rest.len() == 97, "{} of the 97 others", rest.len());
    all_done(&one, "prod/billing").await?;

    // In words, with another encoding.
    publish(&one, "prod/orders", 5_000..5_001)?;
    let words = one.done(&["consume", "--group", "prod/billing", "--max", "1", "--encoding", "bytes"])?;
    ensure!(words.starts_with("prod/orders/") && words.contains("base64:NTAwMA=="), "{words}");
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn by_hand_records_are_acknowledged_refused_extended_and_given_up() -> Result<()> {
    let (it, one, two) = installation().await?;
    one.done(&["topics", "create", "prod/dead"])?;
    let create = ["groups", "create", "prod/billing", "--topic", "orders", "--dead-letter-topic", "dead"];
    one.done(&[&create[..], &["--max-attempts", "2", "--min-backoff", "0s", "--ack-deadline", "10s"]].concat())?;
    publish(&one, "prod/orders", 0..3)?;

    let mut consumer = Consumer::start(&two, &["--group", "prod/billing", "--manual"])?;
    let mut records = BTreeMap::new();
    for _ in 0..3 {
        let record = consumer.record()?;
        records.insert(value_of(&record.to_string())?, record);
    }
    let explained = one.done(&["groups", "explain", "prod/billing"])?;
    ensure!(explained.contains("acknowledge"), "{explained}");
    let status = one.json(&["groups", "describe", "prod/billing"])?;
    ensure!(status["status"]["consumers"][0]["kind"] == "CONSUME", "{status}");

    consumer.say(&format!("ack {}", id(&records[&0])?))?;
    consumer.note("ack OK")?;
    consumer.say(&format!("extend {} 1m", id(&records[&1])?))?;
    consumer.note("extend OK")?;
    consumer.say("acknowledge it")?;
    consumer.note("is no order")?;
    consumer.say("ack nonsense")?;
    consumer.note("ack INVALID nonsense")?;
    // Settled twice is settled; once refused it comes again, and then it is dead.
    consumer.say(&format!("ack {}", id(&records[&0])?))?;
    consumer.note("ack OK")?;
    consumer.say(&format!("nack {} 0s : out of stock", id(&records[&2])?))?;
    consumer.note("nack OK")?;
    let again = consumer.record()?;
    ensure!(value_of(&again.to_string())? == 2 && again["attempt"] == 2, "{again}");
    consumer.say(&format!("ack {}", id(&records[&2])?))?;
    consumer.note("ack STALE_LEASE")?;
    consumer.say(&format!("nack {} : still out of stock", id(&again)?))?;
    consumer.note("nack OK")?;
    consumer.say(&format!("ack {}", id(&records[&1])?))?;
    consumer.note("ack OK")?;

    let dead = ["groups", "dead-letters"];
    let letter = wait::until("the dead letter", LONG, async || {
        let list = one.json(&[&dead[..], &["list", "prod/billing"]].concat())?;
        Ok(list["deadLetters"].get(0).cloned())
    })
    .await?;
    ensure!(letter["reason"] == "still out of stock" && letter["attempts"] == 2, "{letter}");
    ensure!(letter["record"]["offset"] == records[&2]["offset"] && letter["record"]["valueJson"] == 2, "{letter}");
    let name = letter["id"].as_str().context("its id")?;
    let shown = two.done(&[&dead[..], &["show", "prod/billing", name]].concat())?;
    ensure!(shown.contains("still out of stock") && shown.contains("given up"), "{shown}");
    ensure!(two.done(&[&dead[..], &["list", "prod/billing"]].concat())?.contains(name), "the table");

    // Only told, then done, and then there is nothing more to do.
    for (args, words) in [
        (vec!["redrive", "prod/billing", "--all", "--dry-run"], "1 record would be redriven"),
        (vec!["redrive", "prod/billing", name], "1 record redriven"),
        (vec!["redrive", "prod/billing", "--all"], "0 records redriven"),
    ] {
        let text = two.done(&[&dead[..], &args].concat())?;
        ensure!(text.contains(words), "{args:?}: {text}");
    }
    let redriven = consumer.record()?;
    ensure!(value_of(&redriven.to_string())? == 2 && redriven["attempt"] == 1, "{redriven}");
    consumer.say(&format!("ack {}", id(&redriven)?))?;
    consumer.note("ack OK")?;
    let (code, rest, _) = consumer.interrupt()?;
    ensure!(code == 0 && rest.is_empty(), "{code}: {rest}");
    all_done(&one, "prod/billing").await?;
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_moved_when_nobody_consumes_or_by_force() -> Result<()> {
    let (it, one, two) = installation().await?;
    publish(&one, "prod/orders", 0..30)?;
    one.done(&["consume", "--group", "prod/billing", "--topic", "orders", "--max", "30"])?;
    all_done(&one, "prod/billing").await?;

    let reset = ["groups", "reset", "prod/billing", "--to"];
    let moves = two.json(&[&reset[..], &["earliest", "--dry-run"]].concat())?;
    let partitions = moves["partitions"].as_array().context("partitions")?;
    let from = |partition: &Value| partition["fromOffset"].as_str().and_then(|from| from.parse::<u32>().ok());
    ensure!(partitions.len() == 3 && partitions.iter().filter_map(from).sum::<u32>() == 30, "{moves}");
    all_done(&one, "prod/billing").await?;

    let consumer = Consumer::start(&one, &["--group", "prod/billing", "--verbose"])?;
    consumer.note("no records")?;
    let refused = two.refused(1, &[&reset[..], &["earliest"]].concat())?;
    ensure!(refused.contains("CONSUMERS_CONNECTED"), "{refused}");
    let table = two.done(&[&reset[..], &["earliest", "--force"]].concat())?;
    ensure!(table.contains("AGAIN"), "{table}");
    let mut again = BTreeSet::new();
    for _ in 0..30 {
        again.insert(value_of(&consumer.record()?.to_string())?);
    }
    ensure!(again.len() == 30, "{again:?}");
    ensure!(consumer.interrupt()?.0 == 0, "the end");

    // By time and offset, one partition.
    let skipped = two.json(&[&reset[..], &["0", "--topic", "orders", "--partition", "1", "--force"]].concat())?;
    ensure!(skipped["partitions"].as_array().map(Vec::len) == Some(1), "{skipped}");
    two.done(&[&reset[..], &["-0s", "--force"]].concat())?;
    all_done(&one, "prod/billing").await?;
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_outlives_its_gateway() -> Result<()> {
    let (it, one, two) = installation().await?;
    one.done(&["groups", "create", "prod/billing", "--topic", "orders"])?;
    let stream = Consumer::start(&one, &["--group", "prod/billing"])?;
    let pull = Consumer::start(&one, &["--group", "prod/billing", "--transport", "pull"])?;
    let mut count = BTreeMap::<u32, u32>::new();
    let mut take = |expected: u32| -> Result<()> {
        tokio::task::block_in_place(|| {
            let mut idle = 0;
            while count.len() < expected as usize {
                let mut came = false;
                for consumer in [&stream, &pull] {
                    while let Ok(line) = consumer.lines.recv_timeout(Duration::from_millis(50)) {
                        *count.entry(value_of(&line)?).or_default() += 1;
                        came = true;
                    }
                }
                idle = if came { 0 } else { idle + 1 };
                ensure!(idle < 600, "{} of {expected}, and no more came", count.len());
            }
            Ok(())
        })
    };
    publish(&two, "prod/orders", 0..500)?;
    take(500)?;
    // In order, and then by force.
    publish(&two, "prod/orders", 500..1_000)?;
    ensure!(it.process("gateway-1")?.stop(Duration::from_secs(35)).await.success(), "the gateway's end");
    publish(&two, "prod/orders", 1_000..1_500)?;
    it.restart("gateway-1").await?;
    take(1_500)?;
    it.process("gateway-1")?.kill9().await;
    publish(&two, "prod/orders", 1_500..2_000)?;
    it.restart("gateway-1").await?;
    take(2_000)?;
    let twice = count.values().filter(|times| **times > 1).count();
    println!("2000 records, {twice} of them more than once");
    for consumer in [stream, pull] {
        let (code, _, notes) = consumer.interrupt()?;
        ensure!(code == 0 && notes.contains("connected again"), "{code}: {notes}");
    }
    all_done(&two, "prod/billing").await?;
    it.stop().await
}
