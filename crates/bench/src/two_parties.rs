//! What a bad party costs a good one: the rate of the good party without and with the bad one, in turns of one run. The goal is a ratio of at
//! least 0.9 in every case.
//!
//! The bad party does little, so that what it costs is not its share of the machine: one message in a hundred, one row, or so many messages
//! or passwords a second.

mod hub;
mod rows;
mod triggers;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args as ClapArgs, ValueEnum};
use warren_connectors::kit::setting::Secret;
use warren_connectors::rabbitmq::{Config, Rabbit};
use warren_engine::message::{HeaderValue, Message, Outbound, Properties, Receipt, Route};
use warren_engine::ports::Broker;

use crate::figures::rate;
use crate::hub_wire::{BAD, Receiver};
use crate::sync::Fault;

/// What to run.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The broker: `amqp://user:password@host:port/vhost`. Queues `warren-bench-parties…` are made in it.
    #[arg(long, env = "WARREN_BENCH_RABBIT_URL")]
    rabbit: String,
    /// The program; by default `warren` next to this one.
    #[arg(long)]
    warren: Option<PathBuf>,
    /// Messages or rows of the good party in each turn.
    #[arg(long, default_value_t = 20_000)]
    messages: u64,
    /// Turns without and with; the medians count.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Messages or requests at once.
    #[arg(long, default_value_t = 64)]
    at_once: u16,
    /// What the bad party of `logins` and `consumers` does in a second: passwords, messages.
    #[arg(long, default_value_t = 100)]
    bad_per_second: u32,
    /// Only these cases; all unless given.
    #[arg(long, value_enum)]
    case: Vec<Case>,
}

/// Who the two parties are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Ordering keys of a trigger; the receiver answers one key with 503.
    Keys,
    /// Subscribers of the hub; one answers with 503.
    Subscribers,
    /// Clients of the hub; one guesses the password of the other from another address.
    Logins,
    /// Rows of a run; RabbitMQ refuses one by closing the channel.
    Rows,
    /// Triggers on one connection; the messages of one are all dead-lettered.
    Consumers,
}

/// Whether the bad party is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bad {
    Absent,
    Present,
}

/// What begins the names of all queues.
const QUEUE: &str = "warren-bench-parties";
const BODY_BYTES: usize = 1024;
/// How long a turn may take.
const TURN: Duration = Duration::from_secs(120);

struct World<'a> {
    args: &'a Args,
    side: Rabbit,
}

/// Measures each case, and prints its ratio.
pub async fn run(args: &Args) -> Result<(), Fault> {
    let config = Config { url: Some(Secret::new(args.rabbit.as_str())), ..Config::default() };
    let world = World { args, side: Rabbit::new("bench", &config)? };
    println!(
        "{} messages a turn, {} at once, medians of {} turns; messages per second of the good party",
        args.messages, args.at_once, args.turns
    );
    for case in Case::value_variants() {
        if args.case.is_empty() || args.case.contains(case) {
            let (mut without, mut with) = (Vec::new(), Vec::new());
            for _ in 0..args.turns.max(1) {
                without.push(world.turn(*case, Bad::Absent).await?);
                with.push(world.turn(*case, Bad::Present).await?);
            }
            let (without, with) = (middle(without), middle(with));
            let name = case.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
            println!(
                "  {name:<12} without {without:>8.0}/s   with {with:>8.0}/s   ratio {:.2}   (goal: at least 0.9)",
                with / without.max(1e-9)
            );
        }
    }
    world.side.close().await;
    Ok(())
}

fn middle(mut rates: Vec<f64>) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

impl World<'_> {
    /// The rate of the good party.
    async fn turn(&self, case: Case, bad: Bad) -> Result<f64, Fault> {
        let turn = async {
            match case {
                Case::Keys => triggers::keys(self, bad).await,
                Case::Subscribers => hub::subscribers(self, bad).await,
                Case::Logins => hub::logins(self, bad).await,
                Case::Rows => rows::rows(self, bad).await,
                Case::Consumers => triggers::consumers(self, bad).await,
            }
        };
        tokio::time::timeout(TURN, turn).await.map_err(|_| format!("{case:?}: a turn took {TURN:?}"))?
    }

    /// Publishes to a queue, and waits for all confirms.
    async fn publish(&self, queue: &str, messages: impl Iterator<Item = Sent>) -> Result<(), Fault> {
        let outbound: Vec<Outbound> = messages.map(|sent| sent.outbound(queue)).collect();
        for batch in outbound.chunks(500) {
            for receipt in self.side.publish(batch).await {
                if let Receipt::Refused(failure) | Receipt::Unknown(failure) = receipt {
                    return Err(failure.into());
                }
            }
        }
        Ok(())
    }
}

/// A message of one of the parties.
enum Sent {
    /// With the number of its key.
    Good(u64),
    Bad,
}

impl Sent {
    fn outbound(&self, queue: &str) -> Outbound {
        let (begin, key) = match self {
            Sent::Good(key) => ("good", format!("good {key}")),
            Sent::Bad => (BAD, BAD.to_owned()),
        };
        let mut body = begin.as_bytes().to_vec();
        body.resize(BODY_BYTES, b'x');
        let headers = [("key".to_owned(), HeaderValue::Text(key))].into_iter().collect();
        let properties = Properties { headers, persistent: true, ..Properties::default() };
        Outbound {
            route: Route::Queue(queue.to_owned()),
            message: Message { body: Bytes::from(body), properties },
        }
    }
}

/// How many a second a receiver takes, from the first twentieth to the last.
async fn rate_at(receiver: &Receiver, messages: u64) -> f64 {
    receiver.wait_for((messages / 20).max(1)).await;
    let (first, began) = (receiver.count(), Instant::now());
    receiver.wait_for(messages).await;
    rate(receiver.count().saturating_sub(first), began.elapsed())
}
