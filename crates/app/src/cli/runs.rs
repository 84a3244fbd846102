//! `warren runs`: what was done.

use comfy_table::{ContentArrangement, Table, presets};
use warren_engine::codes;
use warren_engine::consume::record::MessageRunId;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::run::{RunId, RunState};
use warren_store::state::{RunFilter, State};

use crate::assemble;
use crate::cli::{Context, Stop, messages};
use crate::exit::Exit;
use crate::report::figures::{count, span, time};
use crate::report::{Style, line, summary};

/// List the runs on record, newest first; or show one. With `--trigger`, the attempts at messages of a trigger.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One run, with what was rejected and why; or one attempt at a message (`m17`), with its steps.
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// The attempts at messages of this trigger, instead of runs of syncs.
    #[arg(long, value_name = "TRIGGER", conflicts_with = "sync")]
    trigger: Option<String>,
    /// Only runs of this sync.
    #[arg(long, value_name = "SYNC")]
    sync: Option<String>,
    /// Only runs in this state, such as `failed`; with `--trigger`, attempts that ended so, such as `dead_lettered`.
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// How many to list.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

pub async fn run(context: &Context, args: &Args) -> Result<Exit, Stop> {
    let project = context.project()?;
    if let Some(Ok(id)) = args.run.as_deref().map(str::parse::<MessageRunId>) {
        return messages::one(context, &project, id).await;
    }
    if let Some(trigger) = &args.trigger {
        return messages::list(context, &project, trigger, args.state.as_deref(), args.limit).await;
    }
    let state = assemble::state(&project)?;
    if let Some(id) = &args.run {
        let id = id.parse().map_err(|_| {
            Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, format!("`{id}` is no run"))
                .remedy("a run is a number, an attempt at a message `m` and a number")
        })?;
        return one(context, state.as_ref(), RunId(id)).await;
    }
    let filter = RunFilter {
        sync: args.sync.clone(),
        states: args.state.as_deref().map(parse_state).transpose()?.into_iter().collect(),
        since: None,
        limit: Some(args.limit),
    };
    let runs = state.runs(&filter).await?;
    if context.style == Style::Json {
        for run in &runs {
            context.document("run", summary::run_json(run, &state.tallies(run.id).await?));
        }
        return Ok(Exit::Done);
    }
    if runs.is_empty() {
        line("no runs on record");
        return Ok(Exit::Done);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["run", "sync", "state", "started", "took", "rows", "sent", "rejected"]);
    for run in &runs {
        table.add_row([
            run.id.to_string(),
            run.sync.clone(),
            run.state.to_string(),
            time(run.started_at),
            run.ended_at.map(|_| span(run.times.total_ms)).unwrap_or_default(),
            count(run.counts.rows),
            count(run.counts.sent.total()),
            count(run.counts.rejected_rows()),
        ]);
    }
    line(&table.to_string());
    Ok(Exit::Done)
}

async fn one(context: &Context, state: &dyn State, id: RunId) -> Result<Exit, Stop> {
    let Some(run) = state.run(id).await? else {
        return Err(no_such_run(id).into());
    };
    let tallies = state.tallies(id).await?;
    context.say(&format!("run {id}, started {}", time(run.started_at)));
    context.say(&summary::run_text(&run, &tallies));
    context.document("run", summary::run_json(&run, &tallies));
    Ok(Exit::Done)
}

/// There is no run of that number.
pub fn no_such_run(id: RunId) -> Failure {
    Failure::new(FailureKind::NotFound, codes::UNKNOWN_NAME, format!("there is no run {id} on record"))
        .remedy("`warren runs` lists those that are")
}

fn parse_state(text: &str) -> Result<RunState, Failure> {
    text.parse().map_err(|()| {
        Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, format!("`{text}` is no state of a run")).remedy(
            "the states are queued, querying, planning, sending, success, warning, failed, interrupted, cancelled, guarded",
        )
    })
}
