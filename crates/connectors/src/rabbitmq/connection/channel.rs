//! Channels of a connection: questions with their answers, and who listens to the rest.

use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;
use warren_engine::message::Properties;

use super::super::failures::{CallFault, Gone};
use super::super::wire::Malformed;
use super::super::wire::method::{Answer, Call, Method};
use super::Shared;

/// Hears what the broker sends on a channel without being asked. Called by the connection's task, in the order of the
/// frames; must not wait.
pub(crate) trait Listener: Send + Sync {
    /// The broker confirmed, or refused, one message or all up to it.
    fn answered(&self, tag: u64, multiple: bool, positive: bool) -> Result<(), Malformed>;

    /// A message came: a delivery, or a publish that was returned.
    fn content(&self, content: Content) -> Result<(), Malformed>;

    /// All that was read so far has been told: the time to wake who waits for messages, once for many of them.
    fn caught_up(&self);

    /// The broker ended the consumer.
    fn cancelled(&self);

    /// Nothing comes any more. `written` bytes of the connection had been handed to the socket.
    fn gone(&self, gone: &Arc<Gone>, written: u64);
}

/// A message with the method that brought it.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) method: Method,
    pub(crate) properties: Properties,
    pub(crate) body: Bytes,
}

/// An answer of the broker.
#[derive(Debug)]
pub(crate) enum Reply {
    Plain(Answer),
    Content(Box<Content>),
    Closed,
}

pub(crate) struct Channel {
    pub(crate) number: u16,
    shared: Arc<Shared>,
    state: Mutex<State>,
    listener: OnceLock<Arc<dyn Listener>>,
}

#[derive(Default)]
struct State {
    /// Who waits for an answer, in the order of asking, which is the order of answers.
    waiting: VecDeque<oneshot::Sender<Reply>>,
    gone: Option<Arc<Gone>>,
}

impl Channel {
    fn new(number: u16, shared: Arc<Shared>) -> Channel {
        Channel { number, shared, state: Mutex::default(), listener: OnceLock::new() }
    }

    /// Who hears what comes unasked. Set before it can come; later calls change nothing.
    pub(crate) fn listen(&self, listener: Arc<dyn Listener>) {
        self.listener.set(listener).ok(); // the first listener stays
    }

    pub(crate) fn listener(&self) -> Option<&Arc<dyn Listener>> {
        self.listener.get()
    }

    /// Asks, and waits for the answer no longer than the connection's timeout.
    pub(crate) async fn ask(&self, call: Call<'_>) -> Result<Reply, CallFault> {
        let mut frames = Vec::with_capacity(128);
        call.put(&mut frames, self.number)?;
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.state();
            if let Some(gone) = &state.gone {
                return Err(CallFault::Gone(gone.clone()));
            }
            state.waiting.push_back(sender);
            // Within the lock: the order of waiting is the order of asking. If the outbox is shut, the sender is
            // dropped when the connection's end is told, and the receiver says so.
            self.shared.outbox.push(frames.into()).ok();
        }
        match tokio::time::timeout(self.shared.ask_timeout, receiver).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(CallFault::Gone(self.gone().unwrap_or_else(|| Arc::new(Gone::Ended)))),
            Err(_) => Err(CallFault::Gone(Arc::new(Gone::Late))),
        }
    }

    /// Asks what is answered with nothing but "done".
    pub(crate) async fn tell(&self, call: Call<'_>) -> Result<(), CallFault> {
        match self.ask(call).await? {
            Reply::Plain(Answer::Ok) => Ok(()),
            Reply::Plain(_) | Reply::Content(_) | Reply::Closed => Err(CallFault::Unexpected),
        }
    }

    /// Says what has no answer.
    pub(crate) fn send(&self, call: Call<'_>) -> Result<(), CallFault> {
        let mut frames = Vec::with_capacity(64);
        call.put(&mut frames, self.number)?;
        let state = self.state();
        if let Some(gone) = &state.gone {
            return Err(CallFault::Gone(gone.clone()));
        }
        self.shared.outbox.push(frames.into()).ok(); // shut: the connection's end is about to be told
        Ok(())
    }

    /// How it ended, if it did.
    pub(crate) fn gone(&self) -> Option<Arc<Gone>> {
        self.state().gone.clone()
    }

    /// The connection's task brings an answer. One that nobody asked for is dropped.
    pub(crate) fn reply(&self, reply: Reply) {
        if let Some(waiting) = self.state().waiting.pop_front() {
            waiting.send(reply).ok(); // who asked may have given up
        }
    }

    /// The connection's task, or the channel's owner, says that it ended.
    pub(crate) fn end(&self, gone: &Arc<Gone>, written: u64) {
        {
            let mut state = self.state();
            if state.gone.is_some() {
                return;
            }
            state.gone = Some(gone.clone());
            state.waiting.clear(); // who asked hears that it is gone
        }
        if let Some(listener) = self.listener() {
            listener.gone(gone, written);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A channel that is closed when it is dropped.
pub(crate) struct OpenChannel(Arc<Channel>);

impl Deref for OpenChannel {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.0
    }
}

impl OpenChannel {
    pub(super) async fn open(shared: &Arc<Shared>) -> Result<OpenChannel, CallFault> {
        let channel = OpenChannel(shared.channels.take(shared)?);
        match channel.ask(Call::ChannelOpen).await? {
            Reply::Plain(Answer::Ok) => Ok(channel),
            Reply::Plain(_) | Reply::Content(_) | Reply::Closed => Err(CallFault::Unexpected),
        }
    }

    /// Closes the channel. Its number is given back when the broker has answered; until then what still comes is dropped.
    pub(crate) fn close(&self) {
        let channel = &self.0;
        if channel.gone().is_some() {
            return; // its number was given back when it went
        }
        let mut frames = Vec::with_capacity(32);
        let close = Call::ChannelClose { code: 200, text: "done" };
        if close.put(&mut frames, channel.number).is_ok() {
            channel.shared.outbox.push(frames.into()).ok(); // shut: the connection is gone, and the channel with it
        }
        channel.end(&Arc::new(Gone::Ended), channel.shared.outbox.written());
    }
}

impl Drop for OpenChannel {
    fn drop(&mut self) {
        self.close();
    }
}

/// The channels of a connection by number.
pub(crate) struct Channels {
    open: Mutex<HashMap<u16, Arc<Channel>>>,
    channel_max: u16,
}

impl Channels {
    pub(super) fn new(channel_max: u16) -> Channels {
        Channels { open: Mutex::default(), channel_max }
    }

    pub(super) fn get(&self, number: u16) -> Option<Arc<Channel>> {
        self.open().get(&number).cloned()
    }

    /// The broker knows the channel no more: its number is free.
    pub(super) fn free(&self, number: u16) -> Option<Arc<Channel>> {
        self.open().remove(&number)
    }

    pub(super) fn drain(&self) -> Vec<Arc<Channel>> {
        self.open().drain().map(|(_, channel)| channel).collect()
    }

    fn take(&self, shared: &Arc<Shared>) -> Result<Arc<Channel>, CallFault> {
        let mut open = self.open();
        // Asked within the lock under which the connection's end drains: no channel is added after that.
        if let Some(gone) = shared.gone() {
            return Err(CallFault::Gone(gone));
        }
        let number =
            (1..=self.channel_max).find(|number| !open.contains_key(number)).ok_or(CallFault::NoChannel)?;
        let channel = Arc::new(Channel::new(number, shared.clone()));
        open.insert(number, channel.clone());
        Ok(channel)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u16, Arc<Channel>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
