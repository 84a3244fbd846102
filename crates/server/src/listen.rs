//! The listener that all of HTTP shares: pages, hub and API.
//!
//! Its bounds are constants: connections in all and of one address, the time for the head of a request, the size of a head. Every request
//! is answered: hyper answers what it cannot parse, what it drops silently (a head that comes too slowly, a request cut short) is answered
//! here, and so is a head whose framing is wrong ([`framing`](super::framing)). A connection ends with a lingering close
//! ([`linger`](super::linger)).

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response};
use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;
use warren_connectors::kit::client_network::client_network;

use warren_connectors::kit::guard::Allowed;

use super::client_address::{ClientAddress, behind_proxies};
use super::linger::Lingering;
use super::{framing, linger};

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 2048;
/// Connections at once from one address (of IPv6 a /64 network), loopback aside, which a proxy may use for all.
const PER_ADDRESS_MAX: usize = 512;
/// How long the head of a request may take, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// What is buffered of a connection, in bytes.
const BUFFER_BYTES_MAX: usize = 128 << 10;
/// Connections of one address beyond those that are answered with 503; after that they are closed without an answer.
const TURNED_AWAY_MAX: usize = 32;
/// How long a client is waited for that does not read its answer.
const SAY_MAX: Duration = Duration::from_secs(5);
/// From this size on, a body that was not read when the answer is there makes the answer the last of its connection, in bytes.
const UNREAD_BYTES_MAX: u64 = 64 << 10;
/// How long requests that are under way have at the end of the process.
const ENDING_MAX: Duration = Duration::from_secs(35);
/// After an error of `accept` (mostly: too many open files).
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A socket, and how requests arrive at it.
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    trusted_proxies: Option<Arc<Allowed>>,
}

impl Listener {
    /// HTTP without TLS; the address of a connection is that of its client.
    pub fn new(socket: TcpListener) -> Listener {
        Listener { socket, tls: None, trusted_proxies: None }
    }

    /// HTTPS.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<ServerConfig>>) -> Listener {
        Listener { tls, ..self }
    }

    /// The proxies whose `X-Forwarded-For` names the client.
    #[must_use]
    pub fn behind(self, trusted_proxies: &Allowed) -> Listener {
        let any = *trusted_proxies != Allowed::default();
        Listener { trusted_proxies: any.then(|| Arc::new(trusted_proxies.clone())), ..self }
    }
}

/// Serves until `ended` is cancelled; then requests under way are answered, within [`ENDING_MAX`].
pub async fn serve(listener: Listener, router: Router, ended: CancellationToken) {
    let Listener { socket, tls, trusted_proxies } = listener;
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let addresses = Arc::new(Addresses::default());
    let lingering = Arc::new(Lingering::default());
    let tls = tls.map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        // Nobody closes the semaphore.
        let Ok(permit) = permits.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
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
        let Some(place) = Addresses::enter(&addresses, peer) else { continue };
        let (tls, router) = (tls.clone(), router.clone());
        let connection = Connection {
            client: ClientAddress(peer.ip()),
            trusted_proxies: trusted_proxies.clone(),
            lingering: lingering.clone(),
            ended: ended.clone(),
        };
        connections.spawn(async move {
            // Small answers are to go at once.
            stream.set_nodelay(true).ok(); // without it they are only slower
            let turned_away = place.turned_away;
            match tls {
                None => connection.answer(stream, router, turned_away).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                        connection.answer(stream, router, turned_away).await;
                    }
                }
            }
            drop((permit, place));
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
struct Place {
    counted: Option<(Arc<Addresses>, IpAddr)>,
    /// The address has as many as it may.
    turned_away: bool,
}

impl Addresses {
    /// `None`: the address has so many that no more are answered.
    fn enter(addresses: &Arc<Addresses>, peer: SocketAddr) -> Option<Place> {
        if peer.ip().to_canonical().is_loopback() {
            return Some(Place { counted: None, turned_away: false });
        }
        let source = client_network(peer.ip());
        let mut counts = addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(source).or_default();
        if *count >= PER_ADDRESS_MAX + TURNED_AWAY_MAX {
            return None;
        }
        *count += 1;
        Some(Place { counted: Some((addresses.clone(), source)), turned_away: *count > PER_ADDRESS_MAX })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((addresses, source)) = self.counted.take() else { return };
        let mut counts = addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&source);
            }
        }
    }
}

/// What is known of a connection besides its bytes.
struct Connection {
    client: ClientAddress,
    trusted_proxies: Option<Arc<Allowed>>,
    lingering: Arc<Lingering>,
    ended: CancellationToken,
}

impl Connection {
    /// Answers all requests, or that there are too many connections, and ends the connection.
    async fn answer<I>(self, mut io: I, router: Router, turned_away: bool)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if turned_away {
            say(&mut io, "503 Service Unavailable", "Too many connections from this address").await;
        } else {
            io = self.converse(io, router).await;
        }
        let source = match self.client.0.to_canonical() {
            loopback if loopback.is_loopback() => loopback,
            address => client_network(address),
        };
        linger::close(&mut io, source, &self.lingering, &self.ended).await;
    }

    /// Answers all requests of a connection.
    async fn converse<I>(&self, io: I, router: Router) -> I
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let begun = Arc::new(AtomicU64::new(0));
        let (counted, peer, trusted) = (begun.clone(), self.client, self.trusted_proxies.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let client = match &trusted {
                Some(trusted) => ClientAddress(behind_proxies(peer.0, request.headers(), trusted)),
                None => peer,
            };
            request.extensions_mut().insert(client);
            let mut router = router.clone();
            Box::pin(async move {
                if let Some(answer) = framing::refused(request.version(), request.headers()) {
                    return Ok(answer);
                }
                let unread = Unread::default();
                let request = request.map(|body| Body::new(unread.watch(body)));
                let answer = router.call(request).await;
                let mut answer: Response<Body> = answer.unwrap_or_else(|never| match never {});
                if unread.bytes() > UNREAD_BYTES_MAX {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<Response<Body>, Infallible>(answer)
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
                () = self.ended.cancelled(), if !ending => {
                    Pin::new(&mut connection).graceful_shutdown();
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
        io
    }
}

/// How much of a request's body was not read: as far as its length says, or without an end where that is unknown.
#[derive(Clone, Default)]
struct Unread(Arc<AtomicU64>);

impl Unread {
    fn watch(&self, body: Incoming) -> Watched {
        let watched = Watched { body, unread: self.clone() };
        watched.note();
        watched
    }

    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A body whose unread rest is known after it was dropped.
struct Watched {
    body: Incoming,
    unread: Unread,
}

impl Watched {
    fn note(&self) {
        let rest =
            if self.body.is_end_stream() { 0 } else { self.body.size_hint().exact().unwrap_or(u64::MAX) };
        self.unread.0.store(rest, Ordering::Relaxed);
    }
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(None) => self.unread.0.store(0, Ordering::Relaxed),
            Poll::Ready(Some(_)) => self.note(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
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
    // A client that does not read it has gone.
    timeout(SAY_MAX, io.write_all(answer.as_bytes())).await.ok();
}
/// Serves one connection until it ends: the entry point of the fuzz target `http`.
#[cfg(fuzzing)]
pub async fn fuzz(io: tokio::io::DuplexStream, router: Router) {
    let client = ClientAddress(std::net::Ipv4Addr::LOCALHOST.into());
    let connection = Connection {
        client,
        trusted_proxies: None,
        lingering: Arc::default(),
        ended: CancellationToken::new(),
    };
    connection.answer(io, router, false).await;
}
