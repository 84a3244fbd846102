//! Messages through an `http` step while the receiver fails, hangs, resets and lies, the broker is restarted and the process
//! killed: nothing is lost, and the record explains every request that the receiver saw.
//!
//! The seed is printed; `WARREN_SEED` gives it back, as far as the machine repeats itself. `WARREN_CHAOS_MESSAGES` has another number of
//! messages sent, with all kills and restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};
use tempfile::TempDir;
use warren_connectors::kit::setting::Secret;
use warren_connectors::rabbitmq::{Config, Rabbit};
use warren_engine::message::{Message, Outbound, Properties, Receipt, Route};
use warren_engine::ports::Broker as _;
use warren_testkit::rabbit::{Broker, Vhost};
use warren_testkit::receiver::{Answer, Call, Receiver};
use warren_testkit::soak;
use warren_testkit::wait::{pause, wait_until};

use super::ledger::{Kind, Ledger, Seen};
use crate::program::{Program, Running};

const CONCURRENCY: u64 = 32;
/// Tries within one attempt: the first, and those in place.
const TRIES: u64 = 2;
/// The pauses between attempts.
const DELAYS: &str = "[100ms, 200ms, 500ms, 500ms, 1s, 1s, 1s]";
/// Each fiftieth message is refused for good.
const REFUSED: usize = 50;

fn id(at: usize) -> String {
    format!("m{at}")
}

fn body(id: &str) -> String {
    format!("{{\"id\":\"{id}\",\"filling\":\"{}\"}}", "x".repeat(200))
}

/// What the receiver saw, in order.
type Log = Arc<Mutex<Vec<Seen>>>;

fn receiver(seed: u64, log: &Log) -> Receiver {
    let (random, log) = (Mutex::new(Rng::with_seed(seed)), log.clone());
    Receiver::start(move |call: &Call| {
        let document: Value = serde_json::from_slice(&call.body).unwrap();
        let message = document["id"].as_str().unwrap().to_owned();
        let at: usize = message[1..].parse().unwrap();
        let roll = random.lock().unwrap().u32(..1000);
        let (answer, kind) = match roll {
            _ if at.is_multiple_of(REFUSED) => (Answer::status(422), Kind::Refused),
            0..20 => (Answer::status(500), Kind::Failed),
            20..30 => (Answer::Status(503, "retry-after: 1\r\n", "later".to_owned()), Kind::Failed),
            30..40 => (Answer::Hang(Duration::from_millis(1500)), Kind::Failed),
            40..60 => (Answer::Reset, Kind::Failed),
            60..70 => (Answer::Close, Kind::Lied),
            70..80 => (Answer::Short, Kind::Lied),
            80..90 => (Answer::Noise, Kind::Lied),
            90..110 => (Answer::Status(500, "", "done, and says it is not".to_owned()), Kind::Lied),
            _ => (Answer::Status(200, "", format!("{{\"number\":{}}}", call.number)), Kind::Done),
        };
        log.lock().unwrap().push(Seen { message, attempt: document["attempt"].as_u64().unwrap(), kind });
        answer
    })
}

fn program(folder: &TempDir, vhost: &Vhost, receiver: &Receiver) -> Program {
    let (url, management, receiver) = (vhost.url(), vhost.management().url(), receiver.url());
    let config = format!(
        "brokers:\n  mq: {{type: rabbitmq, url: \"{url}\", management_url: \"{management}\", publish_timeout: 3s}}\n\
         http: {{listen: \"127.0.0.1:0\"}}\n\
         state: {{folder: state, shutdown_grace: 10s, record: {{bodies: false, size: 10GiB}}}}\n\
         triggers:\n  orders:\n    from: mq\n    queue: in\n    dead_letter: {{queue: dead}}\n    concurrency: {CONCURRENCY}\n\
         \x20   max_timeout: 5s\n    retry: {{in_place: [20ms], delays: {DELAYS}}}\n\
         \x20   pipeline:\n      - http:\n          url: \"{receiver}/take\"\n          timeout: 1s\n\
         \x20         body: '{{id: .properties.messageId, attempt: .envelope.attempt}}'\n"
    );
    Program::configured(folder.path(), &config)
}

/// Publishes all of them; what is not confirmed is published again.
fn publish(vhost: &Vhost, messages: usize) -> BTreeSet<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { url: Some(Secret::new(vhost.url())), ..Config::default() };
    let rabbit = Rabbit::new("rabbit", &config).unwrap();
    let outbound = |id: &str| {
        let properties = Properties { message_id: Some(id.to_owned()), ..Properties::default() };
        Outbound { route: Route::Queue("in".into()), message: Message { body: body(id).into(), properties } }
    };
    let ids: Vec<String> = (0..messages).map(id).collect();
    for chunk in ids.chunks(500) {
        let mut batch: Vec<Outbound> = chunk.iter().map(|id| outbound(id)).collect();
        while !batch.is_empty() {
            let receipts = runtime.block_on(rabbit.publish(&batch));
            let left = batch.into_iter().zip(receipts);
            batch = left
                .filter(|(_, receipt)| !matches!(receipt, Receipt::Accepted(_)))
                .map(|(outbound, _)| outbound)
                .collect();
        }
    }
    runtime.block_on(rabbit.close());
    ids.into_iter().collect()
}

/// What happens, and after how many requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Kill,
    Restart,
}

fn events(random: &mut Rng, messages: u64, kills: usize, restarts: usize) -> Vec<(u64, Event)> {
    let mut events: Vec<(u64, Event)> = Vec::new();
    for (count, event) in [(kills, Event::Kill), (restarts, Event::Restart)] {
        // One in each part of the way, so that they do not all fall together.
        let part = messages / count as u64;
        events.extend((0..count as u64).map(|at| (at * part + random.u64(..part.max(1)), event)));
    }
    events.sort_by_key(|(at, _)| *at);
    events
}

/// The dead letters: the class of each by its message's id. What was there twice is checked twice.
fn dead_letters(vhost: &Vhost, dead: &mut BTreeMap<String, String>) {
    loop {
        let taken = vhost.take("dead", 500);
        if taken.is_empty() {
            return;
        }
        for letter in taken {
            let id = letter.properties["message_id"].as_str().unwrap().to_owned();
            assert_eq!(String::from_utf8(letter.body).unwrap(), body(&id), "a dead letter is what was sent");
            let class = letter.properties["headers"]["x-warren-class"].as_str().unwrap();
            dead.insert(id, class.to_owned());
        }
    }
}

/// Messages in all queues of ours but the dead letters.
fn under_way(vhost: &Vhost) -> u64 {
    let queues = vhost.management().request("GET", &format!("/api/queues/{}", vhost.name()), &Value::Null);
    let queues = queues.as_array().unwrap().iter().filter(|queue| queue["name"] != "dead");
    queues.map(|queue| queue["messages"].as_u64().unwrap_or(0)).sum()
}

/// How long requests are counted to know their rate.
const WINDOW: Duration = Duration::from_millis(250);
/// How long half of the rate may take after the broker answers again; the goal is five seconds, on a machine with nothing else to do.
const RECOVERY_MAX: Duration = Duration::from_secs(15);

fn requests_within(receiver: &Receiver, window: Duration) -> u64 {
    let before = receiver.seen();
    pause("requests are counted", window);
    receiver.seen() - before
}

/// How long it takes until half of the rate is reached, or nothing is left to be done.
fn recovery(receiver: &Receiver, before: u64, messages: u64) -> Duration {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(300) && receiver.seen() < messages {
        if requests_within(receiver, WINDOW) * 2 >= before {
            break;
        }
    }
    began.elapsed()
}

struct Storm {
    messages: usize,
    kills: usize,
    restarts: usize,
}

impl Storm {
    fn new() -> Storm {
        let few = std::env::var("WARREN_CHAOS_MESSAGES").ok().map(|count| count.parse().unwrap());
        match (few, soak()) {
            (Some(messages), _) => Storm { messages, kills: 20, restarts: 5 },
            (None, true) => Storm { messages: 200_000, kills: 20, restarts: 5 },
            (None, false) => Storm { messages: 3_000, kills: 3, restarts: 1 },
        }
    }
}

#[test]
fn nothing_is_lost_and_every_request_is_explained() {
    let storm = Storm::new();
    let began = Instant::now();
    let passed = |what: &str| println!("{:>6.1} s: {what}", began.elapsed().as_secs_f64());
    let seed = std::env::var("WARREN_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let broker = Broker::start();
    let vhost = broker.vhost();
    vhost.queue_with("in", &json!({"x-queue-type": "quorum"}));
    let log = Log::default();
    let receiver = receiver(random.u64(..), &log);
    let folder = tempfile::tempdir().unwrap();
    let program = program(&folder, &vhost, &receiver);
    let sent = publish(&vhost, storm.messages);
    passed("all are published");

    let mut serving = program.start(&["serve"]);
    for (after, event) in events(&mut random, storm.messages as u64, storm.kills, storm.restarts) {
        wait_until(&format!("{after} requests came"), Duration::from_secs(600), || {
            assert!(!serving.is_over(), "it ended by itself: {:#?}", serving.end());
            receiver.seen() >= after
        });
        pause("a moment at random", Duration::from_millis(random.u64(..50)));
        passed(&format!("{event:?} after {} requests", receiver.seen()));
        match event {
            Event::Kill => {
                serving.kill();
                serving = program.start(&["serve"]);
            }
            Event::Restart => {
                // Not killed: RabbitMQ 3.10 notes where the log of a new quorum queue lies only after some time. Killed before that, it has
                // the queue afterwards with nothing in it, what it had confirmed included, and no consumer can do anything about that.
                let before = requests_within(&receiver, WINDOW);
                broker.stop();
                broker.start_again();
                let recovered = recovery(&receiver, before, storm.messages as u64);
                passed(&format!("half of {before} requests in {WINDOW:?} again after {recovered:?}"));
                assert!(recovered < RECOVERY_MAX, "consuming stood for {recovered:?} after a restart");
            }
        }
    }
    let mut dead = BTreeMap::new();
    finish(&mut serving, &vhost, &sent, &log, &mut dead);
    passed("every message ended");
    let ended = stop(serving);
    assert_eq!(ended, Some(0));
    assert_eq!(under_way(&vhost), 0, "a queue is not empty");
    let attempts = program.documents(&["runs", "--trigger", "orders", "--limit", "100000000"], 0);
    passed("the record is read");
    account(&storm, &sent, &dead, &Ledger::of(&log.lock().unwrap(), &attempts));
}

/// How old the broker's figures of a quorum queue may be is five seconds; the longest delay is well below.
const QUIET: Duration = Duration::from_secs(8);

/// Waits until each message is done or dead-lettered, and nothing has moved for a while: a receiver that lies is asked again.
fn finish(
    serving: &mut Running,
    vhost: &Vhost,
    sent: &BTreeSet<String>,
    log: &Log,
    dead: &mut BTreeMap<String, String>,
) {
    let (mut requests, mut since) = (0, Instant::now());
    wait_until("every message ended", Duration::from_secs(900), || {
        assert!(!serving.is_over(), "it ended by itself: {:#?}", serving.end());
        let now = log.lock().unwrap().len();
        if now > requests || under_way(vhost) > 0 {
            (requests, since) = (now, Instant::now());
            return false;
        }
        if since.elapsed() < QUIET {
            return false;
        }
        dead_letters(vhost, dead);
        let done: BTreeSet<String> = {
            let log = log.lock().unwrap();
            let done = log.iter().filter(|seen| matches!(seen.kind, Kind::Done | Kind::Lied));
            done.map(|seen| seen.message.clone()).collect()
        };
        sent.iter().all(|id| done.contains(id) || dead.contains_key(id))
    });
}

fn stop(mut serving: Running) -> Option<i32> {
    serving.signal("TERM");
    serving.end_within(Duration::from_secs(60)).code
}

fn account(storm: &Storm, sent: &BTreeSet<String>, dead: &BTreeMap<String, String>, ledger: &Ledger) {
    let requests = ledger.sum(|account| account.seen.values().map(|seen| seen.len() as u64).sum());
    let twice = ledger.sum(|account| {
        let done = account.seen.values().flatten().filter(|kind| **kind == Kind::Done).count() as u64;
        done.saturating_sub(1)
    });
    let (unknown, invented) =
        (ledger.sum(super::ledger::Account::unknown), ledger.sum(super::ledger::Account::invented));
    println!(
        "{} messages, {requests} requests, {} killed, {} restarted",
        sent.len(),
        storm.kills,
        storm.restarts
    );
    println!("attempts on record {:?}, dead letters {}", ledger.statuses, dead.len());
    println!("done and told more than once {twice}, requests of attempts that died {unknown}");

    let lost = ledger.lost(sent, dead);
    assert_eq!(lost, Vec::<&String>::new(), "lost");
    let stray: Vec<&String> = ledger.accounts.keys().filter(|id| !sent.contains(*id)).collect();
    assert_eq!(stray, Vec::<&String>::new(), "never sent");
    let untold: Vec<_> = ledger.untold(sent).into_iter().map(|id| (id, ledger.accounts.get(id))).collect();
    assert!(untold.is_empty(), "their end is not on record: {untold:#?}");
    assert_eq!(invented, 0, "the record tells of successes that were none");
    for id in sent {
        let refused = id[1..].parse::<usize>().unwrap().is_multiple_of(REFUSED);
        assert_eq!(dead.get(id).map(String::as_str) == Some("rejected"), refused, "{id}: {:?}", dead.get(id));
    }
    // A kill leaves at most what was being handled unrecorded; each of these was one attempt with its tries in place.
    let at_once = storm.kills as u64 * CONCURRENCY;
    assert!(unknown <= at_once * TRIES, "{unknown} requests are on no record");
    // A message comes twice after a kill, after a restart (acks on their way are lost), and where its copy and itself are
    // there; what was answered after its channel died is on record as late.
    let copies = 2 * (at_once + storm.restarts as u64 * CONCURRENCY) + ledger.status("late");
    assert!(twice <= copies, "{twice} were done again");
}
