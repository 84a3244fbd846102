//! The record stays within its bounds of age and size.

use warren_engine::ports::Records;
use warren_engine::run::{RunId, RunKind, RunState};
use warren_store::state::{OutcomeFilter, Pruned, RunFilter, SqliteState, State};

use super::{DAY, NOW, World, file_bytes, kept, many, sent};

#[tokio::test]
async fn old_rows_go_and_their_run_stays() {
    let world = World::with(kept(7, 1 << 30), None);
    let run = world.run_of("customers", many(0, 3000, NOW)).await;
    world.set_time(NOW + 5 * DAY);
    let later = world.run_of("customers", vec![sent("x", NOW + 5 * DAY)]).await;
    world.set_time(NOW + 7 * DAY);
    assert_eq!(world.state.prune().await.unwrap(), Pruned::default());
    world.set_time(NOW + 7 * DAY + 1);
    assert_eq!(world.state.prune().await.unwrap(), Pruned { rows: 3000, runs: 0 });
    assert_eq!(world.keys(OutcomeFilter::default()).await, ["x"]);
    assert_eq!(world.state.run(run).await.unwrap().unwrap().state, RunState::Success);
    assert_eq!(world.state.tallies(run).await.unwrap()[0].rows, 3000);
    assert_eq!(world.state.tallies(later).await.unwrap()[0].rows, 1);
}

#[tokio::test]
async fn a_run_that_ends_prunes_by_itself() {
    let world = World::with(kept(7, 1 << 30), None);
    world.run_of("customers", many(0, 3000, NOW)).await;
    world.set_time(NOW + 8 * DAY);
    let run = world.run_of("customers", vec![sent("x", NOW + 8 * DAY)]).await;
    let path = world.path();
    let World { folder: _folder, clock: _clock, state } = world;
    drop(state); // waits for the pruning
    let again = SqliteState::open(&path, kept(7, 1 << 30)).unwrap();
    let left = super::all(&again, OutcomeFilter::default()).await;
    assert_eq!((left.len(), left[0].run), (1, run));
}

#[tokio::test]
async fn the_file_stays_within_its_size_and_keeps_the_newest() {
    let size = 2 << 20;
    let world = World::with(kept(7, size), None);
    let run = world.state.begin("customers", RunKind::Changes).await.unwrap();
    let mut largest = 0;
    for turn in 0..200 {
        world.state.append(run, many(turn * 1000, 1000, NOW)).await.unwrap();
        largest = largest.max(file_bytes(&world.path()));
    }
    // 1: also in the midst of a run that records far more than is kept. A step is about 2 MiB.
    assert!(largest < size * 3, "{largest} bytes");
    // 2: afterwards it is within its bound, and not much emptier than it may be.
    let pruned = world.state.prune().await.unwrap();
    assert!(file_bytes(&world.path()) <= size + size / 8, "{} bytes", file_bytes(&world.path()));
    let keys = world.keys(OutcomeFilter::default()).await;
    assert!(keys.len() > 5_000, "{} rows are left, {} went at last", keys.len(), pruned.rows);
    // 3: what is left is the newest, without a gap.
    let newest: Vec<String> = (0..200_000u64).rev().take(keys.len()).map(|key| key.to_string()).collect();
    assert!(keys == newest);
    assert_eq!(world.state.tallies(run).await.unwrap()[0].rows, 200_000);
}

#[tokio::test]
async fn a_file_that_held_more_shrinks() {
    let world = World::with(kept(7, 1 << 30), None);
    for turn in 0..50 {
        world.run_of("customers", many(turn * 1000, 1000, NOW)).await;
    }
    let path = world.path();
    let World { folder: _folder, clock: _clock, state } = world;
    drop(state);
    let before = file_bytes(&path);
    let smaller = SqliteState::open(&path, kept(100_000, 1 << 20)).unwrap();
    smaller.prune().await.unwrap();
    drop(smaller);
    let after = file_bytes(&path);
    assert!(before > 3 << 19 && after <= 1 << 20, "from {before} to {after} bytes");
}

#[tokio::test]
async fn runs_go_when_they_are_old_or_too_many() {
    let mut retention = kept(7, 1 << 30);
    retention.runs_max = 3;
    let world = World::with(retention, None);
    for turn in 0..5 {
        world.run_of("customers", vec![sent(&turn.to_string(), NOW)]).await;
    }
    // 1: rows are there yet, so are their runs.
    assert_eq!(world.state.prune().await.unwrap(), Pruned::default());
    // 2: without them only the newest three are kept.
    world.set_time(NOW + 8 * DAY);
    assert_eq!(world.state.prune().await.unwrap(), Pruned { rows: 5, runs: 2 });
    let numbers = world.state.runs(&RunFilter::default()).await.unwrap();
    assert_eq!(numbers.iter().map(|run| run.id).collect::<Vec<_>>(), [RunId(5), RunId(4), RunId(3)]);
    // 3: one that has not ended is no surplus.
    let open = world.state.begin("orders", RunKind::Changes).await.unwrap();
    for _ in 0..4 {
        world.run_of("customers", vec![]).await;
    }
    world.state.prune().await.unwrap();
    let numbers = world.state.runs(&RunFilter::default()).await.unwrap();
    assert_eq!(numbers.iter().map(|run| run.id.0).collect::<Vec<_>>(), [10, 9, 8, open.0]);
    // 4: and none that is older than runs are kept. Their numbers do not come again.
    world.set_time(NOW + 99 * DAY);
    assert_eq!(world.state.prune().await.unwrap(), Pruned { rows: 0, runs: 4 });
    assert_eq!(world.state.begin("customers", RunKind::Changes).await.unwrap(), RunId(11));
}
