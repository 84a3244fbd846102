//! Real commands.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use warren_connectors::exec::runner;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::pipeline::outside::{CommandEnd, CommandLine, Hidden};
use warren_testkit::wait::wait_until_async;

const SOON: Duration = Duration::from_secs(30);

fn shell(script: &str) -> CommandLine {
    CommandLine {
        program: "sh".into(),
        arguments: vec!["-c".into(), script.into()],
        environment: Vec::new(),
        stdin: Bytes::from_static(b"{\"a\":1}"),
        output_bytes_max: 1 << 20,
    }
}

async fn run(command: &CommandLine) -> Result<CommandEnd, Failure> {
    tokio::time::timeout(SOON, runner().run(command)).await.unwrap()
}

/// Whether a process is there and not only waiting to be noticed by its parent.
fn lives(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

async fn pid_in(file: &Path) -> String {
    wait_until_async("the command has started its child", SOON, async || {
        std::fs::read_to_string(file).is_ok_and(|text| text.ends_with('\n'))
    })
    .await;
    std::fs::read_to_string(file).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_command_reads_its_input_and_its_end_is_told() {
    let end = run(&shell("cat; echo err >&2; exit 65")).await.unwrap();
    assert_eq!((end.code, &end.stdout[..], &end.stderr[..]), (65, &b"{\"a\":1}"[..], &b"err\n"[..]));
    // One that reads nothing of a large input is no error.
    let mut deaf = shell("exit 75");
    deaf.stdin = Bytes::from(vec![b'x'; 1 << 20]);
    assert_eq!(run(&deaf).await.unwrap().code, 75);
    let mut large = shell("cat");
    large.stdin = Bytes::from(vec![b'x'; 1 << 20]);
    assert_eq!(run(&large).await.unwrap().stdout.len(), 1 << 20);
}

#[tokio::test]
async fn arguments_stay_what_they_are() {
    let mut command = shell("");
    command.program = "printf".into();
    command.arguments = vec!["%s|".into(), "a b".into(), "$(id)".into(), "'\"; rm".into()];
    assert_eq!(&run(&command).await.unwrap().stdout[..], b"a b|$(id)|'\"; rm|");
}

#[tokio::test]
async fn the_environment_is_not_passed_on() {
    // Cargo sets this for tests.
    assert!(std::env::var("CARGO_MANIFEST_DIR").is_ok());
    let mut command = shell("env");
    command.environment = vec![("TOKEN".into(), Hidden("swordfish".into()))];
    let end = run(&command).await.unwrap();
    let environment = String::from_utf8_lossy(&end.stdout);
    assert!(environment.contains("PATH=") && environment.contains("TOKEN=swordfish"), "{environment}");
    assert!(!environment.contains("CARGO"), "{environment}");
    assert!(!format!("{command:?}").contains("swordfish"));
}

#[tokio::test]
async fn what_cannot_be_started_is_signalled_or_writes_too_much_is_told() {
    let mut missing = shell("");
    missing.program = "/nowhere/command".into();
    let failure = run(&missing).await.unwrap_err();
    assert_eq!((failure.kind, failure.code), (FailureKind::NotFound, codes::COMMAND_FAILED));
    let failure = run(&shell("kill -9 $$")).await.unwrap_err();
    assert_eq!((failure.kind, failure.code), (FailureKind::Disconnected, codes::COMMAND_FAILED));
    let mut loud = shell("head -c 100000 /dev/zero");
    loud.output_bytes_max = 1000;
    assert_eq!(run(&loud).await.unwrap_err().code, codes::ANSWER_TOO_LARGE);
}

#[tokio::test]
async fn a_command_that_is_dropped_is_gone_with_the_children_of_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    // A child of a child, deaf to the polite signals.
    let script =
        format!("sh -c 'trap \"\" TERM INT HUP; sleep 1000 & echo $! > {}; wait' & wait", file.display());
    let command = shell(&script);
    let runner = runner();
    let mut running = Box::pin(runner.run(&command));
    let grandchild = tokio::select! {
        end = &mut running => panic!("it ended: {end:?}"),
        pid = pid_in(&file) => pid,
    };
    assert!(lives(&grandchild));
    drop(running);
    wait_until_async("the child of the child is gone", SOON, async || !lives(&grandchild)).await;
}

#[tokio::test]
async fn what_a_command_leaves_behind_is_gone_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    // It holds the pipes open: without a kill nobody would see their end.
    let end = run(&shell(&format!("sleep 1000 & echo $! > {}; echo done", file.display()))).await.unwrap();
    assert_eq!((end.code, &end.stdout[..]), (0, &b"done\n"[..]));
    let left = pid_in(&file).await;
    wait_until_async("what was left behind is gone", SOON, async || !lives(&left)).await;
}
