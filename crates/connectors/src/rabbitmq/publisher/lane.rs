//! One place for a channel with confirms: opened when it is first used, and again after it was closed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
}

/// A channel with confirms.
pub(super) struct Open {
    pub(super) channel: OpenChannel,
    pub(super) confirms: Arc<Confirms>,
}

impl Default for Lane {
    fn default() -> Self {
        Lane { current: Mutex::default(), opening: Semaphore::new(1) }
    }
}

impl Lane {
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
        self.current().clone().filter(|open| open.channel.gone().is_none())
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
