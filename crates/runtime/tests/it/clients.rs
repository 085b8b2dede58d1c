//! An answer that does not wait for the request's body reaches its client: real clients of five languages, over HTTP/1.1 in
//! plain and over TLS, where those that can speak HTTP/2.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use sluice_runtime::server::Edge;
use sluice_runtime::tls::ReloadingTls;
use tokio::process::Command;

use crate::support::{PATIENCE, Pki, REFUSED_AT, Server};

/// Requests of each kind that a client makes, one after the other.
const COUNT: usize = 3;

struct Language {
    name: &'static str,
    command: Vec<PathBuf>,
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_five_languages_get_the_answer_that_did_not_wait_for_their_body() {
    let pki = Pki::new();
    let tls = ReloadingTls::load(&pki.public("public")).expect("TLS");
    let plain = Server::start(Edge::default(), None, PATIENCE).await;
    let secure = Server::start(Edge::default(), Some(tls), PATIENCE).await;
    let bases = [format!("http://{}", plain.addr), format!("https://localhost:{}", secure.addr.port())];
    // Refused unread, large and small; and refused while it is read.
    let cases = [("/refuse/401", 6 << 20), ("/refuse/429", 10_000), ("/limited", 10 << 20)];

    let mut wrong = Vec::new();
    for language in languages(pki.dir.path()).await {
        for base in &bases {
            for (path, size) in cases {
                let status = path.rsplit('/').next().and_then(|last| last.parse().ok()).unwrap_or(REFUSED_AT.1);
                let got = run(&language, &format!("{base}{path}"), size).await;
                if got != vec![status.to_string(); COUNT] {
                    wrong.push(format!("{} {base}{path} with {size} bytes: {got:?}", language.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

async fn run(language: &Language, url: &str, size: usize) -> Vec<String> {
    let [program, args @ ..] = language.command.as_slice() else { unreachable!("each has a program") };
    let mut command = Command::new(program);
    command.args(args).arg(url).args([size.to_string(), COUNT.to_string()]).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = command.output().await.unwrap_or_else(|error| panic!("run {}: {error}", program.display()));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// The programs, compiled where the language asks for it. `dev/deps.sh` names what they need.
async fn languages(dir: &Path) -> Vec<Language> {
    let source = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name);
    let go = dir.join("client-go");
    compile(Command::new("go").arg("build").arg("-o").arg(&go).arg(source("client.go")).env("GO111MODULE", "off"))
        .await;
    compile(Command::new("javac").arg("-d").arg(dir).arg(source("Client.java"))).await;
    let with = |name, program: &str, args: &[&Path]| {
        let command = std::iter::once(program.into()).chain(args.iter().map(|arg| arg.to_path_buf())).collect();
        Language { name, command }
    };
    vec![
        with("Python", "python3", &[&source("client.py")]),
        with("Go", &go.to_string_lossy(), &[]),
        with("Node", "node", &[&source("client.mjs")]),
        with("Java", "java", &[Path::new("-cp"), dir, Path::new("Client")]),
        with("curl", "bash", &[&source("client.sh")]),
    ]
}

async fn compile(command: &mut Command) {
    let output = command.output().await.expect("the compiler is there: dev/deps.sh installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
