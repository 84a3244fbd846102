//! What the broker answers, and what is done about it.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use warren_engine::memory::Fault;
use warren_engine::run::{RowStatus, RunState};

use crate::world::{World, column, failing, fine, per_op, row, says, to};

#[tokio::test(start_paused = true)]
async fn what_differs_is_sent_and_then_no_difference_any_more() {
    let world = World::new();
    world.rows(&[(1, "Ann"), (2, "Bob"), (3, "Cy")]);
    let first = world.run().await;
    assert_eq!((first.state, first.counts.sent), (RunState::Success, per_op(3, 0, 0)));

    world.rows(&[(1, "Ann"), (2, "Bo"), (4, "Di")]);
    let second = world.run().await;
    assert_eq!((second.counts.planned, second.counts.sent), (per_op(1, 1, 1), per_op(1, 1, 1)));
    assert_eq!(second.counts.bytes, 12 + 12 + 10);
    assert_eq!(
        world.said(),
        ["added 1 Ann", "added 2 Bob", "added 3 Cy", "removed 3 Cy", "changed 2 Bo", "added 4 Di"]
    );

    let third = world.run().await;
    assert_eq!((third.counts.planned.total(), world.said().len()), (0, 6));
}

#[tokio::test(start_paused = true)]
async fn a_refused_row_comes_again_in_the_next_run() {
    let mut world = World::new();
    let mut trigger = says("{{ op }} {{ key }} {{ row.name }}");
    trigger.route = to(column("queue"));
    world.on_all(trigger);
    let mut bob = row(2, "Bob");
    bob[2] = warren_engine::row::Value::Text("nowhere");
    world.source.set([row(1, "Ann"), bob, row(3, "Cy")]);

    let first = world.run().await;
    assert_eq!((first.state, first.counts.sent), (RunState::Warning, per_op(2, 0, 0)));
    assert_eq!(first.counts.rejected, per_op(1, 0, 0));
    assert_eq!(first.error.unwrap().code, "no-such-queue");
    assert_eq!(world.said(), ["added 1 Ann", "added 3 Cy"]);

    world.broker.declare("nowhere");
    let second = world.run().await;
    assert_eq!((second.state, second.counts.sent), (RunState::Success, per_op(1, 0, 0)));
    assert_eq!(world.said_in("nowhere"), ["added 2 Bob"]);
}

#[tokio::test(start_paused = true)]
async fn a_nack_is_tried_again_after_longer_and_longer_pauses() {
    let world = World::new();
    world.rows(&[(1, "Ann")]);
    world.broker.script(failing(Fault::Nack, 4));
    let began = Instant::now();
    let run = world.run().await;
    assert_eq!((run.state, run.counts.retries), (RunState::Success, 4));
    assert_eq!(world.said(), ["added 1 Ann"]);
    // 50, 100, 200 and 400 ms, each up to a millisecond more: the timer's grain.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(750) && took < Duration::from_millis(760), "{took:?}");
    let answers = &world.outcomes(&run)["1"].attempts;
    assert_eq!(answers.len(), 5);
    assert_eq!(answers[0].answer, "publish to queue `crm`");
    assert_eq!(answers[4].answer, "confirmed");
}

#[tokio::test(start_paused = true)]
async fn after_twelve_refusals_a_row_is_rejected_and_the_others_go_on() {
    let mut world = World::new();
    world.plan.batch_messages = 1;
    world.plan.batches_in_flight = 1;
    world.rows(&[(1, "Ann"), (2, "Bob")]);
    world.broker.script(failing(Fault::Nack, 12));
    let run = world.run().await;
    assert_eq!(
        (run.state, run.counts.sent, run.counts.rejected),
        (RunState::Warning, per_op(1, 0, 0), per_op(1, 0, 0))
    );
    assert_eq!(world.said(), ["added 2 Bob"]);
    let outcome = &world.outcomes(&run)["1"];
    assert_eq!((outcome.status, outcome.attempts.len()), (RowStatus::Rejected, 12));
    assert_eq!(outcome.code.unwrap().as_str(), "broker-refused-message");

    assert_eq!(world.run().await.state, RunState::Success);
    assert_eq!(world.said(), ["added 2 Bob", "added 1 Ann"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_confirm_is_sent_again_with_the_same_change_id() {
    let world = World::new();
    world.rows(&[(1, "Ann"), (2, "Bob")]);
    world.broker.script([Some(Fault::LostConfirm), None]);
    let run = world.run().await;
    assert_eq!((run.state, run.counts.possible_duplicates), (RunState::Success, 1));
    assert_eq!(run.counts.sent, per_op(2, 0, 0));
    let ids = world.ids();
    assert_eq!((ids["added 1 Ann"].len(), ids["added 2 Bob"].len()), (2, 1));
    assert_eq!(ids["added 1 Ann"][0], ids["added 1 Ann"][1]);
    assert_eq!(world.run().await.counts.planned.total(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_message_is_sent_again() {
    let world = World::new();
    world.rows(&[(1, "Ann")]);
    world.broker.script([Some(Fault::LostMessage), Some(Fault::NotWritten)]);
    let run = world.run().await;
    // Not written is no possible duplicate, lost is.
    assert_eq!((run.counts.possible_duplicates, run.counts.retries), (1, 2));
    assert_eq!(world.said(), ["added 1 Ann"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_answer_is_always_lost_is_left_for_the_next_run() {
    let mut world = World::new();
    world.plan.give_up_after = Duration::from_secs(3600);
    world.rows(&[(1, "Ann")]);
    world.broker.script(failing(Fault::LostConfirm, 20));
    let run = world.run().await;
    assert_eq!(run.state, RunState::Warning);
    let outcome = &world.outcomes(&run)["1"];
    assert_eq!((outcome.status, outcome.attempts.len()), (RowStatus::Unknown, 20));
    // 19 were sent again in this run, and one more will be.
    assert_eq!(run.counts.possible_duplicates, 20);

    assert_eq!(world.run().await.counts.sent, per_op(1, 0, 0));
    let ids = world.ids();
    assert_eq!(ids["added 1 Ann"].len(), 21);
    assert_eq!(BTreeSet::from_iter(&ids["added 1 Ann"]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_on_record() {
    let world = World::new();
    world.rows(&[(1, "Ann"), (2, "Bob")]);
    let script = [Some(Fault::Nack), None, Some(Fault::LostConfirm), Some(Fault::NotWritten)];
    world.broker.script(script);
    let run = world.run().await;
    let outcomes = world.outcomes(&run);
    let answers: Vec<&str> = outcomes["1"].attempts.iter().map(|attempt| attempt.answer.as_str()).collect();
    assert_eq!(
        answers,
        ["publish to queue `crm`", "wait for the confirm", "publish to queue `crm`", "confirmed"]
    );
    assert_eq!(outcomes["2"].attempts.len(), 1);
    for outcome in outcomes.values() {
        assert_eq!((outcome.status, outcome.code), (RowStatus::Sent, None));
        let sent = outcome.outbound.as_ref().unwrap();
        assert_eq!(sent.message.properties.message_id, outcome.change.map(|id| id.to_string()));
        assert!(world.broker.messages("crm").contains(&sent.message));
    }
}

#[tokio::test(start_paused = true)]
async fn many_rows_with_all_kinds_of_trouble_arrive_once_told() {
    let world = World::new();
    world.many(50);
    let troubles = [Fault::Nack, Fault::NotWritten, Fault::LostMessage].map(Some);
    world.broker.script(troubles.into_iter().cycle().zip(fine(40)).flat_map(|(fault, none)| [fault, none]));
    let run = world.run().await;
    assert_eq!((run.state, run.counts.sent), (RunState::Success, per_op(50, 0, 0)));
    let mut said = world.said();
    said.sort();
    said.dedup();
    assert_eq!((said.len(), world.said().len()), (50, 50));
    assert_eq!(world.outcomes(&run).len(), 50);
}
