//! Bodies, attributes, groups, delays and queues, as boto3 and the server see them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use warren_testkit::sqs::{Endpoint, account};

use super::{Place, at, of};

const SOON: Duration = Duration::from_secs(60);

const ORDERS: &str = "
    CREATE TABLE orders (id int PRIMARY KEY, region text, weight numeric, raw bytea, note text, wait int);
    INSERT INTO orders SELECT id, (ARRAY['eu', 'us'])[1 + id % 2], id + 0.50, '\\x00ff'::bytea,
      CASE WHEN id % 3 = 0 THEN NULL ELSE 'grüße \"' || id || '\"' END, id
      FROM generate_series(1, 30) AS id";

#[test]
fn boto3_reads_what_each_trigger_sent_to_standard_and_fifo_queues() {
    let account = account();
    account.queue("new-orders", &[]);
    account.queue("changes.fifo", &[]);
    account.queue("erasure.fifo", &[]);
    let syncs = "  orders:
    model: orders
    to: aws
    message_id: {column: id}
    group_id: {template: \"{{ row.region }}-{{ row.id | modulo: 3 }}\"}
    attributes:
      kind: order
      weight: {type: Number.float, column: weight}
      raw: {type: Binary, column: raw}
      note: {column: note}
      op: {template: \"{{ op }}!\"}
    message: {template: '{\"id\": {{ row.id }}, \"region\": \"{{ row.region }}\", \"note\": {{ row.note }}, \"change\": \"{{ change_id }}\"}'}
    on:
      added: {queue: new-orders}
      changed: {queue: changes.fifo, deduplication_id: {template: \"{{ row.id }}/{{ row.region }}\"}}
      removed: {queue: erasure.fifo, attributes: {}, message: {fields: {id: id}}}
";
    let place = Place::new(ORDERS, &of(&account), syncs);
    let checked = place.program.run(&["check"]);
    assert_eq!(checked.code, Some(0), "{checked:#?}");
    place.program.sync("orders", 0);
    let came = account.drain("new-orders", 30, SOON);
    assert_eq!(came.len(), 30);
    for message in &came {
        let body: Value = serde_json::from_str(message["Body"].as_str().unwrap()).unwrap();
        let id = body["id"].as_i64().unwrap();
        let region = if id % 2 == 0 { "eu" } else { "us" };
        let note = if id % 3 == 0 { Value::Null } else { json!(format!("grüße \"{id}\"")) };
        assert_eq!((&body["region"], &body["note"]), (&json!(region), &note));
        assert_eq!(message["Attributes"]["MessageGroupId"], format!("{region}-{}", id % 3));
        assert_eq!(message["Attributes"]["MessageDeduplicationId"], Value::Null);
        let attributes = message["MessageAttributes"].as_object().unwrap();
        assert_eq!(attributes["kind"], json!({"StringValue": "order", "DataType": "String"}));
        assert_eq!(
            attributes["weight"],
            json!({"StringValue": format!("{id}.50"), "DataType": "Number.float"})
        );
        assert_eq!(attributes["raw"], json!({"BinaryValue": {"base64": "AP8="}, "DataType": "Binary"}));
        assert_eq!(attributes["op"]["StringValue"], "added!");
        assert_eq!(attributes.contains_key("note"), id % 3 != 0, "a NULL leaves it out");
    }
    place.database.sql("UPDATE orders SET region = 'asia' WHERE id <= 10; DELETE FROM orders WHERE id > 25");
    place.program.sync("orders", 0);
    let changed = account.drain("changes.fifo", 10, SOON);
    let ids: BTreeSet<String> = changed
        .iter()
        .map(|one| one["Attributes"]["MessageDeduplicationId"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids, (1..=10).map(|id| format!("{id}/asia")).collect());
    let removed = account.drain("erasure.fifo", 5, SOON);
    for message in &removed {
        let body: Value = serde_json::from_str(message["Body"].as_str().unwrap()).unwrap();
        assert!(body["id"].as_i64().unwrap() > 25 && message["MessageAttributes"].is_null(), "{message}");
        // The change id, which has 32 digits.
        assert_eq!(message["Attributes"]["MessageDeduplicationId"].as_str().unwrap().len(), 32);
    }
    // The result of each is reported with its message id, and what SQS answered.
    let explained = place.program.run(&["explain", "7"]);
    assert!(
        explained.stdout.contains("7 is message ") && explained.stdout.contains("MD5"),
        "{}",
        explained.stdout
    );
    let queues = place.program.documents(&["queues"], 0);
    let names: Vec<_> = queues.iter().map(|queue| (queue["queue"].clone(), queue["kind"].clone())).collect();
    assert_eq!(
        names,
        [("changes.fifo", "fifo"), ("erasure.fifo", "fifo"), ("new-orders", "standard")]
            .map(|(name, kind)| (json!(name), json!(kind)))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_chooses_the_queue_and_the_delay() {
    let endpoint = Endpoint::start().await;
    for queue in ["eu", "us.fifo"] {
        endpoint.queue(queue);
    }
    let syncs = "  orders:
    model: orders
    to: aws
    message_id: {column: id}
    queue: {template: \"{{ row.region | replace: 'us', 'us.fifo' }}\"}
    group_id: all
    delay_seconds: {template: \"{% if row.region == 'eu' %}{{ row.wait }}{% else %}0{% endif %}\"}
    message: {column: note, format: text}
    on: {added: {when: \"row.note != null\"}}
";
    let broker = at(&endpoint);
    tokio::task::spawn_blocking(move || Place::new(ORDERS, &broker, syncs).program.sync("orders", 0))
        .await
        .unwrap();
    let delays: BTreeMap<String, Option<i64>> =
        endpoint.stored("eu").into_iter().map(|stored| (stored.arrival.body, stored.arrival.delay)).collect();
    assert_eq!(delays.len(), 10);
    assert_eq!(delays["grüße \"8\""], Some(8));
    assert!(endpoint.stored("us.fifo").iter().all(|stored| stored.arrival.delay.is_none()));
    assert_eq!(endpoint.stored("us.fifo").len(), 10);
}
