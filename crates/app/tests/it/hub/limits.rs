//! Bounds, and answers to what is broken.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::Method;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use warren_connectors::kit::setting::Secret;
use warren_connectors::kit::tls::{TlsSettings, server_config};
use warren_engine::failure::Failure;
use warren_engine::hub::ports::{Right, User, Users};
use warren_engine::hub::resource::Resource;
use warren_engine::memory::Fault;
use warren_engine::pipeline::outside::{CallOptions, Hidden, HttpRequest};
use warren_server::hub::{Scheme, router};
use warren_server::listen::{self, Listener};
use warren_testkit::tls;

use super::client::{Ask, Reply, raw};
use super::subscriber::Subscriber;
use super::world::{World, escaped};

const SOON: Duration = Duration::from_secs(60);
const LOGIN: &str = "authorization: Basic Ym9zczpzZWNyZXQ=\r\n";

async fn status(world: &World, request: &[u8], closes: bool) -> u16 {
    let answered = raw(world.address, request, closes).await;
    let reply = Reply::read(&answered);
    reply.unwrap_or_else(|| panic!("no answer to {:?}", String::from_utf8_lossy(request))).status
}

#[tokio::test]
async fn a_body_that_is_too_large_is_answered() {
    for compat in [true, false] {
        let world = World::start(compat).await;
        world.queues(&["foo"]);
        let large = vec![b'x'; (1 << 20) + 1];
        let ask = |target: &str, size: usize| Ask::new("POST", target).body("", &large[..size]);
        assert_eq!(world.boss(ask("/endpoint/q/foo", 1 << 20)).await.status, 202);
        assert_eq!(world.boss(ask("/endpoint/q/foo", (1 << 20) + 1)).await.status, 413);
        assert_eq!(world.send(ask("/subscribe/q/foo", 1 << 20)).await.status, 413, "before a login");
        let websub = ask("/hub", 1 << 20).header("content-type", "application/x-www-form-urlencoded");
        assert_eq!(world.send(websub).await.status, 413);
        // Refused before its body is read, and answered all the same.
        assert_eq!(world.send(ask("/endpoint/q/foo", 1 << 20)).await.status, 401);
        let mut chunked =
            format!("POST /endpoint/q/foo HTTP/1.1\r\nhost: h\r\n{LOGIN}transfer-encoding: chunked\r\n\r\n")
                .into_bytes();
        for _ in 0..20 {
            chunked.extend_from_slice(b"10000\r\n");
            chunked.extend_from_slice(&large[..1 << 16]);
            chunked.extend_from_slice(b"\r\n");
        }
        assert_eq!(status(&world, &chunked, true).await, 413);
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered() {
    let world = World::start(true).await;
    let many = "x: 1\r\n".repeat(300);
    assert_eq!(status(&world, format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes(), false).await, 431);
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(70_000));
    assert_eq!(status(&world, long.as_bytes(), false).await, 431);
    let uri = format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(70_000));
    assert!(matches!(status(&world, uri.as_bytes(), false).await, 414 | 431));
}

#[tokio::test]
async fn what_is_no_request_is_answered() {
    let world = World::start(true).await;
    for (request, expected) in [
        (&b"nonsense\r\n\r\n"[..], 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"POST /endpoint/q/a HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HT", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ] {
        assert_eq!(status(&world, request, true).await, expected, "{:?}", String::from_utf8_lossy(request));
    }
    // Bodies that end before their end, or have broken chunks.
    world.queues(&["foo"]);
    for rest in ["content-length: 10\r\n\r\nshort", "transfer-encoding: chunked\r\n\r\nzz\r\nabc"] {
        let request = format!("POST /endpoint/q/foo HTTP/1.1\r\nhost: h\r\n{LOGIN}{rest}");
        assert_eq!(status(&world, request.as_bytes(), true).await, 400, "{rest}");
    }
    assert!(world.estate.host("/").queues.messages("foo").is_empty(), "a cut message is no message");
}

#[tokio::test]
async fn a_client_that_has_closed_its_half_is_answered() {
    let world = World::start(true).await;
    world.queues(&["foo"]);
    let request = format!("POST /endpoint/q/foo HTTP/1.1\r\nhost: h\r\n{LOGIN}content-length: 1\r\n\r\nx");
    assert_eq!(status(&world, request.as_bytes(), true).await, 202);
}

#[tokio::test]
async fn trouble_with_the_broker_says_when_to_come_again() {
    for compat in [true, false] {
        let world = World::start(compat).await;
        world.queues(&["foo"]);
        let host = world.estate.host("/");
        for fault in [Fault::Nack, Fault::NotWritten, Fault::LostConfirm, Fault::LostMessage] {
            host.queues.script([Some(fault)]);
            let reply = world.boss(Ask::new("POST", "/endpoint/q/foo").body("", "x")).await;
            assert_eq!(reply.status, 503, "{reply:?}");
            assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
        }
        assert_eq!(world.boss(Ask::new("POST", "/endpoint/q/foo").body("", "x")).await.status, 202);
        world.users.away(true);
        let reply = world.boss(Ask::new("GET", "/endpoint/q/foo")).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("5")));
    }
}

#[tokio::test]
async fn nobody_is_told_that_a_message_is_taken_before_the_broker_has_it() {
    let world = World::start(false).await;
    world.queues(&["foo"]);
    let host = world.estate.host("/");
    host.queues.hold(true);
    let mut asking = std::pin::pin!(world.boss(Ask::new("POST", "/endpoint/q/foo").body("", "x")));
    let there = warren_testkit::wait::wait_until_async("the broker has it", SOON, async || {
        host.queues.messages("foo").len() == 1
    });
    tokio::select! {
        reply = &mut asking => panic!("answered without a confirm: {reply:?}"),
        () = there => {}
    }
    let waited = tokio::time::timeout(Duration::from_millis(300), &mut asking).await;
    assert!(waited.is_err(), "answered without a confirm: {waited:?}");
    host.queues.hold(false);
    assert_eq!(asking.await.status, 202);
}

#[tokio::test]
async fn it_is_the_same_over_tls() {
    let world = World::with(false, |settings| settings.public_url = None).await;
    let path = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let key = Secret::new(path(tls::server_key()));
    let config = server_config(&path(tls::server_certificate()), &key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let routes = router(world.hub.clone(), world.users.clone(), Scheme::Https);
    let mut tasks = JoinSet::new();
    tasks.spawn(listen::serve(Listener::new(listener).with_tls(Some(config)), routes, stop.clone()));
    let settings = TlsSettings { ca: Some(path(tls::ca())), ..TlsSettings::default() };
    let answered = warren_connectors::http::caller(&settings)
        .unwrap()
        .call(&HttpRequest {
            method: "PUT".to_owned(),
            url: format!("https://{address}/endpoint/q/new"),
            headers: Vec::new(),
            authorization: Some(Hidden("Basic Ym9zczpzZWNyZXQ=".to_owned())),
            body: bytes::Bytes::new(),
            guard: None,
            answer_bytes_max: 1000,
            options: CallOptions::default(),
        })
        .await
        .unwrap();
    assert_eq!(answered.status, 201);
    assert_eq!(answered.header("location"), Some(format!("https://{address}/endpoint/q/new").as_str()));
    // What speaks no TLS gets no answer that it could read, and the listener lives.
    raw(address, b"GET / HTTP/1.1\r\n\r\n", true).await;
    stop.cancel();
    while tasks.join_next().await.is_some() {}
}

/// Users that a bug makes panic.
struct Panicking;

#[async_trait]
impl Users for Panicking {
    async fn login(&self, _: IpAddr, _: &str, _: &Hidden) -> Result<Option<User>, Failure> {
        panic!("on purpose")
    }

    async fn named(&self, _: &str) -> Result<Option<User>, Failure> {
        panic!("on purpose")
    }

    async fn may(&self, _: &User, _: Right, _: &Resource) -> Result<bool, Failure> {
        panic!("on purpose")
    }
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    let world = World::start(true).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let routes = router(world.hub.clone(), Arc::new(Panicking), Scheme::Http);
    let mut tasks = JoinSet::new();
    tasks.spawn(listen::serve(Listener::new(listener), routes, stop.clone()));
    let ask = Ask::new("GET", "/endpoint/q/foo").login("a", "b");
    for _ in 0..2 {
        let reply = ask.send(address).await;
        assert_eq!(reply.status, 500);
        assert!(!reply.text().contains("on purpose"));
    }
    stop.cancel();
    while tasks.join_next().await.is_some() {}
}

#[tokio::test]
async fn callbacks_that_hang_leave_places_for_other_users_and_hosts() {
    let subscriber = Subscriber::start().await;
    let world = World::start(false).await;
    world.queues(&["foo"]);
    let ask = |path: &str, user: &str| {
        let callback = escaped(&subscriber.url(path));
        let form = format!("hub.mode=subscribe&hub.verify=sync&hub.topic=t&hub.callback={callback}");
        Ask::new("POST", "/subscribe/q/foo").form(&form).login(user, "secret")
    };
    // 1. One user has as many hang as it may. One more is told to come again.
    let mut hanging = JoinSet::new();
    for _ in 0..16 {
        let (ask, to) = (ask("/hangs", "boss"), world.address);
        hanging.spawn(async move { ask.send(to).await });
    }
    subscriber.hears(Method::GET, "/hangs", 16).await;
    let refused = world.send(ask("/agrees", "boss")).await;
    let busy = "cannot ask the callback at once (hub-busy)".to_owned();
    assert_eq!((refused.said(), refused.header("retry-after")), ((503, busy.clone()), Some("5")));
    assert!(subscriber.of(&Method::GET, "/agrees").is_empty());
    // 2. Others have their places,
    assert_eq!(world.send(ask("/agrees", "reader")).await.status, 204);
    // 3. and strangers theirs; of these, one host has a part.
    let topic = escaped("http://127.0.0.1/feed");
    let websub = |path: &str| {
        let callback = escaped(&subscriber.url(path));
        let form = format!("hub.mode=subscribe&hub.verify=sync&hub.topic={topic}&hub.callback={callback}");
        Ask::new("POST", "/hub").form(&form)
    };
    for _ in 0..4 {
        let (ask, to) = (websub("/hangs"), world.address);
        hanging.spawn(async move { ask.send(to).await });
    }
    subscriber.hears(Method::GET, "/hangs", 20).await;
    let refused = world.send(websub("/agrees")).await;
    assert_eq!((refused.said(), refused.header("retry-after")), ((503, busy), Some("5")));
    assert!(hanging.try_join_next().is_none(), "they hang still");
}
