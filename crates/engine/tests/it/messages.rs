//! What a message is made of, end to end: variables, columns, properties and typed headers.

use std::sync::Arc;

use warren_engine::message::{HeaderValue, Properties};
use warren_engine::model::ColumnType;
use warren_engine::row::Value;
use warren_engine::run::RunState;
use warren_engine::sync::plan::{BodyPlan, CompareChoice, HeaderPlan, HeaderType, PropertyPlan};

use crate::world::{World, column, dynamic, literal, row, says, says_json, sends, text, to};

#[tokio::test(start_paused = true)]
async fn a_template_sees_what_happened() {
    let mut world = World::new();
    world.on_all(says_json(
        r#"{"op": {{ op }}, "key": {{ key }}, "row": {{ row.name }}, "before": {{ previous.name }},
            "changed": {{ changed }}, "sync": {{ sync }}, "run": {{ run }}, "id": "{{ change_id }}"}"#,
    ));
    world.plan.compare = CompareChoice::All;
    world.rows(&[(1, "Ann \"A\"\n"), (2, "Bob")]);
    world.run().await;
    let mut rows = [row(1, "Anna")];
    rows[0][3] = Value::Null;
    world.source.set(rows);
    world.run().await;
    let said: Vec<serde_json::Value> =
        world.said().iter().map(|body| serde_json::from_str(body).unwrap()).collect();
    assert_eq!(said[0]["row"], "Ann \"A\"\n");
    assert_eq!((&said[0]["before"], &said[0]["changed"]), (&serde_json::Value::Null, &serde_json::json!([])));
    let expected = serde_json::json!({"op": "removed", "key": 2, "row": "Bob", "before": "Bob", "changed": [],
        "sync": "customers", "run": 2, "id": said[2]["id"]});
    assert_eq!(said[2], expected);
    let expected = serde_json::json!({"op": "changed", "key": 1, "row": "Anna", "before": "Ann \"A\"\n",
        "changed": ["name", "size"], "sync": "customers", "run": 2, "id": said[3]["id"]});
    assert_eq!(said[3], expected);
    for (body, message) in said.iter().zip(world.broker.messages("crm")) {
        assert_eq!(body["id"].as_str(), message.properties.message_id.as_deref());
        assert_eq!(body["id"].as_str().unwrap().len(), 32);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_of_several_columns_is_an_object() {
    let mut world = World::new();
    let mut model = (*world.plan.model).clone();
    model.key = vec!["queue".into(), "id".into()];
    world.plan.model = Arc::new(model);
    world.on_all(says_json(r#"{"key": {{ key }}, "id": {{ key.id }}}"#));
    world.rows(&[(1, "Ann")]);
    let run = world.run().await;
    assert_eq!(world.said(), [r#"{"key": {"queue":"crm","id":1}, "id": 1}"#]);
    assert_eq!(world.outcomes(&run).keys().collect::<Vec<_>>(), [r#"["crm",1]"#]);
}

#[tokio::test(start_paused = true)]
async fn fields_rename_columns_and_all_takes_them_as_they_are() {
    let mut world = World::new();
    let fields = vec![("customer".to_owned(), "name".to_owned()), ("no".to_owned(), "id".to_owned())];
    world.plan.added = Some(Arc::new(sends(BodyPlan::Fields(fields))));
    world.plan.removed = Some(Arc::new(sends(BodyPlan::AllFields)));
    world.rows(&[(1, "Ann"), (2, "Bob")]);
    world.run().await;
    world.rows(&[(1, "Ann")]);
    world.run().await;
    assert_eq!(
        world.said(),
        [
            r#"{"customer":"Ann","no":1}"#,
            r#"{"customer":"Bob","no":2}"#,
            r#"{"id":2,"name":"Bob","queue":"crm","size":1.5}"#
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_column_may_hold_the_whole_message() {
    let mut world = World::new();
    world.on_all(sends(BodyPlan::Column { column: "name".into(), json: true }));
    world.rows(&[(1, r#"{"a": 1}"#), (2, "[1, 2")]);
    let run = world.run().await;
    assert_eq!(world.said(), [r#"{"a": 1}"#]);
    assert_eq!(world.refusals(&run), [("2".to_owned(), "invalid-json")]);
}

#[tokio::test(start_paused = true)]
async fn properties_have_defaults_and_may_vary_by_row() {
    let mut world = World::new();
    world.plan.compare = CompareChoice::All;
    world.rows(&[(1, "Ann")]);
    world.run().await;
    let plain = world.broker.messages("crm").remove(0).properties;
    let expected = Properties {
        content_type: Some("application/json".into()),
        message_id: plain.message_id.clone(),
        timestamp: Some(1_767_225_600),
        ..Properties::default()
    };
    assert_eq!(plain, expected);

    let mut trigger = says("{{ key }}");
    trigger.properties = PropertyPlan {
        content_type: Some(literal("text/plain")),
        persistent: Some(literal("false")),
        priority: Some(column("id")),
        expiration: Some(literal("30s")),
        correlation_id: Some(dynamic("{{ sync }}-{{ row.name }}")),
        message_id: Some(column("name")),
        timestamp: Some(literal("2026-02-01T00:00:00Z")),
        kind: Some(dynamic("customer.{{ op }}")),
        ..PropertyPlan::default()
    };
    world.plan.changed = Some(Arc::new(trigger));
    world.rows(&[(1, "Anna")]);
    let run = world.run().await;
    assert_eq!(run.error, None);
    let expected = Properties {
        content_type: Some("text/plain".into()),
        persistent: false,
        priority: Some(1),
        expiration: Some("30000".into()),
        correlation_id: Some("customers-Anna".into()),
        message_id: Some("Anna".into()),
        timestamp: Some(1_769_904_000),
        kind: Some("customer.changed".into()),
        ..Properties::default()
    };
    assert_eq!(world.broker.messages("crm")[1].properties, expected);
}

#[tokio::test(start_paused = true)]
async fn headers_have_the_types_of_their_columns() {
    let mut world = World::new();
    let columns = [
        ("id", ColumnType::Int),
        ("flag", ColumnType::Bool),
        ("size", ColumnType::Float),
        ("price", ColumnType::Decimal),
        ("day", ColumnType::Date),
        ("at", ColumnType::Timestamp),
        ("data", ColumnType::Json),
        ("nothing", ColumnType::Text),
    ];
    world.columns(&columns);
    let mut trigger = says("{{ key }}");
    for (name, _) in columns {
        let header = HeaderPlan::Column { column: name.into(), kind: None };
        trigger.properties.headers.push((name.into(), header));
    }
    let typed = [
        ("id_text", HeaderPlan::Column { column: "id".into(), kind: Some(HeaderType::Text) }),
        ("at_time", HeaderPlan::Column { column: "at".into(), kind: Some(HeaderType::Timestamp) }),
        (
            "double",
            HeaderPlan::Template {
                template: Box::new(text("{{ row.id | times: 2 }}")),
                kind: Some(HeaderType::Int),
            },
        ),
        ("always", HeaderPlan::Literal(HeaderValue::Bool(true))),
    ];
    trigger.properties.headers.extend(typed.map(|(name, header)| (name.to_owned(), header)));
    world.on_all(trigger);
    world.source.set([[
        Value::Int(7),
        Value::Bool(true),
        Value::Float(0.5),
        Value::Decimal("12.50"),
        Value::Date(0),
        Value::Timestamp(1_500_000, 0),
        Value::Json(r#"{"a": [1, null]}"#),
        Value::Null,
    ]]);
    assert_eq!(world.run().await.state, RunState::Success);
    let headers = world.broker.messages("crm").remove(0).properties.headers;
    let table = [("a".to_owned(), HeaderValue::Array(vec![HeaderValue::I64(1), HeaderValue::Void]))];
    let expected = [
        ("id", HeaderValue::I64(7)),
        ("flag", HeaderValue::Bool(true)),
        ("size", HeaderValue::F64(0.5)),
        ("price", HeaderValue::Text("12.50".into())),
        ("day", HeaderValue::Text("1970-01-01".into())),
        ("at", HeaderValue::Text("1970-01-01T00:00:01.500Z".into())),
        ("data", HeaderValue::Table(table.into_iter().collect())),
        ("id_text", HeaderValue::Text("7".into())),
        ("at_time", HeaderValue::Timestamp(1)),
        ("double", HeaderValue::I64(14)),
        ("always", HeaderValue::Bool(true)),
    ];
    let found: Vec<(&str, HeaderValue)> = headers.iter().map(|(name, value)| (name, value.clone())).collect();
    assert_eq!(found, expected);
}

#[tokio::test(start_paused = true)]
async fn a_queue_may_be_rendered() {
    let mut world = World::new();
    let mut trigger = says("{{ key }}");
    trigger.route = to(dynamic("{% if row.name == 'Ann' %}crm{% else %}other{% endif %}"));
    world.on_all(trigger);
    world.rows(&[(1, "Ann"), (2, "Bob")]);
    world.run().await;
    assert_eq!((world.said(), world.said_in("other")), (vec!["1".to_owned()], vec!["2".to_owned()]));
}
