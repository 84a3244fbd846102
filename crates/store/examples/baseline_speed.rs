//! How long the baseline takes by stage, and how much memory: `cargo run --release -p warren-store --example
//! baseline_speed -- [rows] [folder]`.
//!
//! Rows of about 100 bytes are made as they are asked for; what that costs is measured by itself first.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use warren_engine::failure::Failure;
use warren_engine::model::{Column, ColumnType, Schema};
use warren_engine::ports::{Baseline, Compare, DiffSpec, RowStream};
use warren_engine::row::Batch;
use warren_store::baseline::{BaselineOptions, FileBaseline};

const BATCH_ROWS: u64 = 2_000;

struct Synthetic {
    schema: Arc<Schema>,
    next: u64,
    rows: u64,
    /// One row of so many has another content; 0: none.
    changed: u64,
}

impl Synthetic {
    fn new(rows: u64, changed: u64) -> Synthetic {
        let columns = [
            ("id", ColumnType::Int),
            ("email", ColumnType::Text),
            ("name", ColumnType::Text),
            ("balance", ColumnType::Decimal),
            ("updated", ColumnType::Timestamp),
        ];
        let columns = columns.map(|(name, kind)| Column { name: name.into(), kind });
        let schema = Schema::new(columns.into()).expect("names differ");
        Synthetic { schema, next: 0, rows, changed }
    }
}

#[async_trait]
impl RowStream for Synthetic {
    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    async fn next(&mut self) -> Result<Option<Batch>, Failure> {
        if self.next == self.rows {
            return Ok(None);
        }
        let mut batch = Batch::with_capacity(BATCH_ROWS as usize * 110);
        let mut digits = *b"user-00000000-00000000@example.com";
        for id in self.next..self.rows.min(self.next + BATCH_ROWS) {
            let mut random = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            random ^= random >> 29;
            for (at, place) in digits[5..22].iter_mut().enumerate() {
                if at != 8 {
                    *place = b"0123456789abcdef"[(random >> (4 * (at % 16))) as usize & 15];
                }
            }
            let text = std::str::from_utf8(&digits).expect("it is ASCII");
            let salt = i64::from(self.changed > 0 && id % self.changed == 0);
            let mut cells = batch.cells();
            cells.int(id as i64);
            cells.text(text);
            cells.text(&text[5..22]);
            cells.decimal(if id % 2 == 0 { "1234.50" } else { "98.00" });
            cells.timestamp(1_700_000_000_000_000 + random as i64 % 1_000_000 + salt, 0);
            batch.end_row();
        }
        self.next = self.rows.min(self.next + BATCH_ROWS);
        Ok(Some(batch))
    }
}

struct Stage {
    name: &'static str,
    started: Instant,
    cpu: f64,
}

impl Stage {
    fn begin(name: &'static str) -> Stage {
        Stage { name, started: Instant::now(), cpu: cpu_seconds() }
    }

    fn end(self, rows: u64) -> f64 {
        let (wall, cpu) = (self.started.elapsed().as_secs_f64(), cpu_seconds() - self.cpu);
        let each = 1e6 / rows.max(1) as f64;
        println!(
            "{:<34} {wall:8.3} s  {:7.3} µs/row  cpu {:7.3} µs/row  peak {:5} MiB",
            self.name,
            wall * each,
            cpu * each,
            peak_mib()
        );
        wall
    }
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    // User and system time, the 14th and 15th fields, in hundredths of a second.
    after.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        / 100.0
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

async fn run(
    baseline: &FileBaseline,
    rows: u64,
    changed: u64,
    names: [&'static str; 3],
) -> Result<(), Failure> {
    let spec = DiffSpec {
        key: vec!["id".into()],
        compare: Compare::AllBut([].into()),
        keep_rows: true,
        full: false,
        previous: true,
    };
    let stage = Stage::begin(names[0]);
    let mut set = baseline.diff(&mut Synthetic::new(rows, changed), &spec, &|_, _| ()).await?;
    stage.end(rows);
    let planned = set.summary().counts.planned;
    let stage = Stage::begin(names[1]);
    loop {
        let changes = set.next(1_000).await?;
        if changes.is_empty() {
            break;
        }
        set.advance(&changes.iter().collect::<Vec<_>>()).await?;
    }
    if planned.total() > 0 {
        stage.end(planned.total());
    }
    let stage = Stage::begin(names[2]);
    set.finish().await?;
    stage.end(rows);
    println!("  {planned:?}");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let rows = arguments.next().and_then(|rows| rows.parse().ok()).unwrap_or(5_000_000);
    let scratch = std::env::temp_dir().join(format!("baseline-speed-{}", std::process::id()));
    let folder = arguments.next().map_or(scratch, Into::into);
    let baseline = FileBaseline::open(folder.clone(), BaselineOptions::default());

    let stage = Stage::begin("making the rows only");
    let mut source = Synthetic::new(rows, 0);
    let mut bytes = 0;
    while let Some(batch) = source.next().await? {
        bytes += batch.size();
    }
    stage.end(rows);
    println!("  {rows} rows of {} bytes", bytes as u64 / rows.max(1));

    run(&baseline, rows, 0, ["first run: diff", "first run: next + advance (each)", "first run: finish"])
        .await?;
    run(&baseline, rows, 0, ["nothing changed: diff", "", "nothing changed: finish"]).await?;
    run(
        &baseline,
        rows,
        100,
        ["1 % changed: diff", "1 % changed: next + advance (each)", "1 % changed: finish"],
    )
    .await?;
    run(&baseline, rows, 100, ["nothing changed: diff", "", "nothing changed: finish"]).await?;
    println!("{:?}", baseline.info().await?);
    std::fs::remove_dir_all(&folder).ok(); // a scratch folder; nothing depends on it
    Ok(())
}
