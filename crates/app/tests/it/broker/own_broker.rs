//! The memory alarm, in the middle of a run.

use std::time::Duration;

use warren_testkit::rabbit::{Broker, Gate, Point};
use warren_testkit::wait::pause;

use crate::shop::{Heard, Shop};

#[test]
fn a_memory_alarm_is_waited_for_and_told() {
    let rows = 30_000;
    let broker = Broker::start();
    let vhost = broker.vhost();
    let gate = Gate::before(&vhost.url());
    let shop = Shop::open_at(&vhost, &gate.url(&vhost.url()), rows, "", "");
    // The run cannot end before the alarm is raised, which takes the broker's tool seconds.
    gate.close_after(Point::Publish, 1_000);
    let mut running = shop.program.start(&["sync", "customers"]);
    gate.wait(Duration::from_secs(60));
    broker.block_publishers();
    gate.release();
    running.wait_for("it says that the broker holds it back", Duration::from_secs(60), |event| {
        event["event"] == "waiting"
            && event["reason"].as_str().is_some_and(|reason| reason.contains("holds publishers back"))
    });
    pause("an alarm that lasts", Duration::from_secs(2));
    assert!(!running.is_over(), "it ended while it was held back: {:#?}", running.end());
    broker.unblock_publishers();
    let ended = running.end_within(Duration::from_secs(120));
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    let waits: Vec<_> =
        running.events().into_iter().filter(|event| event.json["event"] == "waiting").collect();
    assert!(waits.last().unwrap().json["reason"].is_null(), "it says when the wait is over: {waits:#?}");
    let mut heard = Heard::default();
    heard.listen(&vhost);
    heard.assert_true(&shop);
    let unsure = running.ended()["counts"]["possible_duplicates"].as_u64().unwrap();
    assert!(
        heard.repetitions() <= unsure,
        "{} came twice, {unsure} were said to be possible",
        heard.repetitions()
    );
}
