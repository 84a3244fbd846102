//! Rows that cannot be sent: each is rejected with its code, and the others go.

use warren_engine::memory::MemorySource;
use warren_engine::model::ColumnType;
use warren_engine::row::Value;
use warren_engine::run::{RowStatus, RunState};
use warren_engine::sync::plan::BodyPlan;
use warren_liquid::{Options, Template};

use crate::world::{COLUMNS, World, column, dynamic, literal, per_op, row, says, says_json, sends, to, when};

/// Runs rows 1 to 3, of which the second is bad, twice: it is rejected each time, the others are sent once.
async fn second_is_rejected(world: &World, code: &str) {
    for (turn, sent) in [(1, per_op(2, 0, 0)), (2, per_op(0, 0, 0))] {
        let run = world.run().await;
        assert_eq!(
            (run.state, run.counts.sent, run.counts.rejected),
            (RunState::Warning, sent, per_op(1, 0, 0))
        );
        assert_eq!(world.refusals(&run), [("2".to_owned(), code)], "turn {turn}");
        let outcome = &world.outcomes(&run)["2"];
        assert_eq!((outcome.status, outcome.attempts.len()), (RowStatus::Rejected, 1));
        let error = run.error.unwrap();
        assert_eq!(error.code, code);
        assert!(error.message.contains("row with key 2"), "{}", error.message);
        assert_eq!(world.said().len(), 2);
    }
    assert_eq!(world.baseline.rows(), 2);
}

fn bad_row(cell: usize, value: Value<'static>) -> Vec<[Value<'static>; 4]> {
    let mut rows = [1, 2, 3].map(|id| row(id, "a"));
    rows[1][cell] = value;
    rows.to_vec()
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_large_is_rejected() {
    let world = World::new();
    world.broker.body_bytes_max(100);
    let long = "x".repeat(100);
    world.rows(&[(1, "a"), (2, &long), (3, "c")]);
    second_is_rejected(&world, "message-too-large").await;
}

#[tokio::test(start_paused = true)]
async fn a_template_may_render_what_the_broker_takes() {
    let world = World::new();
    world.broker.body_bytes_max(32 << 20);
    let (large, too_large) = ("x".repeat(20 << 20), "x".repeat(33 << 20));
    world.rows(&[(1, &large), (2, &too_large), (3, "c")]);
    second_is_rejected(&world, "message-too-large").await;
}

#[tokio::test(start_paused = true)]
async fn a_routing_key_that_is_too_long_is_rejected() {
    let mut world = World::new();
    let mut trigger = says("{{ key }}");
    trigger.route = to(dynamic("{% if row.id == 2 %}{{ row.name }}{% else %}crm{% endif %}"));
    world.on_all(trigger);
    let long = "é".repeat(128);
    world.rows(&[(1, "a"), (2, &long), (3, "c")]);
    second_is_rejected(&world, "value-too-long").await;
}

#[tokio::test(start_paused = true)]
async fn nan_is_rejected_unless_it_may_be_null() {
    for body in [
        BodyPlan::AllFields,
        BodyPlan::Template {
            template: Box::new(Template::parse(r#"{"size": {{ row.size }}}"#, &Options::default()).unwrap()),
            json: true,
        },
    ] {
        let mut world = World::new();
        world.on_all(sends(body));
        world.source.set(bad_row(3, Value::Float(f64::NAN)));
        second_is_rejected(&world, "not-a-json-number").await;
        world.plan.nan_as_null = true;
        assert_eq!(world.run().await.counts.sent, per_op(1, 0, 0));
        let last = world.said().pop().unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&last).unwrap()["size"],
            serde_json::Value::Null
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_json_is_rejected() {
    let mut world = World::new();
    world.on_all(says_json("{\"a\":\n {{ row.name | raw }}}"));
    world.rows(&[(1, "[1]"), (2, "[1"), (3, "{}")]);
    let run = world.run().await;
    let message = run.error.unwrap().message;
    assert!(message.contains("line 2"), "{message}");
    let mut world = World::new();
    world.on_all(says_json("{{ row.name | raw }}"));
    world.rows(&[(1, "[1]"), (2, "[1"), (3, "{}")]);
    second_is_rejected(&world, "invalid-json").await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_null_is_rejected() {
    let mut world = World::new();
    let mut trigger = says("{{ key }}");
    trigger.route = to(column("queue"));
    world.on_all(trigger);
    world.source.set(bad_row(2, Value::Null));
    second_is_rejected(&world, "null-value").await;
}

#[tokio::test(start_paused = true)]
async fn a_message_column_that_is_null_is_rejected() {
    let mut world = World::new();
    world.on_all(sends(BodyPlan::Column { column: "name".into(), json: false }));
    world.source.set(bad_row(1, Value::Null));
    second_is_rejected(&world, "null-value").await;
}

#[tokio::test(start_paused = true)]
async fn a_property_that_is_not_what_it_must_be_is_rejected() {
    let mut world = World::new();
    let mut trigger = says("{{ key }}");
    trigger.properties.priority = Some(dynamic("{% if row.id == 2 %}256{% else %}1{% endif %}"));
    world.on_all(trigger);
    world.many(3);
    second_is_rejected(&world, "invalid-property").await;
}

#[tokio::test(start_paused = true)]
async fn an_expiration_without_a_unit_rejects_its_row_and_no_other() {
    for (good, bad) in [("60s", "60"), ("60s", "1.5"), ("60s", "0"), ("60s", "-1s"), ("60s", "1e3")] {
        let mut world = World::new();
        let mut trigger = says("{{ key }}");
        let text = format!("{{% if row.id == 2 %}}{bad}{{% else %}}{good}{{% endif %}}");
        trigger.properties.expiration = Some(dynamic(&text));
        world.on_all(trigger);
        world.many(3);
        second_is_rejected(&world, "invalid-property").await;
    }
    // A column of numbers has no unit in any row.
    let mut world = World::new();
    let mut trigger = says("{{ key }}");
    trigger.properties.expiration = Some(column("id"));
    world.on_all(trigger);
    world.many(1);
    assert_eq!(world.refusals(&world.run().await), [("1".to_owned(), "invalid-property")]);
}

#[tokio::test(start_paused = true)]
async fn a_template_that_fails_is_rejected() {
    let mut world = World::new();
    world.on_all(says("{{ 10 | divided_by: row.id }}"));
    world.rows(&[(1, "a"), (0, "b"), (3, "c")]);
    let run = world.run().await;
    assert_eq!(world.refusals(&run), [("0".to_owned(), "template-failed")]);
    assert_eq!(world.said(), ["10", "3"]);

    let mut trigger = says("{{ key }}");
    trigger.when = Some(when("row.name < 3"));
    let mut world = World::new();
    world.on_all(trigger);
    world.source.set([[Value::Int(1), Value::Text("x"), Value::Text("crm"), Value::Null]]);
    assert_eq!(world.refusals(&world.run().await), [("1".to_owned(), "template-failed")]);
}

#[tokio::test(start_paused = true)]
async fn null_and_duplicate_keys_are_rejected_with_samples_and_the_others_go() {
    let world = World::new();
    world.many(2);
    world.run().await;
    // Key 1 is there twice and key 2 is not: only its removal can be told. Key 1 is not removed.
    let mut null = row(0, "n");
    null[0] = Value::Null;
    world.source.set([row(1, "x"), null, row(1, "y"), row(3, "z"), null]);
    let run = world.run().await;
    assert_eq!((run.state, run.counts.sent), (RunState::Warning, per_op(1, 0, 1)));
    assert_eq!((run.counts.null_keys, run.counts.duplicate_keys), (2, 2));
    let faults: Vec<(String, &str)> = world
        .records
        .outcomes(run.id)
        .into_iter()
        .filter_map(|outcome| Some((outcome.key, outcome.code?.as_str())))
        .collect();
    let duplicate = || ("1".to_owned(), "duplicate-key");
    let null = || ("null".to_owned(), "null-key");
    assert_eq!(faults, [null(), null(), duplicate(), duplicate()]);
    assert_eq!(world.said()[2..], ["removed 2 a", "added 3 z"]);
}

#[tokio::test(start_paused = true)]
async fn a_column_nobody_knows_fails_the_run_before_a_row_is_read() {
    let mut world = World::new();
    // A read would break at once: it is not asked for a row.
    world.many(3);
    world.source.break_after(0);
    world.on_all(says("{{ row.nmae }}"));
    let run = world.run().await;
    let error = run.error.unwrap();
    assert_eq!((run.state, error.code.as_str()), (RunState::Failed, "unknown-column"));
    assert!(error.remedy.unwrap().contains("name"));

    let mut trigger = says("{{ key }}");
    trigger.route = to(column("cue"));
    trigger.properties.priority = Some(column("prio"));
    world.on_all(trigger);
    let error = world.run().await.error.unwrap();
    // Two columns in what three triggers share: the first stands for both.
    assert!(error.message.contains("`cue`") && error.message.contains("1 more"), "{}", error.message);

    let mut model = (*world.plan.model).clone();
    model.key = vec!["ident".into()];
    world.plan.model = std::sync::Arc::new(model);
    world.on_all(says("a"));
    assert_eq!(world.run().await.error.unwrap().code, "unknown-column");
    assert_eq!(world.broker.published(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_removed_row_that_lacks_a_column_of_today_is_rejected() {
    let mut world = World::new();
    world.columns(&COLUMNS[..2]);
    world.source.set([[Value::Int(1), Value::Text("Ann")], [Value::Int(2), Value::Text("Bob")]]);
    world.run().await;
    let mut columns = COLUMNS.to_vec();
    columns.push(("note", ColumnType::Text));
    world.source = std::sync::Arc::new(MemorySource::new(crate::world::schema(&columns)));
    let fields = vec![("note".to_owned(), "note".to_owned())];
    world.plan.removed = Some(std::sync::Arc::new(sends(BodyPlan::Fields(fields))));
    let mut ann = row(1, "Ann").to_vec();
    ann.push(Value::Null);
    world.source.set([ann]);
    assert_eq!(world.refusals(&world.run().await), [("2".to_owned(), "unknown-column")]);
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_does_not_exist_rejects_its_rows() {
    let mut world = World::new();
    let mut trigger = says("{{ key }}");
    trigger.route = warren_engine::sync::plan::RoutePlan::Exchange {
        exchange: literal("events"),
        routing_key: column("name"),
    };
    world.on_all(trigger);
    world.many(2);
    let run = world.run().await;
    assert_eq!((run.state, run.counts.rejected), (RunState::Warning, per_op(2, 0, 0)));
    assert_eq!(run.error.unwrap().code, "no-such-exchange");
}
