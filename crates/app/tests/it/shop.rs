//! A shop: a table in PostgreSQL that changes, a queue in RabbitMQ, the sync between them, and a consumer that
//! remembers all it was told and compares it with the table.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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
    /// The same row told twice running with two change ids: the runs that did.
    pub renamed: Vec<(u64, u64)>,
    /// What breaks the promises: a repetition with another body, or an older run after a newer.
    pub faults: Vec<String>,
    by_run: BTreeMap<u64, u64>,
    changes: HashMap<u128, Sent>,
    keys: HashMap<u64, Vec<Told>>,
}

/// A change that was sent.
struct Sent {
    /// The newest run that sent it.
    run: u64,
    body: u64,
}

/// What was said of a key.
struct Told {
    run: u64,
    change: u128,
    /// `None`: that it is gone.
    row: Option<u64>,
}

impl Heard {
    /// Takes all that is in the queue.
    pub fn listen(&mut self, vhost: &Vhost) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/shop/listen.py");
        for line in python(script, &[&vhost.url(), CUSTOMERS]).lines() {
            let (id, rest) = line.split_once('\t').unwrap();
            let (run, body) = rest.split_once('\t').unwrap();
            self.hear(u128::from_str_radix(id, 16).unwrap(), run.parse().unwrap(), body);
        }
    }

    fn hear(&mut self, change: u128, run: u64, body: &str) {
        self.messages += 1;
        *self.by_run.entry(run).or_default() += 1;
        let body_hash = hash(body);
        match self.changes.get_mut(&change) {
            Some(sent) => {
                *self.repeated.entry(sent.run).or_default() += 1;
                sent.run = run;
                if sent.body != body_hash {
                    self.faults.push(format!("change {change:032x} came again in run {run} as {body}"));
                }
            }
            None => {
                self.changes.insert(change, Sent { run, body: body_hash });
            }
        }
        let message: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("not JSON: {body}"));
        let row = (message["op"] != "removed").then(|| row_hash(&message));
        let told = self.keys.entry(message["id"].as_u64().unwrap()).or_default();
        if let Some(last) = told.last() {
            if last.row == row && last.change != change {
                self.renamed.push((last.run, run));
            }
            if last.run > run {
                self.faults.push(format!("run {run} came after run {}: {body}", last.run));
            }
        }
        told.push(Told { run, change, row });
    }

    /// Messages of a run.
    pub fn of_run(&self, run: u64) -> u64 {
        self.by_run.get(&run).copied().unwrap_or(0)
    }

    /// Messages that came more than once.
    pub fn repetitions(&self) -> u64 {
        self.repeated.values().sum()
    }

    /// Where what was told last differs from the rows: a row that is otherwise, and one that is gone and was not said to
    /// be.
    pub fn wrong(&self, rows: &BTreeMap<u64, Value>) -> Vec<String> {
        let keys: BTreeSet<u64> = self.keys.keys().chain(rows.keys()).copied().collect();
        let mut wrong = Vec::new();
        for key in keys {
            let told = self.keys.get(&key).map_or(&[][..], Vec::as_slice);
            if told.last().and_then(|told| told.row) != rows.get(&key).map(row_hash) {
                let runs: Vec<u64> = told.iter().map(|told| told.run).collect();
                let row = rows.get(&key);
                wrong.push(format!("key {key}: told of in runs {runs:?} and not as it is: {row:?}"));
            }
        }
        wrong
    }

    /// Panics where a promise was broken: nothing lost, repetitions the same, runs in order.
    pub fn assert_true(&self, shop: &Shop) {
        let lost = self.wrong(&shop.rows());
        assert!(lost.is_empty(), "{} lost:\n{}", lost.len(), lost[..lost.len().min(20)].join("\n"));
        self.assert_same();
    }

    /// Panics where a repetition was not one, or runs came out of order.
    pub fn assert_same(&self) {
        let faults = &self.faults;
        assert!(faults.is_empty(), "{}:\n{}", faults.len(), faults[..faults.len().min(20)].join("\n"));
    }
}

fn row_hash(row: &Value) -> u64 {
    hash((row["id"].as_u64(), row["name"].as_str(), row["seats"].as_u64()))
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
