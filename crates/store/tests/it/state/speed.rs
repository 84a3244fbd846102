//! What a row of the record costs. Run by hand, in release, on a quiet machine:
//! `cargo test --release -p warren-store --test it -- --ignored --nocapture speed`

use std::time::Instant;

use warren_engine::ports::Records;
use warren_engine::run::RunKind;
use warren_store::state::{OutcomeFilter, State};

use super::{NOW, World, file_bytes, many};

const ROWS: u64 = 1_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "a measurement, with nothing to fail; run it by hand in release"]
async fn what_a_row_costs() {
    for batch in [1, 10, 100, 500, 1000] {
        let rows = if batch == 1 { ROWS / 50 } else { ROWS / (1000 / batch).min(5) };
        measure(batch, rows).await;
    }
}

async fn measure(batch: u64, rows: u64) {
    let world = World::new();
    let run = world.state.begin("customers", RunKind::Changes).await.unwrap();
    let mut batches = Vec::new();
    for first in (0..rows).step_by(batch as usize) {
        batches.push(many(first, batch, NOW + first as i64 / 20));
    }
    let body_bytes: usize = batches
        .iter()
        .flatten()
        .map(|row| row.outbound.as_ref().map_or(0, |outbound| outbound.message.body.len()))
        .sum();
    let (cpu, began) = (writer_cpu_ns(), Instant::now());
    // Four appends on the way, as when a window of batches is in flight.
    let mut waiting = tokio::task::JoinSet::new();
    for batch in batches {
        if waiting.len() == 4 {
            waiting.join_next().await.unwrap().unwrap();
        }
        let state = world.state.clone();
        waiting.spawn(async move { state.append(run, batch).await.unwrap() });
    }
    waiting.join_all().await;
    let (wall, cpu) = (began.elapsed(), writer_cpu_ns() - cpu);
    println!(
        "{rows} rows, {batch} an append, bodies of {} B: {:.2} µs CPU a row, {:.0} rows/s, {} B a row on disk",
        body_bytes as u64 / rows,
        cpu as f64 / 1000.0 / rows as f64,
        rows as f64 / wall.as_secs_f64(),
        file_bytes(&world.path()) / rows,
    );
    if batch == 1000 {
        for filter in [
            OutcomeFilter { key: Some("123456".into()), ..OutcomeFilter::default() },
            OutcomeFilter { key: Some("never".into()), ..OutcomeFilter::default() },
            OutcomeFilter { destination: Some("nowhere".into()), ..OutcomeFilter::default() },
        ] {
            let began = Instant::now();
            let found = world.all(filter.clone()).await.len();
            println!(
                "found {found} in {:.1} ms by {:?} {:?}",
                began.elapsed().as_secs_f64() * 1e3,
                filter.key,
                filter.destination
            );
        }
        let began = Instant::now();
        world.set_time(NOW + super::DAY * 30);
        let pruned = world.state.prune().await.unwrap();
        println!("pruned {} rows in {:.0} ms", pruned.rows, began.elapsed().as_secs_f64() * 1e3);
    }
}

/// The time that the state's thread has been on a processor, in nanoseconds.
fn writer_cpu_ns() -> u64 {
    let mut total = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        if std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "warren-state") {
            let stat = std::fs::read_to_string(task.join("schedstat")).unwrap();
            total += stat.split(' ').next().unwrap().parse::<u64>().unwrap();
        }
    }
    total
}
