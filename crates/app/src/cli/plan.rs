//! `warren plan`: what a run would send, and nothing sent.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::finding::Finding;
use warren_engine::redact::scrub;
use warren_engine::run::RunCounts;
use warren_engine::size::ByteSize;
use warren_engine::sync::preview::{self, Preview, Sample};
use warren_engine::sync::watch::{Silent, Watch};

use crate::assemble::{self, Assembly, Orphan, Parts};
use crate::cli::check::finding_json;
use crate::cli::{Context, Stop, failure_json, failure_text};
use crate::exit::Exit;
use crate::report::bars::Bars;
use crate::report::figures::{count, counted, cut, time, time_rfc3339};
use crate::report::{Style, line, note, summary, watched};

/// Show what a run would send: counts, samples and sizes. Nothing is sent and nothing changes.
///
/// Exit codes: 0 a run would go through; 1 failed; 2 bad configuration or usage; 3 some rows would be rejected; 4 a
/// guard would stop the run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The sync.
    #[arg(value_name = "SYNC")]
    sync: String,
    /// Write the plan to a file, for `warren sync SYNC --plan FILE`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// As `warren sync --full` would send it.
    #[arg(long, conflicts_with = "out")]
    full: bool,
    /// How many messages of each kind to show.
    #[arg(long, value_name = "N", default_value_t = 2)]
    samples: usize,
}

pub async fn run(context: &Context, args: &Args) -> Result<Exit, Stop> {
    let project = context.project()?;
    super::sync::known(&project, &args.sync)?;
    let assembly = Assembly::open(&project)?;
    let parts = assembly.sync(&args.sync)?;
    let bars = (context.style == Style::Person && watched()).then(|| Bars::new(&args.sync));
    let watch: &dyn Watch = bars.as_ref().map_or(&Silent, |bars| bars as &dyn Watch);
    let result =
        preview::preview(&parts.plan, &parts.ports, args.full, args.samples, watch, &context.cancel).await;
    if let Some(bars) = &bars {
        bars.clear();
    }
    let preview = result?;
    super::farewell(parts.ports.broker.as_ref()).await;
    let orphans = if preview.summary.first_run { assemble::orphans(&project).await? } else { Vec::new() };
    let orphans = orphans.iter().filter(|orphan| orphan.sync == args.sync);
    let findings: Vec<Finding> =
        preview.findings.iter().cloned().chain(orphans.map(Orphan::finding)).collect();
    match context.style {
        Style::Person => {
            tell(&args.sync, &preview);
            if !findings.is_empty() {
                note(project.show(&findings).render(context.colours).trim_end());
            }
        }
        Style::Json => {
            context.finding_lines(&project, &findings);
            if let Some(failure) = &preview.guard {
                context.error(failure);
            }
            let mut document = document(&args.sync, &preview);
            document["findings"] = findings.iter().map(|finding| finding_json(&project, finding)).collect();
            context.document("plan", document);
        }
    }
    if let Some(path) = &args.out {
        PlanFile::of(&parts, &preview).write(path)?;
        if context.style == Style::Person {
            note(&format!(
                "plan written; send exactly it with: warren sync {} --plan {}",
                args.sync,
                path.display()
            ));
        }
    }
    Ok(match (&preview.guard, preview.rejected.is_empty() && preview.summary.faults.is_empty()) {
        (Some(_), _) => Exit::Guarded,
        (None, true) => Exit::Done,
        (None, false) => Exit::Rejected,
    })
}

fn tell(sync: &str, preview: &Preview) {
    let counts = &preview.summary.counts;
    let changes = summary::changes(counts.planned);
    line(&format!("{sync}: {} read, {changes}", counted(counts.rows, "row")));
    if preview.summary.first_run && !preview.silent {
        line("  first run: there is no baseline yet, so every row is sent as added");
    }
    if preview.silent {
        line("  the first run takes note of all rows and sends nothing (`initial: skip`)");
    } else if preview.messages > 0 {
        let all = preview.rendered >= counts.planned.total();
        let about =
            if all { String::new() } else { format!(" (of the first {} changes)", count(preview.rendered)) };
        line(&format!(
            "  would send {}, {}{about}",
            counted(preview.messages, "message"),
            ByteSize(preview.bytes)
        ));
    }
    if preview.skipped > 0 {
        line(&format!("  nothing to send for {}", counted(preview.skipped, "change")));
    }
    for (code, rows) in &preview.rejected {
        line(&format!("  would reject {}: {code}", counted(*rows, "row")));
    }
    for (rows, code) in [(counts.null_keys, codes::NULL_KEY), (counts.duplicate_keys, codes::DUPLICATE_KEY)] {
        if rows > 0 {
            let sample = preview.summary.faults.iter().find(|fault| fault.code == code);
            let sample =
                sample.map(|fault| format!(", such as key {}", cut(&fault.key, 60))).unwrap_or_default();
            line(&format!("  would reject {}: {code}{sample}", counted(rows, "row")));
        }
    }
    for sample in &preview.samples {
        tell_sample(sample);
    }
    if let Some(failure) = &preview.guard {
        note(&failure_text(failure));
    }
}

fn tell_sample(sample: &Sample) {
    let to = sample
        .outbound
        .as_ref()
        .map(|outbound| format!(" to {}", scrub(outbound.route.to_string())))
        .unwrap_or_default();
    line(&format!("\n{} key {}{to}", sample.op, cut(&sample.key, 60)));
    if let Some(failure) = &sample.failure {
        line(&format!("  rejected: {failure} [{}]", failure.code));
    }
    if let Some(outbound) = &sample.outbound {
        let body = scrub(String::from_utf8_lossy(&outbound.message.body));
        for text in body.lines().take(30) {
            line(&format!("  {}", cut(text, 200)));
        }
    }
}

fn document(sync: &str, preview: &Preview) -> Value {
    let samples: Vec<Value> = preview.samples.iter().map(sample_json).collect();
    let faults: Vec<Value> = preview
        .summary
        .faults
        .iter()
        .map(|fault| json!({ "code": fault.code.as_str(), "key": fault.key }))
        .collect();
    json!({
        "sync": sync, "counts": preview.summary.counts, "first_run": preview.summary.first_run,
        "silent": preview.silent, "rendered": preview.rendered, "messages": preview.messages,
        "skipped": preview.skipped, "bytes": preview.bytes, "rejected": preview.rejected, "faults": faults,
        "guard": preview.guard.as_ref().map(failure_json), "samples": samples,
    })
}

fn sample_json(sample: &Sample) -> Value {
    json!({
        "op": sample.op, "key": sample.key, "message": sample.outbound.as_ref().map(summary::outbound_json),
        "failure": sample.failure.as_ref().map(failure_json),
    })
}

/// A plan on file: enough to tell whether a run would send exactly what was shown.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// The version of this format.
    warren_plan: u32,
    sync: String,
    made_at: String,
    /// Of the changes: which rows, from what, to what.
    changes: String,
    /// Of the sync's and model's configuration: what is made of them.
    configuration: String,
    counts: RunCounts,
    samples: Vec<Value>,
}

const VERSION: u32 = 1;

impl PlanFile {
    fn of(parts: &Parts, preview: &Preview) -> PlanFile {
        PlanFile {
            warren_plan: VERSION,
            sync: parts.plan.name.clone(),
            made_at: time_rfc3339(parts.ports.clock.now_ms()),
            changes: format!("{:032x}", preview.summary.digest),
            configuration: format!("{:032x}", parts.digest),
            counts: preview.summary.counts.clone(),
            samples: preview.samples.iter().map(sample_json).collect(),
        }
    }

    fn write(&self, path: &Path) -> Result<(), Failure> {
        let text =
            serde_json::to_string_pretty(self).map_err(|error| Failure::internal(error.to_string()))?;
        std::fs::write(path, text + "\n").map_err(|error| {
            Failure::new(
                FailureKind::Invalid,
                codes::INVALID_VALUE,
                format!("write the plan to {}", path.display()),
            )
            .detail(error.to_string())
        })
    }

    /// Reads a plan.
    ///
    /// # Errors
    /// The file cannot be read, or is no plan of this version.
    pub fn read(path: &Path) -> Result<PlanFile, Failure> {
        let invalid = |detail: String| {
            Failure::new(
                FailureKind::Invalid,
                codes::INVALID_VALUE,
                format!("read the plan {}", path.display()),
            )
            .detail(detail)
            .remedy("make one with `warren plan SYNC --out FILE`")
        };
        let text = std::fs::read_to_string(path).map_err(|error| invalid(error.to_string()))?;
        let plan: PlanFile = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        if plan.warren_plan != VERSION {
            return Err(invalid(format!(
                "it has version {}, and this is version {VERSION}",
                plan.warren_plan
            )));
        }
        Ok(plan)
    }

    /// The changes that a run has to find, if sync and configuration are still those of the plan.
    ///
    /// # Errors
    /// They are not.
    pub fn expects(&self, parts: &Parts, path: &Path) -> Result<u128, Failure> {
        let name = &parts.plan.name;
        let outdated = |what: String| {
            Failure::new(FailureKind::Invalid, codes::PLAN_OUTDATED, what)
                .at(path.display().to_string())
                .remedy(format!("make a new one with `warren plan {name} --out {}`", path.display()))
        };
        if self.sync != *name {
            return Err(outdated(format!("the plan is one of sync `{}`, not of `{name}`", self.sync)));
        }
        if self.configuration != format!("{:032x}", parts.digest) {
            let made = self.made_at.parse().map(|at: jiff::Timestamp| time(at.as_millisecond()));
            let made = made.unwrap_or_else(|_| self.made_at.clone());
            return Err(outdated(format!("the configuration of sync `{name}` has changed since {made}")));
        }
        u128::from_str_radix(&self.changes, 16).map_err(|_| outdated("the plan is damaged".into()))
    }
}
