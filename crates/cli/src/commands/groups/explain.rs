//! `sluice groups explain`: what holds records back, and what to do, on one screen.

use std::io::Write;

use anyhow::Result;
use serde_json::json;
use sluice_proto::stream::v1::{DeliveryState, Finding, GroupStatus};

use super::{describe, states};
use crate::args::{Global, Output};
use crate::connect::Session;
use crate::output::{self, printable};

/// Findings that are shown; they come with the most important first.
const FINDINGS_SHOWN: usize = 8;

pub(super) async fn run(global: &Global, session: &Session, group: String) -> Result<()> {
    let status = describe::status(global, session, group.clone()).await?;
    let mut out = std::io::stdout().lock();
    if global.output == Output::Json {
        let short = json!({
            "group": group,
            "state": status.state().as_str_name(),
            "dispatcher": status.dispatcher,
            "lag": status.lag.to_string(),
            "findings": status.findings,
            "missingTopics": status.missing_topics,
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&short)?)?;
    } else {
        writeln!(out, "{}", explained(&super::short_group(&group), &status))?;
    }
    Ok(())
}

fn explained(group: &str, status: &GroupStatus) -> String {
    let state = status.state();
    let mut lines = vec![format!(
        "{group}: {}. {}, {}.",
        states::of_group(status).1,
        match status.lag {
            ..0 => "How many records are not done is unknown at the moment".to_owned(),
            lag => format!("{} not done", output::lag(lag)),
        },
        consumers(status),
    )];
    for finding in status.findings.iter().take(FINDINGS_SHOWN) {
        lines.push(format!("- {}", line(finding)));
    }
    if status.findings.len() > FINDINGS_SHOWN {
        lines.push(format!("- and {} more; --output json has them", status.findings.len() - FINDINGS_SHOWN));
    }
    let is_good = |state| matches!(state, DeliveryState::Flowing | DeliveryState::NoRecords);
    if is_good(state) && !status.consumers.is_empty() && status.findings.iter().all(|finding| is_good(finding.state()))
    {
        lines.push("Nothing holds records back.".into());
    } else if status.findings.is_empty()
        && let Some(remedy) = states::remedy(state)
    {
        lines.push(format!("What to do: {remedy}."));
    }
    let width = output::width();
    lines.iter().map(|line| output::wrapped(line, width)).collect::<Vec<_>>().join("\n")
}

fn consumers(status: &GroupStatus) -> String {
    match status.consumers.len() {
        0 => "no consumer connected".into(),
        1 => "1 consumer connected".into(),
        count => format!("{count} consumers connected"),
    }
}

/// `orders/3: what is wrong and what to do`.
pub(super) fn line(finding: &Finding) -> String {
    let message = printable(&finding.message);
    if finding.topic.is_empty() {
        return message;
    }
    format!("{}/{}: {message}", printable(super::last_part(&finding.topic)), finding.partition)
}

#[cfg(test)]
mod tests {
    use sluice_proto::stream::v1::Consumer;

    use super::*;

    fn status(state: DeliveryState) -> GroupStatus {
        GroupStatus { state: state.into(), ..Default::default() }
    }

    #[test]
    fn a_group_that_flows_is_said_to_flow() {
        let mut flowing = status(DeliveryState::Flowing);
        flowing.dispatcher = "gateway-1".into();
        flowing.consumers.push(Consumer::default());
        assert_eq!(
            explained("demo/billing", &flowing),
            "demo/billing: records flow. 0 records not done, 1 consumer connected.\nNothing holds records back."
        );
    }

    #[test]
    fn a_group_that_nobody_dispatches_is_explained_too() {
        let text = explained("demo/billing", &status(DeliveryState::Unspecified));
        assert!(text.contains("nobody consumes, and nothing waits"), "{text}");
        let waiting = GroupStatus { lag: 3, ..status(DeliveryState::NoRecords) };
        assert!(explained("demo/billing", &waiting).contains("nobody consumes. 3 records not done"), "nothing flows");
        let told = GroupStatus { lag: 3, ..status(DeliveryState::NoCredit) };
        let told = explained("demo/billing", &told);
        assert!(told.contains("nobody consumes. 3") && !told.contains("as it wants"), "there is no consumer: {told}");
    }

    #[test]
    fn every_state_but_the_good_ones_has_a_remedy_or_findings_say_it() {
        for state in [
            DeliveryState::WaitingForAcks,
            DeliveryState::WindowFull,
            DeliveryState::Throttled,
            DeliveryState::ClusterUnavailable,
            DeliveryState::NoTopics,
        ] {
            assert!(explained("g", &status(state)).contains("What to do: "), "{state:?}");
        }
        let mut full = status(DeliveryState::WindowFull);
        let topic = "namespaces/demo/topics/orders".to_owned();
        full.findings = (0..20)
            .map(|partition| Finding { topic: topic.clone(), partition, message: "acknowledge it".into(), state: 0 })
            .collect();
        let text = explained("g", &full);
        assert!(text.contains("- orders/0: acknowledge it") && text.contains("- and 12 more"), "{text}");
        assert!(text.lines().count() < 24, "one screen: {text}");
    }
}
