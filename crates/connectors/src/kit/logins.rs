//! Logins that were checked a moment ago, and the checks of all others.
//!
//! A password is kept as a keyed hash with its name, under a key that lives as long as the process: it cannot be read from memory, and a
//! wrong password is never taken for a right one. How many wrong passwords are checked is limited for each source and each name
//! ([`Guesses`]), and so is the queue of checks ([`CheckQueue`]). A login that was right within the last [`RIGHT_FOR`] is not checked and
//! not limited.

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::hub::ports::User;
use warren_engine::pipeline::outside::Hidden;

use super::asked::{Answer, Asked};
use super::check_queue::CheckQueue;
use super::guesses::{Exhausted, Guess, Guesses, Origin};
use super::random;

/// How long a right password counts without being checked again; so long may a user go on whose password was changed.
const RIGHT_FOR: Duration = Duration::from_secs(30);
/// From this age on it is checked again, by one of those who go on.
const RENEWED_AFTER: Duration = Duration::from_secs(20);
/// How long a wrong one counts as wrong; so long waits a user whose password was just set.
const WRONG_FOR: Duration = Duration::from_secs(5);
/// Longer names and passwords belong to nobody.
const TEXT_BYTES_MAX: usize = 1024;
/// When to retry where the queue is full.
const QUEUE_RETRY: Duration = Duration::from_secs(1);

type Print = [u8; 32];

/// The logins of one list of users.
pub(crate) struct Logins {
    key: Hmac<Sha256>,
    known: Asked<Print, Option<User>>,
    guesses: Guesses,
    queue: CheckQueue,
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
        Ok(Logins { key, known: Asked::default(), guesses: Guesses::new(), queue: CheckQueue::new() })
    }

    /// Who logs in from an address: as it was a moment ago, or as `check` says.
    ///
    /// # Errors
    /// Too many passwords were tried from there or for this name, or `check` cannot tell.
    pub(crate) async fn login<F>(
        &self,
        from: IpAddr,
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
        let (print, origin) = (self.print(name, password), self.guesses.origin(from, name));
        let mut check = Some(check);
        loop {
            let mut asked_here = false;
            let checked = async |again: bool| {
                asked_here = true;
                let check = check.take().ok_or_else(|| Failure::internal("check a password twice"))?;
                self.checked(origin, name, again, check).await
            };
            match self.known.get(&print, checked).await {
                // The same login was refused to another source: that says nothing about this one.
                Err(failure) if failure.code == codes::TOO_MANY_LOGINS && !asked_here => {}
                answer => return answer,
            }
        }
    }

    /// `again`: it was right until now, so it is not a guess.
    async fn checked<F>(
        &self,
        origin: Origin,
        name: &str,
        again: bool,
        check: impl FnOnce() -> F,
    ) -> Result<Answer<Option<User>>, Failure>
    where
        F: Future<Output = Result<Option<User>, Failure>>,
    {
        // What would be refused in any case takes no place in the queue.
        if let Some(exhausted) = self.guesses.exhausted(origin).filter(|_| !again) {
            return Err(too_many(name, exhausted));
        }
        let Some(_turn) = self.queue.turn(origin, self.guesses.is_suspect(origin)).await else {
            return Err(too_many(name, Exhausted::Source(QUEUE_RETRY)));
        };
        let guess = if again {
            None
        } else {
            Some(self.guesses.take(origin).map_err(|exhausted| too_many(name, exhausted))?)
        };
        let user = check().await;
        // Where the password could not be checked, nothing was learned by trying it.
        if !matches!(user, Ok(None)) {
            guess.into_iter().for_each(Guess::forgive);
        }
        let user = user?;
        let right = user.is_some();
        let counts_for = if right { RIGHT_FOR } else { WRONG_FOR };
        Ok(Answer { value: user, counts_for, renewed_after: right.then_some(RENEWED_AFTER) })
    }

    fn print(&self, name: &str, password: &Hidden) -> Print {
        let mut mac = self.key.clone();
        mac.update(&(name.len() as u64).to_le_bytes());
        mac.update(name.as_bytes());
        mac.update(password.0.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

fn too_many(name: &str, exhausted: Exhausted) -> Failure {
    let (detail, after) = match exhausted {
        Exhausted::Source(after) => ("too many logins from this address failed or are being checked", after),
        Exhausted::Name(after) => ("too many logins with this name failed", after),
    };
    let what = format!("check the password of `{}`", name.chars().take(100).collect::<String>());
    let failure = Failure::new(FailureKind::Throttled, codes::TOO_MANY_LOGINS, what)
        .detail(detail)
        .remedy("retry after the time that `Retry-After` gives");
    Failure { retry_after: Some(after.max(QUEUE_RETRY)), ..failure }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::Instant;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

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
            let found = logins.login(HERE, "ann", &hidden("right"), || check(true)).await.unwrap();
            assert_eq!(found, Some(user("ann")));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        for (name, password) in [("ann", "wrong"), ("ann", ""), ("annr", "ight"), ("an", "nright")] {
            assert_eq!(logins.login(HERE, name, &hidden(password), || check(false)).await.unwrap(), None);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 5);
        // It was changed.
        tokio::time::advance(RIGHT_FOR).await;
        assert_eq!(logins.login(HERE, "ann", &hidden("right"), || check(false)).await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_are_limited_and_known_logins_are_not() {
        let logins = Logins::new().unwrap();
        logins.login(HERE, "ann", &hidden("right"), || async { Ok(Some(user("ann"))) }).await.unwrap();
        let asked = AtomicUsize::new(0);
        let mut refused = 0;
        for number in 0..1000 {
            let check = || {
                asked.fetch_add(1, Ordering::Relaxed);
                async { Ok(None) }
            };
            match logins.login(HERE, "ann", &hidden(&format!("guess {number}")), check).await {
                Ok(found) => assert_eq!(found, None),
                Err(failure) => {
                    assert_eq!(failure.kind, FailureKind::Throttled);
                    assert!(failure.retry_after.is_some());
                    refused += 1;
                }
            }
        }
        assert_eq!((asked.load(Ordering::Relaxed), refused), (30, 970));
        let known = logins.login(HERE, "ann", &hidden("right"), || async { Ok(None) }).await.unwrap();
        assert_eq!(known, Some(user("ann")));
        // Nor when it is checked again while somebody else guesses.
        tokio::time::advance(RENEWED_AFTER).await;
        for number in 0..1000 {
            logins.login(HERE, "ann", &hidden(&format!("again {number}")), || async { Ok(None) }).await.ok();
        }
        let renewed = AtomicUsize::new(0);
        let renews = || {
            renewed.fetch_add(1, Ordering::Relaxed);
            async { Ok(Some(user("ann"))) }
        };
        assert_eq!(logins.login(HERE, "ann", &hidden("right"), renews).await.unwrap(), Some(user("ann")));
        assert_eq!(renewed.load(Ordering::Relaxed), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        let new =
            logins.login(HERE, "bob", &hidden("right"), || async { Ok(Some(user("bob"))) }).await.unwrap();
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
            let asking = (0..1000).map(|_| logins.login(HERE, "ann", &password, || check(answer.clone())));
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
        let never = logins.login(HERE, "ann", &password, std::future::pending);
        let other = logins.login(HERE, "ann", &password, || async { Ok(Some(user("ann"))) });
        let hangs_up = tokio::time::timeout(Duration::from_secs(1), never);
        let (hung_up, other) = tokio::join!(hangs_up, other);
        assert_eq!((hung_up.is_err(), other.unwrap()), (true, Some(user("ann"))));
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_on_asking_is_checked_again_while_others_go_on() {
        let logins = Logins::new().unwrap();
        let password = hidden("right");
        let known = || logins.login(HERE, "ann", &password, || async { panic!("asked") });
        logins.login(HERE, "ann", &password, || async { Ok(Some(user("ann"))) }).await.unwrap();
        tokio::time::advance(RENEWED_AFTER).await;
        // One who hangs up leaves it to the next; where nobody can tell, what is known counts.
        let hangs_up = logins.login(HERE, "ann", &password, std::future::pending);
        assert!(tokio::time::timeout(Duration::from_secs(1), hangs_up).await.is_err());
        let fails = logins.login(HERE, "ann", &password, || async { Err(Failure::internal("ask")) });
        assert_eq!(fails.await.unwrap(), Some(user("ann")));
        let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
        let renews = logins.login(HERE, "ann", &password, || async {
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
        assert_eq!(logins.login(HERE, "ann", &password, || async { Ok(None) }).await.unwrap(), None);
        assert_eq!(known().await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_no_broker_could_be_told_is_nobody() {
        let logins = Logins::new().unwrap();
        for (name, password) in [("", "x"), ("a\0b", "x"), ("a", "b\0c")] {
            let asked = || async { panic!("asked") };
            assert_eq!(logins.login(HERE, name, &hidden(password), asked).await.unwrap(), None);
        }
    }

    /// How long a check of the tests takes.
    const CHECK: Duration = Duration::from_millis(10);

    /// Logs in with passwords that were not checked before, for some time; how many of them were accepted.
    async fn logs_in(logins: &Logins, from: IpAddr, name: &str, until: Instant) -> u32 {
        let mut accepted = 0;
        for number in 0.. {
            if Instant::now() >= until {
                break;
            }
            // Every password is right, so none is known from the one before.
            let password = hidden(&format!("right {number}"));
            let check = || async {
                tokio::time::sleep(CHECK).await;
                Ok(Some(user(name)))
            };
            match logins.login(from, name, &password, check).await {
                Ok(found) => accepted += u32::from(found.is_some()),
                // A client that retries at once.
                Err(_) => tokio::time::sleep(CHECK).await,
            }
        }
        accepted
    }

    /// Tries wrong passwords for some time, again at once after a refusal; how many were checked.
    async fn guesses(
        logins: &Logins,
        thread: u32,
        of: impl Fn(u32) -> (IpAddr, String),
        until: Instant,
    ) -> u32 {
        let mut checked = 0;
        for number in 0.. {
            if Instant::now() >= until {
                break;
            }
            let ((from, name), password) = (of(number), hidden(&format!("wrong {thread} {number}")));
            let check = || async {
                tokio::time::sleep(CHECK).await;
                Ok(None)
            };
            match logins.login(from, &name, &password, check).await {
                Ok(_) => checked += 1,
                Err(failure) => {
                    assert_eq!(
                        (failure.kind, failure.code),
                        (FailureKind::Throttled, codes::TOO_MANY_LOGINS)
                    );
                    assert!(failure.retry_after.is_some());
                    tokio::time::sleep(CHECK / 2).await;
                }
            }
        }
        checked
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_do_not_slow_down_the_logins_of_others() {
        let address = |number: u32| IpAddr::V4((0x0a00_0000 + number).into());
        type Of = Box<dyn Fn(u32) -> (IpAddr, String)>;
        let one_name = || -> Of { Box::new(|_| (HERE, "ann".to_owned())) };
        let many_names = || -> Of { Box::new(|number| (HERE, format!("name {number}"))) };
        let unknown_and_known = || -> Of { Box::new(|number| (HERE, format!("name {}", number % 20))) };
        let many_addresses = || -> Of { Box::new(move |number| (address(number % 20), "ann".to_owned())) };
        let both = || -> Of { Box::new(move |number| (address(number % 20), format!("name {number}"))) };
        let cases: [(&str, &dyn Fn() -> Of, IpAddr, &str); 7] = [
            ("one name, another from the same address", &one_name, HERE, "bob"),
            ("one name, the same from another address", &one_name, ELSEWHERE, "ann"),
            ("many names, from another address", &many_names, ELSEWHERE, "bob"),
            ("many names, one of them from another address", &unknown_and_known, ELSEWHERE, "name 1"),
            ("one name from many addresses, the same name", &many_addresses, ELSEWHERE, "ann"),
            ("one name from many addresses, another name", &many_addresses, ELSEWHERE, "bob"),
            ("many names from many addresses", &both, ELSEWHERE, "bob"),
        ];
        let lasts = Duration::from_secs(20);
        for (case, of, from, name) in cases {
            let alone = logs_in(&Logins::new().unwrap(), from, name, Instant::now() + lasts).await;
            let (logins, until) = (Logins::new().unwrap(), Instant::now() + lasts);
            let bad = futures_util::future::join_all((0..12).map(|thread| {
                let of = of();
                let of = move |number: u32| of(number * 12 + thread);
                let logins = &logins;
                async move { guesses(logins, thread, of, until).await }
            }));
            let (bad, good) = tokio::join!(bad, logs_in(&logins, from, name, until));
            assert!(f64::from(good) >= 0.9 * f64::from(alone), "{case}: {good} of {alone}");
            let bad: u32 = bad.iter().sum();
            // Of each source a burst and five a second.
            let sources = if case.contains("many addresses") { 20 } else { 1 };
            assert!(bad >= 30 && bad <= sources * 2 * (30 + 5 * 20), "{case}: {bad} guesses");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_that_is_refused_to_one_source_is_checked_for_another() {
        let logins = Logins::new().unwrap();
        for number in 0..100 {
            logins.login(HERE, "ann", &hidden(&format!("guess {number}")), || async { Ok(None) }).await.ok();
        }
        let right = hidden("right");
        let refused = logins.login(HERE, "ann", &right, || async { panic!("checked") });
        let accepted = logins.login(ELSEWHERE, "ann", &right, || async { Ok(Some(user("ann"))) });
        let (refused, accepted) = tokio::join!(refused, accepted);
        assert_eq!(refused.unwrap_err().code, codes::TOO_MANY_LOGINS);
        assert_eq!(accepted.unwrap(), Some(user("ann")));
    }

    #[tokio::test(start_paused = true)]
    async fn checks_that_fail_cost_no_guesses() {
        let logins = Logins::new().unwrap();
        for number in 0..1000 {
            let password = hidden(&format!("right {number}"));
            let away = logins.login(HERE, "ann", &password, || async { Err(Failure::internal("ask")) }).await;
            assert_eq!(away.unwrap_err().code, codes::INTERNAL);
        }
        let back = logins.login(HERE, "ann", &hidden("right"), || async { Ok(Some(user("ann"))) }).await;
        assert_eq!(back.unwrap(), Some(user("ann")));
    }
}
