//! A whole installation: own Kafka and PostgreSQL, every role as a process of its own, any number of gateways.
//!
//! Each test makes its own, because most of them stop or kill something. Everything ends with it, also when the test is
//! killed (the watchdog of `sluice-devstack`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use sluice_devstack::{DataDir, KafkaConnection, ProcessHandle, ProcessSpec, Ready, Signal, Stack, Tuning};
use sluice_proto::operator::v1::clusters_service_client::ClustersServiceClient;
use sluice_proto::operator::v1::namespaces_service_client::NamespacesServiceClient;
use sluice_proto::operator::v1::tenants_service_client::TenantsServiceClient;
use sluice_proto::operator::v1::{
    CreateClusterRequest, CreateTenantRequest, IssueOwnerKeyRequest, PlaceNamespaceRequest, Tenant as OperatorTenant,
};
use sluice_types::physical::PhysicalTopic;
use sluiced::local::{Instance, Layout, Local};
use sluiced::role::Role;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::http::Http;
use crate::second_cluster::{SECOND, SecondCluster};
use crate::tenant::{Api, Tenant};

const READY_WITHIN: Duration = Duration::from_secs(40);
const STOP_GRACE: Duration = Duration::from_secs(35);

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many gateways.
    pub gateways: usize,
    /// How many Kafka brokers.
    pub brokers: u32,
    /// Where `sluiced` lies; the folder above the test's binary unless told.
    pub binaries: Option<PathBuf>,
    /// Lines of TOML for a role's configuration, which win.
    pub extra: Vec<(Role, String)>,
    /// Whether there is a second Kafka cluster, `clusters/second`, which every role knows.
    pub second_cluster: bool,
    /// Roles not to start yet.
    pub leave_out: Vec<Role>,
    /// How the stack is tuned. For tests: its JVM starts quickly and stays slow, which no measurement should stand on.
    pub tuning: Tuning,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            gateways: 2,
            brokers: 1,
            binaries: None,
            extra: Vec::new(),
            second_cluster: false,
            leave_out: Vec::new(),
            tuning: Tuning::Tests,
        }
    }
}

/// A running installation.
pub struct Installation {
    /// Kafka, PostgreSQL, the watchdog.
    pub stack: Stack,
    /// Addresses and files.
    pub local: Local,
    /// The second Kafka cluster, if there is one.
    pub second: Option<SecondCluster>,
    program: PathBuf,
    processes: Mutex<BTreeMap<String, ProcessHandle>>,
}

impl Installation {
    /// Starts one and waits until every role is ready.
    ///
    /// # Errors
    /// What did not start, with the end of its log.
    pub async fn start(options: Options) -> Result<Self> {
        let stack = Stack::builder()
            .data_dir(DataDir::Temporary)
            .tuning(options.tuning)
            .brokers(options.brokers)
            .build()
            .await?;
        // Before the ports of the roles are chosen: nobody listens on those yet, and it might choose one of them.
        let second = match options.second_cluster {
            true => Some(SecondCluster::start(options.tuning).await?),
            false => None,
        };
        let dir = stack.dir().join("sluice");
        let layout = Layout { gateways: options.gateways, extra: options.extra.clone(), ..Layout::default() };
        let local = Local::prepare(&stack, &dir, &layout).await?;
        let program = program(options.binaries.clone())?;
        let mut installation = Self { stack, local, second: None, program, processes: Mutex::default() };
        if let Some(second) = second {
            installation.add_second_cluster(second, &options).await?;
        }
        let wanted: Vec<Instance> = installation
            .local
            .instances
            .iter()
            .filter(|instance| !options.leave_out.contains(&instance.role))
            .cloned()
            .collect();
        let running = |instance: &Instance| installation.processes.lock().contains_key(&instance.name);
        for instance in wanted.iter().filter(|instance| !running(instance)) {
            installation.spawn(&instance.name)?;
        }
        for instance in &wanted {
            installation.ready(&instance.name).await?;
        }
        Ok(installation)
    }

    /// Has the control plane make it, and names it in the configuration of every role.
    async fn add_second_cluster(&mut self, stack: Stack, options: &Options) -> Result<()> {
        let control_plane = "control-plane";
        self.spawn(control_plane)?;
        self.ready(control_plane).await?;
        let (channel, token) = self.operator_channel()?;
        let request = CreateClusterRequest { cluster_id: SECOND.into(), ..Default::default() };
        let request = Self::operator_request(request, &token)?;
        let made = ClustersServiceClient::new(channel).create_cluster(request).await?.into_inner();
        let second = SecondCluster::new(stack, made.uid.parse().context("the cluster's uid")?, &self.local.dir)?;
        for instance in &self.local.instances {
            let mut lines = second.section(instance.role)?;
            for (_, extra) in options.extra.iter().filter(|(role, _)| *role == instance.role) {
                lines = format!("{extra}\n{lines}");
            }
            instance.configure(&lines)?;
        }
        self.second = Some(second);
        Ok(())
    }

    /// Starts (again) the process of an instance, without waiting.
    ///
    /// # Errors
    /// If there is no such instance, or it cannot be started.
    pub fn spawn(&self, name: &str) -> Result<ProcessHandle> {
        self.spawn_with(name, &[])
    }

    /// The same with environment variables.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub fn spawn_with(&self, name: &str, env: &[(&str, &str)]) -> Result<ProcessHandle> {
        let instance = self.instance(name)?;
        let log = self.local.dir.join(format!("logs/{name}.log"));
        let mut spec = ProcessSpec::new(name, &self.program, log).args([
            instance.role.as_str(),
            "--config",
            &instance.config.to_string_lossy(),
        ]);
        // What a test leaves running is thrown away: a good end would wait for a Kafka that ends at the same time.
        spec = spec.end_signal(Signal::SIGKILL);
        for (key, value) in env {
            spec = spec.env(*key, *value);
        }
        let process = self.stack.supervisor().spawn(&spec)?;
        self.processes.lock().insert(name.to_owned(), process.clone());
        Ok(process)
    }

    /// Waits until an instance says it is ready.
    ///
    /// # Errors
    /// If it ends, or is not ready in time.
    pub async fn ready(&self, name: &str) -> Result<()> {
        let address = self.instance(name)?.admin.parse()?;
        self.process(name)?.ready(&Ready::Http(address, "/readyz".into()), READY_WITHIN).await?;
        Ok(())
    }

    /// Starts an instance again and waits until it is ready.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn) and [`ready`](Self::ready).
    pub async fn restart(&self, name: &str) -> Result<()> {
        self.spawn(name)?;
        self.ready(name).await
    }

    /// Rewrites an instance's configuration: with these lines in it instead of those it was started with. Holds from its
    /// next start.
    ///
    /// # Errors
    /// If there is no such instance or its file cannot be rewritten.
    pub fn set_extra(&self, name: &str, lines: &str) -> Result<()> {
        self.instance(name)?.configure(lines)
    }

    /// The sum of a metric of an instance over all its labels; 0 if there is none.
    ///
    /// # Errors
    /// If the instance does not answer.
    pub async fn metric(&self, instance: &str, name: &str) -> Result<f64> {
        let text = Http::new(&self.instance(instance)?.admin, None).get("/metrics").await?.body;
        let text = String::from_utf8(text)?;
        let of = |line: &str| -> Option<f64> {
            let rest = line.strip_prefix(name)?;
            let value = match rest.as_bytes().first()? {
                b'{' => rest.rsplit_once("} ")?.1,
                b' ' => &rest[1..],
                _ => return None,
            };
            value.split(' ').next()?.parse().ok()
        };
        Ok(text.lines().filter_map(of).sum())
    }

    /// The process of an instance.
    ///
    /// # Errors
    /// If it was never started.
    pub fn process(&self, name: &str) -> Result<ProcessHandle> {
        self.processes.lock().get(name).cloned().with_context(|| format!("{name} was not started"))
    }

    /// An instance's addresses and files.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn instance(&self, name: &str) -> Result<&Instance> {
        self.local.instances.iter().find(|i| i.name == name).with_context(|| format!("no instance {name}"))
    }

    /// `127.0.0.1:port` of a gateway, from 0.
    pub fn gateway(&self, index: usize) -> &str {
        &self.local.public[index]
    }

    /// Calls of a key through a gateway.
    ///
    /// # Errors
    /// If the key cannot stand in a header.
    pub fn api(&self, gateway: usize, key: &str) -> Result<Api> {
        Api::new(self.gateway(gateway), key)
    }

    /// HTTP through a gateway.
    pub fn http(&self, gateway: usize, key: Option<&str>) -> Http {
        Http::new(self.gateway(gateway), key)
    }

    /// How to reach Kafka past us.
    ///
    /// # Errors
    /// Never; the stack has a Kafka.
    pub fn kafka(&self) -> Result<&KafkaConnection> {
        Ok(self.local.connection.kafka()?)
    }

    /// The physical name of a topic.
    ///
    /// # Errors
    /// If a uid is none.
    pub fn physical(&self, namespace_uid: &str, topic_uid: &str) -> Result<String> {
        let namespace = namespace_uid.parse().context("namespace uid")?;
        let topic = topic_uid.parse().context("topic uid")?;
        Ok(PhysicalTopic::new(namespace, topic).as_str().to_owned())
    }

    /// The operator's client, and its credential.
    ///
    /// # Errors
    /// If the token file cannot be read.
    pub fn operator(&self) -> Result<(TenantsServiceClient<Channel>, String)> {
        let (channel, token) = self.operator_channel()?;
        Ok((TenantsServiceClient::new(channel), token))
    }

    /// The operator's connection, and its credential.
    ///
    /// # Errors
    /// If the token file cannot be read.
    pub fn operator_channel(&self) -> Result<(Channel, String)> {
        let token = std::fs::read_to_string(&self.local.operator_token_file)?;
        let endpoint = Endpoint::from_shared(format!("http://{}", self.local.operator))?;
        Ok((endpoint.connect_lazy(), token.trim().to_owned()))
    }

    /// A request of the operator.
    ///
    /// # Errors
    /// If the token cannot stand in a header.
    pub fn operator_request<T>(message: T, token: &str) -> Result<Request<T>> {
        let mut request = Request::new(message);
        request.set_timeout(Duration::from_secs(20));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
        Ok(request)
    }

    /// Places a namespace of a tenant on a cluster (`first`, `second`): its topics are made there from now on.
    ///
    /// # Errors
    /// As answered.
    pub async fn place(&self, tenant: &str, namespace: &str, cluster: &str) -> Result<()> {
        let (channel, token) = self.operator_channel()?;
        let request = PlaceNamespaceRequest {
            name: format!("tenants/{tenant}/namespaces/{namespace}"),
            cluster: format!("clusters/{cluster}"),
            ..Default::default()
        };
        let request = Self::operator_request(request, &token)?;
        NamespacesServiceClient::new(channel).place_namespace(request).await?;
        Ok(())
    }

    /// Makes a tenant with an owner's key.
    ///
    /// # Errors
    /// As answered.
    pub async fn tenant(&self, id: &str) -> Result<Tenant> {
        let (mut operator, token) = self.operator()?;
        let request = CreateTenantRequest {
            tenant_id: id.into(),
            tenant: Some(OperatorTenant { display_name: format!("Tenant {id}"), ..Default::default() }),
            ..Default::default()
        };
        let tenant = operator.create_tenant(Self::operator_request(request, &token)?).await?.into_inner();
        let request = IssueOwnerKeyRequest { name: tenant.name, ..Default::default() };
        let key = operator.issue_owner_key(Self::operator_request(request, &token)?).await?.into_inner();
        Ok(Tenant { id: id.to_owned(), uid: tenant.uid, key: key.key })
    }

    /// Stops everything in good order.
    ///
    /// # Errors
    /// If a process did not end cleanly.
    pub async fn stop(self) -> Result<()> {
        let mut processes: Vec<(String, ProcessHandle)> =
            std::mem::take(&mut *self.processes.lock()).into_iter().collect();
        // Gateways first: the others serve them.
        processes.sort_by_key(|(name, _)| !name.starts_with("gateway"));
        let mut dirty = Vec::new();
        for (name, process) in processes {
            if process.exit_status().is_none() {
                let status = process.stop(STOP_GRACE).await;
                if !status.success() {
                    dirty.push(format!("{name}: {status}"));
                }
            }
        }
        if let Some(second) = self.second {
            second.stop().await;
        }
        self.stack.stop().await;
        if !dirty.is_empty() {
            bail!("did not end cleanly: {}", dirty.join(", "));
        }
        Ok(())
    }
}

/// `sluiced` of the same build as the running test.
fn program(binaries: Option<PathBuf>) -> Result<PathBuf> {
    let folder = match binaries {
        Some(folder) => folder,
        None => {
            let own = std::env::current_exe().context("find this test's binary")?;
            own.parent().and_then(|deps| deps.parent()).context("a test binary lies in target/…/deps")?.to_path_buf()
        }
    };
    let program = folder.join("sluiced");
    if !program.exists() {
        bail!("{} is missing: build it first (make build)", program.display());
    }
    Ok(program)
}
