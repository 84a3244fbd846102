//! The test cases of a pipeline, read from a separate file: messages, the expected calls with their answers,
//! and the expected outcome.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use warren_engine::codes;
use warren_engine::delivery::{Envelope, Job};
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::memory::Reply;
use warren_engine::message::{Message, Properties};
use warren_engine::pipeline::document::{BodyForm, header_of};
use warren_engine::pipeline::outside::{CommandEnd, HttpAnswer, SqlAnswer};
use warren_engine::pipeline::plan::PipelinePlan;
use warren_engine::pipeline::publish::set_property;

use super::faults::{Fault, Faults, listed, name_remedy};
use super::model::Partials;
use super::node::Node;
use super::pipeline::PipelineReader;
use super::places::Places;
use super::project::Project;
use super::raw::expression::PipelineRef;
use super::schema::schema_of;
use super::text::{Files, Span, read};
use super::walk::Walk;
use super::{de, tree};

/// When every message of a test was received, unless it says otherwise: 2026-01-01.
const RECEIVED_AT_MS: i64 = 1_767_225_600_000;

/// A pipeline with its cases.
pub struct Cases {
    /// The pipeline.
    pub plan: Arc<PipelinePlan>,
    /// The cases, in order.
    pub cases: Vec<Case>,
}

/// One message and its expected result.
pub struct Case {
    /// Its name.
    pub name: String,
    /// The message.
    pub job: Job,
    /// The number of the attempt.
    pub attempt: u32,
    /// When it was received, in milliseconds since the epoch.
    pub received_at_ms: i64,
    /// How the pipeline receives the body.
    pub form: BodyForm,
    /// The expected calls, with their answers.
    pub calls: Vec<(Value, Reply)>,
    /// The expected outcome.
    pub outcome: Ending,
    /// A text that the reason must contain.
    pub reason: Option<String>,
    /// The expected last value, as far as the case states it.
    pub value: Option<Value>,
}

/// The outcome of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// The run reached its end.
    #[default]
    Ok,
    /// A `filter` ended the run.
    Filtered,
    /// The message is retried later.
    Retry,
    /// The message is rejected.
    Reject,
}

/// A file of cases.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "PipelineTest")]
struct RawCases {
    /// The pipeline: a name under `pipelines` of the configuration, or the steps themselves.
    pipeline: PipelineRef,
    /// The test cases.
    #[expect(dead_code, reason = "they are read from the tree, where their places are")]
    cases: Vec<RawCase>,
}

/// One message and its expected result.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "Case")]
struct RawCase {
    /// What the case shows.
    name: String,
    /// The message.
    #[serde(default)]
    #[expect(dead_code, reason = "it is read from the tree")]
    message: RawMessage,
    /// Whether the pipeline receives the body as base64, as with `binary: true` in its trigger.
    #[serde(default)]
    binary: bool,
    /// The calls that the pipeline makes, each with its answer: `http`, `publish`, `reply`, `sql` or `exec`
    /// with its expected content. A key that is omitted may have any value.
    #[serde(default)]
    #[expect(dead_code, reason = "they are read from the tree")]
    calls: Vec<RawCall>,
    /// The expected outcome of the run.
    #[serde(default)]
    outcome: Ending,
    /// A text that the reason of a `retry` or `reject` must contain.
    reason: Option<String>,
    /// The expected last value. A key that is omitted may have any value.
    #[serde(default)]
    #[schemars(with = "super::raw::expression::AnyValue")]
    #[expect(dead_code, reason = "it is read from the tree")]
    value: Option<super::raw::expression::AnyJson>,
}

/// A message, with the names of the document that a pipeline receives.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "CaseMessage")]
struct RawMessage {
    /// The body: a text, or any other value, which becomes JSON.
    #[schemars(with = "super::raw::expression::AnyValue")]
    body: Option<super::raw::expression::AnyJson>,
    /// Properties such as `contentType`.
    #[schemars(with = "super::raw::expression::AnyMap")]
    properties: Option<super::raw::expression::AnyJson>,
    /// Headers by name.
    #[schemars(with = "super::raw::expression::AnyMap")]
    headers: Option<super::raw::expression::AnyJson>,
    /// How the message was received, such as `queue`, `attempt` or `receivedAt`.
    #[schemars(with = "super::raw::expression::AnyMap")]
    envelope: Option<super::raw::expression::AnyJson>,
}

/// A call with its answer.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Call")]
struct RawCall {
    /// `{method, url, headers, body}`
    #[schemars(with = "super::raw::expression::AnyMap")]
    http: Option<super::raw::expression::AnyJson>,
    /// `{to, queue, exchange, routing_key, body, properties, headers}`
    #[schemars(with = "super::raw::expression::AnyMap")]
    publish: Option<super::raw::expression::AnyJson>,
    /// `{queue, body, properties}`
    #[schemars(with = "super::raw::expression::AnyMap")]
    reply: Option<super::raw::expression::AnyJson>,
    /// `{source, statement, params}`, with `each` instead of `params` if the step has it.
    #[schemars(with = "super::raw::expression::AnyMap")]
    sql: Option<super::raw::expression::AnyJson>,
    /// `{command, args, stdin}`
    #[schemars(with = "super::raw::expression::AnyMap")]
    exec: Option<super::raw::expression::AnyJson>,
    /// The answer: `{status, headers, body}` to `http`, `{rows, affected}` to `sql`, `{exit, stdout, stderr}`
    /// to `exec`; for any call `{error: TEXT}` or `timeout`. Default: 200, a confirm, no rows, exit code 0.
    #[schemars(with = "super::raw::expression::AnyValue")]
    answer: Option<super::raw::expression::AnyJson>,
}

/// Reads the cases of a file; pipelines, brokers and sources are those of a configuration.
///
/// # Errors
/// All faults that were found, each with its place.
pub fn load(path: &Path, project: &Project) -> Result<Cases, Box<Faults>> {
    let mut reading = Reading { files: Files::default(), faults: Vec::new() };
    let cases = reading.cases(path, project);
    match cases {
        Some(cases) if reading.faults.is_empty() => Ok(cases),
        _ => Err(Box::new(Faults::new(reading.faults, reading.files, Vec::new()))),
    }
}

struct Reading {
    files: Files,
    faults: Vec<Fault>,
}

impl Reading {
    fn cases(&mut self, path: &Path, project: &Project) -> Option<Cases> {
        let text = match read(path) {
            Ok(text) => text,
            Err(unreadable) => {
                let message = format!("`{}` {}", path.display(), unreadable.why);
                self.faults.push(Fault::nowhere(codes::CONFIG_UNREADABLE, message).remedy(unreadable.remedy));
                return None;
            }
        };
        let file = self.files.add(path, text);
        let start = Span { file, start: 0, end: 0 };
        let mut tree = match tree::parse(&self.files, file) {
            Ok(Some(tree)) => tree,
            Ok(None) => {
                let fault = Fault::new(codes::CONFIG_SYNTAX, start, "the file holds no cases");
                self.faults.push(fault.remedy("begin with `pipeline:` and `cases:`"));
                return None;
            }
            Err(faults) => {
                self.faults.extend(faults);
                return None;
            }
        };
        let schema = schema_of::<RawCases>();
        let mut walk = Walk::new(&schema, &self.files);
        walk.check(&schema, &mut tree, "", start);
        self.faults.append(&mut walk.faults);
        if !self.faults.is_empty() {
            return None;
        }
        let raw: RawCases = self.told(de::read(&tree, "the file"))?;
        let plan = self.pipeline(&raw.pipeline, tree.get("pipeline")?, project);
        let items = tree.get("cases").map(Node::items).unwrap_or_default();
        let cases: Vec<Case> = items.iter().filter_map(|item| self.case(item)).collect();
        Some(Cases { plan: plan?, cases })
    }

    fn pipeline(&mut self, given: &PipelineRef, node: &Node, project: &Project) -> Option<Arc<PipelinePlan>> {
        let names = |keys: Vec<&String>| keys.into_iter().cloned().collect::<Vec<String>>();
        match given {
            PipelineRef::Named(name) => {
                let found = project.pipelines.get(name).cloned();
                if found.is_none() {
                    let known: Vec<&str> = project.pipelines.keys().map(String::as_str).collect();
                    let fault = Fault::new(
                        codes::UNKNOWN_NAME,
                        node.span,
                        format!("the configuration has no pipeline `{name}`"),
                    );
                    self.faults.push(fault.remedy(name_remedy(name, known, "its pipelines are")));
                }
                found
            }
            PipelineRef::Inline => {
                let mut reader = PipelineReader {
                    files: &mut self.files,
                    places: &mut Places::default(),
                    faults: &mut self.faults,
                    partials: &Partials::default(),
                    brokers: &names(project.brokers.keys().collect()),
                    sources: &names(project.sources.keys().collect()),
                    bad: &BTreeSet::new(),
                };
                reader.pipeline(node, "pipeline")
            }
        }
    }

    fn case(&mut self, node: &Node) -> Option<Case> {
        let raw: RawCase = self.told(de::read(node, "the case"))?;
        let message = node.get("message").map(Node::to_json).unwrap_or_default();
        let mut calls = Vec::new();
        for item in node.get("calls").map(Node::items).unwrap_or_default() {
            calls.extend(self.call(item));
        }
        let (job, attempt, received_at_ms) = self.job(&message, node);
        Some(Case {
            name: raw.name,
            job,
            attempt,
            received_at_ms,
            form: if raw.binary { BodyForm::Base64 } else { BodyForm::Text },
            calls,
            outcome: raw.outcome,
            reason: raw.reason,
            value: node.get("value").map(Node::to_json),
        })
    }

    fn job(&mut self, message: &Value, node: &Node) -> (Job, u32, i64) {
        let span = node.entry("message").map_or(node.span.at_start(), |entry| entry.span);
        let body = match &message["body"] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut properties = Properties::default();
        for (name, value) in message["properties"].as_object().into_iter().flatten() {
            if let Err(failure) = set_property(&mut properties, name, value) {
                self.faults.push(
                    Fault::new(failure.code, span, failure.what)
                        .remedy("see the document that a pipeline receives"),
                );
            }
        }
        for (name, value) in message["headers"].as_object().into_iter().flatten() {
            properties.headers.set(name, header_of(value));
        }
        let text = |name: &str| message["envelope"][name].as_str().map(str::to_owned);
        let mut envelope = Envelope {
            queue: text("queue").unwrap_or_else(|| "test".to_owned()),
            exchange: text("exchange").unwrap_or_default(),
            routing_key: text("routingKey").unwrap_or_default(),
            redelivered: message["envelope"]["redelivered"].as_bool().unwrap_or(false),
            delivery_tag: message["envelope"]["deliveryTag"].as_u64().unwrap_or(1),
            consumer_tag: text("consumerTag").unwrap_or_else(|| "test".to_owned()),
            ..Envelope::default()
        };
        for (name, value) in message["envelope"].as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            envelope.system.insert(name.clone(), value);
        }
        let attempt = message["envelope"]["attempt"].as_u64().and_then(|attempt| u32::try_from(attempt).ok());
        let received = match text("receivedAt").map(|text| text.parse::<Timestamp>()) {
            None => RECEIVED_AT_MS,
            Some(Ok(time)) => time.as_millisecond(),
            Some(Err(_)) => {
                let fault = Fault::new(codes::INVALID_VALUE, span, "`receivedAt` is no point in time");
                self.faults.push(fault.remedy("write it as `2026-01-31T12:00:00Z`"));
                RECEIVED_AT_MS
            }
        };
        (Job { message: Message { body: body.into(), properties }, envelope }, attempt.unwrap_or(1), received)
    }

    fn call(&mut self, node: &Node) -> Option<(Value, Reply)> {
        const KINDS: [&str; 5] = ["http", "publish", "reply", "sql", "exec"];
        let given: Vec<_> = KINDS.iter().filter_map(|kind| node.entry(kind)).collect();
        let [one] = given.as_slice() else {
            let fault = Fault::new(codes::MISSING_KEY, node.span.at_start(), "a call is one of its kinds");
            self.faults.push(fault.remedy(format!("write one of {}", listed(KINDS, "or"))));
            return None;
        };
        let mut call = Map::new();
        call.insert(one.key.clone(), one.value.to_json());
        let answer = node.get("answer").map(Node::to_json).unwrap_or_default();
        if let Some(reply) = reply(&one.key, &answer) {
            return Some((Value::Object(call), reply));
        }
        let span = node.entry("answer").map_or(node.span.at_start(), |entry| entry.span);
        let fault = Fault::new(codes::INVALID_VALUE, span, format!("this is no answer to `{}`", one.key));
        let forms = match one.key.as_str() {
            "http" => "`{status, headers, body}`",
            "sql" => "`{rows, affected}`",
            "exec" => "`{exit, stdout, stderr}`",
            _ => "`confirmed` or `{unknown: TEXT}`",
        };
        self.faults.push(fault.remedy(format!("write {forms}, `{{error: TEXT}}` or `timeout`")));
        None
    }

    fn told<T>(&mut self, read: Result<T, Fault>) -> Option<T> {
        read.map_err(|fault| self.faults.push(fault)).ok()
    }
}

/// The answer to a call; `None` where it is none.
fn reply(kind: &str, answer: &Value) -> Option<Reply> {
    let failure = |kind, code, what: &str| Failure::new(kind, code, what);
    if answer == "timeout" {
        return Some(Reply::Failed(failure(FailureKind::Timeout, codes::STEP_TIMEOUT, "wait for the step")));
    }
    if let Some(text) = answer["error"].as_str() {
        let code = match kind {
            "http" => codes::HTTP_FAILED,
            "sql" => codes::QUERY_FAILED,
            "exec" => codes::COMMAND_FAILED,
            _ => codes::BROKER_REFUSED_MESSAGE,
        };
        return Some(Reply::Failed(failure(FailureKind::Disconnected, code, text)));
    }
    if !(answer.is_null() || answer.is_object() || answer == "confirmed") {
        return None;
    }
    let bytes = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(match kind {
        "http" => {
            let status = match &answer["status"] {
                Value::Null => 200,
                status => u16::try_from(status.as_u64()?).ok()?,
            };
            let mut headers: Vec<(String, String)> = answer["headers"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.to_ascii_lowercase(), bytes(value)))
                .collect();
            let body = &answer["body"];
            let typed = headers.iter().any(|(name, _)| name == "content-type");
            if !typed && !body.is_null() && !body.is_string() {
                headers.push(("content-type".to_owned(), "application/json".to_owned()));
            }
            Reply::Http(HttpAnswer { status, headers, body: bytes(body).into() })
        }
        "sql" => Reply::Sql(SqlAnswer {
            rows: match &answer["rows"] {
                Value::Null => Vec::new(),
                rows => rows.as_array()?.clone(),
            },
            affected: answer["affected"].as_u64().unwrap_or(0),
        }),
        "exec" => Reply::Command(CommandEnd {
            code: match &answer["exit"] {
                Value::Null => 0,
                code => i32::try_from(code.as_i64()?).ok()?,
            },
            stdout: bytes(&answer["stdout"]).into(),
            stderr: bytes(&answer["stderr"]).into(),
        }),
        _ => match answer["unknown"].as_str() {
            Some(text) => Reply::Unknown(failure(FailureKind::Disconnected, codes::CONNECTION_LOST, text)),
            None => Reply::Confirmed,
        },
    })
}
