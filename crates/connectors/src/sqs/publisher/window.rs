//! How many requests are under way at once: as many as configured, and fewer while SQS throttles.
//!
//! A throttled request halves the window, once for all requests that were under way when it was halved; each request that
//! goes through widens it again, by one for a window full of them. So the rate settles just below what SQS grants.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// The window.
#[derive(Debug)]
pub(super) struct Window {
    state: Mutex<State>,
    room: Notify,
    max: f64,
}

#[derive(Debug)]
struct State {
    size: f64,
    under_way: usize,
    /// Requests begun so far.
    begun: u64,
    /// How many had begun when the window was last halved.
    halved_at: u64,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    /// It was answered.
    Through,
    /// It, or some of its messages, were throttled.
    Throttled,
    /// Nobody knows.
    Astray,
}

/// A place in the window, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit<'w> {
    window: &'w Window,
    number: u64,
}

impl Window {
    pub(super) fn new(max: usize) -> Window {
        let max = max.max(1) as f64;
        let state = State { size: max, under_way: 0, begun: 0, halved_at: 0 };
        Window { state: Mutex::new(state), room: Notify::new(), max }
    }

    /// A place, as soon as there is one.
    pub(super) async fn enter(&self) -> Permit<'_> {
        loop {
            let notified = self.room.notified();
            tokio::pin!(notified);
            // Registered before looking, so that a place that is left in between is heard of.
            notified.as_mut().enable();
            if let Some(permit) = self.try_enter() {
                return permit;
            }
            notified.await;
        }
    }

    fn try_enter(&self) -> Option<Permit<'_>> {
        let mut state = self.lock();
        if !state.has_room() {
            return None;
        }
        state.under_way += 1;
        state.begun += 1;
        if state.has_room() {
            self.room.notify_one(); // one wakes the next
        }
        Some(Permit { window: self, number: state.begun })
    }

    /// How many requests may be under way, if that is fewer than configured.
    pub(super) fn narrowed(&self) -> Option<(usize, usize)> {
        let size = self.lock().size;
        (size < self.max / 2.0).then_some((size as usize, self.max as usize))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self) -> bool {
        (self.under_way as f64) < self.size.max(1.0).floor()
    }
}

impl Permit<'_> {
    /// Tells what became of the request, and leaves.
    pub(super) fn leave(self, went: Went) {
        let mut state = self.window.lock();
        match went {
            Went::Through => state.size = (state.size + 1.0 / state.size).min(self.window.max),
            Went::Throttled if self.number > state.halved_at => {
                state.size = (state.size / 2.0).max(1.0);
                state.halved_at = state.begun;
            }
            Went::Throttled | Went::Astray => {}
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.window.lock().under_way -= 1;
        self.window.room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn throttling_narrows_and_answers_widen() {
        let window = Window::new(8);
        let mut all = Vec::new();
        for _ in 0..8 {
            all.push(window.enter().await);
        }
        assert!(window.try_enter().is_none());
        // All of them throttled are one message: half as many.
        for permit in all {
            permit.leave(Went::Throttled);
        }
        let four: Vec<_> = std::iter::from_fn(|| window.try_enter()).collect();
        assert_eq!(four.len(), 4);
        for permit in four {
            permit.leave(Went::Through);
        }
        let rest: Vec<_> = std::iter::from_fn(|| window.try_enter()).collect();
        assert_eq!(rest.len(), 4, "a window full widens it by one, not yet");
        for permit in rest {
            permit.leave(Went::Through);
        }
        assert_eq!(std::iter::from_fn(|| window.try_enter()).count(), 5);
        for _ in 0..200 {
            window.enter().await.leave(Went::Through);
        }
        assert_eq!(std::iter::from_fn(|| window.try_enter()).take(9).collect::<Vec<_>>().len(), 8);
    }

    #[tokio::test]
    async fn it_never_closes() {
        let window = Window::new(3);
        for _ in 0..20 {
            window.enter().await.leave(Went::Throttled);
        }
        assert_eq!(window.narrowed(), Some((1, 3)));
        window.enter().await.leave(Went::Through);
    }

    #[tokio::test]
    async fn a_place_left_is_heard_of() {
        let window = Window::new(1);
        let first = window.enter().await;
        let (second, ()) = tokio::join!(window.enter(), async { first.leave(Went::Through) });
        drop(second);
    }
}
