//! What is known of exchanges, logins and sizes on one connection, so that a message that would close its channel is refused without being
//! sent, or at least closes a channel that no other message is on.
//!
//! RabbitMQ closes the channel over one message where its exchange is missing or may not be written to, where its `user_id` is another's, and
//! where it is larger than `max_message_size`. What is first of its kind on a connection is therefore sent on trial: alone on a channel. Once
//! it has passed, that holds for the connection. That an exchange is missing or refused holds for five seconds.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use warren_engine::message::Outbound;

use super::super::failures::Gone;
use super::super::wire::publish::address;

const REFUSED: Duration = Duration::from_secs(5);
/// A name may come from a column; beyond this many all are tried again.
const NAMES_MAX: usize = 10_000;
/// Bodies up to this size are taken by any broker that is of use.
const BODY_BYTES_SMALL: u64 = 128 << 10;

#[derive(Default)]
pub(super) struct Known {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    exchanges: HashMap<String, Verdict>,
    /// Values of `user_id` that are not the login's own. Rights do not change within a connection.
    user_ids: HashMap<String, Verdict>,
    /// Exchanges for which this login may use some routing keys only, and what is known of the keys.
    topical: HashSet<String>,
    topics: HashMap<(String, String), Verdict>,
    /// The largest body that was taken.
    body_bytes_passed: u64,
    /// The largest body the broker says it takes.
    body_bytes_max: Option<u64>,
}

enum Verdict {
    Passed,
    /// Until then; for the connection where there is no end.
    Refused(Arc<Gone>, Option<Instant>),
}

/// What is known of a message before it is sent.
#[derive(Debug, Clone)]
pub(super) enum Outlook {
    /// Others like it have passed.
    Fine,
    /// Nothing like it was sent yet.
    Trial,
    /// It would close the channel.
    Refused(Arc<Gone>),
}

impl Known {
    /// What is known of a message, for a login of this name.
    pub(super) fn outlook(&self, outbound: &Outbound, login: Option<&str>) -> Outlook {
        let mut state = self.state();
        let (exchange, routing_key) = address(&outbound.route);
        let mut outlook = of(&mut state.exchanges, exchange);
        if state.topical.contains(exchange) {
            let key = (exchange.to_owned(), routing_key.to_owned());
            outlook = worse(outlook, of(&mut state.topics, &key));
        }
        let user_id = outbound.message.properties.user_id.as_deref();
        if let Some(user_id) = user_id.filter(|user_id| login != Some(*user_id)) {
            outlook = worse(outlook, of(&mut state.user_ids, user_id));
        }
        let bytes = outbound.message.body.len() as u64;
        if bytes > state.body_bytes_passed.max(BODY_BYTES_SMALL) {
            outlook = worse(outlook, Outlook::Trial);
        }
        outlook
    }

    /// The broker took a message, or gave it back: it objects to nothing of it.
    pub(super) fn passed(&self, outbound: &Outbound, login: Option<&str>) {
        let mut state = self.state();
        let (exchange, routing_key) = address(&outbound.route);
        remember(&mut state.exchanges, exchange.to_owned(), Verdict::Passed);
        if state.topical.contains(exchange) {
            remember(&mut state.topics, (exchange.to_owned(), routing_key.to_owned()), Verdict::Passed);
        }
        let user_id = outbound.message.properties.user_id.as_deref();
        if let Some(user_id) = user_id.filter(|user_id| login != Some(*user_id)) {
            remember(&mut state.user_ids, user_id.to_owned(), Verdict::Passed);
        }
        state.body_bytes_passed = state.body_bytes_passed.max(outbound.message.body.len() as u64);
    }

    /// Publishing to an exchange was refused.
    pub(super) fn refused(&self, exchange: &str, why: Arc<Gone>) {
        remember(&mut self.state().exchanges, exchange.to_owned(), for_now(why));
    }

    /// Publishing to an exchange with this routing key was refused.
    pub(super) fn topic_refused(&self, exchange: &str, routing_key: &str, why: Arc<Gone>) {
        let mut state = self.state();
        if state.topical.len() >= NAMES_MAX {
            state.topical.clear();
        }
        state.topical.insert(exchange.to_owned());
        remember(&mut state.topics, (exchange.to_owned(), routing_key.to_owned()), for_now(why));
    }

    /// A `user_id` was refused.
    pub(super) fn user_id_refused(&self, user_id: &str, why: Arc<Gone>) {
        remember(&mut self.state().user_ids, user_id.to_owned(), Verdict::Refused(why, None));
    }

    /// The broker said how large a body may be.
    pub(super) fn body_bytes_learned(&self, allowed: u64) {
        self.state().body_bytes_max = Some(allowed);
    }

    /// How large a body may be by the broker's own words.
    pub(super) fn body_bytes_max(&self) -> Option<u64> {
        self.state().body_bytes_max
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of<K, Q>(verdicts: &mut HashMap<K, Verdict>, name: &Q) -> Outlook
where
    K: std::borrow::Borrow<Q> + std::hash::Hash + Eq,
    Q: std::hash::Hash + Eq + ?Sized,
{
    match verdicts.get(name) {
        None => Outlook::Trial,
        Some(Verdict::Passed) => Outlook::Fine,
        Some(Verdict::Refused(why, until)) if until.is_none_or(|until| until > Instant::now()) => {
            Outlook::Refused(why.clone())
        }
        Some(Verdict::Refused(..)) => {
            verdicts.remove(name);
            Outlook::Trial
        }
    }
}

fn remember<K: std::hash::Hash + Eq>(verdicts: &mut HashMap<K, Verdict>, name: K, verdict: Verdict) {
    if verdicts.len() >= NAMES_MAX && !verdicts.contains_key(&name) {
        verdicts.clear();
    }
    verdicts.insert(name, verdict);
}

fn for_now(why: Arc<Gone>) -> Verdict {
    Verdict::Refused(why, Some(Instant::now() + REFUSED))
}

fn worse(one: Outlook, other: Outlook) -> Outlook {
    match (one, other) {
        (Outlook::Refused(why), _) | (_, Outlook::Refused(why)) => Outlook::Refused(why),
        (Outlook::Trial, _) | (_, Outlook::Trial) => Outlook::Trial,
        (Outlook::Fine, Outlook::Fine) => Outlook::Fine,
    }
}
