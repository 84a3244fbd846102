//! Rows that break a rule, requests that fail, and queues that go away.

use serde_json::json;
use warren_testkit::sqs::{Endpoint, EntryFault, Fate, QueueSettings};

use super::{Place, at, rejections};

/// Each row breaks a rule of SQS by what is in its columns, but for those above 100.
const BAD: &str = "
    CREATE TABLE orders (id int PRIMARY KEY, queue text, body text, grp text, dedup text, delay text, num text, txt text, msg text);
    INSERT INTO orders SELECT id, 'plain', 'fine', 'g', NULL, '0', '1', 't', id::text FROM generate_series(1, 110) AS id;
    DELETE FROM orders WHERE id BETWEEN 15 AND 99;
    UPDATE orders SET body = 'a' || chr(1) WHERE id = 1;
    UPDATE orders SET body = '' WHERE id = 2;
    UPDATE orders SET body = repeat('x', 1048577) WHERE id = 3;
    UPDATE orders SET delay = '901' WHERE id = 4;
    UPDATE orders SET delay = 'soon' WHERE id = 5;
    UPDATE orders SET num = '1e127' WHERE id = 6;
    UPDATE orders SET txt = '' WHERE id = 7;
    UPDATE orders SET txt = 'a' || chr(8) WHERE id = 8;
    UPDATE orders SET queue = 'lanes.fifo', grp = NULL WHERE id = 9;
    UPDATE orders SET queue = 'lanes.fifo', grp = 'two words' WHERE id = 10;
    UPDATE orders SET queue = 'lanes.fifo', dedup = repeat('d', 129) WHERE id = 11;
    UPDATE orders SET queue = 'lanes.fifo', delay = '5' WHERE id = 12;
    UPDATE orders SET msg = NULL WHERE id = 13;
    UPDATE orders SET queue = 'nowhere' WHERE id = 14;
    UPDATE orders SET body = repeat('x', 300000), queue = 'old' WHERE id = 100";

const RULES: &str = "  orders:
    model: orders
    to: aws
    queue: {column: queue}
    message_id: {column: msg}
    group_id: {column: grp}
    deduplication_id: {column: dedup}
    delay_seconds: {column: delay}
    attributes: {n: {type: Number, column: num}, t: {column: txt}}
    message: {column: body, format: text}
";

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_rule_rejects_its_row_with_its_code() {
    let endpoint = Endpoint::start().await;
    endpoint.queue("plain");
    endpoint.queue_with("lanes.fifo", QueueSettings { content_based: true, ..QueueSettings::default() });
    endpoint.queue_with("old", QueueSettings { bytes_max: 262_144, ..QueueSettings::default() });
    let broker = at(&endpoint);
    let (ended, explained) = tokio::task::spawn_blocking(move || {
        let place = Place::new(BAD, &broker, RULES);
        let ended = place.program.sync("orders", 3);
        (ended, place.program.documents(&["explain", "10"], 0))
    })
    .await
    .unwrap();
    let expected = [
        ("empty-message", 1),
        ("invalid-attribute", 2),
        ("invalid-characters", 2),
        ("invalid-deduplication-id", 1),
        ("invalid-delay", 3),
        ("invalid-group-id", 1),
        ("message-too-large", 2),
        ("missing-group-id", 1),
        ("no-such-queue", 1),
        ("null-value", 1),
    ];
    assert_eq!(rejections(&ended), expected.map(|(code, rows)| (code.to_owned(), rows)));
    assert_eq!(ended["counts"]["sent"]["added"], 10);
    assert_eq!(endpoint.stored("plain").len(), 10);
    // The rule, the field and the value are named.
    let text = serde_json::to_string(&explained).unwrap();
    assert!(text.contains("`group_id` is `two words` and has a space"), "{text}");
}

const ROWS: &str = "CREATE TABLE orders (id int PRIMARY KEY, grp text);
    INSERT INTO orders SELECT id, 'g' || id % 5 FROM generate_series(1, 200) AS id";

fn sync(queue: &str) -> String {
    format!(
        "  orders:\n    model: orders\n    to: aws\n    queue: {queue}\n    message_id: {{column: id}}\n    \
         group_id: {{column: grp}}\n    message: {{fields: {{id: id}}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_a_while_is_tried_again_and_counted() {
    let endpoint = Endpoint::start().await;
    endpoint.queue("plain");
    endpoint.script(|call| match call.number {
        0 => Fate::AnswerLost,
        1 => Fate::Refused(400, "RequestThrottled"),
        2 => Fate::Faults(
            [(1, EntryFault::Server("InternalError")), (3, EntryFault::Server("RequestThrottled"))].into(),
        ),
        3 => Fate::Refused(500, "InternalFailure"),
        _ => Fate::Fine,
    });
    let broker = at(&endpoint);
    let ended = tokio::task::spawn_blocking(move || {
        Place::new(ROWS, &broker, &sync("plain")).program.sync("orders", 0)
    });
    let ended = ended.await.unwrap();
    assert_eq!(ended["counts"]["sent"]["added"], 200);
    // Ten of a lost answer and ten of a server's own error may have arrived; ten of them had.
    assert_eq!(ended["counts"]["possible_duplicates"], 20);
    assert_eq!(endpoint.stored("plain").len(), 210);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_refused_holds_its_group_and_the_next_run_goes_on() {
    let endpoint = Endpoint::start().await;
    endpoint.queue("lanes.fifo");
    endpoint.script(|call| {
        let bad = call.entries.iter().position(|entry| entry.group.as_deref() == Some("g3"));
        Fate::Faults(bad.map(|at| (at, EntryFault::Sender("InvalidParameterValue"))).into_iter().collect())
    });
    let broker = at(&endpoint);
    let place =
        tokio::task::spawn_blocking(move || Place::new(ROWS, &broker, &sync("lanes.fifo"))).await.unwrap();
    let (place, ended, text) = tokio::task::spawn_blocking(move || {
        let ended = place.program.sync("orders", 3);
        let text = place.program.run(&["runs", "1"]).stdout;
        (place, ended, text)
    })
    .await
    .unwrap();
    assert_eq!(ended["counts"]["held"]["added"], 39, "{ended:#}");
    assert_eq!(rejections(&ended), [("broker-refused-message".to_owned(), 1)]);
    assert!(text.contains("held") && text.contains("39 messages"), "{text}");
    assert_eq!(endpoint.stored("lanes.fifo").len(), 160);
    endpoint.script(|_| Fate::Fine);
    let ended = tokio::task::spawn_blocking(move || place.program.sync("orders", 0)).await.unwrap();
    assert_eq!(ended["counts"]["sent"]["added"], 40);
    assert_eq!(endpoint.stored("lanes.fifo").len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_rights_and_keys_are_told_before_anything_is_sent() {
    let endpoint = Endpoint::start().await;
    endpoint.queue("plain");
    endpoint.deny("SendMessageBatch");
    endpoint.deny("GetQueueAttributes");
    let broker = at(&endpoint);
    let checked = tokio::task::spawn_blocking(move || {
        let place = Place::new(ROWS, &broker, &sync("plain"));
        place.program.documents(&["check"], 1)
    });
    let checked = checked.await.unwrap();
    let findings = checked.last().unwrap()["findings"].as_array().unwrap().clone();
    let shown: Vec<_> = findings
        .iter()
        .map(|finding| {
            (finding["severity"].as_str().unwrap(), finding["message"].as_str().unwrap().to_owned())
        })
        .collect();
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert!(shown[0].0 == "warning" && shown[0].1.contains("`sqs:GetQueueAttributes`"), "{shown:?}");
    assert!(shown[1].0 == "error" && shown[1].1.contains("`sqs:SendMessage`"), "{shown:?}");
    // At the line that names the queue.
    assert!(findings.iter().all(|finding| finding["line"].is_u64()), "{findings:?}");
    assert_eq!(findings[1]["subject"], json!("syncs.orders.on.added.queue"));
}
