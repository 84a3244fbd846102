//! `http.trusted_proxies` of a hub that is served: whose failed logins count for which client.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::{Ask, PATIENCE, Reply};
use super::real::{Hub, Setup};

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// A login from an address, with what stands in `X-Forwarded-For`.
async fn login(hub: &Hub, from: IpAddr, forwarded: &str, user: &str, password: &str) -> u16 {
    let ask = Ask::new("GET", "/api/v1/subscriptions").login(user, password);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect(hub.address).await.unwrap();
    let head = format!(
        "GET {} HTTP/1.1\r\nhost: h\r\nx-forwarded-for: {forwarded}\r\nauthorization: {}\r\nconnection: close\r\n\r\n",
        ask.target, ask.headers[0].1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answered = Vec::new();
    stream.read_to_end(&mut answered).await.unwrap();
    Reply::read(&answered).unwrap().status
}

/// Guesses, each for another user, until one is not checked any more.
async fn guess(
    hub: &Arc<Hub>,
    from: IpAddr,
    forwarded: impl Fn(usize) -> String + Clone + Send + Sync + 'static,
) {
    let number = Arc::new(AtomicUsize::new(0));
    let mut guessers = JoinSet::new();
    for _ in 0..12 {
        let (hub, number, forwarded) = (hub.clone(), number.clone(), forwarded.clone());
        guessers.spawn(async move {
            loop {
                let number = number.fetch_add(1, Ordering::Relaxed);
                match login(&hub, from, &forwarded(number), &format!("nobody{number}"), "wrong").await {
                    401 => {}
                    429 => break,
                    other => panic!("{other}"),
                }
            }
        });
    }
    timeout(PATIENCE, guessers.join_next()).await.expect("a guess that is not checked").unwrap().unwrap();
    guessers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_trusted_proxy_says_whose_failed_logins_count() {
    let setup = Setup { http: ", trusted_proxies: [127.0.0.2]", ..Setup::default() };
    let hub = Arc::new(Hub::with(setup).await);
    assert_eq!(hub.boss(Ask::new("GET", "/api/v1/subscriptions")).await.status, 200);
    // 1. Behind the proxy, a client that guesses is one of many.
    guess(&hub, PROXY, |_| "192.0.2.9, 198.51.100.1".to_owned()).await;
    for number in 0..60 {
        let other = format!("198.51.100.1, 203.0.113.{number}");
        assert_eq!(login(&hub, PROXY, &other, &format!("somebody{number}"), "wrong").await, 401, "{other}");
    }
    assert_eq!(login(&hub, PROXY, "198.51.100.2", &hub.user, "secret").await, 200);
    // 2. What another address says in that header counts for nothing.
    guess(&hub, STRANGER, |number| format!("198.18.{}.{}", number / 250, number % 250)).await;
    assert_eq!(login(&hub, PROXY, "198.18.0.1", "somebody", "wrong").await, 401);
}
