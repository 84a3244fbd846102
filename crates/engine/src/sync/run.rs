//! The walk of one run: query, diff, guard, send, finish.
//!
//! `rows` and `diff` end before the first message is sent, because the guards need the counts, and because a query that
//! breaks half-way must never look like removals. A run that ends early keeps what it did: what was accepted counts.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::change::Op;
use crate::codes;
use crate::failure::{Failure, FailureKind};
use crate::finding::Finding;
use crate::model::Schema;
use crate::ports::{
    Baseline, Broker, ChangeSet, Clock, DiffSummary, Lease, Leases, Records, RowStream, Source,
};
use crate::row::Batch;
use crate::run::{
    Attempt, RowOutcome, RowStatus, RunCounts, RunError, RunId, RunKind, RunRecord, RunState, RunTimes,
};
use crate::sync::bind::{self, Bound};
use crate::sync::guard;
use crate::sync::plan::{Initial, SyncPlan};
use crate::sync::render::Renderer;
use crate::sync::send::{Sender, cancelled, take_note};
use crate::sync::watch::{Event, Watch};

/// The world, as a run needs it.
#[derive(Clone)]
pub struct Ports {
    /// Yields the rows.
    pub source: Arc<dyn Source>,
    /// Takes the messages.
    pub broker: Arc<dyn Broker>,
    /// Knows what the destination was told.
    pub baseline: Arc<dyn Baseline>,
    /// Keeps what was done.
    pub records: Arc<dyn Records>,
    /// Keep other runs of the sync away.
    pub leases: Arc<dyn Leases>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// What is asked of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What to do.
    pub kind: RunKind,
    /// Whether guards are left aside for this run.
    pub no_guard: bool,
    /// The digest of the plan that has to be sent exactly; see [`DiffSummary::digest`].
    pub expected: Option<u128>,
    /// Keys (see [`key_text`](crate::key::key_text)) outside of which nothing is sent.
    pub only: Option<BTreeSet<String>>,
}

impl Default for Ask {
    /// Sends what differs.
    fn default() -> Self {
        Ask { kind: RunKind::Changes, no_guard: false, expected: None, only: None }
    }
}

/// Runs a sync once.
///
/// # Errors
/// There is no record of it: another run is under way, or the state cannot be written. How a run on record ended,
/// failures included, is in the record.
pub async fn run(
    plan: &Arc<SyncPlan>,
    ports: &Ports,
    ask: Ask,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<RunRecord, Failure> {
    let lease = lease(plan, ports).await?;
    let began = Instant::now();
    let mut record = open(plan, ports, ask.kind).await?;
    let walk = Walk { plan, ports, ask, watch, cancel };
    let result = caught(walk.walk(&mut record)).await;
    walk.close(record, began, result, lease).await
}

/// Does what is between the opening and the closing of a record: a panic is a failure of the run, and is on record too.
async fn caught(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it said nothing");
        Err(Failure::internal("run the sync").detail(format!("it panicked: {text}")))
    })
}

/// Opens the record of a run.
async fn open(plan: &SyncPlan, ports: &Ports, kind: RunKind) -> Result<RunRecord, Failure> {
    Ok(RunRecord {
        id: ports.records.begin(&plan.name, kind).await?,
        sync: plan.name.clone(),
        kind,
        state: RunState::Queued,
        started_at: ports.clock.now_ms(),
        ended_at: None,
        counts: RunCounts::default(),
        times: RunTimes::default(),
        error: None,
    })
}

/// How a run ended.
fn ending(record: &RunRecord, result: Result<(), Failure>) -> (RunState, Option<RunError>) {
    let failure = match result {
        Ok(()) if record.counts.rejected_rows() > 0 => return (RunState::Warning, None),
        Ok(()) => return (RunState::Success, None),
        Err(failure) => failure,
    };
    let guarded = [codes::EMPTY_RESULT, codes::GUARD_EXCEEDED, codes::COLUMNS_CHANGED, codes::PLAN_OUTDATED];
    let state = if guarded.contains(&failure.code) {
        RunState::Guarded
    } else if failure.code == codes::CANCELLED {
        RunState::Cancelled
    } else if failure.code == codes::GAVE_UP {
        RunState::Interrupted
    } else {
        RunState::Failed
    };
    (state, Some(RunError::from(&failure)))
}

/// Sends recorded messages of a sync again, as they were, as a run of its own.
///
/// # Errors
/// As [`run`].
pub async fn resend(
    plan: &Arc<SyncPlan>,
    ports: &Ports,
    outcomes: Vec<RowOutcome>,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<RunRecord, Failure> {
    let ask = Ask { kind: RunKind::Replay, ..Ask::default() };
    let lease = lease(plan, ports).await?;
    let began = Instant::now();
    let mut record = open(plan, ports, ask.kind).await?;
    let walk = Walk { plan, ports, ask, watch, cancel };
    let result = caught(walk.resend(&mut record, outcomes)).await;
    walk.close(record, began, result, lease).await
}

/// Takes the sync's lease.
///
/// # Errors
/// Somebody else holds it.
pub async fn lease(plan: &SyncPlan, ports: &Ports) -> Result<Box<dyn Lease>, Failure> {
    ports.leases.take(&plan.name).await?.map_err(|holder| {
        let what = format!("another run of sync `{}` is under way in {}", plan.name, holder.who);
        Failure::new(FailureKind::Refused, codes::RUN_UNDER_WAY, what)
            .remedy("wait for it to end; `warren runs` shows it")
    })
}

struct Walk<'w> {
    plan: &'w Arc<SyncPlan>,
    ports: &'w Ports,
    ask: Ask,
    watch: &'w dyn Watch,
    cancel: &'w CancellationToken,
}

impl Walk<'_> {
    async fn walk(&self, record: &mut RunRecord) -> Result<(), Failure> {
        self.enter(record, RunState::Querying).await?;
        let began = Instant::now();
        let (mut changes, bound) =
            diff(self.plan, self.ports, self.ask.kind == RunKind::Full, self.watch, self.cancel).await?;
        record.times.querying_ms = RunTimes::ms(began.elapsed());
        record.counts = changes.summary().counts.clone();
        self.enter(record, RunState::Planning).await?;
        self.record_faults(record.id, changes.summary()).await?;
        let result = self.guard_and_send(record, changes.as_mut(), bound).await;
        let finished = changes.finish().await;
        result.and(finished)
    }

    /// Sends recorded messages, and reads nothing.
    async fn resend(&self, record: &mut RunRecord, outcomes: Vec<RowOutcome>) -> Result<(), Failure> {
        self.enter(record, RunState::Sending).await?;
        for outcome in &outcomes {
            *record.counts.planned.of(outcome.op.unwrap_or(Op::Added)) += 1;
        }
        self.watch.event(Event::Planned(&record.counts));
        let began = Instant::now();
        let renderer = self.renderer(record, Vec::new());
        let result = self.sender(&renderer).again(outcomes, record).await;
        record.times.sending_ms = RunTimes::ms(began.elapsed());
        result
    }

    async fn guard_and_send(
        &self,
        record: &mut RunRecord,
        changes: &mut dyn ChangeSet,
        bound: Bound,
    ) -> Result<(), Failure> {
        let summary = changes.summary();
        if !self.ask.no_guard && self.ask.kind != RunKind::ResetBaseline {
            guard::check(self.plan, summary)?;
        }
        if self.ask.expected.is_some_and(|digest| digest != summary.digest) {
            let what = "the rows have changed since the plan was made";
            return Err(Failure::new(FailureKind::Invalid, codes::PLAN_OUTDATED, what)
                .at(format!("sync `{}`", self.plan.name))
                .remedy(format!("make a new one with `warren plan {} --out FILE`", self.plan.name)));
        }
        self.watch.event(Event::Planned(&record.counts));
        // Only `--full` says that a first run sends all the same: a plan or a replay must not end in a backfill.
        let silent = self.ask.kind == RunKind::ResetBaseline
            || (summary.first_run && self.plan.initial == Initial::Skip && self.ask.kind != RunKind::Full);
        self.enter(record, RunState::Sending).await?;
        let began = Instant::now();
        let result = if silent {
            take_note(changes, record, self.watch, self.cancel).await
        } else {
            let renderer = self.renderer(record, bound.compared);
            let sender = self.sender(&renderer);
            if record.counts.planned.total() == 0 { Ok(()) } else { sender.all(changes, record).await }
        };
        record.times.sending_ms = RunTimes::ms(began.elapsed());
        result
    }

    fn renderer(&self, record: &RunRecord, compared: Vec<String>) -> Renderer {
        Renderer {
            plan: self.plan.clone(),
            run: record.id,
            started_ms: record.started_at,
            compared,
            again: if self.ask.kind == RunKind::Full { format!("full {}", record.id) } else { String::new() },
        }
    }

    fn sender<'s>(&'s self, renderer: &'s Renderer) -> Sender<'s> {
        Sender {
            renderer,
            broker: self.ports.broker.clone(),
            records: self.ports.records.clone(),
            clock: self.ports.clock.clone(),
            only: self.ask.only.as_ref(),
            watch: self.watch,
            cancel: self.cancel,
        }
    }

    /// Records the rows that could not take part in the diff, as far as they were kept as samples.
    async fn record_faults(&self, run: RunId, summary: &DiffSummary) -> Result<(), Failure> {
        if summary.faults.is_empty() {
            return Ok(());
        }
        let at = self.ports.clock.now_ms();
        let outcomes: Vec<RowOutcome> = summary
            .faults
            .iter()
            .map(|fault| RowOutcome {
                change: None,
                op: None,
                key: fault.key.clone(),
                status: RowStatus::Rejected,
                code: Some(fault.code),
                outbound: None,
                attempts: vec![Attempt { at, answer: sentence(fault.code).to_owned() }],
            })
            .collect();
        for outcome in &outcomes {
            self.watch.event(Event::Rejected(outcome));
        }
        self.ports.records.append(run, outcomes).await
    }

    /// Closes the record, however the run ended, and gives back the lease.
    async fn close(
        &self,
        mut record: RunRecord,
        began: Instant,
        result: Result<(), Failure>,
        lease: Box<dyn Lease>,
    ) -> Result<RunRecord, Failure> {
        let (state, error) = ending(&record, result);
        record.error = error.or(record.error);
        record.ended_at = Some(self.ports.clock.now_ms());
        record.times.total_ms = RunTimes::ms(began.elapsed());
        self.enter(&mut record, state).await?; // also when the walk failed: no run ends unrecorded
        drop(lease);
        Ok(record)
    }

    async fn enter(&self, record: &mut RunRecord, state: RunState) -> Result<(), Failure> {
        record.state = state;
        self.watch.event(Event::State(state));
        self.ports.records.update(record).await
    }
}

fn sentence(code: codes::Code) -> &'static str {
    if code == codes::NULL_KEY {
        "a column of the primary key is NULL: no change of this row can be told"
    } else {
        "the primary key occurs more than once in the result: which row is meant cannot be told"
    }
}

/// Reads the model and finds what differs. Nothing changes.
///
/// # Errors
/// The source failed, the plan does not fit the model's columns, or the state cannot be used.
pub async fn diff(
    plan: &SyncPlan,
    ports: &Ports,
    full: bool,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<(Box<dyn ChangeSet>, Bound), Failure> {
    let rows = tokio::select! {
        rows = ports.source.rows(&plan.model) => rows?,
        () = cancel.cancelled() => return Err(cancelled()),
    };
    let mut bound = bind::bind(plan, rows.schema()).map_err(|findings| unbound(&findings))?;
    bound.spec.full = full;
    let mut rows = Cancellable { rows, cancel };
    let (sender, mut receiver) = tokio::sync::watch::channel((0, 0));
    let progress = move |rows: u64, bytes: u64| {
        sender.send_replace((rows, bytes));
    };
    let spec = bound.spec.clone();
    let diff = ports.baseline.diff(&mut rows, &spec, &progress);
    tokio::pin!(diff);
    loop {
        // Dropping the wait for progress loses nothing: the next one sees the newest figures.
        tokio::select! {
            changes = &mut diff => break Ok((changes?, bound)),
            Ok(()) = receiver.changed() => {
                let (rows, bytes) = *receiver.borrow_and_update();
                watch.event(Event::Read { rows, bytes });
            }
        }
    }
}

/// A stream of rows that ends with an error when the run is stopped.
struct Cancellable<'c> {
    rows: Box<dyn RowStream>,
    cancel: &'c CancellationToken,
}

#[async_trait]
impl RowStream for Cancellable<'_> {
    fn schema(&self) -> &Arc<Schema> {
        self.rows.schema()
    }

    async fn next(&mut self) -> Result<Option<Batch>, Failure> {
        // The stream is not asked again once the wait for it was dropped.
        tokio::select! {
            batch = self.rows.next() => batch,
            () = self.cancel.cancelled() => Err(cancelled()),
        }
    }
}

/// The first finding stands for all; the others are counted.
pub(crate) fn unbound(findings: &[Finding]) -> Failure {
    let Some(first) = findings.first() else {
        return Failure::internal("a plan did not fit its model and nobody said why");
    };
    let mut failure =
        Failure::new(FailureKind::Invalid, first.code, first.message.clone()).at(first.subject.clone());
    failure.detail.clone_from(&first.detail);
    failure.remedy.clone_from(&first.remedy);
    if findings.len() > 1 {
        let others = format!("and {} more: `warren check` shows all", findings.len() - 1);
        failure.detail = Some(failure.detail.map_or(others.clone(), |detail| format!("{detail}; {others}")));
    }
    failure
}
