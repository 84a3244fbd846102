//! Deliveries on their way from the connection's task to the consumer. The broker's prefetch bounds it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::super::connection::channel::{Content, Listener};
use super::super::failures::Gone;
use super::super::wire::Malformed;
use super::super::wire::method::Method;

#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    came: Notify,
}

#[derive(Default)]
struct State {
    contents: VecDeque<Content>,
    end: End,
}

/// Whether more comes.
#[derive(Default)]
enum End {
    #[default]
    Open,
    /// We asked for no more.
    Asked,
    Gone(Arc<Gone>),
}

/// What was there.
pub(super) enum Came {
    /// Something, which was taken.
    Some,
    /// Nothing yet.
    None,
    /// Nothing, and nothing more comes.
    End(Option<Arc<Gone>>),
}

impl Inbox {
    /// Takes all that is there into an empty queue.
    ///
    /// When the channel is gone, what has not been yielded is given out again by the broker: it is not yielded here.
    /// When only the consumer was ended, it is: its queue may be deleted, and these the last to see it.
    pub(super) fn take(&self, into: &mut VecDeque<Content>) -> Came {
        let mut state = self.state();
        match &state.end {
            End::Gone(gone) if !matches!(**gone, Gone::Cancelled) => Came::End(Some(gone.clone())),
            End::Open | End::Asked | End::Gone(_) if !state.contents.is_empty() => {
                std::mem::swap(&mut state.contents, into);
                Came::Some
            }
            End::Open => Came::None,
            End::Asked => Came::End(None),
            End::Gone(gone) => Came::End(Some(gone.clone())),
        }
    }

    /// Returns when something may have come.
    pub(super) async fn came(&self) {
        self.came.notified().await;
    }

    /// Says that no more comes. The first reason for it stays.
    pub(super) fn end(&self, gone: Option<Arc<Gone>>) {
        let mut state = self.state();
        match (&state.end, gone) {
            (End::Open, None) => state.end = End::Asked,
            (End::Open | End::Asked, Some(gone)) => state.end = End::Gone(gone),
            // What is there is no more to be yielded.
            (End::Gone(old), Some(_)) if matches!(**old, Gone::Cancelled) => state.contents.clear(),
            (End::Asked | End::Gone(_), _) => {}
        }
        drop(state);
        self.came.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for Inbox {
    fn answered(&self, _: u64, _: bool, _: bool) -> Result<(), Malformed> {
        Err(Malformed("a publish is confirmed where nothing was published"))
    }

    fn content(&self, content: Content) -> Result<(), Malformed> {
        if !matches!(content.method, Method::Deliver { .. }) {
            return Err(Malformed("a publish is returned where nothing was published"));
        }
        self.state().contents.push_back(content);
        Ok(())
    }

    fn caught_up(&self) {
        self.came.notify_one();
    }

    fn cancelled(&self) {
        self.end(Some(Arc::new(Gone::Cancelled)));
    }

    fn gone(&self, gone: &Arc<Gone>, _: u64) {
        self.end(Some(gone.clone()));
    }
}
