//! One place for a channel with confirms: opened when it is first used, and again after it was closed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::super::connection::Connection;
use super::super::connection::channel::OpenChannel;
use super::super::failures::{CallFault, Gone};
use super::super::wire::method::Call;
use super::LANE_TRIES;
use super::confirms::Confirms;

pub(super) struct Lane {
    current: Mutex<Option<Arc<Open>>>,
    /// One opening at a time.
    opening: Semaphore,
    /// A channel on which a message has been without an answer for this long is replaced. It closes once nobody waits for what is on it.
    overdue: Duration,
}

/// A channel with confirms.
pub(super) struct Open {
    pub(super) channel: OpenChannel,
    pub(super) confirms: Arc<Confirms>,
}

impl Lane {
    pub(super) fn new(overdue: Duration) -> Lane {
        Lane { current: Mutex::default(), opening: Semaphore::new(1), overdue }
    }

    /// A channel on which nothing is under way: that of the lane, or a new one in its place.
    ///
    /// # Errors
    /// As [`Lane::open`].
    pub(super) async fn open_idle(&self, connection: &Connection) -> Result<Arc<Open>, Arc<Gone>> {
        let open = self.open(connection).await?;
        if open.confirms.is_idle() {
            return Ok(open);
        }
        *self.current() = None;
        self.open(connection).await
    }

    /// The channel, opened if it is not.
    ///
    /// # Errors
    /// How the connection, or each new channel, ended.
    pub(super) async fn open(&self, connection: &Connection) -> Result<Arc<Open>, Arc<Gone>> {
        if let Some(open) = self.usable() {
            return Ok(open);
        }
        let _opening = self.opening.acquire().await;
        let mut ended = Arc::new(Gone::Late);
        for _ in 0..LANE_TRIES {
            if let Some(open) = self.usable() {
                return Ok(open);
            }
            match Open::new(connection).await {
                Ok(open) => *self.current() = Some(Arc::new(open)),
                Err(CallFault::Gone(gone)) => ended = gone,
                Err(fault) => ended = Arc::new(Gone::Lost(format!("{}", fault.failure("open a channel")))),
            }
            if !connection.is_open() {
                break;
            }
        }
        self.usable().ok_or(ended)
    }

    fn usable(&self) -> Option<Arc<Open>> {
        let current = self.current().clone();
        current.filter(|open| open.channel.gone().is_none() && !open.confirms.is_overdue(self.overdue))
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Open>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    async fn new(connection: &Connection) -> Result<Open, CallFault> {
        let channel = connection.channel().await?;
        let confirms = Arc::new(Confirms::default());
        channel.listen(confirms.clone());
        channel.tell(Call::ConfirmSelect).await?;
        Ok(Open { channel, confirms })
    }
}
