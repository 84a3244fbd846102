//! A sync as written: what every sync has, and what its broker takes in it or in one of its triggers.

use schemars::JsonSchema;
use serde::Deserialize;
use warren_connectors::kit::setting::Span;

use super::attribute::Attributes;
use super::forms::{Compare, Fields, Headers, Limit, Nan, On};
use super::section::Names;
use super::varying::{Delay, TextOrNumber, Varying};

/// A model that is watched, and a broker that hears of its rows added, changed and removed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Sync")]
pub struct RawSync {
    /// The model that is watched: a name under `models`.
    pub model: String,
    /// The broker that hears of it: a name under `brokers`.
    pub to: String,
    /// What is told: a list of `added`, `changed` and `removed`, or a map from these to what is special about each; a
    /// key given there counts instead of the sync's own. Default: all three. What is left out is taken note of and not sent.
    #[serde(default)]
    pub on: On,
    /// Which columns make a row count as changed. `used`: those that message, queue, properties and conditions read; if these are only key
    /// columns, every column. `all`: every column of the model. Or a list. Default: `used`. A column that changes in every run, such as
    /// `now()`, sends every row in every run where it counts.
    #[serde(default)]
    pub compare: Compare,
    /// Columns that never make a row count as changed, such as `updated_at`. Default: none.
    pub ignore: Option<Names>,
    /// Whether the rows last sent are kept. `previous`, `changed` and the values of removed rows come from there. Default: true.
    /// Without them a removed row has only its key.
    pub keep_rows: Option<bool>,
    /// What the first run does: `backfill` sends every row as added, `skip` sends none and only takes note of them. Default:
    /// `backfill`.
    #[serde(default)]
    pub initial: Initial,
    /// When a run stops before it sends. A query that returns nothing although rows were sent before always stops it.
    #[serde(default)]
    pub guard: RawGuard,
    /// What a NaN or an infinity becomes, which JSON cannot hold: `reject` rejects the row, `null` writes null. Default:
    /// `reject`, since a null that means something else is a wrong message.
    #[serde(default)]
    pub nan: Nan,
    /// How long a broker that cannot be reached is waited for before the run ends as interrupted (the next one goes on from there).
    /// Default: `10m`. Too short, and a restart of the broker ends runs; too long, and nobody hears of a broker that is gone.
    pub give_up_after: Option<Span>,
}

/// What is sent, where to, and what goes with it. Which keys there are depends on the broker's kind.
///
/// These keys stand in the sync, or in one of its triggers (`on: {added: {queue: …}}`), which then count instead, key by key.
/// Each value may be a literal, `{column: name}` or `{template: liquid}`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Trigger")]
pub struct RawTrigger {
    /// A Liquid condition, such as `previous.region != row.region`: a change for which it does not hold is taken note of and not
    /// sent. Default: all are sent.
    pub when: Option<String>,
    /// What the message says.
    pub message: Option<RawMessage>,
    /// The queue the message goes to (of SQS its name, URL or ARN). It must exist; a row whose queue does not is rejected. Not together with `exchange`.
    pub queue: Option<Varying<String>>,
    /// The exchange the message goes to, with `routing_key`. A message that no queue is bound for is rejected.
    pub exchange: Option<Varying<String>>,
    /// What the exchange chooses queues by. Default: empty, as fanout and headers exchanges have it. Needs `exchange`.
    pub routing_key: Option<Varying<String>>,
    /// Not for SQS: headers by name. A plain value keeps its type; a column has its own, or the one that `type` asks for (`text`, `int`, `float`,
    /// `bool`, `timestamp`). A NULL leaves the header out. A trigger's `headers` replace the sync's as a whole.
    pub headers: Option<Headers>,
    /// Whether the broker keeps the message through a restart. Default: true. **With false a restart of the broker loses
    /// messages it had accepted.**
    pub persistent: Option<Varying<bool>>,
    /// The priority, 0 to 255, for queues that were declared with priorities. Default: none.
    pub priority: Option<Varying<u8>>,
    /// How long the message may wait in a queue before the broker **drops or dead-letters it**, at most 49 days. Default: for ever.
    pub expiration: Option<Varying<Span>>,
    /// The message's id. Default: the change id, which is the same when a change is sent twice, so that a consumer can tell. For SQS it
    /// is required, and a column or template: it is what the result of each message is reported with.
    pub message_id: Option<Varying<String>>,
    /// The id of what the message belongs to. Default: none.
    pub correlation_id: Option<Varying<String>>,
    /// The queue for an answer. Default: none.
    pub reply_to: Option<Varying<String>>,
    /// The kind of message, AMQP's `type`. Default: none.
    #[serde(rename = "type")]
    pub kind: Option<Varying<String>>,
    /// The publishing application. Default: none.
    pub app_id: Option<Varying<String>>,
    /// The publishing user. Default: none. RabbitMQ refuses any name but that of the connection's user.
    pub user_id: Option<Varying<String>>,
    /// The media type of the message. Default: `application/json`.
    pub content_type: Option<Varying<String>>,
    /// How the message is encoded, such as `gzip`. Default: none. Nothing is encoded by it; it only says what the column or
    /// template already holds.
    pub content_encoding: Option<Varying<String>>,
    /// When it happened: RFC 3339 or seconds since 1970. Default: when the run began.
    pub timestamp: Option<Varying<TextOrNumber>>,
    /// SQS only: the message group. The messages of a group keep their order in a FIFO queue, which needs one; other queues treat groups fairly.
    /// Default: none.
    pub group_id: Option<Varying<TextOrNumber>>,
    /// SQS only: of messages with the same id a FIFO queue takes the first within five minutes. Default: the change id, so that a change that
    /// is sent twice arrives once. `content`: the queue makes the id of the body, and **two changes with equal bodies are one**. Other queues
    /// get none.
    pub deduplication_id: Option<Varying<String>>,
    /// SQS only, and not for FIFO queues: how many seconds the message is hidden at first, 0 to 900. Default: what the queue is set to.
    pub delay_seconds: Option<Varying<Delay>>,
    /// SQS only: message attributes by name, at most ten: `{weight: {type: Number, column: w}, kind: order}`. A NULL leaves the attribute out. A
    /// trigger's `attributes` replace the sync's as a whole.
    pub attributes: Option<Attributes>,
}

/// What a message says. Exactly one of `template`, `file`, `column` and `fields`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Message")]
pub struct RawMessage {
    /// A Liquid template with `row`, `previous`, `changed`, `op`, `key`, `sync`, `run` and `change_id`. Values are written as JSON where they stand:
    /// inside quotes as text, outside as a value. `${…}` is filled in before Liquid sees it; write `$${` for the characters
    /// themselves.
    pub template: Option<String>,
    /// A file that holds the template, relative to the file this stands in. Nothing is filled in there.
    #[schemars(extend("format" = "path"))]
    pub file: Option<String>,
    /// A column that holds the whole message.
    pub column: Option<String>,
    /// An object of columns: a map from the name in the message to the column, or `all` for every column under its own name.
    pub fields: Option<Fields>,
    /// What the message is: `json` is checked to be JSON before it is sent, `text` is sent as it is. Default: `json`.
    pub format: Format,
    /// Whether the template is read in the lenient ways of the reference Liquid: names that do not exist are nothing, unknown
    /// filters do nothing. Default: false. With it a misspelt column renders as nothing, in every message.
    pub lax: bool,
}

/// What a message is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON value, checked.
    #[default]
    Json,
    /// Anything.
    Text,
}

/// What the first run does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Initial {
    /// Sends every row as added.
    #[default]
    Backfill,
    /// Sends nothing.
    Skip,
}

/// When a run stops before it sends, and says so with an exit code of its own. Each is a number of rows, or a share of the rows the
/// destination has been told of, such as `20%`. Default: no limit. A limit that is too low stops honest runs; `--no-guard` lets one
/// through.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Guard")]
pub struct RawGuard {
    /// The most rows added in one run.
    pub added: Option<Limit>,
    /// The most rows changed in one run.
    pub changed: Option<Limit>,
    /// The most rows removed in one run. A query that lost a join looks like many removals.
    pub removed: Option<Limit>,
    /// The most rows of all three together.
    pub total: Option<Limit>,
}
