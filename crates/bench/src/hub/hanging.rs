//! What receivers that hang cost the others: messages at a steady pace, well below what can be delivered, to subscriptions whose receivers are
//! well, without and with some beside them whose receivers take every request and never answer. Told is how long a message was on its
//! way, from before it is published to when its request was read.
//!
//! Those that hang have more waiting than they ever begin, so each holds as many requests as it may; what times out is tried again,
//! and their breakers open and probe. Without and with take turns, so that a machine that is slower for a while is slower for both.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use warren_connectors::rabbitmq::{QueueSpec, Rabbit};
use warren_engine::message::{Message, Outbound, Properties, Receipt, Route};
use warren_engine::ports::Broker;

use super::{Args, BODY_BYTES, QUEUE, Served};
use crate::figures::median;
use crate::hub_wire::{Manner, Receiver};
use crate::sync::Fault;

/// How many hang, in turn.
const HANGING: [usize; 3] = [0, 1, 10];
/// Messages for each that hangs.
const WAITING: usize = 2_000;
/// The pace is kept in steps of this.
const STEP: Duration = Duration::from_millis(5);
/// What is thrown away at the beginning of each turn.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long the last messages may take.
const LAST: Duration = Duration::from_secs(60);

/// Half and the last hundredth of the ways, by how many hang.
#[derive(Default)]
struct Ways {
    p50: Vec<Duration>,
    p99: Vec<Duration>,
}

/// Prints the ways without and with.
pub(super) async fn run(args: &Args, side: &Rabbit, hub: &Served, pace: f64) -> Result<(), Fault> {
    let (good, bad) = (Receiver::start().await?, Receiver::with(Manner::Hangs).await?);
    let names = |what: &str, count| (0..count).map(|at| format!("{QUEUE}-{what}-{at}")).collect::<Vec<_>>();
    let (beside, stuck) = (names("beside", args.beside), names("hangs", HANGING[HANGING.len() - 1]));
    for name in &beside {
        side.declare_queue(&QueueSpec { name: name.clone(), durable: true, ..QueueSpec::default() }).await?;
        hub.subscribe(name, "beside", &format!("http://{}/{name}", good.address())).await?;
    }
    hub.consumes(beside.len()).await?;
    let mut ways = HANGING.map(|_| Ways::default());
    for _ in 0..args.turns {
        for (of, &count) in ways.iter_mut().zip(&HANGING) {
            for name in &stuck[..count] {
                hangs(side, name).await?;
                hub.subscribe(name, "hangs", &format!("http://{}/{name}", bad.address())).await?;
            }
            hub.consumes(beside.len() + count).await?;
            bad.forget();
            let mut taken = paced(args, side, &good, &beside, pace).await?;
            if count > 0 && bad.count() == 0 {
                return Err("nobody hung".into());
            }
            taken.sort_unstable();
            of.p50.push(taken[taken.len() / 2]);
            of.p99.push(taken[taken.len() * 99 / 100]);
            for name in &stuck[..count] {
                hub.unsubscribe(name, "hangs", &format!("http://{}/{name}", bad.address())).await?;
            }
            hub.consumes(beside.len()).await?;
            for name in &stuck[..count] {
                side.delete_queue(name).await?;
            }
        }
    }
    println!("hanging: {pace:.0}/s to {} subscriptions, from published to requested", beside.len());
    let first = (median(ways[0].p50.clone()), median(ways[0].p99.clone()));
    for (of, count) in ways.into_iter().zip(HANGING) {
        let (p50, p99) = (median(of.p50), median(of.p99));
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let ratio = |time: Duration, other: Duration| time.as_secs_f64() / other.as_secs_f64();
        println!(
            "  {count:>2} hang beside  p50 {:>7.2} ms  ratio {:.2}   p99 {:>7.2} ms  ratio {:.2}",
            ms(p50),
            ratio(p50, first.0),
            ms(p99),
            ratio(p99, first.1)
        );
    }
    for name in &beside {
        hub.unsubscribe(name, "beside", &format!("http://{}/{name}", good.address())).await?;
    }
    hub.consumes(0).await?;
    for name in &beside {
        side.delete_queue(name).await?;
    }
    Ok(())
}

/// A queue with more in it than a receiver that hangs ever begins.
async fn hangs(side: &Rabbit, name: &str) -> Result<(), Fault> {
    side.declare_queue(&QueueSpec { name: name.to_owned(), durable: true, ..QueueSpec::default() }).await?;
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let outbound = || outbound(name, body.clone());
    taken(side.publish(&(0..WAITING).map(|_| outbound()).collect::<Vec<_>>()).await)
}

fn outbound(queue: &str, body: Bytes) -> Outbound {
    Outbound {
        route: Route::Queue(queue.to_owned()),
        message: Message { body, properties: Properties::default() },
    }
}

fn taken(receipts: Vec<Receipt>) -> Result<(), Fault> {
    for receipt in receipts {
        if let Receipt::Refused(failure) | Receipt::Unknown(failure) = receipt {
            return Err(failure.into());
        }
    }
    Ok(())
}

/// Publishes at a pace for the time of a turn; how long each message was on its way.
async fn paced(
    args: &Args,
    side: &Rabbit,
    good: &Receiver,
    queues: &[String],
    pace: f64,
) -> Result<Vec<Duration>, Fault> {
    let mut ticks = tokio::time::interval(STEP);
    let began = Instant::now();
    let (mut published, mut warm) = (0, false);
    let mut under_way = FuturesUnordered::new();
    let whole = WARM_UP + Duration::from_secs(args.seconds);
    good.forget();
    while began.elapsed() < whole {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(receipts) = under_way.next(), if !under_way.is_empty() => {
                taken(receipts)?;
                continue;
            }
        }
        if !warm && began.elapsed() >= WARM_UP {
            warm = true;
            good.ways();
        }
        let due = (began.elapsed().as_secs_f64() * pace) as u64;
        let batch: Vec<Outbound> = (published..due)
            .map(|number| {
                let queue = &queues[number as usize % queues.len()];
                outbound(queue, Bytes::from(good.body(BODY_BYTES)))
            })
            .collect();
        published = due;
        if !batch.is_empty() {
            under_way.push(async move { side.publish(&batch).await });
        }
    }
    while let Some(receipts) = under_way.next().await {
        taken(receipts)?;
    }
    tokio::time::timeout(LAST, good.wait_for(published))
        .await
        .map_err(|_| format!("{} of {published} messages came: the pace is too high", good.count()))?;
    Ok(good.ways())
}
