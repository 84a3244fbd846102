//! HTTP/1.1 as bare as it goes: a server that takes every request, and a loop that posts. Both use connections again.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::sync::Fault;

/// `bench:bench`
const LOGIN: &str = "Basic YmVuY2g6YmVuY2g=";

/// What stands before the time in a body whose way is measured: nanoseconds since the receiver began, in 20 digits.
const SENT_AT: &[u8] = b"sent at ";

/// What the body of a POST begins with that is refused.
pub const BAD: &str = "bad";

/// What becomes of a POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It is answered with 200.
    Takes,
    /// It is read, and never answered.
    Hangs,
    /// It is answered with 503 if its body begins with [`BAD`], and is not counted among the POSTs then.
    RefusesBad,
}

/// Takes every POST with 200, hangs, or refuses some, and answers challenges.
pub struct Receiver {
    address: SocketAddr,
    counted: Arc<Counted>,
    _serving: JoinSet<()>,
}

struct Counted {
    manner: Manner,
    began: Instant,
    posts: AtomicU64,
    refused: AtomicU64,
    more: Notify,
    /// How long the bodies with a time in them were on their way.
    ways: Mutex<Vec<Duration>>,
}

impl Receiver {
    /// On a port of its own, taking what comes.
    pub async fn start() -> Result<Receiver, Fault> {
        Receiver::with(Manner::Takes).await
    }

    /// On a port of its own.
    pub async fn with(manner: Manner) -> Result<Receiver, Fault> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let counted = Arc::new(Counted {
            manner,
            began: Instant::now(),
            posts: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            more: Notify::new(),
            ways: Mutex::default(),
        });
        let counting = counted.clone();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let counted = counting.clone();
                // A connection that breaks is the other side's business.
                connections.spawn(async move { serve(stream, &counted).await.ok() });
            }
        });
        Ok(Receiver { address, counted, _serving: serving })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Counts from nothing.
    pub fn forget(&self) {
        self.counted.posts.store(0, Ordering::SeqCst);
        self.ways();
    }

    /// How many POSTs came.
    pub fn count(&self) -> u64 {
        self.counted.posts.load(Ordering::SeqCst)
    }

    /// How many POSTs were refused since it began.
    pub fn refused(&self) -> u64 {
        self.counted.refused.load(Ordering::SeqCst)
    }

    /// A body whose way begins now.
    pub fn body(&self, bytes: usize) -> Vec<u8> {
        let mut body = SENT_AT.to_vec();
        body.extend_from_slice(format!("{:020}", self.counted.began.elapsed().as_nanos()).as_bytes());
        body.resize(bytes.max(body.len()), b'x');
        body
    }

    /// How long the bodies of [`Receiver::body`] were on their way that came since this was asked.
    pub fn ways(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.counted.ways.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until so many POSTs came.
    pub async fn wait_for(&self, posts: u64) {
        loop {
            let more = self.counted.more.notified();
            if self.counted.posts.load(Ordering::SeqCst) >= posts {
                return;
            }
            // A notification between the look and the wait is not lost, but one may stand for many.
            tokio::time::timeout(Duration::from_millis(10), more).await.ok();
        }
    }
}

/// One message of a connection: its first line and its body.
struct Heard {
    first: String,
    body: Vec<u8>,
}

/// Reads messages of a connection, one after another.
#[derive(Default)]
struct Ear {
    unread: Vec<u8>,
}

impl Ear {
    async fn next(&mut self, stream: &mut TcpStream) -> Result<Option<Heard>, Fault> {
        let head = loop {
            if let Some(at) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut self.unread).await? == 0 {
                return Ok(None);
            }
        };
        let text = std::str::from_utf8(&self.unread[..head])?;
        let first = text.lines().next().unwrap_or_default().to_owned();
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let end = head + length.unwrap_or(0);
        while self.unread.len() < end {
            if stream.read_buf(&mut self.unread).await? == 0 {
                return Err("the body broke off".into());
            }
        }
        let body = self.unread[head..end].to_vec();
        self.unread.drain(..end);
        Ok(Some(Heard { first, body }))
    }
}

impl Counted {
    fn note(&self, body: &[u8]) {
        let digits = body.strip_prefix(SENT_AT).and_then(|rest| rest.get(..20));
        let sent = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        if let Some(sent) = sent {
            let way = self.began.elapsed().saturating_sub(Duration::from_nanos(sent));
            self.ways.lock().unwrap_or_else(PoisonError::into_inner).push(way);
        }
    }
}

async fn serve(mut stream: TcpStream, counted: &Counted) -> Result<(), Fault> {
    stream.set_nodelay(true)?;
    let mut ear = Ear::default();
    while let Some(heard) = ear.next(&mut stream).await? {
        let challenge = heard.first.split_once("hub.challenge=").map(|(_, rest)| rest);
        let challenge = challenge.and_then(|rest| rest.split(['&', ' ']).next()).unwrap_or_default();
        let posted = heard.first.starts_with("POST");
        if posted {
            counted.note(&heard.body);
            if counted.manner == Manner::Hangs {
                counted.posts.fetch_add(1, Ordering::SeqCst);
                // Until the other side has enough of it.
                stream.read_buf(&mut Vec::new()).await?;
                return Ok(());
            }
        }
        if posted && counted.manner == Manner::RefusesBad && heard.body.starts_with(BAD.as_bytes()) {
            counted.refused.fetch_add(1, Ordering::SeqCst);
            stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await?;
            continue;
        }
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{challenge}", challenge.len());
        stream.write_all(answer.as_bytes()).await?;
        if posted {
            counted.posts.fetch_add(1, Ordering::SeqCst);
            counted.more.notify_one();
        }
    }
    Ok(())
}

/// Posts so many bodies over so many connections, each of which waits for its answer, which must have this status.
pub async fn post_all(
    address: SocketAddr,
    path: &str,
    connections: u16,
    messages: u64,
    body_bytes: usize,
    status: u16,
) -> Result<Duration, Fault> {
    let body = "x".repeat(body_bytes);
    let request: Arc<str> = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: {LOGIN}\r\ncontent-type: text/plain\r\n\
         content-length: {body_bytes}\r\n\r\n{body}"
    )
    .into();
    let left = Arc::new(AtomicU64::new(messages));
    let began = Instant::now();
    let mut posting = JoinSet::new();
    for _ in 0..connections {
        let (request, left) = (request.clone(), left.clone());
        posting.spawn(async move {
            post(address, &request, &left, status).await.map_err(|error| error.to_string())
        });
    }
    while let Some(ended) = posting.join_next().await {
        ended??;
    }
    Ok(began.elapsed())
}

async fn post(address: SocketAddr, request: &str, left: &AtomicU64, status: u16) -> Result<(), Fault> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut ear = Ear::default();
    let wanted = format!("HTTP/1.1 {status}");
    while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
        stream.write_all(request.as_bytes()).await?;
        let heard = ear.next(&mut stream).await?.ok_or("the server hung up")?;
        if !heard.first.starts_with(&wanted) {
            return Err(format!("{}: {}", heard.first, String::from_utf8_lossy(&heard.body)).into());
        }
    }
    Ok(())
}

/// One request; status and body.
pub async fn ask(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> Result<(u16, String), Fault> {
    let stream = TcpStream::connect(address).await?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: {LOGIN}\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    answer(stream, &head, body).await
}

/// A publish from another address of this machine, with a password that nobody has; the status.
pub async fn guess(address: SocketAddr, path: &str, number: u64) -> Result<u16, Fault> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 2], 0)))?;
    let stream = socket.connect(address).await?;
    let login = STANDARD.encode(format!("bench:guess {number}"));
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Basic {login}\r\n\
         content-type: text/plain\r\ncontent-length: 1\r\n\r\n"
    );
    Ok(answer(stream, &head, b"x").await?.0)
}

async fn answer(mut stream: TcpStream, head: &str, body: &[u8]) -> Result<(u16, String), Fault> {
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    let heard = Ear::default().next(&mut stream).await?.ok_or("no answer came")?;
    let status = heard.first.split(' ').nth(1).unwrap_or_default().parse()?;
    Ok((status, String::from_utf8_lossy(&heard.body).into_owned()))
}
