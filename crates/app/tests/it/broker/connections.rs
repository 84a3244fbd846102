//! An operator closes the sync's connections, again and again.

use std::time::Duration;

use warren_testkit::rabbit;

use crate::program::total;
use crate::shop::{Heard, Shop};

const END: Duration = Duration::from_secs(120);

#[test]
fn closed_connections_are_opened_again() {
    // Enough that the run outlasts the moment until the broker lists its connections.
    let rows = 120_000;
    let vhost = rabbit::vhost();
    let shop = Shop::open(&vhost, rows);
    let mut running = shop.program.start(&["sync", "customers"]);
    running.wait_for_sent(1);
    let mut closed = 0;
    // The list of connections is half a second old, so each round closes the next one.
    warren_testkit::wait_until("three connections are closed, or the run is over", END, || {
        closed += usize::from(vhost.close_connections() > 0);
        closed == 3 || running.is_over()
    });
    let ended = running.end_within(END);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert!(closed > 0, "the run was over before a connection was closed");
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
