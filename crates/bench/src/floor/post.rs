//! A receiver that answers 200 to whatever it is posted, and a loop that posts: nothing but bytes on sockets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::consume::now_ns;
use crate::sync::Fault;

/// What a receiver answers.
pub const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// A receiver on loopback; ends when dropped.
pub struct Receiver {
    pub address: SocketAddr,
    heard: Arc<Heard>,
    _tasks: JoinSet<()>,
}

/// Nanoseconds since the epoch at which each request came whole, minus those that its body begins with.
type Heard = Mutex<Vec<u64>>;

impl Receiver {
    /// One that answers at once.
    pub async fn start() -> Result<Receiver, Fault> {
        Receiver::that_takes(Duration::ZERO).await
    }

    /// One that answers each request so long after it came.
    pub async fn that_takes(pause: Duration) -> Result<Receiver, Fault> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let heard = Arc::<Heard>::default();
        let mut tasks = JoinSet::new();
        let own = heard.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let heard = own.clone();
                connections.spawn(async move {
                    answer(stream, &heard, pause).await.ok(); // the client is gone
                });
            }
        });
        Ok(Receiver { address, heard, _tasks: tasks })
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The latencies since the last call.
    pub fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn answer(mut stream: TcpStream, heard: &Heard, pause: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(16 << 10);
    loop {
        let Some((head, whole)) = request(&buffer) else {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let came = now_ns();
        let sent = buffer
            .get(head..head + 20)
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
        buffer.drain(..whole);
        if let Some(sent) = sent {
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(came.saturating_sub(sent));
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        stream.write_all(ANSWER).await?;
    }
}

/// Where the body of the first request begins and ends, if it is there whole.
fn request(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?.to_ascii_lowercase();
    if text.contains("transfer-encoding: chunked") {
        let end = bytes[head..].windows(5).position(|five| five == b"0\r\n\r\n")?;
        return Some((head, head + end + 5));
    }
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse::<usize>().ok()?;
    (bytes.len() >= head + length).then_some((head, head + length))
}

/// Posts so many bodies of 1 KiB over so many connections.
pub async fn post(address: SocketAddr, requests: u64, connections: u16) -> Result<Duration, Fault> {
    let body = vec![b'x'; 1024];
    let mut bytes =
        format!("POST / HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(&body);
    let (bytes, left) = (Arc::new(bytes), Arc::new(AtomicU64::new(requests)));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (bytes, left) = (bytes.clone(), left.clone());
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut answer = vec![0; ANSWER.len()];
            while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                stream.write_all(&bytes).await?;
                stream.read_exact(&mut answer).await?;
            }
            Ok::<(), std::io::Error>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(began.elapsed())
}
