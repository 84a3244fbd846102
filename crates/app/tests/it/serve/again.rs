//! A message that the broker gives out again while it is still worked on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use serde_json::{Value, json};
use warren_testkit::rabbit;
use warren_testkit::receiver::{Answer, Receiver};
use warren_testkit::wait::{pause, wait_until};

use super::served::{SOON, Served};

/// Closes the connection, twice, while the receiver holds its answer back; it is asked once meanwhile, and once more after that.
fn waits_for_itself(kind: &Value) {
    let vhost = rabbit::vhost();
    vhost.queue_with("in", kind);
    let (held, at_once) = (Arc::new(AtomicBool::new(true)), Arc::new((AtomicU64::new(0), AtomicU64::new(0))));
    let receiver = Receiver::start({
        let (held, at_once) = (held.clone(), at_once.clone());
        move |_| {
            let (now, most) = &*at_once;
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            while held.load(SeqCst) {
                pause("an answer that is held back", Duration::from_millis(10));
            }
            now.fetch_sub(1, SeqCst);
            Answer::ok()
        }
    });
    let pipeline = format!(
        "\npipelines:\n  work:\n    - http: {{url: \"{}/take\", timeout: 60s, body: .properties.messageId}}\n",
        receiver.url()
    );
    let (url, management) = (vhost.url(), vhost.management().url());
    let broker = format!("{{type: rabbitmq, url: \"{url}\", management_url: \"{management}\"}}");
    let served = Served::with_pipeline(&broker, "max_timeout: 100s", &pipeline);
    let serving = served.consume();
    assert!(vhost.publish("", "in", b"m", &json!({"message_id": "m", "delivery_mode": 2})));
    wait_until("it is asked", SOON, || receiver.seen() == 1);
    for received in [2.0, 3.0] {
        let number = "warren_messages_received_total{trigger=\"orders\"}";
        wait_until("it came again", SOON, || {
            // The management API shows a connection only some time after it was opened.
            if vhost.close_connections() > 0 {
                pause("the time to come again", Duration::from_secs(2));
            }
            serving.number(number) >= received
        });
        serving.wait_for_number("warren_messages_waiting{trigger=\"orders\"}", 1.0);
    }
    assert!(vhost.publish("", "in", b"n", &json!({"message_id": "n", "delivery_mode": 2})));
    wait_until("another does not wait", SOON, || receiver.seen() == 2);
    assert_eq!(served.attempts(), Vec::<Value>::new());
    held.store(false, SeqCst);
    vhost.wait_for_depth("in", 0, SOON);
    wait_until("it is asked again", SOON, || receiver.seen() == 3);
    let ended = serving.stop();
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert_eq!(
        (served.statuses("m"), served.statuses("n")),
        (vec!["late".into(), "ok".into()], vec!["ok".into()])
    );
    assert_eq!((receiver.seen(), at_once.1.load(SeqCst)), (3, 2));
    assert_eq!(vhost.depth("in"), 0);
}

#[test]
fn a_message_of_a_classic_queue_that_comes_again_waits_for_itself() {
    waits_for_itself(&json!({}));
}

#[test]
fn a_message_of_a_quorum_queue_that_comes_again_waits_for_itself() {
    waits_for_itself(&json!({"x-queue-type": "quorum"}));
}
