//! Each outcome, and the process killed at each point on the way to it: before the handler, in it, before the copy reaches the
//! broker, before its confirm comes back, before the acknowledgement (or the rejection) reaches the broker.
//!
//! Then it is started again. What the receiver is asked, what is in the queues and what is on record follows from the point alone:
//! nothing is lost, and twice there is what was there already and could not be told to the broker.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use warren_testkit::rabbit::{self, Gate, Vhost};
use warren_testkit::receiver::{Answer, Receiver};
use warren_testkit::wait::{pause, wait_until};

use crate::serve::served::{SOON, Served};

/// A point that the process dies at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Point {
    /// It is here and not yet begun: it waits for the one before it.
    BeforeHandler,
    InHandler,
    At(rabbit::Point),
}

const COPY: Point = Point::At(rabbit::Point::Publish);
const CONFIRM: Point = Point::At(rabbit::Point::Confirm);
const ACK: Point = Point::At(rabbit::Point::Ack);
const REJECT: Point = Point::At(rabbit::Point::Reject);

/// How a message ends: its body.
const OK: &str = "ok";
const RETRY: &str = "retry";
const GIVEN_UP: &str = "given up";
const FILTERED: &str = "filtered";

/// What there is at the end.
#[derive(Debug, PartialEq, Eq)]
struct End {
    /// The attempts that the receiver was asked in.
    asked: Vec<u64>,
    /// What was published by the pipeline, and dead letters.
    out: usize,
    dead: usize,
    /// The attempts on record.
    record: Vec<String>,
}

fn end(asked: &[u64], out: usize, dead: usize, record: &[&str]) -> End {
    End { asked: asked.to_vec(), out, dead, record: record.iter().map(|&status| status.to_owned()).collect() }
}

/// What the receiver was asked, and whether it holds what it is asked.
#[derive(Default)]
struct Asked {
    calls: Vec<(String, u64)>,
    holds: bool,
}

fn receiver(asked: &Arc<Mutex<Asked>>) -> Receiver {
    let asked = asked.clone();
    Receiver::start(move |call| {
        let document: Value = serde_json::from_slice(&call.body).unwrap();
        let of = (document["body"].as_str().unwrap().to_owned(), document["attempt"].as_u64().unwrap());
        let holds = {
            let mut asked = asked.lock().unwrap();
            asked.calls.push(of);
            asked.holds
        };
        // Whoever asked is killed meanwhile.
        if holds { Answer::Hang(Duration::from_secs(120)) } else { Answer::ok() }
    })
}

fn served(vhost: &Vhost, gate: &Gate, receiver: &Receiver, keys: &str) -> Served {
    let (url, management, receiver) = (gate.url(&vhost.url()), vhost.management().url(), receiver.url());
    let pipeline = format!(
        "pipelines:\n  work:\n    - http: {{url: \"{receiver}\", body: '{{body, attempt: .envelope.attempt}}'}}\n    - choose:\n\
         \x20       - when: '$message.body == \"{FILTERED}\"'\n          steps: [{{filter: 'false'}}]\n\
         \x20       - when: '$message.body == \"{GIVEN_UP}\"'\n          steps: [{{fail: {{reason: no, as: reject}}}}]\n\
         \x20       - when: '$message.body == \"{RETRY}\" and $message.envelope.attempt == 1'\n          steps: [{{fail: {{reason: later, as: retry}}}}]\n\
         \x20       - otherwise: [{{publish: {{to: mq, queue: out, body: $message.body}}}}]\n"
    );
    let broker = format!("{{type: rabbitmq, url: \"{url}\", management_url: \"{management}\"}}");
    let retry = if keys.contains("retry:") { "" } else { "retry: {delays: [300ms, 300ms]}\n" };
    Served::with_pipeline(&broker, &format!("{retry}{keys}"), &pipeline)
}

/// Kills the process at a point of a message's way, starts it again, and says what there is when all is over.
fn killed(outcome: &str, point: Point, keys: &str, expected: &End) {
    let vhost = rabbit::vhost();
    let dead_letters = json!({"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"});
    vhost.queue_with("in", &if keys.contains("broker") { dead_letters } else { json!({}) });
    vhost.queue("out");
    vhost.queue("dead");
    let (gate, asked) = (Gate::before(&vhost.url()), Arc::<Mutex<Asked>>::default());
    let receiver = receiver(&asked);
    let ordering = if point == Point::BeforeHandler { "ordering: queue\n" } else { "" };
    let served = served(&vhost, &gate, &receiver, &format!("{ordering}{keys}"));
    let publish = |body: &str| {
        assert!(vhost.publish("", "in", body.as_bytes(), &json!({"message_id": body, "delivery_mode": 2})));
    };

    let mut serving = served.consume();
    match point {
        Point::BeforeHandler => {
            asked.lock().unwrap().holds = true;
            publish("first");
            wait_until("the first is handled", SOON, || !asked.lock().unwrap().calls.is_empty());
            publish(outcome);
            serving.wait_for_number("warren_messages_received_total{trigger=\"orders\"}", 2.0);
        }
        Point::InHandler => {
            asked.lock().unwrap().holds = true;
            publish(outcome);
            wait_until("it is handled", SOON, || !asked.lock().unwrap().calls.is_empty());
        }
        Point::At(frame) => {
            gate.close_at(frame);
            publish(outcome);
            gate.wait(SOON);
        }
    }
    serving.running.kill();
    gate.open();
    asked.lock().unwrap().holds = false;

    let serving = served.consume();
    let look = || End {
        asked: {
            let asked = asked.lock().unwrap();
            let mut attempts: Vec<u64> =
                asked.calls.iter().filter(|(body, _)| body == outcome).map(|(_, attempt)| *attempt).collect();
            attempts.sort_unstable();
            attempts
        },
        out: vhost.peek("out", 10).iter().filter(|message| message.body == outcome.as_bytes()).count(),
        dead: vhost.peek("dead", 10).len(),
        record: served.statuses(outcome),
    };
    let mut found = look();
    let began = std::time::Instant::now();
    while found != *expected && began.elapsed() < SOON {
        pause("between two looks", Duration::from_millis(100));
        found = look();
    }
    assert_eq!(found, *expected);
    vhost.wait_for_depth("in", 0, SOON);
    assert_eq!(serving.stop().code, Some(0));
    assert_eq!(look(), *expected, "and nothing came after it");
}

#[test]
fn done_and_killed_before_the_handler() {
    killed(OK, Point::BeforeHandler, "", &end(&[1], 1, 0, &["ok"]));
}

#[test]
fn done_and_killed_in_the_handler() {
    killed(OK, Point::InHandler, "", &end(&[1, 1], 1, 0, &["ok"]));
}

#[test]
fn done_and_killed_before_what_it_publishes_is_there() {
    killed(OK, COPY, "", &end(&[1, 1], 1, 0, &["ok"]));
}

#[test]
fn done_and_killed_before_what_it_publishes_is_confirmed() {
    killed(OK, CONFIRM, "", &end(&[1, 1], 2, 0, &["ok"]));
}

#[test]
fn done_and_killed_before_the_ack() {
    killed(OK, ACK, "", &end(&[1, 1], 2, 0, &["ok", "ok"]));
}

#[test]
fn filtered_and_killed_before_the_handler() {
    killed(FILTERED, Point::BeforeHandler, "", &end(&[1], 0, 0, &["ok"]));
}

#[test]
fn filtered_and_killed_in_the_handler() {
    killed(FILTERED, Point::InHandler, "", &end(&[1, 1], 0, 0, &["ok"]));
}

#[test]
fn filtered_and_killed_before_the_ack() {
    killed(FILTERED, ACK, "", &end(&[1, 1], 0, 0, &["ok", "ok"]));
}

#[test]
fn to_be_tried_again_and_killed_before_the_handler() {
    killed(RETRY, Point::BeforeHandler, "", &end(&[1, 2], 1, 0, &["retried", "ok"]));
}

#[test]
fn to_be_tried_again_and_killed_in_the_handler() {
    killed(RETRY, Point::InHandler, "", &end(&[1, 1, 2], 1, 0, &["retried", "ok"]));
}

#[test]
fn to_be_tried_again_and_killed_before_the_copy_is_there() {
    killed(RETRY, COPY, "", &end(&[1, 1, 2], 1, 0, &["retried", "retried", "ok"]));
}

#[test]
fn to_be_tried_again_and_killed_before_the_copy_is_confirmed() {
    killed(RETRY, CONFIRM, "", &end(&[1, 1, 2, 2], 2, 0, &["retried", "retried", "ok", "ok"]));
}

#[test]
fn to_be_tried_again_and_killed_before_the_ack() {
    killed(RETRY, ACK, "", &end(&[1, 1, 2, 2], 2, 0, &["retried", "retried", "ok", "ok"]));
}

/// The parking lot has no confirm: what is parked is on disk before the ack is sent.
#[test]
fn to_be_parked_and_killed_before_the_ack() {
    killed(
        RETRY,
        ACK,
        "retry: {delays: [300ms, 300ms], mode: parking}",
        &end(&[1, 1, 2, 2], 2, 0, &["retried", "retried", "ok", "ok"]),
    );
}

#[test]
fn given_up_and_killed_before_the_handler() {
    killed(GIVEN_UP, Point::BeforeHandler, "", &end(&[1], 0, 1, &["dead_lettered"]));
}

#[test]
fn given_up_and_killed_in_the_handler() {
    killed(GIVEN_UP, Point::InHandler, "", &end(&[1, 1], 0, 1, &["dead_lettered"]));
}

#[test]
fn given_up_and_killed_before_the_dead_letter_is_there() {
    killed(GIVEN_UP, COPY, "", &end(&[1, 1], 0, 1, &["dead_lettered", "dead_lettered"]));
}

#[test]
fn given_up_and_killed_before_the_dead_letter_is_confirmed() {
    killed(GIVEN_UP, CONFIRM, "", &end(&[1, 1], 0, 2, &["dead_lettered", "dead_lettered"]));
}

#[test]
fn given_up_and_killed_before_the_ack() {
    killed(GIVEN_UP, ACK, "", &end(&[1, 1], 0, 2, &["dead_lettered", "dead_lettered"]));
}

#[test]
fn rejected_and_killed_in_the_handler() {
    killed(GIVEN_UP, Point::InHandler, "dead_letter: broker", &end(&[1, 1], 0, 1, &["rejected"]));
}

#[test]
fn rejected_and_killed_before_the_broker_knows() {
    killed(GIVEN_UP, REJECT, "dead_letter: broker", &end(&[1, 1], 0, 1, &["rejected", "rejected"]));
}
