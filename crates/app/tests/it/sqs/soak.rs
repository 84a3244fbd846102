//! SIGKILL in the middle of a sync, again and again, while rows change: nothing is lost, and a FIFO queue takes nothing twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;
use warren_testkit::soak;
use warren_testkit::sqs::Endpoint;

use super::{Place, at};

const ROWS: u32 = 4_000;
/// What may be under way unrecorded: messages of a batch times batches in flight.
const WINDOW: usize = 500 * 8;

const STATEMENTS: &str = "CREATE TABLE orders (id int PRIMARY KEY, grp text, seats int);
    INSERT INTO orders SELECT id, 'g' || id % 97, id % 4 FROM generate_series(1, 4000) AS id";

#[test]
fn kill_nine_loses_nothing_on_a_standard_queue() {
    kill("plain");
}

#[test]
fn kill_nine_neither_loses_nor_repeats_on_a_fifo_queue() {
    kill("lanes.fifo");
}

fn kill(queue: &str) {
    let kills = if soak() { 40 } else { 4 };
    let seed = std::env::var("WARREN_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let endpoint = runtime.block_on(Endpoint::start());
    endpoint.queue(queue);
    // Answers that take a while, so that much is under way when the kill comes.
    endpoint.delay(Duration::from_millis(20));
    let sync = format!(
        "  orders:\n    model: orders\n    to: aws\n    queue: {queue}\n    message_id: {{column: id}}\n    \
         group_id: {{column: grp}}\n    attributes: {{change: {{template: \"{{{{ change_id }}}}\"}}}}\n    \
         message: {{fields: {{id: id, seats: seats}}}}\n    \
         on: {{added: , changed: , removed: {{message: {{fields: {{id: id}}}}}}}}\n"
    );
    let place = Place::new(STATEMENTS, &at(&endpoint), &sync);
    let mut killed = 0;
    while killed < kills {
        let before = endpoint.asked("SendMessageBatch");
        let after = random.usize(1..250);
        let mut running = place.program.start(&["sync", "orders"]);
        warren_testkit::wait_until("so many requests came, or it is over", Duration::from_secs(120), || {
            endpoint.asked("SendMessageBatch") >= before + after || running.is_over()
        });
        match running.kill().code {
            None => killed += 1,
            code => assert_eq!(code, Some(0), "it ended before its kill"),
        }
        place.database.sql(&format!(
            "SELECT setseed({});
             UPDATE orders SET seats = (seats + 1 + floor(random() * 3)::int) % 4 WHERE random() < 0.3;
             DELETE FROM orders WHERE random() < 0.01;
             INSERT INTO orders SELECT id, 'g' || id % 97, floor(random() * 4)::int FROM generate_series(1, {ROWS} + 50) AS new (id)
               WHERE random() < 0.3 AND NOT EXISTS (SELECT FROM orders WHERE orders.id = new.id)",
            random.f64()
        ));
    }
    assert_eq!(place.program.sync("orders", 0)["state"], "success");
    let after = place.program.sync("orders", 0);
    assert_eq!(crate::program::total(&after["counts"]["planned"]), 0, "all was told: {after}");

    let mut told: BTreeMap<u64, Value> = BTreeMap::new();
    let mut changes: BTreeMap<String, usize> = BTreeMap::new();
    for stored in endpoint.stored(queue) {
        let body: Value = serde_json::from_str(&stored.arrival.body).unwrap();
        let change = stored.arrival.attributes["change"]["StringValue"].as_str().unwrap().to_owned();
        *changes.entry(change).or_default() += 1;
        told.insert(body["id"].as_u64().unwrap(), body["seats"].clone());
    }
    let rows = place.database.sql("SELECT id, seats FROM orders");
    let rows: BTreeMap<u64, Value> = rows
        .lines()
        .map(|line| {
            let (id, seats) = line.split_once('|').unwrap_or_else(|| panic!("{line}"));
            (id.parse().unwrap(), Value::from(seats.parse::<u64>().unwrap()))
        })
        .collect();
    let keys: BTreeSet<u64> = told.keys().chain(rows.keys()).copied().collect();
    let lost: Vec<u64> = keys
        .into_iter()
        .filter(|key| told.get(key).filter(|seats| !seats.is_null()) != rows.get(key))
        .collect();
    let arrived: usize = endpoint.calls().iter().map(|call| call.entries.len()).sum();
    let stored: usize = changes.values().sum();
    let repeated: usize = changes.values().map(|count| count - 1).sum();
    println!("kills {killed}, arrived {arrived}, stored {stored}, repeated {repeated}, lost {}", lost.len());
    assert!(lost.is_empty(), "{lost:?}");
    if queue.strip_suffix(".fifo").is_some() {
        assert_eq!(repeated, 0, "the change id is the deduplication id");
        let groups = endpoint.stored(queue).into_iter().map(|stored| stored.arrival.group);
        assert_eq!(groups.collect::<BTreeSet<_>>().len(), 97);
    } else {
        assert!(repeated <= WINDOW * kills, "{repeated} were repeated by {kills} kills");
    }
}
