//! Pipelines: a message goes through steps, and ends in an outcome.
//!
//! A [`PipelinePlan`] is what the configuration says, compiled. A [`Pipeline`] is a plan with the [`Outside`] it needs, and
//! a [`Handler`]: it makes the [`document`](mod@document) of a message and takes it through the steps ([`run`](mod@run)). It
//! neither settles nor retries out of place. Whoever drops a run ends all that it started: a call, a statement, a command
//! with all of its children.

pub mod document;
mod exec;
pub(crate) mod http;
pub mod jq;
pub mod outside;
pub mod plan;
pub mod publish;
mod run;
pub mod schema;
pub mod scope;
mod sql;
mod trouble;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::codes;
use crate::delivery::Job;
use crate::failure::{Failure, FailureKind};
use crate::outcome::{Attempt, Outcome};
use crate::ports::{Broker, CommandRunner, Handler, HttpCaller, SqlExecutor};
use document::BodyForm;
use plan::PipelinePlan;
use run::{Flow, Runner};
use scope::{Message, Scope};

pub use trouble::{End, Trouble};

/// What the steps of a pipeline work with.
#[derive(Clone)]
pub struct Outside {
    /// For `http`.
    pub http: Arc<dyn HttpCaller>,
    /// For `exec`.
    pub commands: Arc<dyn CommandRunner>,
    /// For `publish`, by name: those of [`PipelinePlan::brokers`].
    pub brokers: BTreeMap<String, Arc<dyn Broker>>,
    /// For `sql`, by name: those of [`PipelinePlan::sources`].
    pub databases: BTreeMap<String, Arc<dyn SqlExecutor>>,
    /// For `reply`: the broker the messages come from.
    pub origin: Option<Arc<dyn Broker>>,
}

/// A pipeline that can be run.
#[derive(Clone)]
pub struct Pipeline {
    plan: Arc<PipelinePlan>,
    outside: Outside,
    form: BodyForm,
}

/// How a run ended, with what only a test wants to know.
#[derive(Debug)]
pub struct Run {
    /// The outcome.
    pub outcome: Outcome,
    /// Whether a `filter` ended it.
    pub filtered: bool,
    /// The last value, where it came to its end.
    pub value: Option<Arc<Value>>,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Pipeline {
    /// A pipeline.
    ///
    /// # Errors
    /// The plan names a broker or a source that `outside` does not have.
    pub fn new(plan: Arc<PipelinePlan>, outside: Outside, form: BodyForm) -> Result<Pipeline, Failure> {
        let missing = |what: &str, name: &str| {
            let what = format!("a step of the pipeline names the {what} `{name}`, which is not there");
            Failure::new(FailureKind::NotFound, codes::UNKNOWN_NAME, what)
        };
        if let Some(name) = plan.brokers().into_iter().find(|name| !outside.brokers.contains_key(*name)) {
            return Err(missing("broker", name));
        }
        if let Some(name) = plan.sources().into_iter().find(|name| !outside.databases.contains_key(*name)) {
            return Err(missing("source", name));
        }
        Ok(Pipeline { plan, outside, form })
    }

    /// The longest its steps may take together; see [`PipelinePlan::timeout_sum`].
    pub fn timeout_sum(&self) -> Duration {
        self.plan.timeout_sum()
    }

    /// Takes a message through the steps.
    pub async fn run(&self, job: &Job, attempt: &Attempt) -> Run {
        self.ran(job, attempt, |scope| Some(scope.value().clone())).await
    }

    /// As [`Pipeline::run`]; the last value only if it is asked for, since it may have to be made.
    async fn ran(
        &self,
        job: &Job,
        attempt: &Attempt,
        value: impl Fn(&Scope<'_>) -> Option<Arc<Value>>,
    ) -> Run {
        let ended = |outcome| Run { outcome, filtered: false, value: None };
        if self.plan.steps.is_empty() && std::str::from_utf8(&job.message.body).is_ok() {
            return ended(Outcome::Ok);
        }
        let mut scope = match Message::new(job, attempt, self.form) {
            Ok(message) => Scope::new(message),
            Err(failure) => return ended(Outcome::Reject(failure)),
        };
        let runner = Runner { outside: &self.outside, job, attempt };
        match runner.list(&self.plan.steps, String::new(), &mut scope).await {
            Ok(Flow::Goes) => Run { outcome: Outcome::Ok, filtered: false, value: value(&scope) },
            Ok(Flow::Filtered) => Run { outcome: Outcome::Ok, filtered: true, value: None },
            Err(trouble) => ended(trouble.outcome()),
        }
    }
}

#[async_trait]
impl Handler for Pipeline {
    async fn handle(&self, job: &Job, attempt: &Attempt) -> Outcome {
        self.ran(job, attempt, |_| None).await.outcome
    }
}

/// A URL without what may be secret: user, password and query.
pub fn shown_url(url: &str) -> String {
    http::shown(url)
}
