//! A pipeline as written: a list of steps.
//!
//! A value that is an [`Expression`] is jq and may be computed from the message; one that is text is Liquid.

use schemars::JsonSchema;
use serde::Deserialize;

use warren_connectors::kit::setting::{Secret, Size, Span};

use super::expression::{AnyJson, Expression, Fail, Log, Pairs, Params, Scalars, Statuses};

/// One step: exactly one of the keys that name what it does, with `id` and `on_error` beside it. Its result is the input of the next
/// step; `validate`, `filter`, `publish`, `reply` and `log` hand on what they were given.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Step")]
pub struct RawStep {
    /// A name by which later steps reach the result of this one, as `$steps.<id>`: letters, digits and `_`. Default: none; the result is
    /// then only the next step's input.
    pub id: Option<String>,
    /// Makes another value: the one result of a jq expression.
    pub map: Option<Expression>,
    /// A jq condition. Where it yields false, null or nothing the run ends as `ok` and is recorded as filtered; within a `for_each` only
    /// that item ends, and is left out.
    pub filter: Option<Expression>,
    /// Rejects the message, with the failing path, unless the value is valid.
    pub validate: Option<RawValidate>,
    /// Calls an HTTP server; `{status, headers, body}` become the value.
    pub http: Option<Box<RawHttp>>,
    /// Publishes a message to any configured broker, and waits until it is confirmed.
    pub publish: Option<Box<RawPublish>>,
    /// Executes a statement with parameters; `{rows, affected}` become the value.
    pub sql: Option<Box<RawSql>>,
    /// Runs a command with the value as JSON on its stdin; what it writes becomes the value.
    pub exec: Option<Box<RawExec>>,
    /// Goes the first way whose `when` holds; a last way `{otherwise: [steps]}` is gone when none does.
    pub choose: Option<Vec<RawBranch>>,
    /// Does the same with each of several values; the list of their results becomes the value.
    pub for_each: Option<Box<RawForEach>>,
    /// Tries steps again, within the run, when they fail in a way that may work another time.
    pub retry: Option<Box<RawRetry>>,
    /// Steps for an error, which is their input: `{error, step, code, message, message_in}`. As a step of its own it stands for all steps
    /// before it in its list; beside another key it stands for that step alone. The run goes on behind it.
    pub on_error: Option<Vec<RawStep>>,
    /// Answers to the queue that the message's `replyTo` names, with its `correlationId`.
    pub reply: Option<Box<RawReply>>,
    /// Writes a line to the log: a text, or `{message, level}`.
    pub log: Option<Log>,
    /// Fails: a reason, or `{reason, as}`.
    pub fail: Option<Fail>,
}

/// What a value must be.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Validate")]
pub struct RawValidate {
    /// A JSON Schema (2020-12 unless its `$schema` says otherwise), written here or in a JSON file. Nothing is fetched: what it refers to
    /// must be in it. Formats such as `email` are checked.
    pub schema: AnyJson,
}

/// A call.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Http")]
pub struct RawHttp {
    /// The method. Default: `POST` with a body, `GET` without.
    pub method: Option<String>,
    /// The URL, in Liquid; write `| url_encode` behind what comes from a message. Where message data can choose the host, addresses that are
    /// private, loopback or link-local are refused unless `allow` names them.
    pub url: String,
    /// Headers by name, in Liquid.
    #[serde(default)]
    pub headers: Scalars,
    /// What is sent, as jq: a text as it is, anything else as JSON. Default: nothing.
    pub body: Option<Expression>,
    /// Whether `body` yields base64 that stands for bytes. Default: false.
    #[serde(default)]
    pub binary: bool,
    /// How we say who we are.
    #[serde(default)]
    pub auth: RawAuth,
    /// The statuses that are not errors, such as `[200, 404]` or `2xx`. Default: `2xx`.
    pub expect: Option<Statuses>,
    /// The statuses that reject the message at once, such as `[400, 410, 4xx]`. An answer with any other status that is not in `expect` is
    /// retried, after `Retry-After` where the answer has one. `[]`: every failure is retried. Default: `3xx` and `4xx` but 408, 425 and 429.
    pub final_statuses: Option<Statuses>,
    /// The longest the call may take, its answer included. Default: `30s`. All timeouts of a pipeline together must fit its trigger's
    /// `max_timeout`.
    pub timeout: Option<Span>,
    /// Hosts and networks (`10.0.0.0/8`) that a URL made of message data may lead to besides public addresses. Default: none. **Whoever sends
    /// messages can reach what is named here.**
    #[serde(default)]
    pub allow: Vec<String>,
    /// The largest answer that is read; a larger one is an error. Default: `1MiB`.
    pub max_answer: Option<Size>,
}

/// How a call says who it is from. At most one of them.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Auth")]
pub struct RawAuth {
    /// A user with a password.
    pub basic: Option<RawBasic>,
    /// A token.
    pub bearer: Option<Secret>,
}

/// A user with a password.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Basic")]
pub struct RawBasic {
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// A message.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Publish")]
pub struct RawPublish {
    /// The broker: a name under `brokers`.
    pub to: String,
    /// The queue, in Liquid. Not together with `exchange`.
    pub queue: Option<String>,
    /// The exchange, in Liquid.
    pub exchange: Option<String>,
    /// What the exchange chooses queues by, in Liquid. Default: empty.
    pub routing_key: Option<String>,
    /// What the message says, as jq: a text as it is, anything else as JSON. Default: `.`
    pub body: Option<Expression>,
    /// Whether `body` yields base64 that stands for bytes. Default: false.
    #[serde(default)]
    pub binary: bool,
    /// Properties by name, in Liquid, such as `message_id: "{{ message.properties.messageId }}"`; or a jq expression that yields an object of
    /// them, such as `$message.properties`. Default: persistent, and `application/json` where the body is not text.
    #[serde(default)]
    #[schemars(with = "RawPropertyPairs")]
    pub properties: Pairs,
    /// Headers by name: texts in Liquid, numbers and truth values as they are; or a jq expression that yields an object of them. Default: none.
    #[serde(default)]
    pub headers: Pairs,
    /// The longest it may take until the broker has confirmed it. Default: `30s`.
    pub timeout: Option<Span>,
}

/// The properties of a message, for the schema.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum RawPropertyPairs {
    Named(Box<RawProperties>),
    Computed(String),
}

/// The properties of a message.
#[derive(JsonSchema)]
#[schemars(rename = "PublishProperties")]
#[expect(dead_code, reason = "only its schema is used")]
struct RawProperties {
    /// The publishing application.
    app_id: Option<String>,
    /// How the body is encoded, such as `gzip`.
    content_encoding: Option<String>,
    /// The media type of the body.
    content_type: Option<String>,
    /// The id of what the message belongs to.
    correlation_id: Option<String>,
    /// 2 is persistent, 1 is not: **a restart of the broker then loses it.**
    delivery_mode: Option<u8>,
    /// Milliseconds until the message expires in a queue.
    expiration: Option<Given>,
    /// The message's own id.
    message_id: Option<String>,
    /// 0 to 255.
    priority: Option<Given>,
    /// The queue for an answer.
    reply_to: Option<String>,
    /// Seconds since the epoch.
    timestamp: Option<Given>,
    /// The kind of message.
    r#type: Option<String>,
    /// The publishing user.
    user_id: Option<String>,
}

use super::expression::Given;

/// A statement.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Sql")]
pub struct RawSql {
    /// The database: a name under `sources`. Its login must have the right to do what the statement does.
    pub source: String,
    /// The statement, with the database's own placeholders: `$1` in PostgreSQL, `?` in MySQL and SQLite. It is never put together from
    /// message data.
    pub statement: String,
    /// The parameters: a list of jq expressions, or one that yields a list. Default: none.
    #[serde(default)]
    pub params: Params,
    /// A jq expression that yields a list: the statement is executed for each of its values, which is `.` in `params`, all in one
    /// transaction. Default: once.
    pub each: Option<Expression>,
    /// The longest it may take. Default: `30s`.
    pub timeout: Option<Span>,
    /// The most rows that are read; more are an error. Default: 1000.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_rows: Option<usize>,
}

/// A command.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Exec")]
pub struct RawExec {
    /// The program: a path, or a name that is looked up in `PATH`. There is no shell.
    pub command: String,
    /// Its arguments, in Liquid; each stays one argument, whatever is in it.
    #[serde(default)]
    pub args: Vec<String>,
    /// Variables of its environment, beside `PATH`, `HOME`, `USER`, `LANG`, `LC_ALL`, `TZ` and `TMPDIR`. Nothing else of the
    /// environment of Warren is passed on, since it may hold secrets.
    #[serde(default)]
    pub env: Scalars,
    /// What it reads, as jq; written as JSON. Default: `.`
    pub stdin: Option<Expression>,
    /// The longest it may take; then it is killed, with all that it started. Default: `30s`.
    pub timeout: Option<Span>,
    /// The most it may write to stdout. Default: `1MiB`.
    pub max_output: Option<Size>,
}

/// A way.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Branch")]
pub struct RawBranch {
    /// A jq condition.
    pub when: Option<Expression>,
    /// The steps of the way.
    pub steps: Option<Vec<RawStep>>,
    /// The steps where no condition holds, in place of `when` and `steps`; the last of the list.
    pub otherwise: Option<Vec<RawStep>>,
}

/// A round for each of several values.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "ForEach")]
pub struct RawForEach {
    /// A jq expression that yields a list.
    pub items: Expression,
    /// How many are worked on at once. Default: 1.
    #[schemars(range(min = 1, max = 1000))]
    pub concurrency: Option<usize>,
    /// The steps for each. Their results by `id` are not seen outside.
    pub steps: Vec<RawStep>,
}

/// Tries within the run.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "RetrySteps")]
pub struct RawRetry {
    /// The pauses between tries: one try more than there are pauses. Default: `[1s, 5s]`. They count towards `max_timeout`.
    pub delays: Option<Vec<Span>>,
    /// A jq condition on the error (`{error, step, code, message, message_in}`). Default: whatever would be retried later.
    pub when: Option<Expression>,
    /// The steps that are tried.
    pub steps: Vec<RawStep>,
}

/// An answer.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Reply")]
pub struct RawReply {
    /// What it says, as jq: a text as it is, anything else as JSON. Default: `.`
    pub body: Option<Expression>,
    /// The longest it may take until the broker has confirmed it. Default: `30s`.
    pub timeout: Option<Span>,
}
