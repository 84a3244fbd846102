//! A message that came: its lane, and whether it is given up before it is handled.

use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::{CRASHES_MAX, Worker};
use crate::codes;
use crate::consume::copies::{self, Received};
use crate::consume::flow::Role;
use crate::consume::lanes::Lane;
use crate::consume::plan::{ConsumePlan, Ordering};
use crate::consume::policy::{Class, Decision, Reason};
use crate::consume::settle::{acknowledge, given_up_before};
use crate::consume::work::Item;
use crate::delivery::{Delivery, Envelope, Job};
use crate::failure::{Failure, FailureKind};

impl Worker {
    /// A message came.
    pub(super) async fn arrived(&mut self, delivery: Delivery) {
        let (job, unsettled) = delivery.split();
        let shared = self.shared.clone();
        shared.status.received.fetch_add(1, Relaxed);
        let print = copies::print(&job);
        let counted = shared.broker_counts(&job).then(|| shared.uncounted_of(print));
        let received = copies::receive(job, shared.ports.clock.now_ms(), counted);
        let mut unsettled = Some(unsettled);
        if shared.plan.auto_ack && acknowledge(unsettled.take()).await.is_err() {
            return; // the broker gives it out again
        }
        let crashes = shared.ports.in_flight.crashes(print);
        let (lane, decided) = self.judged(&received, print, crashes).await;
        let again = lane.is_none() && decided.is_none() && came_before(&received.job.envelope);
        let working = unsettled.is_some().then(|| self.again.came(print));
        let arrived = Instant::now();
        let item = Box::new(Item {
            received,
            unsettled,
            parked: None,
            lane: lane.clone(),
            overflow: false,
            print,
            crashes,
            arrived,
            paused_before: shared.flow().paused_in_all(arrived),
            role: Role::Usual,
            decided: decided.map(Decision::DeadLetter),
            handled: false,
            tried: false,
            dead_lettered: None,
            later: None,
            panics: 0,
            is_being_parked: false,
            working,
        });
        if again && self.again.is_worked_on(print) {
            self.again.wait(item);
            return;
        }
        match lane {
            Some(lane) if self.lot.lanes.contains_key(&lane) => self.comes_behind(&lane, item),
            lane => self.lanes.push(lane, item),
        }
    }

    /// The lane of a message, and why it is given up before it is handled, if it is.
    pub(super) async fn judged(
        &self,
        received: &Received,
        print: u128,
        crashes: u32,
    ) -> (Lane, Option<Reason>) {
        let plan = &self.shared.plan;
        let (lane, no_key) = match &plan.ordering {
            Ordering::None => (None, None),
            Ordering::Queue => (Some("".into()), None),
            Ordering::Key(key_of) => match key_of.key(&received.job, received.received_at_ms).await {
                Ok(key) => (Some(key.into()), None),
                Err(failure) => (None, Some(rejected(failure))),
            },
        };
        let reason = given_up_before(received)
            .or_else(|| too_large(plan, &received.job))
            .or_else(|| not_text(plan, &received.job))
            .or(no_key);
        let reason = match reason {
            Some(reason) => Some(reason),
            None => self.may_have_run(received, print, crashes).await,
        };
        (lane, reason)
    }

    pub(super) async fn may_have_run(
        &self,
        received: &Received,
        print: u128,
        crashes: u32,
    ) -> Option<Reason> {
        let reason = |class, text: String| Some(Reason { class, text, failure: None });
        let again = self.shared.plan.allow_redelivery;
        if crashes >= CRASHES_MAX || (crashes > 0 && !again) {
            let times = if crashes == 1 { "once".to_owned() } else { format!("{crashes} times") };
            return reason(Class::Crashed, format!("the process died {times} while it handled the message"));
        }
        if again
            || !came_before(&received.job.envelope)
            || self.shared.ports.in_flight.take_unstarted(print).await
        {
            return None;
        }
        reason(Class::Unknown, "unknown outcome: it was delivered before, and may not run again".to_owned())
    }
}

/// Whether the broker gave it out before.
pub(super) fn came_before(envelope: &Envelope) -> bool {
    envelope.redelivered
        || envelope.delivery_count.unwrap_or(0) > 0
        || envelope.system.get(copies::RECEIVE_COUNT).is_some_and(|count| count != "1")
}

fn rejected(failure: Failure) -> Reason {
    Reason { class: Class::Rejected, text: failure.to_string(), failure: Some(failure) }
}

fn too_large(plan: &ConsumePlan, job: &Job) -> Option<Reason> {
    let bytes = job.message.body.len() as u64;
    if bytes <= plan.message_bytes_max {
        return None;
    }
    let failure = Failure::new(FailureKind::Invalid, codes::MESSAGE_TOO_LARGE, "take a message")
        .detail(format!("the body has {bytes} bytes, `max_message_size` is {}", plan.message_bytes_max));
    Some(Reason { class: Class::Rejected, text: "too large".to_owned(), failure: Some(failure) })
}

fn not_text(plan: &ConsumePlan, job: &Job) -> Option<Reason> {
    if plan.binary || std::str::from_utf8(&job.message.body).is_ok() {
        return None;
    }
    let failure = Failure::new(FailureKind::Invalid, codes::NOT_TEXT, "take a message")
        .detail("the body is not UTF-8")
        .remedy("set `binary: true` on the trigger, and the body comes as base64");
    Some(Reason { class: Class::Rejected, text: "not text".to_owned(), failure: Some(failure) })
}
