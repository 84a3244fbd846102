//! The outside of a pipeline in memory: calls that are expected, each with its answer, and nothing else.
//!
//! A call is a JSON value, such as `{"http": {"method": "POST", "url": "…", "body": {…}}}`. An expectation is a part of one: what it
//! does not name may be anything. A call takes the first expectation left that fits; one that fits none is a fault, is
//! answered with an error, and stays on record, so that a test cannot pass by accident.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::codes;
use crate::failure::{Failure, FailureKind};
use crate::finding::Finding;
use crate::message::{Answer, HeaderValue, Outbound, Properties, Receipt, Route};
use crate::pipeline::Outside;
use crate::pipeline::outside::{CommandEnd, CommandLine, HttpAnswer, HttpRequest, SqlAnswer, SqlCall};
use crate::ports::{Broker, CommandRunner, Consumer, HttpCaller, MessageLimits, QueueInfo, SqlExecutor};

/// What a call is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    /// To `http`.
    Http(HttpAnswer),
    /// To `exec`.
    Command(CommandEnd),
    /// To `sql`.
    Sql(SqlAnswer),
    /// To `publish` and `reply`: the broker has it.
    Confirmed,
    /// To `publish` and `reply`: the answer was lost.
    Unknown(Failure),
    /// To any: it failed, or was refused.
    Failed(Failure),
    /// To any: no answer ever comes.
    Silence,
}

/// Calls that are expected, with what came instead.
#[derive(Debug, Default)]
pub struct Script {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    expected: Vec<Option<(Value, Reply)>>,
    made: Vec<Value>,
    unexpected: Vec<Value>,
    /// Calls whose answer is not taken yet.
    open: usize,
}

impl Script {
    /// A script of calls with their answers.
    pub fn new(expected: impl IntoIterator<Item = (Value, Reply)>) -> Arc<Script> {
        let expected = expected.into_iter().map(Some).collect();
        Arc::new(Script { inner: Mutex::new(Inner { expected, ..Inner::default() }) })
    }

    /// An outside that follows it, with these brokers and sources.
    pub fn outside(self: &Arc<Script>, brokers: &[&str], sources: &[&str]) -> Outside {
        let broker = |name: &str| -> Arc<dyn Broker> {
            Arc::new(ScriptedBroker { script: self.clone(), name: Some(name.to_owned()) })
        };
        let database = |name: &str| -> Arc<dyn SqlExecutor> {
            Arc::new(ScriptedDatabase { script: self.clone(), name: name.to_owned() })
        };
        Outside {
            http: self.clone(),
            commands: self.clone(),
            brokers: brokers
                .iter()
                .map(|name| ((*name).to_owned(), broker(name)))
                .collect::<BTreeMap<_, _>>(),
            databases: sources.iter().map(|name| ((*name).to_owned(), database(name))).collect(),
            origin: Some(Arc::new(ScriptedBroker { script: self.clone(), name: None })),
        }
    }

    /// The calls that were made, in order.
    pub fn made(&self) -> Vec<Value> {
        self.lock().made.clone()
    }

    /// The calls that were made and not expected.
    pub fn unexpected(&self) -> Vec<Value> {
        self.lock().unexpected.clone()
    }

    /// The calls that were expected and not made.
    pub fn missing(&self) -> Vec<Value> {
        self.lock().expected.iter().flatten().map(|(call, _)| call.clone()).collect()
    }

    /// How many calls are under way: made, and neither answered nor dropped.
    pub fn under_way(&self) -> usize {
        self.lock().open
    }

    async fn answer(&self, call: Value) -> Result<Reply, Failure> {
        let found = {
            let mut inner = self.lock();
            inner.made.push(call.clone());
            let fits = |slot: &&mut Option<(Value, Reply)>| {
                slot.as_ref().is_some_and(|(expected, _)| is_part(expected, &call))
            };
            let reply = inner.expected.iter_mut().find(fits).and_then(Option::take).map(|(_, reply)| reply);
            if reply.is_none() {
                inner.unexpected.push(call.clone());
            }
            reply
        };
        match found {
            None => {
                let failure =
                    Failure::new(FailureKind::Internal, codes::INTERNAL, "a call that is not expected");
                Err(failure.detail(call.to_string()))
            }
            Some(Reply::Failed(failure)) => Err(failure),
            Some(Reply::Silence) => {
                let _open = Open::new(self);
                std::future::pending().await
            }
            Some(reply) => Ok(reply),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way.
struct Open<'s>(&'s Script);

impl<'s> Open<'s> {
    fn new(script: &'s Script) -> Open<'s> {
        script.lock().open += 1;
        Open(script)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.lock().open -= 1;
    }
}

fn wrong_answer(to: &str) -> Failure {
    Failure::internal(format!("the answer of the script is not one to `{to}`"))
}

#[async_trait]
impl HttpCaller for Script {
    async fn call(&self, request: &HttpRequest) -> Result<HttpAnswer, Failure> {
        let headers: Map<String, Value> = request
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str().into()))
            .collect();
        let call = json!({ "http": {
            "method": request.method, "url": request.url, "headers": headers, "body": content(&request.body),
        } });
        match self.answer(call).await? {
            Reply::Http(mut answer)
                if answer.body.len() > request.answer_bytes_max && request.options.cut_answer =>
            {
                answer.body.truncate(request.answer_bytes_max);
                Ok(answer)
            }
            Reply::Http(answer) if answer.body.len() > request.answer_bytes_max => Err(Failure::new(
                FailureKind::Invalid,
                codes::ANSWER_TOO_LARGE,
                format!("the answer has {} bytes", answer.body.len()),
            )),
            Reply::Http(answer) => Ok(answer),
            _ => Err(wrong_answer("http")),
        }
    }
}

#[async_trait]
impl CommandRunner for Script {
    async fn run(&self, command: &CommandLine) -> Result<CommandEnd, Failure> {
        let call = json!({ "exec": {
            "command": command.program, "args": command.arguments, "stdin": content(&command.stdin),
        } });
        match self.answer(call).await? {
            Reply::Command(end) => Ok(end),
            _ => Err(wrong_answer("exec")),
        }
    }
}

struct ScriptedDatabase {
    script: Arc<Script>,
    name: String,
}

#[async_trait]
impl SqlExecutor for ScriptedDatabase {
    async fn execute(&self, call: &SqlCall) -> Result<SqlAnswer, Failure> {
        let mut described = json!({ "source": self.name, "statement": call.statement.trim() });
        match call.parameters.as_slice() {
            [one] => described["params"] = one.clone().into(),
            several => described["each"] = several.iter().map(|set| Value::from(set.clone())).collect(),
        }
        match self.script.answer(json!({ "sql": described })).await? {
            Reply::Sql(answer) => Ok(answer),
            _ => Err(wrong_answer("sql")),
        }
    }
}

/// A broker; without a name it is the one that messages came from, and what it is sent are answers.
struct ScriptedBroker {
    script: Arc<Script>,
    name: Option<String>,
}

#[async_trait]
impl Broker for ScriptedBroker {
    async fn publish(&self, batch: &[Outbound]) -> Vec<Receipt> {
        let mut receipts = Vec::with_capacity(batch.len());
        for outbound in batch {
            let mut described = json!({
                "body": content(&outbound.message.body),
                "properties": properties(&outbound.message.properties),
                "headers": outbound.message.properties.headers.iter()
                    .map(|(name, value)| (name.to_owned(), header(value))).collect::<Map<_, _>>(),
            });
            match &outbound.route {
                Route::Queue(queue) => described["queue"] = queue.as_str().into(),
                Route::Exchange { exchange, routing_key } => {
                    described["exchange"] = exchange.as_str().into();
                    described["routing_key"] = routing_key.as_str().into();
                }
            }
            let call = match &self.name {
                Some(name) => {
                    described["to"] = name.as_str().into();
                    json!({ "publish": described })
                }
                None => json!({ "reply": described }),
            };
            receipts.push(match self.script.answer(call).await {
                Ok(Reply::Confirmed) => Receipt::Accepted(Answer("confirmed".into())),
                Ok(Reply::Unknown(failure)) => Receipt::Unknown(failure),
                Ok(_) => Receipt::Refused(wrong_answer("publish")),
                Err(failure) => Receipt::Refused(failure),
            });
        }
        receipts
    }

    async fn limits(&self) -> Result<MessageLimits, Failure> {
        Ok(MessageLimits {
            body_bytes_max: 16 << 20,
            header_bytes_max: Some(128 << 10),
            short_bytes_max: Some(255),
        })
    }

    async fn check(&self, _: &[Route]) -> Vec<Finding> {
        Vec::new()
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>, Failure> {
        Ok(Vec::new())
    }

    async fn consume(&self, queue: &str, _: u16) -> Result<Box<dyn Consumer>, Failure> {
        let what = format!("consume from queue `{queue}`: a script is for publishing");
        Err(Failure::new(FailureKind::Refused, codes::ACCESS_REFUSED, what))
    }

    async fn close(&self) {}
}

/// Bytes as they are compared: JSON where it is, else text, else base64.
fn content(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    match (serde_json::from_slice(bytes), std::str::from_utf8(bytes)) {
        (Ok(json), _) => json,
        (Err(_), Ok(text)) => text.into(),
        (Err(_), Err(_)) => STANDARD.encode(bytes).into(),
    }
}

fn properties(properties: &Properties) -> Value {
    let mut described = json!({
        "app_id": properties.app_id,
        "content_encoding": properties.content_encoding,
        "content_type": properties.content_type,
        "correlation_id": properties.correlation_id,
        "delivery_mode": if properties.persistent { 2 } else { 1 },
        "expiration": properties.expiration,
        "message_id": properties.message_id,
        "priority": properties.priority,
        "reply_to": properties.reply_to,
        "type": properties.kind,
        "user_id": properties.user_id,
        "timestamp": properties.timestamp,
    });
    if let Value::Object(named) = &mut described {
        named.retain(|_, value| !value.is_null());
    }
    described
}

fn header(value: &HeaderValue) -> Value {
    crate::pipeline::document::header(value)
}

/// Whether a value is what is expected, as far as that says.
pub fn is_part(expected: &Value, value: &Value) -> bool {
    match (expected, value) {
        (Value::Object(expected), Value::Object(value)) => expected.iter().all(|(name, part)| {
            let held = value.get(name).or_else(|| value.get(&name.to_ascii_lowercase()));
            match (held, part) {
                (Some(held), part) if name == "statement" => words(held) == words(part),
                (Some(held), part) => is_part(part, held),
                (None, part) => part.is_null(),
            }
        }),
        (Value::Array(expected), Value::Array(value)) => {
            expected.len() == value.len()
                && expected.iter().zip(value).all(|(part, held)| is_part(part, held))
        }
        (Value::Number(one), Value::Number(two)) => one == two || one.as_f64() == two.as_f64(),
        (one, two) => one == two,
    }
}

/// A statement without regard to its lines.
fn words(value: &Value) -> Option<Vec<&str>> {
    value.as_str().map(|text| text.split_whitespace().collect())
}
