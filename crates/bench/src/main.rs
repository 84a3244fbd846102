//! End-to-end benchmarks: each prints ratios to floors measured in the same run.
//!
//! Machines are noisy, and broker, database and benchmark share one: only ratios count. `docs/benchmarks.md` has
//! figures and how to rerun them.

mod amqp;
mod consume;
mod error_log;
mod figures;
mod floor;
mod hub;
mod hub_wire;
mod program;
mod sqs;
mod sync;
mod two_parties;

use clap::{Parser, Subcommand};

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The benchmarks.
#[derive(Debug, Parser)]
#[command(name = "warren-bench")]
struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Our RabbitMQ client alone: publishing with receipts and consuming, beside a bare client.
    Amqp(amqp::Args),
    /// Triggers of `warren serve`, beside a bare consumer, a bare POST loop, and consumers written by hand in Node and Python.
    Consume(consume::Args),
    /// The hub: publishing and delivering by HTTP, and idle subscriptions.
    Hub(hub::Args),
    /// Publishing to SQS, beside a bare loop over AWS's own client.
    Sqs(sqs::Args),
    /// A table in PostgreSQL to a queue of RabbitMQ: nothing changed, 1 % changed, backfill.
    Sync(sync::Args),
    /// What a party that fails costs another: keys, subscribers, logins, rows and consumers, each without and with one that is bad.
    TwoParties(two_parties::Args),
}

fn main() {
    // As the program does.
    #[cfg(target_os = "linux")]
    rustix::thread::disable_transparent_huge_pages(true).ok();
    let Args { bench } = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => match bench {
            Bench::Amqp(args) => runtime.block_on(amqp::run(&args)),
            Bench::Consume(args) => runtime.block_on(consume::run(&args)),
            Bench::Hub(args) => runtime.block_on(hub::run(&args)),
            Bench::Sqs(args) => runtime.block_on(sqs::run(&args)),
            Bench::Sync(args) => runtime.block_on(sync::run(&args)),
            Bench::TwoParties(args) => runtime.block_on(two_parties::run(&args)),
        },
        Err(error) => Err(error.into()),
    };
    if let Err(error) = result {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        eprintln!("error: {error}{cause}");
        std::process::exit(1);
    }
}
