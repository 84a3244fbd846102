//! Expressions: jq, by the `jaq` crates, with values and bounds of our own.
//!
//! An expression is compiled once, when the configuration is read, and evaluated for each message. It is trusted to be meant
//! well and not to be right: whatever it does with a message, it ends. An evaluation gets a [`meter`] of steps, bytes, stack and
//! nesting. It first runs where it is asked, with a small allowance that no worker thread notices; one that needs more begins again
//! (expressions have no effects) on a thread of its own, with a deep stack and a large allowance, and ends there when nobody
//! waits for it any more, such as at the deadline of a message.

mod library;
mod meter;
mod number;
mod operators;
mod value;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jaq_core::data::HasLut;
use jaq_core::load::{Arena, File, Loader, lex, span};
use jaq_core::{Compiler, Ctx, DataT, Filter, Lut, Vars};
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot};

use meter::{Allowance, Exhausted, Stopped, metered};
use value::Val;

pub use meter::DEPTH_MAX;

/// The longest expression. Parsing one takes stack in proportion to it.
pub const EXPRESSION_BYTES_MAX: usize = 16 << 10;
/// The largest result, as JSON text in bytes (about).
pub const RESULT_BYTES_MAX: u64 = 16 << 20;

/// Expressions up to this length are parsed where they stand.
const SHORT_BYTES_MAX: usize = 64;
/// The stack to parse the longest expression with; touched only as far as it is needed.
const PARSE_STACK: usize = 256 << 20;
/// The stack of a long evaluation, and how much of it may be used.
const LONG_STACK: usize = 64 << 20;

/// What is evaluated where it is asked: a few milliseconds.
const SHORT: Allowance = Allowance { steps: 20_000, bytes: 4 << 20, stack: 192 << 10 };
/// What is evaluated on a thread of its own: some ten seconds.
const LONG: Allowance = Allowance { steps: 100_000_000, bytes: 256 << 20, stack: LONG_STACK - (8 << 20) };
/// Long evaluations at once; each may hold [`LONG`] bytes.
static LONG_TURNS: Semaphore = Semaphore::const_new(4);

/// What evaluations are made of.
struct Evaluation;

/// What an evaluation can see besides its input.
#[derive(Clone, Copy)]
struct Data<'a> {
    lut: &'a Lut<Evaluation>,
    now_ms: i64,
}

impl DataT for Evaluation {
    type V<'a> = Val;
    type Data<'a> = Data<'a>;
}

impl<'a> HasLut<'a, Evaluation> for Data<'a> {
    /// The interpreter asks at each step.
    fn lut(&self) -> &'a Lut<Evaluation> {
        meter::step();
        self.lut
    }
}

/// A compiled expression. Clones share it.
#[derive(Clone)]
pub struct Expression(Arc<Compiled>);

struct Compiled {
    text: String,
    filter: Filter<Evaluation>,
    /// The names it goes by, where it is nothing but a path such as `.body.sku`; none for `.`.
    path: Option<Vec<String>>,
    reads_steps: bool,
    reads_message: bool,
    ignores_input: bool,
    reads_attempt: bool,
}

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// One sentence without its place.
    pub message: String,
    /// The byte where it stands.
    pub at: usize,
    /// The way out.
    pub hint: Option<String>,
    /// Which fault it is.
    pub fault: SyntaxFault,
}

/// Which fault an expression has, for texts that must not quote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyntaxFault {
    /// It cannot be parsed within the limits, such as that of its length.
    TooLarge,
    /// A character, or the end of the expression, does not belong there.
    Unexpected,
    /// A bracket or quote is not closed.
    NotClosed,
    /// A module is imported.
    Import,
    /// A function, variable or label does not exist.
    Undefined,
    /// A function is given another number of arguments than it takes.
    Arguments,
}

impl SyntaxFault {
    /// The end of a sentence that begins with the expression.
    pub fn sentence(self) -> &'static str {
        match self {
            SyntaxFault::TooLarge => "cannot be parsed within the limits",
            SyntaxFault::Unexpected => "is not valid jq here",
            SyntaxFault::NotClosed => "has a bracket or quote here that is not closed",
            SyntaxFault::Import => "imports a module",
            SyntaxFault::Undefined => "uses a name here that does not exist",
            SyntaxFault::Arguments => "gives a function here the wrong number of arguments",
        }
    }
}

/// What an expression sees.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// `.`
    pub input: &'a Arc<Value>,
    /// `$steps`: an object of the results of earlier steps, by their ids.
    pub steps: &'a Arc<Value>,
    /// `$message`
    pub message: &'a Arc<Value>,
    /// `now`, in milliseconds since the epoch.
    pub now_ms: i64,
}

/// Why an evaluation has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// The expression failed.
    #[error("{0}")]
    Failed(String),
    /// The result is NaN or an infinity, or holds one.
    #[error("the result holds NaN or an infinity, which JSON cannot hold")]
    NotFinite,
    /// It yielded nothing.
    #[error("the expression yields nothing")]
    Nothing,
    /// It yielded more than one result.
    #[error("the expression yields more than one result")]
    Several,
    /// It took too long or made too much.
    #[error("the expression was stopped: {0}")]
    Stopped(&'static str),
    /// It was stopped for a reason that is neither its own nor its input's.
    #[error("the expression was stopped: {0}")]
    Interrupted(&'static str),
    /// The interpreter failed.
    #[error("the interpreter failed over the expression")]
    Broken,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.0.text).finish()
    }
}

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// It is not jq, or names what does not exist; all faults that were found.
    pub fn compile(text: &str) -> Result<Expression, Vec<SyntaxError>> {
        let fault = |message: &str, hint: &str| {
            let fault = SyntaxFault::TooLarge;
            vec![SyntaxError { message: message.to_owned(), at: 0, hint: Some(hint.to_owned()), fault }]
        };
        if text.len() > EXPRESSION_BYTES_MAX {
            let message = format!("the expression has more than {EXPRESSION_BYTES_MAX} bytes");
            return Err(fault(&message, "split it over several `map` steps"));
        }
        if text.len() <= SHORT_BYTES_MAX {
            return compile(text);
        }
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("expression".to_owned()).stack_size(PARSE_STACK);
            match thread.spawn_scoped(scope, || compile(text)).map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(compiled)) => compiled,
                Ok(Err(_)) => Err(fault("the parser failed over this expression", "write it in another way")),
                Err(_) => Err(fault("the system gives no thread to parse this expression", "try again")),
            }
        })
    }

    /// The text it was compiled from.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Whether it is `.`, which yields its input as it is.
    pub fn is_identity(&self) -> bool {
        self.path().is_some_and(<[String]>::is_empty)
    }

    /// The names it goes by, where it is nothing but a path such as `.body.sku`.
    pub fn path(&self) -> Option<&[String]> {
        self.0.path.as_deref()
    }

    /// Whether `$message` may be read.
    pub fn reads_message(&self) -> bool {
        self.0.reads_message
    }

    /// Whether `$steps` may be read.
    pub fn reads_steps(&self) -> bool {
        self.0.reads_steps
    }

    /// Whether its input certainly is not read, as in `$message.body | fromjson`.
    pub fn ignores_input(&self) -> bool {
        self.0.ignores_input
    }

    /// Whether it may read what differs from one attempt to the next: the time, and what the broker says of the delivery.
    pub fn reads_attempt(&self) -> bool {
        self.0.reads_attempt
    }

    /// The one result.
    ///
    /// # Errors
    /// It failed, was stopped, or has no or several results.
    pub async fn one(&self, scope: &Scope<'_>) -> Result<Value, EvaluationError> {
        if let Some(value) = self.0.at_path(scope.input) {
            return Ok(value.clone());
        }
        let mut results = self.evaluate(scope, 2).await?;
        match (results.pop(), results.pop()) {
            (None, _) => Err(EvaluationError::Nothing),
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err(EvaluationError::Several),
        }
    }

    /// Whether the first result is neither false nor null; no result is false.
    ///
    /// # Errors
    /// It failed or was stopped.
    pub async fn holds(&self, scope: &Scope<'_>) -> Result<bool, EvaluationError> {
        let is_true = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
        if let Some(value) = self.0.at_path(scope.input) {
            return Ok(is_true(value));
        }
        let results = self.evaluate(scope, 1).await?;
        Ok(results.first().is_some_and(is_true))
    }

    /// The first results, in order.
    async fn evaluate(&self, scope: &Scope<'_>, at_most: usize) -> Result<Vec<Value>, EvaluationError> {
        let short = metered(SHORT, None, || self.0.run(scope, at_most));
        match short {
            Ok(results) => results,
            Err(Stopped::Exhausted(Exhausted::Steps | Exhausted::Bytes | Exhausted::Stack)) => {
                self.evaluate_long(scope, at_most).await
            }
            Err(stopped) => Err(stopped.into()),
        }
    }

    async fn evaluate_long(&self, scope: &Scope<'_>, at_most: usize) -> Result<Vec<Value>, EvaluationError> {
        /// Tells the thread when the one who waits is dropped.
        struct Waiting(Arc<AtomicBool>);
        impl Drop for Waiting {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        // The semaphore is never closed.
        let turn = LONG_TURNS.acquire().await.map_err(|_| EvaluationError::Broken)?;
        let waiting = Waiting(Arc::default());
        let (compiled, cancelled) = (self.0.clone(), waiting.0.clone());
        let (input, steps, message) = (scope.input.clone(), scope.steps.clone(), scope.message.clone());
        let now_ms = scope.now_ms;
        let (answer, answered) = oneshot::channel();
        let thread = std::thread::Builder::new().name("expression".to_owned()).stack_size(LONG_STACK);
        let started = thread.spawn(move || {
            let scope = Scope { input: &input, steps: &steps, message: &message, now_ms };
            let result = metered(LONG, Some(cancelled), || compiled.run(&scope, at_most));
            // Whoever asked may be gone; then nobody needs the answer. The turn is held until here.
            drop(answer.send(result));
            drop(turn);
        });
        if started.is_err() {
            return Err(EvaluationError::Interrupted("the system gives no thread to evaluate it"));
        }
        match answered.await {
            Ok(Ok(results)) => results,
            Ok(Err(stopped)) => Err(stopped.into()),
            Err(_) => Err(EvaluationError::Broken),
        }
    }
}

impl Compiled {
    /// What a plain path leads to, without the interpreter; `None` where it is no plain path, or fails, so that the interpreter
    /// says how.
    fn at_path<'v>(&self, input: &'v Value) -> Option<&'v Value> {
        let mut value = input;
        for name in self.path.as_ref()? {
            value = match value {
                Value::Object(entries) => entries.get(name).unwrap_or(&Value::Null),
                Value::Null => value,
                _ => return None,
            };
        }
        Some(value)
    }

    fn run(&self, scope: &Scope<'_>, at_most: usize) -> Result<Vec<Value>, EvaluationError> {
        let variable = |read: bool, value: &Value| if read { Val::of_json(value) } else { Val::Null };
        let variables =
            Vars::new([variable(self.reads_steps, scope.steps), variable(self.reads_message, scope.message)]);
        let data = Data { lut: &self.filter.lut, now_ms: scope.now_ms };
        let context = Ctx::<Evaluation>::new(data, variables);
        let outputs = self.filter.id.run((context, Val::of_json(scope.input)));
        let mut results = Vec::new();
        for output in outputs.take(at_most) {
            let value = output.map_err(|exception| match exception.get_err() {
                Ok(error) => EvaluationError::Failed(cut(error.to_string())),
                // `halt` and `break` to nowhere; neither can be written.
                Err(_) => EvaluationError::Broken,
            })?;
            results.push(value.to_json().map_err(|value::NotFinite| EvaluationError::NotFinite)?);
        }
        Ok(results)
    }
}

impl From<Stopped> for EvaluationError {
    fn from(stopped: Stopped) -> EvaluationError {
        match stopped {
            Stopped::Panicked => EvaluationError::Broken,
            Stopped::Exhausted(Exhausted::Cancelled) => {
                EvaluationError::Interrupted("nobody waits for it any more")
            }
            Stopped::Exhausted(exhausted) => EvaluationError::Stopped(match exhausted {
                Exhausted::Steps => "it took more than 100 million steps",
                Exhausted::Bytes => "it made more than 256 MiB of values",
                Exhausted::Stack => "it calls itself too deeply",
                Exhausted::Depth => "it has arrays and objects more than 128 deep in each other",
                Exhausted::Cancelled => "it was cancelled",
            }),
        }
    }
}

/// The longest error that is told.
const ERROR_CHARS_MAX: usize = 500;

fn cut(text: String) -> String {
    match text.char_indices().nth(ERROR_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn compile(text: &str) -> Result<Expression, Vec<SyntaxError>> {
    let arena = Arena::default();
    let modules = Loader::new(library::definitions()).load(&arena, File { code: text, path: () }).map_err(
        |errors| errors.into_iter().flat_map(|(_, error)| load_faults(text, error)).collect::<Vec<_>>(),
    )?;
    let filter = Compiler::default()
        .with_funs(library::functions())
        .with_global_vars(["$steps", "$message"])
        .compile(modules)
        .map_err(|errors| {
            let undefined = errors.into_iter().flat_map(|(_, undefined)| undefined);
            undefined.map(|(name, what)| undefined_fault(text, name, &what)).collect::<Vec<_>>()
        })?;
    let reads = |name: &str| text.contains(name);
    Ok(Expression(Arc::new(Compiled {
        text: text.to_owned(),
        filter,
        path: plain_path(text),
        reads_steps: reads("$steps"),
        reads_message: reads("$message"),
        ignores_input: ignores_input(text),
        reads_attempt: reads_attempt(text),
    })))
}

/// Names that stand for what differs from one attempt to the next.
const OF_ATTEMPT: [&str; 7] =
    ["now", "envelope", "attempt", "receivedAt", "redelivered", "deliveryTag", "consumerTag"];

/// Whether one of the names of [`OF_ATTEMPT`] stands anywhere in an expression, also within a text or a comment.
fn reads_attempt(text: &str) -> bool {
    let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
    text.split(|char| !is_name(char)).any(|word| OF_ATTEMPT.contains(&word))
}

/// Whether an expression begins with a path of `$message` or `$steps`, which everything else is piped from.
fn ignores_input(text: &str) -> bool {
    let text = text.trim();
    let is_path = |char: char| char.is_ascii_alphanumeric() || matches!(char, '$' | '_' | '.');
    let end = text.find(|char| !is_path(char)).unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    let root = path.split('.').next().unwrap_or_default();
    let rest = rest.trim_start();
    matches!(root, "$message" | "$steps")
        // A pipe binds less than every other operator, so all that follows it has the path for its input.
        && (rest.is_empty() || (rest.starts_with('|') && !rest.starts_with("|=")))
}

fn load_faults(text: &str, error: jaq_core::load::Error<&str>) -> Vec<SyntaxError> {
    use jaq_core::load::Error;
    let fault = |part: &str, fault: SyntaxFault, message: String| SyntaxError {
        message,
        at: offset(text, part),
        hint: None,
        fault,
    };
    match error {
        Error::Io(found) => found
            .into_iter()
            .map(|(part, _)| SyntaxError {
                hint: Some("write the definitions into the expression".to_owned()),
                ..fault(part, SyntaxFault::Import, "modules cannot be imported".to_owned())
            })
            .collect(),
        Error::Lex(found) => found
            .into_iter()
            .map(|(expected, part)| {
                let (which, expected) = match expected {
                    lex::Expect::Delim(open) => {
                        (SyntaxFault::NotClosed, format!("this `{open}` is not closed"))
                    }
                    other => (SyntaxFault::Unexpected, format!("expected {}", other.as_str())),
                };
                fault(part, which, expected)
            })
            .collect(),
        Error::Parse(found) => found
            .into_iter()
            .map(|(expected, part)| {
                let found = match part {
                    "" => "the end".to_owned(),
                    part => format!("`{}`", part.chars().take(20).collect::<String>()),
                };
                let message = format!("expected {}, found {found}", expected.as_str());
                fault(part, SyntaxFault::Unexpected, message)
            })
            .collect(),
    }
}

fn undefined_fault(text: &str, name: &str, what: &jaq_core::compile::Undefined) -> SyntaxError {
    use jaq_core::compile::Undefined;
    let at = offset(text, name);
    let near = |known: &mut dyn Iterator<Item = &str>| {
        crate::near::nearest(name, known).map(|near| format!("did you mean `{near}`?"))
    };
    let mut fault = SyntaxFault::Undefined;
    let (message, hint) = match what {
        Undefined::Filter(arity) if library::names().iter().any(|known| known == name) => {
            fault = SyntaxFault::Arguments;
            (format!("`{name}` does not take {arity} arguments"), None)
        }
        Undefined::Filter(_) => {
            (format!("there is no function `{name}`"), near(&mut library::names().iter().map(String::as_str)))
        }
        Undefined::Var => {
            (format!("there is no variable `{name}`"), near(&mut ["$steps", "$message"].into_iter()))
        }
        other => (format!("there is no {} `{name}`", other.as_str()), None),
    };
    let hint = library::hint(name).map(str::to_owned).or(hint);
    SyntaxError { message, at, hint, fault }
}

/// The names of a plain path, such as `.body.sku`.
fn plain_path(text: &str) -> Option<Vec<String>> {
    let names = text.trim().strip_prefix('.')?;
    if names.is_empty() {
        return Some(Vec::new());
    }
    let is_name = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
    };
    names.split('.').map(|name| is_name(name).then(|| name.to_owned())).collect()
}

/// Where a part of a text begins; its end where the part is none of it.
fn offset(text: &str, part: &str) -> usize {
    let whole = text.as_bytes().as_ptr_range();
    let begins = part.as_ptr();
    if begins < whole.start || begins > whole.end {
        return text.len();
    }
    span(text, part).start.min(text.len())
}

#[cfg(test)]
mod tests;
