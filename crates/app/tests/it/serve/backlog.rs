//! A key that fails, with more of its messages behind it than may be parked.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use warren_testkit::rabbit;
use warren_testkit::receiver::{Answer, Receiver};
use warren_testkit::wait_until;

use super::doctor::{codes, document};
use super::served::{SOON, Served, Serving, publish};

/// The trigger's bound for one key.
const PARKED_MAX: usize = 300;
/// What comes beyond it: many times the `concurrency`, which is eight.
const BEYOND: usize = 100;

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

/// 1. As many are parked as may be, and the rest is dead-lettered in order. 2. It is visible. 3. Other keys flow. 4. So it is after a restart.
/// 5. When the destination works again all that is parked goes through in order.
#[test]
fn a_key_that_fails_is_parked_up_to_its_bound_then_dead_lettered_and_others_flow() {
    let vhost = rabbit::vhost();
    vhost.queue("in");
    let place = Place::new();
    let pipeline = format!(
        "\npipelines:\n  work:\n    - http: {{url: \"{}/take\", timeout: 30s, body: .body}}\n",
        place.receiver.url()
    );
    let (url, management) = (vhost.url(), vhost.management().url());
    let broker = format!("{{type: rabbitmq, url: \"{url}\", management_url: \"{management}\"}}");
    let delays = ["5s"; 30].join(", ");
    let keys = format!(
        "ordering: {{key: '.body | split(\"-\")[0]'}}\nconcurrency: 8\nmax_timeout: 40s\nexpiration: 0s\n\
         retry: {{delays: [{delays}]}}\nparking: {{messages: {PARKED_MAX}, size: 1GiB}}"
    );
    let served = Served::with_pipeline(&broker, &keys, &pipeline).on_a_known_port();
    let serving = served.consume();
    let count = PARKED_MAX + BEYOND;
    publish(&vhost, (0..count).flat_map(|at| [format!("a-{at}"), format!("b-{at}")]));
    let full = |serving: &Serving| is(serving, "keys_full", 1) && is(serving, "messages_parked", PARKED_MAX);
    wait_until("the bound is reached", SOON, || full(&serving)); // 1.
    vhost.wait_for_depth("dead", BEYOND as u64, SOON);
    vhost.wait_for_depth("in", 0, SOON);
    let trigger = serving.trigger(); // 2.
    assert_eq!(
        (&trigger["state"], &trigger["trouble"]["code"]),
        (&"consuming".into(), &"key-backlog".into())
    );
    assert_eq!(serving.get("/readyz").0, 200);
    assert_eq!(codes(&document(&served, 0)), ["key-backlog"]);
    publish(&vhost, (0..50).map(|at| format!("c-{at}"))); // 3.
    wait_until("others flow", SOON, || place.of("c").len() == 50);
    assert_eq!((place.of("a"), place.of("b")), (vec![], (0..count).collect()));
    assert_eq!(serving.stop().code, Some(0)); // 4.
    let serving = served.consume();
    publish(&vhost, [format!("a-{count}"), "c-50".to_owned()].into_iter());
    wait_until("others flow", SOON, || place.of("c").len() == 51);
    vhost.wait_for_depth("dead", BEYOND as u64 + 1, SOON);
    place.well.store(true, SeqCst); // 5.
    wait_until("all of the key", SOON, || place.of("a").len() >= PARKED_MAX);
    wait_until("nothing is parked", SOON, || {
        is(&serving, "messages_parked", 0) && is(&serving, "keys_full", 0)
    });
    assert!(serving.trigger()["trouble"].is_null());
    assert_eq!(serving.stop().code, Some(0));
    assert_eq!(place.of("a"), (0..PARKED_MAX).collect::<Vec<_>>());
    let dead = vhost.take("dead", BEYOND + 1).into_iter();
    let dead: Vec<String> = dead.map(|dead| String::from_utf8(dead.body).unwrap()).collect();
    assert_eq!(dead, (PARKED_MAX..=count).map(|at| format!("a-{at}")).collect::<Vec<_>>());
}
