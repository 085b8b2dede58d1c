//! kill -9 at every fail point: the next process finishes what was begun; nothing is missing, nothing is left over.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use sluice_devstack::Signal;
use sluice_proto::internal::control::v1::report_topic_request::Observed;
use sluice_provisioning::config::Config;
use sluice_provisioning::{App, FAIL_POINTS};
use tokio_util::sync::CancellationToken;

use crate::support::{World, stack};

const CONFIG: &str = "SLUICE_TEST_PROVISIONING_CONFIG";

/// Not a test: the process that the test below starts and that dies.
#[tokio::test]
#[ignore = "started by a_death_at_any_point_leaves_nothing_undone_and_nothing_behind"]
#[allow(clippy::disallowed_methods, reason = "this is the main of a process, and the environment its arguments")]
async fn provisioning() {
    let Ok(path) = std::env::var(CONFIG) else { return };
    let config: Config = sluice_runtime::config::load(Path::new(&path)).unwrap();
    App::build(config).await.unwrap().run(CancellationToken::new()).await.unwrap();
}

fn start(config: &Config, dir: &Path) -> Child {
    let path = dir.join("provisioning.toml");
    std::fs::write(&path, toml::to_string(config).unwrap()).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash::provisioning", "--ignored"]).env(CONFIG, path);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn a_death_at_any_point_leaves_nothing_undone_and_nothing_behind() {
    stack().await;
    for place in FAIL_POINTS {
        let world = World::new().await;
        let running = world.start().await;
        let (growing, leaving) = (world.plane.want(1, &[]), world.plane.want(2, &[]));
        for uid in [&growing, &leaving] {
            world.until("made", uid, |known| known.observed == Observed::Ready).await;
        }
        world.write(&leaving, 1, 3).await;
        running.stop().await;

        let coming = world.plane.want(2, &[]);
        world.plane.change(&growing, |intent| intent.partitions = 3);
        world.plane.delete(&leaving);
        let mut config = world.config("one").await;
        config.testing.crash_at = Some(place.to_owned());
        let mut child = start(&config, world.dir.path());
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGABRT as i32), "dies at {place}");

        // Another one that began at the moment of death, and was not wanted for long.
        let brief = world.plane.want(1, &[]);
        world.plane.delete(&brief);
        world.plane.lease_runs_out();
        let running = world.start().await;
        for uid in [&coming, &growing] {
            let grown = |known: &crate::plane::Known| known.observed == Observed::Ready && known.settled;
            world.until(place, uid, grown).await;
        }
        for uid in [&leaving, &brief] {
            world.until(place, uid, |known| known.observed == Observed::Gone).await;
            assert!(world.physical(uid).await.is_none(), "{place}");
        }
        assert_eq!(world.plane.known(&leaving).intent.final_end_offsets, [0, 3], "{place}");
        assert_eq!(world.physical(&coming).await.unwrap().partitions.len(), 2, "{place}");
        assert_eq!(world.physical(&growing).await.unwrap().partitions.len(), 3, "{place}");
        running.stop().await;
    }
}
