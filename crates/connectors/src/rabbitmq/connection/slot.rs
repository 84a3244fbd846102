//! The place of one connection: opened when it is first used, and again when it is used after it was lost.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::Instant;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use super::Connection;
use crate::kit::tls;
use crate::kit::tls::TlsSettings;
use crate::rabbitmq::config::{Protocol, Target};

pub(crate) struct Slot {
    target: Arc<Target>,
    tls: TlsSettings,
    /// What the broker's list of connections shows.
    name: String,
    /// One attempt at a time.
    attempt: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Connection>>,
    /// The last attempt that failed, and when it ended.
    failed: Option<(Instant, Failure)>,
    closed: bool,
}

impl Slot {
    pub(crate) fn new(target: Arc<Target>, tls: TlsSettings, name: String) -> Slot {
        Slot { target, tls, name, attempt: Semaphore::new(1), state: Mutex::default() }
    }

    /// The connection, if it is open.
    pub(crate) fn current(&self) -> Option<Arc<Connection>> {
        self.state().current.clone().filter(|connection| connection.is_open())
    }

    /// The connection; makes one attempt to open it if it is not. Who waited for another's attempt shares its result.
    ///
    /// # Errors
    /// What kept it from being opened, of the kind that it is.
    pub(crate) async fn get(&self) -> Result<Arc<Connection>, Failure> {
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        let asked = Instant::now();
        let _attempt = self.attempt.acquire().await.map_err(|_| self.shut())?;
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        if let Some((ended, failure)) = &self.state().failed
            && *ended >= asked
        {
            return Err(failure.clone());
        }
        match self.open().await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                let mut state = self.state();
                if state.closed {
                    return Err(self.shut());
                }
                state.failed = None;
                state.current = Some(connection.clone());
                Ok(connection)
            }
            Err(failure) => {
                self.state().failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    /// Closes the connection for good.
    pub(crate) async fn close(&self) {
        self.attempt.close();
        let current = {
            let mut state = self.state();
            state.closed = true;
            state.current.take()
        };
        if let Some(connection) = current {
            connection.close().await;
        }
    }

    async fn open(&self) -> Result<Connection, Failure> {
        // Read at each attempt, so that a renewed password or certificate is used without a restart.
        let (target, settings) = self.target.now(&self.tls);
        let tls = match target.protocol {
            Protocol::Amqp => None,
            Protocol::Amqps => {
                let name = settings.server_name.clone().unwrap_or_else(|| target.host.clone());
                Some((tls::client_config(&settings)?, name))
            }
        };
        Connection::open(&target, tls.as_ref(), &self.name).await
    }

    fn shut(&self) -> Failure {
        Failure::new(FailureKind::Disconnected, codes::CONNECTION_LOST, "use the connection to RabbitMQ")
            .detail(format!("`{}` was closed by Warren", self.name))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
