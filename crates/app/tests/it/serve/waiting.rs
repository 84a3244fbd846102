//! What is not there yet is waited for, and keeps nobody else from working.

use serde_json::json;
use warren_testkit::rabbit;

use super::served::{SOON, Served};

#[test]
fn a_missing_queue_is_a_state_that_ends_when_it_is_there() {
    let vhost = rabbit::vhost();
    vhost.queue("out");
    let served = Served::rabbit(&vhost, "");
    let serving = served.start();
    serving.wait_for_state("waiting");
    let (status, _) = serving.get("/readyz");
    assert_eq!((status, serving.get("/healthz").0), (503, 200));
    assert_eq!(serving.trigger()["waits_for"]["code"], "no-such-queue");
    assert!((serving.number("warren_trigger_state{trigger=\"orders\",state=\"waiting\"}") - 1.0).abs() < 0.1);
    vhost.queue("in");
    assert!(vhost.publish("", "in", b"good", &json!({})));
    vhost.wait_for_depth("out", 1, SOON);
    assert_eq!(serving.get("/readyz").0, 200);
    // Deleted while it is consumed.
    vhost.delete_queue("in");
    serving.wait_for_state("waiting");
    vhost.queue("in");
    serving.wait_for_state("consuming");
}

#[test]
fn one_trigger_runs_once_in_a_state_folder() {
    let vhost = rabbit::vhost();
    vhost.queue("in");
    vhost.queue("out");
    let served = Served::rabbit(&vhost, "");
    let first = served.consume();
    let second = served.start();
    second.wait_for_state("waiting");
    assert_eq!(second.trigger()["waits_for"]["code"], "run-under-way");
    drop(first);
    second.wait_for_state("consuming");
}
