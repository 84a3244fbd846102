//! Logins that were checked a moment ago, and how many may be checked at once.
//!
//! A password is kept as a keyed hash with its name, under a key that lives as long as the process: nobody finds it in memory, and a
//! wrong one can never be taken for a right one. Whoever tries passwords waits in a short line, and after a number of failures a second
//! all who are not known yet wait; those who logged in a moment ago, and go on, do not notice.

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

use super::asked::{Answer, Asked};
use super::random;

/// How long a right password counts without being checked again; so long may a user go on whose password was changed.
const RIGHT_FOR: Duration = Duration::from_secs(30);
/// From this age on it is checked again, by one of those who go on.
const RENEWED_AFTER: Duration = Duration::from_secs(20);
/// How long a wrong one counts as wrong; so long waits a user whose password was just set.
const WRONG_FOR: Duration = Duration::from_secs(5);
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
    known: Asked<Print, Option<User>>,
    state: Mutex<State>,
}

struct State {
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
        let state = State { waiting: 0, budget: (FAILURES_MAX, Instant::now()) };
        Ok(Logins {
            key,
            checks: Semaphore::new(AT_ONCE_MAX),
            known: Asked::default(),
            state: Mutex::new(state),
        })
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
        let checked = async |again: bool| {
            let _waiting = Waiting::enter(self, name)?;
            let _place = self.checks.acquire().await.map_err(|_| Failure::internal("wait for a login"))?;
            // One that was right until now is no guess: it must not be forgotten because others guess.
            if !again {
                self.within_budget(name)?;
            }
            let user = check().await?;
            let right = user.is_some();
            if right && !again {
                self.state().budget.0 += 1.0; // no failure
            }
            let counts_for = if right { RIGHT_FOR } else { WRONG_FOR };
            Ok(Answer { value: user, counts_for, renewed_after: right.then_some(RENEWED_AFTER) })
        };
        self.known.get(&print, checked).await
    }

    fn print(&self, name: &str, password: &Hidden) -> Print {
        let mut mac = self.key.clone();
        mac.update(&(name.len() as u64).to_le_bytes());
        mac.update(name.as_bytes());
        mac.update(password.0.as_bytes());
        mac.finalize().into_bytes().into()
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
        // Nor when it is checked again while somebody else guesses.
        tokio::time::advance(RENEWED_AFTER).await;
        for number in 0..1000 {
            logins.login("ann", &hidden(&format!("again {number}")), || async { Ok(None) }).await.ok();
        }
        let renewed = AtomicUsize::new(0);
        let renews = || {
            renewed.fetch_add(1, Ordering::Relaxed);
            async { Ok(Some(user("ann"))) }
        };
        assert_eq!(logins.login("ann", &hidden("right"), renews).await.unwrap(), Some(user("ann")));
        assert_eq!(renewed.load(Ordering::Relaxed), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        let new = logins.login("bob", &hidden("right"), || async { Ok(Some(user("bob"))) }).await.unwrap();
        assert_eq!(new, Some(user("bob")));
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_ask_the_same_at_once_it_is_checked_once() {
        let logins = Logins::new().unwrap();
        let asked = AtomicUsize::new(0);
        let check = |answer: Result<Option<User>, Failure>| {
            asked.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                answer
            }
        };
        let all = async |password: &str, answer: Result<Option<User>, Failure>| {
            let password = hidden(password);
            let asking = (0..1000).map(|_| logins.login("ann", &password, || check(answer.clone())));
            futures_util::future::join_all(asking).await
        };
        let found = all("right", Ok(Some(user("ann")))).await;
        assert!(found.iter().all(|found| found.as_ref().unwrap().as_ref() == Some(&user("ann"))));
        assert!(all("wrong", Ok(None)).await.iter().all(|found| found.as_ref().unwrap().is_none()));
        let failed = all("unknown", Err(Failure::internal("ask"))).await;
        assert_eq!((failed.iter().filter(|found| found.is_err()).count(), asked.into_inner()), (1000, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn where_who_had_it_checked_hangs_up_another_has() {
        let logins = Logins::new().unwrap();
        let password = hidden("right");
        let never = logins.login("ann", &password, std::future::pending);
        let other = logins.login("ann", &password, || async { Ok(Some(user("ann"))) });
        let hangs_up = tokio::time::timeout(Duration::from_secs(1), never);
        let (hung_up, other) = tokio::join!(hangs_up, other);
        assert_eq!((hung_up.is_err(), other.unwrap()), (true, Some(user("ann"))));
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_on_asking_is_checked_again_while_others_go_on() {
        let logins = Logins::new().unwrap();
        let password = hidden("right");
        let known = || logins.login("ann", &password, || async { panic!("asked") });
        logins.login("ann", &password, || async { Ok(Some(user("ann"))) }).await.unwrap();
        tokio::time::advance(RENEWED_AFTER).await;
        // One who hangs up leaves it to the next; where nobody can tell, what is known counts.
        let hangs_up = logins.login("ann", &password, std::future::pending);
        assert!(tokio::time::timeout(Duration::from_secs(1), hangs_up).await.is_err());
        let fails = logins.login("ann", &password, || async { Err(Failure::internal("ask")) });
        assert_eq!(fails.await.unwrap(), Some(user("ann")));
        let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
        let renews = logins.login("ann", &password, || async {
            wait.await.ok();
            Ok(Some(user("ann")))
        });
        let others = async {
            for _ in 0..3 {
                assert_eq!(known().await.unwrap(), Some(user("ann")));
            }
            go_on.send(()).unwrap();
        };
        let (renewed, ()) = tokio::join!(renews, others);
        assert_eq!(renewed.unwrap(), Some(user("ann")));
        tokio::time::advance(RENEWED_AFTER.saturating_sub(Duration::from_secs(1))).await;
        assert_eq!(known().await.unwrap(), Some(user("ann")));
        // It was changed meanwhile.
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(logins.login("ann", &password, || async { Ok(None) }).await.unwrap(), None);
        assert_eq!(known().await.unwrap(), None);
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
