//! Messages that read only the key: all columns count, and a user is told so.

use warren_engine::finding::Severity;
use warren_engine::message::HeaderValue;
use warren_engine::model::ColumnType;
use warren_engine::row::Value;
use warren_engine::sync::bind::{Bound, bind};
use warren_engine::sync::plan::{BodyPlan, CompareChoice, HeaderPlan, PropertyPlan, Trigger};

use super::world::*;

fn bound(world: &World) -> Bound {
    bind(&world.plan, &schema(&COLUMNS)).unwrap()
}

/// The severity and code of what `check` and `plan` report.
fn reported(world: &World) -> Vec<(Severity, &'static str)> {
    bound(world).findings.iter().map(|finding| (finding.severity, finding.code.as_str())).collect()
}

/// Rows changed that a run sends when one column changes in one of two rows, and nothing else.
async fn sent_when_a_name_changes(world: &World) -> u64 {
    world.rows(&[(1, "Ann"), (2, "Bob")]);
    world.run().await;
    assert_eq!(world.run().await.counts.planned.total(), 0);
    world.rows(&[(1, "Ann"), (2, "Bobby")]);
    world.run().await.counts.sent.changed
}

fn thin() -> Vec<(&'static str, Trigger)> {
    let constant = || says("look");
    let key_in_queue = Trigger { route: to(dynamic("{% if row.id %}crm{% endif %}")), ..constant() };
    let header = |plan| PropertyPlan { headers: vec![("h".into(), plan)], ..PropertyPlan::default() };
    let column_header = HeaderPlan::Column { column: "id".into(), kind: None };
    let template_header = HeaderPlan::Template { template: Box::new(text("{{ row.id }}")), kind: None };
    let literal_header = HeaderPlan::Literal(HeaderValue::I64(1));
    let message_id = PropertyPlan { message_id: Some(column("id")), ..PropertyPlan::default() };
    vec![
        ("a constant body", constant()),
        ("only op", says("{{ op }}")),
        ("only changed", says("{{ changed | join: ',' }}")),
        ("only the key", says("{{ key }}")),
        ("the key's column", says("{{ row.id }}")),
        ("as an object", sends(BodyPlan::Fields(vec![("id".into(), "id".into())]))),
        (
            "what the issue has",
            says_json(r#"{"id": {{ row.id }}, "op": {{ op }}, "changed": {{ changed }}}"#),
        ),
        ("ids of run and change", says("{{ change_id }} {{ run }} {{ sync }}")),
        ("the key in the queue", key_in_queue),
        ("the key in a header", Trigger { properties: header(column_header), ..constant() }),
        ("the key in a header's template", Trigger { properties: header(template_header), ..constant() }),
        ("a literal header", Trigger { properties: header(literal_header), ..constant() }),
        ("the key as message id", Trigger { properties: message_id, ..constant() }),
        ("the key in a condition", Trigger { when: Some(when("row.id > 0")), ..constant() }),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_message_that_reads_only_the_key_is_sent_when_any_column_changes() {
    for (case, trigger) in thin() {
        let mut world = World::new();
        world.on_all(trigger);
        assert_eq!(reported(&world), [(Severity::Note, "key-columns-only")], "{case}");
        assert_eq!(bound(&world).compared, ["id", "name", "queue", "size"], "{case}");
        assert_eq!(sent_when_a_name_changes(&world).await, 1, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn changed_names_the_columns_of_a_thin_event() {
    let mut world = World::new();
    world.on_all(says("{{ op }} {{ key }} {{ changed | join: ',' }}"));
    assert_eq!(sent_when_a_name_changes(&world).await, 1);
    assert_eq!(world.said().last().unwrap(), "changed 2 name");
}

#[tokio::test(start_paused = true)]
async fn parts_of_a_composite_key_are_key_columns() {
    for template in ["{{ row.name }}", "{{ row.id }}", "{{ row.id }}{{ row.name }}", "{{ key.id }}"] {
        let mut world = World::new();
        std::sync::Arc::make_mut(&mut world.plan.model).key = vec!["name".into(), "id".into()];
        world.on_all(says(template));
        assert_eq!(reported(&world), [(Severity::Note, "key-columns-only")], "{template}");
        assert_eq!(bound(&world).compared.len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_ignored_stays_ignored() {
    let mut world = World::new();
    world.on_all(says("{{ key }}"));
    world.plan.ignore = ["name".to_owned()].into();
    assert_eq!(bound(&world).compared, ["id", "queue", "size"]);
    assert_eq!(sent_when_a_name_changes(&world).await, 0);
    // What the message reads is ignored, too: no other column would count.
    world.on_all(says("{{ key }} {{ row.name }}"));
    assert_eq!(bound(&world).compared, ["id", "queue", "size"]);
}

#[tokio::test(start_paused = true)]
async fn key_columns_alone_on_purpose_are_warned_about() {
    let mut world = World::new();
    for compare in [[].into(), ["id".to_owned()].into()] {
        world.plan.compare = CompareChoice::These(compare);
        assert_eq!(reported(&world), [(Severity::Warning, "key-columns-only")]);
    }
    assert_eq!(sent_when_a_name_changes(&world).await, 0);
    world.plan.compare = CompareChoice::Used;
    world.plan.ignore = ["name", "queue", "size"].map(String::from).into();
    assert_eq!(reported(&world), [(Severity::Warning, "key-columns-only")]);
}

#[test]
fn nothing_is_reported_where_changes_are_not_wanted_or_cannot_be() {
    // Only rows added and removed are wanted, so nothing but the key counts.
    let mut world = World::new();
    world.on_all(says("{{ key }}"));
    world.plan.changed = None;
    assert_eq!((reported(&world), bound(&world).compared.len()), (vec![], 0));
    world.plan.compare = CompareChoice::These(["id".to_owned()].into());
    assert_eq!(reported(&world), []);
    // The model has no other column.
    let mut world = World::new();
    world.on_all(says("{{ key }}"));
    let only_key = schema(&[("id", ColumnType::Int)]);
    assert!(bind(&world.plan, &only_key).unwrap().findings.is_empty());
    // Another column is read.
    let world = World::new();
    assert_eq!((reported(&world), bound(&world).compared), (vec![], vec!["name".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_baseline_that_compared_only_the_key_sends_nothing_for_the_new_columns_alone() {
    let mut world = World::new();
    world.on_all(says("{{ op }} {{ key }}"));
    world.plan.compare = CompareChoice::These(["id".to_owned()].into());
    world.rows(&[(1, "Ann"), (2, "Bob")]);
    world.run().await;
    world.plan.compare = CompareChoice::Used;
    assert_eq!(world.run().await.counts.planned.total(), 0);
    world.source.set([row(1, "Ann"), [Value::Int(2), Value::Text("Bobby"), Value::Text("crm"), Value::Null]]);
    assert_eq!(world.run().await.counts.sent, per_op(0, 1, 0));
}
