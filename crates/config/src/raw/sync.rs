//! A sync as written: the keys of every sync, and the keys that its broker accepts in the sync or in one of
//! its entries of `on`.

use schemars::JsonSchema;
use serde::Deserialize;
use warren_connectors::kit::setting::Span;

use super::attribute::Attributes;
use super::forms::{Compare, Fields, Headers, Limit, Nan, On};
use super::section::Names;
use super::varying::{Delay, TextOrNumber, Varying};

/// Sends the added, changed and removed rows of a model to a broker.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Sync")]
pub struct RawSync {
    /// The model whose changes are sent: a name under `models`.
    pub model: String,
    /// The broker that receives the messages: a name under `brokers`.
    pub to: String,
    /// Which changes are sent: a list of `added`, `changed` and `removed`, or a map from these to keys that
    /// override the sync's own keys for that kind of change. Default: all three. A kind of change that is not
    /// listed updates the baseline and is not sent.
    #[serde(default)]
    pub on: On,
    /// Which columns make a row count as changed. `used`: the columns that the message, queue, properties and
    /// conditions read; if these are only key columns, every column. `all`: every column of the model. A
    /// list: these columns. Default: `used`. A compared column that differs in every run, such as `now()`,
    /// sends every row in every run.
    #[serde(default)]
    pub compare: Compare,
    /// Columns that never make a row count as changed, such as `updated_at`. Default: none.
    pub ignore: Option<Names>,
    /// Whether the rows last sent are stored. They provide `previous`, `changed` and the values of removed
    /// rows. Default: true. With false, a removed row has only its key.
    pub keep_rows: Option<bool>,
    /// What the first run does: `backfill` sends every row as added; `skip` stores the rows in the baseline
    /// and sends none. Default: `backfill`.
    #[serde(default)]
    pub initial: Initial,
    /// Limits that stop a run before it sends anything. A query that returns no rows although the baseline
    /// has rows always stops the run.
    #[serde(default)]
    pub guard: RawGuard,
    /// What a NaN or an infinity becomes, because JSON cannot represent them: `reject` rejects the row,
    /// `null` writes null. Default: `reject`, because a null that means something else makes a wrong message.
    #[serde(default)]
    pub nan: Nan,
    /// How long a run waits for a broker that cannot be reached before it ends as interrupted; the next run
    /// continues it. Default: `10m`. If it is too short, a restart of the broker ends runs. If it is too
    /// long, an outage is reported late.
    pub give_up_after: Option<Span>,
}

/// What is sent, where to, and with which properties. Which keys are available depends on the broker's type.
///
/// Each key can be set in the sync or in an entry of `on` (`on: {added: {queue: …}}`); the entry's key
/// overrides the sync's. Each value may be a literal, `{column: name}` or `{template: liquid}`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Trigger")]
pub struct RawTrigger {
    /// A Liquid condition, such as `previous.region != row.region`. A change that does not meet it updates
    /// the baseline and is not sent. Default: every change is sent.
    pub when: Option<String>,
    /// The body of the message.
    pub message: Option<RawMessage>,
    /// The queue that receives the message; for SQS its name, URL or ARN. It must exist: a row whose queue
    /// does not exist is rejected. Not together with `exchange`.
    pub queue: Option<Varying<String>>,
    /// The exchange that receives the message, with `routing_key`. A message that the exchange routes to no
    /// queue is rejected.
    pub exchange: Option<Varying<String>>,
    /// The routing key, by which the exchange selects queues. Default: empty, as used with fanout and headers
    /// exchanges. Needs `exchange`.
    pub routing_key: Option<Varying<String>>,
    /// Headers by name. Not for SQS. A literal keeps its YAML type. A column has its own type, or the one
    /// that `type` requests (`text`, `int`, `float`, `bool`, `timestamp`). NULL omits the header. In an entry
    /// of `on`, `headers` replaces the sync's headers as a whole.
    pub headers: Option<Headers>,
    /// Whether the broker keeps the message across a restart. Default: true. **With false, a restart of the
    /// broker loses messages that it had accepted.**
    pub persistent: Option<Varying<bool>>,
    /// The priority, 0 to 255, for queues that were declared with priorities. Default: none.
    pub priority: Option<Varying<u8>>,
    /// How long the message may wait in a queue before the broker **drops or dead-letters it**, at most 49
    /// days. Default: no limit.
    pub expiration: Option<Varying<Span>>,
    /// The message id. Default: the change id. It stays the same when a change is sent twice, so a consumer
    /// can detect duplicates. For SQS this key is required, and must be a column or a template, because the
    /// result of each message is reported with this id.
    pub message_id: Option<Varying<String>>,
    /// The correlation id, which relates the message to another, such as a request. Default: none.
    pub correlation_id: Option<Varying<String>>,
    /// The queue for replies. Default: none.
    pub reply_to: Option<Varying<String>>,
    /// The kind of message (AMQP's `type`). Default: none.
    #[serde(rename = "type")]
    pub kind: Option<Varying<String>>,
    /// The publishing application. Default: none.
    pub app_id: Option<Varying<String>>,
    /// The publishing user. Default: none. RabbitMQ refuses any name except the connection's user.
    pub user_id: Option<Varying<String>>,
    /// The media type of the body. Default: `application/json`.
    pub content_type: Option<Varying<String>>,
    /// The encoding of the body, such as `gzip`. Default: none. It only describes the body: Warren does not
    /// encode the text of the column or template.
    pub content_encoding: Option<Varying<String>>,
    /// When the change happened: RFC 3339 or seconds since 1970. Default: the start of the run.
    pub timestamp: Option<Varying<TextOrNumber>>,
    /// SQS only: the message group. A FIFO queue requires one and keeps the order of messages within a group.
    /// Other queues treat groups fairly. Default: none.
    pub group_id: Option<Varying<TextOrNumber>>,
    /// SQS only: of several messages with the same id, a FIFO queue accepts only the first within five
    /// minutes. Default: the change id, so a change that is sent twice arrives once. `content`: the queue
    /// computes the id from the body, and **two changes with equal bodies become one**. Other queues receive
    /// no id.
    pub deduplication_id: Option<Varying<String>>,
    /// SQS only, not for FIFO queues: how long the message is hidden after it is sent, in seconds, 0 to 900.
    /// Default: the queue's own delay.
    pub delay_seconds: Option<Varying<Delay>>,
    /// SQS only: message attributes by name, at most ten: `{weight: {type: Number, column: w}, kind: order}`.
    /// NULL omits the attribute. In an entry of `on`, `attributes` replaces the sync's attributes as a whole.
    pub attributes: Option<Attributes>,
}

/// The body of a message. Exactly one of `template`, `file`, `column` and `fields`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Message")]
pub struct RawMessage {
    /// A Liquid template with `row`, `previous`, `changed`, `op`, `key`, `sync`, `run` and `change_id`.
    /// Values are written as JSON: inside quotes as text, outside quotes as a value. `${…}` is filled in
    /// before Liquid reads the template; write `$${` for a literal `${`.
    pub template: Option<String>,
    /// A file that contains the template, relative to this configuration file. `${…}` is not filled in there.
    #[schemars(extend("format" = "path"))]
    pub file: Option<String>,
    /// A column that contains the whole body.
    pub column: Option<String>,
    /// Makes a JSON object of columns: a map from the name in the message to the column, or `all` for every
    /// column under its own name.
    pub fields: Option<Fields>,
    /// The format of the body: `json` is checked to be JSON before it is sent; `text` is sent as it is.
    /// Default: `json`.
    pub format: Format,
    /// Whether the template is read as leniently as in the reference Liquid: unknown names are nil, unknown
    /// filters have no effect. Default: false. With true, a misspelt column renders as nothing in every
    /// message.
    pub lax: bool,
}

/// The format of a body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON value, which is checked.
    #[default]
    Json,
    /// Any text.
    Text,
}

/// What the first run does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Initial {
    /// Sends every row as added.
    #[default]
    Backfill,
    /// Stores the rows in the baseline and sends nothing.
    Skip,
}

/// Limits on the changes of a run. A run that exceeds one ends with exit code 4 before it sends anything.
/// Each limit is a number of rows, or a share of the rows in the baseline, such as `20%`. Default: no limit.
/// A limit that is too low stops correct runs; `--no-guard` disables the limits for one run.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Guard")]
pub struct RawGuard {
    /// The limit for rows added in one run.
    pub added: Option<Limit>,
    /// The limit for rows changed in one run.
    pub changed: Option<Limit>,
    /// The limit for rows removed in one run. A query that lost a join looks like many removals.
    pub removed: Option<Limit>,
    /// The limit for added, changed and removed rows together.
    pub total: Option<Limit>,
}
