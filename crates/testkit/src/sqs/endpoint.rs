//! An HTTP server that speaks the JSON protocol of SQS and fails as it is told: single entries of a batch, whole requests, answers
//! that are lost, answers that come late. It keeps the rules that a sender can break, and remembers every request.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::queue::{Arrival, Queue, QueueSettings, Stored};
use super::rules;

/// The account its queues are in.
const ACCOUNT: &str = "123456789012";

/// How often a question for messages that waits looks again.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A request to send a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// From 0, of all of them.
    pub number: usize,
    /// The queue's name.
    pub queue: String,
    /// What it holds.
    pub entries: Vec<Arrival>,
}

/// What becomes of one entry that keeps the rules.
#[derive(Clone, Debug, PartialEq)]
pub enum EntryFault {
    /// It is refused, and its sender is to blame.
    Sender(&'static str),
    /// It is refused, and its sender is not to blame.
    Server(&'static str),
    /// It is stored, and the digest in the answer is another's.
    WrongDigest,
    /// It is stored, and the answer does not name it.
    Unanswered,
}

/// What becomes of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Fate {
    /// Its entries are stored, but for those with a fault, by their places.
    #[default]
    Fine,
    /// As above.
    Faults(BTreeMap<usize, EntryFault>),
    /// It is refused as a whole with a status and an error's name; nothing is stored.
    Refused(u16, &'static str),
    /// The connection is closed before anything is stored.
    Lost,
    /// All is stored, and the connection is closed instead of an answer.
    AnswerLost,
    /// All is stored, and the answer comes late.
    Late(Duration),
}

type Script = Box<dyn FnMut(&Call) -> Fate + Send>;

struct State {
    queues: BTreeMap<String, Queue>,
    denied: BTreeSet<String>,
    throttled: BTreeSet<String>,
    receipts_held: bool,
    delay: Duration,
    script: Script,
    calls: Vec<Call>,
    remember: bool,
    asked: BTreeMap<String, usize>,
    under_way: usize,
    under_way_max: usize,
    next_id: u64,
}

/// The server; it ends when dropped.
pub struct Endpoint {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Serves; it ends with us.
    _task: tokio::task::JoinSet<()>,
}

impl Endpoint {
    /// Starts it on a free port of loopback.
    ///
    /// # Panics
    /// When there is none.
    pub async fn start() -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback is free");
        let address = listener.local_addr().expect("it has an address");
        let state = Arc::new(Mutex::new(State {
            queues: BTreeMap::new(),
            denied: BTreeSet::new(),
            throttled: BTreeSet::new(),
            receipts_held: false,
            delay: Duration::ZERO,
            script: Box::new(|_| Fate::Fine),
            calls: Vec::new(),
            remember: true,
            asked: BTreeMap::new(),
            under_way: 0,
            under_way_max: 0,
            next_id: 0,
        }));
        let serving = state.clone();
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                // Answers are small: they must not wait for more.
                stream.set_nodelay(true).ok();
                let state = serving.clone();
                connections.spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let state = state.clone();
                        async move { answer(&state, request).await }
                    });
                    // A connection that we close on purpose ends with an error.
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                        .ok();
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Endpoint { address, state, _task: task }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL of a queue.
    #[must_use]
    pub fn queue_url(&self, name: &str) -> String {
        format!("{}/{ACCOUNT}/{name}", self.url())
    }

    /// Makes a queue; `.fifo` at the end of its name makes it a FIFO queue.
    pub fn queue(&self, name: &str) {
        self.queue_with(name, QueueSettings::default());
    }

    /// Makes a queue with settings of its own.
    pub fn queue_with(&self, name: &str, settings: QueueSettings) {
        self.lock().queues.insert(name.to_owned(), Queue::new(settings));
    }

    /// Deletes a queue.
    pub fn delete(&self, name: &str) {
        self.lock().queues.remove(name);
    }

    /// Refuses an action from now on, such as `GetQueueAttributes`.
    pub fn deny(&self, action: &str) {
        self.lock().denied.insert(action.to_owned());
    }

    /// Throttles an action from now on, such as `ChangeMessageVisibilityBatch`.
    pub fn throttle(&self, action: &str) {
        self.lock().throttled.insert(action.to_owned());
    }

    /// Messages are received, and the answers that hold them wait until they are let go.
    pub fn hold_receipts(&self, held: bool) {
        self.lock().receipts_held = held;
    }

    /// Messages of a queue that are hidden can be received again now.
    pub fn lapse(&self, queue: &str) {
        if let Some(queue) = self.lock().queues.get_mut(queue) {
            queue.lapse();
        }
    }

    /// How often messages of a queue were received.
    #[must_use]
    pub fn receipts(&self, queue: &str) -> u64 {
        self.lock().queues.get(queue).map_or(0, Queue::receipts)
    }

    /// How many messages of a queue are not deleted.
    #[must_use]
    pub fn left(&self, queue: &str) -> usize {
        self.lock().queues.get(queue).map_or(0, Queue::left)
    }

    /// How many messages of a queue are hidden.
    #[must_use]
    pub fn hidden(&self, queue: &str) -> usize {
        self.lock().queues.get(queue).map_or(0, Queue::hidden)
    }

    /// Puts a message into a queue.
    pub fn put(&self, queue: &str, body: &str) {
        let mut state = self.lock();
        state.next_id += 1;
        let message_id = format!("00000000-0000-0000-0000-{:012}", state.next_id);
        if let Some(queue) = state.queues.get_mut(queue) {
            queue.store(Stored { message_id, arrival: Arrival::of(&json!({ "MessageBody": body })) });
        }
    }

    /// How long each request to send is worked on.
    pub fn delay(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    /// Decides what becomes of each request to send from now on.
    pub fn script(&self, script: impl FnMut(&Call) -> Fate + Send + 'static) {
        self.lock().script = Box::new(script);
    }

    /// Forgets what it was asked and what it has, and remembers no more of it; for benchmarks.
    pub fn forget_all(&self) {
        let mut state = self.lock();
        state.remember = false;
        state.calls = Vec::new();
    }

    /// The requests to send, in the order in which they came.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// How often an action was asked for.
    #[must_use]
    pub fn asked(&self, action: &str) -> usize {
        self.lock().asked.get(action).copied().unwrap_or(0)
    }

    /// The most requests to send that were under way at once.
    #[must_use]
    pub fn under_way_max(&self) -> usize {
        self.lock().under_way_max
    }

    /// What a queue took, in its order. Empty if there is no such queue.
    #[must_use]
    pub fn stored(&self, name: &str) -> Vec<Stored> {
        self.lock().queues.get(name).map(|queue| queue.stored.clone()).unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connection is closed.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed on purpose")
    }
}

impl std::error::Error for Closed {}

impl From<Infallible> for Closed {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

async fn answer(state: &Mutex<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Closed> {
    let action =
        request.headers().get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let action = action.rsplit('.').next().unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.map_err(|_| Closed)?.to_bytes();
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    {
        let mut state = lock(state);
        *state.asked.entry(action.clone()).or_default() += 1;
        if state.denied.contains(&action) {
            let text = format!("User: test is not authorized to perform: sqs:{action}");
            return Ok(error(403, "AccessDeniedException", &text));
        }
        if state.throttled.contains(&action) {
            return Ok(error(400, "ThrottlingException", "as told"));
        }
    }
    let queue = name(asked["QueueUrl"].as_str().unwrap_or_default()).to_owned();
    match action.as_str() {
        "SendMessageBatch" => send(state, queue, &asked).await,
        "ReceiveMessage" => Ok(receive(state, &queue, &asked).await),
        "DeleteMessageBatch" | "ChangeMessageVisibilityBatch" => Ok(settle(&mut lock(state), &queue, &asked)),
        "GetQueueUrl" => {
            let queue = asked["QueueName"].as_str().unwrap_or_default();
            let there = lock(state).queues.contains_key(queue);
            let url = format!("http://endpoint/{ACCOUNT}/{queue}");
            Ok(if there { fine(&json!({ "QueueUrl": url })) } else { gone() })
        }
        "GetQueueAttributes" => {
            let state = lock(state);
            let Some(queue) = state.queues.get(&queue) else { return Ok(gone()) };
            Ok(fine(&json!({"Attributes": {
                "MaximumMessageSize": queue.settings.bytes_max.to_string(),
                "ContentBasedDeduplication": queue.settings.content_based.to_string(),
                "ApproximateNumberOfMessages": queue.stored.len().to_string(),
            }})))
        }
        "ListQueues" => {
            let prefix = asked["QueueNamePrefix"].as_str().unwrap_or_default();
            let state = lock(state);
            let names = state.queues.keys().filter(|queue| queue.starts_with(prefix));
            let urls: Vec<String> = names.map(|queue| format!("http://endpoint/{ACCOUNT}/{queue}")).collect();
            Ok(fine(&json!({ "QueueUrls": urls })))
        }
        _ => Ok(error(400, "InvalidAction", &action)),
    }
}

async fn send(state: &Mutex<State>, queue: String, asked: &Value) -> Result<Response<Full<Bytes>>, Closed> {
    let entries: Vec<Arrival> = asked["Entries"].as_array().into_iter().flatten().map(Arrival::of).collect();
    let (delay, fate, call) = {
        let mut state = lock(state);
        let call = Call { number: state.calls.len(), queue, entries };
        if state.remember {
            state.calls.push(call.clone());
        }
        state.under_way += 1;
        state.under_way_max = state.under_way_max.max(state.under_way);
        let fate = (state.script)(&call);
        (state.delay, fate, call)
    };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let answered = decide(&mut lock(state), &call, &fate);
    if let Fate::Late(late) = fate {
        tokio::time::sleep(late).await;
    }
    lock(state).under_way -= 1;
    answered
}

async fn receive(state: &Mutex<State>, queue: &str, asked: &Value) -> Response<Full<Bytes>> {
    let seconds = |name: &str| Duration::from_secs(asked[name].as_u64().unwrap_or(0));
    let max = asked["MaxNumberOfMessages"].as_u64().unwrap_or(1) as usize;
    let until = std::time::Instant::now() + seconds("WaitTimeSeconds");
    loop {
        let messages = {
            let mut state = lock(state);
            let Some(found) = state.queues.get_mut(queue) else { return gone() };
            found.receive(max, seconds("VisibilityTimeout"), queue.strip_suffix(".fifo").is_some())
        };
        if !messages.is_empty() || std::time::Instant::now() >= until {
            while !messages.is_empty() && lock(state).receipts_held {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            return fine(&json!({ "Messages": messages }));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn settle(state: &mut State, queue: &str, asked: &Value) -> Response<Full<Bytes>> {
    let is_fifo = queue.strip_suffix(".fifo").is_some();
    let Some(queue) = state.queues.get_mut(queue) else { return gone() };
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for entry in asked["Entries"].as_array().into_iter().flatten() {
        let handle = entry["ReceiptHandle"].as_str().unwrap_or_default();
        let done = match entry["VisibilityTimeout"].as_u64() {
            Some(seconds) => queue.hide(handle, Duration::from_secs(seconds)),
            None => queue.delete(handle, is_fifo),
        };
        let id = &entry["Id"];
        if done {
            successful.push(json!({ "Id": id }));
        } else {
            failed.push(
                json!({"Id": id, "Code": "ReceiptHandleIsInvalid", "SenderFault": true, "Message": handle}),
            );
        }
    }
    fine(&json!({"Successful": successful, "Failed": failed}))
}

fn decide(state: &mut State, call: &Call, fate: &Fate) -> Result<Response<Full<Bytes>>, Closed> {
    let Some(queue) = state.queues.get_mut(&call.queue) else { return Ok(gone()) };
    if let Some((name, text)) = rules::request_fault(&call.entries, &queue.settings) {
        return Ok(error(400, name, &text));
    }
    let none = BTreeMap::new();
    let faults = match fate {
        Fate::Fine | Fate::AnswerLost | Fate::Late(_) => &none,
        Fate::Faults(faults) => faults,
        Fate::Refused(status, name) => return Ok(error(*status, name, "as told")),
        Fate::Lost => return Err(Closed),
    };
    let is_fifo = call.queue.strip_suffix(".fifo").is_some();
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for (at, arrival) in call.entries.iter().enumerate() {
        let fault = faults.get(&at);
        let mut refuse = |name: &str, ours: bool, text: &str| {
            failed.push(json!({"Id": arrival.id, "Code": name, "SenderFault": ours, "Message": text}));
        };
        if let Some((name, text)) = rules::entry_fault(arrival, &queue.settings, is_fifo) {
            refuse(name, true, &text);
            continue;
        }
        match fault {
            Some(EntryFault::Sender(name)) => {
                refuse(name, true, "as told");
                continue;
            }
            Some(EntryFault::Server(name)) => {
                refuse(name, false, "as told");
                continue;
            }
            Some(EntryFault::WrongDigest | EntryFault::Unanswered) | None => {}
        }
        let id = take(queue, arrival, is_fifo, state.remember, &mut state.next_id);
        if fault == Some(&EntryFault::Unanswered) {
            continue;
        }
        let digest = match fault {
            Some(EntryFault::WrongDigest) => "00000000000000000000000000000000".to_owned(),
            _ => rules::body_digest(arrival),
        };
        let mut entry = json!({"Id": arrival.id, "MessageId": id, "MD5OfMessageBody": digest});
        if let Some(digest) = rules::attributes_digest(arrival) {
            entry["MD5OfMessageAttributes"] = json!(digest);
        }
        if is_fifo {
            entry["SequenceNumber"] = json!(format!("{:020}", state.next_id));
        }
        successful.push(entry);
    }
    if *fate == Fate::AnswerLost {
        return Err(Closed);
    }
    Ok(fine(&json!({"Successful": successful, "Failed": failed})))
}

/// Stores a message, unless a FIFO queue has it already; its id.
fn take(queue: &mut Queue, arrival: &Arrival, is_fifo: bool, remember: bool, next_id: &mut u64) -> String {
    let deduplication = match (&arrival.deduplication, queue.settings.content_based) {
        (Some(id), _) => Some(id.clone()),
        (None, true) => Some(rules::body_digest(arrival)),
        (None, false) => None,
    };
    if let Some(seen) = deduplication.as_ref().and_then(|id| queue.seen.get(id)) {
        return seen.clone();
    }
    *next_id += 1;
    let message_id = format!("00000000-0000-0000-0000-{next_id:012}");
    if remember {
        if let (true, Some(id)) = (is_fifo, deduplication) {
            queue.seen.insert(id, message_id.clone());
        }
        queue.store(Stored { message_id: message_id.clone(), arrival: arrival.clone() });
    }
    message_id
}

fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or_default()
}

fn fine(body: &Value) -> Response<Full<Bytes>> {
    respond(StatusCode::OK, body)
}

fn gone() -> Response<Full<Bytes>> {
    error(400, "AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist.")
}

fn error(status: u16, name: &str, text: &str) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // The shape's own name has no prefix.
    let shape = name.rsplit('.').next().unwrap_or(name);
    let shape = if shape == "NonExistentQueue" { "QueueDoesNotExist" } else { shape };
    let mut response =
        respond(status, &json!({"__type": format!("com.amazonaws.sqs#{shape}"), "message": text}));
    if let Ok(value) = format!("{name};Sender").parse() {
        response.headers_mut().insert("x-amzn-query-error", value);
    }
    response
}

fn respond(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("content-type", hyper::header::HeaderValue::from_static("application/x-amz-json-1.0"));
    headers.insert("x-amzn-requestid", hyper::header::HeaderValue::from_static("request-1"));
    response
}
