//! Wrong passwords from one client, and the logins of others meanwhile (F14).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use warren_connectors::kit::setting::Secret;
use warren_connectors::kit::users::{PermissionConfig, UserConfig, configured, hash_password};
use warren_testkit::wait::wait_until_async;

use super::client::{Ask, Reply};
use super::world::World;

const GUESSER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
/// How many users log in while passwords are guessed.
const USERS: usize = 10;

fn user_configs() -> BTreeMap<String, UserConfig> {
    let hash = hash_password("right").unwrap();
    let all = || PermissionConfig { configure: ".*".into(), write: ".*".into(), read: ".*".into() };
    (0..USERS)
        .map(|number| {
            let config = UserConfig {
                password_hash: Some(Secret::new(hash.clone())),
                permissions: BTreeMap::from([("/".to_owned(), all())]),
                ..UserConfig::default()
            };
            (format!("user{number}"), config)
        })
        .collect()
}

/// Sends a request from an address of its own.
async fn send(from: IpAddr, to: SocketAddr, user: &str, password: &str) -> Reply {
    let ask = Ask::new("GET", "/endpoint/q/foo").login(user, password);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    let login = &ask.headers[0].1;
    let head = format!(
        "GET {} HTTP/1.1\r\nhost: h\r\nauthorization: {login}\r\nconnection: close\r\n\r\n",
        ask.target
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answered = Vec::new();
    stream.read_to_end(&mut answered).await.unwrap();
    Reply::read(&answered).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_lock_out_neither_their_user_elsewhere_nor_other_users() {
    let mut world = World::start(false).await;
    world.queues(&["foo"]);
    let address = world.listen_for(configured(&user_configs()).unwrap()).await;
    let guessing = Arc::new(tokio::sync::Mutex::new(Vec::new()));
    let mut guessers = JoinSet::new();
    for thread in 0..12 {
        let guessing = guessing.clone();
        guessers.spawn(async move {
            for number in 0.. {
                let reply = send(GUESSER, address, "user0", &format!("wrong {thread} {number}")).await;
                guessing.lock().await.push(reply);
            }
        });
    }
    wait_until_async("guesses are refused unchecked", Duration::from_secs(60), async || {
        guessing.lock().await.iter().any(|reply| reply.status == 429)
    })
    .await;
    // No login is known, so each is checked.
    assert_eq!(send(OTHER, address, "user0", "right").await.status, 200);
    for number in 1..USERS {
        let from = if number % 2 == 0 { GUESSER } else { OTHER };
        assert_eq!(send(from, address, &format!("user{number}"), "right").await.status, 200, "{number}");
    }
    guessers.abort_all();
    while guessers.join_next().await.is_some() {}
    for reply in &*guessing.lock().await {
        assert!(matches!(reply.status, 401 | 429), "{reply:?}");
        if reply.status == 429 {
            assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
            assert!(reply.text().contains("too-many-logins"), "{reply:?}");
        }
    }
}
