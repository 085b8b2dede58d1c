//! Supervised processes.

use std::time::Duration;

use sluice_devstack::{Error, ProcessSpec, Ready, Signal, Supervisor};

use crate::support::{alive, eventually};

const SOON: Duration = Duration::from_secs(10);

fn sh(dir: &std::path::Path, script: &str) -> ProcessSpec {
    ProcessSpec::new("script", "sh", dir.join("script.log")).args(["-c", script]).current_dir(dir)
}

#[tokio::test]
async fn a_process_gets_its_arguments_environment_directory_and_log() {
    let supervisor = Supervisor::new().unwrap();
    let dir = supervisor.temp_dir("sluice-test-").unwrap();
    let spec = sh(&dir, "echo $0 $WORD; pwd; echo oops >&2; read -r x; exit 7").args(["first"]).env("WORD", "spoken");

    let process = supervisor.spawn(&spec).unwrap();
    let status = process.wait().await;

    assert_eq!(status.code(), Some(7), "standard input is empty, so read returns");
    let log = std::fs::read_to_string(process.log_file()).unwrap();
    assert_eq!(log, format!("first spoken\n{}\noops\n", dir.display()));
}

#[tokio::test]
async fn a_process_is_ready_by_file_or_says_why_not() {
    let supervisor = Supervisor::new().unwrap();
    let dir = supervisor.temp_dir("sluice-test-").unwrap();
    let ready = Ready::File(dir.join("ready"));

    let process = supervisor.spawn(&sh(&dir, "echo up >ready; exec sleep 1000")).unwrap();
    process.ready(&ready, SOON).await.unwrap();
    process.kill9().await;

    std::fs::remove_file(dir.join("ready")).unwrap();
    let error = supervisor.spawn(&sh(&dir, "echo bad config; exit 64")).unwrap().ready(&ready, SOON).await.unwrap_err();
    assert!(matches!(&error, Error::Ended { .. }));
    assert!(error.to_string().contains("bad config") && error.to_string().contains("64"), "{error}");
}

#[tokio::test]
async fn a_process_is_ready_by_http_once_it_answers_200() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let supervisor = Supervisor::new().unwrap();
    let dir = supervisor.temp_dir("sluice-test-").unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answers = ["HTTP/1.1 503 no\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"];
    let server = tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0_u8; 256];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });

    let process = supervisor.spawn(&sh(&dir, "exec sleep 1000")).unwrap();
    process.ready(&Ready::Http(address, "/readyz".to_owned()), SOON).await.unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn pause_and_resume_hold_for_the_whole_group() {
    let supervisor = Supervisor::new().unwrap();
    let dir = supervisor.temp_dir("sluice-test-").unwrap();
    // The work is done by a child of the process, in its group. The other one shows that time passes.
    let script = "sh -c 'while :; do echo x >>beat; sleep 0.01; done' & wait";
    let process = supervisor.spawn(&sh(&dir, script)).unwrap();
    let free_dir = supervisor.temp_dir("sluice-test-").unwrap();
    let _free = supervisor.spawn(&sh(&free_dir, script)).unwrap();
    let beats_in = |dir: &std::path::Path| std::fs::metadata(dir.join("beat")).map_or(0, |meta| meta.len());
    let (beats, free_beats) = (|| beats_in(&dir), || beats_in(&free_dir));
    eventually("both beat", SOON, async || beats() > 0 && free_beats() > 0).await;

    process.pause().await.unwrap();
    let (before, free_before) = (beats(), free_beats());
    eventually("the other one beats on", SOON, async || free_beats() > free_before + 40).await;
    assert_eq!(beats(), before, "stopped means that nothing moves");

    process.resume();
    eventually("it beats again", SOON, async || beats() > before).await;
}

#[tokio::test]
async fn stop_is_polite_first_and_sure_in_the_end() {
    let supervisor = Supervisor::new().unwrap();
    let dir = supervisor.temp_dir("sluice-test-").unwrap();
    let ready = Ready::File(dir.join("ready"));

    let polite = sh(&dir, "trap 'exit 0' TERM; echo up >ready; while :; do sleep 0.05; done");
    let polite = supervisor.spawn(&polite).unwrap();
    polite.ready(&ready, SOON).await.unwrap();
    assert_eq!(polite.stop(SOON).await.code(), Some(0));

    std::fs::remove_file(dir.join("ready")).unwrap();
    let deaf = supervisor.spawn(&sh(&dir, "trap '' TERM; echo up >ready; while :; do sleep 0.05; done")).unwrap();
    deaf.ready(&ready, SOON).await.unwrap();
    let status = deaf.stop(Duration::from_millis(200)).await;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::SIGKILL as i32));

    assert!(!alive(polite.pid()) && !alive(deaf.pid()));
    deaf.signal(Signal::SIGTERM);
    assert_eq!(deaf.exit_status(), Some(status), "a signal to an ended process is no error");
}
