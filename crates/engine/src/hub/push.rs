//! The handler that posts a message to a callback.
//!
//! It reads its subscription anew for each message: what a renewal changed holds from the next message on. In compatibility mode it
//! holds a message that stays in its queue and posts it again itself, as RabbitHub's consumers did; by default what failed is left to
//! [`consume`](crate::consume).

pub mod ids;
pub mod request;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use self::ids::WebhookIds;
use super::callback;
use super::registry::Hub;
use super::settings::LOG_TARGET;
use super::subscription::{Protocol, Signing, Subscription, SubscriptionId, WhyInactive};
use super::trouble::{self, Fate, Kind, Rules};
use crate::codes;
use crate::delivery::Job;
use crate::failure::{Failure, FailureKind};
use crate::outcome::{Attempt, Outcome, StepTrace};
use crate::pipeline::outside::{HttpAnswer, HttpRequest};
use crate::ports::Handler;
use crate::statuses::Statuses;

/// How long a message is held and posted again and again, before it goes the way of those that are retried. Brokers take a message
/// back that is not settled for long.
const HOLD_MAX: Duration = Duration::from_secs(10 * 60);
/// The pause before a message is posted again that RabbitHub would have requeued at once.
const AT_ONCE: Duration = Duration::from_millis(100);
/// The pauses where RabbitHub would have been stuck.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long a message is kept that came for a subscription which is over, so that it is not given out again before consuming ends.
const LINGER: Duration = Duration::from_secs(1);
const DAY_MS: i64 = 86_400_000;

/// Posts the messages of one subscription. All its deliveries share one, and so one budget of requests a second.
pub struct Push {
    hub: Arc<Hub>,
    id: SubscriptionId,
    ids: Arc<WebhookIds>,
    pace: Pace,
}

/// When the next request may begin.
#[derive(Default)]
struct Pace(Mutex<Option<Instant>>);

/// What came of one request.
enum Posted {
    Taken,
    Refused(HttpAnswer),
    Failed(Failure),
}

impl Push {
    /// The handler of a subscription of a hub.
    pub fn new(hub: Arc<Hub>, id: SubscriptionId, ids: Arc<WebhookIds>) -> Push {
        Push { hub, id, ids, pace: Pace::default() }
    }
}

#[async_trait]
impl Handler for Push {
    async fn handle(&self, job: &Job, attempt: &Attempt) -> Outcome {
        let began = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            let Some(subscription) = self.turn().await else { return self.over().await };
            let posted = self.post(&subscription, job, attempt).await;
            let (what, compat) = (what(&subscription), self.follows_rabbithub(&subscription));
            let failure = match posted {
                Posted::Taken => return Outcome::Ok,
                Posted::Refused(answer) => {
                    let finals = self.final_statuses(&subscription);
                    let answered = trouble::answered(&what, &answer, finals);
                    if !compat {
                        return self.by_default(answered).await;
                    }
                    (Kind::Status, answered.into_failure())
                }
                Posted::Failed(failure) if !compat => {
                    self.hub.note_error(self.id, failure.name(), &failure.to_string());
                    return Outcome::Retry(trouble::not_posted(failure));
                }
                Posted::Failed(failure) => (Kind::Transport, failure),
            };
            let (kind, failure) = failure;
            match self.as_rabbithub(kind, &failure).await {
                Some(outcome) => return outcome,
                None if began.elapsed() >= HOLD_MAX => return Outcome::Retry(failure),
                None => {}
            }
            let limited = Rules::of(self.hub.settings()).limits.is_some();
            let this = if limited { AT_ONCE } else { pause };
            pause = (pause * 2).min(PAUSE_MAX);
            if self.pauses(this).await {
                return Outcome::HandBack;
            }
        }
    }

    fn acknowledged(&self, job: &Job) {
        if job.message.properties.message_id.is_none() {
            self.ids.acknowledged(self.id, job);
        }
    }
}

impl Push {
    /// The subscription as it is now, once it may be posted to. `None`: it is over.
    async fn turn(&self) -> Option<Arc<Subscription>> {
        let tps = self.active()?.max_tps;
        let waited = self.pace.turn(tps).await;
        if self.hub.settings().log_maxtps_delay && !waited.is_zero() {
            tracing::info!(target: LOG_TARGET, subscription = %self.id, ?waited, max_tps = tps, "paced");
        }
        self.active()
    }

    fn active(&self) -> Option<Arc<Subscription>> {
        self.hub.by_id(self.id).filter(|subscription| subscription.is_active())
    }

    /// A message that came when the subscription was over already.
    async fn over(&self) -> Outcome {
        tokio::select! {
            () = tokio::time::sleep(LINGER) => {}
            () = self.hub.stopping() => {}
        }
        Outcome::HandBack
    }

    /// Waits; whether the hub stops or the subscription is over.
    async fn pauses(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut changes = self.hub.changes();
        loop {
            if self.active().is_none() {
                return true;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => return false,
                () = self.hub.stopping() => return true,
                // The hub lives as long as this, so the channel does.
                _ = changes.changed() => {}
            }
        }
    }

    fn follows_rabbithub(&self, subscription: &Subscription) -> bool {
        self.hub.settings().compat && subscription.protocol == Protocol::Rabbithub
    }

    /// The statuses after which a message is dead-lettered at once: the subscription's, or else the settings'.
    fn final_statuses<'s>(&'s self, subscription: &'s Subscription) -> &'s Statuses {
        subscription.final_statuses.as_ref().unwrap_or(&self.hub.settings().final_statuses)
    }

    async fn by_default(&self, answered: trouble::Answered) -> Outcome {
        match answered {
            trouble::Answered::Again(failure) => {
                self.hub.note_error(self.id, failure.name(), &said(&failure));
                Outcome::Retry(failure)
            }
            trouble::Answered::Final(failure) => {
                self.hub.note_error(self.id, failure.name(), &said(&failure));
                Outcome::Reject(failure)
            }
            trouble::Answered::Gone(failure) => {
                self.hub.note_error(self.id, failure.name(), &said(&failure));
                self.ends(WhyInactive::Gone).await;
                Outcome::Reject(failure)
            }
        }
    }

    /// `None`: the message stays, and the subscription as well.
    async fn as_rabbithub(&self, kind: Kind, failure: &Failure) -> Option<Outcome> {
        let noted = self.hub.note_error(self.id, failure.name(), &said(failure));
        let count = noted.map_or(1, |subscription| subscription.errors.count);
        let verdict = Rules::of(self.hub.settings()).judge(kind, count);
        let ended = verdict.ends && self.ends(WhyInactive::Failed).await;
        match verdict.message {
            Fate::Rejected => Some(Outcome::Reject(failure.clone())),
            Fate::Stays if ended => Some(Outcome::HandBack),
            Fate::Stays => None,
        }
    }

    /// Ends the subscription; whether that could be stored.
    async fn ends(&self, why: WhyInactive) -> bool {
        match self.hub.end(self.id, why).await {
            Ok(()) => true,
            Err(failure) => {
                tracing::warn!(subscription = %self.id, failure = failure.line(), "cannot end a subscription");
                false
            }
        }
    }

    async fn post(&self, subscription: &Subscription, job: &Job, attempt: &Attempt) -> Posted {
        let settings = self.hub.settings();
        let ports = self.hub.ports();
        let now_ms = ports.clock.now_ms();
        self.warn_of_end(subscription, now_ms);
        let signs_id = subscription.secret.is_some() && subscription.signing == Signing::Standard;
        let needs_id = signs_id && job.message.properties.message_id.is_none();
        let ticket = needs_id.then(|| self.ids.begin(self.id, job, attempt.again));
        let id = ticket.as_ref().map(ids::Ticket::text).unwrap_or_default();
        let told = request::Told {
            settings,
            subscription,
            job,
            again: attempt.again,
            now_s: now_ms.div_euclid(1000),
            fresh_id: &id,
        };
        let request = request::made(&told);
        if settings.log_http_post_request {
            self.log(&request);
        }
        let began = Instant::now();
        let call = tokio::time::timeout(settings.request_timeout, ports.http.call(&request)).await;
        let posted = match call {
            Ok(Ok(answer)) if (200..=299).contains(&answer.status) => Posted::Taken,
            Ok(Ok(answer)) => Posted::Refused(answer),
            Ok(Err(failure)) => Posted::Failed(failure),
            Err(_) => Posted::Failed(
                Failure::new(FailureKind::Timeout, codes::DEADLINE_PASSED, what(subscription))
                    .detail(format!("no answer within {:?}", settings.request_timeout)),
            ),
        };
        if let (Some(ticket), Posted::Taken) = (ticket, &posted) {
            ticket.taken();
        }
        let (note, failure) = match &posted {
            Posted::Taken => ("taken".to_owned(), None),
            Posted::Refused(answer) => (answer.status.to_string(), None),
            Posted::Failed(failure) => ("no answer".to_owned(), Some(failure.clone())),
        };
        let note = Some(format!("{}: {note}", what(subscription)));
        let took = began.elapsed();
        attempt.trace.note(StepTrace { path: "post".to_owned(), id: None, took, note, failure });
        posted
    }

    fn warn_of_end(&self, subscription: &Subscription, now_ms: i64) {
        let Some(days) = self.hub.settings().log_subscription_expiration_days else { return };
        let left = subscription.expires_at_ms.saturating_sub(now_ms);
        if left <= i64::from(days).saturating_mul(DAY_MS) {
            let hours = left / 3_600_000;
            tracing::warn!(subscription = %self.id, hours, "the lease of a subscription ends soon");
        }
    }

    /// The request without its secrets.
    fn log(&self, request: &HttpRequest) {
        let secret = ["x-hub-signature", "webhook-signature"];
        let headers: Vec<String> = request
            .headers
            .iter()
            .map(|(name, value)| {
                let value = if secret.contains(&name.as_str()) { "***" } else { value };
                format!("{name}: {value}")
            })
            .chain(request.authorization.iter().map(|_| "authorization: ***".to_owned()))
            .collect();
        let body = String::from_utf8_lossy(&request.body);
        tracing::info!(
            target: LOG_TARGET, subscription = %self.id, url = callback::shown(&request.url), headers = headers.join(", "), %body,
            "delivery"
        );
    }
}

fn what(subscription: &Subscription) -> String {
    format!("POST {}", callback::shown(&subscription.key.callback))
}

/// A failure with the beginning of what was answered, as the list of errors shows it.
fn said(failure: &Failure) -> String {
    match failure.said.as_ref().and_then(|said| said.answer.as_ref()) {
        Some(answer) => format!("{failure}: {answer}"),
        None => failure.to_string(),
    }
}

impl Pace {
    /// Waits for the next turn: turns are 1/tps apart. Yields how long it waited.
    async fn turn(&self, tps: u32) -> Duration {
        if tps == 0 {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let at = {
            let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let at = next.map_or(now, |next| next.max(now));
            *next = Some(at + Duration::from_secs(1) / tps);
            at
        };
        tokio::time::sleep_until(at).await;
        at.saturating_duration_since(now)
    }
}
