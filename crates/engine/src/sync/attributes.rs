//! A row's own parts of a message to SQS: group, deduplication, delay and typed attributes.

use warren_liquid::Template;

use crate::codes;
use crate::failure::{Failure, FailureKind};
use crate::message::{HeaderValue, Headers, Properties, Route};
use crate::row::Value;
use crate::sqs;
use crate::sync::plan::{Dynamic, PropertyPlan};
use crate::sync::property::{Texts, template_failed, value_text};

/// The parts of a message that only SQS has.
#[derive(Debug, Default)]
pub struct SqsPlan {
    /// The message group.
    pub group_id: Option<Dynamic>,
    /// What two messages have in common that are one.
    pub deduplication_id: Deduplication,
    /// Seconds.
    pub delay_seconds: Option<Dynamic>,
    /// Attributes by name.
    pub attributes: Vec<(String, AttributePlan)>,
}

/// Where a deduplication id comes from. Only FIFO queues get one.
#[derive(Debug, Default)]
pub enum Deduplication {
    /// The change id: the same change is taken once, however often it is sent within five minutes.
    #[default]
    ChangeId,
    /// The queue makes it of the body.
    Content,
    /// The row.
    By(Dynamic),
}

/// An attribute. A NULL leaves it out.
#[derive(Debug)]
pub struct AttributePlan {
    /// `String`, `Number` or `Binary`, perhaps with a label. `None`: what the column has.
    pub kind: Option<String>,
    /// Its value.
    pub value: AttributeSource,
}

/// Where an attribute's value comes from.
#[derive(Debug)]
pub enum AttributeSource {
    /// The same for every row.
    Literal(String),
    /// A column.
    Column(String),
    /// A rendered template (text, not JSON).
    Template(Box<Template>),
}

impl Texts<'_> {
    /// The properties of a message to SQS. `id` is the change id.
    ///
    /// # Errors
    /// A part is not what it must be; the failure names it.
    pub fn sqs_properties(
        &self,
        plan: &PropertyPlan,
        sqs: &SqsPlan,
        route: &Route,
        id: &str,
    ) -> Result<Properties, Failure> {
        let message_id = match &plan.message_id {
            Some(dynamic) => self.needed("message_id", dynamic)?,
            None => id.to_owned(),
        };
        let mut headers = Headers::default();
        let mut set = |name: &str, text: Option<String>| {
            if let Some(text) = text {
                headers.set(name, HeaderValue::Text(text));
            }
        };
        let is_fifo = matches!(route, Route::Queue(queue) if sqs::is_fifo(queue));
        if let Some(group) = &sqs.group_id {
            set(sqs::GROUP_ID, self.text("group_id", group)?);
        }
        if is_fifo {
            match &sqs.deduplication_id {
                Deduplication::ChangeId => set(sqs::DEDUPLICATION_ID, Some(id.to_owned())),
                Deduplication::Content => {}
                Deduplication::By(dynamic) => {
                    set(sqs::DEDUPLICATION_ID, self.text("deduplication_id", dynamic)?);
                }
            }
        }
        if let Some(delay) = &sqs.delay_seconds
            && let Some(text) = self.text("delay_seconds", delay)?
        {
            headers.set(sqs::DELAY_SECONDS, HeaderValue::I64(seconds(&text)?));
        }
        for (name, attribute) in &sqs.attributes {
            if let Some((kind, value)) = self.attribute(name, attribute)? {
                sqs::set_attribute(&mut headers, name, &kind, value);
            }
        }
        Ok(Properties { message_id: Some(message_id), headers, ..Properties::default() })
    }

    fn attribute(&self, name: &str, plan: &AttributePlan) -> Result<Option<(String, HeaderValue)>, Failure> {
        let text = match &plan.value {
            AttributeSource::Literal(text) => text.clone(),
            AttributeSource::Template(template) => {
                let mut out = Vec::new();
                template.render(self.globals, &mut out).map_err(|error| template_failed(name, &error))?;
                String::from_utf8_lossy(&out).into_owned()
            }
            AttributeSource::Column(column) => {
                let value = self.column(name, column)?;
                let kind = plan.kind.as_deref().unwrap_or_else(|| implied(value));
                return Ok(of_column(kind, value).map(|value| (kind.to_owned(), value)));
            }
        };
        let kind = plan.kind.as_deref().unwrap_or("String");
        let value =
            if is_binary(kind) { HeaderValue::Bytes(text.into_bytes()) } else { HeaderValue::Text(text) };
        Ok(Some((kind.to_owned(), value)))
    }
}

fn is_binary(kind: &str) -> bool {
    kind == "Binary" || kind.starts_with("Binary.")
}

/// The type an attribute has where none is asked for.
fn implied(value: Value<'_>) -> &'static str {
    match value {
        Value::Int(_) | Value::UInt(_) | Value::Float(_) | Value::Decimal(_) => "Number",
        Value::Bytes(_) => "Binary",
        Value::Null
        | Value::Bool(_)
        | Value::Text(_)
        | Value::Date(_)
        | Value::Time(_)
        | Value::DateTime(_)
        | Value::Timestamp(..)
        | Value::Uuid(_)
        | Value::Json(_)
        | Value::Array(_) => "String",
    }
}

fn of_column(kind: &str, value: Value<'_>) -> Option<HeaderValue> {
    Some(match value {
        Value::Null => return None,
        Value::Bytes(bytes) if is_binary(kind) => HeaderValue::Bytes(bytes.to_vec()),
        value if is_binary(kind) => HeaderValue::Bytes(value_text(value)?.into_bytes()),
        value => HeaderValue::Text(value_text(value)?),
    })
}

fn seconds(text: &str) -> Result<i64, Failure> {
    text.trim().parse().map_err(|_| {
        let shown: String = text.chars().take(60).collect();
        Failure::new(
            FailureKind::Invalid,
            codes::INVALID_DELAY,
            format!(
                "`delay_seconds` is `{shown}` and must be a whole number from 0 to {}",
                sqs::DELAY_SECONDS_MAX
            ),
        )
    })
}
