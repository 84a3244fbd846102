//! What is worked on at once.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// So long a piece of work may keep its consumer from taking and starting others.
const LIGHT: Duration = Duration::from_micros(200);
/// After one that took longer, so many are tasks of their own from the start before it is tried again.
const HEAVY_FOR: u32 = 200;

/// Pieces of work under way.
///
/// Each is begun where it is started, up to where it first has to wait, because to hand it to another thread costs more than most work does
/// until then; what waits is a task of its own. Where work turns out to take long before it waits, others are tasks from the start, so that
/// all processors have their share of them.
pub(super) struct Running<T> {
    tasks: JoinSet<T>,
    /// What had ended when it was begun.
    ended: VecDeque<Ended<T>>,
    heavy: u32,
}

/// How a piece of work ended; `None`: it panicked.
pub(super) type Ended<T> = Option<T>;

impl<T> Default for Running<T> {
    fn default() -> Self {
        Running { tasks: JoinSet::new(), ended: VecDeque::new(), heavy: 0 }
    }
}

impl<T: Send + 'static> Running<T> {
    /// Begins a piece of work.
    pub(super) fn start(&mut self, work: impl Future<Output = T> + Send + 'static) {
        let mut work = Box::pin(work);
        if self.heavy > 0 {
            self.heavy -= 1;
            self.tasks.spawn(work);
            return;
        }
        let began = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().now_or_never())) {
            // It is asked again there, and told from then on when to go on.
            Ok(None) => drop(self.tasks.spawn(work)),
            Ok(ended @ Some(_)) => self.ended.push_back(ended),
            Err(_) => self.ended.push_back(None),
        }
        if began.elapsed() > LIGHT {
            self.heavy = HEAVY_FOR;
        }
    }

    /// The next that ends; `None` where nothing is under way. Dropped half-way, it has taken nothing.
    pub(super) async fn next(&mut self) -> Option<Ended<T>> {
        if let Some(ended) = self.ended.pop_front() {
            return Some(ended);
        }
        self.tasks.join_next().await.map(Result::ok)
    }

    /// One that has ended already, if there is one that had when it was begun.
    pub(super) fn ended(&mut self) -> Option<Ended<T>> {
        self.ended.pop_front()
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.tasks.len() + self.ended.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_need_not_wait_ends_at_once_and_what_panics_is_told() {
        let mut running = Running::default();
        let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
        running.start(async { 1 });
        running.start(async move { wait.await.map_or(0, |()| 2) });
        running.start(async { panic!("a bug") });
        assert_eq!(running.len(), 3);
        assert_eq!((running.next().await, running.next().await), (Some(Some(1)), Some(None)));
        go_on.send(()).unwrap();
        assert_eq!((running.next().await, running.next().await), (Some(Some(2)), None));
    }

    #[tokio::test]
    async fn after_heavy_work_others_are_tasks_from_the_start() {
        let mut running = Running::default();
        running.start(async {
            let began = Instant::now();
            while began.elapsed() <= LIGHT {}
        });
        assert_eq!((running.ended.len(), running.tasks.len()), (1, 0));
        for _ in 0..HEAVY_FOR {
            running.start(async {});
        }
        assert_eq!(running.tasks.len(), HEAVY_FOR as usize);
        running.start(async {});
        assert_eq!(running.ended.len(), 2, "it is tried again");
    }
}
