//! Our RabbitMQ client beside a bare one that writes frames made beforehand and reads answers: same broker, same window,
//! same run, taking turns. What differs is what the receipts, the properties and the deliveries of each message cost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args as ClapArgs;
use futures_util::stream::{FuturesUnordered, StreamExt};
use warren_connectors::kit::setting::Secret;
use warren_connectors::rabbitmq::{Config, QueueSpec, Rabbit};
use warren_engine::delivery::Settlement;
use warren_engine::message::{HeaderValue, Headers, Message, Outbound, Properties, Receipt, Route};
use warren_engine::ports::Broker;

use crate::figures::{cpu_seconds, median, rate};
use crate::floor::amqp::{Load, deliveries, publish};
use crate::sync::Fault;

/// What to run.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The broker: `amqp://user:password@host:port/vhost`.
    #[arg(long, env = "WARREN_BENCH_RABBIT_URL")]
    rabbit: String,
    /// Messages a turn.
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Turns of each; the median counts.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// `classic` or `quorum`.
    #[arg(long, default_value = "classic")]
    queue_type: String,
}

const QUEUE: &str = "warren-bench-amqp";
const WINDOW: u64 = 2_048;
const BATCH: u64 = 256;

/// Time and processor time of one turn.
#[derive(Debug, Clone, Copy)]
struct Turn {
    took: Duration,
    cpu: f64,
}

/// Publishes and consumes, both ways.
pub async fn run(args: &Args) -> Result<(), Fault> {
    let url = &args.rabbit;
    let rabbit = |channels| {
        let config =
            Config { url: Some(Secret::new(url.as_str())), channels: Some(channels), ..Config::default() };
        Rabbit::new("bench", &config).map(Arc::new)
    };
    let side = rabbit(1)?;
    let arguments: Headers =
        [("x-queue-type".to_owned(), HeaderValue::Text(args.queue_type.clone()))].into_iter().collect();
    side.delete_queue(QUEUE).await?;
    let spec = QueueSpec { name: QUEUE.to_owned(), durable: true, arguments, ..QueueSpec::default() };
    side.declare_queue(&spec).await?;

    println!("{} messages a turn, median of {} turns, {} queue", args.messages, args.turns, args.queue_type);
    println!("publish, window {WINDOW}, batches of {BATCH}");
    for body in [200, 1024] {
        for channels in [1, 4] {
            let ours = rabbit(channels)?;
            let (mut floor, mut own) = (Vec::new(), Vec::new());
            for _ in 0..args.turns {
                side.purge_queue(QUEUE).await?;
                floor.push(bare_publish(url, args.messages, channels, body).await?);
                side.purge_queue(QUEUE).await?;
                own.push(our_publish(&ours, args.messages, body).await?);
            }
            ours.close().await;
            print(&format!("{body} B, {channels} channels"), args.messages, &floor, &own);
        }
    }
    println!("consume 1 KiB, each acknowledged; bare: one `multiple` for each read");
    let ours = rabbit(4)?;
    for prefetch in [10, 100, 1_000] {
        let (mut floor, mut own) = (Vec::new(), Vec::new());
        for _ in 0..args.turns {
            side.purge_queue(QUEUE).await?;
            our_publish(&ours, args.messages, 1024).await?;
            floor.push(bare_consume(url, args.messages, prefetch).await?);
            side.purge_queue(QUEUE).await?;
            our_publish(&ours, args.messages, 1024).await?;
            own.push(our_consume(&side, args.messages, prefetch).await?);
        }
        print(&format!("prefetch {prefetch}"), args.messages, &floor, &own);
    }
    ours.close().await;
    side.delete_queue(QUEUE).await?;
    side.close().await;
    Ok(())
}

fn print(name: &str, messages: u64, floor: &[Turn], own: &[Turn]) {
    let time = |turns: &[Turn]| median(turns.iter().map(|turn| turn.took).collect());
    let cpu = |turns: &[Turn]| {
        median(turns.iter().map(|turn| Duration::from_secs_f64(turn.cpu)).collect()).as_secs_f64() * 1e6
            / messages as f64
    };
    let (floor_rate, own_rate) = (rate(messages, time(floor)), rate(messages, time(own)));
    println!(
        "  {name:<20} bare {floor_rate:>8.0}/s {:>5.2} µs   ours {own_rate:>8.0}/s {:>5.2} µs   ratio {:.2}",
        cpu(floor),
        cpu(own),
        own_rate / floor_rate
    );
}

/// Processor time of the whole process counts, so only one of them runs at a time.
async fn timed<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<Turn, Fault> {
    let (began, cpu) = (Instant::now(), cpu_seconds());
    work.await?;
    Ok(Turn { took: began.elapsed(), cpu: cpu_seconds() - cpu })
}

async fn bare_publish(url: &str, messages: u64, channels: u16, body: usize) -> Result<Turn, Fault> {
    let url = url.to_owned();
    timed(async {
        let work = move || {
            let body = vec![b'x'; body];
            let load = Load {
                url: &url,
                queue: QUEUE,
                messages,
                window: WINDOW,
                batch: BATCH,
                channels,
                body: &body,
            };
            publish(&load).map_err(|error| error.to_string())
        };
        Ok(tokio::task::spawn_blocking(work).await??)
    })
    .await
}

async fn our_publish(rabbit: &Rabbit, messages: u64, body: usize) -> Result<Turn, Fault> {
    let body = Bytes::from(vec![b'x'; body]);
    let batch = |first: u64| -> Vec<Outbound> {
        (first..messages.min(first + BATCH))
            .map(|number| Outbound {
                route: Route::Queue(QUEUE.to_owned()),
                message: Message {
                    body: body.clone(),
                    properties: Properties {
                        content_type: Some("application/json".to_owned()),
                        message_id: Some(format!("{number:032x}")),
                        timestamp: Some(1_700_000_000),
                        ..Properties::default()
                    },
                },
            })
            .collect()
    };
    timed(async {
        let mut under_way = FuturesUnordered::new();
        let mut firsts = (0..messages).step_by(BATCH as usize);
        loop {
            while under_way.len() < (WINDOW / BATCH) as usize {
                let Some(first) = firsts.next() else { break };
                let batch = batch(first);
                under_way.push(async move { rabbit.publish(&batch).await });
            }
            let Some(receipts) = under_way.next().await else { return Ok(()) };
            for receipt in receipts {
                if !matches!(receipt, Receipt::Accepted(_)) {
                    return Err(format!("a message was not accepted: {receipt:?}").into());
                }
            }
        }
    })
    .await
}

async fn our_consume(rabbit: &Rabbit, messages: u64, prefetch: u16) -> Result<Turn, Fault> {
    timed(async {
        let mut consumer = rabbit.consume(QUEUE, prefetch).await?;
        for _ in 0..messages {
            let Some(delivery) = consumer.next().await? else { return Err("the consumer ended".into()) };
            let (_job, unsettled) = delivery.split();
            unsettled.settle(Settlement::Ack).await?;
        }
        consumer.cancel().await;
        Ok(())
    })
    .await
}

async fn bare_consume(url: &str, messages: u64, prefetch: u16) -> Result<Turn, Fault> {
    let url = url.to_owned();
    timed(async {
        let work = move || consume(&url, QUEUE, messages, prefetch).map_err(|error| error.to_string());
        Ok(tokio::task::spawn_blocking(work).await??)
    })
    .await
}

/// Reads deliveries as they come and acknowledges all of a read at once.
pub fn consume(url: &str, queue: &str, messages: u64, prefetch: u16) -> Result<(), Fault> {
    let mut stream: TcpStream = deliveries(url, queue, prefetch)?;
    let (mut buffer, mut filled) = (vec![0u8; 256 << 10], 0);
    let (mut bodies, mut tag) = (0, 0u64);
    while bodies < messages {
        let count = stream.read(&mut buffer[filled..])?;
        if count == 0 {
            return Err("the broker hung up".into());
        }
        filled += count;
        let (mut at, before) = (0, tag);
        while let Some(size) = size(&buffer[at..filled]) {
            let frame = &buffer[at..at + size];
            match (frame[0], frame.get(7..11)) {
                (1, Some([0, 60, 0, 60])) => {
                    let consumer = usize::from(frame[11]);
                    tag = u64::from_be_bytes(frame[12 + consumer..20 + consumer].try_into()?);
                }
                (3, _) => bodies += 1, // each body is smaller than a frame
                _ => {}
            }
            at += size;
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        if tag > before {
            let mut ack = vec![1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80];
            ack.extend_from_slice(&tag.to_be_bytes());
            ack.extend_from_slice(&[1, 0xce]);
            stream.write_all(&ack)?;
        }
    }
    Ok(())
}

/// The size of the first frame, if it is there whole.
pub fn size(bytes: &[u8]) -> Option<usize> {
    let payload = u32::from_be_bytes(bytes.get(3..7)?.try_into().ok()?) as usize;
    (bytes.len() >= payload + 8).then_some(payload + 8)
}
