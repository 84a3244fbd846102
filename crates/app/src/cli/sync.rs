//! `warren sync`: runs syncs now.

use std::collections::BTreeSet;
use std::path::PathBuf;

use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::run::{RunKind, RunRecord, RunState};
use warren_engine::sync::run::{self, Ask};
use warren_engine::sync::watch::{Silent, Watch};

use crate::assemble::{Assembly, Parts};
use crate::cli::plan::PlanFile;
use crate::cli::{Context, Stop};
use crate::exit::Exit;
use crate::report::bars::Bars;
use crate::report::events::Events;
use crate::report::{Style, errors, summary, watched};

/// Run syncs now: send what was added, changed or removed since the destination was last told.
///
/// Exit codes: 0 all sent; 1 failed; 2 bad configuration or usage; 3 some rows rejected; 4 stopped by a guard;
/// 5 interrupted, the next run goes on from there.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The syncs to run, one after another.
    #[arg(value_name = "SYNC", required_unless_present = "all")]
    syncs: Vec<String>,
    /// Run all syncs of the configuration.
    #[arg(long, conflicts_with = "syncs")]
    all: bool,
    /// Send every row again, as added; nothing is sent as removed.
    #[arg(long, conflicts_with_all = ["reset_baseline", "plan"])]
    full: bool,
    /// Take note of the rows as they are now, and send nothing.
    #[arg(long, conflicts_with = "plan")]
    reset_baseline: bool,
    /// Let this one run pass its guards.
    #[arg(long)]
    no_guard: bool,
    /// Send exactly what the plan holds (made by `warren plan SYNC --out FILE`), or refuse.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
}

pub async fn run(context: &Context, args: &Args) -> Result<Exit, Stop> {
    let project = context.project()?;
    let names = chosen(&project, &args.syncs, args.all)?;
    let assembly = Assembly::open(&project)?;
    let mut exits = Vec::new();
    for name in &names {
        if context.cancel.is_cancelled() {
            let failure =
                Failure::new(FailureKind::Unavailable, codes::CANCELLED, format!("start sync `{name}`"));
            let failure = failure.detail("the command was stopped before").remedy("run the command again");
            context.error(&failure);
            exits.push(Exit::Interrupted);
            break;
        }
        exits.push(match one(context, args, &assembly, name).await {
            Ok(exit) => exit,
            // One sync that cannot begin never keeps the others from running.
            Err(stop) => super::told(context, stop),
        });
    }
    Ok(Exit::worst(exits))
}

async fn one(context: &Context, args: &Args, assembly: &Assembly<'_>, name: &str) -> Result<Exit, Stop> {
    let parts = assembly.sync(name)?;
    let mut ask = Ask { no_guard: args.no_guard, ..Ask::default() };
    if args.full {
        ask.kind = RunKind::Full;
    } else if args.reset_baseline {
        ask.kind = RunKind::ResetBaseline;
    } else if let Some(path) = &args.plan {
        ask.kind = RunKind::Plan;
        ask.expected = Some(PlanFile::read(path)?.expects(&parts, path)?);
    }
    let record = watched_run(context, &parts, ask).await?;
    tell(context, &parts, &record).await?;
    super::farewell(parts.ports.broker.as_ref()).await;
    Ok(Exit::of_run(record.state))
}

/// Runs a sync under a bar, or telling events, or in silence.
pub async fn watched_run(context: &Context, parts: &Parts, ask: Ask) -> Result<RunRecord, Stop> {
    let name = &parts.plan.name;
    if context.style == Style::Json {
        let events = Events::new(name);
        return Ok(run::run(&parts.plan, &parts.ports, ask, &events, &context.cancel).await?);
    }
    let bars = watched().then(|| Bars::new(name));
    let watch: &dyn Watch = bars.as_ref().map_or(&Silent, |bars| bars as &dyn Watch);
    let result = run::run(&parts.plan, &parts.ports, ask, watch, &context.cancel).await;
    if let Some(bars) = &bars {
        bars.clear();
    }
    Ok(result?)
}

/// Tells what a run did.
pub async fn tell(context: &Context, parts: &Parts, record: &RunRecord) -> Result<(), Failure> {
    let tallies = parts.state.tallies(record.id).await?;
    match context.style {
        Style::Person => crate::report::line(&summary::run_text(record, &tallies)),
        Style::Json => {
            if record.state != RunState::Warning
                && let Some(error) = errors::of_run(record)
            {
                crate::report::line(&error.to_string());
            }
            context.document("ended", summary::run_json(record, &tallies));
        }
    }
    Ok(())
}

/// The syncs named, or all.
pub fn chosen(project: &warren_config::Project, names: &[String], all: bool) -> Result<Vec<String>, Failure> {
    if all {
        return Ok(project.syncs.keys().cloned().collect());
    }
    let mut seen = BTreeSet::new();
    for name in names {
        known(project, name)?;
        seen.insert(name);
    }
    Ok(names.iter().filter(|name| seen.remove(name)).cloned().collect())
}

/// Makes sure that there is a sync of that name.
pub fn known(project: &warren_config::Project, name: &str) -> Result<(), Failure> {
    if project.syncs.contains_key(name) {
        return Ok(());
    }
    let names: Vec<&str> = project.syncs.keys().map(String::as_str).collect();
    let failure = Failure::new(
        FailureKind::NotFound,
        codes::UNKNOWN_NAME,
        format!("the configuration has no sync `{name}`"),
    );
    Err(match warren_engine::near::nearest(name, names.iter().copied()) {
        Some(near) => failure.remedy(format!("did you mean `{near}`?")),
        None if names.is_empty() => failure.remedy("add one under `syncs:`"),
        None => failure.remedy(format!("the syncs are: {}", names.join(", "))),
    })
}
