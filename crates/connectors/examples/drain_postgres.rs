//! How fast a PostgreSQL source is beside the least there is: the same rows copied out by the same driver and thrown away.
//!
//!     WARREN_BENCH_PG_URL=postgres://… cargo run --release --example drain_postgres -- ROWS ROUNDS
//!
//! Makes a table `drain` of about 100 bytes a row if it is not there. Prints seconds and microseconds a row of both ways, in turns.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use warren_connectors::kit::setting::Secret;
use warren_connectors::postgres::{Config, source};
use warren_engine::model::Model;

type Fault = Box<dyn std::error::Error + Send + Sync>;

const SELECT: &str = "SELECT id, email, name, amount, created_at, active, region FROM drain";

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let url = std::env::var("WARREN_BENCH_PG_URL")?;
    let numbers: Vec<u64> =
        std::env::args().skip(1).map(|argument| argument.parse()).collect::<Result<_, _>>()?;
    let rows = numbers.first().copied().unwrap_or(5_000_000);
    let rounds = numbers.get(1).copied().unwrap_or(3);
    fill(&url, rows).await?;
    for _ in 0..rounds {
        let before = cpu()?;
        let bare = bare(&url).await?;
        print("bare copy", rows, bare, cpu()? - before);
        let before = cpu()?;
        let ours = ours(&url, rows).await?;
        print("source", rows, ours, cpu()? - before);
        println!("ratio of rates {:.3}", bare.as_secs_f64() / ours.as_secs_f64());
    }
    Ok(())
}

fn print(what: &str, rows: u64, took: Duration, cpu: f64) {
    let micros = took.as_secs_f64() * 1e6 / rows as f64;
    let cpu = cpu * 1e6 / rows as f64;
    println!(
        "{what:<10} {:>7.2} s  {micros:.3} µs a row, of them {cpu:.3} µs of our processor time",
        took.as_secs_f64()
    );
}

/// Seconds of processor time this process has used.
fn cpu() -> Result<f64, Fault> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no such form of /proc/self/stat")?;
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    // A hundred ticks a second, on every Linux there is.
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

async fn fill(url: &str, rows: u64) -> Result<(), Fault> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    client
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS drain (id bigint, email text, name text, amount numeric(12,2), \
             created_at timestamptz, active boolean, region text)",
        )
        .await?;
    let found: i64 = client.query_one("SELECT count(*) FROM drain", &[]).await?.get(0);
    if found.unsigned_abs() == rows {
        return Ok(());
    }
    client
        .batch_execute(&format!(
            "TRUNCATE drain; INSERT INTO drain SELECT g, 'customer' || g || '@example.com', 'Name of customer ' || g, \
             (g % 100000) / 100.0, '2024-01-01'::timestamptz + g * interval '1 second', g % 2 = 0, 'region-' || g % 10 \
             FROM generate_series(1, {rows}) g"
        ))
        .await?;
    client.batch_execute("VACUUM ANALYZE drain").await?;
    Ok(())
}

async fn bare(url: &str) -> Result<Duration, Fault> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let start = Instant::now();
    let mut copy =
        std::pin::pin!(client.copy_out(&format!("COPY ({SELECT}) TO STDOUT (FORMAT binary)")).await?);
    let mut bytes = 0;
    while let Some(message) = copy.next().await {
        bytes += message?.len();
    }
    assert!(bytes > 0, "the table has rows");
    Ok(start.elapsed())
}

async fn ours(url: &str, rows: u64) -> Result<Duration, Fault> {
    let source = source("bench", &Config { url: Some(Secret::new(url)), ..Config::default() })?;
    let model = Model { name: "drain".into(), sql: SELECT.into(), key: vec!["id".into()], timeout: None };
    let start = Instant::now();
    let mut stream = source.rows(&model).await?;
    let (mut found, mut bytes) = (0, 0);
    while let Some(batch) = stream.next().await? {
        found += batch.len() as u64;
        bytes += batch.size() as u64;
    }
    assert_eq!(found, rows, "every row comes");
    assert!(bytes / rows > 50, "rows are of about 100 bytes");
    Ok(start.elapsed())
}
