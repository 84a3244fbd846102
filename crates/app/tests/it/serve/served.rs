//! A configuration with one trigger, served by a process.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use warren_connectors::kit::setting::Secret;
use warren_connectors::rabbitmq::{Config, Rabbit};
use warren_engine::message::{Message, Outbound, Properties, Receipt, Route};
use warren_engine::ports::Broker as _;
use warren_testkit::rabbit::Vhost;
use warren_testkit::wait::{wait_for, wait_until};

use crate::program::{Ended, Program, Running};

/// Nothing here takes longer, unless the machine does.
pub const SOON: Duration = Duration::from_secs(60);

/// What is done with a message, by its body.
const PIPELINE: &str = r#"
pipelines:
  work:
    - choose:
        - when: '.body | startswith("bad")'
          steps: [{fail: {reason: it is bad, as: reject}}]
        - when: '.body | startswith("again")'
          steps: [{fail: {reason: not now, as: retry}}]
        - when: '.body | startswith("slow")'
          steps: [{retry: {delays: [200s], steps: [{fail: {reason: slow, as: retry}}]}}]
        - otherwise:
            - publish: {to: mq, queue: out, body: '{body, headers, attempt: .envelope.attempt, exchange: .envelope.exchange, key: .envelope.routingKey}'}
"#;

pub struct Served {
    pub program: Program,
    _folder: TempDir,
}

impl Served {
    /// A trigger `orders` on the queue `in`, with these further keys (one a line).
    pub fn rabbit(vhost: &Vhost, keys: &str) -> Served {
        let management = vhost.management().url();
        Served::with(
            &format!("{{type: rabbitmq, url: \"{}\", management_url: \"{management}\"}}", vhost.url()),
            keys,
        )
    }

    pub fn embedded(keys: &str) -> Served {
        Served::with("{type: embedded, queues: {in: {}, out: {}, dead: {}}}", keys)
    }

    pub fn with(broker: &str, keys: &str) -> Served {
        Served::with_pipeline(broker, keys, PIPELINE)
    }

    /// With another pipeline `work`.
    pub fn with_pipeline(broker: &str, keys: &str, pipeline: &str) -> Served {
        let folder = tempfile::tempdir().unwrap();
        let dead_letter = if keys.contains("dead_letter") { "" } else { "    dead_letter: {queue: dead}\n" };
        let queue = if keys.contains("queue: in.fifo") { "" } else { "    queue: in\n" };
        let keys: Vec<String> = keys.lines().map(|line| format!("    {line}\n")).collect();
        let keys = keys.concat();
        let config = format!(
            "brokers:\n  mq: {broker}\nhttp: {{listen: \"127.0.0.1:0\"}}\nstate: {{folder: state, shutdown_grace: 5s}}\n\
             triggers:\n  orders:\n    from: mq\n{queue}    pipeline: work\n{dead_letter}{keys}{pipeline}"
        );
        Served { program: Program::configured(folder.path(), &config), _folder: folder }
    }

    /// Its port is known beforehand, so that the doctor knows whom to ask.
    pub fn on_a_known_port(self) -> Served {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = std::fs::read_to_string(self.program.config()).unwrap();
        let config = config.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
        std::fs::write(self.program.config(), config).unwrap();
        self
    }

    /// Starts it, and waits until it says where it serves.
    pub fn start(&self) -> Serving {
        self.start_with(&[])
    }

    /// Starts it with further arguments, and waits until it says where it serves.
    pub fn start_with(&self, arguments: &[&str]) -> Serving {
        let mut running = self.program.start(&[&["serve"], arguments].concat());
        running.wait_for("it serves", SOON, |event| event["serving"].is_object());
        let event = running.find(|event| event["serving"].is_object()).unwrap();
        let address = event.json["serving"]["address"].as_str().unwrap().to_owned();
        Serving { running, address }
    }

    /// Starts it, and waits until it consumes.
    pub fn consume(&self) -> Serving {
        let serving = self.start();
        serving.wait_for_state("consuming");
        serving
    }

    /// The attempts on record, newest first.
    pub fn attempts(&self) -> Vec<Value> {
        self.program.documents(&["runs", "--trigger", "orders", "--limit", "100000"], 0)
    }

    /// The statuses of the attempts at messages with this body, oldest first.
    pub fn statuses(&self, body: &str) -> Vec<String> {
        let attempts = self.attempts().into_iter().rev().filter(|attempt| attempt["body"] == body);
        attempts.map(|attempt| attempt["status"].as_str().unwrap().to_owned()).collect()
    }
}

/// Publishes messages with these bodies to the queue `in`, in their order.
pub fn publish(vhost: &Vhost, bodies: impl Iterator<Item = String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rabbit =
        Rabbit::new("rabbit", &Config { url: Some(Secret::new(vhost.url())), ..Config::default() }).unwrap();
    let outbound = |body: String| Outbound {
        route: Route::Queue("in".into()),
        message: Message { body: body.into(), properties: Properties::default() },
    };
    let all: Vec<Outbound> = bodies.map(outbound).collect();
    for some in all.chunks(500) {
        let receipts = runtime.block_on(rabbit.publish(some));
        assert!(receipts.iter().all(|receipt| matches!(receipt, Receipt::Accepted(_))), "{receipts:?}");
    }
    runtime.block_on(rabbit.close());
}

pub struct Serving {
    pub running: Running,
    pub address: String,
}

impl Serving {
    /// The status and body of a page.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// What `/readyz` says of the trigger.
    pub fn trigger(&self) -> Value {
        let (_, body) = self.get("/readyz");
        let document: Value = serde_json::from_str(&body).unwrap();
        document["triggers"]["orders"].clone()
    }

    pub fn wait_for_state(&self, state: &str) {
        wait_until(&format!("the trigger is {state}"), SOON, || self.trigger()["state"] == state);
    }

    /// A number of `/metrics`.
    pub fn number(&self, name: &str) -> f64 {
        let (_, body) = self.get("/metrics");
        let line =
            body.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {body}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    pub fn wait_for_number(&self, name: &str, least: f64) {
        wait_for(&format!("{name} is {least}"), SOON, || (self.number(name) >= least).then_some(()));
    }

    /// SIGTERM, and its end.
    pub fn stop(mut self) -> Ended {
        self.running.signal("TERM");
        self.running.end_within(SOON)
    }
}
