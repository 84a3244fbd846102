//! What expressions and texts of a step see: the value that came in, the results of earlier steps, the message.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};
use warren_liquid::{Globals, Template, Val};

use super::jq::{self, EvaluationError, Expression};
use super::trouble::Trouble;
use crate::codes;
use crate::failure::{Failure, FailureKind};

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

/// What a step sees.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The value that came in.
    pub value: Arc<Value>,
    /// The results of earlier steps, by their ids.
    pub steps: Arc<Value>,
    /// The message.
    pub message: Arc<Value>,
    /// When the message was received, in milliseconds since the epoch.
    pub now_ms: i64,
}

impl Scope {
    /// The same with another value.
    #[must_use]
    pub fn with(&self, value: Arc<Value>) -> Scope {
        Scope { value, ..self.clone() }
    }

    /// Keeps the result of a step.
    pub fn keep(&mut self, id: &str, value: &Arc<Value>) {
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
        expression.one(&self.for_jq()).await.map_err(|error| failed(expression, &error))
    }

    /// Whether an expression holds.
    ///
    /// # Errors
    /// It fails or is stopped.
    pub async fn holds(&self, expression: &Expression) -> Result<bool, Trouble> {
        expression.holds(&self.for_jq()).await.map_err(|error| failed(expression, &error))
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
            Failure::new(FailureKind::Invalid, codes::TEMPLATE_FAILED, "render a text of the step")
                .at(format!("line {}, column {}", error.line, error.column))
                .detail(error.message)
        })?;
        String::from_utf8(out).map_err(|_| Failure::internal("render a text of the step as UTF-8").into())
    }

    fn for_jq(&self) -> jq::Scope<'_> {
        jq::Scope { input: &self.value, steps: &self.steps, message: &self.message, now_ms: self.now_ms }
    }
}

fn failed(expression: &Expression, error: &EvaluationError) -> Trouble {
    let shown: String = expression.text().chars().take(80).collect();
    Failure::new(FailureKind::Invalid, codes::EXPRESSION_FAILED, format!("evaluate `{shown}`"))
        .detail(error.to_string())
        .into()
}

/// The scope as templates see it; only what is read is written out.
struct View {
    value: Option<String>,
    steps: Option<String>,
    message: Option<String>,
    now_ms: i64,
}

impl View {
    fn new(scope: &Scope, reads: &BTreeSet<String>) -> View {
        let json = |name: &str, value: &Value| reads.contains(name).then(|| value.to_string());
        View {
            value: json("value", &scope.value),
            steps: json("steps", &scope.steps),
            message: json("message", &scope.message),
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
