//! Runs: on record, under way, interrupted; leases.

use std::collections::BTreeMap;

use warren_engine::codes;
use warren_engine::ports::{Leases, Records};
use warren_engine::run::{PerOp, RowOutcome, RowStatus, RunError, RunId, RunKind, RunState};
use warren_store::state::{RunFilter, SqliteState, State};

use super::{DAY, NOW, World, kept, many, rejected, sent};

fn null_key() -> RowOutcome {
    RowOutcome {
        change: None,
        op: None,
        key: "null".to_owned(),
        status: RowStatus::Rejected,
        code: Some(codes::NULL_KEY),
        outbound: None,
        attempts: Vec::new(),
    }
}

#[tokio::test]
async fn a_run_comes_back_as_it_was_written() {
    let world = World::new();
    let run = world.state.begin("customers", RunKind::Full).await.unwrap();
    let mut record = world.state.run(run).await.unwrap().unwrap();
    assert_eq!((record.kind, record.state, record.started_at), (RunKind::Full, RunState::Queued, NOW));
    record.state = RunState::Failed;
    record.ended_at = Some(NOW + 5);
    record.counts.rows = 7;
    record.counts.sent = PerOp { added: 1, changed: 2, removed: 3 };
    record.times.total_ms = 5;
    record.error =
        Some(RunError { code: "gave-up".into(), message: "no".into(), remedy: Some("wait".into()) });
    world.state.update(&record).await.unwrap();
    assert_eq!(world.state.run(run).await.unwrap(), Some(record));
    assert_eq!(world.state.run(RunId(run.0 + 1)).await.unwrap(), None);
}

#[tokio::test]
async fn runs_are_listed_newest_first() {
    let world = World::new();
    let first = world.run_of("customers", vec![]).await;
    world.set_time(NOW + DAY);
    let second = world.run_of("orders", vec![]).await;
    let third = world.run_of("customers", vec![]).await;
    world.end(third, RunState::Warning).await;
    let numbers = async |filter: RunFilter| -> Vec<RunId> {
        world.state.runs(&filter).await.unwrap().iter().map(|run| run.id).collect()
    };
    let all = RunFilter::default();
    assert_eq!(numbers(all.clone()).await, [third, second, first]);
    assert_eq!(numbers(RunFilter { sync: Some("customers".into()), ..all.clone() }).await, [third, first]);
    assert_eq!(numbers(RunFilter { since: Some(NOW + 1), ..all.clone() }).await, [third, second]);
    assert_eq!(numbers(RunFilter { limit: Some(1), ..all.clone() }).await, [third]);
    assert_eq!(numbers(RunFilter { states: vec![RunState::Success], ..all }).await, [second, first]);
}

#[tokio::test]
async fn a_run_whose_holder_is_gone_is_interrupted_with_what_it_recorded() {
    let world = World::new();
    let lease = world.state.take("customers").await.unwrap().expect("free");
    let run = world.state.begin("customers", RunKind::Changes).await.unwrap();
    let mut record = world.state.run(run).await.unwrap().unwrap();
    record.state = RunState::Sending;
    record.counts.rows = 100;
    record.counts.planned.added = 4;
    world.state.update(&record).await.unwrap();
    let outcomes = vec![sent("1", NOW + 10), sent("2", NOW + 20), rejected("3", NOW + 30), null_key()];
    let body_bytes = outcomes[..2]
        .iter()
        .map(|outcome| outcome.outbound.as_ref().unwrap().message.body.len() as u64)
        .sum::<u64>();
    world.state.append(run, outcomes).await.unwrap();
    // 1: as long as the lease is held it is under way, seen from here and from another opening.
    let other = SqliteState::open(&world.path(), kept(7, 1 << 30)).unwrap();
    assert_eq!(world.state.run(run).await.unwrap().unwrap().state, RunState::Sending);
    assert_eq!(other.run(run).await.unwrap().unwrap().state, RunState::Sending);
    // 2: without the lease it is not, and is shown with what was recorded.
    drop(lease);
    let shown = other.run(run).await.unwrap().unwrap();
    assert_eq!(shown.state, RunState::Interrupted);
    assert_eq!(shown.ended_at, Some(NOW + 30));
    assert_eq!((shown.counts.rows, shown.counts.planned.added), (100, 4));
    assert_eq!((shown.counts.sent.added, shown.counts.rejected.added, shown.counts.null_keys), (2, 1, 1));
    assert_eq!(shown.counts.bytes, body_bytes);
    let interrupted = RunFilter { states: vec![RunState::Interrupted], ..RunFilter::default() };
    assert_eq!(other.runs(&interrupted).await.unwrap(), std::slice::from_ref(&shown));
    // 3: the next run of the sync writes that down.
    let lease = other.take("customers").await.unwrap().expect("free");
    let next = other.begin("customers", RunKind::Changes).await.unwrap();
    assert_eq!(on_record(&world, run), "interrupted");
    assert_eq!(on_record(&world, next), "queued");
    assert_eq!(world.state.run(run).await.unwrap(), Some(shown));
    drop(lease);
}

fn on_record(world: &World, run: RunId) -> String {
    let connection = rusqlite::Connection::open(world.path().join("state.db")).unwrap();
    connection.query_row("SELECT state FROM runs WHERE id = ?1", [run.0], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_run_under_way_elsewhere_is_left_alone() {
    let world = World::new();
    let other = SqliteState::open(&world.path(), kept(7, 1 << 30)).unwrap();
    let lease = other.take("customers").await.unwrap().expect("free");
    let theirs = other.begin("customers", RunKind::Changes).await.unwrap();
    let ours = world.state.begin("customers", RunKind::Changes).await.unwrap();
    assert_eq!(on_record(&world, theirs), "queued");
    assert_eq!(on_record(&world, ours), "queued");
    drop(lease);
}

#[tokio::test]
async fn tallies_count_each_way_to_end_and_keep_the_first_sample() {
    let world = World::new();
    let run = world.state.begin("customers", RunKind::Changes).await.unwrap();
    world.state.append(run, many(0, 3000, NOW)).await.unwrap();
    world.state.append(run, vec![rejected("x1", NOW), null_key(), rejected("x2", NOW)]).await.unwrap();
    world.state.append(run, many(3000, 10, NOW)).await.unwrap();
    let tallies = world.state.tallies(run).await.unwrap();
    let counts: BTreeMap<_, _> = tallies
        .iter()
        .map(|tally| ((tally.status.as_str(), tally.op, tally.code), (tally.rows, tally.sample_key.as_str())))
        .collect();
    let added = Some(warren_engine::change::Op::Added);
    assert_eq!(
        counts,
        BTreeMap::from([
            (("sent", added, None), (3010, "0")),
            (("rejected", added, Some(codes::NO_SUCH_QUEUE)), (2, "x1")),
            (("rejected", None, Some(codes::NULL_KEY)), (1, "null")),
        ])
    );
    assert_eq!(tallies[0].rows, 3010);
    assert_eq!(tallies[1].sample_answer.as_deref(), Some("returned: 312 NO_ROUTE"));
}

#[tokio::test]
async fn who_holds_a_lease_is_told() {
    let world = World::new();
    assert_eq!(world.state.holder("customers").await.unwrap(), None);
    let lease = world.state.take("customers").await.unwrap().expect("free");
    let who = format!("process {}", std::process::id());
    assert_eq!(world.state.holder("customers").await.unwrap().unwrap().who, who);
    let other = SqliteState::open(&world.path(), kept(7, 1 << 30)).unwrap();
    assert_eq!(other.take("customers").await.unwrap().err().unwrap().who, who);
    drop(lease);
    assert!(other.take("customers").await.unwrap().is_ok());
}
