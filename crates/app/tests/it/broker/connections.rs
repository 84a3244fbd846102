//! An operator closes the sync's connections, again and again.

use std::collections::BTreeSet;
use std::time::Duration;

use warren_testkit::rabbit;

use crate::program::total;
use crate::shop::{Heard, Shop};

const END: Duration = Duration::from_secs(120);

#[test]
fn closed_connections_are_opened_again() {
    let rows = 40_000;
    let vhost = rabbit::vhost();
    let shop = Shop::open(&vhost, rows);
    let mut running = shop.program.start(&["sync", "customers"]);
    // The list of connections is half a second old: it has those that were closed, too.
    let (mut sent, mut closed) = (0, BTreeSet::new());
    for _ in 0..3 {
        running.wait_for_sent(sent + 1);
        // It stands still until the broker lists its connection, however long that takes, so that it is not over by then.
        running.signal("STOP");
        warren_testkit::wait_until("a connection is closed that was not before", END, || {
            let mut listed: BTreeSet<String> =
                vhost.connections().iter().map(|connection| connection["name"].to_string()).collect();
            vhost.close_connections();
            let fresh = !listed.is_subset(&closed);
            closed.append(&mut listed);
            fresh
        });
        sent = running.sent();
        running.signal("CONT");
    }
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
