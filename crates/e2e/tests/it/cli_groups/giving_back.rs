//! What `sluice consume` took and could not put out is no failure of its records.

use std::fs::File;
use std::process::Output;

use super::*;

const COUNT: usize = 300;

/// Ends by itself: its exit code and its last words.
fn ended(output: &Output) -> Result<(Option<i32>, String)> {
    Ok((output.status.code(), String::from_utf8(output.stderr.clone())?))
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_could_not_be_written_are_no_dead_letters() -> Result<()> {
    let (it, one, two) = installation().await?;
    let group = "prod/strict";
    one.done(&["topics", "create", "prod/dead"])?;
    // No lease ends by itself while this runs: whatever is not given back stays away.
    let once = ["--dead-letter-topic", "dead", "--max-attempts", "1", "--ack-deadline", "10m"];
    one.done(&[&["groups", "create", group, "--topic", "orders"][..], &once].concat())?;
    publish(&one, "prod/orders", 0..COUNT as u32)?;
    let consume = |more: &[&'static str]| [&["consume", "--group", group, "-o", "json"][..], more].concat();

    // A full disk, by either transport.
    for transport in ["stream", "pull"] {
        let mut command = one.command(&consume(&["--transport", transport]));
        let (code, notes) = ended(&command.stdout(File::create("/dev/full")?).output()?)?;
        ensure!(code == Some(1) && notes.contains("No space left"), "{code:?}: {notes}");
        ensure!(notes.contains("0 records written, 0 acknowledged") && notes.contains(" given back"), "{notes}");
    }

    // A reader that has seen enough.
    let mut child = two.command(&consume(&[])).spawn()?;
    let mut output = child.stdout.take().context("its output")?;
    let (mut piped, mut byte) = (Vec::new(), [0]);
    while piped.iter().filter(|byte| **byte == b'\n').count() < 3 {
        output.read_exact(&mut byte)?;
        piped.push(byte[0]);
    }
    drop(output);
    let (code, notes) = ended(&tokio::task::block_in_place(|| child.wait_with_output())?)?;
    ensure!(code == Some(0) && notes.contains("3 records written, 3 acknowledged"), "{code:?}: {notes}");

    // A file that may not grow further: the lines that are whole are done, and no other.
    let path = it.local.dir.join("limited");
    let command = one.command(&consume(&[]));
    let mut limited = std::process::Command::new("/bin/sh");
    limited.args(["-c", "ulimit -f 8; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    limited.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.stdin(Stdio::null()).stdout(File::create(&path)?).stderr(Stdio::piped());
    let (code, notes) = ended(&limited.output()?)?;
    let text = std::fs::read_to_string(&path)?;
    let whole = text.rsplit_once('\n').context("a whole line")?.0;
    let count = whole.lines().count();
    ensure!(code == Some(1) && notes.contains("File too large"), "{code:?}: {notes}");
    ensure!(notes.contains(&format!("{count} records written, {count} acknowledged")), "{count}: {notes}");
    ensure!(text.ends_with('\n') || notes.contains("not whole"), "{notes}");

    // Each of the others comes, and none was given up.
    let left = COUNT - 3 - count;
    let rest = one.done(&consume(&["--max", left.to_string().leak()]))?;
    let mut seen: BTreeSet<u32> = values(std::str::from_utf8(&piped)?)?.into_iter().collect();
    seen.extend(values(whole)?);
    seen.extend(values(&rest)?);
    ensure!(seen.len() == COUNT, "{} of {COUNT}", seen.len());
    all_done(&one, group).await?;
    let dead = one.json(&["groups", "dead-letters", "list", group])?;
    ensure!(dead["deadLetters"].as_array().is_none_or(Vec::is_empty), "{dead}");
    it.stop().await
}
