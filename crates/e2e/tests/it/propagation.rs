//! A gateway that does not answer delays a change by at most 2 s, and serves nothing older than what its caller has seen.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sluice_e2e::tenant::{metadata, record};
use sluice_e2e::{Installation, Options};

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_gateway_is_counted_as_pending_and_catches_up_before_it_serves() -> Result<()> {
    let it = Installation::start(Options::default()).await?;
    let tenant = it.tenant("acme").await?;
    let (a, mut b) = (it.api(0, &tenant.key)?, it.api(1, &tenant.key)?);
    a.create_namespace("prod").await?;
    let stopped = it.process("gateway-2")?;
    stopped.pause().await?;
    let started = Instant::now();
    let answer = a.create_topic_call("prod", "orders", 1).await?;
    let took = started.elapsed();
    ensure!(took < Duration::from_millis(2_500), "the call took {took:?}");
    let revision = answer.metadata().get("sluice-revision").context("no sluice-revision")?.to_str()?.to_owned();
    let operation = answer.into_inner();
    let conditions = metadata(&operation).conditions;
    let pending = conditions.iter().find(|condition| condition.r#type == "PropagationPending");
    ensure!(pending.is_some(), "no PropagationPending: {operation:?}");
    stopped.resume();
    b.revision = Some(revision);
    b.produce_all("namespaces/prod/topics/orders", vec![record(None, b"x")]).await?;
    it.stop().await
}
