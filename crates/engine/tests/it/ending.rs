//! Runs that end before their end: what was accepted counts, and the next run sends the rest and nothing else.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use warren_engine::memory::Fault;
use warren_engine::run::{RowStatus, RunState};
use warren_engine::sync::preview;
use warren_engine::sync::run::Ask;
use warren_engine::sync::watch::Silent;

use crate::world::{World, failing, fine, per_op, says, when};

#[tokio::test(start_paused = true)]
async fn a_read_that_breaks_half_way_sends_nothing_and_advances_nothing() {
    let world = World::new();
    world.many(20);
    world.run().await;
    world.rows(&[(1, "b")]);
    world.source.break_after(1);
    let broken = world.run().await;
    assert_eq!((broken.state, broken.error.unwrap().code.as_str()), (RunState::Failed, "query-interrupted"));
    assert_eq!((world.said().len(), world.baseline.rows()), (20, 20));

    world.source.set((1..=20).map(|id| crate::world::row(id, "a")));
    assert_eq!(world.run().await.counts.planned.total(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_stays_away_interrupts_the_run_and_the_next_goes_on() {
    let mut world = World::new();
    world.plan.batches_in_flight = 1;
    world.many(9);
    // 1. three are accepted, then nothing can be written any more
    world.broker.script(fine(3).chain(failing(Fault::NotWritten, 1000)));
    let began = Instant::now();
    let first = world.run().await;
    assert_eq!((first.state, first.counts.sent), (RunState::Interrupted, per_op(3, 0, 0)));
    assert_eq!(first.error.as_ref().unwrap().code, "gave-up");
    let took = began.elapsed();
    assert!(took > Duration::from_secs(60) && took < Duration::from_secs(70), "{took:?}");
    // 2. what was never written is no possible duplicate, and not on record as sent
    assert_eq!((first.counts.possible_duplicates, world.outcomes(&first).len()), (0, 3));
    // 3. the next run sends the other six
    let mut world = world;
    world.broker = Arc::new(warren_engine::memory::MemoryBroker::with_queues(["crm"]));
    let second = world.run().await;
    assert_eq!((second.state, second.counts.sent), (RunState::Success, per_op(6, 0, 0)));
    assert_eq!(world.said_sorted(), (4..=9).map(|id| format!("added {id} a")).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_away_from_the_start_interrupts_the_run() {
    let world = World::new();
    world.many(3);
    world.broker.away(true);
    let away = world.run().await;
    assert_eq!((away.state, away.error.unwrap().code.as_str()), (RunState::Interrupted, "gave-up"));
    world.broker.away(false);
    assert_eq!(world.run().await.counts.sent, per_op(3, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_time_in_which_nothing_had_to_be_sent_is_no_absence() {
    let mut world = World::new();
    // The first batches are skipped, and take longer than a destination may be away.
    let mut trigger = says("{{ key }}");
    trigger.when = Some(when("row.size > 2"));
    world.on_all(trigger);
    let rows = (1..=30).map(|id| {
        let mut row = crate::world::row(id, "a");
        row[3] = warren_engine::row::Value::Float(if id > 27 { 3.0 } else { 1.0 });
        row
    });
    world.source.set(rows);
    world.baseline.slow(Duration::from_secs(20));
    world.broker.script(failing(Fault::NotWritten, 3));
    let run = world.run().await;
    assert_eq!((run.state, run.counts.sent), (RunState::Success, per_op(3, 0, 0)));
}

#[tokio::test(start_paused = true)]
async fn lost_answers_at_the_end_are_on_record_as_unknown() {
    let world = World::new();
    world.rows(&[(1, "Ann"), (2, "Bob")]);
    // Ann's answer is lost, and then nothing can be written; Bob was never written.
    let script = [Some(Fault::LostConfirm), Some(Fault::NotWritten)];
    world.broker.script(script.into_iter().chain(failing(Fault::NotWritten, 1000)));
    let run = world.run().await;
    assert_eq!((run.state, run.counts.possible_duplicates), (RunState::Interrupted, 1));
    let outcomes = world.outcomes(&run);
    assert_eq!(outcomes.keys().collect::<Vec<_>>(), ["1"]);
    assert_eq!(outcomes["1"].status, RowStatus::Unknown);
    assert_eq!(outcomes["1"].code.unwrap().as_str(), "connection-lost");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_run_settles_what_is_under_way() {
    let world = Arc::new(World::new());
    world.many(12);
    world.broker.hold(true);
    let run = {
        let world = world.clone();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { world.run().await });
        tasks
    };
    // 1. two batches of three are with the broker, which has not answered
    while world.said().len() < 6 {
        tokio::task::yield_now().await;
    }
    world.cancel.cancel();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(run.len(), 1);
    // 2. the answers come: they count, and nothing more is sent
    world.broker.hold(false);
    let stopped = run.join_all().await.remove(0);
    assert_eq!((stopped.state, stopped.counts.sent), (RunState::Cancelled, per_op(6, 0, 0)));
    assert_eq!((world.outcomes(&stopped).len(), world.baseline.rows()), (6, 6));
    // 3. the next run sends the rest
    let mut world = Arc::into_inner(world).unwrap();
    world.cancel = tokio_util::sync::CancellationToken::new();
    assert_eq!(world.run().await.counts.sent, per_op(6, 0, 0));
    let mut said = world.said();
    said.sort();
    said.dedup();
    assert_eq!(said.len(), 12);
}

#[tokio::test(start_paused = true)]
async fn a_run_stopped_between_two_tries_ends_at_once() {
    let world = Arc::new(World::new());
    world.many(2);
    world.broker.script(failing(Fault::NotWritten, 8).chain(failing(Fault::LostMessage, 1000)));
    let mut tasks = tokio::task::JoinSet::new();
    let running = world.clone();
    tasks.spawn(async move { running.run().await });
    while world.broker.published() < 12 {
        tokio::time::advance(Duration::from_millis(50)).await;
    }
    let began = Instant::now();
    world.cancel.cancel();
    let run = tasks.join_all().await.remove(0);
    assert_eq!((run.state, began.elapsed()), (RunState::Cancelled, Duration::ZERO));
    assert_eq!(world.outcomes(&run).values().filter(|row| row.status == RowStatus::Unknown).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_run_stopped_while_it_reads_sends_nothing() {
    let world = World::new();
    world.many(12);
    world.cancel.cancel();
    let run = world.run().await;
    assert_eq!((run.state, run.counts.sent.total()), (RunState::Cancelled, 0));
    assert_eq!((world.broker.published(), world.baseline.rows()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_sends_again_only_what_was_not_on_record() {
    for moment in 0..60 {
        let world = World::new();
        world.many(12);
        // Dropping the run at its n-th await is the death of the process there.
        let ended = world_dies(&world, moment).await;
        let recorded = world.baseline.rows();
        let published = world.said().len();
        assert!(ended || published - recorded <= 6, "two batches were under way: {published} {recorded}");
        let next = world.run().await;
        assert_eq!(next.counts.sent.total() as usize, 12 - recorded, "after {moment} polls");
        assert_eq!(world.said().len(), published + 12 - recorded);
        for (body, ids) in world.ids() {
            assert!(ids.iter().all(|id| *id == ids[0]), "{body} has one change id: {ids:?}");
        }
    }
}

/// Polls a run so many times and drops it; returns whether it had ended.
async fn world_dies(world: &World, polls: usize) -> bool {
    let mut run = Box::pin(world.run());
    let mut left = polls;
    std::future::poll_fn(move |context| {
        use std::task::Poll;
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        match run.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn nobody_else_runs_while_the_lease_is_held() {
    let world = Arc::new(World::new());
    world.many(3);
    world.broker.hold(true);
    let mut tasks = tokio::task::JoinSet::new();
    let running = world.clone();
    tasks.spawn(async move { running.run().await });
    while world.said().len() < 3 {
        tokio::task::yield_now().await;
    }
    let refused = world.try_run(Ask::default()).await.unwrap_err();
    assert_eq!(refused.code.as_str(), "run-under-way");
    assert!(refused.to_string().contains("`customers` is under way in this process"), "{refused}");
    // A preview diffs, and a diff takes up what the run has on file: it would pull it from under its feet.
    let plan = Arc::new(world.plan.clone());
    let preview = preview::preview(&plan, &world.ports(), false, 3, &Silent, &world.cancel).await;
    assert_eq!(preview.unwrap_err().code.as_str(), "run-under-way");

    world.broker.hold(false);
    assert_eq!(tasks.join_all().await.remove(0).state, RunState::Success);
    assert_eq!(world.run().await.state, RunState::Success);
    assert_eq!(world.said().len(), 3);
}
