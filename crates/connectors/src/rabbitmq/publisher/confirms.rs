//! Which message each answer of the broker belongs to, on one channel.
//!
//! The broker numbers the messages of a channel from 1 and answers by number: one or all up to it, in any order. A message
//! that it cannot route it gives back first, whole and without a number, in the order of publishing, and then confirms it.
//! So a returned message is looked for among those in flight by what it is, never by its turn, and the confirm that
//! follows is a refusal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

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
    /// The parcels of which a message is open, by the number of their first message. One that is settled in full is removed with its
    /// bytes, wherever it stands.
    flights: BTreeMap<u64, Flight>,
    /// The number of the message that was given back last.
    returned: u64,
    gone: Option<Arc<Gone>>,
}

/// A parcel that is not answered in full.
struct Flight {
    parcel: Parcel,
    sent_at: Instant,
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
        let flight = Flight {
            parcel,
            sent_at: Instant::now(),
            first,
            offset,
            fates: vec![Fate::Waiting; count],
            open: count,
            settled: 0,
            done: Some(sender),
        };
        state.flights.insert(first, flight);
        Ok(Ticket { first, count, done })
    }

    /// What is known of a parcel now. Nobody waits for it any more; its numbers stay taken.
    pub(super) fn withdraw(&self, ticket: Ticket) -> Vec<Fate> {
        let mut state = self.state();
        let mut done = ticket.done;
        if let Ok(fates) = done.try_recv() {
            return fates;
        }
        match state.flights.get_mut(&ticket.first) {
            Some(flight) => {
                flight.done = None;
                flight.fates.clone()
            }
            // Told between the two looks, which cannot be; claim nothing, and keep the others' places.
            None => vec![Fate::Waiting; ticket.count],
        }
    }

    /// Whether all that was sent is answered.
    pub(super) fn is_idle(&self) -> bool {
        self.state().flights.is_empty()
    }

    /// Whether a message has been without an answer for this long.
    pub(super) fn is_overdue(&self, after: Duration) -> bool {
        self.state().flights.values().next().is_some_and(|flight| flight.sent_at.elapsed() > after)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn returned(&self, returned: &Returned) -> Result<(), Malformed> {
        let mut state = self.state();
        let after = state.returned;
        // The broker gives messages back in order, so it is nearly always the first that fits after the last one.
        let found = state.find(returned, after).or_else(|| state.find(returned, 0));
        let Some((first, at)) = found else {
            return Err(Malformed("the broker gave a message back that is not in flight"));
        };
        let why = Arc::new(NoRoute { code: returned.code, text: returned.text.clone() });
        if let Some(flight) = state.flights.get_mut(&first) {
            flight.fates[at] = Fate::Returned { why, confirmed: false };
        }
        state.returned = first + at as u64;
        Ok(())
    }
}

impl State {
    /// The first open message behind this number that was given back: its parcel and its place there.
    fn find(&self, returned: &Returned, after: u64) -> Option<(u64, usize)> {
        // From the parcel on that has the number: those before it are not looked at.
        let start = self.flights.range(..=after).next_back().map_or(0, |(first, _)| *first);
        self.flights.range(start..).find_map(|(first, flight)| {
            let begin = usize::try_from((after + 1).saturating_sub(*first)).unwrap_or(usize::MAX);
            let is = |at: &usize| {
                matches!(flight.fates[*at], Fate::Waiting)
                    && flight.parcel.sent(*at).is_some_and(|sent| sent.is(returned))
            };
            (begin..flight.fates.len()).find(is).map(|at| (*first, at))
        })
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

    /// Tells who waits, once all is settled; whether it is.
    fn tell(&mut self) -> bool {
        if self.open > 0 {
            return false;
        }
        if let Some(done) = self.done.take() {
            done.send(std::mem::take(&mut self.fates)).ok(); // who waited may have given up
        }
        true
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
        let mut settled = Vec::new();
        if multiple {
            // All of them up to the number are settled by this, so none is looked at twice.
            for (first, flight) in state.flights.range_mut(..=tag) {
                let end = flight.fates.len().min((tag - first + 1) as usize);
                for at in flight.settled..end {
                    flight.settle(at, positive);
                }
                flight.settled = end.max(flight.settled);
                if flight.tell() {
                    settled.push(*first);
                }
            }
        } else if let Some((first, flight)) = state.flights.range_mut(..=tag).next_back()
            // Else its flight is over, so it was answered before.
            && tag <= flight.last()
        {
            flight.settle((tag - first) as usize, positive);
            if flight.tell() {
                settled.push(*first);
            }
        }
        for first in settled {
            state.flights.remove(&first);
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
        for (first, flight) in &state.flights {
            for (at, fate) in flight.fates.iter().enumerate() {
                if matches!(fate, Fate::Waiting) {
                    let unwritten = flight.offset + flight.parcel.ends[at] as u64 > written;
                    waiting.push(culprit::Waiting {
                        place: (*first, at),
                        sent: flight.parcel.sent(at),
                        unwritten,
                    });
                }
            }
        }
        let fates = culprit::fates(gone, &waiting);
        let places: Vec<_> = waiting.iter().map(|waiting| waiting.place).collect();
        for ((first, at), fate) in places.into_iter().zip(fates) {
            if let Some(flight) = state.flights.get_mut(&first) {
                flight.fates[at] = fate;
            }
        }
        for mut flight in std::mem::take(&mut state.flights).into_values() {
            flight.open = 0;
            flight.tell();
        }
    }
}

#[cfg(test)]
mod tests {
    use warren_engine::message::{Message, Outbound, Properties, Route};

    use super::super::super::wire::publish::put_publish;
    use super::*;

    fn parcel(ids: &[&str]) -> Parcel {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for id in ids {
            let outbound = outbound(id);
            put_publish(&mut bytes, 1, 4096, &outbound.route, &outbound.message).unwrap();
            ends.push(bytes.len());
        }
        Parcel { bytes: bytes.into(), ends }
    }

    fn outbound(id: &str) -> Outbound {
        let properties = Properties { message_id: Some(id.into()), ..Properties::default() };
        Outbound {
            route: Route::Queue("q".into()),
            message: Message { body: Bytes::copy_from_slice(id.as_bytes()), properties },
        }
    }

    fn returned(id: &str) -> Returned {
        Returned {
            code: 312,
            text: "NO_ROUTE".into(),
            exchange: String::new(),
            routing_key: "q".into(),
            message_id: Some(id.into()),
            body: Bytes::copy_from_slice(id.as_bytes()),
        }
    }

    /// Ten thousand parcels of two, of which these messages get no answer.
    fn with_stuck(stuck: &[u64], multiple: bool) -> (Confirms, Vec<Ticket>) {
        let (outbox, confirms) = (Outbox::new(), Confirms::default());
        let tickets: Vec<Ticket> =
            (0..10_000).map(|_| confirms.send(&outbox, parcel(&["a", "b"])).unwrap()).collect();
        // Zero would be all of them.
        if multiple && stuck[0] > 1 {
            confirms.answered(stuck[0] - 1, true, true).unwrap();
        }
        for tag in 1..=20_000 {
            if !stuck.contains(&tag) {
                confirms.answered(tag, false, tag % 7 != 0).unwrap();
            }
        }
        (confirms, tickets)
    }

    #[test]
    fn only_parcels_with_an_open_message_are_kept() {
        for (stuck, kept) in
            [(&[1][..], 1), (&[9_999], 1), (&[20_000], 1), (&[1, 2], 1), (&[1, 10_000, 20_000], 3)]
        {
            for multiple in [false, true] {
                let (confirms, mut tickets) = with_stuck(stuck, multiple);
                assert_eq!(confirms.state().flights.len(), kept, "{stuck:?}");
                let answered = tickets.iter_mut().filter(|ticket| !ticket.done.is_empty()).count();
                assert_eq!(answered, 10_000 - kept, "{stuck:?}");
                // Those who wait no longer free nothing by that, and the late answer frees the rest.
                for ticket in tickets {
                    confirms.withdraw(ticket);
                }
                confirms.answered(0, true, true).unwrap();
                assert!(confirms.is_idle());
            }
        }
    }

    #[test]
    fn a_return_behind_a_stuck_message_finds_its_own() {
        let (outbox, confirms) = (Outbox::new(), Confirms::default());
        let stuck = confirms.send(&outbox, parcel(&["stuck"])).unwrap();
        let mut tickets: Vec<Ticket> =
            ["a", "b", "a"].iter().map(|id| confirms.send(&outbox, parcel(&[id, "x"])).unwrap()).collect();
        confirms.answered(3, false, true).unwrap();
        for (id, tag) in [("a", 2), ("b", 4), ("a", 6)] {
            confirms.returned(&returned(id)).unwrap();
            confirms.answered(tag, false, true).unwrap();
        }
        for tag in [5, 7] {
            confirms.answered(tag, false, true).unwrap();
        }
        for ticket in &mut tickets {
            let fates = ticket.done.try_recv().unwrap();
            assert!(matches!(fates[0], Fate::Returned { confirmed: true, .. }), "{fates:?}");
            assert!(matches!(fates[1], Fate::Accepted), "{fates:?}");
        }
        assert_eq!(confirms.state().flights.len(), 1);
        assert!(confirms.returned(&returned("b")).is_err(), "it is answered");
        assert!(matches!(confirms.withdraw(stuck)[..], [Fate::Waiting]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_without_an_answer_is_overdue_after_a_time() {
        let (outbox, confirms) = (Outbox::new(), Confirms::default());
        let limit = Duration::from_secs(60);
        confirms.send(&outbox, parcel(&["stuck"])).unwrap();
        confirms.send(&outbox, parcel(&["other"])).unwrap();
        confirms.answered(2, false, true).unwrap();
        assert!(!confirms.is_overdue(limit));
        tokio::time::advance(limit * 2).await;
        assert!(confirms.is_overdue(limit));
        confirms.answered(1, false, true).unwrap();
        assert!(!confirms.is_overdue(limit));
    }
}
