//! Characters that SQS does not take: escaped in JSON, rejected elsewhere.

use std::sync::Arc;

use warren_engine::memory::MemoryBroker;
use warren_engine::model::ColumnType;
use warren_engine::row::Value;
use warren_engine::sync::plan::{AttributePlan, AttributeSource, BodyPlan, PropertyPlan, SqsPlan, Trigger};

use super::world::*;

const TEXT: &str = "a\u{fffe}b\u{ffff}c\u{1}d\u{85}e";
const NESTED: &str = "{\"k\u{ffff}\":[{\"n\":\"\u{fffe}\"}]}";

/// One row of a key, a text and JSON, sent to SQS with this body.
fn world(body: BodyPlan) -> World {
    let mut world = World::new();
    let columns = [("id", ColumnType::Int), ("v", ColumnType::Text), ("doc", ColumnType::Json)];
    world.columns(&columns);
    world.source.set([[Value::Int(1), Value::Text(TEXT), Value::Json(NESTED)]]);
    world.broker = Arc::new(MemoryBroker::with_queues(["q"]));
    world.on_all(trigger(body, SqsPlan::default()));
    world
}

fn trigger(body: BodyPlan, sqs: SqsPlan) -> Trigger {
    let properties =
        PropertyPlan { message_id: Some(column("id")), sqs: Some(sqs), ..PropertyPlan::default() };
    Trigger { route: to(literal("q")), properties, ..sends(body) }
}

async fn body(world: &World) -> String {
    let run = world.run().await;
    assert_eq!(world.refusals(&run), []);
    world.said_in("q").remove(0)
}

#[tokio::test(start_paused = true)]
async fn json_of_any_kind_has_escapes_instead() {
    let text = "a\\ufffeb\\uffffc\\u0001d\u{85}e";
    let nested = "{\"k\\uffff\":[{\"n\":\"\\ufffe\"}]}";
    let template = |template: &str| says_json(template).body;
    let cases = [
        (BodyPlan::AllFields, format!("{{\"id\":1,\"v\":\"{text}\",\"doc\":{nested}}}")),
        (BodyPlan::Fields(vec![("n\u{fffe}".into(), "v".into())]), format!("{{\"n\\ufffe\":\"{text}\"}}")),
        (template("{\"v\": {{ row.v }}}"), format!("{{\"v\": \"{text}\"}}")),
        (template("{\"v\": \"<{{ row.v }}>\"}"), format!("{{\"v\": \"<{text}>\"}}")),
        (template("{\"\u{fffe}\": {{ row.doc }}}"), format!("{{\"\\ufffe\": {nested}}}")),
        (BodyPlan::Column { column: "doc".into(), json: true }, nested.to_owned()),
    ];
    for (plan, expected) in cases {
        let world = world(plan);
        let body = body(&world).await;
        assert_eq!(body, expected);
        // What a receiver reads is what the row has.
        let read: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert!(read.to_string().contains('\u{fffe}'));
    }
}

#[tokio::test(start_paused = true)]
async fn text_and_attributes_are_rejected_and_other_rows_go() {
    let as_text = says("{{ row.v }}").body;
    let attribute = AttributePlan { kind: None, value: AttributeSource::Column("v".into()) };
    let with_attribute = SqsPlan { attributes: vec![("a".into(), attribute)], ..SqsPlan::default() };
    let column = BodyPlan::Column { column: "v".into(), json: false };
    let triggers = [
        trigger(as_text, SqsPlan::default()),
        trigger(column, SqsPlan::default()),
        trigger(BodyPlan::Fields(vec![("id".into(), "id".into())]), with_attribute),
    ];
    for (at, trigger) in triggers.into_iter().enumerate() {
        let mut world = world(BodyPlan::AllFields);
        world.on_all(trigger);
        let good = [Value::Int(2), Value::Text("fine"), Value::Null];
        for bad in [TEXT, "\u{fffe}", "\u{ffff}", "\u{b}"] {
            world.source.set([[Value::Int(1), Value::Text(bad), Value::Null], good]);
            let run = world.run().await;
            let code = if at == 2 { "invalid-attribute" } else { "invalid-characters" };
            let refused = world.refusals(&run);
            assert_eq!(refused.len(), 1, "{bad:?} in {at}");
            assert!([code, "invalid-characters"].contains(&refused[0].1), "{refused:?}");
        }
        assert_eq!(world.said_in("q").len(), 1);
    }
}
