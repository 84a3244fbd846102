//! The queue for checks of passwords: bounded at once, with a share for each source network and each name behind it.
//!
//! A source has at most [`OF_SOURCE_AT_ONCE`] checks under way or next in line, however many it sends, so that another source waits
//! behind as many of each and never behind the whole queue of one. The number of sources is bounded by the connections of the listener.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::guesses::Origin;

/// Checks at once: they cost memory and a core, or a connection to the broker.
const AT_ONCE: usize = 4;
/// The same of all sources with recent failures together: one place is always for others.
const OF_SUSPECTS_AT_ONCE: usize = AT_ONCE - 1;
/// The same of one source.
const OF_SOURCE_AT_ONCE: usize = 2;
/// Checks that are waiting or under way, of one source.
const OF_SOURCE_MAX: usize = 64;
/// The same of one source for one name.
const OF_NAME_MAX: usize = 16;

pub(crate) struct CheckQueue {
    checks: Semaphore,
    /// Those of them that sources with recent failures may have.
    of_suspects: Semaphore,
    sources: Mutex<HashMap<IpAddr, Source>>,
}

struct Source {
    checks: Arc<Semaphore>,
    entered: usize,
    by_name: HashMap<u64, usize>,
}

/// A check that may begin; ends when it is dropped.
pub(crate) struct Turn<'q> {
    _of_all: SemaphorePermit<'q>,
    _of_suspects: Option<SemaphorePermit<'q>>,
    _of_source: OwnedSemaphorePermit,
    _entered: Entered<'q>,
}

/// A place in the queue.
struct Entered<'q> {
    queue: &'q CheckQueue,
    origin: Origin,
}

impl CheckQueue {
    pub(crate) fn new() -> CheckQueue {
        let of_suspects = Semaphore::new(OF_SUSPECTS_AT_ONCE);
        CheckQueue { checks: Semaphore::new(AT_ONCE), of_suspects, sources: Mutex::default() }
    }

    /// Waits until the check may begin; `None`: too many of the same source or name wait.
    pub(crate) async fn turn(&self, origin: Origin, is_suspect: bool) -> Option<Turn<'_>> {
        let (entered, checks) = self.enter(origin)?;
        // Neither semaphore is ever closed.
        let of_source = checks.acquire_owned().await.ok()?;
        let of_suspects = if is_suspect { Some(self.of_suspects.acquire().await.ok()?) } else { None };
        let of_all = self.checks.acquire().await.ok()?;
        Some(Turn { _of_all: of_all, _of_suspects: of_suspects, _of_source: of_source, _entered: entered })
    }

    fn enter(&self, origin: Origin) -> Option<(Entered<'_>, Arc<Semaphore>)> {
        let mut sources = self.sources();
        let source = sources.entry(origin.network).or_insert_with(|| Source {
            checks: Arc::new(Semaphore::new(OF_SOURCE_AT_ONCE)),
            entered: 0,
            by_name: HashMap::new(),
        });
        let of_name = source.by_name.get(&origin.name).copied().unwrap_or_default();
        if source.entered >= OF_SOURCE_MAX || of_name >= OF_NAME_MAX {
            return None;
        }
        source.entered += 1;
        source.by_name.insert(origin.name, of_name + 1);
        Some((Entered { queue: self, origin }, source.checks.clone()))
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<IpAddr, Source>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut sources = self.queue.sources();
        let Some(source) = sources.get_mut(&self.origin.network) else { return };
        source.entered -= 1;
        if let Some(of_name) = source.by_name.get_mut(&self.origin.name) {
            *of_name -= 1;
            if *of_name == 0 {
                source.by_name.remove(&self.origin.name);
            }
        }
        if source.entered == 0 {
            sources.remove(&self.origin.network);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::stream::{FuturesUnordered, StreamExt as _};

    use super::*;

    fn origin(network: &str, name: u64) -> Origin {
        Origin { network: network.parse().unwrap(), name }
    }

    #[tokio::test]
    async fn one_source_leaves_checks_and_places_for_others() {
        let queue = CheckQueue::new();
        let bad = "192.0.2.1";
        let mut waiting: FuturesUnordered<_> =
            (0..1000).map(|number| queue.turn(origin(bad, number % 7), false)).collect();
        let (mut turns, mut refused) = (Vec::new(), 0);
        while let Some(Some(turn)) = waiting.next().now_or_never() {
            match turn {
                Some(turn) => turns.push(turn),
                None => refused += 1,
            }
        }
        assert_eq!((turns.len(), refused), (OF_SOURCE_AT_ONCE, 1000 - OF_SOURCE_MAX));
        let others = [queue.turn(origin("192.0.2.2", 1), false), queue.turn(origin("192.0.2.3", 1), false)];
        for other in others {
            turns.push(other.now_or_never().expect("no wait").expect("a place"));
        }
        assert!(queue.turn(origin("192.0.2.4", 1), false).now_or_never().is_none(), "all are under way");
        drop((turns, waiting));
        assert!(queue.sources().is_empty(), "nothing is kept of who has left");
    }

    #[tokio::test]
    async fn one_name_leaves_places_of_its_source() {
        let queue = CheckQueue::new();
        let bad = origin("192.0.2.1", 1);
        let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(queue.turn(bad, false))).collect();
        let answered: Vec<_> = waiting.iter_mut().filter_map(futures_util::FutureExt::now_or_never).collect();
        assert_eq!(answered.iter().filter(|turn| turn.is_none()).count(), 100 - OF_NAME_MAX);
        let mut other = Box::pin(queue.turn(origin("192.0.2.1", 2), false));
        assert!((&mut other).now_or_never().is_none(), "it waits");
        drop((answered, waiting));
        assert!(other.await.is_some());
    }
}
