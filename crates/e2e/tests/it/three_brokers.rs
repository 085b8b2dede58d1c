//! What one broker cannot show, through every role and the command line: a partition without a leader, a log that an unclean
//! leader cut off, brokers that stand still. One installation goes through all of it, because three brokers take long to start.

mod dead_letters;
mod frozen;
mod leaderless;
mod producers;
mod revocation;
mod unclean;

use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_devstack::{ADMIN, Kafka};
use sluice_e2e::tenant::Tenant;
use sluice_e2e::{Api, Installation, Options, kafka_reader, wait};
use sluice_proto::admin::v1::Namespace;
use sluice_wire::Client;

use crate::program::Sluice;

const NAMESPACE: &str = "prod";
const CALL: Duration = Duration::from_secs(10);

struct World<'a> {
    it: &'a Installation,
    kafka: &'a Kafka,
    admin: Client,
    tenant: Tenant,
    namespace: Namespace,
    api: Api,
    sluice: Sluice,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_single_brokers_do_is_told_where_it_matters_and_all_goes_on() -> Result<()> {
    let it = Installation::start(Options { brokers: 3, gateways: 1, ..Options::default() }).await?;
    let tenant = it.tenant("acme").await?;
    let api = it.api(0, &tenant.key)?;
    let namespace = api.create_namespace(NAMESPACE).await?;
    let sluice = Sluice::new(&it.local.dir)?
        .env("SLUICE_URL", &format!("http://{}", it.gateway(0)))
        .env("SLUICE_API_KEY", &tenant.key);
    let kafka = it.stack.kafka()?;
    let admin = kafka.connection().client(ADMIN)?;
    let world = World { it: &it, kafka, admin, tenant, namespace, api, sluice };

    leaderless::partitions_without_a_leader_fail_alone(&world).await?;
    unclean::a_log_that_an_unclean_leader_cut_off_is_told(&world).await?;
    frozen::producers_go_on_after_brokers_stood_still(&world).await?;
    it.stop().await
}

impl World<'_> {
    /// Topics that are made from now on have so many replicas.
    async fn replicas(&self, count: u8) -> Result<()> {
        let config = &self.it.instance("provisioning")?.config;
        let text = std::fs::read_to_string(config)?;
        let others: String = text
            .lines()
            .filter(|line| !line.starts_with("replication ="))
            .fold(String::new(), |all, line| all + line + "\n");
        std::fs::write(config, format!("replication = {count}\n{others}"))?;
        let stopped = self.it.process("provisioning")?.stop(Duration::from_secs(35)).await;
        ensure!(stopped.success(), "{stopped}");
        self.it.restart("provisioning").await
    }

    async fn all_in_sync(&self) -> Result<()> {
        wait::until("all replicas in sync", Duration::from_secs(40), async || {
            let connection = self.it.kafka()?.clone();
            let behind = tokio::task::spawn_blocking(move || kafka_reader::partitions_behind(&connection)).await??;
            ensure!(behind == 0, "{behind} partitions are not in sync");
            Ok(Some(()))
        })
        .await
    }
}
