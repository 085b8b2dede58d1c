//! `sluiced up` as a person meets it: it comes up, keeps what it was given, ends with everything it started and nothing else,
//! and says what is in its way.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice_devstack::free_ports;
use sluice_e2e::wait;

use crate::program::{Sluice, binary};

const READY_WITHIN: Duration = Duration::from_secs(60);
const GONE_WITHIN: Duration = Duration::from_secs(45);

/// A running `sluiced up`; killed if the test fails.
struct Up {
    child: Child,
    output: PathBuf,
}

impl Up {
    fn start(dir: &Path, ports: [u16; 2], extra: &[&str]) -> Result<Self> {
        let output = dir.join(format!("up-{}.out", std::fs::read_dir(dir)?.count()));
        let child = Command::new(binary("sluiced")?)
            .args(["up", "--data-dir", "data", "--port", &ports[0].to_string()])
            .args(["--operator-port", &ports[1].to_string()])
            .args(extra)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&output)?)
            .spawn()?;
        Ok(Self { child, output })
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    async fn ready(&mut self) -> Result<Duration> {
        let started = Instant::now();
        let ready = wait::until("up is ready", READY_WITHIN, async || {
            let ready = self.text().contains("Ctrl-C stops everything");
            Ok((ready || self.child.try_wait()?.is_some()).then_some(ready))
        });
        ensure!(ready.await?, "ended: {}", self.text());
        Ok(started.elapsed())
    }

    async fn ended(&mut self, within: Duration) -> Result<ExitStatus> {
        wait::until("up has ended", within, async || Ok(self.child.try_wait()?)).await
    }

    async fn signal(&mut self, signal: Signal) -> Result<ExitStatus> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?;
        self.ended(GONE_WITHIN).await
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It has ended already where the test succeeded.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn temp_dir() -> Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    // PostgreSQL, which does not run as root, must be able to enter.
    let permissions = std::fs::Permissions::from_mode(0o755);
    Ok(tempfile::Builder::new().prefix("sluice-up-").permissions(permissions).tempdir()?)
}

/// The processes whose command line or working directory names the folder.
fn processes_of(dir: &Path) -> Vec<String> {
    let name = dir.to_string_lossy().into_owned();
    let of = |entry: std::fs::DirEntry| {
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let inside = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        (!command.is_empty() && (command.contains(&name) || inside)).then(|| format!("{pid} {command}"))
    };
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(of).collect()
}

fn sluice(dir: &Path) -> Result<Sluice> {
    let env = File::open(dir.join("data/env"))?;
    let mut sluice = Sluice::new(dir)?;
    for line in BufReader::new(env).lines() {
        let line = line?;
        let (name, value) = line.strip_prefix("export ").and_then(|line| line.split_once('=')).context("a variable")?;
        sluice = sluice.env(name, value);
    }
    Ok(sluice)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_keeps_data_and_key_and_an_end_leaves_nothing_behind() -> Result<()> {
    let temp = temp_dir()?;
    let dir = temp.path().canonicalize()?;
    let ports: [u16; 2] = free_ports(2)?.try_into().map_err(|_| anyhow::anyhow!("two ports"))?;
    let mut bystander = Command::new("sleep").arg("600").current_dir("/").stdin(Stdio::null()).spawn()?;

    let mut up = Up::start(&dir, ports, &[])?;
    up.ready().await?;
    let mine = sluice(&dir)?;
    mine.done(&["topics", "create", "demo/orders", "--partitions", "2"])?;
    ensure!(mine.with_input(b"a\nb\nc\n", &["produce", "demo/orders"])?.status.success(), "produce");
    let env = std::fs::read_to_string(dir.join("data/env"))?;

    // A second one on the same data says who is there, and one beside it which port is taken.
    let mut second = Up::start(&dir, ports, &[])?;
    ensure!(second.ended(READY_WITHIN).await?.code() == Some(1), "two on the same data");
    let pid = up.child.id().to_string();
    ensure!(second.text().contains(&pid) && second.text().contains("--data-dir"), "{}", second.text());

    ensure!(up.signal(Signal::SIGINT).await?.success(), "after Ctrl-C: {}", up.text());
    let left = processes_of(&dir);
    ensure!(left.is_empty(), "left behind: {left:#?}");
    ensure!(bystander.try_wait()?.is_none(), "a process of somebody else was ended");

    // The same data with every role a process.
    let mut up = Up::start(&dir, ports, &["--separate"])?;
    let took = up.ready().await?;
    println!("second start: {took:?}");
    ensure!(std::fs::read_to_string(dir.join("data/env"))? == env, "another key, or another address");
    let read = sluice(&dir)?.done(&["fetch", "demo/orders"])?;
    ensure!(read.lines().count() == 3, "{read}");
    let separate = processes_of(&dir);
    for role in ["control-plane", "provisioning", "billing", "gateway"] {
        ensure!(separate.iter().any(|line| line.contains(&format!("{role} --config"))), "{role}: {separate:#?}");
    }

    // A role that dies takes the rest along, in good order and by name.
    let gateway = separate.iter().find(|line| line.contains("gateway --config")).context("a gateway")?;
    let gateway: i32 = gateway.split(' ').next().context("a pid")?.parse()?;
    kill(Pid::from_raw(gateway), Signal::SIGKILL)?;
    ensure!(up.ended(GONE_WITHIN).await?.code() == Some(1), "after the gateway's end: {}", up.text());
    ensure!(up.text().contains("error: gateway-1") && up.text().contains("gateway-1.log"), "{}", up.text());
    let left = processes_of(&dir);
    ensure!(left.is_empty(), "left behind: {left:#?}");
    bystander.kill()?;
    bystander.wait()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_or_postgresql_that_dies_is_named_and_takes_everything_along() -> Result<()> {
    let temp = temp_dir()?;
    let dir = temp.path().canonicalize()?;
    let ports: [u16; 2] = free_ports(2)?.try_into().map_err(|_| anyhow::anyhow!("two ports"))?;
    for (process, name, log) in [("kafka.Kafka", "kafka-1", "server.log"), ("postgres -D", "postgres", "postgres.log")]
    {
        let mut up = Up::start(&dir, ports, &[])?;
        up.ready().await?;
        let all = processes_of(&dir);
        let victim = all.iter().find(|line| line.contains(process)).with_context(|| format!("{process}: {all:#?}"))?;
        kill(Pid::from_raw(victim.split(' ').next().context("a pid")?.parse()?), Signal::SIGKILL)?;
        let died = Instant::now();
        wait::until("it is said", Duration::from_secs(5), async || {
            let text = up.text();
            Ok((text.contains(&format!("error: {name} ended")) && text.contains(log)).then_some(()))
        })
        .await
        .with_context(|| up.text())?;
        ensure!(up.ended(GONE_WITHIN).await?.code() == Some(1), "after {name}'s end: {}", up.text());
        println!("{name}: ended after {:?}", died.elapsed());
        let left = processes_of(&dir);
        ensure!(left.is_empty(), "left behind: {left:#?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_with_its_flag_before_anything_starts() -> Result<()> {
    let temp = temp_dir()?;
    let dir = temp.path().canonicalize()?;
    let free = free_ports(1)?[0];
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    for (ports, flag) in [([port, free], "--port"), ([free, port], "--operator-port")] {
        let mut up = Up::start(&dir, ports, &[])?;
        ensure!(up.ended(READY_WITHIN).await?.code() == Some(1), "{}", up.text());
        let text = up.text();
        ensure!(text.contains(&format!("port {port}")) && text.contains(&format!("with {flag} ")), "{text}");
        ensure!(!dir.join("data/stack").exists(), "something was started");
    }
    Ok(())
}
