//! Runs that stop before anything is sent.

use std::sync::Arc;

use warren_engine::model::ColumnType;
use warren_engine::row::Value;
use warren_engine::run::{RunKind, RunRecord, RunState};
use warren_engine::sync::plan::{CompareChoice, Guard, GuardLimit};
use warren_engine::sync::preview;
use warren_engine::sync::run::Ask;
use warren_engine::sync::watch::Silent;

use crate::world::{COLUMNS, World, per_op, says};

/// Runs, expects to be stopped with this code and sentence, and that nothing happened.
async fn stopped(world: &World, code: &str, sentence: &str) {
    let (said, rows) = (world.said(), world.baseline.rows());
    let run = world.run().await;
    let error = run.error.unwrap();
    assert_eq!((run.state, error.code.as_str()), (RunState::Guarded, code));
    assert!(error.message.contains(sentence), "{}", error.message);
    assert!(error.remedy.unwrap().contains("--no-guard"));
    assert_eq!((world.said(), world.baseline.rows()), (said, rows));
    assert_eq!(run.counts.sent.total() + run.counts.skipped.total(), 0);
}

async fn let_through(world: &World) -> RunRecord {
    world.run_as(Ask { no_guard: true, ..Ask::default() }).await
}

#[tokio::test(start_paused = true)]
async fn an_empty_result_over_a_filled_baseline_stops_the_run() {
    let world = World::new();
    assert_eq!(world.run().await.state, RunState::Success); // empty over empty is nothing to stop for
    world.many(5);
    world.run().await;
    world.rows(&[]);
    stopped(&world, "empty-result", "returned no row, but the destination has been told of 5").await;
    let run = let_through(&world).await;
    assert_eq!((run.state, run.counts.sent), (RunState::Success, per_op(0, 0, 5)));
    assert_eq!(world.run().await.state, RunState::Success);
}

#[tokio::test(start_paused = true)]
async fn a_share_of_removed_rows_over_the_guard_stops_the_run() {
    let mut world = World::new();
    world.plan.guard = Guard { removed: Some(GuardLimit::Share(0.2)), ..Guard::default() };
    world.many(10);
    world.run().await;
    world.many(8);
    assert_eq!(world.run().await.counts.sent, per_op(0, 0, 2)); // 20 % is not over 20 %
    world.many(6);
    stopped(&world, "guard-exceeded", "2 rows are removed, and the guard `removed` allows 20% of 8").await;
    assert_eq!(let_through(&world).await.counts.sent, per_op(0, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn more_rows_in_all_than_the_guard_allows_stop_the_run() {
    let mut world = World::new();
    world.plan.guard = Guard { total: Some(GuardLimit::Rows(5)), ..Guard::default() };
    world.many(6);
    stopped(&world, "guard-exceeded", "6 rows are to be sent, and the guard `total` allows 5").await;
    world.many(5);
    assert_eq!(world.run().await.state, RunState::Success);
    // What is not sent is not counted.
    world.plan.removed = None;
    world.plan.guard =
        Guard { total: Some(GuardLimit::Rows(0)), removed: Some(GuardLimit::Rows(0)), ..Guard::default() };
    world.many(1);
    let run = world.run().await;
    assert_eq!((run.state, run.counts.skipped), (RunState::Success, per_op(0, 0, 4)));
}

#[tokio::test(start_paused = true)]
async fn a_column_that_changed_its_type_stops_the_run() {
    let mut world = World::new();
    world.many(2);
    world.run().await;
    let mut columns = COLUMNS;
    columns[1].1 = ColumnType::Int;
    world.columns(&columns);
    let rows = [1, 2].map(|id| [Value::Int(id), Value::Int(7), Value::Text("crm"), Value::Float(1.5)]);
    world.source.set(rows);
    stopped(&world, "columns-changed", "`name` was text and is integer").await;
    stopped(&world, "columns-changed", "`name` was text and is integer").await; // it stays stopped
    assert_eq!(let_through(&world).await.counts.sent, per_op(0, 2, 0));
    assert_eq!(world.run().await.state, RunState::Success);
    assert_eq!(world.said()[2..], ["changed 1 7", "changed 2 7"]);
}

#[tokio::test(start_paused = true)]
async fn a_reset_moves_the_baseline_past_the_guards_and_sends_nothing() {
    let mut world = World::new();
    world.plan.guard = Guard { total: Some(GuardLimit::Rows(1)), ..Guard::default() };
    world.many(5);
    let run = world.run_as(Ask { kind: RunKind::ResetBaseline, ..Ask::default() }).await;
    assert_eq!((run.state, run.counts.skipped), (RunState::Success, per_op(5, 0, 0)));
    assert_eq!((world.said().len(), world.baseline.rows()), (0, 5));
    let run = world.run().await;
    assert_eq!((run.state, run.counts.planned.total()), (RunState::Success, 0));
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_sent_exactly_or_refused() {
    let world = World::new();
    world.many(3);
    let plan = Arc::new(world.plan.clone());
    let shown = preview::preview(&plan, &world.ports(), false, 2, &Silent, &world.cancel).await.unwrap();
    assert_eq!((shown.messages, shown.samples.len(), shown.bytes), (3, 2, 27));
    assert!(shown.guard.is_none() && !shown.silent);
    let ask = Ask { kind: RunKind::Plan, expected: Some(shown.summary.digest), ..Ask::default() };

    world.many(4);
    let refused = world.run_as(ask.clone()).await;
    assert_eq!((refused.state, refused.error.unwrap().code.as_str()), (RunState::Guarded, "plan-outdated"));
    assert_eq!(world.broker.published(), 0);

    world.source.set([3, 1, 2].map(|id| crate::world::row(id, "a"))); // another order is the same plan
    assert_eq!(world.run_as(ask).await.counts.sent, per_op(3, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn columns_that_begin_to_count_send_nothing_by_themselves() {
    let mut world = World::new();
    world.plan.compare = CompareChoice::These(["name".to_owned()].into());
    world.many(3);
    world.run().await;
    world.plan.compare = CompareChoice::All;
    world.on_all(says("{{ op }} {{ row.size }}"));
    assert_eq!(world.run().await.counts.planned.total(), 0);
    let mut rows = [1, 2, 3].map(|id| crate::world::row(id, "a"));
    rows[1][3] = Value::Float(2.5);
    world.source.set(rows);
    assert_eq!(world.run().await.counts.sent, per_op(0, 1, 0));
}
