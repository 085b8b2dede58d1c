//! A dead-letter topic of one replica, and one broker gone: what can be read is listed and redriven.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use sluice_e2e::consumer::{ack_ids, group_of};
use sluice_e2e::tenant::record;
use sluice_e2e::{Http, wait};
use sluice_proto::admin::v1::{Group, RetryPolicy};

use super::{NAMESPACE, World};

const LETTERS: usize = 6;
const GROUP: &str = "namespaces/prod/groups/fussy";
const LONG: Duration = Duration::from_secs(30);

/// A topic that every broker holds, for the records.
pub(super) async fn source(world: &World<'_>) -> Result<()> {
    world.api.create_topic(NAMESPACE, "source", 1).await?;
    let records = (0..LETTERS).map(|_| record(None, b"v")).collect();
    world.api.produce_all("namespaces/prod/topics/source", records).await?;
    Ok(())
}

/// One dead letter in each partition of a topic that is made now.
pub(super) async fn refused(world: &World<'_>) -> Result<()> {
    let dead = world.api.create_topic(NAMESPACE, "dead", i32::try_from(LETTERS)?).await?;
    let group = Group {
        retry_policy: Some(RetryPolicy { max_attempts: 1, ..RetryPolicy::default() }),
        dead_letter_topic: dead.name,
        ..group_of(NAMESPACE, &["source"])
    };
    world.api.create_group(NAMESPACE, "fussy", group).await?;
    let mut left = LETTERS;
    while left > 0 {
        let pulled = world.api.pull(GROUP, 10, Duration::from_secs(5)).await?;
        left -= pulled.records.len();
        if !pulled.records.is_empty() {
            world.api.nack(GROUP, ack_ids(&pulled.records), None, "no").await?;
        }
    }
    wait::until("all letters", LONG, async || {
        let (_, list) = list(&world.http()).await?;
        Ok((partitions(&list) == (0..LETTERS).collect::<Vec<_>>()).then_some(()))
    })
    .await
}

/// While a broker is gone.
pub(super) async fn those_of_led_partitions_go_on(world: &World<'_>) -> Result<()> {
    let http = world.http();
    let (lost, found) = wait::until("a partition without a leader", LONG, async || {
        let (status, answer) = list(&http).await?;
        let failures = answer["failures"].as_array().cloned().unwrap_or_default();
        ensure!(status == if failures.is_empty() { 200 } else { 207 }, "{status}: {answer}");
        let told = failures.iter().all(|failure| failure["error"]["details"][0]["reason"] == "CLUSTER_UNAVAILABLE");
        ensure!(told, "{answer}");
        let lost: Vec<usize> = failures.iter().filter_map(|failure| number(&failure["partition"])).collect();
        Ok((!lost.is_empty()).then(|| (lost, partitions(&answer))))
    })
    .await?;
    let mut all = [lost.clone(), found.clone()].concat();
    all.sort_unstable();
    ensure!(all == (0..LETTERS).collect::<Vec<_>>(), "each partition once: {lost:?} {found:?}");
    let named = |partition: usize| json!({"ids": [format!("{partition}-0"), format!("{}-0", found[0])]});
    let (status, answer) = redrive(&http, &json!({"ids": [format!("{}-0", lost[0])]})).await?;
    ensure!(status == 503, "nothing that was asked for can be read: {answer}");
    let (status, answer) = redrive(&http, &named(lost[0])).await?;
    ensure!(status == 207 && answer["redriven"] == "1" && answer["remaining"] == true, "{answer}");
    ensure!(number(&answer["failures"][0]["partition"]) == Some(lost[0]), "{answer}");
    let (status, answer) = redrive(&http, &json!({"all": true, "dryRun": true})).await?;
    let others = (found.len() - 1).to_string();
    ensure!(status == 207 && answer["redriven"] == others, "{answer}");

    let letters = ["groups", "dead-letters"];
    let output = world.sluice.run(&[&letters[..], &["list", "prod/fussy"]].concat())?;
    let (shown, errors) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.code() == Some(1) && shown.lines().count() == found.len(), "{shown}{errors}");
    ensure!(errors.contains(&format!("{}: the streaming cluster", lost[0])), "{errors}");
    let output = world.sluice.run(&[&letters[..], &["redrive", "prod/fussy", "--all"]].concat())?;
    let (shown, errors) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.code() == Some(1) && errors.contains("could not be read"), "{shown}{errors}");
    ensure!(shown.starts_with(&format!("{others} records redriven")), "{shown}");
    let (status, answer) = list(&http).await?;
    ensure!(status == 207 && partitions(&answer).is_empty(), "{answer}");
    Ok(())
}

/// Once it is back.
pub(super) async fn the_others_are_still_there(world: &World<'_>) -> Result<()> {
    let http = world.http();
    let left = wait::until("all partitions", LONG, async || {
        let (status, answer) = list(&http).await?;
        Ok((status == 200).then(|| partitions(&answer).len()))
    })
    .await?;
    ensure!(left > 0, "they were left as they are");
    let shown = world.sluice.done(&["groups", "dead-letters", "redrive", "prod/fussy", "--all"])?;
    ensure!(shown.starts_with(&format!("{left} record")), "{shown}");
    let (_, answer) = list(&http).await?;
    ensure!(answer["deadLetters"] == json!([]) && answer["failures"] == json!([]), "{answer}");
    Ok(())
}

impl World<'_> {
    fn http(&self) -> Http {
        self.it.http(0, Some(&self.tenant.key))
    }
}

async fn list(http: &Http) -> Result<(u16, Value)> {
    let answer = http.send(http.request(Method::GET, &format!("/v1/{GROUP}/deadLetters"))).await?;
    Ok((answer.status, answer.json()))
}

async fn redrive(http: &Http, body: &Value) -> Result<(u16, Value)> {
    let answer = http.post(&format!("/v1/{GROUP}/deadLetters:redrive"), body).await.context("redrive")?;
    Ok((answer.status, answer.json()))
}

/// Where letters lie.
fn partitions(list: &Value) -> Vec<usize> {
    let letters = list["deadLetters"].as_array().cloned().unwrap_or_default();
    letters.iter().filter_map(|letter| letter["id"].as_str()?.split_once('-')?.0.parse().ok()).collect()
}

fn number(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok())
}
