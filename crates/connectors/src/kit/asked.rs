//! Answers that count for a while: however many want the same at once, it is asked once; and of those who go on wanting it, one has it asked
//! again before it counts no more, while the others go on.

use std::collections::HashMap;
use std::hash::Hash;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use warren_engine::failure::Failure;

/// Answers that are remembered.
const REMEMBERED_MAX: usize = 10_000;

/// What was asked, by what it was asked of.
pub(crate) struct Asked<K: Eq + Hash, V>(Mutex<State<K, V>>);

struct State<K, V> {
    known: HashMap<K, Entry<V>>,
    under_way: HashMap<K, Arc<Question<V>>>,
}

struct Entry<V> {
    answer: Answer<V>,
    since: Instant,
    /// Whether somebody has it asked again.
    renewing: bool,
}

/// An answer, and how long it counts.
#[derive(Debug, Clone)]
pub(crate) struct Answer<V> {
    pub(crate) value: V,
    pub(crate) counts_for: Duration,
    /// From what age on it is asked again by one of those who want it. Without one it is not worth that: it counts and is gone, and is the
    /// first to be forgotten where there are too many.
    pub(crate) renewed_after: Option<Duration>,
}

/// A question that others wait for, too.
struct Question<V> {
    ended: Notify,
    /// Nothing, where whoever asked has hung up.
    answer: OnceLock<Result<V, Failure>>,
}

/// What is to be done by whoever wants an answer.
enum Step<V> {
    /// Nothing: this is known.
    Known(V),
    /// To ask again; this is known meanwhile.
    Renew(V),
    /// To ask, for all who wait.
    Ask(Arc<Question<V>>),
    /// To wait for somebody who asks.
    Wait(Arc<Question<V>>),
}

impl<K: Eq + Hash, V> Default for Asked<K, V> {
    fn default() -> Self {
        Asked(Mutex::new(State { known: HashMap::new(), under_way: HashMap::new() }))
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Asked<K, V> {
    /// The answer for a key: as it was a moment ago, or as `ask` says, which is told whether it asks again what is known still.
    ///
    /// # Errors
    /// `ask` failed, and nothing that counts is known.
    pub(crate) async fn get<F>(&self, key: &K, ask: impl FnOnce(bool) -> F) -> Result<V, Failure>
    where
        F: Future<Output = Result<Answer<V>, Failure>>,
    {
        loop {
            let question = match self.step(key) {
                Step::Known(value) => return Ok(value),
                Step::Renew(value) => {
                    let _renewing = Renewing { asked: self, key };
                    // Who cannot be asked now has said so before, which still counts.
                    return Ok(ask(true).await.map_or(value, |answer| self.learn(key, answer)));
                }
                Step::Ask(question) => {
                    let asking = Asking { asked: self, key, question };
                    let answer = ask(false).await.map(|answer| self.learn(key, answer));
                    asking.question.answer.set(answer.clone()).ok(); // only set here
                    return answer;
                }
                Step::Wait(question) => question,
            };
            let mut ended = pin!(question.ended.notified());
            ended.as_mut().enable(); // from here on the end is not missed
            if question.answer.get().is_none() && self.is_under_way(key, &question) {
                ended.await;
            }
            if let Some(answer) = question.answer.get() {
                return answer.clone();
            }
        }
    }

    fn step(&self, key: &K) -> Step<V> {
        let mut state = self.state();
        if let Some(entry) = state.known.get_mut(key)
            && let age = entry.since.elapsed()
            && age < entry.answer.counts_for
        {
            let value = entry.answer.value.clone();
            let soon = entry.answer.renewed_after.is_some_and(|after| age >= after);
            let renews = soon && !std::mem::replace(&mut entry.renewing, true);
            return if renews { Step::Renew(value) } else { Step::Known(value) };
        }
        if let Some(question) = state.under_way.get(key) {
            return Step::Wait(question.clone());
        }
        let question = Arc::new(Question { ended: Notify::new(), answer: OnceLock::new() });
        state.under_way.insert(key.clone(), question.clone());
        Step::Ask(question)
    }

    fn is_under_way(&self, key: &K, question: &Arc<Question<V>>) -> bool {
        self.state().under_way.get(key).is_some_and(|there| Arc::ptr_eq(there, question))
    }

    fn learn(&self, key: &K, answer: Answer<V>) -> V {
        let value = answer.value.clone();
        let mut state = self.state();
        if state.known.len() >= REMEMBERED_MAX {
            state.known.retain(|_, Entry { answer, since, .. }| {
                answer.renewed_after.is_some() && since.elapsed() < answer.counts_for
            });
        }
        if state.known.len() >= REMEMBERED_MAX {
            state.known.clear();
        }
        state.known.insert(key.clone(), Entry { answer, since: Instant::now(), renewing: false });
        value
    }
}

impl<K: Eq + Hash, V> Asked<K, V> {
    fn state(&self) -> MutexGuard<'_, State<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is being asked for all who wait. When it is over, or who asked hangs up, they hear of it.
struct Asking<'a, K: Eq + Hash, V> {
    asked: &'a Asked<K, V>,
    key: &'a K,
    question: Arc<Question<V>>,
}

impl<K: Eq + Hash, V> Drop for Asking<'_, K, V> {
    fn drop(&mut self) {
        self.asked.state().under_way.remove(self.key);
        self.question.ended.notify_waiters();
    }
}

/// What is being asked again.
struct Renewing<'a, K: Eq + Hash, V> {
    asked: &'a Asked<K, V>,
    key: &'a K,
}

impl<K: Eq + Hash, V> Drop for Renewing<'_, K, V> {
    fn drop(&mut self) {
        if let Some(entry) = self.asked.state().known.get_mut(self.key) {
            entry.renewing = false;
        }
    }
}
