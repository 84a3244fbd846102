//! Where messages arrive: by exchange and binding, by a queue that each row names, and one queue for each trigger.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use warren_testkit::python;

use super::Place;

const ORDERS: &str = "
    CREATE TABLE orders (id int PRIMARY KEY, region text, queue text);
    INSERT INTO orders SELECT id, (ARRAY['eu', 'us'])[1 + id % 2], (ARRAY['crm.eu', 'crm.us'])[1 + id % 2]
      FROM generate_series(1, 40) AS id";

/// The keys of the messages in a queue.
fn keys(place: &Place, queue: &str) -> BTreeSet<i64> {
    let seen = python::drain(&place.vhost.url(), queue);
    let keys: BTreeSet<i64> = seen.iter().map(|seen| seen.json()["id"].as_i64().unwrap()).collect();
    assert_eq!(keys.len(), seen.len(), "each once");
    keys
}

#[test]
fn an_exchange_chooses_by_the_routing_key() {
    let place = Place::with(ORDERS);
    for queue in ["eu", "us", "all"] {
        place.vhost.queue(queue);
    }
    place.vhost.exchange("orders", "topic");
    place.vhost.bind("orders", "eu", "order.eu.*");
    place.vhost.bind("orders", "us", "order.us.*");
    place.vhost.bind("orders", "all", "order.#");
    let program = place.program(
        "    exchange: orders\n    routing_key: {template: \"order.{{ row.region }}.{{ op }}\"}\n    message: {fields: {id: id, region: region}}\n",
    );
    program.sync("orders", 0);
    let even = (2..=40).step_by(2).collect();
    let seen = python::drain(&place.vhost.url(), "us");
    assert!(
        seen.iter().all(|seen| seen.exchange == "orders" && seen.routing_key == "order.us.added"),
        "{seen:#?}"
    );
    assert!(seen.iter().all(|seen| seen.json()["region"] == "us"), "{seen:#?}");
    assert_eq!(seen.len(), 20);
    assert_eq!(keys(&place, "eu"), even);
    assert_eq!(keys(&place, "all"), (1..=40).collect());

    // A row that no queue is bound for is given back, and only that row is rejected.
    place
        .database
        .sql("UPDATE orders SET region = 'a.b.c' WHERE id = 1; INSERT INTO orders VALUES (41, 'eu', '')");
    place.vhost.delete_queue("all");
    let warned = program.sync("orders", 3);
    assert_eq!(warned["counts"]["rejected"], json!({"added": 0, "changed": 1, "removed": 0}), "{warned:#}");
    assert_eq!(warned["rejections"][0]["code"], "unroutable", "{warned:#}");
    assert_eq!(keys(&place, "eu"), BTreeSet::from([41]));
}

#[test]
fn a_queue_that_only_some_rows_misname_rejects_only_them() {
    let place = Place::with(ORDERS);
    place.vhost.queue("crm.eu");
    place.vhost.queue("crm.us");
    place.database.sql(
        "UPDATE orders SET queue = 'nobody' WHERE id IN (3, 4); UPDATE orders SET queue = NULL WHERE id = 5;
         UPDATE orders SET queue = '' WHERE id = 6; UPDATE orders SET queue = repeat('é', 128) WHERE id = 7",
    );
    let program = place.program("    queue: {column: queue}\n    message: {fields: all}\n");
    let warned = program.sync("orders", 3);
    assert_eq!(warned["state"], "warning");
    assert_eq!(warned["counts"]["sent"]["added"], 35, "{warned:#}");
    let codes: BTreeSet<(String, u64)> = warned["rejections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kind| (kind["code"].as_str().unwrap().to_owned(), kind["rows"].as_u64().unwrap()))
        .collect();
    let expected = [("no-such-queue", 2), ("null-value", 2), ("value-too-long", 1)];
    assert_eq!(codes, expected.map(|(code, rows)| (code.to_owned(), rows)).into());
    let (eu, us) = (keys(&place, "crm.eu"), keys(&place, "crm.us"));
    assert_eq!(eu, (8..=40).step_by(2).chain([2]).collect());
    assert_eq!(us, (9..=39).step_by(2).chain([1]).collect());
    let why = program.documents(&["explain", "3"], 0);
    let why: Value = why.first().unwrap().clone();
    assert_eq!((&why["status"], &why["code"]), (&json!("rejected"), &json!("no-such-queue")), "{why:#}");

    // Nothing but these is tried again, and with names that exist they go.
    assert_eq!(program.sync("orders", 3)["counts"]["planned"]["added"], 5);
    place.database.sql("UPDATE orders SET queue = 'crm.eu' WHERE id BETWEEN 3 AND 7");
    program.sync("orders", 0);
    assert_eq!(keys(&place, "crm.eu"), (3..=7).collect());
    assert_eq!(keys(&place, "crm.us"), BTreeSet::new());
}

#[test]
fn each_trigger_has_its_own_queue_and_message() {
    let place = Place::with(ORDERS);
    for queue in ["welcome", "moved", "erased"] {
        place.vhost.queue(queue);
    }
    let program = place.program(
        r#"
    queue: welcome
    message: {fields: {id: id}}
    on:
      added: {}
      changed:
        queue: moved
        when: previous.region != row.region
        headers: {from: {template: "{{ previous.region }}"}}
        message: {template: '{"id": {{ key }}, "to": {{ row.region }}, "changed": {{ changed }}}'}
      removed:
        queue: erased
        message: {template: '{"id": {{ key }}, "last": {{ row.region }}, "previous": {{ previous.queue }}}'}
"#,
    );
    program.sync("orders", 0);
    assert_eq!(keys(&place, "welcome"), (1..=40).collect());
    place.database.sql(
        "UPDATE orders SET region = 'us' WHERE id = 2; UPDATE orders SET queue = 'x' WHERE id = 4; DELETE FROM orders WHERE id = 6",
    );
    program.sync("orders", 0);
    let moved = python::drain(&place.vhost.url(), "moved");
    assert_eq!(moved.len(), 1, "{moved:#?}");
    assert_eq!(moved[0].json(), json!({"id": 2, "to": "us", "changed": ["region"]}));
    assert_eq!(moved[0].headers, json!({"from": {"type": "str", "value": "eu"}}));
    let erased = python::drain(&place.vhost.url(), "erased");
    assert_eq!(erased.len(), 1, "{erased:#?}");
    assert_eq!(erased[0].json(), json!({"id": 6, "last": "eu", "previous": "crm.eu"}));
    assert_eq!(keys(&place, "welcome"), BTreeSet::new());
}
