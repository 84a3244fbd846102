//! Publishes batches and says of each message what became of it.
//!
//! All messages of one call go over one channel, in order; calls take the channels in turn, and are appended to the
//! connection in the order in which they began. So messages of one route reach the broker in the order of sending. Calls that
//! are under way at the same time are handled side by side by the broker (unless `channels` is 1), so between their
//! messages the order in a queue is not promised; who waits for a call's receipts before making the next one has
//! order throughout.

mod confirms;
mod culprit;
mod exchanges;
mod fate;
mod lane;
mod suspects;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::message::{HeaderValue, Headers, Outbound, Receipt, Route};
use warren_engine::size::ByteSize;

use self::confirms::{Parcel, Ticket};
use self::exchanges::{Known, Outlook};
use self::fate::{Blamed, Fate, blamed, what};
use self::lane::Lane;
use self::suspects::Suspects;
use super::config::{Login, Target};
use super::connection::Connection;
use super::connection::slot::Slot;
use super::failures::{Gone, unsayable};
use super::wire::method::Call;
use super::wire::publish::{DIRECT_REPLY, address, is_direct_reply, is_readable_reply_token, put_publish};

/// Messages are appended in parcels of about this many bytes, so that a large batch does not stand in memory twice.
const PARCEL_BYTES: usize = 1 << 20;
/// How often a parcel is tried on another channel when the one it was made for has just ended.
const LANE_TRIES: usize = 3;

pub(crate) struct Publisher {
    target: Arc<Target>,
    /// For all but suspects.
    together: Line,
    /// For suspects, so that the broker closes no connection that others publish over. Opened when there is one.
    apart: Line,
    /// One suspect at a time.
    alone: Semaphore,
    suspects: Suspects,
}

/// The place of a connection with its channels.
struct Line {
    slot: Slot,
    channels: usize,
    pool: Mutex<Option<Arc<Pool>>>,
}

/// The channels of one connection.
struct Pool {
    connection: Arc<Connection>,
    lanes: Vec<Lane>,
    /// For a message on trial where the lane whose turn it is has others under way.
    trial: Lane,
    next: AtomicUsize,
    /// Calls append in the order in which they began.
    turn: Semaphore,
    known: Known,
}

/// Messages of a batch that were appended together, as far as they could be.
struct Sending {
    /// Messages that were not appended, by their place in the batch, in order.
    refused: Vec<(usize, Failure)>,
    parcels: Vec<Sent>,
    /// What stopped the rest from being appended.
    stopped: Option<Stopped>,
}

/// A parcel that was appended.
enum Sent {
    /// Its channel is open for as long as its answers are waited for.
    Pending(Arc<lane::Open>, Ticket),
    Answered(Vec<Fate>),
}

/// Why the rest of a batch was not appended.
enum Stopped {
    Gone(Arc<Gone>),
    Failed(Failure),
}

impl Publisher {
    /// Publishes over the first connection, and messages that might close theirs over the second.
    pub(crate) fn new(slot: Slot, apart: Slot, target: Arc<Target>) -> Publisher {
        let line = |slot, channels| Line { slot, channels, pool: Mutex::default() };
        Publisher {
            together: line(slot, target.channels.into()),
            apart: line(apart, 1),
            target,
            alone: Semaphore::new(1),
            suspects: Suspects::default(),
        }
    }

    /// See [`Broker::publish`](warren_engine::ports::Broker::publish).
    pub(crate) async fn publish(&self, batch: &[Outbound]) -> Vec<Receipt> {
        let is_suspect = |outbound: &Outbound| may_close(outbound) || self.suspects.has(outbound);
        if !self.suspects.any() && !batch.iter().any(may_close) {
            return self.publish_together(batch).await;
        }
        let mut receipts = Vec::with_capacity(batch.len());
        let mut rest = batch;
        while !rest.is_empty() {
            let clean = rest.iter().take_while(|outbound| !is_suspect(outbound)).count();
            if clean > 0 {
                receipts.extend(self.publish_together(&rest[..clean]).await);
            }
            if let Some(suspect) = rest.get(clean) {
                receipts.push(self.publish_alone(suspect).await);
            }
            rest = rest.get(clean + 1..).unwrap_or_default();
        }
        receipts
    }

    /// The connection, opened if it is not, and the largest body that is sent over it.
    pub(crate) async fn connection(&self) -> Result<(Arc<Connection>, u64), Failure> {
        let pool = self.pool(&self.together).await?;
        Ok((pool.connection.clone(), self.body_bytes_max(&pool)))
    }

    /// Why the broker holds publishers back, if it does.
    pub(crate) fn blocked(&self) -> Option<String> {
        self.together.slot.current().and_then(|connection| connection.shared.outbox.blocked())
    }

    pub(crate) async fn close(&self) {
        self.together.slot.close().await;
        self.apart.slot.close().await;
    }

    async fn publish_together(&self, batch: &[Outbound]) -> Vec<Receipt> {
        let pool = match self.pool(&self.together).await {
            Ok(pool) => pool,
            Err(failure) => return batch.iter().map(|outbound| unconnected(outbound, &failure)).collect(),
        };
        let lane = &pool.lanes[pool.next.fetch_add(1, Ordering::Relaxed) % pool.lanes.len()];
        let mut receipts = Vec::with_capacity(batch.len());
        for (fate, outbound) in self.send(&pool, lane, batch).await.into_iter().zip(batch) {
            receipts.push(match fate {
                Ok(fate) => {
                    self.learn(&pool, &fate, outbound);
                    fate.receipt(outbound, || self.late(outbound))
                }
                Err(failure) => Receipt::Refused(failure),
            });
        }
        receipts
    }

    async fn publish_alone(&self, outbound: &Outbound) -> Receipt {
        let _alone = self.alone.acquire().await;
        let pool = match self.pool(&self.apart).await {
            Ok(pool) => pool,
            Err(failure) => return unconnected(outbound, &failure),
        };
        let fate = match self.send(&pool, &pool.lanes[0], std::slice::from_ref(outbound)).await.pop() {
            Some(Ok(fate)) => fate,
            Some(Err(failure)) => return Receipt::Refused(failure),
            None => Fate::Waiting,
        };
        let fate = match fate {
            Fate::Suspect(gone) if self.suspects.strike(outbound) => Fate::Culprit(gone),
            fate => fate,
        };
        match &fate {
            Fate::Accepted | Fate::Nacked | Fate::Returned { .. } | Fate::Culprit(_) => {
                self.suspects.clear(outbound);
            }
            Fate::Waiting | Fate::Unsent(_) | Fate::Unsure(_) | Fate::Suspect(_) => {}
        }
        self.learn(&pool, &fate, outbound);
        fate.receipt(outbound, || self.late(outbound))
    }

    async fn pool(&self, line: &Line) -> Result<Arc<Pool>, Failure> {
        let current = || line.pool.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(pool) = current().filter(|pool| pool.connection.is_open()) {
            return Ok(pool);
        }
        let connection = line.slot.get().await?;
        let (pool, new) = self.pool_of(line, connection);
        if new {
            // All at once and now: a broker that holds publishers back opens no channel either. One that fails is
            // opened when it is used, and says then what is wrong.
            futures_util::future::join_all(pool.lanes.iter().map(|lane| lane.open(&pool.connection))).await;
        }
        Ok(pool)
    }

    fn pool_of(&self, line: &Line, connection: Arc<Connection>) -> (Arc<Pool>, bool) {
        let mut current = line.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = current.as_ref().filter(|pool| Arc::ptr_eq(&pool.connection, &connection)) {
            return (pool.clone(), false);
        }
        let overdue = self.target.publish_timeout * 2;
        let pool = Arc::new(Pool {
            connection,
            lanes: (0..line.channels).map(|_| Lane::new(overdue)).collect(),
            trial: Lane::new(overdue),
            next: AtomicUsize::new(0),
            turn: Semaphore::new(1),
            known: Known::default(),
        });
        *current = Some(pool.clone());
        (pool, true)
    }

    /// Sends a batch over one lane and waits for the answers. `Err`: the message was not sent for a reason of its own.
    async fn send(&self, pool: &Pool, lane: &Lane, batch: &[Outbound]) -> Vec<Result<Fate, Failure>> {
        let deadline = Instant::now() + self.target.publish_timeout;
        let sending = self.append(pool, lane, batch, deadline).await;
        let mut fates = Vec::with_capacity(batch.len());
        for sent in sending.parcels {
            fates.extend(match sent {
                Sent::Answered(fates) => fates,
                Sent::Pending(open, mut ticket) => match timeout_at(deadline, &mut ticket.done).await {
                    Ok(Ok(answered)) => answered,
                    Ok(Err(_)) | Err(_) => open.confirms.withdraw(ticket),
                },
            });
        }
        let mut fates = fates.into_iter();
        let mut refused = sending.refused.into_iter().peekable();
        let mut results = Vec::with_capacity(batch.len());
        for (at, outbound) in batch.iter().enumerate() {
            let result = match refused.next_if(|(place, _)| *place == at) {
                Some((_, failure)) => Err(failure),
                None => match (fates.next(), &sending.stopped) {
                    (Some(fate), _) => Ok(fate),
                    (None, Some(Stopped::Gone(gone))) => Ok(Fate::Unsent(gone.clone())),
                    (None, Some(Stopped::Failed(failure))) => {
                        Err(Failure { what: what(&outbound.route), ..failure.clone() })
                    }
                    // A bug; never claim what is not known.
                    (None, None) => Ok(Fate::Waiting),
                },
            };
            results.push(result);
        }
        results
    }

    async fn append(&self, pool: &Pool, lane: &Lane, batch: &[Outbound], deadline: Instant) -> Sending {
        let mut sending = Sending { refused: Vec::new(), parcels: Vec::new(), stopped: None };
        let held_back = || Some(Stopped::Failed(self.held_back(pool)));
        let Ok(_turn) = timeout_at(deadline, pool.turn.acquire()).await else {
            sending.stopped = held_back();
            return sending;
        };
        let outbox = &pool.connection.shared.outbox;
        let mut at = 0;
        while at < batch.len() {
            if timeout_at(deadline, outbox.room()).await.is_err() {
                sending.stopped = held_back();
                break;
            }
            let parcel = self.parcel(pool, lane, batch, at, &mut sending.refused);
            let Filled { end, ready } = match timeout_at(deadline, parcel).await {
                Ok(Ok(filled)) => filled,
                Ok(Err(stopped)) => {
                    sending.stopped = Some(stopped);
                    break;
                }
                Err(_) => {
                    sending.stopped = held_back();
                    break;
                }
            };
            at = end;
            let Some(ready) = ready else { continue };
            match ready.lane.confirms.send(outbox, ready.parcel) {
                Ok(ticket) if ready.on_trial => {
                    let outbound = &batch[end - 1];
                    sending.parcels.push(self.trial(pool, ready.lane, ticket, outbound, deadline).await);
                }
                Ok(ticket) => sending.parcels.push(Sent::Pending(ready.lane, ticket)),
                // The channel ended meanwhile: the rest, with this parcel, is not sent.
                Err(gone) => {
                    sending.stopped = Some(Stopped::Gone(gone));
                    break;
                }
            }
        }
        sending
    }

    /// Waits until the broker has taken a message that is alone on its channel, or has closed the channel over it. It handles what comes on
    /// a channel in order: once it answers the next question there, the message has passed, whether or not it is confirmed yet.
    async fn trial(
        &self,
        pool: &Pool,
        open: Arc<lane::Open>,
        mut ticket: Ticket,
        outbound: &Outbound,
        deadline: Instant,
    ) -> Sent {
        let answered = tokio::select! {
            biased;
            answered = &mut ticket.done => answered.ok(),
            asked = open.channel.tell(Call::ConfirmSelect) => match asked {
                Ok(()) => None,
                // It is gone, and what that says of the message is about to be told.
                Err(_) if open.channel.gone().is_some() => {
                    timeout_at(deadline, &mut ticket.done).await.ok().and_then(Result::ok)
                }
                Err(_) => return Sent::Pending(open, ticket),
            },
            () = tokio::time::sleep_until(deadline) => return Sent::Pending(open, ticket),
        };
        match answered.as_deref() {
            None if open.channel.gone().is_some() => {}
            None | Some([Fate::Accepted | Fate::Nacked | Fate::Returned { .. }]) => {
                pool.known.passed(outbound, self.login());
            }
            Some([fate]) => self.learn(pool, fate, outbound),
            Some(_) => {}
        }
        match answered {
            Some(fates) => Sent::Answered(fates),
            None => Sent::Pending(open, ticket),
        }
    }

    /// The name that messages may have as their `user_id`, where it is known.
    fn login(&self) -> Option<&str> {
        match &self.target.login {
            Login::Plain { username, .. } => Some(username),
            Login::External => None,
        }
    }

    /// Writes the next messages of a batch into a parcel. Those that cannot be sent are put among the refused.
    async fn parcel(
        &self,
        pool: &Pool,
        lane: &Lane,
        batch: &[Outbound],
        start: usize,
        refused: &mut Vec<(usize, Failure)>,
    ) -> Result<Filled, Stopped> {
        let mut open = lane.open(&pool.connection).await.map_err(Stopped::Gone)?;
        let frame_max = pool.connection.shared.agreed.frame_max;
        let body_bytes_max = self.body_bytes_max(pool);
        let mut bytes = Vec::with_capacity(first_size(&batch[start..]));
        let mut ends = Vec::with_capacity(batch.len() - start);
        let mut on_trial = false;
        let mut at = start;
        while let Some(outbound) = batch.get(at).filter(|_| !on_trial) {
            if !bytes.is_empty() && bytes.len() + outbound.message.body.len() > PARCEL_BYTES {
                break;
            }
            let sendable = match pool.known.outlook(outbound, self.login()) {
                Outlook::Refused(gone) => Err(fate::culprit(&outbound.route, &gone)),
                Outlook::Fine => sendable(outbound, body_bytes_max),
                Outlook::Trial => match sendable(outbound, body_bytes_max) {
                    Ok(()) if !bytes.is_empty() => break,
                    Ok(()) => {
                        if !open.confirms.is_idle() {
                            open = pool.trial.open_idle(&pool.connection).await.map_err(Stopped::Gone)?;
                        }
                        on_trial = true;
                        Ok(())
                    }
                    refused => refused,
                },
            };
            let written = sendable.and_then(|()| {
                put_publish(&mut bytes, open.channel.number, frame_max, &outbound.route, &outbound.message)
                    .map_err(|fault| unsayable(&fault, what(&outbound.route)))
            });
            match written {
                Ok(()) => ends.push(bytes.len()),
                Err(failure) => refused.push((at, failure)),
            }
            at += 1;
        }
        let parcel = Parcel { bytes: bytes.into(), ends };
        let ready = (!parcel.ends.is_empty()).then(|| Ready { lane: open, parcel, on_trial });
        Ok(Filled { end: at, ready })
    }

    /// The largest body that is sent.
    fn body_bytes_max(&self, pool: &Pool) -> u64 {
        let assumed = self.target.body_bytes_max.unwrap_or_else(|| default_body_bytes_max(&pool.connection));
        pool.known.body_bytes_max().map_or(assumed, |learned| learned.min(assumed))
    }

    /// Remembers what the broker objected to, so that it need not object again.
    fn learn(&self, pool: &Pool, fate: &Fate, outbound: &Outbound) {
        let gone = match fate {
            Fate::Culprit(gone) | Fate::Unsure(gone) => gone,
            Fate::Suspect(_) => {
                self.suspects.add(outbound);
                return;
            }
            Fate::Waiting | Fate::Accepted | Fate::Nacked | Fate::Returned { .. } | Fate::Unsent(_) => return,
        };
        let Gone::Channel(close) = &**gone else { return };
        match blamed(close) {
            Blamed::Exchange => {
                let (exchange, _) = address(&outbound.route);
                if culprit::names_exchange(close, exchange) {
                    pool.known.refused(exchange, gone.clone());
                }
            }
            Blamed::Topic => {
                let (exchange, routing_key) = address(&outbound.route);
                if culprit::names_exchange(close, exchange) && culprit::names_topic(close, routing_key) {
                    pool.known.topic_refused(exchange, routing_key, gone.clone());
                }
            }
            Blamed::Size { allowed, .. } => pool.known.body_bytes_learned(allowed),
            Blamed::UserId => {
                if let (Fate::Culprit(_), Some(user_id)) = (fate, &outbound.message.properties.user_id) {
                    pool.known.user_id_refused(user_id, gone.clone());
                }
            }
            Blamed::Expiration | Blamed::Unclear => {}
        }
    }

    fn late(&self, outbound: &Outbound) -> Failure {
        Failure::new(FailureKind::Timeout, codes::PUBLISH_TIMEOUT, what(&outbound.route))
            .detail(format!("the broker did not confirm it within {:?}", self.target.publish_timeout))
            .remedy(
                "See whether the broker is overloaded or holds publishers back, or raise `publish_timeout`.",
            )
    }

    /// What is told of a message that could not be appended in time. `what` is filled in for each.
    fn held_back(&self, pool: &Pool) -> Failure {
        match pool.connection.shared.outbox.blocked() {
            Some(reason) => Failure::new(FailureKind::Throttled, codes::BROKER_BLOCKED, "")
                .detail(format!("not sent: the broker holds publishers back ({reason})"))
                .remedy(
                    "Free memory or disk of the broker's machine; `rabbitmq-diagnostics alarms` names them.",
                ),
            None => Failure::new(FailureKind::Timeout, codes::PUBLISH_TIMEOUT, "").detail(format!(
                "not sent: the broker took nothing within {:?}",
                self.target.publish_timeout
            )),
        }
    }
}

/// The next messages of a batch, as far as the parcel took them.
struct Filled {
    /// The place in the batch behind them.
    end: usize,
    /// None: all of them were refused.
    ready: Option<Ready>,
}

struct Ready {
    lane: Arc<lane::Open>,
    parcel: Parcel,
    /// It is one message, whose like the broker has not taken yet.
    on_trial: bool,
}

/// What RabbitMQ takes by default, by its version.
fn default_body_bytes_max(connection: &Connection) -> u64 {
    const SINCE_4: u64 = 16 << 20;
    const BEFORE_4: u64 = 128 << 20;
    let version = &connection.shared.server.version;
    match version.split('.').next().and_then(|major| major.parse::<u32>().ok()) {
        Some(major) if major < 4 => BEFORE_4,
        Some(_) | None => SINCE_4,
    }
}

fn first_size(batch: &[Outbound]) -> usize {
    let total: usize = batch.iter().map(|outbound| outbound.message.body.len() + 256).sum();
    total.min(PARCEL_BYTES + (64 << 10))
}

/// What can be told of a message without sending it.
fn sendable(outbound: &Outbound, body_bytes_max: u64) -> Result<(), Failure> {
    let invalid = |code, detail: String, remedy: &str| {
        Failure::new(FailureKind::Invalid, code, what(&outbound.route)).detail(detail).remedy(remedy)
    };
    let bytes = outbound.message.body.len() as u64;
    if bytes > body_bytes_max {
        let detail = format!(
            "its body has {} ({bytes} bytes), the broker takes {}",
            ByteSize(bytes),
            ByteSize(body_bytes_max)
        );
        return Err(invalid(
            codes::MESSAGE_TOO_LARGE,
            detail,
            "Send less in one message, or raise the broker's `max_message_size` and the setting of that name.",
        ));
    }
    let properties = &outbound.message.properties;
    if let Some(expiration) = &properties.expiration
        && expiration.parse::<u32>().is_err()
    {
        return Err(invalid(
            codes::INVALID_PROPERTY,
            format!("`expiration` is `{}`", expiration.chars().take(40).collect::<String>()),
            "Give `expiration` as a whole number of milliseconds up to 4294967295.",
        ));
    }
    let (exchange, key) = address(&outbound.route);
    if is_direct_reply(exchange, key) && !is_readable_reply_token(key) {
        let detail = "it is not an address of RabbitMQ's direct replies: its token names no process";
        return Err(Failure::new(FailureKind::NotFound, codes::NO_SUCH_QUEUE, what(&outbound.route))
            .detail(detail)
            .remedy("Reply to the `reply_to` of the request as it came."));
    }
    if properties.reply_to.as_deref() == Some(DIRECT_REPLY) {
        return Err(invalid(
            codes::INVALID_PROPERTY,
            format!("`reply_to` is `{DIRECT_REPLY}`, and the publisher does not consume direct replies"),
            "Give the name of a queue that takes the replies.",
        ));
    }
    if let Some(name) = ["CC", "BCC"].into_iter().find(|name| is_not_list(&properties.headers, name)) {
        return Err(invalid(
            codes::INVALID_PROPERTY,
            format!("the header `{name}` is not a list"),
            "RabbitMQ routes by `CC` and `BCC`: give a list of routing keys, or use another name.",
        ));
    }
    if let Route::Queue(queue) = &outbound.route
        && queue.is_empty()
    {
        return Err(invalid(
            codes::NO_SUCH_QUEUE,
            "the queue's name is empty".into(),
            "Give the queue's name.",
        ));
    }
    Ok(())
}

/// Whether there is such a header and it is not a list.
fn is_not_list(headers: &Headers, name: &str) -> bool {
    headers.get(name).is_some_and(|value| !matches!(value, HeaderValue::Array(_)))
}

/// Whether RabbitMQ would close the connection over a message if its route leads to a stream: the conversion to AMQP 1.0 fails there for a
/// decimal, and for a filter that is not text. Whether it does, nothing says in advance.
fn may_close(outbound: &Outbound) -> bool {
    outbound.message.properties.headers.iter().any(|(name, value)| match value {
        HeaderValue::Decimal { .. } => true,
        HeaderValue::Text(_) => false,
        _ => name == "x-stream-filter-value",
    })
}

/// The receipt of a message for which there was no connection. Whatever kept it from being opened may be over at the next
/// try, so it is for the engine to try again, not to reject the row.
fn unconnected(outbound: &Outbound, failure: &Failure) -> Receipt {
    Receipt::Refused(Failure {
        kind: FailureKind::Disconnected,
        what: format!("{}: {}", what(&outbound.route), failure.what),
        ..failure.clone()
    })
}
