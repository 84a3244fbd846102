//! Killed at any moment: what was recorded is there, what was held is free.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use warren_engine::ports::{Leases, Records};
use warren_engine::run::{RunId, RunKind, RunState};
use warren_store::state::{Order, OutcomeFilter, Retention, SqliteState, State};

use super::{NOW, World, many, rejected};

const FOLDER: &str = "WARREN_TEST_STATE_FOLDER";
const ROWS_EACH: u64 = 37;

/// What the child does: takes the lease, and records rows until it is killed, saying so after each append.
#[tokio::test]
#[ignore = "not a test: the process that the tests of this file kill"]
async fn child() {
    let folder = std::env::var(FOLDER).unwrap();
    let state = SqliteState::open(Path::new(&folder), Retention::default()).unwrap();
    let _lease = state.take("customers").await.unwrap().expect("free");
    let run = state.begin("customers", RunKind::Changes).await.unwrap();
    let mut record = state.run(run).await.unwrap().unwrap();
    record.state = RunState::Sending;
    state.update(&record).await.unwrap();
    for turn in 0u64.. {
        state.append(run, many(turn * ROWS_EACH, ROWS_EACH, NOW)).await.unwrap();
        println!("appended {turn}");
        std::io::stdout().flush().unwrap();
    }
}

/// Starts the child and waits until it has appended so often; kills it; returns the last append it spoke of.
fn killed_after(folder: &Path, appends: u64) -> u64 {
    let (mut child, mut lines) = started(folder);
    let mut last = wait_for(&mut lines, appends);
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    for line in lines.map_while(Result::ok) {
        last = appended(&line).unwrap_or(last);
    }
    last
}

fn started(folder: &Path) -> (Child, impl Iterator<Item = std::io::Result<String>> + use<>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "state::crash::child", "--ignored", "--nocapture", "--test-threads", "1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

fn wait_for(lines: &mut impl Iterator<Item = std::io::Result<String>>, appends: u64) -> u64 {
    lines
        .map_while(Result::ok)
        .filter_map(|line| appended(&line))
        .find(|turn| *turn >= appends)
        .expect("the child appends until it is killed")
}

fn appended(line: &str) -> Option<u64> {
    line.split_once("appended ")?.1.parse().ok()
}

#[tokio::test]
async fn what_was_recorded_before_a_kill_is_there() {
    let world = World::new();
    for round in 0..10 {
        let last = killed_after(&world.path(), fastrand::u64(..40));
        let run = RunId(round + 1);
        let filter = OutcomeFilter { run: Some(run), order: Order::OldestFirst, ..OutcomeFilter::default() };
        let keys = world.keys(filter).await;
        // 1: every append that returned, whole; perhaps the one that had not yet returned, whole as well.
        let appends = keys.len() as u64 / ROWS_EACH;
        assert_eq!(keys.len() as u64 % ROWS_EACH, 0, "round {round}");
        assert!((last + 1..=last + 2).contains(&appends), "round {round}: {appends} of {last}");
        assert!(keys.iter().enumerate().all(|(at, key)| *key == at.to_string()), "round {round}");
        // 2: the run is shown as interrupted, with that many rows.
        let shown = world.state.run(run).await.unwrap().unwrap();
        assert_eq!(shown.state, RunState::Interrupted);
        assert_eq!(shown.counts.sent.added, keys.len() as u64);
    }
}

#[tokio::test]
async fn another_process_is_seen_and_its_lease_is_free_after_a_kill() {
    let world = World::new();
    let (mut child, mut lines) = started(&world.path());
    wait_for(&mut lines, 3);
    // 1: it is seen as the holder, its run as under way.
    let who = format!("process {}", child.id());
    assert_eq!(world.state.take("customers").await.unwrap().err().unwrap().who, who);
    assert_eq!(world.state.holder("customers").await.unwrap().unwrap().who, who);
    assert_eq!(world.state.run(RunId(1)).await.unwrap().unwrap().state, RunState::Sending);
    // 2: we read what it writes, and write beside it.
    let theirs = OutcomeFilter { key: Some("5".into()), ..OutcomeFilter::default() };
    assert_eq!(world.keys(theirs).await, ["5"]);
    let run = world.state.begin("orders", RunKind::Changes).await.unwrap();
    for _ in 0..50 {
        world.state.append(run, vec![rejected("ours", NOW)]).await.unwrap();
    }
    let ours = OutcomeFilter { sync: Some("orders".into()), ..OutcomeFilter::default() };
    assert_eq!(world.keys(ours).await.len(), 50);
    let before = wait_for(&mut lines, 0);
    wait_for(&mut lines, before + 1);
    // 3: killed, it holds nothing.
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(world.state.holder("customers").await.unwrap(), None);
    assert!(world.state.take("customers").await.unwrap().is_ok());
}
