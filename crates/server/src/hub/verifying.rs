//! How many callbacks are asked at once while somebody waits for the answer, and how much of that one user and one host may have: a callback
//! that hangs takes a place for as long as it may take to answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long a user waits for a place: what answers soon makes room soon.
const PATIENCE: Duration = Duration::from_secs(5);

/// The places, and who has them.
pub(super) struct Verifying {
    all: Arc<Semaphore>,
    of_user: Shares,
    of_host: Shares,
    patience: Duration,
}

/// A place, until it is dropped.
pub(super) struct Place {
    _permits: [OwnedSemaphorePermit; 3],
}

impl Verifying {
    /// Places for users. One user has less than one host, so that it cannot have all of a host that others want, too.
    pub fn of_users() -> Verifying {
        Verifying::new(64, 16, 32, PATIENCE)
    }

    /// Places for all who have not logged in. They do not wait: what waits holds a connection.
    pub fn of_strangers() -> Verifying {
        Verifying::new(16, 16, 4, Duration::ZERO)
    }

    fn new(all: usize, of_user: usize, of_host: usize, patience: Duration) -> Verifying {
        let (of_user, of_host) = (Shares::new(of_user), Shares::new(of_host));
        Verifying { all: Arc::new(Semaphore::new(all)), of_user, of_host, patience }
    }

    /// A place for a user who has a host asked; `None`: there is none.
    pub async fn place(&self, user: &str, host: &str) -> Option<Place> {
        // The narrowest first: whoever waits holds nothing that others want, but for a place at a host.
        let all = async {
            let of_user = self.of_user.of(user).acquire_owned().await.ok()?;
            let of_host = self.of_host.of(host).acquire_owned().await.ok()?;
            let of_all = self.all.clone().acquire_owned().await.ok()?;
            Some(Place { _permits: [of_user, of_host, of_all] })
        };
        timeout(self.patience, all).await.ok().flatten()
    }
}

/// As many places for each name.
struct Shares {
    each: usize,
    by_name: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Shares {
    fn new(each: usize) -> Shares {
        Shares { each, by_name: Mutex::default() }
    }

    fn of(&self, name: &str) -> Arc<Semaphore> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever has a place of a share or waits for one holds on to it.
        by_name.retain(|_, share| Arc::strong_count(share) > 1);
        by_name.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.each))).clone()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// As many places as there are for a user and hosts, in turn.
    async fn take(places: &Verifying, user: &str, hosts: &[&str]) -> Vec<Place> {
        let mut taken = Vec::new();
        for host in hosts.iter().cycle() {
            match places.place(user, host).await {
                Some(place) => taken.push(place),
                None => break,
            }
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn one_user_has_a_share() {
        let places = Verifying::of_users();
        let mut one = take(&places, "one", &["a", "b", "c"]).await;
        assert_eq!(one.len(), 16);
        let before = Instant::now();
        assert!(places.place("two", "a").await.is_some());
        assert!(before.elapsed() < PATIENCE, "others do not wait");
        assert!(places.place("one", "d").await.is_none());
        one.pop();
        assert!(places.place("one", "d").await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_host_has_a_share_and_all_of_them_an_end() {
        let places = Verifying::of_users();
        let mut taken = Vec::new();
        for user in ["one", "two", "three"] {
            taken.extend(take(&places, user, &["a"]).await);
        }
        assert_eq!(taken.len(), 32);
        for user in ["four", "five", "six"] {
            taken.extend(take(&places, user, &["b", "c"]).await);
        }
        assert_eq!(taken.len(), 64);
        drop(taken);
        assert!(places.place("seven", "a").await.is_some());
        let names = places.of_user.by_name.lock().unwrap().len();
        assert_eq!(names, 1, "nothing is kept of who has none");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_has_the_place_that_becomes_free() {
        let places = Verifying::of_users();
        let mut taken = take(&places, "one", &["a"]).await;
        let waits = places.place("one", "a");
        let frees = async {
            tokio::task::yield_now().await;
            taken.pop();
        };
        let before = Instant::now();
        let (place, ()) = tokio::join!(waits, frees);
        assert!(place.is_some() && before.elapsed() < PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_do_not_wait_and_one_host_has_not_all_of_their_places() {
        let places = Verifying::of_strangers();
        let before = Instant::now();
        let of_one = take(&places, "", &["a"]).await;
        let of_others = take(&places, "", &["b", "c", "d", "e"]).await;
        assert_eq!((of_one.len(), of_others.len()), (4, 12));
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
}
