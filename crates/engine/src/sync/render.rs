//! A change made into a message: pure, no waiting. A change that cannot be made into one is rejected with a code;
//! the others go on.

use std::sync::Arc;

use bytes::Bytes;
use warren_liquid::{ErrorKind, Globals, json};

use crate::change::{Change, ChangeId};
use crate::codes;
use crate::failure::{Failure, FailureKind};
use crate::message::{Message, Outbound, Route};
use crate::ports::MessageLimits;
use crate::row::{Row, Value};
use crate::run::RunId;
use crate::size::ByteSize;
use crate::sqs;
use crate::sync::limits;
use crate::sync::plan::{BodyPlan, RoutePlan, SyncPlan, Trigger};
use crate::sync::property::{Texts, template_failed};
use crate::sync::view::{ChangeView, Surroundings, with_val};

/// Makes the messages of one run.
#[derive(Debug, Clone)]
pub struct Renderer {
    /// The sync.
    pub plan: Arc<SyncPlan>,
    /// The run's number, for templates.
    pub run: RunId,
    /// When the run began, in milliseconds since the epoch.
    pub started_ms: i64,
    /// The columns that count, sorted, for `changed`.
    pub compared: Vec<String>,
    /// Tells deliberate repetitions apart in change ids; empty for an ordinary run.
    pub again: String,
}

/// What became of a change.
#[derive(Debug)]
pub enum Rendered {
    /// It is to be sent.
    Send(Outbound),
    /// Nothing is wanted for it.
    Skip,
    /// It cannot be sent.
    Reject {
        /// Why.
        failure: Failure,
        /// The message, as far as it could be made.
        outbound: Option<Outbound>,
    },
}

impl Renderer {
    /// The id of a change.
    pub fn id(&self, change: &Change) -> ChangeId {
        ChangeId::of(&self.plan.name, change, &self.again)
    }

    /// Makes the message of a change. `scratch` is space that is used again.
    pub fn render(
        &self,
        change: &Change,
        id: ChangeId,
        limits: &MessageLimits,
        scratch: &mut Vec<u8>,
    ) -> Rendered {
        let Some(trigger) = self.plan.trigger(change.op) else { return Rendered::Skip };
        let id = id.to_string();
        let around = Surroundings {
            sync: &self.plan.name,
            run: self.run.0,
            now_ms: self.started_ms,
            key: &self.plan.model.key,
            nan_as_null: self.plan.nan_as_null,
            compared: &self.compared,
        };
        let view = ChangeView::new(change, &id, &around);
        match self.outbound(trigger, change, &view, &id, limits, scratch) {
            Ok(Some(outbound)) => Rendered::Send(outbound),
            Ok(None) => Rendered::Skip,
            Err(rejected) => {
                let (failure, outbound) = *rejected;
                Rendered::Reject { failure, outbound }
            }
        }
    }

    fn outbound(
        &self,
        trigger: &Trigger,
        change: &Change,
        view: &ChangeView<'_>,
        id: &str,
        limits: &MessageLimits,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<Outbound>, Box<(Failure, Option<Outbound>)>> {
        let early = |failure| Box::new((failure, None));
        if let Some(when) = &trigger.when
            && !when.test(view).map_err(|error| early(template_failed("when", &error)))?
        {
            return Ok(None);
        }
        let texts = Texts { row: &change.row, globals: view };
        let route = route(&trigger.route, &texts).map_err(early)?;
        let plan = &trigger.properties;
        let properties = match &plan.sqs {
            Some(sqs) => texts.sqs_properties(plan, sqs, &route, id),
            None => texts.properties(plan, id, self.started_ms),
        };
        let properties = properties.map_err(early)?;
        scratch.clear();
        let made =
            body(&trigger.body, &change.row, view, self.plan.nan_as_null, limits.body_bytes_max, scratch);
        if plan.sqs.is_some() && made.is_ok() && trigger.body.is_json() {
            sqs::escape_json(scratch);
        }
        let message = Message { body: Bytes::copy_from_slice(scratch), properties };
        let outbound = Outbound { route, message };
        let checked = made.and_then(|()| match &plan.sqs {
            Some(_) => sqs::check(&outbound, limits.body_bytes_max),
            None => limits::check(&outbound, limits),
        });
        match checked {
            Ok(()) => Ok(Some(outbound)),
            Err(failure) => Err(Box::new((failure, Some(outbound)))),
        }
    }
}

fn route(plan: &RoutePlan, texts: &Texts<'_>) -> Result<Route, Failure> {
    Ok(match plan {
        RoutePlan::Queue(queue) => Route::Queue(texts.needed("queue", queue)?),
        RoutePlan::Exchange { exchange, routing_key } => Route::Exchange {
            exchange: texts.text("exchange", exchange)?.unwrap_or_default(),
            routing_key: texts.text("routing_key", routing_key)?.unwrap_or_default(),
        },
    })
}

fn body(
    plan: &BodyPlan,
    row: &Row,
    globals: &dyn Globals,
    nan_as_null: bool,
    body_bytes_max: u64,
    out: &mut Vec<u8>,
) -> Result<(), Failure> {
    match plan {
        BodyPlan::Template { template, json } => {
            // A text made on the way may be larger than the message.
            let bytes_max = usize::try_from(body_bytes_max).unwrap_or(usize::MAX);
            let bytes_max = bytes_max.max(warren_liquid::Limits::default().output_bytes_max);
            let rendered = template.render_within(globals, out, bytes_max);
            rendered.map_err(|error| template_error(&error, row, body_bytes_max))?;
            if *json { check_json(out) } else { Ok(()) }
        }
        BodyPlan::Column { column, json } => {
            column_body(row, column, out)?;
            if *json { check_json(out) } else { Ok(()) }
        }
        BodyPlan::Fields(fields) => {
            let fields = fields.iter().map(|(name, column)| (name.as_str(), column.as_str()));
            object(row, fields, nan_as_null, out)
        }
        BodyPlan::AllFields => object(row, row.schema.names().map(|name| (name, name)), nan_as_null, out),
    }
}

fn column_body(row: &Row, column: &str, out: &mut Vec<u8>) -> Result<(), Failure> {
    let value = row.get(column).ok_or_else(|| missing(column))?;
    match value {
        Value::Null => {
            let what = format!("column `{column}` holds the message and is NULL");
            return Err(Failure::new(FailureKind::Invalid, codes::NULL_VALUE, what)
                .remedy("leave such rows out of the query, or give them a message with COALESCE"));
        }
        Value::Bytes(bytes) => out.extend_from_slice(bytes),
        Value::Text(text) | Value::Json(text) => out.extend_from_slice(text.as_bytes()),
        value => {
            with_val(value, false, |val| json::write_value(val, out)).map_err(|_| not_a_number(column))?
        }
    }
    Ok(())
}

fn object<'n>(
    row: &Row,
    fields: impl Iterator<Item = (&'n str, &'n str)>,
    nan_as_null: bool,
    out: &mut Vec<u8>,
) -> Result<(), Failure> {
    let mut offsets = Vec::with_capacity(row.schema.len() + 1);
    row.as_ref().offsets(&mut offsets);
    let mut before = b'{';
    for (name, column) in fields {
        out.push(before);
        before = b',';
        json::write_string(name, out);
        out.push(b':');
        let index = row.schema.index_of(column).ok_or_else(|| missing(column))?;
        let value = row.as_ref().value_at(offsets[index]);
        with_val(value, nan_as_null, |val| json::write_value(val, out)).map_err(|error| {
            if matches!(error, json::ValueError::NotFinite) {
                return not_a_number(column);
            }
            Failure::new(
                FailureKind::Invalid,
                codes::INVALID_JSON,
                format!("column `{column}` cannot be JSON"),
            )
            .detail(error.to_string())
        })?;
    }
    if before == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
    Ok(())
}

fn check_json(body: &[u8]) -> Result<(), Failure> {
    json::validate(body).map_err(|fault| {
        let lines = String::from_utf8_lossy(body);
        let line = lines.lines().nth(fault.line.saturating_sub(1)).unwrap_or_default();
        let from = fault.column.saturating_sub(31);
        let shown: String = line.chars().skip(from).take(60).collect();
        Failure::new(
            FailureKind::Invalid,
            codes::INVALID_JSON,
            format!("the message is not JSON at line {}, column {}", fault.line, fault.column),
        )
        .detail(format!("{}, near `{shown}`", fault.message))
        .remedy("see it with `warren render`; a message that is not JSON wants `format: text`")
    })
}

fn template_error(error: &warren_liquid::Error, row: &Row, body_bytes_max: u64) -> Failure {
    if error.kind == ErrorKind::Value
        && let Some(column) = not_finite(row)
    {
        return not_a_number(column);
    }
    let mut failure = template_failed("message", error);
    match error.kind {
        ErrorKind::InvalidJson | ErrorKind::JsonPlace => failure.code = codes::INVALID_JSON,
        ErrorKind::Limit => {
            if error.message.contains("bytes") {
                let bound = ByteSize(body_bytes_max);
                failure.code = codes::MESSAGE_TOO_LARGE;
                failure.detail = Some(format!("{}; the broker takes at most {bound}", error.message));
                failure.remedy = Some(limits::TOO_LARGE_REMEDY.to_owned());
            }
        }
        ErrorKind::Syntax
        | ErrorKind::UnknownTag
        | ErrorKind::UnknownFilter
        | ErrorKind::UnknownName
        | ErrorKind::UnknownPartial
        | ErrorKind::Arguments
        | ErrorKind::Value
        | ErrorKind::Compute => {}
    }
    failure
}

/// The first column that holds NaN or an infinity.
fn not_finite(row: &Row) -> Option<&str> {
    let float = |value: &Value<'_>| matches!(value, Value::Float(value) if !value.is_finite());
    let at = row.as_ref().values().position(|value| match value {
        Value::Array(array) => array.values().any(|value| float(&value)),
        value => float(&value),
    })?;
    row.schema.columns().get(at).map(|column| column.name.as_str())
}

fn not_a_number(column: &str) -> Failure {
    Failure::new(
        FailureKind::Invalid,
        codes::NOT_A_JSON_NUMBER,
        format!("column `{column}` holds NaN or an infinity, which JSON cannot hold"),
    )
    .remedy("set `nan: null` in the sync to send null instead, or convert it in the query")
}

fn missing(column: &str) -> Failure {
    Failure::new(
        FailureKind::Invalid,
        codes::UNKNOWN_COLUMN,
        format!("the message reads column `{column}`, which this row does not have"),
    )
    .remedy("rows are kept with the columns they had when they were last sent: see `keep_rows`")
}
