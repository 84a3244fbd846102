//! `warren pipeline test`: a pipeline over given messages, with nothing outside of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};
use tokio::time::Instant;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::memory::{Script, is_part};
use warren_engine::outcome::{Attempt, Outcome, StepTrace, Trace};
use warren_engine::pipeline::plan::PipelinePlan;
use warren_engine::pipeline::{Pipeline, Run};

use crate::cli::{Context, Stop};
use crate::exit::Exit;
use crate::report::Style;
use warren_config::Project;
use warren_config::cases::{self, Case, Ending};

/// Work with pipelines.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a pipeline over the messages of a file, offline: every call it makes must be expected there, and is answered from there.
    Test {
        /// The file with the cases.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Only the cases whose name contains this.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
}

pub async fn run(context: &Context, args: &Args) -> Result<Exit, Stop> {
    let Command::Test { file, only } = &args.command;
    let project = context.project()?;
    let found = cases::load(file, &project)?;
    // Pauses between tries are for the outside to recover.
    let plan = Arc::new(PipelinePlan::clone(&found.plan).without_pauses());
    let (mut passed, mut failed) = (0, 0);
    for case in &found.cases {
        if only.as_ref().is_some_and(|only| !case.name.contains(only.as_str())) {
            continue;
        }
        let result = test(case, &plan, &project).await?;
        if result.faults.is_empty() {
            passed += 1;
        } else {
            failed += 1;
        }
        result.tell(context);
    }
    let count = passed + failed;
    context
        .say(&format!("{count} {}: {passed} ok, {failed} not ok", if count == 1 { "case" } else { "cases" }));
    if count == 0 && context.style == Style::Json {
        let what = format!("run the cases of {}", file.display());
        let failure = Failure::new(FailureKind::NotFound, codes::UNKNOWN_NAME, what)
            .detail("no case has such a name")
            .remedy("name a part of a case's name with `--only`, or leave it out");
        context.error(&failure);
    }
    // A test that ran nothing has shown nothing.
    Ok(if failed == 0 && passed > 0 { Exit::Done } else { Exit::Failed })
}

/// What came of a case.
struct Tested<'c> {
    case: &'c Case,
    /// What it ended in, and why.
    ended: String,
    /// What was not as expected.
    faults: Vec<String>,
    trace: Vec<StepTrace>,
}

async fn test<'c>(case: &'c Case, plan: &Arc<PipelinePlan>, project: &Project) -> Result<Tested<'c>, Stop> {
    let script = Script::new(case.calls.iter().cloned());
    let brokers: Vec<&str> = project.brokers.keys().map(String::as_str).collect();
    let sources: Vec<&str> = project.sources.keys().map(String::as_str).collect();
    let pipeline = Pipeline::new(plan.clone(), script.outside(&brokers, &sources), case.form)?;
    let attempt = Attempt {
        consumer: "test".into(),
        number: case.attempt,
        again: false,
        received_at_ms: case.received_at_ms,
        deadline: Instant::now() + Duration::from_secs(3600),
        trace: Trace::default(),
    };
    let run = pipeline.run(&case.job, &attempt).await;
    let mut faults = Vec::new();
    for call in script.unexpected() {
        faults.push(format!("it made a call that is not expected: {call}"));
    }
    for call in script.missing() {
        faults.push(format!("it did not make the call: {call}"));
    }
    let (ending, reason) = ending(&run);
    if ending != case.outcome {
        let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        faults.push(format!(
            "the outcome is {}, and {} was expected{reason}",
            word(ending),
            word(case.outcome)
        ));
    } else if let (Some(wanted), Some(reason)) = (&case.reason, &reason)
        && !reason.contains(wanted)
    {
        faults.push(format!("the reason does not contain `{wanted}`: {reason}"));
    }
    if let (Some(wanted), Some(value)) = (&case.value, &run.value)
        && !is_part(wanted, value)
    {
        faults.push(format!("the value is {value}, and {wanted} was expected"));
    }
    let ended = match reason {
        Some(reason) => format!("{}: {reason}", word(ending)),
        None => word(ending).to_owned(),
    };
    Ok(Tested { case, ended, faults, trace: attempt.trace.take() })
}

fn ending(run: &Run) -> (Ending, Option<String>) {
    match &run.outcome {
        Outcome::Ok | Outcome::Drop if run.filtered => (Ending::Filtered, None),
        Outcome::Ok | Outcome::Drop => (Ending::Ok, None),
        Outcome::HandBack => (Ending::Retry, None), // no pipeline ends so
        Outcome::Retry(failure) => (Ending::Retry, Some(format!("{} ({})", failure, failure.code))),
        Outcome::Reject(failure) => (Ending::Reject, Some(format!("{} ({})", failure, failure.code))),
    }
}

fn word(ending: Ending) -> &'static str {
    match ending {
        Ending::Ok => "ok",
        Ending::Filtered => "filtered",
        Ending::Retry => "retry",
        Ending::Reject => "reject",
    }
}

impl Tested<'_> {
    fn tell(&self, context: &Context) {
        let name = &self.case.name;
        if self.faults.is_empty() {
            context.say(&format!("ok      {name}"));
        } else {
            context.say(&format!("not ok  {name}"));
            for fault in &self.faults {
                context.say(&format!("    {fault}"));
            }
            for step in &self.trace {
                let said = match (&step.note, &step.failure) {
                    (_, Some(failure)) => format!(": {failure}"),
                    (Some(note), None) => format!(": {note}"),
                    (None, None) => String::new(),
                };
                context.say(&format!("    step {}{said}", step.path));
            }
        }
        let steps: Vec<Value> = self
            .trace
            .iter()
            .map(|step| {
                json!({
                    "path": step.path, "id": step.id, "note": step.note,
                    "failure": step.failure.as_ref().map(super::failure_json),
                })
            })
            .collect();
        let document = json!({
            "case": name, "ok": self.faults.is_empty(), "ended": self.ended, "faults": self.faults, "steps": steps,
        });
        context.document("case", document);
    }
}
