//! A connection to RabbitMQ: opened once, alive until it is gone, never repaired. Who needs another opens another.
//!
//! One task a connection reads and writes ([`drive`]). As both happen in one task, it is known exactly which bytes had
//! been handed to the socket when the connection ended, and so which messages certainly never left.

pub(crate) mod channel;
mod drive;
mod handshake;
pub(crate) mod outbox;
pub(crate) mod slot;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::ClientConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warren_engine::failure::Failure;

use self::channel::{Channels, OpenChannel};
use self::outbox::Outbox;
use super::config::Target;
use super::failures::{CallFault, Gone};
use super::wire::method::Call;

/// What the two sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) channel_max: u16,
    pub(crate) frame_max: usize,
    /// Zero: none.
    pub(crate) heartbeat: Duration,
}

/// What the broker says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) product: String,
    pub(crate) version: String,
}

/// What the connection's task and its users share.
pub(crate) struct Shared {
    pub(crate) outbox: Outbox,
    pub(crate) channels: Channels,
    pub(crate) agreed: Agreed,
    pub(crate) server: Server,
    pub(crate) ask_timeout: Duration,
    gone: OnceLock<Arc<Gone>>,
    cancel: CancellationToken,
}

impl Shared {
    /// How the connection ended, if it did.
    pub(crate) fn gone(&self) -> Option<Arc<Gone>> {
        self.gone.get().cloned()
    }
}

/// An open connection. Dropping it ends it at once; [`Connection::close`] ends it in good order.
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    /// Of its one task.
    tasks: TaskTracker,
}

/// How long the broker may take to say good-bye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl Connection {
    /// Connects, logs in and opens the vhost. `name` is shown in the broker's list of connections.
    pub(crate) async fn open(
        target: &Target,
        tls: Option<&(Arc<ClientConfig>, String)>,
        name: &str,
    ) -> Result<Connection, Failure> {
        let greeted = handshake::open(target, tls, name).await?;
        let shared = Arc::new(Shared {
            outbox: Outbox::new(),
            channels: Channels::new(greeted.agreed.channel_max),
            agreed: greeted.agreed,
            server: greeted.server,
            ask_timeout: target.connect_timeout,
            gone: OnceLock::new(),
            cancel: CancellationToken::new(),
        });
        let tasks = TaskTracker::new();
        tasks.spawn(drive::drive(greeted.stream, greeted.unread, shared.clone()));
        tasks.close();
        Ok(Connection { shared, tasks })
    }

    /// Whether it can be used, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        self.shared.gone.get().is_none()
    }

    /// Opens a channel, which is closed when it is dropped.
    pub(crate) async fn channel(&self) -> Result<OpenChannel, CallFault> {
        OpenChannel::open(&self.shared).await
    }

    /// Says good-bye and waits until the connection is down.
    pub(crate) async fn close(&self) {
        let mut frames = Vec::with_capacity(64);
        let close = Call::ConnectionClose { code: 200, text: "done" };
        if close.put(&mut frames, 0).is_ok() {
            self.shared.outbox.push(frames.into()).ok(); // shut: it is down already
        }
        if tokio::time::timeout(CLOSE_TIMEOUT, self.tasks.wait()).await.is_err() {
            self.shared.cancel.cancel();
            self.tasks.wait().await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
    }
}
