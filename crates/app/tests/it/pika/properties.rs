//! Bodies, properties and headers of each of the ways to make a message.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use warren_testkit::python::{self, Seen};

use super::Place;
use crate::program::Program;

/// One row of every type that a header or a body may have.
const ORDERS: &str = r#"
    CREATE TABLE orders (id int PRIMARY KEY, name text, total numeric, weight float8, paid bool, placed timestamptz,
                         day date, token uuid, tags text[], extra jsonb, photo bytea, nothing text, line text);
    INSERT INTO orders VALUES (
      7, E'Zoë "the\\fox"\n東', 1234567890.10, 0.5, true, '2024-02-29 12:34:56.789+02', '2024-02-29',
      'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', ARRAY['a', 'b "c"'], '{"deep": {"list": [1, 2.5, null]}}', '\x00ff10', NULL,
      E'{"ready": "made",\n "count": 3}')
"#;

/// The change id that the program says the message had.
fn change_id(program: &Program, key: &str) -> String {
    let told = program.documents(&["explain", key], 0);
    told.first().unwrap()["change_id"].as_str().unwrap().to_owned()
}

/// When the last run began, in seconds.
fn began(program: &Program) -> i64 {
    let began =
        program.runs().last().unwrap()["started_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    began.as_second()
}

fn only(mut seen: Vec<Seen>) -> Seen {
    assert_eq!(seen.len(), 1, "{seen:#?}");
    seen.remove(0)
}

#[test]
fn a_template_with_every_property_and_header() {
    let place = Place::with(ORDERS);
    place.vhost.queue("orders");
    let program = place.program(
        r#"
    queue: orders
    priority: 4
    expiration: 1h
    correlation_id: {column: token}
    type: order.placed
    app_id: {template: "shop/{{ row.id }}"}
    user_id: guest
    reply_to: answers
    content_type: application/vnd.shop+json
    content_encoding: identity
    timestamp: {column: placed}
    headers:
      text: plain ü
      whole: 2
      negative: -9007199254740993
      broken: 2.5
      yes: true
      id: {column: id}
      total: {column: total}
      total_float: {column: total, type: float}
      weight: {column: weight}
      paid: {column: paid}
      paid_text: {column: paid, type: text}
      placed: {column: placed, type: timestamp}
      placed_text: {column: placed}
      day: {column: day}
      token: {column: token}
      tags: {column: tags}
      extra: {column: extra}
      photo: {column: photo}
      nothing: {column: nothing}
      made: {template: "{{ op }}-{{ row.id }}"}
      made_int: {template: "{{ row.id | times: 6 }}", type: int}
    message:
      template: |
        {"op": {{ op }}, "key": {{ key }}, "name": "{{ row.name }}", "again": {{ row.name }}, "total": {{ row.total }},
         "weight": {{ row.weight }}, "paid": {{ row.paid }}, "placed": {{ row.placed }}, "day": {{ row.day }},
         "token": {{ row.token }}, "tags": {{ row.tags }}, "extra": {{ row.extra }}, "photo": {{ row.photo }},
         "nothing": {{ row.nothing }}, "sync": {{ sync }}, "run": {{ run }}, "change": {{ change_id }}}
"#,
    );
    program.sync("orders", 0);
    let id = change_id(&program, "7");
    // pika 1.3 drops the sign of 64-bit integers and the fraction of floats; the broker itself reads them as they are.
    let broker = place.vhost.peek("orders", 1).remove(0).properties["headers"].clone();
    for (name, value) in [
        ("negative", json!(-9_007_199_254_740_993_i64)),
        ("broken", json!(2.5)),
        ("total_float", json!(1_234_567_890.1)),
        ("weight", json!(0.5)),
    ] {
        assert_eq!(broker[name].to_string(), value.to_string(), "header {name}");
    }
    let seen = only(python::drain(&place.vhost.url(), "orders"));

    assert_eq!((seen.exchange.as_str(), seen.routing_key.as_str()), ("", "orders"));
    let properties = json!({
        "content_type": "application/vnd.shop+json", "content_encoding": "identity", "delivery_mode": 2,
        "priority": 4, "correlation_id": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "reply_to": "answers",
        "expiration": "3600000", "message_id": id, "timestamp": 1_709_202_896, "type": "order.placed",
        "user_id": "guest", "app_id": "shop/7",
    });
    assert_eq!(seen.properties, properties);
    let typed = |kind: &str, value: Value| json!({"type": kind, "value": value});
    let headers = json!({
        "text": typed("str", json!("plain ü")),
        "whole": typed("int", json!(2)),
        "negative": typed("int", json!(-9_007_199_254_740_993_i64 as u64)),
        "broken": typed("int", json!(2)),
        "yes": typed("bool", json!(true)),
        "id": typed("int", json!(7)),
        "total": typed("str", json!("1234567890.10")),
        "total_float": typed("int", json!(1_234_567_890)),
        "weight": typed("int", json!(0)),
        "paid": typed("bool", json!(true)),
        "paid_text": typed("str", json!("true")),
        "placed": typed("datetime", json!("2024-02-29T10:34:56")),
        "placed_text": typed("str", json!("2024-02-29T10:34:56.789Z")),
        "day": typed("str", json!("2024-02-29")),
        "token": typed("str", json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
        "tags": typed("list", json!([typed("str", json!("a")), typed("str", json!("b \"c\""))])),
        "extra": typed("dict", json!({"deep": typed("dict", json!({"list": typed("list", json!([
            typed("int", json!(1)), typed("int", json!(2)), typed("NoneType", json!(null))]))}))})),
        "photo": typed("bytes", json!("AP8Q")),
        "made": typed("str", json!("added-7")),
        "made_int": typed("int", json!(42)),
    });
    for (name, header) in headers.as_object().unwrap() {
        assert_eq!(&seen.headers[name], header, "header {name}");
    }
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&seen.headers), names(&headers), "a NULL leaves its header out");
    let name = "Zoë \"the\\fox\"\n東";
    assert_eq!(
        seen.json(),
        serde_json::from_str::<Value>(&format!(
            r#"{{"op": "added", "key": 7, "name": {0}, "again": {0}, "total": 1234567890.10, "weight": 0.5, "paid": true,
                "placed": "2024-02-29T10:34:56.789Z", "day": "2024-02-29", "token": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                "tags": ["a", "b \"c\""], "extra": {{"deep": {{"list": [1, 2.5, null]}}}}, "photo": "AP8Q", "nothing": null,
                "sync": "orders", "run": 1, "change": "{id}"}}"#,
            json!(name)
        ))
        .unwrap()
    );
}

#[test]
fn fields_with_the_defaults() {
    let place = Place::with(ORDERS);
    place.vhost.queue("orders");
    let program = place.program(
        "    queue: orders\n    message: {fields: {order: id, customer: name, amount: total, tags: tags, gone: nothing}}\n",
    );
    program.sync("orders", 0);
    let seen = only(python::drain(&place.vhost.url(), "orders"));
    assert_eq!(
        seen.text(),
        r#"{"order":7,"customer":"Zoë \"the\\fox\"\n東","amount":1234567890.10,"tags":["a","b \"c\""],"gone":null}"#
    );
    let id = change_id(&program, "7");
    let defaults = json!({
        "content_type": "application/json", "delivery_mode": 2, "message_id": id, "timestamp": began(&program),
    });
    assert_eq!((seen.properties, seen.headers), (defaults, json!({})));

    // A change, then a removal: the same fields, of the row as it is and as it was; another id each.
    place.database.sql("UPDATE orders SET total = 3");
    program.sync("orders", 0);
    let changed = only(python::drain(&place.vhost.url(), "orders"));
    assert_eq!(changed.json()["amount"], 3);
    place.database.sql("INSERT INTO orders (id) VALUES (8); DELETE FROM orders WHERE id = 7");
    program.sync("orders", 0);
    let seen = python::drain(&place.vhost.url(), "orders");
    let removed = seen.iter().find(|seen| seen.json()["order"] == 7).unwrap();
    assert_eq!(removed.body, changed.body, "a removed row is the one last told of");
    let ids: BTreeSet<_> =
        seen.iter().chain([&changed]).map(|seen| seen.properties["message_id"].to_string()).collect();
    assert_eq!((seen.len(), ids.len(), ids.contains(&json!(id).to_string())), (2, 3, false));
}

#[test]
fn a_column_is_sent_to_the_byte() {
    let place = Place::with(ORDERS);
    place.vhost.queue("orders");
    let program = place.program("    queue: orders\n    persistent: false\n    message_id: {template: \"order {{ key }}\"}\n    message: {column: line}\n");
    program.sync("orders", 0);
    let seen = only(python::drain(&place.vhost.url(), "orders"));
    assert_eq!(seen.text(), "{\"ready\": \"made\",\n \"count\": 3}");
    let properties = json!({
        "content_type": "application/json", "delivery_mode": 1, "message_id": "order 7", "timestamp": began(&program),
    });
    assert_eq!(seen.properties, properties);

    // Anything at all, where it is said to be text.
    let program = place.program(
        "    queue: orders\n    content_type: image/png\n    timestamp: 86400\n    message: {column: photo, format: text}\n",
    );
    assert_eq!(
        program.sync("orders", 0)["counts"]["planned"]["changed"],
        0,
        "a new form alone sends nothing"
    );
    program.documents(&["sync", "orders", "--full"], 0);
    let seen = only(python::drain(&place.vhost.url(), "orders"));
    assert_eq!(seen.body, [0x00, 0xff, 0x10]);
    assert_eq!(
        (&seen.properties["content_type"], &seen.properties["timestamp"]),
        (&json!("image/png"), &json!(86_400))
    );
}
