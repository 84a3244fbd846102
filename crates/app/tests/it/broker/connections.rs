//! An operator closes the sync's connections, again and again.

use std::collections::BTreeSet;
use std::time::Duration;

use warren_testkit::rabbit::{self, Gate, Point};

use crate::program::total;
use crate::shop::{Heard, Shop};

const END: Duration = Duration::from_secs(120);

#[test]
fn closed_connections_are_opened_again() {
    let rows = 40_000;
    let vhost = rabbit::vhost();
    let gate = Gate::before(&vhost.url());
    let shop = Shop::open_at(&vhost, &gate.url(&vhost.url()), rows, "", "");
    // The run cannot end while a publish is held, however fast the machine is.
    gate.close_after(Point::Publish, 1_000);
    let mut running = shop.program.start(&["sync", "customers"]);
    let mut closed = BTreeSet::new();
    for _ in 0..3 {
        gate.wait(END);
        // The broker's list of connections may be old: it may still have those that were closed.
        warren_testkit::wait_until("a connection is closed that was not before", END, || {
            let mut listed: BTreeSet<String> =
                vhost.connections().iter().map(|connection| connection["name"].to_string()).collect();
            vhost.close_connections();
            let fresh = !listed.is_subset(&closed);
            closed.append(&mut listed);
            fresh
        });
        gate.close_after(Point::Publish, 5_000);
    }
    gate.release();
    let ended = running.end_within(END);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    let last = running.ended();
    let mut heard = Heard::default();
    heard.listen(&vhost);
    heard.assert_true(&shop);
    let unsure = last["counts"]["possible_duplicates"].as_u64().unwrap();
    assert!(
        heard.repetitions() <= unsure,
        "{} came twice, {unsure} were said to be possible",
        heard.repetitions()
    );
    assert_eq!(total(&last["counts"]["sent"]), u64::from(rows));
    assert!(
        last["counts"]["retries"].as_u64().unwrap() > 0,
        "the connections were closed while it sent: {last:#}"
    );
}
