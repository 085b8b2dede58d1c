//! `sluice` through the real program: what works, what is refused with which words and exit code, and what scripts read.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice_e2e::{Installation, Options};

use crate::program::Sluice;

async fn installation() -> Result<Installation> {
    Installation::start(Options { gateways: 1, ..Options::default() }).await
}

fn operator(it: &Installation) -> Result<Sluice> {
    Ok(Sluice::new(&it.local.dir)?
        .env("SLUICE_URL", &format!("http://{}", it.gateway(0)))
        .env("SLUICE_OPERATOR_URL", &format!("http://{}", it.local.operator))
        .env("SLUICE_OPERATOR_TOKEN_FILE", &it.local.operator_token_file.to_string_lossy()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_from_its_birth_to_its_usage() -> Result<()> {
    let it = installation().await?;
    let operator = operator(&it)?;
    ensure!(operator.json(&["tenants", "create", "acme"])?["name"] == "tenants/acme", "create");
    let key = operator.done(&["--quiet", "tenants", "issue-key", "acme"])?;
    let sluice = operator.env("SLUICE_API_KEY", key.trim());
    ensure!(sluice.json(&["whoami"])?["tenant"] == "acme", "whoami");
    let versions = sluice.json(&["version"])?;
    for part in ["version", "build"] {
        ensure!(versions["server"][part] == versions["client"][part], "of the same build: {versions}");
    }
    ensure!(
        versions["client"]["build"].as_str().is_some_and(|build| build.len() >= 7),
        "a commit or unknown: {versions}"
    );
    ensure!(versions["server"]["apiVersions"].as_array().is_some_and(|all| all.len() > 3), "{versions}");

    ensure!(sluice.json(&["namespaces", "create", "prod"])?["state"] == "STATE_ACTIVE", "namespace");
    let second = sluice.json(&["clusters", "create", "second"])?;
    ensure!(second == sluice.json(&["clusters", "get", "second"])? && second["uid"].is_string(), "{second}");
    for cluster in ["second", "first"] {
        let placed = sluice.json(&["clusters", "place", "acme/prod", cluster])?;
        ensure!(placed["cluster"] == format!("clusters/{cluster}"), "{placed}");
        let shown = sluice.json(&["clusters", "placement", "acme/prod"])?;
        ensure!(shown["cluster"] == placed["cluster"] && shown["etag"] == placed["etag"], "{shown}, not {placed}");
    }
    let topic = sluice.json(&["topics", "create", "prod/orders", "-p", "3", "--retention", "7d"])?;
    ensure!(topic["effectivePartitionCount"] == 3 && topic["retention"] == "604800s", "{topic}");
    for (args, field, count) in [
        (vec!["tenants", "list"], "tenants", 1),
        (vec!["clusters", "list"], "clusters", 2),
        (vec!["namespaces", "list"], "namespaces", 1),
        (vec!["topics", "list", "prod"], "topics", 1),
        (vec!["service-accounts", "list"], "serviceAccounts", 1),
        (vec!["keys", "list", "owner"], "apiKeys", 1),
        (vec!["operations", "list"], "operations", 2),
        (vec!["usage"], "topics", 1),
    ] {
        let json = sluice.json(&args)?;
        ensure!(json[field].as_array().map(Vec::len) == Some(count), "{args:?}: {json}");
    }

    let ndjson = br#"{"key":"N1","value":{"id":12345678901234567890},"headers":{"a":"b"},"partition":1}
{"key":"N1","value":"\u001b[2J","partition":1}
"#;
    let output = sluice.with_input(ndjson, &["produce", "prod/orders", "--format", "ndjson"])?;
    ensure!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    ensure!(String::from_utf8(output.stderr)? == "2 records persisted in prod/orders\n", "produce");
    let lines = sluice.done(&["fetch", "prod/orders", "--output", "json"])?;
    let first = lines.lines().next().context("a record")?;
    ensure!(first.contains(r#""keyText":"N1","valueJson":{"id":12345678901234567890}"#), "not as published: {first}");
    for line in lines.lines() {
        ensure!(serde_json::from_str::<serde_json::Value>(line)?["partition"] == 1, "{line}");
    }
    ensure!(!sluice.done(&["fetch", "prod/orders"])?.contains('\u{1b}'), "a record steers the terminal");

    // What was printed is published once more, unchanged.
    for topic in ["prod/source", "prod/copy"] {
        sluice.done(&["topics", "create", topic, "-p", "3"])?;
    }
    let nasty = br#"{"key":"1e5","value":1234567890.123456789,"headers":{"n":0.1000,"x":null,"x":""},"partition":2,"timestamp":"-1h"}
{"key":"007","value":"null","partition":0}
{"key":"k","value":null,"partition":1}
{"keyText":"k","value":"AAH/","headers":[{"name":"b","bytes":"/w=="},{"name":"b","text":"t"}],"partition":1}
{"value":{"a": 1.10, "a":123456789012345678901234567890},"partition":0}
{"value":"{\n}\n","partition":0}
"#;
    let output = sluice.with_input(nasty, &["produce", "prod/source", "--format", "ndjson"])?;
    ensure!(output.status.success(), "{output:?}");
    let source = sluice.done(&["fetch", "prod/source", "-o", "json"])?;
    for part in ["1234567890.123456789,", r#""text":"0.1000""#, r#"{"a": 1.10, "a":123456789012345678901234567890}"#] {
        ensure!(source.contains(part), "{part}: {source}");
    }
    let output = sluice.with_input(source.as_bytes(), &["produce", "prod/copy", "--format", "ndjson"])?;
    ensure!(output.status.success(), "{output:?}");
    let copy = sluice.done(&["fetch", "prod/copy", "-o", "json"])?;
    ensure!(source == copy && source.lines().count() == 6, "{source}\n{copy}");

    // Positions.
    let count = |from: &str| -> Result<usize> {
        Ok(sluice.done(&["fetch", "prod/orders", "--partition", "1", "--from", from])?.lines().count())
    };
    for (from, expected) in [("earliest", 2), ("1", 1), ("latest", 0), ("-1h", 2), ("2026-01-01T00:00:00Z", 2)] {
        let found = count(from)?;
        ensure!(found == expected, "--from {from}: {found}");
    }

    // Many, through few calls; `--max` is exact, and a reader that has seen enough is no failure.
    let many: String = (0..20_000).map(|i| format!("{i}\n")).collect();
    let output = sluice.with_input(many.as_bytes(), &["produce", "prod/orders", "--in-flight", "4"])?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(sluice.done(&["fetch", "prod/orders"])?.lines().count() == 20_002, "all of them");
    ensure!(sluice.done(&["fetch", "prod/orders", "--max", "7"])?.lines().count() == 7, "--max");
    let mut head = sluice.command(&["fetch", "prod/orders"]).stderr(Stdio::inherit()).spawn()?;
    drop(head.stdout.take());
    ensure!(head.wait()?.success(), "a closed pipe");

    // Accounts and keys.
    sluice.done(&["service-accounts", "create", "app", "--grant", "consumer@namespaces/prod"])?;
    let made = sluice.json(&["keys", "create", "app", "--expires-in", "1d"])?;
    let reader = sluice.clone().env("SLUICE_API_KEY", made["key"].as_str().context("the key's text")?);
    ensure!(reader.done(&["fetch", "prod/orders", "--max", "1"])?.lines().count() == 1, "a consumer reads");
    ensure!(
        reader.refused(1, &["topics", "delete", "prod/orders", "--yes"])?.contains("PermissionDenied"),
        "a consumer deletes"
    );
    let uid = made["uid"].as_str().context("its uid")?;
    sluice.done(&["keys", "revoke", &format!("app/{uid}")])?;
    ensure!(reader.refused(1, &["fetch", "prod/orders"])?.contains("Unauthenticated"), "a revoked key");

    let bare = sluice.json(&["service-accounts", "set-grants", "app", "--none"])?;
    ensure!(bare["grants"].as_array().is_some_and(Vec::is_empty), "{bare}");
    ensure!(sluice.refused(2, &["service-accounts", "delete", "app"])?.contains("--yes"), "it asks");
    sluice.done(&["service-accounts", "delete", "app", "--yes"])?;

    ensure!(sluice.done(&["usage", "--hours"])?.contains("prod/orders"), "usage");
    let coverage = sluice.json(&["usage", "--coverage"])?;
    ensure!(coverage["topics"][0]["coverage"].as_array().map(Vec::len) == Some(3), "{coverage}");
    // Only a change that adds partitions says that the order of keys breaks.
    let grown = sluice.run(&["topics", "update", "prod/orders", "-p", "4"])?;
    let notes = String::from_utf8(grown.stderr)?;
    ensure!(grown.status.success() && notes.contains("The partitions go from 3 to 4."), "{notes}");
    let kept = sluice.run(&["topics", "update", "prod/orders", "-p", "4", "--retention", "8d"])?;
    ensure!(kept.status.success() && kept.stderr.is_empty(), "{kept:?}");
    sluice.done(&["topics", "update", "prod/orders", "--deletion-protection", "true"])?;
    ensure!(sluice.refused(1, &["topics", "delete", "prod/orders", "--yes"])?.contains("protected"), "protected");
    sluice.done(&["topics", "update", "prod/orders", "--deletion-protection", "false"])?;
    ensure!(sluice.refused(2, &["topics", "delete", "prod/orders"])?.contains("--yes"), "it asks");
    sluice.done(&["topics", "delete", "prod/orders", "--yes"])?;
    ensure!(sluice.refused(1, &["fetch", "prod/orders"])?.contains("does not exist"), "a deleted topic");
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_says_what_would_be_right() -> Result<()> {
    let it = installation().await?;
    let tenant = it.tenant("acme").await?;
    let bare = operator(&it)?;
    let sluice = bare.clone().env("SLUICE_API_KEY", &tenant.key);
    sluice.done(&["namespaces", "create", "prod"])?;
    sluice.done(&["topics", "create", "prod/orders"])?;

    // The key: by the environment or a file, and never by an argument.
    ensure!(bare.json(&["version"])?.get("server").is_none(), "without a key nobody is asked");
    ensure!(bare.clone().env("SLUICE_API_KEY", "x").refused(2, &["version"])?.contains("not whole"), "a wrong key");
    ensure!(bare.refused(2, &["whoami"])?.contains("SLUICE_API_KEY"), "no key");
    ensure!(bare.clone().env("SLUICE_API_KEY", "").refused(2, &["whoami"])?.contains("no API key"), "an empty key");
    let short = bare.clone().env("SLUICE_API_KEY", &tenant.key[..tenant.key.len() - 1]).refused(2, &["whoami"])?;
    ensure!(short.contains("copy it again") && !short.contains(&tenant.key[..30]), "{short}");
    let file = it.local.dir.join("a-key");
    std::fs::write(&file, format!("{}\n", tenant.key))?;
    bare.done(&["--key-file", &file.to_string_lossy(), "whoami"])?;
    for flag in ["--key", "--api-key", "--api-key-from-environment-only"] {
        ensure!(bare.refused(2, &[flag, &tenant.key, "whoami"])?.contains("unexpected argument"), "{flag}");
    }
    for help in [vec!["--help"], vec!["fetch", "--help"], vec!["fetch"]] {
        let output = sluice.run(&help)?;
        let text = String::from_utf8([output.stdout, output.stderr].concat())?;
        ensure!(!text.contains(&tenant.key) && !text.contains("--api-key"), "{text}");
    }

    for (args, code, words) in [
        (vec!["fetch", "prod/nope"], 1, "namespaces/prod/topics/nope does not exist"),
        (vec!["topics", "get", "prod/nope"], 1, "RESOURCE_NOT_FOUND"),
        (vec!["fetch", "orders"], 2, "namespace/topic"),
        (vec!["fetch", "prod/orders", "--from", "yesterday"], 2, "2026-01-31T12:00:00Z"),
        (vec!["fetch", "prod/orders", "--from", "-5"], 2, "-1h"),
        (vec!["fetch", "prod/orders", "--from", "99"], 1, "0..0"),
        (vec!["fetch", "prod/orders", "--partition", "9"], 2, "partitions"),
        (vec!["usage", "--since", "soon"], 2, "-1h"),
        (vec!["topics", "create", "prod/orders"], 1, "exists already"),
        (vec!["topics", "create", "prod/x", "-p", "0"], 1, "1..1000"),
        (vec!["topics", "update", "prod/orders"], 2, "--retention"),
        (vec!["service-accounts", "create", "app", "--grant", "boss"], 2, "developer"),
        (vec!["service-accounts", "set-grants", "owner"], 2, "--none"),
        (vec!["tenants", "delete", "acme"], 2, "--yes"),
        (vec!["tenants", "get", "nope"], 1, "tenants/nope does not exist"),
        (vec!["clusters", "get", "nope"], 1, "clusters/nope does not exist"),
        (vec!["clusters", "place", "prod", "second"], 2, "tenant/namespace"),
        (vec!["--timeout", "0s", "whoami"], 2, "more than 0"),
        (vec!["--url", "nonsense", "whoami"], 2, "https://host:443"),
        (vec!["--url", "http://127.0.0.1:1", "whoami"], 1, "no connection to http://127.0.0.1:1"),
        (vec!["--url", &format!("https://{}", it.gateway(0)), "whoami"], 1, "try http://"),
        (vec!["--key-file", "/nowhere", "whoami"], 1, "/nowhere"),
        (vec!["--operator-token-file", "/nowhere", "tenants", "list"], 1, "--operator-token-file"),
    ] {
        let text = sluice.refused(code, &args)?;
        ensure!(text.contains(words), "{args:?}: {text}");
    }

    // A wrong line: what was before it is published, and told.
    let two = b"{\"value\":1}\n{\"vlaue\":2}\n{\"value\":3}\n";
    let output = sluice.with_input(two, &["produce", "prod/orders", "--format", "ndjson"])?;
    let text = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{text}");
    ensure!(text.contains("1 record persisted") && text.contains("line 2") && text.contains("vlaue"), "{text}");
    // The same, when it is the size, or the server that finds fault. A mark at the beginning is none.
    let large = [b"\xef\xbb\xbfa\nb\n".to_vec(), vec![b'x'; (1 << 20) + 1], b"\nd\n".to_vec()].concat();
    let reserved = b"\xef\xbb\xbf{\"value\":1}\n\n{\"value\":2}\n{\"headers\":{\"sluice-x\":1}}\n{\"value\":4}\n";
    for (input, format, at, words) in
        [(&large[..], "lines", "line 3", "1048576"), (reserved, "ndjson", "line 4", "headers[0].name")]
    {
        let output = sluice.with_input(input, &["produce", "prod/orders", "--format", format])?;
        let text = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1) && text.contains("2 records persisted"), "{text}");
        ensure!(text.contains(at) && text.contains(words) && !text.contains("records["), "{text}");
    }
    ensure!(sluice.done(&["fetch", "prod/orders", "--max", "2"])?.lines().count() == 2, "those before");
    // Which lines are stored, and which are not.
    let old = b"{\"value\":1}\n{\"value\":2,\"timestamp\":\"2001-01-01T00:00:00Z\"}\n{\"value\":3}\n";
    for (input, format, words) in [
        (
            &reserved[..],
            "ndjson",
            &["line 4: not persisted", "line 5: not sent", "behind line 5: nothing was sent"][..],
        ),
        (old, "ndjson", &["line 2: not persisted", "all others up to line 3: persisted"]),
        (b"x\na\0b\0\n\0", "lines", &["behind line 1: nothing was sent", "line 2: has a NUL byte", "iconv"]),
    ] {
        let output = sluice.with_input(input, &["produce", "prod/orders", "--format", format])?;
        let text = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1) && words.iter().all(|words| text.contains(words)), "{words:?}: {text}");
    }
    let output = sluice.with_input(b"x\n", &["produce", "prod/nope"])?;
    let text = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1) && text.contains("1 not persisted") && text.contains("exist"), "{text}");
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_pipe_is_published_as_it_comes_and_followed_as_it_is_published() -> Result<()> {
    let it = installation().await?;
    let tenant = it.tenant("acme").await?;
    let sluice = operator(&it)?.env("SLUICE_API_KEY", &tenant.key);
    sluice.done(&["namespaces", "create", "prod"])?;
    // More partitions than a follower has calls.
    sluice.done(&["topics", "create", "prod/orders", "-p", "20"])?;
    let requests = it.metric("gateway-1", "sluice_gateway_calls_total").await?;

    let mut follow = sluice.command(&["fetch", "prod/orders", "--follow", "--output", "json"]).spawn()?;
    let mut produce = sluice.command(&["produce", "prod/orders", "--in-flight", "4"]).stdin(Stdio::piped()).spawn()?;
    let mut input = produce.stdin.take().context("its input")?;
    let output = BufReader::new(follow.stdout.take().context("its output")?);
    let (lines, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
    let started = Instant::now();
    for i in 0..10 {
        // Each only after the one before has come out at the other end.
        writeln!(input, "line {i}")?;
        let line = tokio::task::block_in_place(|| seen.recv_timeout(Duration::from_secs(15)))?;
        ensure!(line.contains(&format!("line {i}")), "{line}");
    }
    let calls = it.metric("gateway-1", "sluice_gateway_calls_total").await? - requests;
    let seconds = started.elapsed().as_secs_f64();
    println!("{calls} calls in {seconds:.1} s");
    ensure!(
        calls > 10.0 && calls < 50.0 + 10.0 * seconds,
        "a follower asks too often: {calls} calls in {seconds:.1} s"
    );

    // Ctrl-C: what was begun is ended, and counted.
    kill(Pid::from_raw(i32::try_from(produce.id())?), Signal::SIGINT)?;
    let produced = tokio::task::block_in_place(|| produce.wait_with_output())?;
    let text = String::from_utf8(produced.stderr)?;
    ensure!(produced.status.code() == Some(130) && text.contains("10 records persisted"), "{text}");
    drop(input);
    kill(Pid::from_raw(i32::try_from(follow.id())?), Signal::SIGINT)?;
    follow.wait()?;
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_goes_away_is_waited_for_and_nothing_is_published_twice() -> Result<()> {
    let it = installation().await?;
    let tenant = it.tenant("acme").await?;
    let sluice = operator(&it)?.env("SLUICE_API_KEY", &tenant.key);
    sluice.done(&["namespaces", "create", "prod"])?;
    sluice.done(&["topics", "create", "prod/orders"])?;
    let mut produce = sluice.command(&["produce", "prod/orders"]).stdin(Stdio::piped()).spawn()?;
    let mut input = produce.stdin.take().context("its input")?;
    let notes = BufReader::new(produce.stderr.take().context("its notes")?);
    let (lines, notes_seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || notes.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
    let note = |words: &str| -> Result<()> {
        tokio::task::block_in_place(|| {
            while !notes_seen.recv_timeout(Duration::from_secs(30)).context(words.to_owned())?.contains(words) {}
            Ok(())
        })
    };
    let values = || -> Result<Vec<String>> {
        let lines = sluice.done(&["fetch", "prod/orders", "-o", "json"])?;
        let value = |line: &str| Ok(serde_json::from_str::<serde_json::Value>(line)?["valueText"].to_string());
        lines.lines().map(value).collect()
    };

    writeln!(input, "before")?;
    sluice_e2e::wait::until("the first record", Duration::from_secs(30), async || {
        Ok((values()?.len() == 1).then_some(()))
    })
    .await?;
    ensure!(it.process("gateway-1")?.stop(Duration::from_secs(35)).await.success(), "the gateway's end");
    writeln!(input, "while it is away")?;
    note("trying again")?;
    it.restart("gateway-1").await?;
    note("connected again")?;
    drop(input);
    note("2 records persisted")?;
    ensure!(tokio::task::block_in_place(|| produce.wait())?.success(), "its end");
    ensure!(values()? == [r#""before""#, r#""while it is away""#], "{:?}", values()?);
    it.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_speaks_tls_with_its_own_certificate() -> Result<()> {
    let it = installation().await?;
    let tenant = it.tenant("acme").await?;
    let issued = it.stack.ca().issue_server(&[])?.write(&it.local.dir.join("tls"), "public")?;
    it.set_extra("gateway-1", &format!("[tls]\ncert = {:?}\nkey = {:?}", issued.cert_file, issued.key_file))?;
    let grace = Duration::from_secs(35);
    ensure!(it.process("gateway-1")?.stop(grace).await.success(), "the gateway's end");
    it.restart("gateway-1").await?;

    let ca = it.local.connection.ca_file.to_string_lossy().into_owned();
    let url = format!("https://{}", it.gateway(0));
    let sluice = operator(&it)?.env("SLUICE_API_KEY", &tenant.key).env("SLUICE_URL", &url);
    ensure!(sluice.json(&["--ca-file", &ca, "whoami"])?["tenant"] == "acme", "with the CA");
    ensure!(sluice.refused(1, &["whoami"])?.contains("--ca-file"), "without the CA");
    let plain = format!("http://{}", it.gateway(0));
    ensure!(sluice.refused(1, &["--url", &plain, "whoami"])?.contains("https://"), "without TLS");
    it.stop().await
}
