//! A consumer's process that stands still with records and with credit: others get its records, and its late words change nothing.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Consumer, all_done, id, installation_with, publish, value_of};

const GROUP: &str = "prod/billing";
/// One of each key, so that none waits for another.
const FIRST: u32 = 3;
const ALL: u32 = 10;

impl Consumer {
    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_stopped_process_go_to_others_and_its_late_acknowledgements_are_refused() -> Result<()> {
    let (it, one, two) = installation_with("[limits]\nping_interval = \"2s\"\n").await?;
    one.done(&["groups", "create", GROUP, "--topic", "orders", "--ack-deadline", "10s", "--min-backoff", "0s"])?;
    publish(&one, "prod/orders", 0..FIRST)?;
    let mut stopped = Consumer::start(&one, &["--group", GROUP, "--manual"])?;
    let mut held = BTreeMap::new();
    for _ in 0..FIRST {
        let record = stopped.record()?;
        held.insert(value_of(&record.to_string())?, record);
    }
    stopped.signal(Signal::SIGSTOP)?;
    // It has credit for these, too, and they are sent to it.
    publish(&one, "prod/orders", FIRST..ALL)?;
    let mut other = Consumer::start(&two, &["--group", GROUP, "--manual"])?;
    let mut taken = BTreeMap::new();
    while taken.len() < ALL as usize {
        let record = other.record()?;
        other.say(&format!("extend {} 5m", id(&record)?))?;
        other.note("extend OK")?;
        taken.insert(value_of(&record.to_string())?, record);
    }
    for (number, record) in &held {
        let again = &taken[number];
        ensure!(again["attempt"] == 2 && again["ackId"] != record["ackId"], "its lease was over: {again}");
    }

    stopped.signal(Signal::SIGCONT)?;
    for record in held.values() {
        stopped.say(&format!("ack {}", id(record)?))?;
        stopped.note("ack STALE_LEASE")?;
    }
    let status = one.json(&["groups", "describe", GROUP])?;
    ensure!(status["status"]["lag"] == "10", "nothing is done yet: {status}");
    for record in taken.values() {
        other.say(&format!("ack {}", id(record)?))?;
        other.note("ack OK")?;
    }
    all_done(&one, GROUP).await?;
    for consumer in [stopped, other] {
        let (code, _, notes) = consumer.interrupt()?;
        ensure!(code == 0, "{code}: {notes}");
    }
    it.stop().await
}
