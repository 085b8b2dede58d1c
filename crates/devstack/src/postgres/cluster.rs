//! The files of a PostgreSQL cluster: who owns them, how they are made, how the server is run on them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::User;

use crate::error::{Error, Result};
use crate::files;
use crate::ports;
use crate::postgres::{SUPER_USER, Setup};
use crate::preflight::{PostgresTools, postgres_of_major};
use crate::process::ProcessSpec;
use crate::stack::Tuning;

const INIT_WITHIN: Duration = Duration::from_secs(60);
const SESSIONS_MAX: u32 = 200;
/// A socket's path holds 107 bytes, of which the server wants some for its own name.
const SOCKET_DIR_BYTES_MAX: usize = 80;

#[derive(Clone)]
pub(super) struct Cluster {
    dir: PathBuf,
    tools: PostgresTools,
    owner: Option<Owner>,
}

/// The user that the server runs as when we are root.
#[derive(Clone)]
struct Owner {
    name: String,
    uid: u32,
    gid: u32,
}

impl Cluster {
    /// Opens the cluster in the directory, or makes one there. One half made by an interrupted run is made anew.
    pub(super) async fn open(setup: &Setup<'_>) -> Result<Cluster> {
        files::create_dir(&setup.dir)?;
        let owner = Owner::when_root()?;
        if let Some(owner) = &owner {
            chown(&setup.dir, Some(owner.uid), Some(owner.gid)).map_err(Error::io("give away", &setup.dir))?;
        }
        let mut cluster = Cluster { dir: setup.dir.clone(), tools: setup.tools.clone(), owner };
        if cluster.made_marker().exists() {
            cluster.tools = cluster.tools_of_data()?;
        } else {
            cluster.init(setup).await?;
        }
        Ok(cluster)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn tools(&self) -> &PostgresTools {
        &self.tools
    }

    pub(super) fn socket_dir(&self) -> Option<PathBuf> {
        (self.dir.as_os_str().len() <= SOCKET_DIR_BYTES_MAX).then(|| self.dir.clone())
    }

    /// The port of the last run when it is free, else another.
    pub(super) fn port(&self) -> Result<u16> {
        let kept = fs::read_to_string(self.dir.join("port")).ok().and_then(|text| text.trim().parse().ok());
        kept.filter(|port| ports::is_free(*port)).map_or_else(|| self.choose_port(), Ok)
    }

    pub(super) fn choose_port(&self) -> Result<u16> {
        let port = ports::free_ports(1)?[0];
        files::write_public(&self.dir.join("port"), &port.to_string())?;
        Ok(port)
    }

    /// The server, ready to be spawned.
    pub(super) fn server(&self, port: u16, tuning: Tuning) -> Result<ProcessSpec> {
        let socket_dir = self.socket_dir().map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default();
        let mut settings = vec![
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            format!("unix_socket_directories={socket_dir}"),
            "unix_socket_permissions=0777".to_owned(),
            format!("max_connections={SESSIONS_MAX}"),
            "shared_buffers=64MB".to_owned(),
            "max_wal_size=256MB".to_owned(),
            "log_line_prefix=%m [%p] %d ".to_owned(),
        ];
        if tuning == Tuning::Tests {
            // The data does not outlive the machine, so nothing needs to reach the disk. Commits still reach the system
            // before they are answered (synchronous_commit stays on): they must survive a SIGKILL.
            settings.extend(["fsync=off", "full_page_writes=off"].map(str::to_owned));
        }
        let data = self.data();
        let args = settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]);
        let spec = self.as_owner("postgres", &self.tools.postgres, "postgres.log");
        Ok(spec.args(["-D".to_owned(), path_text(&data)?.to_owned()]).args(args))
    }

    /// The server's own word, in the last line of its lock file, checked against its process.
    pub(super) fn says_ready(&self, pid: u32) -> bool {
        let Ok(text) = fs::read_to_string(self.data().join("postmaster.pid")) else { return false };
        let mut lines = text.lines();
        lines.next().is_some_and(|line| line.trim() == pid.to_string()) && lines.last().unwrap_or("").trim() == "ready"
    }

    async fn init(&mut self, setup: &Setup<'_>) -> Result<()> {
        let data = self.data();
        if data.exists() {
            fs::remove_dir_all(&data).map_err(Error::io("remove what an interrupted run left in", &data))?;
        }
        let password_file = self.dir.join("password");
        files::write_secret(&password_file, &setup.secrets.postgres_password)?;
        if let Some(owner) = &self.owner {
            chown(&password_file, Some(owner.uid), Some(owner.gid)).map_err(Error::io("give away", &password_file))?;
        }
        let spec = self
            .as_owner("initdb", &self.tools.initdb, "initdb.log")
            .args(["-D", path_text(&data)?, "-U", SUPER_USER, "--auth=scram-sha-256"])
            .args([format!("--pwfile={}", path_text(&password_file)?)])
            .args(["--encoding=UTF8", "--locale=C", "--no-instructions"])
            .args((setup.tuning == Tuning::Tests).then_some("--no-sync"));
        let outcome = setup.supervisor.run(&spec, INIT_WITHIN).await;
        fs::remove_file(&password_file).map_err(Error::io("remove", &password_file))?;
        outcome?;
        files::write_public(&self.made_marker(), "initdb was completed\n")
    }

    /// A program run as the cluster's owner, in its directory.
    fn as_owner(&self, name: &str, program: &Path, log: &str) -> ProcessSpec {
        let log = self.dir.join(log);
        let spec = match &self.owner {
            None => ProcessSpec::new(name, program, log),
            Some(owner) => {
                let spec = ProcessSpec::new(name, "setpriv", log);
                let spec = spec.args([format!("--reuid={}", owner.uid), format!("--regid={}", owner.gid)]);
                let spec = spec.args(["--clear-groups"]);
                // Below a directory that only root may enter (such as /root) the server could not reach its files.
                let spec = if owner.can_reach(&self.dir) {
                    spec
                } else {
                    spec.args(["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"])
                };
                spec.args([program.to_string_lossy()])
            }
        };
        spec.current_dir("/").env("LC_ALL", "C")
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn made_marker(&self) -> PathBuf {
        self.dir.join("made")
    }

    fn tools_of_data(&self) -> Result<PostgresTools> {
        let text = files::read(&self.data().join("PG_VERSION"))?;
        let major = text.trim().parse().ok();
        if major == Some(self.tools.major) {
            return Ok(self.tools.clone());
        }
        major.and_then(postgres_of_major).ok_or_else(|| {
            let (dir, have) = (self.dir.display(), self.tools.major);
            Error::Invalid(format!(
                "the database in {dir} was made by PostgreSQL {}, and only {have} is installed: install postgresql-{} \
                 or remove the directory",
                text.trim(),
                text.trim()
            ))
        })
    }
}

impl Owner {
    fn when_root() -> Result<Option<Owner>> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(None);
        }
        let found = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
        let user = found.ok_or_else(|| {
            Error::Invalid("PostgreSQL cannot run as root, and there is no user postgres or nobody".to_owned())
        })?;
        Ok(Some(Owner { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
    }

    fn can_reach(&self, dir: &Path) -> bool {
        let reachable = |dir: &Path| {
            let Ok(meta) = dir.metadata() else { return false };
            let mode = meta.permissions().mode();
            mode & 0o001 != 0 || (meta.uid() == self.uid && mode & 0o100 != 0)
        };
        let reached = dir.ancestors().all(reachable);
        if !reached {
            tracing::debug!(user = %self.name, dir = %dir.display(), "PostgreSQL runs with the capability to search directories");
        }
        reached
    }
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::Invalid(format!("the path {path:?} is not UTF-8")))
}
