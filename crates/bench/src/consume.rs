//! Triggers of `warren serve`, a process of its own, on messages of 1 KiB that wait in a queue: without steps beside a bare consumer, with
//! an `http` step beside the slower of that and a bare POST loop, and beside a bare relay that does both; all beside consumers written by hand.
//! Then the `http` step with a receiver that takes its time, as most do, and the latency at half load.

mod peers;
mod served;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::Args as ClapArgs;
use warren_connectors::kit::setting::Secret;
use warren_connectors::rabbitmq::{Config, QueueSpec, Rabbit};
use warren_engine::delivery::Settlement;
use warren_engine::message::{HeaderValue, Message, Outbound, Properties, Receipt, Route};
use warren_engine::ports::Broker;

use self::peers::Peers;
use self::served::{Served, Steps};
use crate::figures::{cpu_seconds, median, rate};
use crate::floor::post::{Receiver, post};
use crate::floor::relay::relay;
use crate::sync::Fault;

/// What to run.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The broker: `amqp://user:password@host:port/vhost`.
    #[arg(long, env = "WARREN_BENCH_RABBIT_URL")]
    rabbit: String,
    /// The program; default: `warren` beside this one.
    #[arg(long)]
    warren: Option<std::path::PathBuf>,
    /// Messages a turn.
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Turns of each; the median counts.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Messages worked on at once, and the prefetch, of everybody.
    #[arg(long, default_value_t = 100)]
    concurrency: u16,
    /// Milliseconds that the receiver takes that takes its time.
    #[arg(long, default_value_t = 10)]
    takes: u64,
    /// `classic` or `quorum`.
    #[arg(long, default_value = "classic")]
    queue_type: String,
    /// Without the consumers in Node and Python, whose packages are fetched into a temporary folder.
    #[arg(long)]
    no_peers: bool,
}

pub const QUEUE: &str = "warren-bench-consume";
const BATCH: usize = 500;

/// Time and processor time of one turn.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    pub took: Duration,
    pub cpu: f64,
}

/// Nanoseconds since the epoch.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub async fn run(args: &Args) -> Result<(), Fault> {
    let config = Config { url: Some(Secret::new(args.rabbit.as_str())), ..Config::default() };
    let rabbit = Arc::new(Rabbit::new("bench", &config)?);
    rabbit.delete_queue(QUEUE).await?;
    let arguments =
        [("x-queue-type".to_owned(), HeaderValue::Text(args.queue_type.clone()))].into_iter().collect();
    let queue = QueueSpec { name: QUEUE.to_owned(), durable: true, arguments, ..QueueSpec::default() };
    rabbit.declare_queue(&queue).await?;
    let receiver = Receiver::start().await?;
    let peers = if args.no_peers { Peers::default() } else { Peers::fetch() };
    let Args { messages, turns, concurrency, .. } = *args;
    println!(
        "{messages} messages of 1 KiB a turn, {concurrency} at once, median of {turns} turns, {} queue",
        args.queue_type
    );

    let (mut bare, mut posts) = (Vec::new(), Vec::new());
    let (mut none, mut http, mut relays) = (Vec::new(), Vec::new(), Vec::new());
    let mut others: Vec<(String, Vec<Turn>)> = Vec::new();
    for _ in 0..turns {
        fill(&rabbit, messages).await?;
        bare.push(bare_consumer(&args.rabbit, messages, concurrency).await?);
        fill(&rabbit, messages).await?;
        none.push(served(args, Steps::None, messages).await?);
        let took = post(receiver.address, messages, concurrency).await?;
        posts.push(Turn { took, cpu: 0.0 });
        receiver.take();
        fill(&rabbit, messages).await?;
        let began = Instant::now();
        relay(&args.rabbit, QUEUE, receiver.address, messages, concurrency).await?;
        // What it took of the processor cannot be told from what the receiver did, which is in this process too.
        relays.push(Turn { took: began.elapsed(), cpu: 0.0 });
        receiver.take();
        fill(&rabbit, messages).await?;
        http.push(served(args, Steps::Http(receiver.url()), messages).await?);
        receiver.take();
        for (name, command) in peers.all() {
            for target in [None, Some(receiver.url())] {
                fill(&rabbit, messages).await?;
                let turn = command.run(&args.rabbit, messages, concurrency, target.as_deref()).await?;
                receiver.take();
                let name = format!("{name}{}", if target.is_some() { ", http" } else { "" });
                match others.iter_mut().find(|(other, _)| *other == name) {
                    Some((_, turns)) => turns.push(turn),
                    None => others.push((name, vec![turn])),
                }
            }
        }
    }
    let floor = rate_of(messages, &bare);
    tell("bare consumer", messages, &bare, floor);
    tell("warren, no steps", messages, &none, floor);
    tell("bare POST loop", messages, &posts, floor);
    let slower = floor.min(rate_of(messages, &posts));
    tell("bare relay", messages, &relays, slower);
    tell("warren, http step", messages, &http, slower);
    println!("  (of the bare relay: {:.2})", rate_of(messages, &http) / rate_of(messages, &relays));
    for (name, turns) in &others {
        tell(name, messages, turns, if name.ends_with("http") { slower } else { floor });
    }
    peers.tell_missing();
    unhurried(args, &rabbit, floor).await?;
    latency(args, &rabbit, &receiver, rate_of(messages, &http) / 2.0).await?;
    rabbit.delete_queue(QUEUE).await?;
    rabbit.close().await;
    Ok(())
}

/// The `http` step with a receiver that takes its time, beside the slower of a bare consumer and a loop that posts to it.
async fn unhurried(args: &Args, rabbit: &Rabbit, consumer: f64) -> Result<(), Fault> {
    let Args { turns, concurrency, takes, .. } = *args;
    let receiver = Receiver::that_takes(Duration::from_millis(takes)).await?;
    // A second or two of it.
    let messages = (args.messages / 4).max(100);
    let (mut posts, mut http) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        let took = post(receiver.address, messages, concurrency).await?;
        posts.push(Turn { took, cpu: 0.0 });
        fill(rabbit, messages).await?;
        http.push(served(args, Steps::Http(receiver.url()), messages).await?);
        receiver.take();
    }
    println!("a receiver that takes {takes} ms");
    let slower = consumer.min(rate_of(messages, &posts));
    tell("bare POST loop", messages, &posts, slower);
    tell("warren, http step", messages, &http, slower);
    Ok(())
}

fn rate_of(messages: u64, turns: &[Turn]) -> f64 {
    rate(messages, median(turns.iter().map(|turn| turn.took).collect()))
}

fn tell(name: &str, messages: u64, turns: &[Turn], floor: f64) {
    let own = rate_of(messages, turns);
    let cpu = median(turns.iter().map(|turn| Duration::from_secs_f64(turn.cpu)).collect()).as_secs_f64();
    let per = cpu / messages as f64 * 100_000.0;
    let cpu = if cpu > 0.0 { format!("{per:>6.2} s of processor for 100,000") } else { String::new() };
    println!("  {name:<20} {own:>8.0}/s   ratio {:.2}   {cpu}", own / floor);
}

/// So many messages, each beginning with the time it was made at.
fn made(count: usize) -> Vec<Outbound> {
    let made = |_| {
        let body = format!("{:020}{}", now_ns(), "x".repeat(1004));
        let properties = Properties { persistent: true, ..Properties::default() };
        Outbound {
            route: Route::Queue(QUEUE.to_owned()),
            message: Message { body: Bytes::from(body), properties },
        }
    };
    (0..count).map(made).collect()
}

async fn publish(rabbit: &Rabbit, count: usize) -> Result<(), Fault> {
    for receipt in rabbit.publish(&made(count)).await {
        if !matches!(receipt, Receipt::Accepted(_)) {
            return Err(format!("a message was not accepted: {receipt:?}").into());
        }
    }
    Ok(())
}

/// So many messages in an empty queue.
async fn fill(rabbit: &Rabbit, messages: u64) -> Result<(), Fault> {
    rabbit.purge_queue(QUEUE).await?;
    let mut left = usize::try_from(messages)?;
    while left > 0 {
        let count = left.min(BATCH);
        publish(rabbit, count).await?;
        left -= count;
    }
    Ok(())
}

async fn bare_consumer(url: &str, messages: u64, prefetch: u16) -> Result<Turn, Fault> {
    let url = url.to_owned();
    let work = move || {
        let (began, cpu) = (Instant::now(), cpu_seconds());
        let consumed = crate::amqp::consume(&url, QUEUE, messages, prefetch);
        consumed.map_err(|error| error.to_string())?;
        Ok::<Turn, String>(Turn { took: began.elapsed(), cpu: cpu_seconds() - cpu })
    };
    Ok(tokio::task::spawn_blocking(work).await??)
}

/// A turn of the program: from the moment it has worked on some until it has on all. What it takes to start is left out.
async fn served(args: &Args, steps: Steps, messages: u64) -> Result<Turn, Fault> {
    let served = Served::start(args.warren.as_deref(), &args.rabbit, args.concurrency, &steps).await?;
    let warm = messages / 20;
    let first = served.worked_on(warm).await?;
    let (began, cpu) = (Instant::now(), served.cpu_seconds());
    let last = served.worked_on(messages).await?;
    let (took, cpu) = (began.elapsed(), served.cpu_seconds() - cpu);
    served.stop().await?;
    // As if it had been all of them.
    let whole = messages as f64 / (last - first).max(1) as f64;
    Ok(Turn { took: took.mul_f64(whole), cpu: cpu * whole })
}

/// From published to received: by the program's request, and by a consumer that does nothing with it. What is between the two is what
/// the program adds.
async fn latency(args: &Args, rabbit: &Rabbit, receiver: &Receiver, per_second: f64) -> Result<(), Fault> {
    rabbit.purge_queue(QUEUE).await?;
    let messages = (args.messages / 4).max(100);
    println!("at half load, {per_second:.0} messages a second");
    let mut delivered = Vec::new();
    let mut consumer = rabbit.consume(QUEUE, args.concurrency).await?;
    let listening = async {
        for _ in 0..messages {
            let Some(delivery) = consumer.next().await? else {
                return Err(Fault::from("the consumer ended"));
            };
            let (job, unsettled) = delivery.split();
            let sent = std::str::from_utf8(&job.message.body[..20])?.parse::<u64>()?;
            delivered.push(now_ns().saturating_sub(sent));
            unsettled.settle(Settlement::Ack).await?;
        }
        Ok(())
    };
    let (paced, listened) = tokio::join!(pace(rabbit, messages, per_second), listening);
    paced?;
    listened?;
    consumer.cancel().await;
    drop(consumer);
    let steps = Steps::Http(receiver.url());
    let served = Served::start(args.warren.as_deref(), &args.rabbit, args.concurrency, &steps).await?;
    // So that its connections are there, as the consumer's is.
    let warm = messages / 5;
    pace(rabbit, warm, per_second).await?;
    served.worked_on(warm).await?;
    receiver.take();
    pace(rabbit, messages, per_second).await?;
    served.worked_on(warm + messages).await?;
    let requested = receiver.take();
    served.stop().await?;
    let (bare, own) = (sorted(delivered), sorted(requested));
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let (bare, own) = (at(&bare, share), at(&own, share));
        println!(
            "  {name}: delivered after {bare:.3} ms, request received after {own:.3} ms, added {:.3} ms",
            own - bare
        );
    }
    Ok(())
}

/// Publishes one at a time, evenly.
async fn pace(rabbit: &Rabbit, messages: u64, per_second: f64) -> Result<(), Fault> {
    let began = tokio::time::Instant::now();
    // Timers tick in milliseconds: a few together rather than late.
    let together = (per_second / 1000.0).ceil().max(1.0) as u64;
    let mut sent = 0;
    while sent < messages {
        let due = began + Duration::from_secs_f64(sent as f64 / per_second.max(1.0));
        tokio::time::sleep_until(due).await;
        let count = together.min(messages - sent);
        publish(rabbit, usize::try_from(count)?).await?;
        sent += count;
    }
    Ok(())
}

fn sorted(mut times: Vec<u64>) -> Vec<u64> {
    times.sort_unstable();
    times
}

/// Milliseconds.
fn at(sorted: &[u64], share: f64) -> f64 {
    let place = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or(0) as f64 / 1e6
}
