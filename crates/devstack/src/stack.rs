//! The local stack: CA, Kafka and PostgreSQL in one directory, under one watchdog.
//!
//! Promises: [`StackBuilder::build`] returns a stack that serves, or an error and nothing left running; dropping the
//! stack, a panic, and the death of this process by any signal end everything it started within 10 s; a temporary stack
//! leaves no file; a persistent one can be started again on its data, and never twice at once.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ca::Ca;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::kafka::{self, Archive, Kafka};
use crate::postgres::{self, Postgres};
use crate::preflight::{self, Needs, Tools};
use crate::ready::poll_until;
use crate::secrets::Secrets;
use crate::supervisor::Supervisor;
use crate::{files, jars, procfs};

/// The watchdog of a stack that was killed needs up to 10 s to end the old processes.
const LOCK_WITHIN: Duration = Duration::from_secs(15);

/// Where a stack keeps its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataDir {
    /// In a temporary directory that is removed at the end.
    Temporary,
    /// Here, for the next start.
    Persistent(PathBuf),
}

/// What the servers are tuned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tuning {
    /// Quick starts and stops; nothing is flushed to disk. The default of a temporary stack.
    Tests,
    /// Data survives a crash; the JVM compiles fully. The default of a persistent stack.
    Durable,
}

/// Settings of a stack to be started.
#[derive(Debug, Clone)]
pub struct StackBuilder {
    brokers: u32,
    data_dir: DataDir,
    tuning: Option<Tuning>,
    needs: Needs,
}

/// A running stack.
pub struct Stack {
    kafka: Option<Kafka>,
    postgres: Option<Postgres>,
    ca: Ca,
    connection: Connection,
    supervisor: Supervisor,
}

impl Stack {
    /// One broker and PostgreSQL in a temporary directory, unless the builder is told otherwise.
    pub fn builder() -> StackBuilder {
        StackBuilder {
            brokers: 1,
            data_dir: DataDir::Temporary,
            tuning: None,
            needs: Needs { kafka: true, postgres: true },
        }
    }

    /// How to reach it all.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The file that [`Connection::read`] reads, mode 0600.
    pub fn connection_file(&self) -> PathBuf {
        connection_file(&self.connection.dir)
    }

    /// The stack's directory.
    pub fn dir(&self) -> &Path {
        &self.connection.dir
    }

    /// Kafka; an error when the stack was built without.
    pub fn kafka(&self) -> Result<&Kafka> {
        self.kafka.as_ref().ok_or_else(|| Error::Invalid("this stack has no Kafka".to_owned()))
    }

    /// PostgreSQL; an error when the stack was built without.
    pub fn postgres(&self) -> Result<&Postgres> {
        self.postgres.as_ref().ok_or_else(|| Error::Invalid("this stack has no PostgreSQL".to_owned()))
    }

    /// The development CA.
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// For further processes that shall end with this stack.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Waits until a broker or PostgreSQL ends: which ([`Error::Died`]), how, and where its log is. Those that were
    /// stopped before are not waited for; one that is stopped on purpose meanwhile has ended, too.
    pub async fn ended(&self) -> Error {
        let kafka = async {
            match &self.kafka {
                Some(kafka) => kafka.ended().await,
                None => std::future::pending().await,
            }
        };
        let postgres = async {
            match &self.postgres {
                Some(postgres) => postgres.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            error = kafka => error,
            error = postgres => error,
        }
    }

    /// Stops in good order: Kafka and PostgreSQL, then everything else that was started through the supervisor.
    pub async fn stop(self) {
        if let Some(kafka) = &self.kafka {
            kafka.stop_all().await;
        }
        if let Some(postgres) = &self.postgres {
            postgres.stop().await;
        }
    }
}

impl StackBuilder {
    /// Number of Kafka brokers; 1 by default.
    pub fn brokers(mut self, brokers: u32) -> Self {
        self.brokers = brokers;
        self
    }

    /// Where the files go; temporary by default.
    pub fn data_dir(mut self, data_dir: DataDir) -> Self {
        self.data_dir = data_dir;
        self
    }

    /// Overrides the tuning that follows from the data directory.
    pub fn tuning(mut self, tuning: Tuning) -> Self {
        self.tuning = Some(tuning);
        self
    }

    /// Leaves Kafka out.
    pub fn without_kafka(mut self) -> Self {
        self.needs.kafka = false;
        self
    }

    /// Leaves PostgreSQL out.
    pub fn without_postgres(mut self) -> Self {
        self.needs.postgres = false;
        self
    }

    /// Starts it all; returns when it serves.
    pub async fn build(self) -> Result<Stack> {
        if !(1..=9).contains(&self.brokers) {
            return Err(Error::Invalid(format!("a local Kafka has 1 to 9 brokers, not {}", self.brokers)));
        }
        let tools = preflight::check(self.needs)?;
        let (dir, supervisor) = self.open_dir().await?;
        let secrets = Secrets::load_or_create(&dir.join("secrets.json"))?;
        let ca = Ca::load_or_create(&dir.join("ca"))?;
        let (kafka, postgres) = tokio::try_join!(
            self.start_kafka(&dir, &tools, &ca, &secrets, &supervisor),
            self.start_postgres(&dir, &tools, &secrets, &supervisor),
        )?;
        let connection = Connection {
            ca_file: ca.cert_file(),
            kafka: kafka.as_ref().map(|kafka| kafka.connection().clone()),
            postgres: postgres.as_ref().map(|postgres| postgres.connection().clone()),
            dir,
        };
        connection.write(&connection_file(&connection.dir))?;
        Ok(Stack { kafka, postgres, ca, connection, supervisor })
    }

    async fn open_dir(&self) -> Result<(PathBuf, Supervisor)> {
        match &self.data_dir {
            DataDir::Temporary => {
                let supervisor = Supervisor::new()?;
                Ok((supervisor.temp_dir("sluice-stack-")?, supervisor))
            }
            DataDir::Persistent(dir) => {
                files::create_dir(dir)?;
                let dir = dir.canonicalize().map_err(Error::io("find", dir))?;
                let lock = lock(&dir).await?;
                Ok((dir, Supervisor::holding(Some(&lock))?))
            }
        }
    }

    async fn start_kafka(
        &self,
        dir_of_stack: &Path,
        tools: &Tools,
        ca: &Ca,
        secrets: &Secrets,
        supervisor: &Supervisor,
    ) -> Result<Option<Kafka>> {
        let Some(java) = tools.java.clone() else { return Ok(None) };
        let jars = jars::resolve(tools.mvn.as_deref(), supervisor).await?;
        let setup = |dir: &str, brokers, archive| {
            let (java, jars, supervisor) = (java.clone(), jars.clone(), supervisor.share());
            let dir = dir_of_stack.join(dir);
            kafka::Setup {
                dir,
                brokers,
                java,
                jars,
                archive,
                tuning: self.tuning_or_default(),
                ca,
                secrets,
                supervisor,
            }
        };
        let archive = kafka::find_or_make(setup("kafka-throwaway", 1, Archive::Absent)).await;
        let setup = setup("kafka", self.brokers, archive);
        Kafka::start(setup).await.map(Some)
    }

    async fn start_postgres(
        &self,
        dir: &Path,
        tools: &Tools,
        secrets: &Secrets,
        supervisor: &Supervisor,
    ) -> Result<Option<Postgres>> {
        let Some(tools) = tools.postgres.clone() else { return Ok(None) };
        let (tuning, supervisor) = (self.tuning_or_default(), supervisor.share());
        let setup = postgres::Setup { dir: dir.join("postgres"), tools, tuning, secrets, supervisor };
        Postgres::start(setup).await.map(Some)
    }

    fn tuning_or_default(&self) -> Tuning {
        self.tuning.unwrap_or(match self.data_dir {
            DataDir::Temporary => Tuning::Tests,
            DataDir::Persistent(_) => Tuning::Durable,
        })
    }
}

fn connection_file(dir: &Path) -> PathBuf {
    dir.join("stack.json")
}

/// The lock is released by the watchdog when the last process of the stack has ended. It is waited for only while its
/// owner is dead: a living one will not give it up.
async fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io("open the lock", &path))?;
    let locked = poll_until("the earlier stack ending", LOCK_WITHIN, async || match file.try_lock() {
        Ok(()) => Some(Ok(())),
        Err(TryLockError::WouldBlock) if owner_lives(&path) => Some(Err(Error::InUse(dir.to_path_buf()))),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(error)) => Some(Err(Error::io("lock", &path)(error))),
    });
    match locked.await {
        Ok(outcome) => outcome?,
        Err(Error::Deadline { .. }) => return Err(Error::InUse(dir.to_path_buf())),
        Err(other) => return Err(other),
    }
    let owner =
        procfs::stat(std::process::id()).map(|own| format!("{} {}", own.pid, own.start_time)).unwrap_or_default();
    let write = || file.set_len(0).and_then(|()| (&file).write_all(owner.as_bytes()));
    write().map_err(Error::io("write", &path))?;
    Ok(file)
}

fn owner_lives(lock: &Path) -> bool {
    let text = std::fs::read_to_string(lock).unwrap_or_default();
    let owner = text.split_once(' ').and_then(|(pid, start)| Some((pid.parse().ok()?, start.parse::<u64>().ok()?)));
    owner
        .is_some_and(|(pid, start)| procfs::stat(pid).is_some_and(|stat| stat.start_time == start && stat.state != 'Z'))
}
