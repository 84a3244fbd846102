//! Answers that are there while the client still sends (F29): a client that writes everything before it reads gets them, too.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use warren_connectors::kit::setting::Secret;
use warren_connectors::kit::tls::{TlsSettings, client_config, server_config};
use warren_server::hub::{Scheme, router};
use warren_server::listen::{self, Listener};
use warren_testkit::tls;

use super::client::{PATIENCE, Reply};
use super::world::World;

const LOGIN: &str = "authorization: Basic Ym9zczpzZWNyZXQ=\r\n";
const NOBODY: &str = "authorization: Basic bm9ib2R5OnNlY3JldA==\r\n";
/// More than the buffers of both ends, and than the bound that there was.
const BYTES: usize = 40 << 20;
const PIECE: usize = 1 << 16;

#[derive(Debug, Clone, Copy)]
enum Length {
    Known,
    Chunked,
}

/// Sends all of a request, and only then reads the answer.
async fn writes_then_reads<I>(mut stream: I, head: &str, length: Length, bytes: usize) -> Reply
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let all = async {
        let framing = match length {
            Length::Known => format!("content-length: {bytes}\r\n"),
            Length::Chunked => "transfer-encoding: chunked\r\n".to_owned(),
        };
        stream.write_all(format!("{head}host: h\r\n{framing}\r\n").as_bytes()).await.unwrap();
        let piece = vec![b'x'; PIECE];
        for _ in 0..bytes / PIECE {
            match length {
                Length::Known => stream.write_all(&piece).await.expect("all is taken"),
                Length::Chunked => {
                    let chunk = [format!("{PIECE:x}\r\n").as_bytes(), &piece, b"\r\n"].concat();
                    stream.write_all(&chunk).await.expect("all is taken");
                }
            }
        }
        if matches!(length, Length::Chunked) {
            stream.write_all(b"0\r\n\r\n").await.expect("all is taken");
        }
        stream.flush().await.unwrap();
        let mut answered = Vec::new();
        stream.read_to_end(&mut answered).await.expect("an answer, and no reset");
        Reply::read(&answered).expect("an answer")
    };
    tokio::time::timeout(PATIENCE, all).await.expect("in time")
}

const CASES: [(&str, &str, &str, u16); 8] = [
    ("POST", "/endpoint/q/foo", "", 401),
    ("POST", "/endpoint/q/foo", NOBODY, 403),
    ("POST", "/endpoint/q/foo", LOGIN, 413),
    ("POST", "/nothing", LOGIN, 404),
    ("POST", "/api/v1/publish", "", 401),
    ("POST", "/api/v1/publish", "authorization: Basic Ym9zczpzZWNyZXQ=\r\ncontent-type: text/plain\r\n", 415),
    ("POST", "/hub", "content-type: text/plain\r\n", 415),
    ("POST", "/endpoint/q/foo", "transfer-encoding: gzip\r\n", 501),
];

#[tokio::test]
async fn an_early_answer_arrives_at_a_client_that_writes_everything_first() {
    let world = World::start(false).await;
    world.queues(&["foo"]);
    for (method, path, headers, status) in CASES {
        for length in [Length::Known, Length::Chunked] {
            if status == 501 && matches!(length, Length::Known) {
                continue; // without chunked at the end there is no such request
            }
            let stream = TcpStream::connect(world.address).await.unwrap();
            let head = format!("{method} {path} HTTP/1.1\r\n{headers}");
            let reply = writes_then_reads(stream, &head, length, BYTES).await;
            assert_eq!(reply.status, status, "{path} {length:?}: {reply:?}");
            assert_eq!(reply.header("connection"), Some("close"), "{path} {length:?}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn the_same_over_tls() {
    let world = World::start(false).await;
    world.queues(&["foo"]);
    let path = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let config =
        server_config(&path(tls::server_certificate()), &Secret::new(path(tls::server_key()))).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let routes = router(world.hub.clone(), world.users.clone(), Scheme::Https);
    let mut tasks = JoinSet::new();
    tasks.spawn(listen::serve(Listener::new(listener).with_tls(Some(config)), routes, stop.clone()));
    let settings = TlsSettings { ca: Some(path(tls::ca())), ..TlsSettings::default() };
    let connector = TlsConnector::from(client_config(&settings).unwrap());
    for (headers, status) in [("", 401), (NOBODY, 403), (LOGIN, 413)] {
        for length in [Length::Known, Length::Chunked] {
            let stream = TcpStream::connect(address).await.unwrap();
            let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
            let head = format!("POST /endpoint/q/foo HTTP/1.1\r\n{headers}");
            assert_eq!(writes_then_reads(stream, &head, length, BYTES).await.status, status, "{length:?}");
        }
    }
    stop.cancel();
    while tasks.join_next().await.is_some() {}
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_answered_at_once() {
    let world = World::start(false).await;
    world.queues(&["foo"]);
    for (headers, status) in [("", 401), (NOBODY, 403), (LOGIN, 413)] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let head = format!(
            "POST /endpoint/q/foo HTTP/1.1\r\nhost: h\r\n{headers}content-length: {BYTES}\r\nexpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answered = Vec::new();
        stream.read_to_end(&mut answered).await.unwrap();
        let reply = Reply::read(&answered).unwrap();
        assert_eq!((reply.status, reply.header("connection")), (status, Some("close")), "{reply:?}");
    }
    // One whose body is wanted is told so.
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = format!(
        "POST /endpoint/q/foo HTTP/1.1\r\nhost: h\r\n{LOGIN}content-length: 1\r\nexpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
}

#[tokio::test]
async fn a_small_body_that_was_not_read_leaves_the_connection_open() {
    let world = World::start(false).await;
    world.queues(&["foo"]);
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    for headers in ["", LOGIN] {
        let request =
            format!("POST /endpoint/q/foo HTTP/1.1\r\nhost: h\r\n{headers}content-length: 3\r\n\r\nabc");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answered = Vec::new();
        while Reply::read(&answered)
            .is_none_or(|reply| reply.header("content-length") != Some(reply.body.len().to_string().as_str()))
        {
            assert!(stream.read_buf(&mut answered).await.unwrap() > 0, "open: {answered:?}");
        }
        let reply = Reply::read(&answered).unwrap();
        assert_eq!(reply.status, if headers.is_empty() { 401 } else { 202 }, "{reply:?}");
    }
}

#[tokio::test]
async fn clients_that_send_without_an_end_leave_others_their_answers_and_the_process_its_end() {
    let world = World::start(false).await;
    world.queues(&["foo"]);
    let mut endless = JoinSet::new();
    let answered = Arc::new(tokio::sync::Semaphore::new(0));
    for _ in 0..32 {
        let (to, answered) = (world.address, answered.clone());
        endless.spawn(async move {
            let mut stream = TcpStream::connect(to).await.unwrap();
            let head = format!(
                "POST /endpoint/q/foo HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n",
                u64::MAX / 2
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let (mut reader, mut writer) = stream.into_split();
            let mut first = [0; 12];
            reader.read_exact(&mut first).await.unwrap();
            assert_eq!(&first, b"HTTP/1.1 401");
            answered.add_permits(1);
            let piece = vec![b'x'; PIECE];
            while writer.write_all(&piece).await.is_ok() {}
        });
    }
    let _all = answered.acquire_many(32).await.unwrap();
    let stream = TcpStream::connect(world.address).await.unwrap();
    let head = format!("POST /endpoint/q/foo HTTP/1.1\r\n{NOBODY}");
    assert_eq!(writes_then_reads(stream, &head, Length::Known, BYTES).await.status, 403);
    // The end of the process cuts them.
    let begun = std::time::Instant::now();
    world.end().await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    while let Some(ended) = endless.join_next().await {
        ended.unwrap();
    }
}
