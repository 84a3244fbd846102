//! Logins that were checked a moment ago, and how many may be checked at once.
//!
//! A password is kept as a keyed hash with its name, under a key that lives as long as the process: nobody finds it in memory, and a
//! wrong one can never be taken for a right one. Whoever tries passwords waits in a short line, and after a number of failures a second
//! all who are not known yet wait; those who logged in a moment ago do not notice.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::hub::ports::User;
use warren_engine::pipeline::outside::Hidden;

use super::random;

/// How long a right password counts without being checked again; so long may a user go on whose password was changed.
const RIGHT_FOR: Duration = Duration::from_secs(30);
/// How long a wrong one counts as wrong; so long waits a user whose password was just set.
const WRONG_FOR: Duration = Duration::from_secs(5);
/// Passwords that are remembered, right and wrong.
const REMEMBERED_MAX: usize = 10_000;
/// Checks at once.
const AT_ONCE_MAX: usize = 4;
/// Those who wait for one.
const WAITING_MAX: usize = 64;
/// Failures that are borne at once.
const FAILURES_MAX: f64 = 30.0;
/// Failures a second that are borne for long.
const FAILURES_PER_SECOND: f64 = 5.0;
/// Longer names and passwords belong to nobody.
const TEXT_BYTES_MAX: usize = 1024;

type Print = [u8; 32];

/// The logins of one list of users.
pub(crate) struct Logins {
    key: Hmac<Sha256>,
    checks: Semaphore,
    state: Mutex<State>,
}

struct State {
    known: HashMap<Print, (Instant, Option<User>)>,
    waiting: usize,
    /// Failures that may still happen, and when that was counted.
    budget: (f64, Instant),
}

impl Logins {
    /// None is known yet.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(crate) fn new() -> Result<Logins, Failure> {
        let mut key = [0; 32];
        random::fill(&mut key)?;
        let key = Hmac::new_from_slice(&key).map_err(|_| Failure::internal("use a key of 32 bytes"))?;
        let state = State { known: HashMap::new(), waiting: 0, budget: (FAILURES_MAX, Instant::now()) };
        Ok(Logins { key, checks: Semaphore::new(AT_ONCE_MAX), state: Mutex::new(state) })
    }

    /// Who logs in: as it was a moment ago, or as `check` says.
    ///
    /// # Errors
    /// Too many passwords are tried, or `check` cannot tell.
    pub(crate) async fn login<F>(
        &self,
        name: &str,
        password: &Hidden,
        check: impl FnOnce() -> F,
    ) -> Result<Option<User>, Failure>
    where
        F: Future<Output = Result<Option<User>, Failure>>,
    {
        // A zero byte would end the name on the wire, and what follows count as the password.
        let sayable = |text: &str| text.len() <= TEXT_BYTES_MAX && !text.contains('\0');
        if name.is_empty() || !sayable(name) || !sayable(&password.0) {
            return Ok(None);
        }
        let print = self.print(name, password);
        if let Some(answer) = self.known(&print) {
            return Ok(answer);
        }
        let _waiting = Waiting::enter(self, name)?;
        let _check = self.checks.acquire().await.map_err(|_| Failure::internal("wait for a login"))?;
        if let Some(answer) = self.known(&print) {
            return Ok(answer); // somebody before us in the line asked the same
        }
        self.within_budget(name)?;
        let answer = check().await?;
        self.learn(print, answer.clone());
        Ok(answer)
    }

    fn print(&self, name: &str, password: &Hidden) -> Print {
        let mut mac = self.key.clone();
        mac.update(&(name.len() as u64).to_le_bytes());
        mac.update(name.as_bytes());
        mac.update(password.0.as_bytes());
        mac.finalize().into_bytes().into()
    }

    fn known(&self, print: &Print) -> Option<Option<User>> {
        let state = self.state();
        let (until, answer) = state.known.get(print)?;
        (Instant::now() < *until).then(|| answer.clone())
    }

    fn learn(&self, print: Print, answer: Option<User>) {
        let now = Instant::now();
        let mut state = self.state();
        if answer.is_some() {
            state.budget.0 += 1.0; // no failure
        }
        if state.known.len() >= REMEMBERED_MAX {
            state.known.retain(|_, (until, answer)| *until > now && answer.is_some());
        }
        if state.known.len() >= REMEMBERED_MAX {
            state.known.clear();
        }
        let until = now + if answer.is_some() { RIGHT_FOR } else { WRONG_FOR };
        state.known.insert(print, (until, answer));
    }

    fn within_budget(&self, name: &str) -> Result<(), Failure> {
        let now = Instant::now();
        let mut state = self.state();
        let (left, counted) = state.budget;
        let gained = now.duration_since(counted).as_secs_f64() * FAILURES_PER_SECOND;
        state.budget = ((left + gained).min(FAILURES_MAX), now);
        if state.budget.0 < 1.0 {
            return Err(too_many(name));
        }
        // Taken before it is checked: whoever hangs up meanwhile has had it.
        state.budget.0 -= 1.0;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the line.
struct Waiting<'l>(&'l Logins);

impl Waiting<'_> {
    fn enter<'l>(logins: &'l Logins, name: &str) -> Result<Waiting<'l>, Failure> {
        let mut state = logins.state();
        if state.waiting >= WAITING_MAX {
            return Err(too_many(name));
        }
        state.waiting += 1;
        Ok(Waiting(logins))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

fn too_many(name: &str) -> Failure {
    let failure = Failure::new(
        FailureKind::Throttled,
        codes::BROKER_THROTTLED,
        format!("check the password of `{}`", name.chars().take(100).collect::<String>()),
    )
    .detail("too many logins failed, or wait to be checked")
    .remedy("try again in a moment");
    Failure { retry_after: Some(Duration::from_secs(1)), ..failure }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn user(name: &str) -> User {
        User { name: name.to_owned(), tags: Vec::new() }
    }

    fn hidden(text: &str) -> Hidden {
        Hidden(text.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_password_is_asked_once_and_a_wrong_one_never_counts_as_right() {
        let logins = Logins::new().unwrap();
        let asked = AtomicUsize::new(0);
        let check = |right: bool| {
            asked.fetch_add(1, Ordering::Relaxed);
            async move { Ok(right.then(|| user("ann"))) }
        };
        for _ in 0..3 {
            let found = logins.login("ann", &hidden("right"), || check(true)).await.unwrap();
            assert_eq!(found, Some(user("ann")));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        for (name, password) in [("ann", "wrong"), ("ann", ""), ("annr", "ight"), ("an", "nright")] {
            assert_eq!(logins.login(name, &hidden(password), || check(false)).await.unwrap(), None);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 5);
        // It was changed.
        tokio::time::advance(RIGHT_FOR).await;
        assert_eq!(logins.login("ann", &hidden("right"), || check(false)).await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_tries_passwords_is_held_back_and_those_who_are_known_are_not() {
        let logins = Logins::new().unwrap();
        logins.login("ann", &hidden("right"), || async { Ok(Some(user("ann"))) }).await.unwrap();
        let asked = AtomicUsize::new(0);
        let mut refused = 0;
        for number in 0..1000 {
            let check = || {
                asked.fetch_add(1, Ordering::Relaxed);
                async { Ok(None) }
            };
            match logins.login("ann", &hidden(&format!("guess {number}")), check).await {
                Ok(found) => assert_eq!(found, None),
                Err(failure) => {
                    assert_eq!(failure.kind, FailureKind::Throttled);
                    assert!(failure.retry_after.is_some());
                    refused += 1;
                }
            }
        }
        assert_eq!((asked.load(Ordering::Relaxed), refused), (30, 970));
        let known = logins.login("ann", &hidden("right"), || async { Ok(None) }).await.unwrap();
        assert_eq!(known, Some(user("ann")));
        tokio::time::advance(Duration::from_secs(1)).await;
        let new = logins.login("bob", &hidden("right"), || async { Ok(Some(user("bob"))) }).await.unwrap();
        assert_eq!(new, Some(user("bob")));
    }

    #[tokio::test]
    async fn what_no_broker_could_be_told_is_nobody() {
        let logins = Logins::new().unwrap();
        for (name, password) in [("", "x"), ("a\0b", "x"), ("a", "b\0c")] {
            let asked = || async { panic!("asked") };
            assert_eq!(logins.login(name, &hidden(password), asked).await.unwrap(), None);
        }
    }
}
