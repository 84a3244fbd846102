//! A key that fails, with more of its messages behind it than are parked.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use warren_testkit::rabbit;
use warren_testkit::receiver::{Answer, Receiver};
use warren_testkit::wait_until;

use super::doctor::{codes, document};
use super::served::{SOON, Served, Serving, publish};

/// What is parked of one key at most.
const PARKED_MAX: usize = 1000;
/// What of it stays with the broker; it takes up as much of the `concurrency`, which is eight.
const BEYOND: usize = 5;

/// A receiver that takes what is sent, but the first message of `a` while it is not well.
struct Place {
    receiver: Receiver,
    well: Arc<AtomicBool>,
    took: Arc<Mutex<Vec<String>>>,
}

impl Place {
    fn new() -> Place {
        let (well, took) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let receiver = Receiver::start({
            let (well, took) = (well.clone(), took.clone());
            move |call| {
                let body = String::from_utf8(call.body.clone()).unwrap();
                if body == "a-0" && !well.load(SeqCst) {
                    return Answer::status(503);
                }
                took.lock().unwrap().push(body);
                Answer::ok()
            }
        });
        Place { receiver, well, took }
    }

    /// The numbers of a key's messages, in the order in which they were taken.
    fn of(&self, key: &str) -> Vec<usize> {
        let took = self.took.lock().unwrap();
        took.iter().filter_map(|body| body.strip_prefix(key)?.strip_prefix('-')?.parse().ok()).collect()
    }
}

fn is(serving: &Serving, metric: &str, number: usize) -> bool {
    (serving.number(&format!("warren_{metric}{{trigger=\"orders\"}}")) - number as f64).abs() < 0.1
}

/// 1. As many are parked as may be, and the rest stays with the broker. 2. That is said. 3. Other keys go on. 4. It is so after a restart too.
/// 5. When the destination is well all go through in order.
#[test]
fn a_key_that_fails_parks_so_many_and_all_go_through_in_order_when_it_works() {
    let vhost = rabbit::vhost();
    vhost.queue("in");
    let place = Place::new();
    let pipeline = format!(
        "\npipelines:\n  work:\n    - http: {{url: \"{}/take\", timeout: 30s, body: .body}}\n",
        place.receiver.url()
    );
    let (url, management) = (vhost.url(), vhost.management().url());
    let broker = format!("{{type: rabbitmq, url: \"{url}\", management_url: \"{management}\"}}");
    let keys = format!(
        "ordering: {{key: '.body | split(\"-\")[0]'}}\nconcurrency: 8\nmax_timeout: 40s\nexpiration: 0s\nretry: {{delays: [{}]}}",
        ["5s"; 30].join(", ")
    );
    let served = Served::with_pipeline(&broker, &keys, &pipeline).on_a_known_port();
    let serving = served.consume();
    let count = PARKED_MAX + BEYOND;
    publish(&vhost, (0..count).flat_map(|at| [format!("a-{at}"), format!("b-{at}")]));
    let held = |serving: &Serving| {
        is(serving, "keys_full", 1)
            && is(serving, "messages_parked", PARKED_MAX)
            && is(serving, "messages_waiting", BEYOND)
    };
    wait_until("the bound is reached", SOON, || held(&serving)); // 1.
    vhost.wait_for_depth("in", BEYOND as u64, SOON);
    let trigger = serving.trigger(); // 2.
    assert_eq!(
        (&trigger["state"], &trigger["trouble"]["code"]),
        (&"consuming".into(), &"key-backlog".into())
    );
    assert_eq!(serving.get("/readyz").0, 200);
    assert_eq!(codes(&document(&served, 0)), ["key-backlog"]);
    publish(&vhost, (0..50).map(|at| format!("c-{at}"))); // 3.
    wait_until("others go on", SOON, || place.of("c").len() == 50);
    assert_eq!((place.of("a"), place.of("b")), (vec![], (0..count).collect()));
    assert_eq!(serving.stop().code, Some(0)); // 4.
    vhost.wait_for_depth("in", BEYOND as u64, SOON);
    let serving = served.consume();
    wait_until("it is so again", SOON, || held(&serving));
    place.well.store(true, SeqCst); // 5.
    wait_until("all of the key", SOON, || place.of("a").len() >= count);
    wait_until("nothing is parked", SOON, || {
        is(&serving, "messages_parked", 0) && is(&serving, "keys_full", 0)
    });
    vhost.wait_for_depth("in", 0, SOON);
    assert!(serving.trigger()["trouble"].is_null());
    assert_eq!(serving.stop().code, Some(0));
    assert_eq!(place.of("a"), (0..count).collect::<Vec<_>>());
    assert_eq!(place.of("c"), (0..50).collect::<Vec<_>>());
    assert!(vhost.look("dead").is_none_or(|queue| queue["messages"] == 0));
}
