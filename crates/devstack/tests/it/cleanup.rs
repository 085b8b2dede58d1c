//! Nothing outlives its owner: after a normal end, a panic, and `kill -9`, with children running, stopped and deaf.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sluice_devstack::{Connection, ProcessSpec, Ready, Stack, Supervisor};

use crate::support::{START_WITHIN, alive, devstack, eventually, open_temp_dir, processes_of};

/// What the crate promises.
const GONE_WITHIN: Duration = Duration::from_secs(10);

async fn stack_below(temp: &Path) -> PathBuf {
    let find = || {
        let entries = std::fs::read_dir(temp).unwrap().flatten();
        entries.map(|entry| entry.path()).find(|path| path.join("stack.json").exists())
    };
    eventually("the stack serves", START_WITHIN, async || find().is_some()).await;
    find().unwrap()
}

async fn all_gone(pids: &[u32], dir: &Path) {
    let start = Instant::now();
    eventually("all processes and files are gone", GONE_WITHIN, async || {
        !dir.exists() && !pids.iter().any(|pid| alive(*pid))
    })
    .await;
    println!("gone after {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_owner_leaves_neither_kafka_nor_postgres_nor_files() {
    let temp = open_temp_dir();
    let mut owner = devstack(temp.path(), &["serve"]);
    let dir = stack_below(temp.path()).await;
    let pids = processes_of(owner.id(), temp.path());
    assert!(pids.len() >= 8, "java, postgres and its sessions, the watchdog: {pids:?}");

    owner.kill().unwrap();
    owner.wait().unwrap();

    all_gone(&pids, &dir).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_takes_its_command_with_it() {
    let temp = open_temp_dir();
    let mut owner = devstack(temp.path(), &["run", "--", "sh", "-c", "trap '' TERM; sleep 1000 & wait"]);
    let dir = stack_below(temp.path()).await;
    let command =
        || processes_of(owner.id(), temp.path()).into_iter().find(|pid| command_line(*pid).contains("sleep 1000"));
    eventually("the command runs", START_WITHIN, async || command().is_some()).await;
    let pids = processes_of(owner.id(), temp.path());

    owner.kill().unwrap();
    owner.wait().unwrap();

    all_gone(&pids, &dir).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_returns_the_commands_exit_code_and_hands_it_the_stack() {
    let temp = open_temp_dir();
    let script = "cp \"$SLUICE_TEST_STACK\" \"$TMPDIR/seen.json\"; exit 42";
    let mut owner = devstack(temp.path(), &["run", "--", "sh", "-c", script]);
    let status = tokio::task::spawn_blocking(move || owner.wait().unwrap()).await.unwrap();

    assert_eq!(status.code(), Some(42));
    let seen = Connection::read(&temp.path().join("seen.json")).unwrap();
    assert!(seen.kafka.is_some() && seen.postgres.is_some());
    assert!(!seen.dir.exists(), "the stack ended before its owner did");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_stops_its_command_and_everything_else() {
    let temp = open_temp_dir();
    let mut owner = devstack(temp.path(), &["run", "--", "sleep", "1000"]);
    let dir = stack_below(temp.path()).await;
    eventually("the command runs", START_WITHIN, async || {
        processes_of(owner.id(), temp.path()).iter().any(|pid| command_line(*pid).contains("sleep"))
    })
    .await;
    let pids = processes_of(owner.id(), temp.path());

    nix::sys::signal::kill(nix::unistd::Pid::from_raw(owner.id() as i32), nix::sys::signal::Signal::SIGINT).unwrap();
    tokio::task::spawn_blocking(move || owner.wait().unwrap()).await.unwrap();

    assert!(pids.iter().all(|pid| !alive(*pid)) && !dir.exists(), "an owner that ends in order is the last to go");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stack_is_gone_when_drop_returns_even_with_stopped_processes() {
    let stack = Stack::builder().build().await.unwrap();
    stack.kafka().unwrap().pause(1).await.unwrap();
    stack.postgres().unwrap().pause().await.unwrap();
    let dir = stack.dir().to_path_buf();
    let pids = processes_of(stack.postgres().unwrap().pid().unwrap(), &dir);
    assert!(pids.len() >= 7, "java, postgres and its sessions: {pids:?}");

    let start = Instant::now();
    drop(stack);

    assert!(pids.iter().all(|pid| !alive(*pid)) && !dir.exists());
    assert!(start.elapsed() < GONE_WITHIN);
}

#[test]
fn a_panic_ends_the_stack_it_unwinds() {
    let (send, receive) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let stack = Stack::builder().without_kafka().build().await.unwrap();
            send.send((stack.postgres().unwrap().pid().unwrap(), stack.dir().to_path_buf())).unwrap();
            panic!("as a failed assertion does");
        });
    })
    .join();

    let (pid, dir) = receive.recv().unwrap();
    assert!(panicked.is_err() && !alive(pid) && !dir.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_left_alone() {
    let stranger = Supervisor::new().unwrap();
    let dir = stranger.temp_dir("sluice-test-").unwrap();
    let bystander = stranger.spawn(&ProcessSpec::new("bystander", "sleep", dir.join("log")).args(["1000"])).unwrap();
    let kept = tempfile::tempdir().unwrap();

    let supervisor = Supervisor::new().unwrap();
    let own = supervisor.temp_dir("sluice-test-").unwrap();
    let ended = supervisor.spawn(&ProcessSpec::new("ended", "true", own.join("log"))).unwrap();
    ended.wait().await;
    // Ours in name only: without its mark a directory is not removed.
    std::fs::remove_file(own.join(".sluice-temporary")).unwrap();
    drop(supervisor);

    assert!(alive(bystander.pid()) && kept.path().exists() && own.exists());
    std::fs::remove_dir_all(own).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn children_in_the_group_of_an_ended_process_end_too() {
    let supervisor = Supervisor::new().unwrap();
    let dir = supervisor.temp_dir("sluice-test-").unwrap();
    let script = "sleep 1000 & echo $! >child; while :; do sleep 0.05; done";
    let spec = ProcessSpec::new("parent", "sh", dir.join("log")).args(["-c", script]).current_dir(&dir);
    let parent = supervisor.spawn(&spec).unwrap();
    parent.ready(&Ready::File(dir.join("child")), GONE_WITHIN).await.unwrap();
    let child: u32 = std::fs::read_to_string(dir.join("child")).unwrap().trim().parse().unwrap();

    drop(supervisor);

    assert!(!alive(parent.pid()) && !alive(child));
}

fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}
