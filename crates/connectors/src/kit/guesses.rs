//! How many wrong passwords are checked: a budget for each source network and one for each name.
//!
//! A budget holds [`FAILURES_MAX`] failures and gets [`FAILURES_PER_SECOND`] back. One is taken before a password is checked and returned
//! when the password is right, so that only failures cost something. Who is refused is decided so that guesses never lock out others:
//!
//! - A name without recent failures is charged to a budget of its source that guesses at other names do not use. Another user behind the
//!   same address, such as a proxy's, can log in while one name is guessed.
//! - A name with recent failures is charged to the source and to the name. A source without recent failures needs no budget of the name,
//!   so that the owner of the name can log in from elsewhere.
//!
//! Sources and names are bounded in number. Beyond the bound the one that tried nothing for the longest time is forgotten, as if it had
//! never failed; nobody is refused because of it.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use super::client_network::client_network;

/// Failures at once.
const FAILURES_MAX: f64 = 30.0;
/// Failures per second in the long run.
const FAILURES_PER_SECOND: f64 = 5.0;
/// How long a failure counts as recent.
const RECENT: Duration = Duration::from_secs(60);
/// Sources and names that are remembered, each.
const REMEMBERED_MAX: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// Who tries a password: the network of the client, and the hash of the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) network: IpAddr,
    pub(crate) name: u64,
}

/// Which budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exhausted {
    Source(Duration),
    Name(Duration),
}

/// The budgets.
pub(crate) struct Guesses {
    names: RandomState,
    state: Mutex<State>,
}

struct State {
    sources: LruCache<IpAddr, Source>,
    names: LruCache<u64, Name>,
}

struct Source {
    /// For names with recent failures.
    suspect_names: Budget,
    /// For all others.
    clean_names: Budget,
    failed: Option<Instant>,
}

struct Name {
    budget: Budget,
    failed: Option<Instant>,
}

struct Budget {
    left: f64,
    counted: Instant,
}

/// A password that is being checked. Counts as a failure unless [`Guess::forgive`] is called: a client that hangs up has used it, too.
#[must_use]
pub(crate) struct Guess<'g> {
    guesses: &'g Guesses,
    origin: Origin,
    suspect_name: bool,
    forgiven: bool,
}

impl Guesses {
    pub(crate) fn new() -> Guesses {
        let state = State { sources: LruCache::new(REMEMBERED_MAX), names: LruCache::new(REMEMBERED_MAX) };
        Guesses { names: RandomState::new(), state: Mutex::new(state) }
    }

    pub(crate) fn origin(&self, from: IpAddr, name: &str) -> Origin {
        Origin { network: client_network(from), name: self.names.hash_one(name) }
    }

    /// Whether [`Guesses::take`] would refuse now.
    pub(crate) fn exhausted(&self, origin: Origin) -> Option<Exhausted> {
        let now = Instant::now();
        self.state().charge(origin, now, false).err()
    }

    /// Takes one failure from the budgets.
    ///
    /// # Errors
    /// A budget is used up.
    pub(crate) fn take(&self, origin: Origin) -> Result<Guess<'_>, Exhausted> {
        let suspect_name = self.state().charge(origin, Instant::now(), true)?;
        Ok(Guess { guesses: self, origin, suspect_name, forgiven: false })
    }

    /// Whether a password from that source was wrong not long ago.
    pub(crate) fn is_suspect(&self, origin: Origin) -> bool {
        let state = self.state();
        let source = state.sources.peek(&origin.network);
        source.is_some_and(|source| is_recent(source.failed, Instant::now()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Charges the budgets, or only says what that would do; whether the name has recent failures.
    fn charge(&mut self, origin: Origin, now: Instant, takes: bool) -> Result<bool, Exhausted> {
        let name =
            self.names.get_or_insert_mut(origin.name, || Name { budget: Budget::full(now), failed: None });
        let source = self.sources.get_or_insert_mut(origin.network, || Source {
            suspect_names: Budget::full(now),
            clean_names: Budget::full(now),
            failed: None,
        });
        let suspect_name = is_recent(name.failed, now);
        let of_source = if suspect_name { &mut source.suspect_names } else { &mut source.clean_names };
        of_source.refill(now);
        name.budget.refill(now);
        of_source.available().map_err(Exhausted::Source)?;
        if suspect_name && is_recent(source.failed, now) {
            name.budget.available().map_err(Exhausted::Name)?;
        }
        if takes {
            of_source.take();
            name.budget.take();
        }
        Ok(suspect_name)
    }
}

impl Guess<'_> {
    /// Returns what was taken: the password was right, or could not be checked.
    pub(crate) fn forgive(mut self) {
        self.forgiven = true;
    }
}

impl Drop for Guess<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.guesses.state();
        if let Some(name) = state.names.peek_mut(&self.origin.name) {
            if self.forgiven {
                name.budget.give_back(now);
            } else {
                name.failed = Some(now);
            }
        }
        if let Some(source) = state.sources.peek_mut(&self.origin.network) {
            match (self.forgiven, self.suspect_name) {
                (false, _) => source.failed = Some(now),
                (true, true) => source.suspect_names.give_back(now),
                (true, false) => source.clean_names.give_back(now),
            }
        }
    }
}

impl Budget {
    fn full(now: Instant) -> Budget {
        Budget { left: FAILURES_MAX, counted: now }
    }

    fn refill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.counted).as_secs_f64() * FAILURES_PER_SECOND;
        self.left = (self.left + gained).min(FAILURES_MAX);
        self.counted = now;
    }

    /// Whether there is one, or in how much time.
    fn available(&self) -> Result<(), Duration> {
        let missing = 1.0 - self.left;
        if missing <= 0.0 { Ok(()) } else { Err(Duration::from_secs_f64(missing / FAILURES_PER_SECOND)) }
    }

    fn take(&mut self) {
        // Below nothing, so that what is given back is never more than was taken.
        self.left = (self.left - 1.0).max(-FAILURES_MAX);
    }

    fn give_back(&mut self, now: Instant) {
        self.refill(now);
        self.left = (self.left + 1.0).min(FAILURES_MAX);
    }
}

fn is_recent(failed: Option<Instant>, now: Instant) -> bool {
    failed.is_some_and(|failed| now.saturating_duration_since(failed) < RECENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(guesses: &Guesses, from: &str, name: &str) -> Origin {
        guesses.origin(from.parse().unwrap(), name)
    }

    /// How many wrong passwords of these are checked.
    fn wrong(guesses: &Guesses, tries: usize, of: impl Fn(usize) -> (String, String)) -> usize {
        let tried = (0..tries).filter(|number| {
            let (from, name) = of(*number);
            guesses.take(origin(guesses, &from, &name)).is_ok()
        });
        tried.count()
    }

    fn right(guesses: &Guesses, from: &str, name: &str) -> bool {
        guesses.take(origin(guesses, from, name)).map(Guess::forgive).is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_at_one_name_from_one_address_leave_other_names_and_addresses() {
        let guesses = Guesses::new();
        // The first is charged as a clean name.
        assert_eq!(wrong(&guesses, 1000, |_| ("192.0.2.1".to_owned(), "ann".to_owned())), 30);
        assert!(!right(&guesses, "192.0.2.1", "ann"));
        for _ in 0..1000 {
            assert!(right(&guesses, "192.0.2.1", "bob"), "another name from the same address");
            assert!(right(&guesses, "192.0.2.2", "ann"), "the same name from another address");
            assert!(right(&guesses, "192.0.2.2", "bob"));
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(wrong(&guesses, 1000, |_| ("192.0.2.1".to_owned(), "ann".to_owned())), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_at_many_names_from_one_address_leave_other_addresses() {
        let guesses = Guesses::new();
        assert_eq!(wrong(&guesses, 1000, |number| ("192.0.2.1".to_owned(), format!("name {number}"))), 30);
        assert!(!right(&guesses, "192.0.2.1", "bob"));
        assert!(right(&guesses, "192.0.2.2", "bob") && right(&guesses, "192.0.2.2", "name 1"));
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_at_one_name_from_many_addresses_leave_addresses_without_failures() {
        let guesses = Guesses::new();
        let of = |number: usize| (format!("10.0.0.{}", number % 100), "ann".to_owned());
        let tried = wrong(&guesses, 10_000, of);
        // Each address once, and what the name has left.
        assert!((100..=130).contains(&tried), "{tried}");
        assert!(right(&guesses, "192.0.2.2", "ann"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_ipv6_network_is_one_source() {
        let guesses = Guesses::new();
        let of = |number: usize| (format!("2001:db8:1:1:{number:x}::1"), format!("name {number}"));
        assert_eq!(wrong(&guesses, 1000, of), 30);
        assert!(right(&guesses, "2001:db8:1:2::1", "name 1"));
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_bound_the_oldest_are_forgotten_and_nobody_is_refused() {
        let guesses = Guesses::new();
        let many = 3 * REMEMBERED_MAX.get();
        let of = |number: usize| {
            (format!("10.{}.{}.{}", number >> 16, (number >> 8) & 255, number & 255), format!("n {number}"))
        };
        assert_eq!(wrong(&guesses, many, of), many);
        let state = guesses.state();
        assert_eq!((state.sources.len(), state.names.len()), (REMEMBERED_MAX.get(), REMEMBERED_MAX.get()));
        drop(state);
        assert!(right(&guesses, "192.0.2.2", "ann"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_guess_that_is_given_up_counts_and_one_that_could_not_be_checked_does_not() {
        let guesses = Guesses::new();
        for _ in 0..100 {
            assert!(right(&guesses, "192.0.2.1", "ann"));
        }
        drop(guesses.take(origin(&guesses, "192.0.2.1", "ann")).unwrap());
        let state = guesses.state();
        assert!(state.sources.iter().all(|(_, source)| source.failed.is_some()));
    }
}
