//! What is said of PgBouncer with a `pool_mode` that has no transactions.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use warren_connectors::kit::setting::Secret;
use warren_connectors::postgres::{Config, source};
use warren_engine::codes;
use warren_engine::failure::FailureKind;

use crate::reading::model;

/// A message of the server.
fn message(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&(payload.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(payload);
    message
}

/// Logs everybody in, and answers the first query as PgBouncer 1.18 answers one that begins a transaction in statement pooling.
async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut startup = vec![0; stream.read_u32().await? as usize - 4];
    stream.read_exact(&mut startup).await?;
    stream.write_all(&[message(b'R', &[0; 4]), message(b'Z', b"I")].concat()).await?;
    stream.read_u8().await?;
    let mut query = vec![0; stream.read_u32().await? as usize - 4];
    stream.read_exact(&mut query).await?;
    let ended =
        message(b'E', b"SFATAL\0C08P01\0Mtransaction blocks not allowed in statement pooling mode\0\0");
    stream.write_all(&[message(b'C', b"BEGIN\0"), ended].concat()).await
}

async fn pgbouncer() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            answer(stream).await.unwrap();
        }
    });
    (address, tasks)
}

#[tokio::test]
async fn statement_pooling_is_named_with_the_modes_that_work() {
    let (address, _tasks) = pgbouncer().await;
    let url = format!("postgres://warren@{address}/shop?sslmode=disable");
    let source = source("shop", &Config { url: Some(Secret::new(url)), ..Config::default() }).unwrap();
    let query = model("SELECT 1 AS id");
    let of_rows = source.rows(&query).await.err().unwrap();
    for failure in [source.describe(&query).await.unwrap_err(), of_rows] {
        assert_eq!((failure.kind, failure.code), (FailureKind::Disconnected, codes::SOURCE_UNREACHABLE));
        assert!(failure.to_string().contains("statement pooling mode"), "{failure}");
        let remedy = failure.remedy.as_deref().unwrap();
        assert!(remedy.contains("`transaction` or `session`"), "{remedy}");
    }
}
