//! A producer that is of no use although the cluster serves, as far as anybody can tell: `/readyz` says so until it is over.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_e2e::tenant::record;
use sluice_e2e::{Http, wait};
use sluice_wire::ConfigChange;

use super::{CALL, NAMESPACE, World};

/// A producer without progress is suspicious after 12 s and blamed 2 s later.
const BLAMED_WITHIN: Duration = Duration::from_secs(60);
const READY_WITHIN: Duration = Duration::from_secs(20);
/// A record waits for its partition for so long.
const PATIENT: Duration = Duration::from_secs(28);

/// A topic that takes no write while a broker is gone, though its leader is in sync with another. No tenant can make one: what
/// tells a gateway that a partition takes writes does not know of such, so to it this looks as a producer that lost its way.
pub(super) struct Picky {
    name: String,
    physical: String,
}

impl Picky {
    /// Made while topics have three replicas.
    pub(super) async fn create(world: &World<'_>) -> Result<Self> {
        let topic = world.api.create_topic(NAMESPACE, "picky", 1).await?;
        let picky = Self { physical: world.it.physical(&world.namespace.uid, &topic.uid)?, name: topic.name };
        world.api.produce_all(&picky.name, vec![record(None, b"v")]).await?;
        picky.wants(world, 3).await?;
        Ok(picky)
    }

    /// Takes writes only with so many replicas in sync.
    async fn wants(&self, world: &World<'_>, replicas: u32) -> Result<()> {
        let wanted = ConfigChange::Set(replicas.to_string());
        let settings = BTreeMap::from([("min.insync.replicas".to_owned(), wanted)]);
        Ok(world.admin.incremental_alter_configs(&self.physical, &settings, false, CALL).await?)
    }

    /// While a broker is gone.
    pub(super) async fn makes_the_gateway_unready(&self, world: &World<'_>) -> Result<()> {
        let admin = Http::new(&world.it.instance("gateway-1")?.admin, None);
        let mut api = world.api.clone();
        api.timeout = PATIENT;
        let writing = async {
            loop {
                // Whatever becomes of it: something is always on its way.
                let _refused = api.produce(&self.name, vec![record(None, b"v")]).await;
            }
        };
        let blamed = wait::until("the gateway to blame its producer", BLAMED_WITHIN, async || {
            let answer = admin.get("/readyz").await?;
            let producers = &answer.json()["components"]["producers"];
            ensure!(answer.status == 503 && producers["ok"] == false, "{}: {producers}", answer.status);
            ensure!(
                producers["detail"].as_str().is_some_and(|detail| detail.contains("makes no progress")),
                "{producers}"
            );
            Ok(Some(()))
        });
        tokio::select! {
            () = writing => {}
            blamed = blamed => blamed?,
        }
        self.wants(world, 1).await?;
        wait::until("the gateway to be ready", READY_WITHIN, async || {
            world.api.produce_all(&self.name, vec![record(None, b"v")]).await?;
            let answer = admin.get("/readyz").await?;
            ensure!(answer.status == 200, "{}", answer.json());
            Ok(Some(()))
        })
        .await
    }
}
