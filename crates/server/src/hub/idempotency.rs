//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): the same key with the same request gets the same answer, and nothing is
//! done twice.
//!
//! Answers are kept in memory, for a day and up to a number for all users together. When there are more, the user with the most loses the oldest.
//! Where an answer is not kept any more, also after a restart, a repetition is done again. Answers that say "later" are not kept, so that a
//! repetition is another try.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use tokio::time::Instant;

/// How long an answer is kept.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// So many answers are kept.
const KEPT_MAX: usize = 20_000;
/// The longest key, in bytes.
pub(super) const KEY_BYTES_MAX: usize = 255;

/// An answer that can be given again.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What a key is, so far.
#[derive(Debug)]
pub(super) enum Seen<'i> {
    /// New: the request is to be done.
    New(Ticket<'i>),
    /// Done, with this answer.
    Done(Kept),
    /// Under way.
    UnderWay,
    /// It was another request.
    Other,
}

/// The keys that were seen.
#[derive(Debug, Default)]
pub(super) struct Idempotency(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Name, Entry>,
    /// The keys of each user, in the order in which they came.
    order: HashMap<String, VecDeque<(String, Instant)>>,
    /// How many keys are in `order`, and whose.
    sizes: BTreeSet<(usize, String)>,
    count: usize,
}

/// The user and the key.
type Name = (String, String);

#[derive(Debug)]
struct Entry {
    print: u128,
    began: Instant,
    answer: Option<Kept>,
}

/// Holds a key while its request is under way. Dropped without an answer, the key is free again.
#[derive(Debug)]
pub(super) struct Ticket<'i> {
    of: &'i Idempotency,
    name: Name,
    began: Instant,
}

impl Idempotency {
    /// Looks a key up, and takes it if it is new. The print is of all of the request that counts.
    pub(super) fn begin(&self, user: &str, key: &str, print: u128) -> Seen<'_> {
        let name = (user.to_owned(), key.to_owned());
        let began = Instant::now();
        let mut state = self.lock();
        state.forget_old(user, began);
        match state.entries.get(&name) {
            Some(entry) if entry.print != print => Seen::Other,
            Some(Entry { answer: Some(answer), .. }) => Seen::Done(answer.clone()),
            Some(Entry { answer: None, .. }) => Seen::UnderWay,
            None => {
                state.make_room();
                state.entries.insert(name.clone(), Entry { print, began, answer: None });
                state.change(user, |keys| keys.push_back((key.to_owned(), began)));
                Seen::New(Ticket { of: self, name, began })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets the keys of a user that are too old.
    fn forget_old(&mut self, user: &str, now: Instant) {
        let is_old = |(_, began): &(String, Instant)| now.duration_since(*began) >= KEPT_FOR;
        while self.order.get(user).and_then(VecDeque::front).is_some_and(is_old) {
            self.forget_oldest(user);
        }
    }

    /// Makes room for one more: whoever has the most keys loses the oldest of them, so nobody loses one to a user with more.
    fn make_room(&mut self) {
        while self.count >= KEPT_MAX {
            let Some((_, user)) = self.sizes.last().cloned() else { return };
            self.forget_oldest(&user);
        }
    }

    fn forget_oldest(&mut self, user: &str) {
        let Some((key, began)) = self.change(user, VecDeque::pop_front) else { return };
        let name = (user.to_owned(), key);
        // A key that was freed and came again has a newer entry.
        if self.entries.get(&name).is_some_and(|entry| entry.began == began) {
            self.entries.remove(&name);
        }
    }

    /// Changes the keys of a user, and what is counted of them.
    fn change<T>(&mut self, user: &str, change: impl FnOnce(&mut VecDeque<(String, Instant)>) -> T) -> T {
        let keys = self.order.entry(user.to_owned()).or_default();
        let before = keys.len();
        let changed = change(keys);
        let after = keys.len();
        self.sizes.remove(&(before, user.to_owned()));
        if after == 0 {
            self.order.remove(user);
        } else {
            self.sizes.insert((after, user.to_owned()));
        }
        self.count = self.count + after - before;
        changed
    }
}

impl Ticket<'_> {
    /// Keeps the answer for whoever asks again.
    pub(super) fn keep(self, answer: Kept) {
        let mut state = self.of.lock();
        if let Some(entry) = state.entries.get_mut(&self.name).filter(|entry| entry.began == self.began) {
            entry.answer = Some(answer);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = self.of.lock();
        let mine = |entry: &Entry| entry.began == self.began && entry.answer.is_none();
        if state.entries.get(&self.name).is_some_and(mine) {
            state.entries.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        Kept { status: StatusCode::ACCEPTED, headers: HeaderMap::new(), body: Bytes::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_done_once_for_a_day() {
        let keys = Idempotency::default();
        let Seen::New(ticket) = keys.begin("u", "k", 1) else { panic!("new") };
        assert!(matches!(keys.begin("u", "k", 1), Seen::UnderWay));
        assert!(matches!(keys.begin("u", "k", 2), Seen::Other));
        assert!(matches!(keys.begin("other", "k", 1), Seen::New(_)));
        ticket.keep(kept());
        assert!(matches!(keys.begin("u", "k", 1), Seen::Done(_)));
        assert!(matches!(keys.begin("u", "k", 2), Seen::Other));
        tokio::time::advance(KEPT_FOR).await;
        assert!(matches!(keys.begin("u", "k", 2), Seen::New(_)));
    }

    #[test]
    fn a_key_without_an_answer_is_free_again() {
        let keys = Idempotency::default();
        drop(keys.begin("u", "k", 1));
        assert!(matches!(keys.begin("u", "k", 2), Seen::New(_)));
    }

    #[test]
    fn the_memory_of_keys_is_bounded() {
        let keys = Idempotency::default();
        for number in 0..KEPT_MAX + 10 {
            if let Seen::New(ticket) = keys.begin("u", &number.to_string(), 1) {
                ticket.keep(kept());
            }
        }
        assert!(keys.lock().entries.len() <= KEPT_MAX);
        assert!(matches!(keys.begin("u", "0", 1), Seen::New(_)), "the oldest is gone");
    }

    #[test]
    fn one_user_with_many_keys_costs_another_none() {
        let keys = Idempotency::default();
        let keep = |user: &str, key: &str| match keys.begin(user, key, 1) {
            Seen::New(ticket) => ticket.keep(kept()),
            other => panic!("{other:?}"),
        };
        for number in 0..100 {
            keep("good", &number.to_string());
        }
        for number in 0..KEPT_MAX * 2 {
            keep("greedy", &number.to_string());
        }
        for number in 0..100 {
            assert!(matches!(keys.begin("good", &number.to_string(), 1), Seen::Done(_)), "{number}");
        }
        let state = keys.lock();
        assert_eq!((state.count, state.entries.len()), (KEPT_MAX, KEPT_MAX));
        let counted: usize = state.order.values().map(VecDeque::len).sum();
        assert_eq!((counted, state.sizes.len()), (KEPT_MAX, 2));
    }
}
