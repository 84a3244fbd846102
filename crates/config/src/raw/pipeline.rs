//! A pipeline as written: a list of steps.
//!
//! A value of the type [`Expression`] is jq and may be computed from the message; a value that is text is
//! Liquid.

use schemars::JsonSchema;
use serde::Deserialize;

use warren_connectors::kit::setting::{Secret, Size, Span};

use super::expression::{AnyJson, Expression, Fail, Log, Pairs, Params, Scalars, Statuses};

/// One step. It has exactly one of the keys that name an action, and optionally `id` and `on_error`. Its
/// result is the input of the next step. `validate`, `filter`, `publish`, `reply` and `log` pass their input
/// on unchanged.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Step")]
pub struct RawStep {
    /// The name by which later steps read the result of this step, as `$steps.<id>`: letters, digits and `_`.
    /// Default: none; then the result is only the input of the next step.
    pub id: Option<String>,
    /// Computes a new value: the single result of a jq expression.
    pub map: Option<Expression>,
    /// A jq condition. If it yields false, null or no result, the run ends as `ok` and is recorded as
    /// filtered. Within `for_each`, only that item ends and is omitted from the results.
    pub filter: Option<Expression>,
    /// Rejects the message if the value is not valid. The reason contains the failing path.
    pub validate: Option<RawValidate>,
    /// Calls an HTTP server. The result is `{status, headers, body}`.
    pub http: Option<Box<RawHttp>>,
    /// Publishes a message to any configured broker, and waits until the broker has confirmed it.
    pub publish: Option<Box<RawPublish>>,
    /// Executes a statement with parameters. The result is `{rows, affected}`.
    pub sql: Option<Box<RawSql>>,
    /// Runs a command with the value as JSON on its stdin. The result is the command's output.
    pub exec: Option<Box<RawExec>>,
    /// Runs the first branch whose `when` is true. A last branch `{otherwise: [steps]}` runs if no condition
    /// is true.
    pub choose: Option<Vec<RawBranch>>,
    /// Runs the same steps for each of several values. The result is the list of their results.
    pub for_each: Option<Box<RawForEach>>,
    /// Runs steps again, within the same run, if they fail with an error that may not occur again.
    pub retry: Option<Box<RawRetry>>,
    /// Steps that handle an error. Their input is `{error, step, code, message, message_in}`. As a separate
    /// step, it handles the errors of all steps before it in its list; next to another key, only the errors
    /// of that step. The run then continues with the next step.
    pub on_error: Option<Vec<RawStep>>,
    /// Replies to the queue that the message's `replyTo` names, with the message's `correlationId`.
    pub reply: Option<Box<RawReply>>,
    /// Writes a line to the log: a text, or `{message, level}`.
    pub log: Option<Log>,
    /// Fails the run: a reason, or `{reason, as}`.
    pub fail: Option<Fail>,
}

/// A check of the value.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Validate")]
pub struct RawValidate {
    /// A JSON Schema (2020-12 unless its `$schema` says otherwise), written here or in a JSON file. Warren
    /// fetches nothing, so the schema must contain everything that it refers to. Formats such as `email` are
    /// checked.
    pub schema: AnyJson,
}

/// An HTTP request.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Http")]
pub struct RawHttp {
    /// The method. Default: `POST` with a body, `GET` without.
    pub method: Option<String>,
    /// The URL, in Liquid. Add `| url_encode` to values that come from a message. Private, loopback and
    /// link-local addresses are refused if message data can choose the host, unless `allow` names them.
    pub url: String,
    /// Headers by name, in Liquid.
    #[serde(default)]
    pub headers: Scalars,
    /// The request body, as jq: a text is sent as it is, any other value as JSON. Default: none.
    pub body: Option<Expression>,
    /// Whether `body` yields base64 that is decoded to bytes. Default: false.
    #[serde(default)]
    pub binary: bool,
    /// The credentials of the request.
    #[serde(default)]
    pub auth: RawAuth,
    /// The statuses that are not errors, such as `[200, 404]` or `2xx`. Default: `2xx`.
    pub expect: Option<Statuses>,
    /// The statuses that reject the message at once, such as `[400, 410, 4xx]`. Every other status that is
    /// not in `expect` is retried, after `Retry-After` if the answer has one. `[]`: every failure is retried.
    /// Default: `3xx`, and `4xx` except 408, 425 and 429.
    pub final_statuses: Option<Statuses>,
    /// The maximum duration of the call, including reading its answer. Default: `30s`. All timeouts of a
    /// pipeline together must fit into its trigger's `max_timeout`.
    pub timeout: Option<Span>,
    /// Hosts and networks (`10.0.0.0/8`) that a URL with message data may reach in addition to public
    /// addresses. Default: none. **Everyone who can send messages can reach the hosts listed here.**
    #[serde(default)]
    pub allow: Vec<String>,
    /// The maximum size of the answer that is read; a larger one is an error. Default: `1MiB`.
    pub max_answer: Option<Size>,
}

/// The credentials of a request. Use at most one of the keys.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Auth")]
pub struct RawAuth {
    /// A user name and password (HTTP Basic authentication).
    pub basic: Option<RawBasic>,
    /// A bearer token.
    pub bearer: Option<Secret>,
}

/// A user name and password.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Basic")]
pub struct RawBasic {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// A message to publish.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Publish")]
pub struct RawPublish {
    /// The broker: a name under `brokers`.
    pub to: String,
    /// The queue, in Liquid. Not together with `exchange`.
    pub queue: Option<String>,
    /// The exchange, in Liquid. Not together with `queue`.
    pub exchange: Option<String>,
    /// The routing key, by which the exchange selects queues, in Liquid. Default: empty.
    pub routing_key: Option<String>,
    /// The message body, as jq: a text is sent as it is, any other value as JSON. Default: `.`
    pub body: Option<Expression>,
    /// Whether `body` yields base64 that is decoded to bytes. Default: false.
    #[serde(default)]
    pub binary: bool,
    /// Properties by name, in Liquid, such as `message_id: "{{ message.properties.messageId }}"`; or a jq
    /// expression that yields an object of properties, such as `$message.properties`. Default: persistent,
    /// and `application/json` if the body is not text.
    #[serde(default)]
    #[schemars(with = "RawPropertyPairs")]
    pub properties: Pairs,
    /// Headers by name: texts are Liquid, numbers and booleans are sent as they are; or a jq expression that
    /// yields an object of headers. Default: none.
    #[serde(default)]
    pub headers: Pairs,
    /// The maximum time until the broker has confirmed the message. Default: `30s`.
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
    /// The encoding of the body, such as `gzip`.
    content_encoding: Option<String>,
    /// The media type of the body.
    content_type: Option<String>,
    /// The correlation id, which relates the message to another, such as a request.
    correlation_id: Option<String>,
    /// 2: persistent. 1: not persistent, **so a restart of the broker loses the message.**
    delivery_mode: Option<u8>,
    /// The time until the message expires in a queue, in milliseconds.
    expiration: Option<Given>,
    /// The message id.
    message_id: Option<String>,
    /// The priority, 0 to 255.
    priority: Option<Given>,
    /// The queue for replies.
    reply_to: Option<String>,
    /// The time of the message, in seconds since the epoch.
    timestamp: Option<Given>,
    /// The kind of message.
    r#type: Option<String>,
    /// The publishing user.
    user_id: Option<String>,
}

use super::expression::Given;

/// An SQL statement.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Sql")]
pub struct RawSql {
    /// The database: a name under `sources`. Its user must have the permissions that the statement needs.
    pub source: String,
    /// The statement, with the database's own placeholders: `$1` in PostgreSQL, `?` in MySQL and SQLite.
    /// Message data never becomes part of its text.
    pub statement: String,
    /// The parameters: a list of jq expressions, or one expression that yields a list. Default: none.
    #[serde(default)]
    pub params: Params,
    /// A jq expression that yields a list. The statement is executed once for each value of the list, all in
    /// one transaction; in `params`, `.` is that value. Default: the statement is executed once.
    pub each: Option<Expression>,
    /// The maximum duration of the step. Default: `30s`.
    pub timeout: Option<Span>,
    /// The maximum number of rows that are read; more rows are an error. Default: 1000.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_rows: Option<usize>,
}

/// A command.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Exec")]
pub struct RawExec {
    /// The program: a path, or a name that is looked up in `PATH`. No shell is used.
    pub command: String,
    /// The arguments, in Liquid. Each one stays one argument, whatever it contains.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment variables in addition to `PATH`, `HOME`, `USER`, `LANG`, `LC_ALL`, `TZ` and `TMPDIR`.
    /// Nothing else of Warren's environment is passed on, because it may contain secrets.
    #[serde(default)]
    pub env: Scalars,
    /// The input of the command, as jq; it is written as JSON. Default: `.`
    pub stdin: Option<Expression>,
    /// The maximum duration of the command. After it, the command is killed with all processes that it
    /// started. Default: `30s`.
    pub timeout: Option<Span>,
    /// The maximum size of the output on stdout. Default: `1MiB`.
    pub max_output: Option<Size>,
}

/// A branch of `choose`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Branch")]
pub struct RawBranch {
    /// The jq condition of the branch.
    pub when: Option<Expression>,
    /// The steps of the branch.
    pub steps: Option<Vec<RawStep>>,
    /// The steps if no condition is true, instead of `when` and `steps`. Only in the last branch of the list.
    pub otherwise: Option<Vec<RawStep>>,
}

/// The same steps for each of several values.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "ForEach")]
pub struct RawForEach {
    /// A jq expression that yields the list of values.
    pub items: Expression,
    /// How many values are processed at once. Default: 1.
    #[schemars(range(min = 1, max = 1000))]
    pub concurrency: Option<usize>,
    /// The steps for each value. Their results by `id` are not visible outside.
    pub steps: Vec<RawStep>,
}

/// Retries of steps within a run.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "RetrySteps")]
pub struct RawRetry {
    /// The pauses between attempts: one attempt more than there are pauses. Default: `[1s, 5s]`. The pauses
    /// count towards `max_timeout`.
    pub delays: Option<Vec<Span>>,
    /// A jq condition on the error (`{error, step, code, message, message_in}`): only an error for which it
    /// is true is retried. Default: every error that the trigger would retry later.
    pub when: Option<Expression>,
    /// The steps to try.
    pub steps: Vec<RawStep>,
}

/// A reply.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Reply")]
pub struct RawReply {
    /// The body of the reply, as jq: a text is sent as it is, any other value as JSON. Default: `.`
    pub body: Option<Expression>,
    /// The maximum time until the broker has confirmed the reply. Default: `30s`.
    pub timeout: Option<Span>,
}
