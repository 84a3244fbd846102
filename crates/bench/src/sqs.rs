//! Publishing to SQS beside a bare loop of `SendMessageBatch` over AWS's own client: the same endpoint, which answers after ten
//! milliseconds, the same number of requests under way, the same messages, taking turns. What differs is what packing, receipts,
//! digests and checks of each message cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Region};
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use aws_smithy_http_client::Builder;
use bytes::Bytes;
use clap::Args as ClapArgs;
use futures_util::stream::{FuturesUnordered, StreamExt};
use warren_connectors::kit::setting::Secret;
use warren_connectors::sqs::config::AccessKey;
use warren_connectors::sqs::{Config, Sqs};
use warren_engine::message::{HeaderValue, Message, Outbound, Properties, Receipt, Route};
use warren_engine::ports::Broker;
use warren_engine::sqs::{DEDUPLICATION_ID, GROUP_ID};
use warren_testkit::sqs::{Endpoint, REGION};

use crate::figures::{cpu_seconds, median, rate};
use crate::sync::Fault;

/// What to run.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Messages a turn.
    #[arg(long, default_value_t = 40_000)]
    messages: u64,
    /// Turns of each; the median counts.
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// How long the endpoint takes to answer, in milliseconds.
    #[arg(long, default_value_t = 10)]
    answer_ms: u64,
    /// Requests under way at once.
    #[arg(long, value_delimiter = ',', default_values_t = [8, 16, 32])]
    concurrency: Vec<u16>,
}

/// Messages of one call, and calls under way: as a sync has them.
const BATCH: u64 = 500;
const BATCHES: usize = 8;
const PLAIN: &str = "plain";
const FIFO: &str = "lanes.fifo";

/// Publishes both ways.
pub async fn run(args: &Args) -> Result<(), Fault> {
    // On a runtime of its own, so that answers do not wait for the work that is measured.
    let serving = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let endpoint = serving.spawn(Endpoint::start()).await?;
    for queue in [PLAIN, FIFO] {
        endpoint.queue(queue);
    }
    endpoint.delay(Duration::from_millis(args.answer_ms));
    endpoint.forget_all();
    println!(
        "{} messages a turn, median of {} turns, answers after {} ms",
        args.messages, args.turns, args.answer_ms
    );
    for body in [200, 1024] {
        for concurrency in &args.concurrency {
            let bare = bare_client(&endpoint.url());
            let ours = Sqs::new("bench", &config(&endpoint.url(), *concurrency))?;
            for (name, queue) in [("standard", PLAIN), ("fifo, 1000 groups", FIFO)] {
                let (mut floor, mut own) = (Vec::new(), Vec::new());
                for _ in 0..args.turns {
                    floor.push(
                        timed(bare_publish(
                            &bare,
                            &endpoint.queue_url(queue),
                            args.messages,
                            *concurrency,
                            body,
                        ))
                        .await?,
                    );
                    own.push(timed(our_publish(&ours, queue, args.messages, body)).await?);
                }
                print(&format!("{body} B, {concurrency} at once, {name}"), args.messages, &floor, &own);
            }
        }
    }
    drop(endpoint);
    serving.shutdown_background();
    Ok(())
}

/// Time and processor time, of the endpoint too.
async fn timed(work: impl Future<Output = Result<(), Fault>>) -> Result<(Duration, f64), Fault> {
    let (began, cpu) = (Instant::now(), cpu_seconds());
    work.await?;
    Ok((began.elapsed(), cpu_seconds() - cpu))
}

fn print(name: &str, messages: u64, floor: &[(Duration, f64)], own: &[(Duration, f64)]) {
    let time = |turns: &[(Duration, f64)]| median(turns.iter().map(|(took, _)| *took).collect());
    let cpu = |turns: &[(Duration, f64)]| {
        let times = turns.iter().map(|(_, cpu)| Duration::from_secs_f64(*cpu)).collect();
        median(times).as_secs_f64() * 1e6 / messages as f64
    };
    let (floor_rate, own_rate) = (rate(messages, time(floor)), rate(messages, time(own)));
    println!(
        "  {name:<36} bare {floor_rate:>7.0}/s {:>6.2} µs   ours {own_rate:>7.0}/s {:>6.2} µs   ratio {:.2}",
        cpu(floor),
        cpu(own),
        own_rate / floor_rate
    );
}

fn config(url: &str, concurrency: u16) -> Config {
    Config {
        region: Some(REGION.to_owned()),
        access_key: Some(AccessKey { id: "test".into(), secret: Secret::new("secret"), session_token: None }),
        endpoint_url: Some(url.to_owned()),
        concurrency: Some(concurrency),
        ..Config::default()
    }
}

fn bare_client(url: &str) -> Client {
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static(REGION))
        .credentials_provider(Credentials::new("test", "secret", None, None, "bench"))
        .endpoint_url(url)
        .http_client(Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

/// As many tasks as requests under way, each one request after another. FIFO parameters are sent where the queue wants them.
async fn bare_publish(
    client: &Client,
    url: &str,
    messages: u64,
    concurrency: u16,
    body: usize,
) -> Result<(), Fault> {
    let next = Arc::new(AtomicU64::new(0));
    let body = "x".repeat(body);
    let is_fifo = url.strip_suffix(".fifo").is_some();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..concurrency {
        let (client, url, next, body) = (client.clone(), url.to_owned(), next.clone(), body.clone());
        tasks.spawn(async move {
            loop {
                let first = next.fetch_add(10, Ordering::Relaxed);
                if first >= messages {
                    return Ok::<(), String>(());
                }
                let entries = (first..messages.min(first + 10)).map(|number| {
                    let mut entry = SendMessageBatchRequestEntry::builder()
                        .id((number - first).to_string())
                        .message_body(body.as_str());
                    if is_fifo {
                        entry = entry
                            .message_group_id(format!("g{}", number % 1000))
                            .message_deduplication_id(format!("{number:032x}"));
                    }
                    entry.build().expect("id and body are set")
                });
                let request =
                    client.send_message_batch().queue_url(&url).set_entries(Some(entries.collect()));
                let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
                if !answer.failed().is_empty() {
                    return Err(format!("{:?}", answer.failed()));
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn our_publish(broker: &Sqs, queue: &str, messages: u64, body: usize) -> Result<(), Fault> {
    let body = Bytes::from(vec![b'x'; body]);
    let batch = |first: u64| -> Vec<Outbound> {
        (first..messages.min(first + BATCH))
            .map(|number| {
                let mut properties =
                    Properties { message_id: Some(number.to_string()), ..Properties::default() };
                if queue == FIFO {
                    let headers = &mut properties.headers;
                    headers.set(GROUP_ID, HeaderValue::Text(format!("g{}", number % 1000)));
                    headers.set(DEDUPLICATION_ID, HeaderValue::Text(format!("{number:032x}")));
                }
                let message = Message { body: body.clone(), properties };
                Outbound { route: Route::Queue(queue.to_owned()), message }
            })
            .collect()
    };
    let mut under_way = FuturesUnordered::new();
    let mut firsts = (0..messages).step_by(BATCH as usize);
    loop {
        while under_way.len() < BATCHES {
            let Some(first) = firsts.next() else { break };
            let batch = batch(first);
            under_way.push(async move { broker.publish(&batch).await });
        }
        let Some(receipts) = under_way.next().await else { return Ok(()) };
        for receipt in receipts {
            if !matches!(receipt, Receipt::Accepted(_)) {
                return Err(format!("a message was not accepted: {receipt:?}").into());
            }
        }
    }
}
