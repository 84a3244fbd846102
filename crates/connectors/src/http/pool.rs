//! Connections: made where none is free, kept between requests, and each driven by whoever has a request on it.
//!
//! A client that gives each connection a task of its own hands every request to it and every answer back, from thread to thread, which costs
//! more than the request itself. Here the task that asks also writes and reads. While a connection is not used nobody reads it; whether
//! the server closed it meanwhile is looked at when it is used again.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::Full;
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::{TrySendError, http1};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::connect::{Connector, Place};
use super::line::{Line, Past};

/// Connections of one kind.
pub(super) struct Pool {
    connector: Connector,
    /// Unused connections to one place.
    idle_max: usize,
    idle_timeout: Duration,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    by_place: HashMap<Place, Vec<(Instant, Open)>>,
    /// Closes what was not used for long; there while anything is idle.
    reaper: JoinSet<()>,
}

/// A connection.
pub(super) struct Open {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: Pin<Box<http1::Connection<TokioIo<Line>, Full<Bytes>>>>,
    /// Whether the connection has ended and is to be asked no more.
    ended: bool,
    pub(super) past: Past,
    pub(super) proxied: bool,
}

impl Pool {
    pub(super) fn new(connector: Connector, idle_max: usize, idle_timeout: Duration) -> Arc<Pool> {
        Arc::new(Pool { connector, idle_max, idle_timeout, idle: Mutex::default() })
    }

    /// A connection that was used before and, as far as can be told, is still there. The one used last: others may then be closed in time.
    pub(super) fn take(&self, place: &Place) -> Option<Open> {
        loop {
            let (since, mut open) = self.idle().by_place.get_mut(place)?.pop()?;
            if since.elapsed() < self.idle_timeout && open.is_ready() {
                return Some(open);
            }
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// The place cannot be reached, or may not be.
    pub(super) async fn connect(&self, place: &Place) -> io::Result<Open> {
        let line = self.connector.open(place).await?;
        let (past, proxied) = (line.past(), line.is_proxied());
        let (sender, connection) = http1::handshake(TokioIo::new(line)).await.map_err(io::Error::other)?;
        Ok(Open { sender, connection: Box::pin(connection), ended: false, past, proxied })
    }

    /// Keeps a connection whose answer was read to its end, if it can be used again.
    pub(super) fn give_back(self: &Arc<Pool>, place: &Place, mut open: Open) {
        if self.idle_max == 0 || !open.is_ready() {
            return;
        }
        let mut idle = self.idle();
        let now = Instant::now();
        match idle.by_place.get_mut(place) {
            Some(others) if others.len() >= self.idle_max => return,
            Some(others) => others.push((now, open)),
            None => drop(idle.by_place.insert(place.clone(), vec![(now, open)])),
        }
        if idle.reaper.is_empty() {
            idle.reaper.spawn(reap(Arc::downgrade(self), self.idle_timeout));
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes connections that were not used for long, until there are none.
async fn reap(pool: Weak<Pool>, timeout: Duration) {
    loop {
        sleep(timeout.max(Duration::from_millis(100))).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle();
        idle.by_place.retain(|_, connections| {
            connections.retain(|(since, _)| since.elapsed() < timeout);
            !connections.is_empty()
        });
        if idle.by_place.is_empty() {
            idle.reaper.detach_all(); // this is the one there is, and it ends here
            return;
        }
    }
}

impl Open {
    /// Sends a request and waits for the head of its answer. Of a request of which nothing was sent the error holds it.
    ///
    /// # Errors
    /// The connection ended before a head had come.
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        let (connection, ended) = (&mut self.connection, &mut self.ended);
        poll_fn(|context| {
            if !*ended && connection.as_mut().poll(context).is_ready() {
                *ended = true; // who waits for the answer is told why
            }
            answer.as_mut().poll(context)
        })
        .await
    }

    /// The next part of an answer.
    pub(super) async fn frame(&mut self, body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        poll_fn(|context| {
            if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) {
                return Poll::Ready(frame);
            }
            if !self.ended && self.connection.as_mut().poll(context).is_ready() {
                self.ended = true; // the body says how it ended
            }
            Pin::new(&mut *body).poll_frame(context)
        })
        .await
    }

    /// Whether a request can be sent on it now.
    fn is_ready(&mut self) -> bool {
        if !self.ended && self.connection.as_mut().now_or_never().is_some() {
            self.ended = true;
        }
        !self.ended && self.sender.is_ready()
    }
}
