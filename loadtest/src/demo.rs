//! `make demo`: two tenants with the same names, two gateways, 336,776 real events each, and every count compared.
//!
//! For each tenant: what was sent, what was answered PERSISTED, what came back through the API, what billing counted, and what
//! lies in Kafka when it is read directly with another library. Then two consumers of one group, one on each gateway and of
//! each protocol, take and acknowledge everything, while a dispatcher is killed. All must be equal; order per key must hold; the
//! sums of the values' hashes must agree. Otherwise it says what differs and fails.

mod consume;
mod group;
mod publish;
mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use sluice_e2e::digest::Digest;
use sluice_e2e::{Api, Installation, Options, Tenant, kafka_reader, wait};

use crate::flights::{self, Event};

const NAMESPACE: &str = "demo";
const TOPIC: &str = "flights";
const PARTITIONS: i32 = 6;
/// Usage windows close every second; billing takes them at once.
const USAGE_WITHIN: Duration = Duration::from_secs(60);

/// Options of the demo.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// flights.csv, as dev/flights.sh makes it
    #[arg(long)]
    flights: PathBuf,
    /// Only the first events of the file
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
    /// Publishers a tenant
    #[arg(long, default_value_t = 4)]
    publishers: usize,
}

/// What was seen of one tenant.
pub(crate) struct Seen {
    pub(crate) tenant: String,
    pub(crate) sent: Digest,
    pub(crate) without_key: u64,
    pub(crate) published: publish::Published,
    pub(crate) read_back: consume::ReadBack,
    pub(crate) billed_bytes: u64,
    pub(crate) billed_records: u64,
    pub(crate) uncovered: u64,
    pub(crate) kafka: Digest,
    pub(crate) grouped: group::Grouped,
}

/// Runs it; whether all counts agree.
pub(crate) async fn run(args: Args) -> Result<bool> {
    let events = flights::read(&args.flights, args.limit)?;
    eprintln!("{} events read; starting Kafka, PostgreSQL, four roles and a second gateway", events.len());
    let options = Options { gateways: 2, binaries: Some(crate::binaries()), ..Options::default() };
    let installation = Installation::start(options).await?;
    let bars = MultiProgress::new();
    let started = Instant::now();
    let (acme, globex) = tokio::try_join!(
        one_tenant(&installation, "acme", &events, &args, &bars),
        one_tenant(&installation, "globex", &events, &args, &bars),
    )?;
    let elapsed = started.elapsed();
    let published = elapsed;
    // After the bill: a gateway that is killed takes the last second's windows with it, and billing needs a while to read
    // them from the log.
    let started = Instant::now();
    let total = events.len() as u64;
    let (first, second) = tokio::try_join!(
        grouped(&installation, &acme, total, true, &bars),
        grouped(&installation, &globex, total, false, &bars),
    )?;
    let elapsed = started.elapsed();
    let seen = [Seen { grouped: first, ..acme.1 }, Seen { grouped: second, ..globex.1 }];
    println!("{}", report::table(&seen));
    let differences: Vec<String> = seen.iter().flat_map(report::differences).collect();
    for difference in &differences {
        println!("DIFFERENT  {difference}");
    }
    if differences.is_empty() {
        println!(
            "All counts agree. {} records in and out in {:.1} s, and through two groups in {:.1} s.",
            2 * events.len(),
            published.as_secs_f64(),
            elapsed.as_secs_f64()
        );
    }
    installation.stop().await?;
    Ok(differences.is_empty())
}

async fn one_tenant(
    installation: &Installation,
    id: &str,
    events: &[Event],
    args: &Args,
    bars: &MultiProgress,
) -> Result<(Tenant, Seen)> {
    let tenant = installation.tenant(id).await?;
    let apis = apis(installation, &tenant)?;
    let namespace = apis[0].create_namespace(NAMESPACE).await?;
    let topic = apis[0].create_topic(NAMESPACE, TOPIC, PARTITIONS).await?;
    let mut sent = Digest::default();
    for event in events {
        sent.add(event.key.as_deref(), Some(&event.value), 0);
    }
    let total = events.len() as u64;
    let published = publish::run(&apis, &topic.name, events, args.publishers, bar(bars, id, "publish", total)).await?;
    let read_back = consume::run(&apis, &topic.name, bar(bars, id, "read back", total)).await?;
    let bill = bill(&apis[1], &topic.name, sent.records).await?;
    let kafka = installation.kafka()?.clone();
    let physical = installation.physical(&namespace.uid, &topic.uid)?;
    let kafka = tokio::task::spawn_blocking(move || kafka_reader::digest_topic(&kafka, &physical)).await??;
    let seen = Seen {
        tenant: id.to_owned(),
        sent,
        without_key: events.iter().filter(|event| event.key.is_none()).count() as u64,
        published,
        read_back,
        billed_bytes: bill.0,
        billed_records: bill.1,
        uncovered: bill.2,
        kafka,
        grouped: group::Grouped::default(),
    };
    Ok((tenant, seen))
}

async fn grouped(
    installation: &Installation,
    (tenant, _): &(Tenant, Seen),
    total: u64,
    kill: bool,
    bars: &MultiProgress,
) -> Result<group::Grouped> {
    let bar = bar(bars, &tenant.id, "group", total);
    group::run(installation, tenant, &apis(installation, tenant)?, total, kill, bar).await
}

fn apis(installation: &Installation, tenant: &Tenant) -> Result<Vec<Api>> {
    (0..2).map(|gateway| installation.api(gateway, &tenant.key)).collect()
}

/// Bytes, records and offsets not yet counted, once billing has counted as many records as were sent (or time is over).
async fn bill(api: &Api, topic: &str, records: u64) -> Result<(u64, u64, u64)> {
    let mut last = (0, 0, 0);
    let seen = wait::until("usage of the topic", USAGE_WITHIN, async || {
        let usage = api.usage(topic).await?;
        let usage = usage.first().context("no usage yet")?;
        let totals = usage.totals.unwrap_or_default();
        let uncovered: i64 =
            usage.coverage.iter().flat_map(|part| &part.uncovered).map(|range| range.end - range.start).sum();
        last = (totals.ingress_bytes, totals.ingress_records, uncovered as u64);
        Ok((totals.ingress_records >= records && uncovered == 0).then_some(last))
    });
    let seen = seen.await;
    Ok(seen.unwrap_or(last))
}

fn bar(bars: &MultiProgress, tenant: &str, what: &str, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:20} [{bar:30}] {human_pos}/{human_len} {per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    bars.add(ProgressBar::new(total).with_style(style).with_message(format!("{tenant} {what}")))
}
