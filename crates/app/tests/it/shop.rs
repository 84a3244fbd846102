//! A shop: a table in PostgreSQL that changes, a queue in RabbitMQ, the sync between them, and a consumer that
//! remembers all it was told and compares it with the table.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;
use warren_testkit::pg::{self, Database};
use warren_testkit::python::python;
use warren_testkit::rabbit::Vhost;
use warren_testkit::{Scratch, scratch};

use crate::program::Program;

/// The queue, the sync and the table.
pub const CUSTOMERS: &str = "customers";

/// See the module.
pub struct Shop {
    pub program: Program,
    pub database: Database,
    folder: Scratch,
}

impl Shop {
    /// A table of so many rows, and a sync of it to the queue `customers` of this virtual host, which is declared.
    pub fn open(vhost: &Vhost, rows: u32) -> Shop {
        Shop::open_at(vhost, &vhost.url(), rows, "", "")
    }

    /// The broker at this address, with further lines for it and for the sync, each with four spaces before it.
    pub fn open_at(vhost: &Vhost, url: &str, rows: u32, broker: &str, sync: &str) -> Shop {
        vhost.queue(CUSTOMERS);
        let (database, folder) = (pg::database(), scratch("shop"));
        database.sql(&format!(
            "CREATE TABLE customers (id int PRIMARY KEY, name text, seats int, updated timestamptz DEFAULT now());
             INSERT INTO customers SELECT id, {NAME}, id % 4 FROM generate_series(1, {rows}) AS id;
             ANALYZE customers"
        ));
        let program = Program::configured(folder.path(), &config(&database, url, broker, sync));
        Shop { program, database, folder }
    }

    /// The same shop with the broker at another address, and other lines for it.
    pub fn reconfigured(self, url: &str, broker: &str) -> Shop {
        let program = Program::configured(self.folder.path(), &config(&self.database, url, broker, ""));
        Shop { program, ..self }
    }

    /// Changes about a share of the rows; of the others a few hundred go, and as many come, keys that went before among
    /// them. Seats have four values, so that rows also change back to what they were.
    pub fn change(&self, share: f64, seed: f64) {
        self.database.sql(&format!(
            "SELECT setseed({seed});
             UPDATE customers SET seats = (seats + 1 + floor(random() * 3)::int) % 4, updated = now()
               WHERE random() < {share};
             DELETE FROM customers WHERE random() < 0.005;
             INSERT INTO customers SELECT id, {NAME}, floor(random() * 4)::int
               FROM generate_series(1, (SELECT max(id) + 100 FROM customers)) AS new (id)
               WHERE random() < 0.2 AND NOT EXISTS (SELECT FROM customers WHERE customers.id = new.id)"
        ));
    }

    /// The rows as they are now, each as the message should have it but for the op.
    pub fn rows(&self) -> BTreeMap<u64, Value> {
        let rows = "SELECT json_build_object('id', id, 'name', name, 'seats', seats) FROM customers";
        let rows = self.database.sql(rows);
        let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.map(|row| (row["id"].as_u64().unwrap(), row)).collect()
    }
}

/// Names with what breaks a careless JSON.
const NAME: &str = r#"'Zoë "' || id || '" \ 東' || chr(10) || repeat('x', id % 50)"#;

fn config(database: &Database, url: &str, broker: &str, sync: &str) -> String {
    let source = database.url();
    format!(
        r#"
sources:
  shop: {{type: postgres, url: "{source}"}}
models:
  customers: {{source: shop, primary_key: id, table: customers}}
brokers:
  rabbit:
    type: rabbitmq
    url: "{url}"
{broker}
syncs:
  customers:
    model: customers
    to: rabbit
    queue: customers
    headers: {{run: {{template: "{{{{ run }}}}", type: int}}}}
    message:
      template: '{{"op": {{{{ op }}}}, "id": {{{{ row.id }}}}, "name": "{{{{ row.name }}}}", "seats": {{{{ row.seats }}}}}}'
{sync}
"#
    )
}

/// All that a consumer of the queue was told.
#[derive(Default)]
pub struct Heard {
    /// Messages taken.
    pub messages: u64,
    /// By run: messages of it that were sent once more, later in it or in a later run.
    pub repeated: BTreeMap<u64, u64>,
    by_run: BTreeMap<u64, u64>,
    /// What breaks the promises: a repetition with another body, or an older run after a newer.
    pub faults: Vec<String>,
    first: HashMap<String, First>,
    last: HashMap<u64, Last>,
}

/// The first message of a change.
struct First {
    /// The newest run that sent it.
    run: u64,
    body: u64,
}

/// The newest message of a key.
struct Last {
    run: u64,
    body: String,
}

impl Heard {
    /// Takes all that is in the queue.
    pub fn listen(&mut self, vhost: &Vhost) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/shop/listen.py");
        for line in python(script, &[&vhost.url(), CUSTOMERS]).lines() {
            let (id, rest) = line.split_once('\t').unwrap();
            let (run, body) = rest.split_once('\t').unwrap();
            self.hear(id, run.parse().unwrap(), body);
        }
    }

    fn hear(&mut self, id: &str, run: u64, body: &str) {
        self.messages += 1;
        *self.by_run.entry(run).or_default() += 1;
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let hash = hasher.finish();
        match self.first.get_mut(id) {
            None => {
                self.first.insert(id.to_owned(), First { run, body: hash });
            }
            Some(first) => {
                *self.repeated.entry(first.run).or_default() += 1;
                first.run = run;
                if first.body != hash {
                    self.faults.push(format!("change {id} came again in run {run} with another body"));
                }
            }
        }
        let key = parsed(body)["id"].as_u64().unwrap();
        match self.last.get_mut(&key) {
            Some(last) if last.run > run => {
                self.faults.push(format!("key {key}: run {run} came after run {}", last.run));
            }
            Some(last) => *last = Last { run, body: body.to_owned() },
            None => {
                self.last.insert(key, Last { run, body: body.to_owned() });
            }
        }
    }

    /// Messages of a run.
    pub fn of_run(&self, run: u64) -> u64 {
        self.by_run.get(&run).copied().unwrap_or(0)
    }

    /// Messages that came more than once.
    pub fn repetitions(&self) -> u64 {
        self.repeated.values().sum()
    }

    /// Where what was told differs from the rows: a row that was not told of as it is, or one that is gone and was not
    /// said to be.
    pub fn lost(&self, rows: &BTreeMap<u64, Value>) -> Vec<String> {
        let mut lost = Vec::new();
        for (key, row) in rows {
            let Some(last) = self.last.get(key) else {
                lost.push(format!("key {key} was never told of: {row}"));
                continue;
            };
            let mut told = parsed(&last.body);
            let op = told.as_object_mut().unwrap().remove("op").unwrap();
            if op == "removed" || told != *row {
                lost.push(format!("key {key}: last told {op} {told} in run {}, is {row}", last.run));
            }
        }
        for (key, last) in &self.last {
            if !rows.contains_key(key) && parsed(&last.body)["op"] != "removed" {
                lost.push(format!("key {key} is gone: last told {} in run {}", last.body, last.run));
            }
        }
        lost
    }

    /// Panics where a promise was broken: nothing lost, repetitions the same, runs in order.
    pub fn assert_true(&self, shop: &Shop) {
        let lost = self.lost(&shop.rows());
        assert!(lost.is_empty(), "{} lost:\n{}", lost.len(), lost[..lost.len().min(20)].join("\n"));
        let faults = &self.faults;
        assert!(faults.is_empty(), "{}:\n{}", faults.len(), faults[..faults.len().min(20)].join("\n"));
    }
}

fn parsed(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|_| panic!("not JSON: {body}"))
}
