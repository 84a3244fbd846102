//! Python with `pika`: a client of RabbitMQ that is not ours, to see what a receiver sees.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::place::variable;
use crate::server::output;

/// Runs a script with the environment's Python and returns its stdout. A bare file name is one of
/// the scripts of this crate (`crates/testkit/python`), else it is a path.
///
/// # Panics
/// When the script fails; with its stderr.
pub fn python(script: impl AsRef<Path>, arguments: &[&str]) -> String {
    let mut command = Command::new(variable("WARREN_TEST_PYTHON"));
    command.arg(script_path(script.as_ref())).args(arguments);
    String::from_utf8(output(&mut command)).expect("scripts print UTF-8")
}

fn script_path(script: &Path) -> PathBuf {
    if script.components().count() > 1 {
        return script.to_owned();
    }
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/python")).join(script)
}

/// A message as `pika` saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub body: Vec<u8>,
    pub exchange: String,
    pub routing_key: String,
    pub redelivered: bool,
    /// `content_type`, `delivery_mode`, `message_id`, …: those that were set.
    pub properties: Value,
    /// Headers in order of their names, each `{"type": …, "value": …}` with Python's name for the
    /// type: `int`, `float`, `str`, `bool`, `bytes` (value in base64), `Decimal` and `datetime`
    /// (value as text), `NoneType`, `list`, `dict`.
    pub headers: Value,
}

impl Seen {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", String::from_utf8_lossy(&self.body)))
    }

    /// The body as text.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }
}

/// Takes all messages off a queue with `pika`, in the queue's order, until it is empty.
#[must_use]
pub fn drain(amqp_url: &str, queue: &str) -> Vec<Seen> {
    python("drain.py", &[amqp_url, queue]).lines().map(seen).collect()
}

/// Publishes one message with `pika` and waits for the confirm. `properties` are arguments of
/// `pika.BasicProperties`: `{"message_id": "a", "headers": {"x": 1}}`.
pub fn publish(amqp_url: &str, exchange: &str, routing_key: &str, body: &[u8], properties: &Value) {
    let message = json!({
        "exchange": exchange, "routing_key": routing_key, "body": STANDARD.encode(body), "properties": properties,
    });
    python("publish.py", &[amqp_url, &message.to_string()]);
}

/// Sends a request to a queue with `pika`, and returns the direct reply (`amq.rabbitmq.reply-to`) as text.
///
/// # Panics
/// When no reply comes within 60 seconds.
#[must_use]
pub fn request(amqp_url: &str, queue: &str, body: &str) -> String {
    python("request.py", &[amqp_url, queue, body, "60"]).trim_end().to_owned()
}

/// Sends a request as [`request`] does, and goes before it can be answered.
pub fn request_and_go(amqp_url: &str, queue: &str, body: &str) {
    python("request.py", &[amqp_url, queue, body, "0"]);
}

fn seen(line: &str) -> Seen {
    let value: Value = serde_json::from_str(line).expect("drain.py prints JSON");
    let text = |name: &str| value[name].as_str().expect("drain.py prints this text").to_owned();
    Seen {
        body: STANDARD.decode(text("body")).expect("drain.py prints base64"),
        exchange: text("exchange"),
        routing_key: text("routing_key"),
        redelivered: value["redelivered"] == true,
        properties: value["properties"].clone(),
        headers: value["headers"].clone(),
    }
}
