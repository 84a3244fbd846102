//! Which message each answer of the broker belongs to, on one channel.
//!
//! The broker numbers the messages of a channel from 1 and answers by number: one or all up to it, in any order. A message
//! that it cannot route it gives back first, whole and without a number, in the order of publishing, and then confirms it.
//! So a returned message is looked for among those in flight by what it is, never by its turn, and the confirm that
//! follows is a refusal.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::super::connection::channel::{Content, Listener};
use super::super::connection::outbox::{Outbox, Shut};
use super::super::failures::Gone;
use super::super::wire::Malformed;
use super::super::wire::method::Method;
use super::super::wire::publish::{Returned, Sent};
use super::culprit;
use super::fate::{Fate, NoRoute};

/// Messages that were appended to the connection together.
pub(super) struct Parcel {
    /// The frames of all of them.
    pub(super) bytes: Bytes,
    /// Where each message's frames end.
    pub(super) ends: Vec<usize>,
}

impl Parcel {
    fn sent(&self, at: usize) -> Option<Sent<'_>> {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        Sent::read(&self.bytes[start..self.ends[at]]).ok()
    }
}

#[derive(Default)]
pub(super) struct Confirms {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Messages numbered so far.
    numbered: u64,
    /// In the order of their numbers, without gaps.
    flights: VecDeque<Flight>,
    /// The number of the message that was given back last.
    returned: u64,
    gone: Option<Arc<Gone>>,
}

/// A parcel that is not answered in full.
struct Flight {
    parcel: Parcel,
    /// The number of its first message.
    first: u64,
    /// Where it lies in the stream of the connection.
    offset: u64,
    fates: Vec<Fate>,
    /// How many fates are open.
    open: usize,
    /// All before it are settled.
    settled: usize,
    done: Option<oneshot::Sender<Vec<Fate>>>,
}

/// A parcel on its way.
pub(super) struct Ticket {
    first: u64,
    count: usize,
    pub(super) done: oneshot::Receiver<Vec<Fate>>,
}

impl Confirms {
    /// Appends a parcel to the connection and numbers its messages, both at once, so that the numbers are the broker's.
    ///
    /// # Errors
    /// The channel is gone; nothing was appended.
    pub(super) fn send(&self, outbox: &Outbox, parcel: Parcel) -> Result<Ticket, Arc<Gone>> {
        let mut state = self.state();
        if let Some(gone) = &state.gone {
            return Err(gone.clone());
        }
        let offset =
            outbox.push(parcel.bytes.clone()).map_err(|Shut| Arc::new(Gone::Lost("it was closed".into())))?;
        let count = parcel.ends.len();
        let first = state.numbered + 1;
        state.numbered += count as u64;
        let (sender, done) = oneshot::channel();
        state.flights.push_back(Flight {
            parcel,
            first,
            offset,
            fates: vec![Fate::Waiting; count],
            open: count,
            settled: 0,
            done: Some(sender),
        });
        Ok(Ticket { first, count, done })
    }

    /// What is known of a parcel now. Nobody waits for it any more; its numbers stay taken.
    pub(super) fn withdraw(&self, ticket: Ticket) -> Vec<Fate> {
        let mut state = self.state();
        let mut done = ticket.done;
        if let Ok(fates) = done.try_recv() {
            return fates;
        }
        match state.flights.iter_mut().find(|flight| flight.first == ticket.first) {
            Some(flight) => {
                flight.done = None;
                flight.fates.clone()
            }
            // Told between the two looks, which cannot be; claim nothing, and keep the others' places.
            None => vec![Fate::Waiting; ticket.count],
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn returned(&self, returned: &Returned) -> Result<(), Malformed> {
        let mut state = self.state();
        let after = state.returned;
        // The broker gives messages back in order, so it is nearly always the first that fits after the last one.
        let found = state.find(returned, |number| number > after).or_else(|| state.find(returned, |_| true));
        let Some((flight, at)) = found else {
            return Err(Malformed("the broker gave a message back that is not in flight"));
        };
        let why = Arc::new(NoRoute { code: returned.code, text: returned.text.clone() });
        let flight = &mut state.flights[flight];
        flight.fates[at] = Fate::Returned { why, confirmed: false };
        let number = flight.first + at as u64;
        state.returned = number;
        Ok(())
    }
}

impl State {
    fn find(&self, returned: &Returned, takes: impl Fn(u64) -> bool) -> Option<(usize, usize)> {
        for (index, flight) in self.flights.iter().enumerate() {
            if !takes(flight.first + flight.fates.len() as u64 - 1) {
                continue;
            }
            for (at, fate) in flight.fates.iter().enumerate() {
                if matches!(fate, Fate::Waiting)
                    && takes(flight.first + at as u64)
                    && flight.parcel.sent(at).is_some_and(|sent| sent.is(returned))
                {
                    return Some((index, at));
                }
            }
        }
        None
    }
}

impl Flight {
    fn last(&self) -> u64 {
        self.first + self.fates.len() as u64 - 1
    }

    fn settle(&mut self, at: usize, positive: bool) {
        let fate = &mut self.fates[at];
        let settled = match fate {
            Fate::Waiting if positive => Fate::Accepted,
            Fate::Waiting => Fate::Nacked,
            Fate::Returned { why, confirmed: false } => Fate::Returned { why: why.clone(), confirmed: true },
            // Answered twice: the first answer stands.
            Fate::Returned { confirmed: true, .. }
            | Fate::Accepted
            | Fate::Nacked
            | Fate::Culprit(_)
            | Fate::Unsent(_)
            | Fate::Unsure(_)
            | Fate::Suspect(_) => return,
        };
        *fate = settled;
        self.open -= 1;
    }

    /// Tells who waits, once all is settled.
    fn tell(&mut self) {
        if self.open == 0
            && let Some(done) = self.done.take()
        {
            done.send(std::mem::take(&mut self.fates)).ok(); // who waited may have given up
        }
    }
}

impl Listener for Confirms {
    fn answered(&self, tag: u64, multiple: bool, positive: bool) -> Result<(), Malformed> {
        let mut state = self.state();
        // Zero with `multiple`: all so far.
        let tag = if tag == 0 && multiple { state.numbered } else { tag };
        if tag == 0 || tag > state.numbered {
            return Err(Malformed("the broker confirms a message that was not sent"));
        }
        if multiple {
            for flight in &mut state.flights {
                if flight.first > tag {
                    break;
                }
                if flight.open == 0 {
                    continue;
                }
                let end = flight.fates.len().min((tag - flight.first + 1) as usize);
                for at in flight.settled..end {
                    flight.settle(at, positive);
                }
                flight.settled = end.max(flight.settled);
                flight.tell();
            }
        } else {
            let after = state.flights.partition_point(|flight| flight.first <= tag);
            // None: its flight is over, so it was answered before.
            if let Some(flight) = after.checked_sub(1).and_then(|index| state.flights.get_mut(index))
                && flight.open > 0
                && tag <= flight.last()
            {
                flight.settle((tag - flight.first) as usize, positive);
                flight.tell();
            }
        }
        while state.flights.front().is_some_and(|flight| flight.open == 0) {
            state.flights.pop_front();
        }
        Ok(())
    }

    fn content(&self, content: Content) -> Result<(), Malformed> {
        let Method::Return { code, text, exchange, routing_key } = content.method else {
            return Err(Malformed("a delivery comes where nothing was consumed"));
        };
        let message_id = content.properties.message_id;
        self.returned(&Returned { code, text, exchange, routing_key, message_id, body: content.body })
    }

    fn caught_up(&self) {}

    fn cancelled(&self) {}

    fn gone(&self, gone: &Arc<Gone>, written: u64) {
        let mut state = self.state();
        state.gone = Some(gone.clone());
        let mut waiting = Vec::new();
        for (index, flight) in state.flights.iter().enumerate() {
            for (at, fate) in flight.fates.iter().enumerate() {
                if matches!(fate, Fate::Waiting) {
                    let unwritten = flight.offset + flight.parcel.ends[at] as u64 > written;
                    waiting.push(culprit::Waiting {
                        place: (index, at),
                        sent: flight.parcel.sent(at),
                        unwritten,
                    });
                }
            }
        }
        let fates = culprit::fates(gone, &waiting);
        let places: Vec<_> = waiting.iter().map(|waiting| waiting.place).collect();
        for ((index, at), fate) in places.into_iter().zip(fates) {
            state.flights[index].fates[at] = fate;
        }
        for mut flight in state.flights.drain(..) {
            flight.open = 0;
            flight.tell();
        }
    }
}
