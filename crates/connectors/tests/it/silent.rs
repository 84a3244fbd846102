//! Servers that stop answering: every wait for what needs no work has a bound.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use warren_connectors::kit::setting::{Secret, Span};
use warren_connectors::{mysql, postgres};
use warren_engine::codes;
use warren_engine::failure::FailureKind;
use warren_engine::ports::Source;

use crate::reading::{count, model};

/// How long the sources below wait for an answer.
const ANSWERS: Duration = Duration::from_secs(3);

/// Far more than all bounds together.
const EVER: Duration = Duration::from_secs(60);

/// A way to a server on which nothing moves any more once the client has sent a word; the connection stays open.
struct Proxy {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Proxy {
    async fn to(server: &str, until: &'static str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = server.to_owned();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                connections.spawn(carry(client, server, until));
            }
        });
        Proxy { address, _tasks: tasks }
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, until: &str) {
    let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        // Neither read has taken anything when the other one is ready.
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                let text = String::from_utf8_lossy(&asked[..length]);
                if text.contains(until) {
                    return std::future::pending().await;
                }
                if server.write_all(&asked[..length]).await.is_err() { return }
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&answered[..length]).await.is_err() { return }
            }
        }
    }
}

/// Host and port of a URL, and the URL with the proxy's instead.
async fn through(url: &str, until: &'static str) -> (Proxy, String) {
    let (_, rest) = url.split_once('@').unwrap();
    let server = rest.split(['/', '?']).next().unwrap();
    let proxy = Proxy::to(server, until).await;
    let url = url.replace(server, &proxy.address.to_string());
    (proxy, url)
}

fn of_postgres(url: &str) -> Arc<dyn Source> {
    let config = postgres::Config {
        url: Some(Secret::new(url)),
        connect_timeout: Some(Span(ANSWERS)),
        ..postgres::Config::default()
    };
    postgres::source("shop", &config).unwrap()
}

fn of_mysql(url: &str) -> Arc<dyn Source> {
    let config = mysql::Config {
        url: Some(Secret::new(url)),
        connect_timeout: Some(Span(ANSWERS)),
        ..mysql::Config::default()
    };
    mysql::source("shop", &config).unwrap()
}

/// A source that falls silent where a word is sent.
async fn both(until: [&'static str; 2]) -> Vec<(Proxy, Arc<dyn Source>)> {
    let (pg, pg_url) = through(&warren_testkit::pg::url(), until[0]).await;
    let (my, my_url) = through(&warren_testkit::mysql::url(), until[1]).await;
    vec![(pg, of_postgres(&pg_url)), (my, of_mysql(&my_url))]
}

#[tokio::test]
async fn a_server_that_does_not_end_the_transaction_is_not_waited_for() {
    for (_proxy, source) in both(["COMMIT", "COMMIT"]).await {
        let mut stream = source.rows(&model("SELECT 1 AS id")).await.unwrap();
        let (rows, failure) = tokio::time::timeout(EVER, count(&mut *stream)).await.expect("it ends");
        let failure = failure.unwrap();
        assert_eq!((failure.kind, failure.code), (FailureKind::Disconnected, codes::QUERY_INTERRUPTED));
        assert!(failure.to_string().contains("the end of the transaction"), "{failure} after {rows} rows");
    }
}

#[tokio::test]
async fn a_server_that_does_not_begin_the_transaction_is_not_waited_for() {
    for (_proxy, source) in both(["BEGIN", "START TRANSACTION"]).await {
        for described in [true, false] {
            let work = async {
                if described {
                    source.describe(&model("SELECT 1 AS id")).await.map(drop)
                } else {
                    source.rows(&model("SELECT 1 AS id")).await.map(drop)
                }
            };
            let failure = tokio::time::timeout(EVER, work).await.expect("it ends").unwrap_err();
            assert_eq!((failure.kind, failure.code), (FailureKind::Timeout, codes::SOURCE_UNREACHABLE));
        }
    }
}
