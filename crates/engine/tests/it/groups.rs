//! Queues that keep the order of groups: what stands behind a failure waits for it, and goes in the next run if it is rejected.

use std::sync::Arc;

use warren_engine::memory::{Fault, MemoryBroker};
use warren_engine::message::HeaderValue;
use warren_engine::run::{RowStatus, RunState};
use warren_engine::sqs::{DEDUPLICATION_ID, GROUP_ID};
use warren_engine::sync::plan::{PropertyPlan, SqsPlan};
use warren_engine::sync::run::Ask;

use super::world::*;

/// Messages say `added 1`, and so on, to a FIFO queue; the row's name is its group.
fn fifo() -> World {
    let mut world = World::new();
    world.broker = Arc::new(MemoryBroker::with_queues(["q.fifo"]));
    let mut trigger = says("{{ op }} {{ key }}");
    trigger.route = to(literal("q.fifo"));
    let sqs = SqsPlan { group_id: Some(column("name")), ..SqsPlan::default() };
    trigger.properties =
        PropertyPlan { message_id: Some(column("id")), sqs: Some(sqs), ..PropertyPlan::default() };
    world.on_all(trigger);
    world
}

fn of_group(world: &World, group: &str) -> Vec<String> {
    let is_of = |headers: &warren_engine::message::Headers| {
        headers.get(GROUP_ID) == Some(&HeaderValue::Text(group.to_owned()))
    };
    let messages = world.broker.messages("q.fifo").into_iter();
    messages
        .filter(|message| is_of(&message.properties.headers))
        .map(|message| String::from_utf8(message.body.to_vec()).unwrap())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn order_of_a_group_survives_faults_over_many_batches() {
    let world = fifo();
    let rows: Vec<(i64, &str)> = (1..=40).map(|id| (id, if id % 3 == 0 { "a" } else { "b" })).collect();
    world.rows(&rows);
    // What comes first in the change set is first in its group; without faults that is the order to expect.
    let reference = fifo();
    reference.rows(&rows);
    reference.run().await;
    let faults = [Fault::Nack, Fault::LostConfirm, Fault::NotWritten, Fault::LostMessage];
    world.broker.script((0..60).map(|at| (at % 2 == 0).then(|| faults[at / 2 % faults.len()])));
    let run = world.run().await;
    assert_eq!((run.state, run.counts.sent.total(), run.counts.held.total()), (RunState::Success, 40, 0));
    for group in ["a", "b"] {
        assert_eq!(of_group(&world, group), of_group(&reference, group));
    }
    // The change id is the deduplication id.
    let message = &world.broker.messages("q.fifo")[0];
    assert!(
        matches!(message.properties.headers.get(DEDUPLICATION_ID), Some(HeaderValue::Text(id)) if id.len() > 20)
    );
    assert!(run.counts.possible_duplicates > 0);
}

#[tokio::test(start_paused = true)]
async fn what_stands_behind_a_rejected_message_goes_in_the_next_run() {
    let world = fifo();
    let rows: Vec<(i64, &str)> = (1..=20).map(|id| (id, "a")).collect();
    world.rows(&rows);
    // The first is refused until it is rejected.
    world.broker.script(failing(Fault::Nack, 12));
    let run = world.run().await;
    assert_eq!(run.state, RunState::Warning);
    let counts = &run.counts;
    assert_eq!((counts.sent.total(), counts.rejected.total(), counts.held.total()), (0, 1, 19));
    assert_eq!(of_group(&world, "a"), Vec::<String>::new());
    let held = world.outcomes(&run);
    assert_eq!(held.values().filter(|outcome| outcome.status == RowStatus::Held).count(), 19);
    assert!(held.values().all(|outcome| outcome.attempts.len() <= 12));
    let run = world.run().await;
    assert_eq!((run.state, run.counts.sent.total()), (RunState::Success, 20));
    let reference = fifo();
    reference.rows(&rows);
    reference.run().await;
    assert_eq!(of_group(&world, "a"), of_group(&reference, "a"));
}

#[tokio::test(start_paused = true)]
async fn other_groups_go_on() {
    let world = fifo();
    world.rows(&[(1, "a"), (2, "b"), (3, "c")]);
    // All in one batch; whichever is first is refused until it is rejected.
    world.broker.script(failing(Fault::Nack, 1).chain(fine(2)).chain(failing(Fault::Nack, 11)));
    let run = world.run().await;
    assert_eq!((run.counts.sent.total(), run.counts.rejected.total(), run.counts.held.total()), (2, 1, 0));
    let run = world.run_as(Ask::default()).await;
    assert_eq!(run.counts.sent.total(), 1);
}
