//! The hub as a process, beside what bounds it: publishing by HTTP with the broker's confirm, beside a bare confirmed publisher and a bare
//! HTTP server; delivering to a callback, beside a bare consumer and a bare POST loop; what receivers that hang cost the others; and what
//! idle subscriptions cost. Same broker, same run, the same number of requests at once, taking turns.

mod hanging;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args as ClapArgs, ValueEnum};
use warren_connectors::kit::setting::Secret;
use warren_connectors::kit::users::hash_password;
use warren_connectors::rabbitmq::{Config, QueueSpec, Rabbit};
use warren_engine::message::{Message, Outbound, Properties, Receipt, Route};
use warren_engine::ports::Broker;

use crate::amqp::consume;
use crate::figures::{median, rate};
use crate::floor::amqp::{Load, publish};
use crate::hub_wire::{Receiver, ask, post_all};
use crate::program::Program;
use crate::sync::Fault;

/// What to run.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The broker: `amqp://user:password@host:port/vhost`.
    #[arg(long, env = "WARREN_BENCH_RABBIT_URL")]
    rabbit: String,
    /// The program; by default the one beside this one.
    #[arg(long)]
    warren: Option<PathBuf>,
    /// Messages a turn.
    #[arg(long, default_value_t = 20_000)]
    messages: u64,
    /// Turns of each; the median counts.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Requests at once.
    #[arg(long, default_value_t = 64)]
    at_once: u16,
    /// Idle subscriptions.
    #[arg(long, default_value_t = 1_000)]
    idle: usize,
    /// Subscriptions beside those that hang.
    #[arg(long, default_value_t = 8)]
    beside: usize,
    /// Messages a second to all of these together; by default half of what was delivered before.
    #[arg(long)]
    pace: Option<f64>,
    /// Seconds of each turn of those.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// One part alone.
    #[arg(long)]
    only: Option<Part>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Publish,
    Deliver,
    Hanging,
    Idle,
}

impl Args {
    fn has(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }
}

const QUEUE: &str = "warren-bench-hub";
const BODY_BYTES: usize = 1024;
const IDLE_FOR: Duration = Duration::from_secs(10);

/// Publishes, delivers, and idles.
pub async fn run(args: &Args) -> Result<(), Fault> {
    let config = Config { url: Some(Secret::new(args.rabbit.as_str())), ..Config::default() };
    let side = Rabbit::new("bench", &config)?;
    side.delete_queue(QUEUE).await?;
    let spec = QueueSpec { name: QUEUE.to_owned(), durable: true, ..QueueSpec::default() };
    side.declare_queue(&spec).await?;
    let hub = Served::start(args.warren.as_deref(), &args.rabbit, args.at_once).await?;
    println!(
        "{} messages of {BODY_BYTES} B a turn, {} at once, median of {} turns",
        args.messages, args.at_once, args.turns
    );
    if args.has(Part::Publish) {
        publishing(args, &side, &hub).await?;
    }
    let mut pace = args.pace;
    if args.has(Part::Deliver) || (args.has(Part::Hanging) && pace.is_none()) {
        let rate = delivering(args, &side, &hub).await?;
        pace = pace.or(Some(rate / 2.0));
    }
    side.delete_queue(QUEUE).await?;
    if let Some(pace) = pace.filter(|_| args.has(Part::Hanging)) {
        hanging::run(args, &side, &hub, pace).await?;
    }
    if args.has(Part::Idle) {
        idling(args, &side, hub).await?;
    } else {
        hub.stop().await?;
    }
    side.close().await;
    Ok(())
}

/// A hub as a process.
pub struct Served {
    program: Program,
    vhost: String,
}

impl Served {
    pub async fn start(program: Option<&Path>, rabbit: &str, at_once: u16) -> Result<Served, Fault> {
        let hash = hash_password("bench")?;
        let vhost = url::Url::parse(rabbit)?.path().trim_start_matches('/').to_owned();
        let vhost = if vhost.is_empty() { "%2F".to_owned() } else { vhost };
        let plain = percent_encoding::percent_decode_str(&vhost).decode_utf8()?.into_owned();
        let config = serde_json::json!({
            "http": {"listen": "127.0.0.1:0"},
            "brokers": {"rabbit": {"type": "rabbitmq", "url": rabbit}},
            "hub": {
                "broker": "rabbit", "allow_callbacks": ["127.0.0.1"], "max_in_flight": at_once,
                // So that a turn has receivers that hang through all that comes of it: late answers, retries, probes.
                "http_request_options": {"timeout": "2s"},
                "users": {"bench": {"password_hash": hash,
                    "permissions": {plain: {"configure": ".*", "write": ".*", "read": ".*"}}}},
            },
        });
        // JSON is YAML.
        let served = Served { program: Program::start(program, &config.to_string()).await?, vhost };
        while !ask(served.address(), "GET", "/readyz", b"").await?.1.contains("\"running\"") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(served)
    }

    pub fn address(&self) -> SocketAddr {
        self.program.address
    }

    pub fn path(&self, facet: &str, queue: &str) -> String {
        format!("/{}/{facet}/q/{queue}", self.vhost)
    }

    pub async fn subscribe(&self, queue: &str, topic: &str, callback: &str) -> Result<(), Fault> {
        let form = format!(
            "hub.mode=subscribe&hub.verify=sync&hub.topic={topic}&hub.callback={}",
            callback.replace(':', "%3A").replace('/', "%2F")
        );
        let (status, body) =
            ask(self.address(), "POST", &self.path("subscribe", queue), form.as_bytes()).await?;
        if status == 204 { Ok(()) } else { Err(format!("not subscribed: {status} {body}").into()) }
    }

    async fn unsubscribe(&self, queue: &str, topic: &str, callback: &str) -> Result<(), Fault> {
        let path = format!("{}?hub.topic={topic}&hub.callback={callback}", self.path("subscribe", queue));
        let (status, body) = ask(self.address(), "DELETE", &path, b"").await?;
        if status == 200 { Ok(()) } else { Err(format!("not removed: {status} {body}").into()) }
    }

    /// Waits until so many subscriptions are delivered to.
    async fn consumes(&self, count: usize) -> Result<(), Fault> {
        loop {
            let (_, body) = ask(self.address(), "GET", "/readyz", b"").await?;
            let ready: serde_json::Value = serde_json::from_str(&body)?;
            if ready["hub"]["consuming"] == count {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Seconds of processor time, and MiB of memory.
    fn cost(&self) -> (f64, f64) {
        let of = |file: &str| {
            let id = self.program.id().unwrap_or_default();
            std::fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default()
        };
        let stat = of("stat");
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        let status = of("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
        ((ticks(11) + ticks(12)) / 100.0, kib.unwrap_or(0.0) / 1024.0)
    }

    pub async fn stop(self) -> Result<(), Fault> {
        self.program.kill().await
    }
}

async fn publishing(args: &Args, side: &Rabbit, hub: &Served) -> Result<(), Fault> {
    let (mut publisher, mut server, mut own) = (Vec::new(), Vec::new(), Vec::new());
    let bare = Receiver::start().await?;
    let path = format!("{}?hub.persistmsg=1", hub.path("endpoint", QUEUE));
    let mut cpu = 0.0;
    for _ in 0..args.turns {
        side.purge_queue(QUEUE).await?;
        publisher.push(bare_publish(args).await?);
        server.push(post_all(bare.address(), "/", args.at_once, args.messages, BODY_BYTES, 200).await?);
        side.purge_queue(QUEUE).await?;
        let (before, _) = hub.cost();
        own.push(post_all(hub.address(), &path, args.at_once, args.messages, BODY_BYTES, 202).await?);
        cpu += hub.cost().0 - before;
    }
    side.purge_queue(QUEUE).await?;
    print("publish", args, cpu, own, &[("confirmed publisher", publisher), ("HTTP server", server)]);
    Ok(())
}

async fn bare_publish(args: &Args) -> Result<Duration, Fault> {
    let (url, messages, window) = (args.rabbit.clone(), args.messages, u64::from(args.at_once));
    let work = move || {
        let body = vec![b'x'; BODY_BYTES];
        let load = Load { url: &url, queue: QUEUE, messages, window, batch: 1, channels: 4, body: &body };
        publish(&load).map_err(|error| error.to_string())
    };
    Ok(tokio::task::spawn_blocking(work).await??)
}

/// How many a second the hub delivers.
async fn delivering(args: &Args, side: &Rabbit, hub: &Served) -> Result<f64, Fault> {
    let (mut consumer, mut posts, mut own) = (Vec::new(), Vec::new(), Vec::new());
    let receiver = Receiver::start().await?;
    let mut cpu = 0.0;
    for turn in 0..args.turns {
        fill(args, side).await?;
        let (url, messages, prefetch) = (args.rabbit.clone(), args.messages, args.at_once);
        let began = Instant::now();
        tokio::task::spawn_blocking(move || {
            consume(&url, QUEUE, messages, prefetch).map_err(|error| error.to_string())
        })
        .await??;
        consumer.push(began.elapsed());
        posts.push(post_all(receiver.address(), "/", args.at_once, args.messages, BODY_BYTES, 200).await?);
        fill(args, side).await?;
        let callback = format!("http://{}/{turn}", receiver.address());
        let (before, _) = hub.cost();
        receiver.forget();
        let began = Instant::now();
        hub.subscribe(QUEUE, "bench", &callback).await?;
        receiver.wait_for(args.messages).await;
        own.push(began.elapsed());
        cpu += hub.cost().0 - before;
        hub.unsubscribe(QUEUE, "bench", &callback).await?;
    }
    let rate = rate(args.messages, median(own.clone()));
    print("deliver", args, cpu, own, &[("consumer", consumer), ("POST loop", posts)]);
    Ok(rate)
}

/// Puts the messages of a turn into the queue.
async fn fill(args: &Args, side: &Rabbit) -> Result<(), Fault> {
    side.purge_queue(QUEUE).await?;
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let outbound = || Outbound {
        route: Route::Queue(QUEUE.to_owned()),
        message: Message { body: body.clone(), properties: Properties::default() },
    };
    let mut left = args.messages;
    while left > 0 {
        let count = left.min(1000);
        let batch: Vec<Outbound> = (0..count).map(|_| outbound()).collect();
        for receipt in side.publish(&batch).await {
            if let Receipt::Refused(failure) | Receipt::Unknown(failure) = receipt {
                return Err(failure.into());
            }
        }
        left -= count;
    }
    Ok(())
}

async fn idling(args: &Args, side: &Rabbit, hub: Served) -> Result<(), Fault> {
    let receiver = Receiver::start().await?;
    let (_, without) = hub.cost();
    let began = Instant::now();
    let names: Vec<String> = (0..args.idle).map(|number| format!("{QUEUE}-{number}")).collect();
    for name in &names {
        side.declare_queue(&QueueSpec { name: name.clone(), durable: true, ..QueueSpec::default() }).await?;
        hub.subscribe(name, "idle", &format!("http://{}/{name}", receiver.address())).await?;
    }
    let took = began.elapsed();
    hub.consumes(args.idle).await?;
    let (before, with) = hub.cost();
    tokio::time::sleep(IDLE_FOR).await;
    let (after, _) = hub.cost();
    println!(
        "{} idle subscriptions, one queue each: made in {:.1} s, {with:.0} MiB ({without:.0} MiB without), {:.2} % of a processor",
        args.idle,
        took.as_secs_f64(),
        (after - before) / IDLE_FOR.as_secs_f64() * 100.0
    );
    // Before its queues go: it would tell of each.
    hub.stop().await?;
    for name in &names {
        side.delete_queue(name).await?;
    }
    Ok(())
}

fn print(what: &str, args: &Args, cpu: f64, own: Vec<Duration>, floors: &[(&str, Vec<Duration>)]) {
    let own = rate(args.messages, median(own));
    let each = cpu * 1e6 / (args.messages * args.turns as u64) as f64;
    println!("{what}: hub {own:.0}/s, {each:.0} µs of a processor each");
    for (name, turns) in floors {
        let floor = rate(args.messages, median(turns.clone()));
        println!("  bare {name:<20} {floor:>8.0}/s   ratio {:.2}", own / floor);
    }
}
