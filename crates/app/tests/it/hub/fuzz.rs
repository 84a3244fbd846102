//! Requests of all kinds, most of them broken, over raw sockets: each gets an answer, none of them one that nobody declared, nothing
//! panics, and the hub serves on.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use fastrand::Rng;
use tokio::task::JoinSet;

use super::client::{Ask, Reply, raw};
use super::world::World;

/// Sent at once.
const LANES: usize = 8;

const METHODS: &[&str] = &[
    "GET", "GET", "POST", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "get",
    "M-SEARCH", "\u{1}", "",
];

const PATHS: &[&str] = &[
    "/endpoint/q/foo",
    "/endpoint/x/fx",
    "/endpoint/q/",
    "/endpoint/x/",
    "/%2F/endpoint/q/a/b",
    "/V/endpoint/x/fx",
    "/nosuch/endpoint/q/a",
    "/subscribe/q/foo",
    "/subscribe/x/fx",
    "/subscriptions",
    "/subscriptions/",
    "/subscriptions/errors",
    "/subscriptions/q/foo",
    "/hub",
    "/topics/%2F/news/a",
    "/topics/%FF/%00/",
    "/",
    "/static/application.xsl.xml",
    "/endpoint/errors/x",
    "/endpoint//x",
    "//",
    "/a/b/c/d/e/f",
    "*",
    "http://h/endpoint/q/foo",
    "h:80",
    "/endpoint/q/%",
    "/endpoint/q/%zz",
    "/endpoint/q/%FF%FE",
    "/endpoint/q/%0d%0aX: y",
    "/\u{7f}",
    "/api/v1/publish",
    "/api/v1/subscriptions",
    "/api/v1/subscriptions/00000000000000000000000000000000",
    "/api/v1/openapi.json",
    "/api/v1/import",
    "/api/v1/export",
    "/api/v1/queues/%2F/a",
    "/api/v1/exchanges/%2F/fx",
    "/api/v1/topics",
    "/api/v1/",
    "/api/v1",
    "/api/v1/queues/%FF/%FF",
];

const QUERY: &[&str] = &[
    "hub.mode=subscribe",
    "hub.mode=unsubscribe",
    "hub.mode=publish",
    "hub.mode=generate_token",
    "hub.mode=banana",
    "hub.mode=",
    "hub.topic=a",
    "hub.topic=%FF",
    "hub.callback=http%3A%2F%2F127.0.0.1%3A1%2F",
    "hub.callback=x",
    "hub.callback=http%3A%2F%2F%5B%3A%3A1%5D%2F",
    "hub.verify=sync",
    "hub.verify=async",
    "hub.verify=weird",
    "hub.lease_seconds=-1",
    "hub.lease_seconds=99999999999999999999",
    "hub.max_tps=-5",
    "hub.ha_mode=-3",
    "hub.ha_mode=all",
    "hub.expires=1",
    "hub.expires=-9223372036854775808",
    "hub.expires=x",
    "hub.persistmsg=1",
    "hub.persistmsg=x",
    "hub.intended_use=subscribe",
    "hub.verify_token=abc",
    "hub.challenge=c",
    "rabbithub.data=d",
    "amqp.exchange_type=topic",
    "amqp.exchange_type=nosuch",
    "hub.arguments=%7B%7D",
    "hub.arguments=%5B",
    "hub.secret=s",
    "hub.signing=md5",
    "hub.app_name=a",
    "hub.email=e",
    "hub.max_in_flight=0",
    "limit=5",
    "limit=x",
    "after=x",
    "reveal=true",
    "&&;;==",
    "%",
    "+=+",
    "hub.url=http%3A%2F%2F127.0.0.1%3A1%2F",
];

const HEADERS: &[&str] = &[
    "authorization: Basic Ym9zczpzZWNyZXQ=",
    "authorization: Basic Ym9zczpzZWNyZXQ=",
    "authorization: Basic Ym9zczpzZWNyZXQ=",
    "authorization: Basic",
    "authorization: Basic !!!",
    "authorization: Basic Ong=",
    "authorization: Bearer x",
    "authorization: basic Ym9zczp3cm9uZw==",
    "content-type: application/json",
    "content-type: application/x-www-form-urlencoded; charset=UTF-8",
    "content-type: ;;;",
    "content-type: text/plain",
    "x-rabbithub-msg_header: a = 1, b = 2",
    "x-rabbithub-msg_header: a==,=,",
    "x-rabbithub-msg_header: CC = x",
    "x-correlation-id: \u{e9}",
    "idempotency-key: k",
    "idempotency-key: ",
    "expect: 100-continue",
    "connection: upgrade",
    "upgrade: websocket",
    "accept: */*",
    "cookie: a=b",
    "host: other",
    "bad header",
    ": empty",
    "x\u{0}y: z",
    "x: \u{1}",
    " folded: x",
    "content-encoding: gzip",
    "te: trailers",
    "range: bytes=0-1",
];

const BODIES: &[&str] = &[
    "",
    "x",
    "bad",
    "{}",
    "[]",
    "{",
    "null",
    "{\"hub\":{}}",
    "{\"hub\":{\"mode\":\"subscribe\",\"callback\":\"http://127.0.0.1:1/\",\"topic\":\"t\",\"verify\":\"sync\"}}",
    "{\"subscriptions\":[{}, 7, {\"vhost\":\"/\",\"resource_type\":\"queue\",\"resource_name\":\"foo\",\"topic\":\"t\",\"callback\":\"http://127.0.0.1:1/\"}]}",
    "{\"queue\":\"foo\",\"body\":\"x\"}",
    "{\"exchange\":\"fx\",\"headers\":{\"a\":{\"$type\":\"int8\",\"value\":1}}}",
    "{\"queue\":\"foo\",\"callback\":\"http://127.0.0.1:1/\"}",
    "{\"state\":\"active\"}",
    "{\"type\":\"topic\"}",
    "hub.mode=subscribe&hub.callback=http%3A%2F%2F127.0.0.1%3A1%2F&hub.topic=t&hub.verify=sync",
    "hub.mode=publish&hub.url=http%3A%2F%2F127.0.0.1%3A1%2F",
    "hub.mode=",
    "%%%",
    "\u{0}\u{1}\u{2}",
];

fn pick<'p>(rng: &mut Rng, parts: &[&'p str]) -> &'p str {
    parts[rng.usize(..parts.len())]
}

/// One request, and whether the client closes its half behind it.
fn request(rng: &mut Rng) -> Vec<u8> {
    let mut text = format!("{} {}", pick(rng, METHODS), pick(rng, PATHS));
    for number in 0..rng.usize(..6) {
        text.push(if number == 0 { '?' } else { '&' });
        text.push_str(pick(rng, QUERY));
    }
    let version = if rng.u8(..40) == 0 {
        pick(rng, &["HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTQ/1.1", ""])
    } else {
        "HTTP/1.1"
    };
    write!(text, " {version}\r\nconnection: close\r\n").unwrap();
    if rng.u8(..8) > 0 {
        text.push_str("host: h\r\n");
    }
    // A login that is right, mostly: what lies behind it is to be reached.
    if rng.u8(..4) > 0 {
        write!(text, "{}\r\n", HEADERS[0]).unwrap();
    }
    for _ in 0..rng.usize(..4) {
        write!(text, "{}\r\n", pick(rng, HEADERS)).unwrap();
    }
    let body =
        if rng.u8(..30) == 0 { "y".repeat(rng.usize(..100_000)) } else { pick(rng, BODIES).to_owned() };
    match rng.u8(..10) {
        0 => write!(
            text,
            "content-length: {}\r\n\r\n{body}",
            pick(rng, &["-1", "x", "5", "18446744073709551616", "999999999", "0, 0"])
        ),
        1 => write!(
            text,
            "transfer-encoding: {}\r\n\r\n",
            pick(rng, &["chunked", "gzip", "chunked, chunked", "identity", "gzip, chunked"])
        ),
        2 => write!(text, "transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        3 => write!(
            text,
            "transfer-encoding: chunked\r\n\r\n{}\r\n{body}",
            pick(rng, &["ffffffffffffffff1", "zz", "-1", "5;a=b", "", "7fffffff"])
        ),
        4 => write!(text, "content-length: {}\r\ncontent-length: 3\r\n\r\n{body}", body.len()),
        5 => write!(text, "\r\n{body}"),
        _ => write!(text, "content-length: {}\r\n\r\n{body}", body.len()),
    }
    .unwrap();
    let mut bytes = text.into_bytes();
    // Now and then a request is bent, or cut.
    if rng.u8(..6) == 0 {
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(..bytes.len());
            bytes[at] = rng.u8(..);
        }
    }
    if rng.u8(..12) == 0 {
        bytes.truncate(rng.usize(..bytes.len()).max(1));
    }
    bytes
}

/// The statuses of failures that are declared.
fn is_declared(status: u16) -> bool {
    matches!(status, 100..=499 | 501 | 503 | 505)
}

async fn lane(address: SocketAddr, seed: u64, count: usize) {
    for number in 0..count {
        let seed = seed.wrapping_add(number as u64);
        let bytes = request(&mut Rng::with_seed(seed));
        // White space alone is no request, and a connection with nothing on it just ends.
        if bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
            continue;
        }
        let answered = raw(address, &bytes, true).await;
        let shown = String::from_utf8_lossy(&bytes);
        let reply = Reply::read(&answered).unwrap_or_else(|| {
            panic!("seed {seed}: no answer to {shown:?}: {:?}", String::from_utf8_lossy(&answered))
        });
        assert!(is_declared(reply.status), "seed {seed}: {} to {shown:?}", reply.status);
    }
}

async fn run(count: usize) {
    let seed = std::env::var("WARREN_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    let world =
        Arc::new(World::with(seed.is_multiple_of(2), |settings| settings.allow_callbacks.clear()).await);
    world.bound("fx", "foo").await;
    let mut lanes = JoinSet::new();
    for lane_number in 0..LANES {
        let first = seed.wrapping_add((lane_number * count) as u64);
        lanes.spawn(lane(world.address, first, count / LANES));
    }
    while let Some(ended) = lanes.join_next().await {
        ended.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    world.estate.host("/").queues.declare("after");
    assert_eq!(world.boss(Ask::new("POST", "/endpoint/q/after").body("", "x")).await.status, 202);
}

/// Some thousand; in the long form more than a hundred thousand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_is_answered() {
    run(if std::env::var_os("WARREN_SOAK").is_some() { 104_000 } else { 4_000 }).await;
}
