//! PostgreSQL to RabbitMQ through the whole of a sync: baseline, records and leases on disk, as the program has them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;
use warren_connectors::rabbitmq::QueueSpec;
use warren_connectors::{postgres, rabbitmq};
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::model::Model;
use warren_engine::ports::{Broker, Leases, Records};
use warren_engine::run::{RunKind, RunRecord, RunState};
use warren_engine::sync::plan::{
    BATCH_MESSAGES, BATCHES_IN_FLIGHT, BodyPlan, CompareChoice, Dynamic, Guard, Initial, PropertyPlan,
    RoutePlan, SyncPlan, Trigger,
};
use warren_engine::sync::run::{Ask, Ports};
use warren_engine::sync::watch::Silent;
use warren_liquid::{Options, Template};
use warren_store::baseline::{BaselineOptions, FileBaseline};
use warren_store::state::{Retention, SqliteState, SystemClock};

use crate::figures::{cpu_seconds, median, peak_memory_mib, rate, reset_peak_memory};
use crate::floor::{amqp, copy};

/// Why a benchmark ends.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// PostgreSQL to RabbitMQ.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// PostgreSQL; a table `warren_bench` is made in it.
    #[arg(long, env = "WARREN_TEST_PG_URL")]
    postgres: String,
    /// RabbitMQ; queues `warren_bench…` are made in it.
    #[arg(long, env = "WARREN_TEST_RABBIT_URL")]
    rabbit: String,
    /// Rows of about 100 bytes.
    #[arg(long, default_value_t = 5_000_000)]
    rows: u64,
    /// Rows of the backfill.
    #[arg(long, default_value_t = 1_000_000)]
    backfill: u64,
    /// How often each figure is taken; the median is shown.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many channels Warren publishes over; its own default unless given.
    #[arg(long)]
    channels: Option<u16>,
    /// Only these figures; all unless given.
    #[arg(long, value_enum)]
    case: Vec<Case>,
}

/// One figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Case {
    /// Nothing changed.
    Unchanged,
    /// One per cent of the rows changed.
    Changed,
    /// All rows are new.
    Backfill,
}

const QUEUE: &str = "warren_bench";
const TEMPLATE: &str = r#"{"id": {{ row.id }}, "name": "{{ row.name }}", "email": {{ row.email }},
 "region": {{ row.region }}, "balance": {{ row.balance }}, "op": {{ op }}}"#;

/// Runs the benchmark.
pub async fn run(args: &Args) -> Result<(), Fault> {
    let folder = tempfile::Builder::new().prefix("warren-bench-").tempdir()?;
    let broker = broker(args).await?;
    prepare(&args.postgres, args.rows).await?;
    println!("{} rows in PostgreSQL, {} rounds, medians", args.rows, args.rounds);

    let world = World { args, broker, folder: folder.path() };
    let wanted = |case| args.case.is_empty() || args.case.contains(&case);
    if wanted(Case::Unchanged) {
        nothing_changed(&world).await?;
    }
    if wanted(Case::Changed) {
        one_per_cent(&world).await?;
    }
    if wanted(Case::Backfill) {
        backfill(&world).await?;
    }
    Ok(())
}

struct World<'a> {
    args: &'a Args,
    broker: Arc<rabbitmq::Rabbit>,
    folder: &'a Path,
}

impl World<'_> {
    fn ports(&self, name: &str) -> Result<Ports, Fault> {
        let config: postgres::Config =
            serde_json::from_value(serde_json::json!({ "url": self.args.postgres }))?;
        let state = Arc::new(SqliteState::open(&self.folder.join(name), Retention::default())?);
        let records: Arc<dyn Records> = state.clone();
        let leases: Arc<dyn Leases> = state;
        let baseline =
            FileBaseline::open(self.folder.join(name).join("baseline"), BaselineOptions::default());
        let broker: Arc<dyn Broker> = self.broker.clone();
        Ok(Ports {
            source: postgres::source("bench", &config)?,
            broker,
            baseline: Arc::new(baseline),
            records,
            leases,
            clock: Arc::new(SystemClock),
        })
    }

    async fn run(&self, plan: &Arc<SyncPlan>, ports: &Ports, kind: RunKind) -> Result<RunRecord, Fault> {
        let ask = Ask { kind, ..Ask::default() };
        let cancel = CancellationToken::new();
        let record = warren_engine::sync::run::run(plan, ports, ask, &Silent, &cancel).await?;
        if record.state != RunState::Success {
            return Err(format!("a run ended as {}: {:?}", record.state, record.error).into());
        }
        Ok(record)
    }

    /// The best of the bare publisher's ways, so that the floor is not beaten by a better choice of channels.
    fn floor(&self, messages: u64, plan: &SyncPlan) -> Result<(Duration, u16), Fault> {
        let body = vec![b'x'; 150];
        let mut best: Option<(Duration, u16)> = None;
        for channels in [1, 4] {
            let load = amqp::Load {
                url: &self.args.rabbit,
                queue: "warren_bench_floor",
                messages,
                window: (plan.batch_messages * plan.batches_in_flight) as u64,
                batch: plan.batch_messages as u64,
                channels,
                body: &body,
            };
            let took = amqp::publish(&load)?;
            if best.is_none_or(|(other, _)| took < other) {
                best = Some((took, channels));
            }
        }
        best.ok_or_else(|| "no floor was measured".into())
    }
}

async fn nothing_changed(world: &World<'_>) -> Result<(), Fault> {
    let plan = plan("SELECT * FROM warren_bench", QUEUE, PropertyPlan::default())?;
    let ports = world.ports("all")?;
    let began = Instant::now();
    reset_peak_memory();
    world.run(&plan, &ports, RunKind::ResetBaseline).await?;
    println!(
        "first run, baseline only      {:8.2} s  peak memory {} MiB",
        began.elapsed().as_secs_f64(),
        peak_memory_mib()
    );
    let (mut copies, mut runs) = (Vec::new(), Vec::new());
    let (mut copies_cpu, mut runs_cpu) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    let mut peak = 0;
    for _ in 0..world.args.rounds {
        // What the system still does for a run, such as closing its files, must not count against the other.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let cpu_before = cpu_seconds();
        let (took, drained) = copy::drain(&world.args.postgres, &plan.model.sql).await?;
        bytes = drained;
        copies.push(took);
        copies_cpu.push(Duration::from_secs_f64(cpu_seconds() - cpu_before));
        tokio::time::sleep(Duration::from_millis(300)).await;
        reset_peak_memory();
        let (began, cpu_before) = (Instant::now(), cpu_seconds());
        let record = world.run(&plan, &ports, RunKind::Changes).await?;
        runs.push(began.elapsed());
        runs_cpu.push(Duration::from_secs_f64(cpu_seconds() - cpu_before));
        peak = peak.max(peak_memory_mib());
        if record.counts.planned.total() != 0 || record.counts.rows != world.args.rows {
            return Err("a run over rows that did not change found changes".into());
        }
    }
    let (floor, run) = (median(copies), median(runs));
    let rows = world.args.rows;
    let micros = |cpu| median(cpu).as_secs_f64() * 1e6 / rows.max(1) as f64;
    println!(
        "bare binary COPY              {:8.2} s  {:>9.0} rows/s  {:.2} CPU µs a row of {} bytes",
        floor.as_secs_f64(),
        rate(rows, floor),
        micros(copies_cpu),
        bytes / rows.max(1)
    );
    println!(
        "run with nothing changed      {:8.2} s  {:>9.0} rows/s  {:.2} CPU µs a row, peak memory {peak} MiB",
        run.as_secs_f64(),
        rate(rows, run),
        micros(runs_cpu)
    );
    println!(
        "  ratio to COPY               {:8.2}    (goal: at most 1.25)",
        run.as_secs_f64() / floor.as_secs_f64()
    );
    Ok(())
}

async fn one_per_cent(world: &World<'_>) -> Result<(), Fault> {
    let plan = plan("SELECT * FROM warren_bench", QUEUE, PropertyPlan::default())?;
    let ports = world.ports("all")?;
    let changes = world.args.rows / 100;
    if !(world.args.case.is_empty() || world.args.case.contains(&Case::Unchanged)) {
        world.run(&plan, &ports, RunKind::ResetBaseline).await?; // otherwise made by the case before
    }
    let mut ratios = Vec::new();
    for round in 0..world.args.rounds {
        execute(
            &world.args.postgres,
            &format!("UPDATE warren_bench SET balance = balance + 1 WHERE id % 100 = {}", round % 100),
        )
        .await?;
        anew(&world.broker, QUEUE).await?;
        anew(&world.broker, "warren_bench_floor").await?;
        let (floor, channels) = world.floor(changes, &plan)?;
        reset_peak_memory();
        let cpu_before = cpu_seconds();
        let record = world.run(&plan, &ports, RunKind::Changes).await?;
        let sending = Duration::from_millis(record.times.sending_ms);
        if record.counts.sent.changed != changes {
            return Err(format!("{} of {changes} changes were sent", record.counts.sent.changed).into());
        }
        let (ours, bare) = (rate(changes, sending), rate(changes, floor));
        println!(
            "1 % changed                   {ours:>9.0} messages/s, bare {bare:.0} ({channels} channels), ratio {:.2}  \
             ({:.2} CPU s, peak {} MiB)",
            ours / bare,
            cpu_seconds() - cpu_before,
            peak_memory_mib(),
        );
        ratios.push(ours / bare);
    }
    ratios.sort_by(f64::total_cmp);
    println!("  ratio to bare confirms      {:8.2}    (goal: at least 0.9)", ratios[ratios.len() / 2]);
    Ok(())
}

async fn backfill(world: &World<'_>) -> Result<(), Fault> {
    let rows = world.args.backfill;
    let plan =
        plan(&format!("SELECT * FROM warren_bench WHERE id <= {rows}"), QUEUE, PropertyPlan::default())?;
    anew(&world.broker, QUEUE).await?;
    anew(&world.broker, "warren_bench_floor").await?;
    let (copy, _) = copy::drain(&world.args.postgres, &plan.model.sql).await?;
    let (floor, channels) = world.floor(rows, &plan)?;
    anew(&world.broker, "warren_bench_floor").await?;
    let ports = world.ports("backfill")?;
    reset_peak_memory();
    let (began, cpu_before) = (Instant::now(), cpu_seconds());
    let record = world.run(&plan, &ports, RunKind::Changes).await?;
    let took = began.elapsed();
    let slower = copy.max(floor);
    println!(
        "backfill of {rows}           {:8.2} s  {:>9.0} messages/s; COPY {:.2} s, bare confirms {:.2} s ({channels} \
         channels)  ({:.2} CPU s, peak {} MiB)",
        took.as_secs_f64(),
        rate(record.counts.sent.added, took),
        copy.as_secs_f64(),
        floor.as_secs_f64(),
        cpu_seconds() - cpu_before,
        peak_memory_mib(),
    );
    println!(
        "  ratio to the slower floor   {:8.2}    (goal: at least 0.8)",
        slower.as_secs_f64() / took.as_secs_f64()
    );
    Ok(())
}

/// Throws the queue away with its messages and makes it anew: emptying one of a million messages takes a broker longer than it may
/// take to answer.
pub async fn anew(broker: &rabbitmq::Rabbit, queue: &str) -> Result<(), Fault> {
    let late = |failure: &Failure| failure.kind == FailureKind::Timeout;
    let mut tries = 0;
    loop {
        match broker.delete_queue(queue).await {
            Ok(_) => break,
            Err(failure) if late(&failure) && tries < 10 => tries += 1,
            Err(failure) => return Err(failure.into()),
        }
    }
    let spec = QueueSpec { name: queue.into(), durable: true, ..QueueSpec::default() };
    broker.declare_queue(&spec).await?;
    Ok(())
}

/// A sync of the columns that [`TEMPLATE`] reads.
pub fn plan(sql: &str, queue: &str, properties: PropertyPlan) -> Result<Arc<SyncPlan>, Fault> {
    let trigger = Arc::new(Trigger {
        when: None,
        route: RoutePlan::Queue(Dynamic::Literal(queue.into())),
        body: BodyPlan::Template {
            template: Box::new(Template::parse(TEMPLATE, &Options::default())?),
            json: true,
        },
        properties,
    });
    Ok(Arc::new(SyncPlan {
        name: "bench".into(),
        model: Arc::new(Model {
            name: "bench".into(),
            sql: sql.into(),
            key: vec!["id".into()],
            timeout: None,
        }),
        added: Some(trigger.clone()),
        changed: Some(trigger.clone()),
        removed: Some(trigger),
        compare: CompareChoice::Used,
        ignore: std::collections::BTreeSet::new(),
        keep_rows: true,
        initial: Initial::Backfill,
        guard: Guard::default(),
        nan_as_null: false,
        give_up_after: Duration::from_secs(60),
        batch_messages: BATCH_MESSAGES,
        batches_in_flight: BATCHES_IN_FLIGHT,
    }))
}

async fn broker(args: &Args) -> Result<Arc<rabbitmq::Rabbit>, Fault> {
    let settings = serde_json::json!({ "url": args.rabbit, "channels": args.channels });
    let config: rabbitmq::Config = serde_json::from_value(settings)?;
    let broker = Arc::new(rabbitmq::Rabbit::new("bench", &config)?);
    for queue in [QUEUE, "warren_bench_floor"] {
        anew(&broker, queue).await?;
    }
    Ok(broker)
}

async fn prepare(url: &str, rows: u64) -> Result<(), Fault> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let there =
        client.query_opt("SELECT count(*) FROM pg_tables WHERE tablename = 'warren_bench'", &[]).await?;
    let there = there.is_some_and(|row| row.get::<_, i64>(0) > 0);
    if there
        && client.query_one("SELECT count(*) FROM warren_bench", &[]).await?.get::<_, i64>(0) == rows as i64
    {
        return Ok(());
    }
    client
        .batch_execute(&format!(
            "DROP TABLE IF EXISTS warren_bench;
             CREATE UNLOGGED TABLE warren_bench AS SELECT id::bigint, 'Customer ' || id AS name,
               'customer' || id || '@example.com' AS email, (ARRAY['emea','amer','apac'])[id % 3 + 1] AS region,
               (id % 100000)::numeric(12,2) / 100 AS balance, now() AS updated_at
             FROM generate_series(1, {rows}) AS id;
             ALTER TABLE warren_bench ADD PRIMARY KEY (id)"
        ))
        .await?;
    client.batch_execute("VACUUM ANALYZE warren_bench").await?;
    Ok(())
}

async fn execute(url: &str, sql: &str) -> Result<(), Fault> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    client.batch_execute(sql).await?;
    client.batch_execute("VACUUM warren_bench").await?;
    Ok(())
}
