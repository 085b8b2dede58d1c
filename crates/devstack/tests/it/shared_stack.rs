//! The stack that the tests of a process, or of a whole run, share.

use std::process::{Command, Stdio};

use sluice_devstack::{ADMIN, shared};

use crate::support::{CALL, produce, topic};

#[test]
fn tests_in_one_process_get_the_same_stack_also_from_different_runtimes() {
    let ask = || {
        std::thread::spawn(|| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async { shared().await.unwrap().kafka().unwrap().bootstrap.clone() })
        })
    };
    let (one, other) = (ask(), ask());
    assert_eq!(one.join().unwrap(), other.join().unwrap());

    // The runtimes that started it are gone; it serves nevertheless.
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let client = shared().await.unwrap().kafka().unwrap().client(ADMIN).unwrap();
        let name = format!("shared-{}", std::process::id());
        client.create_topic(&topic(&name, 1), CALL).await.unwrap();
        assert_eq!(produce(&client, &name, "x", CALL).await, 0);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_below_a_run_uses_the_stack_of_the_run() {
    let run = shared().await.unwrap();
    let test = "shared_stack::tests_in_one_process_get_the_same_stack_also_from_different_runtimes";
    let start = |file: &str| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test]).env("SLUICE_TEST_STACK", run.dir.join(file));
        child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };

    let mut child = start("stack.json");
    assert!(child.wait().unwrap().success());
    let client = run.kafka().unwrap().client(ADMIN).unwrap();
    let made = client.metadata(&[&format!("shared-{}", child.id())], CALL).await.unwrap();
    assert!(made.topics.iter().all(|topic| topic.error.is_none()), "it made its topic here: {made:?}");

    let refused = start("absent.json").wait().unwrap();
    assert!(!refused.success(), "a named stack that is not there is an error, never a reason to start another");
}
