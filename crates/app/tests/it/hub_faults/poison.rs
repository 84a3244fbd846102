//! Hole 6 of RabbitHub (reference, 6.1 and 3.8): whoever could publish to a subscribed queue, delete one, or fail often enough stopped every
//! subscription of a node. Here everything that stopped them happens at once, on the real process and a real RabbitMQ: the others go
//! on undisturbed, and what was poisoned recovers by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use warren_testkit::rabbit::{self, Vhost};
use warren_testkit::receiver::{Answer, Call, Receiver};
use warren_testkit::wait::wait_until;

use super::world::{Hub, Publishers, SOON, World};

/// More than the ten failures in ten seconds that RabbitHub bore, all subscriptions together.
const POISONED: usize = 30;
/// Queues that go at once: RabbitHub bore ten.
const MANY: usize = 12;

/// What each path is answered with, and what it heard.
#[derive(Default)]
struct Paths {
    answers: BTreeMap<String, Answer>,
    asked: BTreeMap<String, usize>,
    taken: BTreeMap<String, BTreeSet<String>>,
}

type Shared = Arc<Mutex<Paths>>;

fn receiver(paths: &Shared) -> Receiver {
    let paths = paths.clone();
    Receiver::start(move |call: &Call| {
        let (path, query) = call.path.split_once('?').unwrap_or((&call.path, ""));
        let challenge = query.split('&').find_map(|pair| pair.strip_prefix("hub.challenge="));
        if let Some(challenge) = challenge {
            return Answer::Status(200, "", challenge.to_owned());
        }
        let mut paths = paths.lock().unwrap();
        *paths.asked.entry(path.to_owned()).or_default() += 1;
        let answer = paths.answers.get(path).cloned().unwrap_or(Answer::ok());
        if answer == Answer::ok() {
            let body = String::from_utf8_lossy(&call.body).into_owned();
            paths.taken.entry(path.to_owned()).or_default().insert(body);
        }
        answer
    })
}

/// The ways in which a receiver fails.
fn failing() -> Vec<(&'static str, Answer)> {
    vec![
        ("hangs", Answer::Hang(Duration::from_secs(600))),
        ("resets", Answer::Reset),
        ("closes", Answer::Close),
        ("noise", Answer::Noise),
        ("fails", Answer::status(500)),
        ("busy", Answer::Status(503, "retry-after: 1\r\n", String::new())),
        ("rejects", Answer::status(422)),
        ("redirects", Answer::Status(303, "location: /elsewhere\r\n", String::new())),
    ]
}

/// Messages that made RabbitHub's consumer crash, and others that try to.
fn poison() -> Vec<(&'static str, Value)> {
    let died = |reason: &str| json!([{"reason": reason, "count": 3, "queue": "other", "exchange": "", "routing-keys": ["other"]}]);
    vec![
        ("a number", json!({"headers": {"n": 1}})),
        ("a table", json!({"headers": {"t": {"a": [1, 2.5, true, {"b": "c"}]}}})),
        ("expired", json!({"headers": {"x-death": died("expired")}})),
        ("maxlen", json!({"headers": {"x-death": died("maxlen")}})),
        ("no death at all", json!({"headers": {"x-death": []}})),
        ("a death that is none", json!({"headers": {"x-death": "rejected"}})),
        ("a line in a header", json!({"headers": {"x-a": "b\r\nx-evil: 1", "é": "ü"}})),
        ("a line in the type", json!({"content_type": "a/b\r\nx-evil: 1"})),
        ("odd ids", json!({"message_id": "é\r\nx", "correlation_id": "\u{0}"})),
        ("a long header", json!({"headers": {"long": "x".repeat(20_000)}})),
        (
            "a flood of headers",
            json!({"headers": (0..500).map(|at| (format!("h{at}"), json!("x"))).collect::<serde_json::Map<_, _>>()}),
        ),
    ]
}

struct Stage {
    vhost: Vhost,
    paths: Shared,
    receiver: Receiver,
    /// Callbacks with their topics.
    subscribed: Vec<(String, String)>,
}

impl Stage {
    fn new() -> Stage {
        let (vhost, paths) = (rabbit::vhost(), Shared::default());
        let receiver = receiver(&paths);
        Stage { vhost, paths, receiver, subscribed: Vec::new() }
    }

    fn subscribe(&mut self, hub: &Hub, resource: &str, name: &str) {
        let callback = format!("{}/{name}", self.receiver.url());
        assert_eq!(hub.subscribe(self.vhost.name(), resource, "any", &callback), Some(204), "{name}");
        self.subscribed.push((callback, "any".to_owned()));
    }

    /// A queue with a subscription of the same name.
    fn queue(&mut self, hub: &Hub, name: &str) {
        self.vhost.queue(name);
        self.subscribe(hub, &format!("q/{name}"), name);
    }

    fn publish(&self, queue: &str, bodies: impl IntoIterator<Item = String>) {
        for body in bodies {
            assert!(self.vhost.publish("", queue, body.as_bytes(), &json!({"delivery_mode": 2})), "{queue}");
        }
    }

    fn path(&self, path: &str) -> String {
        format!("/{}/endpoint/{path}", self.vhost.name())
    }

    fn asked(&self, name: &str) -> usize {
        self.paths.lock().unwrap().asked.get(&format!("/{name}")).copied().unwrap_or(0)
    }

    fn taken(&self, name: &str) -> BTreeSet<String> {
        self.paths.lock().unwrap().taken.get(&format!("/{name}")).cloned().unwrap_or_default()
    }

    /// Waits until a receiver took all of these.
    fn takes(&self, name: &str, bodies: &BTreeSet<String>) {
        wait_until(&format!("{name} takes what is its"), SOON, || bodies.is_subset(&self.taken(name)));
    }

    /// All that the well-behaved ones took.
    fn good(&self) -> BTreeSet<String> {
        GOOD.iter().flat_map(|name| self.taken(name)).collect()
    }

    /// None is forgotten or ended. One whose queue is away waits for it; all others are active, once a process that was just started consumes.
    fn all_active(&self, hub: &Hub) {
        wait_until("all are active", SOON, || {
            let known = hub.subscriptions();
            assert_eq!(known.len(), self.subscribed.len(), "{known:?}");
            self.subscribed.iter().all(|subscription| match known.get(subscription).map(String::as_str) {
                Some("active") => true,
                Some("waiting") => AWAY.iter().any(|name| subscription.0.contains(name)),
                _ => panic!("{subscription:?} ended: {known:?}"),
            })
        });
    }
}

/// Those whose queues are deleted meanwhile.
const AWAY: [&str; 4] = ["/deleted", "/flaps", "/many-", "/missing"];
const GOOD: [&str; 3] = ["good-a", "good-b", "good-x"];

fn numbered(name: &str, count: usize) -> BTreeSet<String> {
    (0..count).map(|number| format!("{name} {number}")).collect()
}

/// `asked`: how often each failing receiver has to have been asked before it counts as poisoned. `rejected`: whether what a receiver
/// rejects goes to the dead letters, and is not tried again.
fn poisoned(keys: &str, asked: usize, rejected: bool) {
    let mut stage = Stage::new();
    let keys = format!("http_request_options: {{timeout: 2s}}\n{keys}");
    let world = World::rabbit(&stage.vhost.url(), stage.vhost.name(), &keys);
    let mut hub = world.start();
    for name in &GOOD[..2] {
        stage.queue(&hub, name);
    }
    stage.vhost.exchange("events", "fanout");
    stage.subscribe(&hub, "x/events", GOOD[2]);
    let many: Vec<String> = (0..MANY).map(|at| format!("many-{at}")).collect();
    let queues = ["poison", "deleted", "flaps", "missing"]
        .into_iter()
        .chain(failing().into_iter().map(|(name, _)| name));
    for name in queues.map(str::to_owned).chain(many.iter().cloned()) {
        stage.queue(&hub, &name);
    }
    let paths = [stage.path("q/good-a"), stage.path("q/good-b"), stage.path("x/events")];
    let publishers = Publishers::start(&hub, 2, "good", &paths);
    wait_until("the good ones are published to", SOON, || publishers.count() > 20);

    // Everything at once.
    stage.paths.lock().unwrap().answers =
        failing().into_iter().map(|(name, answer)| (format!("/{name}"), answer)).collect();
    for (name, _) in failing() {
        stage.publish(name, numbered(name, POISONED));
    }
    for (body, properties) in poison() {
        assert!(stage.vhost.publish("", "poison", body.as_bytes(), &properties), "{body}");
    }
    stage.vhost.delete_queue("deleted");
    for name in &many {
        stage.vhost.delete_queue(name);
    }
    for _ in 0..MANY {
        stage.vhost.delete_queue("flaps");
        stage.vhost.queue("flaps");
    }
    for (name, _) in failing() {
        wait_until(&format!("{name} is poisoned"), SOON, || stage.asked(name) >= asked);
    }
    // What crashed RabbitHub's consumer is delivered.
    stage.takes("poison", &poison().into_iter().map(|(body, _)| body.to_owned()).collect());

    // The others go on as if nothing were.
    let before = publishers.count();
    wait_until("publishing goes on", SOON, || publishers.count() > before + 50);
    let accepted: BTreeSet<String> = publishers.stop().into_iter().collect();
    wait_until("the good ones take all", SOON, || accepted.is_subset(&stage.good()));
    stage.all_active(&hub);

    // A process that is started while all that lasts goes on with the good ones too, and forgets none. RabbitHub deleted
    // subscriptions whose queue was away at that moment.
    stage.vhost.delete_queue("missing");
    hub.running.kill();
    let hub = world.start();
    stage.all_active(&hub);
    let again = Publishers::start(&hub, 1, "again", &paths);
    wait_until("the good ones are published to", SOON, || again.count() > 50);
    let accepted: BTreeSet<String> = again.stop().into_iter().collect();
    wait_until("the good ones take all", SOON, || accepted.is_subset(&stage.good()));

    // What was poisoned recovers by itself.
    stage.paths.lock().unwrap().answers.clear();
    for name in ["deleted", "missing"].into_iter().chain(many.iter().map(String::as_str)) {
        stage.vhost.queue(name);
        stage.publish(name, [format!("{name} is back")]);
    }
    stage.publish("flaps", ["flaps is back".to_owned()]);
    for name in ["deleted", "missing", "flaps"].into_iter().chain(many.iter().map(String::as_str)) {
        stage.takes(name, &BTreeSet::from([format!("{name} is back")]));
    }
    let mut dead = 0;
    for (name, answer) in failing() {
        let all = numbered(name, POISONED);
        // These statuses are final here.
        if rejected && matches!(answer, Answer::Status(303 | 422, ..)) {
            dead += POISONED as u64;
            stage.publish(name, [format!("{name} is well")]);
            stage.takes(name, &BTreeSet::from([format!("{name} is well")]));
        } else {
            stage.takes(name, &all);
        }
    }
    if dead > 0 {
        // The pause of a subscription keeps it from rejecting its whole queue: what was not rejected by then is delivered.
        wait_until("each message is a dead letter or delivered", SOON, || {
            let delivered =
                |name: &str| numbered(name, POISONED).intersection(&stage.taken(name)).count() as u64;
            stage.vhost.depth("warren.hub.dead") + delivered("rejects") + delivered("redirects") == dead
        });
    }
    stage.all_active(&hub);
    let consuming = || hub.readiness().and_then(|ready| ready["hub"]["consuming"].as_u64());
    wait_until("all are consumed", SOON, || consuming() == Some(stage.subscribed.len() as u64));
    // Nothing is left in a queue of those that are well.
    for name in GOOD[..2].iter().copied().chain(["poison"]) {
        stage.vhost.wait_for_depth(name, 0, SOON);
    }
}

#[test]
fn hole_6_whatever_happens_to_one_subscription_stops_no_other() {
    poisoned("final_statuses: [303, 422]", 10, true);
}

#[test]
fn hole_6_whatever_happens_to_one_subscription_stops_no_other_as_rabbithub_had_it() {
    poisoned("compat: rabbithub\nunsubscribe_on_http_post_error: false", 3, false);
}
