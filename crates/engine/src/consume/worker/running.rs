//! What is worked on at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// So long a piece of work may keep all others of its consumer from going on.
const LIGHT: Duration = Duration::from_micros(200);
/// After one that took longer, so many are tasks of their own before it is tried again.
const HEAVY_FOR: u32 = 200;
/// What may be handed over and not be looked at yet: the highest concurrency there is.
const HANDED_OVER_MAX: usize = u16::MAX as usize;

/// Pieces of work under way.
///
/// Most work waits for others nearly all of the time, so that of one consumer is gone on with by one task: to give each piece a task costs more
/// than what is done between two waits. Where work turns out to take long without waiting, what is started after it becomes tasks, so
/// that all processors have their share.
pub(super) struct Running<T> {
    to: mpsc::Sender<Light<T>>,
    from: mpsc::Receiver<Ended<T>>,
    /// How many pieces were handed over and have not come back.
    handed_over: usize,
    /// The one that goes on with them. It does so whatever its consumer waits for, and ends with it.
    _together: JoinSet<()>,
    tasks: JoinSet<T>,
    /// How many more are tasks.
    heavy: Arc<AtomicU32>,
}

/// How a piece of work ended; `None`: it panicked.
pub(super) type Ended<T> = Option<T>;

/// Work that is gone on with beside others.
struct Light<T> {
    work: Pin<Box<dyn Future<Output = T> + Send>>,
    heavy: Arc<AtomicU32>,
}

impl<T: Send + 'static> Running<T> {
    /// Nothing is under way yet. Called where there is a runtime.
    pub(super) fn new() -> Running<T> {
        let (to, coming) = mpsc::channel(HANDED_OVER_MAX);
        let (going, from) = mpsc::channel(HANDED_OVER_MAX);
        let mut together = JoinSet::new();
        together.spawn(go_on(coming, going));
        let (tasks, heavy) = (JoinSet::new(), Arc::default());
        Running { to, from, handed_over: 0, _together: together, tasks, heavy }
    }

    /// Starts a piece of work.
    pub(super) fn start(&mut self, work: impl Future<Output = T> + Send + 'static) {
        let heavy = self.heavy.load(Relaxed);
        if heavy > 0 {
            self.heavy.store(heavy - 1, Relaxed);
            self.tasks.spawn(work);
            return;
        }
        let light = Light { work: Box::pin(work), heavy: self.heavy.clone() };
        match self.to.try_send(light) {
            Ok(()) => self.handed_over += 1,
            Err(mpsc::error::TrySendError::Full(light) | mpsc::error::TrySendError::Closed(light)) => {
                drop(self.tasks.spawn(light.work));
            }
        }
    }

    /// The next that ends; `None` where nothing is under way. Dropped half-way, it has taken nothing.
    pub(super) async fn next(&mut self) -> Option<Ended<T>> {
        let (handed_over, has_tasks) = (self.handed_over > 0, !self.tasks.is_empty());
        // Neither branch has taken anything when it is dropped.
        tokio::select! {
            biased;
            Some(ended) = self.from.recv(), if handed_over => {
                self.handed_over -= 1;
                Some(ended)
            }
            Some(ended) = self.tasks.join_next(), if has_tasks => Some(ended.ok()),
            else => None,
        }
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.handed_over + self.tasks.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Goes on with whatever can go on, until nobody is there to hand over more.
async fn go_on<T>(mut coming: mpsc::Receiver<Light<T>>, going: mpsc::Sender<Ended<T>>) {
    let mut light = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            // What was taken is told at once; dropped half-way, nothing was.
            Some(ended) = light.next() => {
                if going.send(ended).await.is_err() {
                    return; // the consumer is gone, and nobody waits for the rest
                }
            }
            work = coming.recv() => match work {
                Some(work) => light.push(work),
                None => return,
            },
        }
        while let Ok(work) = coming.try_recv() {
            light.push(work);
        }
    }
}

impl<T> Future for Light<T> {
    type Output = Ended<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended<T>> {
        let began = Instant::now();
        let polled = catch_unwind(AssertUnwindSafe(|| self.work.as_mut().poll(context)));
        if began.elapsed() > LIGHT {
            self.heavy.store(HEAVY_FOR, Relaxed);
        }
        match polled {
            Ok(polled) => polled.map(Some),
            Err(_) => Poll::Ready(None), // it has been told where it came from, and is asked no more
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_need_not_wait_ends_first_and_what_panics_is_told() {
        let mut running = Running::new();
        let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
        running.start(async move { wait.await.map_or(0, |()| 2) });
        running.start(async { 1 });
        running.start(async { panic!("a bug") });
        assert_eq!(running.len(), 3);
        assert_eq!((running.next().await, running.next().await), (Some(Some(1)), Some(None)));
        go_on.send(()).unwrap();
        assert_eq!((running.next().await, running.next().await), (Some(Some(2)), None));
        assert!(running.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_while_nobody_asks_for_it() {
        let mut running = Running::new();
        let (told, mut hears) = tokio::sync::mpsc::channel(1);
        running.start(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            told.send(()).await.unwrap();
        });
        assert_eq!(hears.recv().await, Some(()));
        drop(running);
    }

    #[tokio::test]
    async fn after_heavy_work_others_are_tasks() {
        let mut running = Running::new();
        running.start(async {
            let began = Instant::now();
            while began.elapsed() <= LIGHT {}
        });
        assert_eq!((running.handed_over, running.next().await), (1, Some(Some(()))));
        for _ in 0..HEAVY_FOR {
            running.start(async {});
        }
        assert_eq!(running.tasks.len(), HEAVY_FOR as usize);
        running.start(async {});
        assert_eq!(running.handed_over, 1, "it is tried again");
        for _ in 0..=HEAVY_FOR {
            assert_eq!(running.next().await, Some(Some(())));
        }
        assert_eq!(running.next().await, None);
    }
}
