//! A message on its way through steps.
//!
//! A list of steps is gone through in order; the value of one is the input of the next. The error of a step goes to its own
//! `on_error`, or else to the next `on_error` of its list, or else out of the list. Every step notes what it did, also one
//! that is dropped half-way.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::Outside;
use super::plan::{Branch, FailStep, ForEachStep, LogLevel, LogStep, RetryStep, Step, StepKind};
use super::scope::{Input, Scope};
use super::trouble::{End, Trouble};
use crate::codes;
use crate::delivery::Job;
use crate::failure::{Failure, FailureKind};
use crate::outcome::{Attempt, StepTrace};

/// Takes one message through steps.
#[derive(Clone, Copy)]
pub struct Runner<'r> {
    /// What the steps work with.
    pub outside: &'r Outside,
    /// The message.
    pub job: &'r Job,
    /// The try.
    pub attempt: &'r Attempt,
}

/// How a list of steps ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It came to its end; the value is in the scope.
    Goes,
    /// A `filter` ended it.
    Filtered,
}

/// What a step gave.
pub struct Done {
    /// The value; the one that came in where there is none.
    pub value: Option<Value>,
    /// Whether the value may be different in another attempt at the same message.
    pub varies: bool,
    /// What is noted of it.
    pub note: Option<String>,
}

impl Done {
    /// Another value, from outside.
    pub fn value(value: Value) -> Done {
        Done { value: Some(value), varies: true, note: None }
    }

    /// Another value, which was computed.
    pub fn computed(value: Value, varies: bool) -> Done {
        Done { value: Some(value), varies, note: None }
    }

    /// The value that came in goes on.
    pub fn same() -> Done {
        Done { value: None, varies: false, note: None }
    }

    /// With a note.
    pub fn note(mut self, note: impl Into<String>) -> Done {
        self.note = Some(note.into());
        self
    }
}

type Running<'f> = Pin<Box<dyn Future<Output = Result<Flow, Trouble>> + Send + 'f>>;

impl<'r> Runner<'r> {
    /// Goes through a list of steps. `path` stands before the number of each; the scope holds the value and the results
    /// of the steps with an id afterwards.
    pub fn list<'f>(self, steps: &'f [Step], path: String, scope: &'f mut Scope<'r>) -> Running<'f>
    where
        'r: 'f,
    {
        Box::pin(async move {
            let mut at = 0;
            while let Some(step) = steps.get(at) {
                let place = format!("{path}{}.{}", at + 1, step.kind.name());
                at += 1;
                if matches!(step.kind, StepKind::OnError(_)) {
                    continue; // Nothing failed.
                }
                let before = scope.input.clone();
                match self.step(step, &place, scope).await {
                    Ok(Flow::Goes) => {}
                    Ok(Flow::Filtered) => return Ok(Flow::Filtered),
                    Err(trouble) => {
                        let handler =
                            steps[at..].iter().position(|step| matches!(step.kind, StepKind::OnError(_)));
                        let Some(index) = handler.map(|after| at + after) else { return Err(trouble) };
                        at = index + 1;
                        let Some(Step { kind: StepKind::OnError(handlers), id, .. }) = steps.get(index)
                        else {
                            return Err(trouble);
                        };
                        scope.set(trouble.document(before.value()), !trouble.repeats);
                        let path = format!("{path}{}.on_error.", index + 1);
                        if self.list(handlers, path, scope).await? == Flow::Filtered {
                            return Ok(Flow::Filtered);
                        }
                        if let Some(id) = id {
                            let value = scope.value().clone();
                            scope.keep(id, &value);
                        }
                    }
                }
            }
            Ok(Flow::Goes)
        })
    }

    /// One step, with its own `on_error` and its result kept.
    async fn step(self, step: &Step, place: &str, scope: &mut Scope<'r>) -> Result<Flow, Trouble> {
        let before = scope.input.clone();
        let flow = match self.noted(step, place, scope).await {
            Ok(flow) => flow,
            Err(trouble) => {
                let Some(handlers) = &step.on_error else { return Err(trouble) };
                scope.set(trouble.document(before.value()), !trouble.repeats);
                self.list(handlers, format!("{place}.on_error."), scope).await?
            }
        };
        if flow == Flow::Goes
            && let Some(id) = &step.id
        {
            let value = scope.value().clone();
            scope.keep(id, &value);
        }
        Ok(flow)
    }

    /// One step by itself, noted.
    async fn noted(self, step: &Step, place: &str, scope: &mut Scope<'r>) -> Result<Flow, Trouble> {
        let mut note =
            Note { attempt: self.attempt, place, id: step.id.as_deref(), began: Instant::now(), said: false };
        let result = self.act(&step.kind, place, scope).await;
        match result {
            Ok((flow, said)) => {
                note.say(said, None);
                Ok(flow)
            }
            Err(mut trouble) => {
                if trouble.step.is_empty() {
                    step.id.as_deref().unwrap_or(place).clone_into(&mut trouble.step);
                }
                note.say(None, Some(trouble.failure.clone()));
                Err(trouble)
            }
        }
    }

    async fn act(
        self,
        kind: &StepKind,
        place: &str,
        scope: &mut Scope<'r>,
    ) -> Result<(Flow, Option<String>), Trouble> {
        let done = match kind {
            StepKind::Map(expression) if expression.is_identity() => Done::same(),
            StepKind::Map(expression) => {
                Done::computed(scope.one(expression).await?, !scope.repeats(expression))
            }
            StepKind::Filter(expression) => {
                if !scope.holds(expression).await? {
                    return Ok((Flow::Filtered, Some("filtered".to_owned())));
                }
                Done::same()
            }
            StepKind::Validate(schema) => {
                schema.check(scope.value()).map_err(|mismatch| {
                    let at =
                        if mismatch.pointer.is_empty() { "the value" } else { mismatch.pointer.as_str() };
                    let what = format!("{at} is not valid");
                    let failure = Failure::new(FailureKind::Invalid, codes::NOT_VALID, what);
                    let repeats = !scope.varies.value;
                    Trouble { repeats, ..Trouble::reject(failure.detail(mismatch.reason)) }
                })?;
                Done::same()
            }
            StepKind::Http(http) => within(http.timeout, self.http(http, scope)).await?,
            StepKind::Publish(publish) => within(publish.timeout, self.publish(publish, scope)).await?,
            StepKind::Sql(sql) => within(sql.timeout, self.sql(sql, scope)).await?,
            StepKind::Exec(exec) => within(exec.timeout, self.exec(exec, scope)).await?,
            StepKind::Reply(reply) => within(reply.timeout, self.reply(reply, scope)).await?,
            StepKind::Choose(branches) => return self.choose(branches, place, scope).await,
            StepKind::ForEach(for_each) => self.for_each(for_each, place, scope).await?,
            StepKind::Retry(retry) => return self.retry(retry, place, scope).await,
            StepKind::OnError(_) => Done::same(),
            StepKind::Log(log) => self.log(log, place, scope)?,
            StepKind::Fail(fail) => return Err(failed(fail, scope)?),
        };
        if let Some(value) = done.value {
            scope.set(value, done.varies);
        }
        Ok((Flow::Goes, done.note))
    }

    async fn choose(
        self,
        branches: &[Branch],
        place: &str,
        scope: &mut Scope<'r>,
    ) -> Result<(Flow, Option<String>), Trouble> {
        for (index, branch) in branches.iter().enumerate() {
            let taken = match &branch.when {
                None => true,
                Some(when) => scope.holds(when).await?,
            };
            if taken {
                let nth = index + 1;
                let flow = self.list(&branch.steps, format!("{place}[{nth}]."), scope).await?;
                return Ok((flow, Some(format!("way {nth}"))));
            }
        }
        Ok((Flow::Goes, Some("no way".to_owned())))
    }

    async fn for_each(self, step: &ForEachStep, place: &str, scope: &Scope<'r>) -> Result<Done, Trouble> {
        let items = match scope.one(&step.items).await? {
            Value::Array(items) => items,
            other => {
                let what = format!("`items` yields {}, and an array is wanted", kind_of(&other));
                let failure = Failure::new(FailureKind::Invalid, codes::EXPRESSION_FAILED, what);
                return Err(Trouble::of_input(failure, scope.repeats(&step.items)));
            }
        };
        let mut varies = !scope.repeats(&step.items);
        let count = items.len();
        let mut waiting = items.into_iter().enumerate();
        let mut running = FuturesUnordered::new();
        let mut values: Vec<Option<Value>> = vec![None; count];
        loop {
            while running.len() < step.concurrency
                && let Some((index, item)) = waiting.next()
            {
                let path = format!("{place}[{}].", index + 1);
                let scope = scope.with(Arc::new(item), !scope.repeats(&step.items));
                running.push(async move { (index, self.item(step, path, scope).await) });
            }
            match running.next().await {
                None => break,
                // After an error the others are dropped.
                Some((index, ended)) => {
                    let (value, value_varies) = ended?;
                    varies |= value_varies;
                    values[index] = value;
                }
            }
        }
        let values = values.into_iter().flatten().collect();
        Ok(Done::computed(values, varies).note(format!("{count} items")))
    }

    /// One item: its last value, or nothing where it was filtered; and whether that may be different in another attempt.
    async fn item(
        self,
        step: &ForEachStep,
        path: String,
        mut scope: Scope<'r>,
    ) -> Result<(Option<Value>, bool), Trouble> {
        let flow = self.list(&step.steps, path, &mut scope).await?;
        let varies = scope.varies.value;
        match flow {
            Flow::Goes => Ok((Some(last(scope)), varies)),
            Flow::Filtered => Ok((None, varies)),
        }
    }

    async fn retry(
        self,
        step: &RetryStep,
        place: &str,
        scope: &mut Scope<'r>,
    ) -> Result<(Flow, Option<String>), Trouble> {
        let mut delays = step.delays.iter();
        let mut tries = 0_u32;
        loop {
            tries += 1;
            let mut attempt = scope.clone();
            let trouble = match self.list(&step.steps, format!("{place}[{tries}]."), &mut attempt).await {
                Ok(flow) => {
                    *scope = attempt;
                    return Ok((flow, (tries > 1).then(|| format!("{tries} tries"))));
                }
                Err(trouble) => trouble,
            };
            let again = match &step.when {
                Some(when) => {
                    let document = Arc::new(trouble.document(scope.value()));
                    scope.with(document, !trouble.repeats).holds(when).await?
                }
                None => trouble.end == End::Retry,
            };
            // An answer that asks for a longer pause than there is asks for one that is not taken here.
            let wanted = trouble.failure.retry_after.unwrap_or_default();
            match delays.next() {
                Some(delay) if again && wanted <= *delay => sleep(*delay).await,
                _ => return Err(trouble),
            }
        }
    }

    fn log(self, step: &LogStep, place: &str, scope: &Scope<'r>) -> Result<Done, Trouble> {
        let said = scope.text(&step.message)?;
        let consumer = self.attempt.consumer.as_ref();
        match step.level {
            LogLevel::Debug => debug!(consumer, step = place, said, "said by a pipeline"),
            LogLevel::Info => info!(consumer, step = place, said, "said by a pipeline"),
            LogLevel::Warn => warn!(consumer, step = place, said, "said by a pipeline"),
        }
        Ok(Done::same().note(short(&said)))
    }
}

/// The value that comes out of the last step.
fn last(scope: Scope<'_>) -> Value {
    match scope.input {
        Input::Value(value) => Arc::unwrap_or_clone(value),
        Input::Message(message) => message.document().as_ref().clone(),
    }
}

/// The error that a `fail` step is.
fn failed(step: &FailStep, scope: &Scope<'_>) -> Result<Trouble, Trouble> {
    let reason = scope.text(&step.reason)?;
    let failure = Failure::new(FailureKind::Refused, codes::FAILED_ON_PURPOSE, reason);
    Ok(match step.end {
        End::Retry => failure.into(),
        End::Reject => Trouble::reject(failure),
    })
}

/// Waits no longer than a step may take.
async fn within(limit: Duration, work: impl Future<Output = Result<Done, Trouble>>) -> Result<Done, Trouble> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(Failure::new(FailureKind::Timeout, codes::STEP_TIMEOUT, "wait for the step")
            .detail(format!("it took longer than its `timeout` of {limit:?}"))
            .into()),
    }
}

/// What a value is, for people.
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The most of a text that a note holds.
const NOTE_CHARS_MAX: usize = 200;

/// The beginning of a text, for notes.
pub fn short(text: &str) -> String {
    match text.char_indices().nth(NOTE_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Notes one step when it ends, or when it is dropped before.
struct Note<'n> {
    attempt: &'n Attempt,
    place: &'n str,
    id: Option<&'n str>,
    began: Instant,
    said: bool,
}

impl Note<'_> {
    fn say(&mut self, note: Option<String>, failure: Option<Failure>) {
        self.said = true;
        self.attempt.trace.note(StepTrace {
            path: self.place.to_owned(),
            id: self.id.map(str::to_owned),
            took: self.began.elapsed(),
            note,
            failure,
        });
    }
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        if !self.said {
            let what = "the step was under way when its run was ended";
            self.say(None, Some(Failure::new(FailureKind::Timeout, codes::CANCELLED, what)));
        }
    }
}
