//! What a run would send: counts, samples and sizes, and nothing sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::change::{Change, Op};
use crate::failure::Failure;
use crate::finding::Finding;
use crate::fingerprint::KeyPrint;
use crate::key::key_text;
use crate::message::Outbound;
use crate::ports::{DiffSummary, MessageLimits};
use crate::row::Row;
use crate::run::RunId;
use crate::sync::bind;
use crate::sync::guard;
use crate::sync::plan::{Initial, SyncPlan};
use crate::sync::render::{Rendered, Renderer};
use crate::sync::run::{Ports, diff, lease, unbound};
use crate::sync::send::cancelled;
use crate::sync::watch::Watch;

/// Messages rendered for a preview; past it, sizes and rejections are of these.
const RENDERED_MAX: u64 = 100_000;

/// What a run would send.
#[derive(Debug)]
pub struct Preview {
    /// What the diff found.
    pub summary: DiffSummary,
    /// Why the run would stop before sending.
    pub guard: Option<Failure>,
    /// Whether the run would only move the baseline (`initial: skip`, first run).
    pub silent: bool,
    /// Messages rendered to find what follows.
    pub rendered: u64,
    /// Of these, messages that would be sent.
    pub messages: u64,
    /// Of these, changes nothing is wanted for.
    pub skipped: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Of these, rejections by code.
    pub rejected: BTreeMap<&'static str, u64>,
    /// What a user should know about the columns that count.
    pub findings: Vec<Finding>,
    /// The first few of each op, and the first few rejections.
    pub samples: Vec<Sample>,
}

/// One change as it would be sent.
#[derive(Debug)]
pub struct Sample {
    /// What happened to the row.
    pub op: Op,
    /// Its key.
    pub key: String,
    /// Its message, as far as it could be made.
    pub outbound: Option<Outbound>,
    /// Why it would be rejected.
    pub failure: Option<Failure>,
}

/// Finds what a run would send. Takes the sync's lease: a diff takes up what a run has on file as if that had died.
///
/// # Errors
/// A run of the sync is under way; or as a run, up to the diff. A broker that cannot be reached is none: its limits are then not checked.
pub async fn preview(
    plan: &Arc<SyncPlan>,
    ports: &Ports,
    full: bool,
    samples: usize,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Preview, Failure> {
    let _lease = lease(plan, ports).await?;
    let (mut changes, bound) = diff(plan, ports, full, watch, cancel).await?;
    let summary = changes.summary().clone();
    let limits = ports.broker.limits().await.unwrap_or(unlimited());
    let mut preview = Preview {
        guard: guard::check(plan, &summary).err(),
        silent: summary.first_run && plan.initial == Initial::Skip && !full,
        summary,
        rendered: 0,
        messages: 0,
        skipped: 0,
        bytes: 0,
        rejected: BTreeMap::new(),
        findings: bound.findings,
        samples: Vec::new(),
    };
    let renderer = Renderer {
        plan: plan.clone(),
        run: RunId(0),
        started_ms: ports.clock.now_ms(),
        compared: bound.compared,
        again: String::new(),
    };
    let mut shown: BTreeMap<(Op, bool), usize> = BTreeMap::new();
    let mut scratch = Vec::new();
    while preview.rendered < RENDERED_MAX {
        let batch = changes.next(1024).await?;
        if batch.is_empty() {
            break;
        }
        for change in &batch {
            preview.rendered += 1;
            let (outbound, failure) =
                match renderer.render(change, renderer.id(change), &limits, &mut scratch) {
                    Rendered::Skip => {
                        preview.skipped += 1;
                        continue;
                    }
                    Rendered::Send(outbound) => {
                        preview.messages += 1;
                        preview.bytes += outbound.message.body.len() as u64;
                        (Some(outbound), None)
                    }
                    Rendered::Reject { failure, outbound } => {
                        *preview.rejected.entry(failure.code.as_str()).or_default() += 1;
                        (outbound, Some(failure))
                    }
                };
            let count = shown.entry((change.op, failure.is_some())).or_default();
            if *count < samples {
                *count += 1;
                let key = key_text(&change.row, &plan.model.key);
                preview.samples.push(Sample { op: change.op, key, outbound, failure });
            }
        }
    }
    Ok(preview)
}

/// The message of one row.
#[derive(Debug)]
pub struct RowRender {
    /// The message, as far as it could be made; `None` where nothing is wanted for the row.
    pub outbound: Option<Outbound>,
    /// Why it would be rejected.
    pub failure: Option<Failure>,
}

/// Reads the model until it finds the row of a key, and makes its message as if the row had just been added, changed
/// (with itself as the previous row) or removed. `None`: no row has that key.
///
/// # Errors
/// The source failed, or the plan does not fit the model's columns.
pub async fn render_row(
    plan: &Arc<SyncPlan>,
    ports: &Ports,
    key: &str,
    op: Op,
    cancel: &CancellationToken,
) -> Result<Option<RowRender>, Failure> {
    let mut rows = ports.source.rows(&plan.model).await?;
    let schema = rows.schema().clone();
    let bound = bind::bind(plan, &schema).map_err(|findings| unbound(&findings))?;
    while let Some(batch) = rows.next().await? {
        if cancel.is_cancelled() {
            return Err(cancelled());
        }
        for row in batch.rows() {
            let row = Row { schema: schema.clone(), bytes: Bytes::copy_from_slice(row.as_bytes()) };
            if key_text(&row, &plan.model.key) != key {
                continue;
            }
            let previous = (op != Op::Added).then(|| row.clone());
            let change =
                Change { op, key: KeyPrint(0), before: None, after: None, version: 0, row, previous };
            let renderer = Renderer {
                plan: plan.clone(),
                run: RunId(0),
                started_ms: ports.clock.now_ms(),
                compared: bound.compared,
                again: String::new(),
            };
            let limits = unlimited();
            let rendered = renderer.render(&change, renderer.id(&change), &limits, &mut Vec::new());
            return Ok(Some(match rendered {
                Rendered::Send(outbound) => RowRender { outbound: Some(outbound), failure: None },
                Rendered::Skip => RowRender { outbound: None, failure: None },
                Rendered::Reject { failure, outbound } => RowRender { outbound, failure: Some(failure) },
            }));
        }
    }
    Ok(None)
}

/// The limits of a broker that was not asked.
fn unlimited() -> MessageLimits {
    MessageLimits { body_bytes_max: u64::MAX, header_bytes_max: None, short_bytes_max: None }
}
