//! Order within a run: removals are settled before the first row added or changed is published.

use std::collections::BTreeMap;
use std::sync::Arc;

use warren_engine::memory::{Fault, MemoryBroker};
use warren_engine::model::ColumnType;
use warren_engine::row::Value;
use warren_engine::run::RunState;
use warren_engine::sqs::ordered_group;
use warren_engine::sync::plan::{PropertyPlan, SqsPlan};
use warren_engine::sync::run;
use warren_engine::sync::watch::Silent;

use super::world::*;

/// Rows of `(region, id)`, keyed by both; messages say `added 7`, so a consumer knows the id alone.
fn regions() -> World {
    let mut world = World::new();
    world.columns(&[("region", ColumnType::Text), ("id", ColumnType::Int)]);
    let model = Arc::make_mut(&mut world.plan.model);
    model.key = vec!["region".into(), "id".into()];
    world.on_all(says("{{ op }} {{ row.id }}"));
    world
}

fn in_region(world: &World, region: &str, ids: std::ops::RangeInclusive<i64>) {
    world.source.set(ids.map(|id| [Value::Text(region), Value::Int(id)]));
}

/// What a consumer has that stores rows by id: one count for each id it stores.
fn stored(said: &[String]) -> BTreeMap<String, usize> {
    let mut stored = BTreeMap::new();
    for message in said {
        match message.split_once(' ').unwrap() {
            ("removed", id) => stored.remove(id),
            (_, id) => stored.insert(id.to_owned(), 1),
        };
    }
    stored
}

/// Whether no removal is after an addition or change.
fn removals_are_first(said: &[String]) -> bool {
    said.iter().map(|message| !message.starts_with("removed")).is_sorted()
}

#[tokio::test(start_paused = true)]
async fn removals_are_settled_before_the_first_addition_whatever_fails() {
    let faults = [Fault::Nack, Fault::NotWritten, Fault::LostConfirm, Fault::LostMessage];
    for at in 0..20 {
        let world = regions();
        in_region(&world, "eu", 1..=20);
        world.run().await;
        in_region(&world, "us", 1..=20);
        // Several batches are under way, and one message is tried twice: with the others, or after them.
        world.broker.script(fine(at).chain(failing(faults[at % 4], 2)));
        let run = world.run().await;
        assert_eq!((run.state, run.counts.sent), (RunState::Success, per_op(20, 0, 20)));
        let said = world.said().split_off(20);
        assert!(removals_are_first(&said), "{said:?}");
        assert_eq!(stored(&world.said()).len(), 20);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_removal_does_not_stop_additions_and_goes_in_the_next_run() {
    let world = regions();
    in_region(&world, "eu", 1..=4);
    world.run().await;
    in_region(&world, "us", 1..=4);
    world.broker.script(failing(Fault::Nack, 1).chain(fine(3)).chain(failing(Fault::Nack, 11)));
    let run = world.run().await;
    assert_eq!((run.state, run.counts.sent, run.counts.rejected), {
        (RunState::Warning, per_op(4, 0, 3), per_op(0, 0, 1))
    });
    assert!(removals_are_first(&world.said().split_off(4)));
    assert_eq!(world.run().await.counts.sent, per_op(0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_run_stopped_among_its_removals_has_sent_no_addition_and_the_next_keeps_the_order() {
    let world = Arc::new(regions());
    in_region(&world, "eu", 1..=20);
    world.run().await;
    in_region(&world, "us", 1..=20);
    world.broker.hold(true);
    let mut tasks = tokio::task::JoinSet::new();
    let running = world.clone();
    tasks.spawn(async move { running.run().await });
    while world.said().len() < 26 {
        tokio::task::yield_now().await;
    }
    world.cancel.cancel();
    world.broker.hold(false);
    let stopped = tasks.join_all().await.remove(0);
    assert_eq!((stopped.state, stopped.counts.sent), (RunState::Cancelled, per_op(0, 0, 6)));
    let mut world = Arc::into_inner(world).unwrap();
    world.cancel = tokio_util::sync::CancellationToken::new();
    assert_eq!(world.run().await.counts.sent, per_op(20, 0, 14));
    let said = world.said();
    assert!(removals_are_first(&said[20..]));
    assert_eq!((said.len(), stored(&said).len()), (60, 20));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_between_the_parts_keeps_the_order_in_the_next_run() {
    for polls in 0..80 {
        let world = regions();
        in_region(&world, "eu", 1..=6);
        world.run().await;
        in_region(&world, "us", 1..=6);
        world.broker.script(fine(2).chain(failing(Fault::NotWritten, 2)));
        {
            // Dropping the run at its n-th await is the death of the process there.
            let mut run = Box::pin(world.run());
            for _ in 0..polls {
                if futures_util::poll!(&mut run).is_ready() {
                    break;
                }
                tokio::time::advance(std::time::Duration::from_millis(20)).await;
            }
        }
        world.broker.script_is_over();
        let before = world.said().len();
        world.run().await;
        let said = world.said();
        assert!(removals_are_first(&said[6..before]) && removals_are_first(&said[before..]), "{said:?}");
        assert_eq!(stored(&said).len(), 6, "after {polls} polls: {said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_sends_removals_before_additions_and_a_key_in_its_order() {
    let world = regions();
    let mut outcomes = Vec::new();
    for region in ["eu", "us", "eu"] {
        in_region(&world, region, 1..=8);
        let run = world.run().await;
        outcomes.extend(world.records.outcomes(run.id));
    }
    let (before, plan) = (world.said(), Arc::new(world.plan.clone()));
    world.broker.script(failing(Fault::NotWritten, 1).chain(fine(9)).chain(failing(Fault::LostConfirm, 1)));
    let again = run::resend(&plan, &world.ports(), outcomes, &Silent, &world.cancel).await.unwrap();
    assert_eq!((again.state, again.counts.sent), (RunState::Success, per_op(24, 0, 16)));
    let said = world.said().split_off(before.len());
    // Each run's messages stay together, and in each the removals come first.
    let kinds: Vec<bool> = said.iter().map(|message| message.starts_with("removed")).collect();
    assert_eq!(kinds.chunk_by(|one, other| one == other).count(), 5, "{said:?}");
    assert_eq!(stored(&said).len(), 8);
}

#[tokio::test(start_paused = true)]
async fn in_a_fifo_group_an_addition_waits_for_the_removal_that_was_rejected() {
    let mut world = regions();
    world.broker = Arc::new(MemoryBroker::with_queues(["q.fifo"]));
    let mut trigger = says("{{ op }} {{ row.id }}");
    trigger.route = to(literal("q.fifo"));
    let sqs = SqsPlan { group_id: Some(dynamic("{{ row.id }}")), ..SqsPlan::default() };
    let id = Some(dynamic("{{ row.region }}-{{ row.id }}"));
    trigger.properties = PropertyPlan { message_id: id, sqs: Some(sqs), ..PropertyPlan::default() };
    world.on_all(trigger);
    in_region(&world, "eu", 1..=3);
    world.run().await;
    in_region(&world, "us", 1..=3);
    world.broker.script(failing(Fault::Nack, 1).chain(fine(2)).chain(failing(Fault::Nack, 11)));
    let run = world.run().await;
    assert_eq!((run.counts.sent, run.counts.held), (per_op(2, 0, 2), per_op(1, 0, 0)));
    assert_eq!(world.run().await.counts.sent, per_op(1, 0, 1));
    let said = world.said_in("q.fifo");
    assert_eq!(stored(&said).len(), 3, "{said:?}");
    assert!(world.outcomes(&run).values().filter_map(|row| row.outbound.as_ref()).all(|out| {
        ordered_group(out).is_some() // the group is what kept the order
    }));
}
