//! What is known of exchanges and logins on one connection, so that a message that would close its channel is refused
//! alone and without being sent.
//!
//! The first time an exchange is named, the broker is asked on a spare channel whether it is there. That it is, holds for the
//! connection; that it is not, or may not be written to, for five seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::super::connection::Connection;
use super::super::failures::{CallFault, Gone};
use super::super::wire::method::Call;

const REFUSED: Duration = Duration::from_secs(5);
/// A name may come from a column; beyond this many all are asked for again.
const NAMES_MAX: usize = 10_000;

#[derive(Default)]
pub(super) struct Known {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None`: it is there.
    exchanges: HashMap<String, Option<Refusal>>,
    /// Values of `user_id` that the broker does not let this login use.
    user_ids: HashMap<String, Arc<Gone>>,
}

struct Refusal {
    until: Instant,
    why: Arc<Gone>,
}

/// What is known of an exchange.
enum Remembered {
    Nothing,
    There,
    Refused(Arc<Gone>),
}

impl Known {
    /// Why messages to an exchange are refused now, if they are. May ask the broker.
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) async fn refusal(
        &self,
        connection: &Connection,
        exchange: &str,
    ) -> Result<Option<Arc<Gone>>, CallFault> {
        if exchange.is_empty() {
            // The default exchange is always there; whether it may be written to, only publishing tells.
            return Ok(match self.remembered(exchange) {
                Remembered::Refused(why) => Some(why),
                Remembered::There | Remembered::Nothing => None,
            });
        }
        match self.remembered(exchange) {
            Remembered::There => return Ok(None),
            Remembered::Refused(why) => return Ok(Some(why)),
            Remembered::Nothing => {}
        }
        let channel = connection.channel().await?;
        match channel.tell(Call::ExchangePassive { exchange }).await {
            Ok(()) => {
                self.remember(exchange, None);
                Ok(None)
            }
            Err(CallFault::Gone(gone)) => match &*gone {
                Gone::Channel(close) if close.code == 404 => {
                    self.remember(exchange, Some(gone.clone()));
                    Ok(Some(gone))
                }
                // It may not be asked for and may be written to all the same: publishing will tell.
                Gone::Channel(_) => {
                    self.remember(exchange, None);
                    Ok(None)
                }
                _ => Err(CallFault::Gone(gone)),
            },
            // A name that is too long is refused when it is written.
            Err(CallFault::Unsayable(_)) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Publishing to an exchange was refused.
    pub(super) fn refused(&self, exchange: &str, why: Arc<Gone>) {
        self.remember(exchange, Some(why));
    }

    /// Why a `user_id` is refused, if it is known to be.
    pub(super) fn user_id_refusal(&self, user_id: &str) -> Option<Arc<Gone>> {
        self.state().user_ids.get(user_id).cloned()
    }

    /// A `user_id` was refused. Rights do not change within a connection.
    pub(super) fn user_id_refused(&self, user_id: &str, why: Arc<Gone>) {
        let mut state = self.state();
        if state.user_ids.len() >= NAMES_MAX {
            state.user_ids.clear();
        }
        state.user_ids.insert(user_id.to_owned(), why);
    }

    fn remembered(&self, exchange: &str) -> Remembered {
        let mut state = self.state();
        match state.exchanges.get(exchange) {
            None => Remembered::Nothing,
            Some(None) => Remembered::There,
            Some(Some(refusal)) if refusal.until > Instant::now() => Remembered::Refused(refusal.why.clone()),
            Some(Some(_)) => {
                state.exchanges.remove(exchange);
                Remembered::Nothing
            }
        }
    }

    fn remember(&self, exchange: &str, why: Option<Arc<Gone>>) {
        let mut state = self.state();
        if state.exchanges.len() >= NAMES_MAX {
            state.exchanges.clear();
        }
        let refusal = why.map(|why| Refusal { until: Instant::now() + REFUSED, why });
        state.exchanges.insert(exchange.to_owned(), refusal);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
