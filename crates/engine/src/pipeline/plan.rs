//! A pipeline as checked and compiled.

use std::time::Duration;

use super::jq::Expression;
use super::outside::{Hidden, HiddenSource};
use super::schema::Schema;
use super::scope::Text;
use super::trouble::End;
use crate::message::Route;
use crate::statuses::Statuses;

/// The steps of a pipeline.
#[derive(Debug, Clone, Default)]
pub struct PipelinePlan {
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone)]
pub struct Step {
    /// By which its result is reached as `$steps.<id>`.
    pub id: Option<String>,
    /// What it does.
    pub kind: StepKind,
    /// What is done when it fails; the error is the input.
    pub on_error: Option<Vec<Step>>,
}

/// What a step does.
#[derive(Debug, Clone)]
pub enum StepKind {
    /// Makes another value.
    Map(Expression),
    /// Ends the run unless it holds.
    Filter(Expression),
    /// Rejects the message unless it is valid.
    Validate(Schema),
    /// Calls an HTTP server.
    Http(Box<HttpStep>),
    /// Publishes a message.
    Publish(Box<PublishStep>),
    /// Executes a statement.
    Sql(SqlStep),
    /// Runs a command.
    Exec(ExecStep),
    /// Goes one of several ways.
    Choose(Vec<Branch>),
    /// Does the same with each of several values.
    ForEach(ForEachStep),
    /// Tries again when it fails.
    Retry(RetryStep),
    /// What is done when one of the steps before it in its list fails.
    OnError(Vec<Step>),
    /// Answers the message.
    Reply(ReplyStep),
    /// Says something in the log.
    Log(LogStep),
    /// Fails.
    Fail(FailStep),
}

/// `http`
#[derive(Debug, Clone)]
pub struct HttpStep {
    /// Such as `POST`.
    pub method: String,
    /// The URL.
    pub url: Text,
    /// Scheme, host and port, where they stand in the configuration and so are the user's own choice. Otherwise the
    /// address is guarded.
    pub origin: Option<String>,
    /// Hosts and networks that a guarded URL may lead to besides public addresses.
    pub allow: Vec<String>,
    /// Names and values.
    pub headers: Vec<(String, Text)>,
    /// What is sent; nothing where there is none.
    pub body: Option<Body>,
    /// The value of `Authorization`.
    pub authorization: Option<HiddenSource>,
    /// The statuses that are not errors.
    pub expect: Statuses,
    /// The statuses that reject the message. An answer with any other status that is not expected is retried.
    pub final_statuses: Statuses,
    /// The longest the call may take, its answer included.
    pub timeout: Duration,
    /// The largest answer.
    pub answer_bytes_max: usize,
}

/// What is sent: the result of an expression, a text as it is and anything else as JSON.
#[derive(Debug, Clone)]
pub struct Body {
    /// The expression.
    pub expression: Expression,
    /// Whether the result is base64 that stands for bytes.
    pub binary: bool,
}

/// `publish`
#[derive(Debug, Clone)]
pub struct PublishStep {
    /// The broker's name.
    pub to: String,
    /// Where it goes.
    pub route: PublishRoute,
    /// What it says.
    pub body: Body,
    /// What travels with it.
    pub properties: Pairs,
    /// Its headers.
    pub headers: Pairs,
    /// The longest it may take until the broker has confirmed it.
    pub timeout: Duration,
}

/// Where a message goes.
#[derive(Debug, Clone)]
pub enum PublishRoute {
    /// To a queue.
    Queue(Text),
    /// To an exchange.
    Exchange {
        /// The exchange.
        exchange: Text,
        /// The routing key.
        routing_key: Text,
    },
}

/// Names with values.
#[derive(Debug, Clone)]
pub enum Pairs {
    /// Each written by itself.
    Named(Vec<(String, Given)>),
    /// The result of an expression, which must be an object.
    Computed(Expression),
}

/// A value that is written.
#[derive(Debug, Clone)]
pub enum Given {
    /// A text.
    Text(Text),
    /// A number or a truth value.
    Value(serde_json::Value),
}

/// `sql`
#[derive(Debug, Clone)]
pub struct SqlStep {
    /// The source's name.
    pub source: String,
    /// The statement, as it is sent.
    pub statement: String,
    /// Its parameters.
    pub params: Params,
    /// Values for each of which it is executed, with the value as `.` of the parameters.
    pub each: Option<Expression>,
    /// The longest it may take.
    pub timeout: Duration,
    /// The most rows that are read.
    pub rows_max: usize,
}

/// The parameters of a statement.
#[derive(Debug, Clone)]
pub enum Params {
    /// One expression each.
    Listed(Vec<Expression>),
    /// One expression that yields an array.
    Computed(Expression),
}

/// `exec`
#[derive(Debug, Clone)]
pub struct ExecStep {
    /// The program.
    pub command: String,
    /// Its arguments.
    pub args: Vec<Text>,
    /// Variables of its environment.
    pub environment: Vec<(String, Hidden)>,
    /// What it reads, as JSON.
    pub stdin: Expression,
    /// The longest it may take.
    pub timeout: Duration,
    /// The most bytes it may write.
    pub output_bytes_max: usize,
}

/// One way of a `choose`.
#[derive(Debug, Clone)]
pub struct Branch {
    /// When it is gone; always where there is none.
    pub when: Option<Expression>,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// `for_each`
#[derive(Debug, Clone)]
pub struct ForEachStep {
    /// The values.
    pub items: Expression,
    /// How many at once.
    pub concurrency: usize,
    /// The steps for each.
    pub steps: Vec<Step>,
}

/// `retry`
#[derive(Debug, Clone)]
pub struct RetryStep {
    /// The pauses between tries; one try more than there are pauses.
    pub delays: Vec<Duration>,
    /// Whether an error is tried again; the error is the input. Without it, every error that would be tried again.
    pub when: Option<Expression>,
    /// What is tried.
    pub steps: Vec<Step>,
}

/// `reply`
#[derive(Debug, Clone)]
pub struct ReplyStep {
    /// What the answer says.
    pub body: Body,
    /// The longest it may take until the broker has confirmed it.
    pub timeout: Duration,
}

/// `log`
#[derive(Debug, Clone)]
pub struct LogStep {
    /// What is said.
    pub message: Text,
    /// How loud.
    pub level: LogLevel,
}

/// How loud a `log` step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// For those who look for something.
    Debug,
    /// For the record.
    Info,
    /// Somebody should look.
    Warn,
}

/// `fail`
#[derive(Debug, Clone)]
pub struct FailStep {
    /// Why.
    pub reason: Text,
    /// What becomes of the message.
    pub end: End,
}

impl StepKind {
    /// The name, as it is written.
    pub fn name(&self) -> &'static str {
        match self {
            StepKind::Map(_) => "map",
            StepKind::Filter(_) => "filter",
            StepKind::Validate(_) => "validate",
            StepKind::Http(_) => "http",
            StepKind::Publish(_) => "publish",
            StepKind::Sql(_) => "sql",
            StepKind::Exec(_) => "exec",
            StepKind::Choose(_) => "choose",
            StepKind::ForEach(_) => "for_each",
            StepKind::Retry(_) => "retry",
            StepKind::OnError(_) => "on_error",
            StepKind::Reply(_) => "reply",
            StepKind::Log(_) => "log",
            StepKind::Fail(_) => "fail",
        }
    }
}

impl PipelinePlan {
    /// The longest the steps may take together, by their own timeouts: the longest way through a `choose`, every try of a
    /// `retry` with its pauses, and one round of a `for_each`, since nobody knows how many there will be.
    pub fn timeout_sum(&self) -> Duration {
        sum(&self.steps)
    }

    /// The same without the pauses between tries, for tests.
    #[must_use]
    pub fn without_pauses(mut self) -> PipelinePlan {
        hurry(&mut self.steps);
        self
    }

    /// Calls `look` with every step, also those inside of others.
    pub fn each_step<'p>(&'p self, look: &mut dyn FnMut(&'p Step)) {
        each(&self.steps, look);
    }

    /// The names of the brokers that are published to.
    pub fn brokers(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.each_step(&mut |step| {
            if let StepKind::Publish(publish) = &step.kind {
                names.push(publish.to.as_str());
            }
        });
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Where it publishes, as far as that is the same for every message, with the broker's name.
    pub fn routes(&self) -> Vec<(&str, Route)> {
        let mut routes = Vec::new();
        self.each_step(&mut |step| {
            let StepKind::Publish(publish) = &step.kind else { return };
            let route = match &publish.route {
                PublishRoute::Queue(Text::Literal(queue)) => Route::Queue(queue.clone()),
                PublishRoute::Exchange { exchange: Text::Literal(exchange), routing_key } => {
                    let routing_key = match routing_key {
                        Text::Literal(key) => key.clone(),
                        Text::Template(_) => String::new(),
                    };
                    Route::Exchange { exchange: exchange.clone(), routing_key }
                }
                PublishRoute::Queue(Text::Template(_))
                | PublishRoute::Exchange { exchange: Text::Template(_), .. } => return,
            };
            routes.push((publish.to.as_str(), route));
        });
        routes
    }

    /// The `user_id` of what it publishes, where a step sets one by name, with the broker's name; `None`: it depends on the message.
    pub fn user_ids(&self) -> Vec<(&str, Option<String>)> {
        let mut found = Vec::new();
        self.each_step(&mut |step| {
            let StepKind::Publish(publish) = &step.kind else { return };
            let Pairs::Named(named) = &publish.properties else { return };
            for (_, given) in named.iter().filter(|(name, _)| name == "user_id" || name == "userId") {
                let literal = match given {
                    Given::Text(Text::Literal(text)) => Some(text.clone()),
                    Given::Value(serde_json::Value::String(text)) => Some(text.clone()),
                    Given::Text(Text::Template(_)) | Given::Value(_) => None,
                };
                found.push((publish.to.as_str(), literal));
            }
        });
        found
    }

    /// The names of the sources that statements are executed on.
    pub fn sources(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.each_step(&mut |step| {
            if let StepKind::Sql(sql) = &step.kind {
                names.push(sql.source.as_str());
            }
        });
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether it answers messages, for which it needs the broker they came from.
    pub fn replies(&self) -> bool {
        let mut found = false;
        self.each_step(&mut |step| found |= matches!(step.kind, StepKind::Reply(_)));
        found
    }
}

fn hurry(steps: &mut [Step]) {
    for step in steps {
        match &mut step.kind {
            StepKind::Retry(retry) => {
                retry.delays.fill(Duration::ZERO);
                hurry(&mut retry.steps);
            }
            StepKind::Choose(branches) => branches.iter_mut().for_each(|branch| hurry(&mut branch.steps)),
            StepKind::ForEach(ForEachStep { steps, .. }) | StepKind::OnError(steps) => hurry(steps),
            StepKind::Map(_)
            | StepKind::Filter(_)
            | StepKind::Validate(_)
            | StepKind::Http(_)
            | StepKind::Publish(_)
            | StepKind::Sql(_)
            | StepKind::Exec(_)
            | StepKind::Reply(_)
            | StepKind::Log(_)
            | StepKind::Fail(_) => {}
        }
        if let Some(steps) = &mut step.on_error {
            hurry(steps);
        }
    }
}

fn sum(steps: &[Step]) -> Duration {
    steps.iter().map(longest).fold(Duration::ZERO, Duration::saturating_add)
}

fn longest(step: &Step) -> Duration {
    let own = match &step.kind {
        StepKind::Http(http) => http.timeout,
        StepKind::Publish(publish) => publish.timeout,
        StepKind::Sql(sql) => sql.timeout,
        StepKind::Exec(exec) => exec.timeout,
        StepKind::Reply(reply) => reply.timeout,
        StepKind::Choose(branches) => {
            branches.iter().map(|branch| sum(&branch.steps)).max().unwrap_or_default()
        }
        StepKind::ForEach(for_each) => sum(&for_each.steps),
        StepKind::Retry(retry) => {
            let pauses = retry.delays.iter().copied().fold(Duration::ZERO, Duration::saturating_add);
            let tries = u32::try_from(retry.delays.len() + 1).unwrap_or(u32::MAX);
            sum(&retry.steps).saturating_mul(tries).saturating_add(pauses)
        }
        StepKind::OnError(steps) => sum(steps),
        StepKind::Map(_)
        | StepKind::Filter(_)
        | StepKind::Validate(_)
        | StepKind::Log(_)
        | StepKind::Fail(_) => Duration::ZERO,
    };
    own.saturating_add(step.on_error.as_deref().map(sum).unwrap_or_default())
}

fn each<'p>(steps: &'p [Step], look: &mut dyn FnMut(&'p Step)) {
    for step in steps {
        look(step);
        match &step.kind {
            StepKind::Choose(branches) => branches.iter().for_each(|branch| each(&branch.steps, look)),
            StepKind::ForEach(ForEachStep { steps, .. })
            | StepKind::Retry(RetryStep { steps, .. })
            | StepKind::OnError(steps) => each(steps, look),
            StepKind::Map(_)
            | StepKind::Filter(_)
            | StepKind::Validate(_)
            | StepKind::Http(_)
            | StepKind::Publish(_)
            | StepKind::Sql(_)
            | StepKind::Exec(_)
            | StepKind::Reply(_)
            | StepKind::Log(_)
            | StepKind::Fail(_) => {}
        }
        if let Some(steps) = &step.on_error {
            each(steps, look);
        }
    }
}
