//! The listener that all of HTTP shares: pages, hub and API.
//!
//! Its bounds are constants: so many connections, so many of them from one address, so long for the head of a request, so large a head.
//! Whatever comes is answered: hyper answers what it cannot parse, and what it drops without a word (a head that comes too slowly, a
//! request cut short) is answered here. A connection ends with a pause in which the rest of the request is read and thrown away, since a
//! client that is still sending would otherwise see a reset in the place of its answer.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 2048;
/// Connections at once from one address, loopback aside, which a proxy may use for all.
const PER_ADDRESS_MAX: usize = 512;
/// How long the head of a request may take, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// What is buffered of a connection, in bytes.
const BUFFER_BYTES_MAX: usize = 128 << 10;
/// What is read of a request after its answer, in bytes and time.
const LINGER_BYTES_MAX: usize = 32 << 20;
const LINGER_MAX: Duration = Duration::from_secs(5);
/// The same at the end of the process: idle clients are not waited for.
const LINGER_AT_END: Duration = Duration::from_millis(500);
/// How long requests that are under way have at the end of the process.
const ENDING_MAX: Duration = Duration::from_secs(35);
/// After an error of `accept` (mostly: too many open files).
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until it is told that all has ended; then what is under way is answered, within the grace.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    ended: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let addresses = Arc::new(Addresses::default());
    let tls = tls.map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        // Nobody closes the semaphore.
        let Ok(permit) = permits.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ended.cancelled() => break,
        };
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Some(place) = Addresses::enter(&addresses, peer) else {
            connections.spawn(turn_away(stream, permit));
            continue;
        };
        let (tls, router, ended) = (tls.clone(), router.clone(), ended.clone());
        connections.spawn(async move {
            let _held = (permit, place);
            // Small answers are to go at once.
            stream.set_nodelay(true).ok(); // without it they are only slower
            match tls {
                None => converse(stream, router, ended).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                        converse(stream, router, ended).await;
                    }
                }
            }
        });
    }
    let rest = async { while connections.join_next().await.is_some() {} };
    if timeout(ENDING_MAX, rest).await.is_err() {
        tracing::warn!("connections were cut: their requests did not end in time");
    }
}

/// How many connections each address has.
#[derive(Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// A connection of an address, while it lasts.
struct Place(Option<(Arc<Addresses>, IpAddr)>);

impl Addresses {
    fn enter(addresses: &Arc<Addresses>, peer: SocketAddr) -> Option<Place> {
        let address = peer.ip();
        if address.is_loopback() {
            return Some(Place(None));
        }
        let mut counts = addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Place(Some((addresses.clone(), address))))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((addresses, address)) = self.0.take() else { return };
        let mut counts = addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

async fn turn_away(mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
    say(&mut stream, "503 Service Unavailable", "Too many connections from this address").await;
    linger(&mut stream, LINGER_MAX).await;
}

/// Answers all requests of a connection.
async fn converse<I>(io: I, router: Router, ended: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = Arc::new(AtomicU64::new(0));
    let counted = begun.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        counted.fetch_add(1, Ordering::Relaxed);
        let mut router = router.clone();
        Box::pin(async move {
            let answer = router.call(request.map(Body::new)).await;
            Ok::<Response<Body>, Infallible>(answer.unwrap_or_else(|never| match never {}))
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        // A client may close its half once it has asked.
        .half_close(true)
        .serve_connection(TokioIo::new(io), service);
    let mut ending = false;
    let result = loop {
        tokio::select! {
            result = poll_fn(|context| connection.poll_without_shutdown(context)) => break result,
            () = ended.cancelled(), if !ending => {
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                ending = true;
            }
        }
    };
    let rest = connection.into_parts();
    let mut io = rest.io.into_inner();
    if let Err(error) = result {
        let some_read = !rest.read_buf.is_empty();
        if let Some((status, text)) = unanswered(&error, some_read, begun.load(Ordering::Relaxed)) {
            say(&mut io, status, text).await;
        } else {
            tracing::debug!(%error, "a connection ended with an error");
        }
    }
    linger(&mut io, if ending { LINGER_AT_END } else { LINGER_MAX }).await;
}

/// What hyper says nothing to. `some_read`: part of a request came.
fn unanswered(error: &hyper::Error, some_read: bool, begun: u64) -> Option<(&'static str, &'static str)> {
    if error.is_timeout() {
        // An idle connection that asked before just ends.
        return (some_read || begun == 0).then_some(("408 Request Timeout", "The request came too slowly"));
    }
    if error.is_incomplete_message() {
        return Some(("400 Bad Request", "The request ended before its end"));
    }
    if error.is_parse() && error.to_string().contains("HTTP2 preface") {
        return Some(("505 HTTP Version Not Supported", "This is HTTP/1.1"));
    }
    None
}

/// An answer by hand, where nobody else can give one any more.
async fn say<I: AsyncWrite + Unpin>(io: &mut I, status: &str, text: &str) {
    let answer = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    // Whoever does not read it has gone.
    timeout(LINGER_MAX, io.write_all(answer.as_bytes())).await.ok();
}

/// Ends a connection so that the answer arrives: what the client still sends is read, for a while.
async fn linger<I: AsyncRead + AsyncWrite + Unpin>(io: &mut I, longest: Duration) {
    let rest = async {
        if io.shutdown().await.is_err() {
            return;
        }
        let mut buffer = vec![0; 16 << 10];
        let mut read = 0;
        while read < LINGER_BYTES_MAX {
            match io.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => read += count,
            }
        }
    };
    timeout(longest, rest).await.ok(); // then it ends anyhow
}
