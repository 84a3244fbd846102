//! Pipelines and messages in a few words.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;
use warren_engine::delivery::{Envelope, Job};
use warren_engine::memory::{Reply, Script};
use warren_engine::message::{Message, Properties};
use warren_engine::outcome::{Attempt, Outcome, StepTrace, Trace};
use warren_engine::pipeline::document::BodyForm;
use warren_engine::pipeline::jq::Expression;
use warren_engine::pipeline::outside::HttpAnswer;
use warren_engine::pipeline::plan::{Body, HttpStep, PipelinePlan, Step, StepKind};
use warren_engine::pipeline::scope::Text;
use warren_engine::pipeline::{Pipeline, Run};
use warren_engine::statuses::Statuses;
use warren_liquid::{Format, Options, Template};

pub const SECONDS: Duration = Duration::from_secs(1);

pub fn jq(text: &str) -> Expression {
    Expression::compile(text).unwrap()
}

pub fn text(text: &str) -> Text {
    if !text.contains('{') {
        return Text::Literal(text.to_owned());
    }
    let options = Options { format: Format::Text, ..Options::default() };
    Text::Template(Box::new(Template::parse(text, &options).unwrap()))
}

pub fn body(text: &str) -> Body {
    Body { expression: jq(text), binary: false }
}

pub fn step(kind: StepKind) -> Step {
    Step { id: None, kind, on_error: None }
}

pub fn named(id: &str, kind: StepKind) -> Step {
    Step { id: Some(id.to_owned()), ..step(kind) }
}

pub fn map(text: &str) -> Step {
    step(StepKind::Map(jq(text)))
}

/// A POST of `.` to a fixed URL.
pub fn post(url: &str) -> HttpStep {
    HttpStep {
        method: "POST".into(),
        url: text(url),
        origin: Some("https://stock.example".into()),
        allow: Vec::new(),
        headers: Vec::new(),
        body: Some(body(".")),
        authorization: None,
        expect: Statuses::success(),
        final_statuses: Statuses::not_worth_a_retry(),
        timeout: 30 * SECONDS,
        answer_bytes_max: 1 << 20,
    }
}

pub fn http(step: HttpStep) -> StepKind {
    StepKind::Http(Box::new(step))
}

pub fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
    Reply::Http(HttpAnswer {
        status,
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    })
}

pub fn job(body: &[u8]) -> Job {
    let message = Message { body: Bytes::copy_from_slice(body), properties: Properties::default() };
    let envelope = Envelope {
        queue: "orders".into(),
        routing_key: "orders".into(),
        delivery_tag: 1,
        ..Envelope::default()
    };
    Job { message, envelope }
}

pub fn attempt() -> Attempt {
    Attempt {
        consumer: "orders".into(),
        number: 1,
        again: false,
        received_at_ms: 1_767_225_600_250,
        deadline: Instant::now() + 300 * SECONDS,
        trace: Trace::default(),
    }
}

/// What came of a run.
pub struct Ended {
    pub run: Run,
    pub trace: Vec<StepTrace>,
    pub script: Arc<Script>,
}

impl Ended {
    /// `ok`, `filtered`, or what it failed with: `retry http-status: …`.
    pub fn said(&self) -> String {
        match &self.run.outcome {
            Outcome::Ok if self.run.filtered => "filtered".into(),
            Outcome::Ok => "ok".into(),
            Outcome::Retry(failure) => format!("retry {}: {failure}", failure.code),
            Outcome::Reject(failure) => format!("reject {}: {failure}", failure.code),
            Outcome::Drop => "drop".into(),
            Outcome::HandBack => "hand back".into(),
        }
    }

    /// The last value.
    pub fn value(&self) -> Value {
        assert_eq!(self.said(), "ok");
        self.run.value.as_deref().unwrap().clone()
    }

    /// The paths of the steps, in the order in which they ended.
    pub fn paths(&self) -> Vec<&str> {
        self.trace.iter().map(|step| step.path.as_str()).collect()
    }
}

/// Runs steps over a message with a JSON body, with the calls that are expected. Checks that all of them were made, and no others.
pub async fn run(steps: Vec<Step>, message: &str, calls: Vec<(Value, Reply)>) -> Ended {
    let ended = run_job(steps, &job(message.as_bytes()), calls).await;
    assert_eq!(ended.script.unexpected(), Vec::<Value>::new(), "{}", ended.said());
    assert_eq!(ended.script.missing(), Vec::<Value>::new(), "{}", ended.said());
    ended
}

pub async fn run_job(steps: Vec<Step>, job: &Job, calls: Vec<(Value, Reply)>) -> Ended {
    let script = Script::new(calls);
    let outside = script.outside(&["rabbit"], &["shop"]);
    let plan = Arc::new(PipelinePlan { steps });
    let pipeline = Pipeline::new(plan, outside, BodyForm::Text).unwrap();
    let attempt = attempt();
    let run = pipeline.run(job, &attempt).await;
    Ended { run, trace: attempt.trace.take(), script }
}
