//! What is sent of what differs: triggers, conditions, and what is asked of a run.

use std::sync::Arc;

use warren_engine::run::{RowStatus, RunKind, RunState};
use warren_engine::sync::plan::{CompareChoice, Initial};
use warren_engine::sync::preview;
use warren_engine::sync::run::{self, Ask};
use warren_engine::sync::watch::Silent;

use crate::world::{World, literal, per_op, row, says, to, when};

#[tokio::test(start_paused = true)]
async fn what_has_no_trigger_is_taken_note_of_and_not_sent_later() {
    let mut world = World::new();
    let changed = world.plan.changed.take();
    let removed = world.plan.removed.take();
    world.rows(&[(1, "Ann"), (2, "Bob")]);
    world.run().await;
    world.rows(&[(1, "Anna"), (3, "Cy")]);
    let run = world.run().await;
    assert_eq!((run.counts.sent, run.counts.skipped), (per_op(1, 0, 0), per_op(0, 1, 1)));
    (world.plan.changed, world.plan.removed) = (changed, removed);
    assert_eq!(world.run().await.counts.planned.total(), 0);
    assert_eq!(world.said(), ["added 1 Ann", "added 2 Bob", "added 3 Cy"]);
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_condition_does_not_hold_is_skipped_and_taken_note_of() {
    let mut world = World::new();
    let mut trigger = says("{{ op }} {{ key }} {{ previous.name }} {{ row.name }}");
    trigger.when = Some(when("previous.name != row.name and row.name != 'quiet'"));
    world.plan.changed = Some(Arc::new(trigger));
    world.plan.compare = CompareChoice::All;
    world.rows(&[(1, "Ann"), (2, "Bob"), (3, "Cy")]);
    world.run().await;
    let mut rows = [row(1, "Anna"), row(2, "quiet"), row(3, "Cy")];
    rows[2][3] = warren_engine::row::Value::Null;
    world.source.set(rows);
    let run = world.run().await;
    assert_eq!((run.counts.sent, run.counts.skipped), (per_op(0, 1, 0), per_op(0, 2, 0)));
    assert_eq!(world.said()[3..], ["changed 1 Ann Anna"]);
    // The next change is told against what was taken note of.
    world.rows(&[(1, "Anna"), (2, "loud"), (3, "Cy")]);
    let run = world.run().await;
    assert_eq!((run.counts.sent, run.counts.skipped), (per_op(0, 1, 0), per_op(0, 1, 0)));
    assert_eq!(world.said()[4..], ["changed 2 quiet loud"]);
}

#[tokio::test(start_paused = true)]
async fn each_trigger_has_its_own_queue_and_message() {
    let mut world = World::new();
    let mut welcome = says("welcome {{ row.name }}");
    welcome.route = to(literal("other"));
    world.plan.added = Some(Arc::new(welcome));
    world.plan.removed = Some(Arc::new(says("bye {{ row.name }}")));
    world.rows(&[(1, "Ann"), (2, "Bob")]);
    world.run().await;
    world.rows(&[(1, "Anna")]);
    world.run().await;
    assert_eq!(world.said_in("other"), ["welcome Ann", "welcome Bob"]);
    assert_eq!(world.said(), ["bye Bob", "changed 1 Anna"]);
}

#[tokio::test(start_paused = true)]
async fn a_first_run_may_only_take_note() {
    let mut world = World::new();
    world.plan.initial = Initial::Skip;
    world.rows(&[(1, "Ann"), (2, "Bob")]);
    let first = world.run().await;
    assert_eq!((first.state, first.counts.skipped), (RunState::Success, per_op(2, 0, 0)));
    assert_eq!(world.broker.published(), 0);
    world.rows(&[(1, "Ann"), (2, "Bo")]);
    assert_eq!(world.run().await.counts.sent, per_op(0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_first_run_that_only_takes_note_does_so_from_a_plan_too() {
    let mut world = World::new();
    world.plan.initial = Initial::Skip;
    world.rows(&[(1, "Ann"), (2, "Bob")]);
    let plan = Arc::new(world.plan.clone());
    let shown = preview::preview(&plan, &world.ports(), false, 2, &Silent, &world.cancel).await.unwrap();
    assert!(shown.silent);
    let ask = Ask { kind: RunKind::Plan, expected: Some(shown.summary.digest), ..Ask::default() };
    assert_eq!(world.run_as(ask).await.counts.skipped, per_op(2, 0, 0));
    assert_eq!((world.broker.published(), world.baseline.rows()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn in_full_every_row_is_sent_again_as_added_and_none_as_removed() {
    let world = World::new();
    world.rows(&[(1, "Ann"), (2, "Bob")]);
    world.run().await;
    world.rows(&[(1, "Anna")]);
    let run = world.run_as(Ask { kind: RunKind::Full, ..Ask::default() }).await;
    assert_eq!(run.counts.sent, per_op(1, 0, 0));
    // Bob's removal is still to be told.
    assert_eq!(world.run().await.counts.sent, per_op(0, 0, 1));
    world.run_as(Ask { kind: RunKind::Full, ..Ask::default() }).await;
    let ids = world.ids();
    assert_eq!(world.said(), ["added 1 Ann", "added 2 Bob", "added 1 Anna", "removed 2 Bob", "added 1 Anna"]);
    let anna = &ids["added 1 Anna"];
    assert_ne!(anna[0], anna[1], "what is sent again on purpose is no repetition");
}

#[tokio::test(start_paused = true)]
async fn only_the_keys_asked_for_are_sent_and_the_others_stay_differences() {
    let world = World::new();
    world.many(9);
    let only = Some(["4".to_owned(), "9".to_owned(), "77".to_owned()].into());
    let run = world.run_as(Ask { kind: RunKind::Replay, only, ..Ask::default() }).await;
    assert_eq!((run.state, run.counts.sent), (RunState::Success, per_op(2, 0, 0)));
    assert_eq!(world.said_sorted(), ["added 4 a", "added 9 a"]);
    assert_eq!(world.run().await.counts.sent, per_op(7, 0, 0));
    assert_eq!(world.said().len(), 9);
}

#[tokio::test(start_paused = true)]
async fn recorded_messages_are_sent_again_as_they_were() {
    let world = World::new();
    world.rows(&[(1, "Ann"), (2, "Bob")]);
    let first = world.run().await;
    world.rows(&[(1, "Anna"), (2, "Bob")]);
    world.run().await;
    let plan = Arc::new(world.plan.clone());
    let outcomes = world.records.outcomes(first.id);
    let again = run::resend(&plan, &world.ports(), outcomes, &Silent, &world.cancel).await.unwrap();
    assert_eq!(
        (again.state, again.kind, again.counts.sent),
        (RunState::Success, RunKind::Replay, per_op(2, 0, 0))
    );
    let ids = world.ids();
    assert_eq!(ids["added 1 Ann"].len(), 2);
    assert_eq!(ids["added 1 Ann"][0], ids["added 1 Ann"][1]);
    assert!(world.outcomes(&again).values().all(|outcome| outcome.status == RowStatus::Sent));
    // The baseline has no part in it.
    assert_eq!(world.run().await.counts.planned.total(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_kept_rows_a_removed_row_is_its_key() {
    let mut world = World::new();
    world.plan.keep_rows = false;
    world.on_all(says("{{ op }} {{ key }}{% if previous %} {{ previous.name }}{% endif %}"));
    world.plan.compare = CompareChoice::All;
    world.rows(&[(1, "Ann"), (2, "Bob")]);
    world.run().await;
    world.rows(&[(1, "Anna")]);
    world.run().await;
    assert_eq!(world.said(), ["added 1", "added 2", "removed 2", "changed 1"]);
    // Once they are kept, the next change has what is kept from here on.
    world.plan.keep_rows = true;
    world.rows(&[(1, "An")]);
    world.run().await;
    world.rows(&[(1, "A")]);
    world.run().await;
    assert_eq!(world.said()[4..], ["changed 1", "changed 1 An"]);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_comes_back_is_a_new_change() {
    let world = World::new();
    for rows in [&[(1, "Ann"), (2, "x")][..], &[(2, "x")], &[(1, "Ann"), (2, "x")], &[(2, "x")]] {
        world.rows(rows);
        world.run().await;
    }
    let ids = world.ids();
    for body in ["added 1 Ann", "removed 1 Ann"] {
        assert_eq!(ids[body].len(), 2);
        assert_ne!(ids[body][0], ids[body][1], "{body}");
    }
}
