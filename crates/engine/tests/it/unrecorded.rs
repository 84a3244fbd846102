//! No run ends without its end on record, whatever fails between the opening and the closing of its record.

use std::sync::Arc;

use warren_engine::run::{RunId, RunRecord, RunState};
use warren_engine::sync::run::{self, Ask};
use warren_engine::sync::watch::{Event, Silent, Watch};

use super::world::*;

/// Panics when a run says what it has planned.
struct Panics;

impl Watch for Panics {
    fn event(&self, event: Event<'_>) {
        assert!(!matches!(event, Event::Planned(_)), "the bars fell over");
    }
}

/// What stands on record of the newest run.
fn on_record(world: &World) -> RunRecord {
    let newest = (1..1_000).map(RunId).take_while(|id| world.records.has(*id)).last().unwrap();
    world.records.run(newest).expect("a run was written at least once")
}

fn failed(record: &RunRecord, code: &str) {
    assert_eq!(record.state, RunState::Failed);
    assert_eq!(record.error.as_ref().unwrap().code, code);
    assert!(record.ended_at.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_record_cannot_be_written_once_ends_as_failed() {
    // Querying, planning, sending.
    for at in 0..3 {
        let world = World::new();
        world.many(2);
        world.records.fail_one_update_after(at);
        let run = world.run().await;
        failed(&run, "state-unwritable");
        assert_eq!((on_record(&world), world.said().len()), (run, 0));
        // The lease was given back, and nothing is lost.
        assert_eq!(world.run().await.counts.sent, per_op(2, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_whose_record_cannot_be_written_once_ends_as_failed() {
    let world = World::new();
    world.many(2);
    let first = world.run().await;
    let plan = Arc::new(world.plan.clone());
    let outcomes = world.records.outcomes(first.id);
    world.records.fail_one_update_after(0);
    let replay = run::resend(&plan, &world.ports(), outcomes.clone(), &Silent, &world.cancel).await.unwrap();
    failed(&replay, "state-unwritable");
    assert_eq!(on_record(&world), replay);
    // What became of rows cannot be written: the same.
    world.records.fail_after(Some(0));
    let replay = run::resend(&plan, &world.ports(), outcomes, &Silent, &world.cancel).await.unwrap();
    failed(&replay, "state-unwritable");
    assert_eq!(on_record(&world), replay);
    world.records.fail_after(None);
    assert_eq!(world.run().await.state, RunState::Success);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_replay_is_on_record_as_cancelled() {
    let world = World::new();
    world.many(2);
    let first = world.run().await;
    world.cancel.cancel();
    let (plan, outcomes) = (Arc::new(world.plan.clone()), world.records.outcomes(first.id));
    let replay = run::resend(&plan, &world.ports(), outcomes, &Silent, &world.cancel).await.unwrap();
    assert_eq!((replay.state, world.said().len()), (RunState::Cancelled, 2));
    assert_eq!(on_record(&world), replay);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_on_record_as_a_failure_and_gives_back_the_lease() {
    let world = World::new();
    world.many(2);
    let plan = Arc::new(world.plan.clone());
    let run = run::run(&plan, &world.ports(), Ask::default(), &Panics, &world.cancel).await.unwrap();
    failed(&run, "internal");
    assert!(run.error.as_ref().unwrap().message.contains("the bars fell over"), "{:?}", run.error);
    assert_eq!(on_record(&world), run);
    let first = world.run().await;
    assert_eq!(first.state, RunState::Success);
    let outcomes = world.records.outcomes(first.id);
    let replay = run::resend(&plan, &world.ports(), outcomes, &Panics, &world.cancel).await.unwrap();
    failed(&replay, "internal");
    assert_eq!(on_record(&world), replay);
}
