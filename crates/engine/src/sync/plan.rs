//! A sync as checked and compiled: templates parsed, durations durations. Nothing here is looked up in a file again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use warren_liquid::{Condition, Template};

use crate::change::Op;
use crate::message::HeaderValue;
use crate::model::Model;
pub use crate::sync::attributes::{AttributePlan, AttributeSource, Deduplication, SqsPlan};

/// Messages of one batch. Fewer cost more records and advances a message, more only wait longer for one another.
pub const BATCH_MESSAGES: usize = 500;
/// Batches under way at once: enough unconfirmed messages to keep RabbitMQ busy while one batch is recorded.
pub const BATCHES_IN_FLIGHT: usize = 8;
/// Batches that are announced and ready, or answered and not on record yet, beside those in flight: so the destination never
/// waits for us.
pub const BATCHES_AHEAD: usize = 2;

/// A sync, ready to run.
#[derive(Debug, Clone)]
pub struct SyncPlan {
    /// Its name in the configuration.
    pub name: String,
    /// What is watched.
    pub model: Arc<Model>,
    /// What is done for a row added; `None`: nothing is sent.
    pub added: Option<Arc<Trigger>>,
    /// What is done for a row changed.
    pub changed: Option<Arc<Trigger>>,
    /// What is done for a row removed.
    pub removed: Option<Arc<Trigger>>,
    /// Which columns count.
    pub compare: CompareChoice,
    /// Columns that never count.
    pub ignore: BTreeSet<String>,
    /// Whether the last accepted rows are kept, for `previous`, `changed` and whole removed rows.
    pub keep_rows: bool,
    /// What the first run does.
    pub initial: Initial,
    /// When not to send.
    pub guard: Guard,
    /// Whether NaN and the infinities are rendered as null; otherwise such a row is rejected.
    pub nan_as_null: bool,
    /// How long a destination that cannot be reached is waited for before the run ends as interrupted.
    pub give_up_after: Duration,
    /// How many messages go in one batch.
    pub batch_messages: usize,
    /// How many batches are under way at once.
    pub batches_in_flight: usize,
}

impl SyncPlan {
    /// The trigger for an op.
    pub fn trigger(&self, op: Op) -> Option<&Arc<Trigger>> {
        match op {
            Op::Added => self.added.as_ref(),
            Op::Changed => self.changed.as_ref(),
            Op::Removed => self.removed.as_ref(),
        }
    }

    /// The triggers that are on.
    pub fn triggers(&self) -> impl Iterator<Item = (Op, &Arc<Trigger>)> {
        [Op::Added, Op::Changed, Op::Removed]
            .into_iter()
            .filter_map(|op| self.trigger(op).map(|trigger| (op, trigger)))
    }
}

/// Which columns count as a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompareChoice {
    /// Those that message, route, properties and conditions refer to.
    Used,
    /// All.
    All,
    /// These.
    These(BTreeSet<String>),
}

/// What the first run of a sync does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initial {
    /// Sends every row as added.
    Backfill,
    /// Sets the baseline and sends nothing.
    Skip,
}

/// When a run stops before it sends. An empty result over a filled baseline always stops it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Guard {
    /// The most rows added.
    pub added: Option<GuardLimit>,
    /// The most rows changed.
    pub changed: Option<GuardLimit>,
    /// The most rows removed.
    pub removed: Option<GuardLimit>,
    /// The most of all three together.
    pub total: Option<GuardLimit>,
}

/// A limit of a guard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GuardLimit {
    /// A number of rows.
    Rows(u64),
    /// A share of the baseline's rows, from 0 to 1.
    Share(f64),
}

/// What is sent for one op.
#[derive(Debug)]
pub struct Trigger {
    /// Only where this holds; where it does not, the change is taken note of and nothing is sent.
    pub when: Option<Condition>,
    /// Where the message goes.
    pub route: RoutePlan,
    /// What it says.
    pub body: BodyPlan,
    /// What travels beside it.
    pub properties: PropertyPlan,
}

/// A text that may vary by row.
#[derive(Debug)]
pub enum Dynamic {
    /// The same for every row.
    Literal(String),
    /// The text of a column.
    Column(String),
    /// A rendered template (text, not JSON).
    Template(Box<Template>),
}

/// Where messages go.
#[derive(Debug)]
pub enum RoutePlan {
    /// Straight to a queue.
    Queue(Dynamic),
    /// To an exchange.
    Exchange {
        /// Its name.
        exchange: Dynamic,
        /// What it chooses by.
        routing_key: Dynamic,
    },
}

/// What a message says.
#[derive(Debug)]
pub enum BodyPlan {
    /// A template. The result is checked to be JSON if `json`.
    Template {
        /// The template, parsed in the format that `json` says.
        template: Box<Template>,
        /// Whether it makes JSON.
        json: bool,
    },
    /// A column that holds the whole message.
    Column {
        /// The column's name.
        column: String,
        /// Whether it has to be JSON.
        json: bool,
    },
    /// An object of columns: the name in the message, and the column.
    Fields(Vec<(String, String)>),
    /// An object of all columns under their own names.
    AllFields,
}

impl BodyPlan {
    /// Whether the message is JSON.
    pub fn is_json(&self) -> bool {
        match self {
            BodyPlan::Template { json, .. } | BodyPlan::Column { json, .. } => *json,
            BodyPlan::Fields(_) | BodyPlan::AllFields => true,
        }
    }
}

/// The properties of a message. `None`: the default, which for most is to be absent.
#[derive(Debug, Default)]
pub struct PropertyPlan {
    /// Default `application/json`.
    pub content_type: Option<Dynamic>,
    /// Such as `gzip`; the body is not encoded by us.
    pub content_encoding: Option<Dynamic>,
    /// `true` or `false`; default true.
    pub persistent: Option<Dynamic>,
    /// 0 to 255.
    pub priority: Option<Dynamic>,
    /// What the message belongs to.
    pub correlation_id: Option<Dynamic>,
    /// The queue for an answer.
    pub reply_to: Option<Dynamic>,
    /// A duration with its unit, such as `30s`.
    pub expiration: Option<Dynamic>,
    /// Default: the change id.
    pub message_id: Option<Dynamic>,
    /// RFC 3339 or seconds since the epoch. Default: when the run began.
    pub timestamp: Option<Dynamic>,
    /// The kind of message.
    pub kind: Option<Dynamic>,
    /// The publisher; RabbitMQ refuses any but the login's own.
    pub user_id: Option<Dynamic>,
    /// The publishing application.
    pub app_id: Option<Dynamic>,
    /// Headers by name.
    pub headers: Vec<(String, HeaderPlan)>,
    /// What only SQS has; its messages have of the above the message id alone.
    pub sqs: Option<SqsPlan>,
}

/// A header that may vary by row. A NULL leaves the header out.
#[derive(Debug)]
pub enum HeaderPlan {
    /// The same for every row.
    Literal(HeaderValue),
    /// A column's value, with the type it has (or the one asked for).
    Column {
        /// The column's name.
        column: String,
        /// The type asked for.
        kind: Option<HeaderType>,
    },
    /// A rendered template, as text or the type asked for.
    Template {
        /// The template (text, not JSON).
        template: Box<Template>,
        /// The type asked for.
        kind: Option<HeaderType>,
    },
}

/// The type a header is sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderType {
    /// Long string.
    Text,
    /// 64-bit integer.
    Int,
    /// 64-bit float.
    Float,
    /// Boolean.
    Bool,
    /// Seconds since the epoch.
    Timestamp,
}
