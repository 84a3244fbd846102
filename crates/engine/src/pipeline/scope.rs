//! What expressions and texts of a step see: the value that came in, the results of earlier steps, the message.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock, OnceLock};

use serde_json::{Map, Value};
use warren_liquid::{Globals, Template, Val};

use super::document::{self, BodyForm, document};
use super::jq::{self, EvaluationError, Expression};
use super::plan::{Given, Pairs, Params};
use super::trouble::Trouble;
use crate::codes;
use crate::delivery::Job;
use crate::failure::{Failure, FailureKind};
use crate::outcome::Attempt;

/// The results of earlier steps where there are none.
static NO_STEPS: LazyLock<Arc<Value>> = LazyLock::new(|| Arc::new(Value::Object(Map::new())));

/// The names that a text sees.
pub const GLOBALS: [&str; 3] = ["value", "steps", "message"];

/// A text of a step: as written, or Liquid.
#[derive(Debug, Clone)]
pub enum Text {
    /// As written.
    Literal(String),
    /// With outputs or tags.
    Template(Box<Template>),
}

/// The message as a document, which is made when it is first looked at: many pipelines want nothing of it but its body.
#[derive(Debug)]
pub struct Message<'r> {
    job: &'r Job,
    attempt: &'r Attempt,
    form: BodyForm,
    made: OnceLock<Arc<Value>>,
}

impl<'r> Message<'r> {
    /// Of a message whose body can be shown in that form.
    ///
    /// # Errors
    /// The body is to be text and is not UTF-8.
    pub fn new(job: &'r Job, attempt: &'r Attempt, form: BodyForm) -> Result<Message<'r>, Failure> {
        document::check(&job.message.body, form)?;
        Ok(Message { job, attempt, form, made: OnceLock::new() })
    }

    /// The document.
    pub fn document(&self) -> &Arc<Value> {
        // The one way in which it can fail was looked at in the beginning.
        self.made.get_or_init(|| Arc::new(document(self.job, self.attempt, self.form).unwrap_or_default()))
    }

    /// What a plain path leads to, where that is known without the document.
    fn at(&self, path: &[String]) -> Option<Value> {
        match path {
            [name] if name == "body" && self.made.get().is_none() => {
                document::body(&self.job.message.body, self.form).ok().map(Value::from)
            }
            _ => None,
        }
    }
}

/// The value that comes into a step.
#[derive(Debug, Clone)]
pub enum Input<'r> {
    /// The message, in the first step.
    Message(Arc<Message<'r>>),
    /// What a step before it made.
    Value(Arc<Value>),
}

impl Input<'_> {
    /// The value.
    pub fn value(&self) -> &Arc<Value> {
        match self {
            Input::Message(message) => message.document(),
            Input::Value(value) => value,
        }
    }
}

/// What of a scope may be different in another attempt at the same message, because it came from outside, such as the answer to a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Varies {
    /// The value that came in.
    pub value: bool,
    /// The result of an earlier step.
    pub steps: bool,
}

/// What a step sees.
#[derive(Debug, Clone)]
pub struct Scope<'r> {
    /// The value that came in.
    pub input: Input<'r>,
    /// The results of earlier steps, by their ids.
    pub steps: Arc<Value>,
    /// The message.
    pub message: Arc<Message<'r>>,
    /// When the message was received, in milliseconds since the epoch.
    pub now_ms: i64,
    /// What of it may be different in another attempt.
    pub varies: Varies,
}

impl<'r> Scope<'r> {
    /// Before the first step.
    pub fn new(message: Message<'r>) -> Scope<'r> {
        let message = Arc::new(message);
        Scope {
            input: Input::Message(message.clone()),
            steps: NO_STEPS.clone(),
            now_ms: message.attempt.received_at_ms,
            message,
            varies: Varies::default(),
        }
    }

    /// The value that came in.
    pub fn value(&self) -> &Arc<Value> {
        self.input.value()
    }

    /// Another value comes in from here on, which may be different in another attempt or not.
    pub fn set(&mut self, value: Value, varies: bool) {
        self.input = Input::Value(Arc::new(value));
        self.varies.value = varies;
    }

    /// The same with another value.
    #[must_use]
    pub fn with(&self, value: Arc<Value>, varies: bool) -> Scope<'r> {
        Scope { input: Input::Value(value), varies: Varies { value: varies, ..self.varies }, ..self.clone() }
    }

    /// Keeps the result of a step.
    pub fn keep(&mut self, id: &str, value: &Arc<Value>) {
        self.varies.steps |= self.varies.value;
        let steps = Arc::make_mut(&mut self.steps);
        if !steps.is_object() {
            *steps = Value::Object(Map::new());
        }
        if let Value::Object(steps) = steps {
            steps.insert(id.to_owned(), value.as_ref().clone());
        }
    }

    /// The result of an expression.
    ///
    /// # Errors
    /// It fails, is stopped, or has no or several results.
    pub async fn one(&self, expression: &Expression) -> Result<Value, Trouble> {
        if let Input::Message(message) = &self.input
            && let Some(value) = expression.path().and_then(|path| message.at(path))
        {
            return Ok(value);
        }
        let found = expression.one(&self.for_jq(expression)).await;
        found.map_err(|error| self.failed(expression, &error))
    }

    /// Whether an expression holds.
    ///
    /// # Errors
    /// It fails or is stopped.
    pub async fn holds(&self, expression: &Expression) -> Result<bool, Trouble> {
        let found = expression.holds(&self.for_jq(expression)).await;
        found.map_err(|error| self.failed(expression, &error))
    }

    /// A text.
    ///
    /// # Errors
    /// The template fails.
    pub fn text(&self, text: &Text) -> Result<String, Trouble> {
        let template = match text {
            Text::Literal(text) => return Ok(text.clone()),
            Text::Template(template) => template,
        };
        let view = View::new(self, &template.reads().globals);
        let mut out = Vec::new();
        template.render(&view, &mut out).map_err(|error| {
            let failure =
                Failure::new(FailureKind::Invalid, codes::TEMPLATE_FAILED, "render a text of the step")
                    .at(format!("line {}, column {}", error.line, error.column))
                    .detail(error.message);
            Trouble::of_input(failure, self.repeats_text(text))
        })?;
        String::from_utf8(out).map_err(|_| Failure::internal("render a text of the step as UTF-8").into())
    }

    /// Whether an expression has the same result in every attempt.
    pub fn repeats(&self, expression: &Expression) -> bool {
        let by_input = self.varies.value && !expression.ignores_input();
        let by_steps = self.varies.steps && expression.reads_steps();
        !(by_input || by_steps || expression.reads_attempt())
    }

    /// Whether a text is the same in every attempt.
    pub fn repeats_text(&self, text: &Text) -> bool {
        let reads = match text {
            Text::Literal(_) => return true,
            Text::Template(template) => template.reads(),
        };
        let is_message = matches!(self.input, Input::Message(_));
        let of_message = |path: &str| matches!(path, "body" | "properties" | "headers");
        let repeats = |path: &String| match path.split_once('.').unwrap_or((path, "")) {
            ("value", path) if is_message => of_message(path),
            ("value", _) => !self.varies.value,
            ("steps", _) => !self.varies.steps,
            ("message", path) => of_message(path),
            ("*", _) => false,
            _ => true,
        };
        !reads.clock && reads.paths.iter().all(repeats)
    }

    /// The same of a property's or a header's value.
    pub fn repeats_given(&self, given: &Given) -> bool {
        match given {
            Given::Text(text) => self.repeats_text(text),
            Given::Value(_) => true,
        }
    }

    /// The same of properties or headers.
    pub fn repeats_pairs(&self, pairs: &Pairs) -> bool {
        match pairs {
            Pairs::Named(named) => named.iter().all(|(_, given)| self.repeats_given(given)),
            Pairs::Computed(expression) => self.repeats(expression),
        }
    }

    /// The same of the parameters of a statement.
    pub fn repeats_params(&self, params: &Params) -> bool {
        match params {
            Params::Listed(expressions) => expressions.iter().all(|expression| self.repeats(expression)),
            Params::Computed(expression) => self.repeats(expression),
        }
    }

    fn failed(&self, expression: &Expression, error: &EvaluationError) -> Trouble {
        let shown: String = expression.text().chars().take(80).collect();
        let what = format!("evaluate `{shown}`");
        let failure =
            Failure::new(FailureKind::Invalid, codes::EXPRESSION_FAILED, what).detail(error.to_string());
        let by_itself = !matches!(error, EvaluationError::Interrupted(_));
        Trouble::of_input(failure, by_itself && self.repeats(expression))
    }

    fn for_jq(&self, expression: &Expression) -> jq::Scope<'_> {
        // What is not read may be anything.
        let message = if expression.reads_message() { self.message.document() } else { &self.steps };
        jq::Scope { input: self.value(), steps: &self.steps, message, now_ms: self.now_ms }
    }
}

/// The scope as templates see it; only what is read is written out.
struct View {
    value: Option<String>,
    steps: Option<String>,
    message: Option<String>,
    now_ms: i64,
}

impl View {
    fn new(scope: &Scope<'_>, reads: &BTreeSet<String>) -> View {
        let reads = |name: &str| reads.contains(name);
        View {
            value: reads("value").then(|| scope.value().to_string()),
            steps: reads("steps").then(|| scope.steps.to_string()),
            message: reads("message").then(|| scope.message.document().to_string()),
            now_ms: scope.now_ms,
        }
    }
}

impl Globals for View {
    fn get(&self, name: &str) -> Option<Val<'_>> {
        let json = match name {
            "value" => &self.value,
            "steps" => &self.steps,
            "message" => &self.message,
            _ => return None,
        };
        json.as_deref().map(Val::Json)
    }

    fn now(&self) -> Option<i64> {
        self.now_ms.checked_mul(1000)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::time::Instant;

    use super::*;
    use crate::delivery::Envelope;
    use crate::message;

    #[tokio::test]
    async fn a_body_alone_is_that_of_the_document_without_making_it() {
        let attempt = Attempt {
            consumer: "c".into(),
            number: 1,
            again: false,
            received_at_ms: 0,
            deadline: Instant::now(),
            trace: crate::outcome::Trace::default(),
        };
        let job = |body: &'static [u8]| Job {
            message: message::Message {
                body: Bytes::from_static(body),
                properties: message::Properties::default(),
            },
            envelope: Envelope::default(),
        };
        for (body, form) in [(&b"text"[..], BodyForm::Text), (b"\xff\x00", BodyForm::Base64)] {
            let job = job(body);
            let scope = Scope::new(Message::new(&job, &attempt, form).unwrap());
            let expression = Expression::compile(".body").unwrap();
            let alone = scope.one(&expression).await.unwrap_or_else(|trouble| panic!("{trouble:?}"));
            assert!(scope.message.made.get().is_none());
            assert_eq!(alone, scope.value()["body"]);
        }
        assert!(Message::new(&job(b"\xff"), &attempt, BodyForm::Text).is_err());
    }
}
