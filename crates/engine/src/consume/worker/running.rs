//! What is worked on at once.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// So long a piece of work may keep all others of its consumer from going on.
const LIGHT: Duration = Duration::from_micros(200);
/// One that took longer may just have been kept waiting for a processor. Where another does so before as many have gone on as this...
const LATELY: u32 = 8;
/// ...so many are tasks of their own before it is tried again.
const HEAVY_FOR: u32 = 200;
/// So often a consumer and its work take turns before others of the thread have theirs.
const TURNS_MAX: usize = 16;

/// Pieces of work under way.
///
/// Most work waits for others nearly all of the time, so that of one consumer is gone on with by the consumer's own task ([`Work::beside`]): to
/// give each piece a task, or all of them one beside the consumer's, costs more than what is done between two waits, since tasks that
/// wake each other do so across threads. Where work turns out to take long without waiting, what is started after it becomes tasks, so
/// that all processors have their share.
pub(super) struct Running<T> {
    light: Arc<Mutex<Lights<T>>>,
    /// How many light ones are under way.
    lights: usize,
    tasks: JoinSet<T>,
    weight: Arc<Weight>,
}

/// Light work on its way between the consumer and who goes on with it.
struct Lights<T> {
    started: Vec<Light<T>>,
    ended: VecDeque<Ended<T>>,
}

/// How a piece of work ended; `None`: it panicked.
pub(super) type Ended<T> = Option<T>;

/// Work that is gone on with beside others.
struct Light<T> {
    work: Pin<Box<dyn Future<Output = T> + Send>>,
    weight: Arc<Weight>,
}

/// How heavy work has been.
#[derive(Debug, Default)]
struct Weight {
    /// How many more pieces are tasks.
    heavy: AtomicU32,
    /// More than nothing: one took long lately.
    long: AtomicU32,
}

impl Weight {
    /// Notes how long a piece kept the others from going on.
    fn note(&self, took: Duration) {
        let long = self.long.load(Relaxed);
        if took > LIGHT {
            if long > 0 {
                self.heavy.store(HEAVY_FOR, Relaxed);
            }
            self.long.store(LATELY, Relaxed);
        } else if long > 0 {
            self.long.store(long - 1, Relaxed);
        }
    }

    /// Whether the next piece becomes a task.
    fn is_heavy(&self) -> bool {
        let heavy = self.heavy.load(Relaxed);
        if heavy > 0 {
            self.heavy.store(heavy - 1, Relaxed);
        }
        heavy > 0
    }
}

impl<T: Send + 'static> Running<T> {
    /// Nothing is under way yet.
    pub(super) fn new() -> Running<T> {
        let light = Lights { started: Vec::new(), ended: VecDeque::new() };
        Running {
            light: Arc::new(Mutex::new(light)),
            lights: 0,
            tasks: JoinSet::new(),
            weight: Arc::default(),
        }
    }

    /// Starts a piece of work.
    pub(super) fn start(&mut self, work: impl Future<Output = T> + Send + 'static) {
        if self.weight.is_heavy() {
            self.tasks.spawn(work);
            return;
        }
        let light = Light { work: Box::pin(work), weight: self.weight.clone() };
        lock(&self.light).started.push(light);
        self.lights += 1;
    }

    /// The next that ends; `None` where nothing is under way. Dropped half-way, it has taken nothing. Light work ends only in
    /// [`Work::beside`], which asks again then.
    pub(super) async fn next(&mut self) -> Option<Ended<T>> {
        poll_fn(|context| {
            if let Some(ended) = lock(&self.light).ended.pop_front() {
                self.lights -= 1;
                return Poll::Ready(Some(ended));
            }
            match self.tasks.poll_join_next(context) {
                Poll::Ready(Some(ended)) => Poll::Ready(Some(ended.ok())),
                Poll::Ready(None) if self.lights == 0 => Poll::Ready(None),
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Who goes on with it, which is to run the consumer. There is one.
    pub(super) fn work(&self) -> Work<T> {
        Work(self.light.clone())
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.lights + self.tasks.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn lock<T>(light: &Mutex<Lights<T>>) -> MutexGuard<'_, Lights<T>> {
    light.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Goes on with the light work of a consumer.
pub(super) struct Work<T>(Arc<Mutex<Lights<T>>>);

impl<T> Work<T> {
    /// Runs the consumer, and goes on with its work whatever it waits for. What is under way when the consumer ends, ends with it.
    pub(super) async fn beside<C: Future>(self, consumer: C) -> C::Output {
        let mut consumer = pin!(consumer);
        let mut light = FuturesUnordered::new();
        poll_fn(|context| {
            for _ in 0..TURNS_MAX {
                if let Poll::Ready(output) = consumer.as_mut().poll(context) {
                    return Poll::Ready(output);
                }
                if !self.go_on(&mut light, context) {
                    return Poll::Pending;
                }
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    /// Whether something ended, which the consumer is to hear of.
    fn go_on(&self, light: &mut FuturesUnordered<Light<T>>, context: &mut Context<'_>) -> bool {
        light.extend(lock(&self.0).started.drain(..));
        let mut some = false;
        while let Poll::Ready(Some(ended)) = light.poll_next_unpin(context) {
            lock(&self.0).ended.push_back(ended);
            some = true;
        }
        some
    }
}

impl<T> Future for Light<T> {
    type Output = Ended<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended<T>> {
        let began = Instant::now();
        let polled = catch_unwind(AssertUnwindSafe(|| self.work.as_mut().poll(context)));
        self.weight.note(began.elapsed());
        match polled {
            Ok(polled) => polled.map(Some),
            // The panic was reported where it came from, and dropped what the work held.
            Err(_) => Poll::Ready(None),
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
        let work = running.work();
        let consumer = async {
            assert_eq!((running.next().await, running.next().await), (Some(Some(1)), Some(None)));
            go_on.send(()).unwrap();
            assert_eq!((running.next().await, running.next().await), (Some(Some(2)), None));
            assert!(running.is_empty());
        };
        work.beside(consumer).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_while_nobody_asks_for_it() {
        let mut running = Running::new();
        let (told, mut hears) = tokio::sync::mpsc::channel(1);
        running.start(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            told.send(()).await.unwrap();
        });
        assert_eq!(running.work().beside(hears.recv()).await, Some(()));
    }

    #[tokio::test]
    async fn others_have_their_turn_while_work_ends_and_begins() {
        let mut running = Running::new();
        let work = running.work();
        let turns = Arc::new(AtomicU32::new(0));
        let others = turns.clone();
        let mut beside = JoinSet::new();
        beside.spawn(async move {
            loop {
                others.fetch_add(1, Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let consumer = async {
            while turns.load(Relaxed) < 3 {
                running.start(async {});
                assert_eq!(running.next().await, Some(Some(())));
            }
        };
        work.beside(consumer).await;
    }

    #[tokio::test]
    async fn after_heavy_work_others_are_tasks() {
        let mut running = Running::new();
        let long = async || {
            let began = Instant::now();
            while began.elapsed() <= LIGHT {}
        };
        let work = running.work();
        let consumer = async {
            for _ in 0..2 {
                running.start(long());
                assert_eq!((running.lights, running.next().await), (1, Some(Some(()))));
            }
            for _ in 0..HEAVY_FOR {
                running.start(async {});
            }
            assert_eq!(running.tasks.len(), HEAVY_FOR as usize);
            running.start(async {});
            assert_eq!(running.lights, 1, "it is tried again");
            for _ in 0..=HEAVY_FOR {
                assert_eq!(running.next().await, Some(Some(())));
            }
            assert_eq!(running.next().await, None);
        };
        work.beside(consumer).await;
    }
}
