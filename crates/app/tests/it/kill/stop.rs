//! SIGTERM, SIGINT, and two runs at once.

use std::time::Duration;

use warren_testkit::rabbit::{self, Gate, Point};
use warren_testkit::wait_until;

use crate::program::total;
use crate::shop::{Heard, Shop};

/// What a stop may take: what is under way is settled, nothing else.
const STOP: Duration = Duration::from_secs(40);

/// 1. A sync is stopped in the middle. 2. What it sent is recorded. 3. The next run sends exactly the rest.
fn stopped_and_gone_on(signal: &str) {
    let rows = 30_000;
    let vhost = rabbit::vhost();
    let gate = Gate::before(&vhost.url());
    let shop = Shop::open_at(&vhost, &gate.url(&vhost.url()), rows, "", "");
    // The run cannot end before the signal arrives: one publish is held until it says that it stops.
    // More have passed by then than are ever unconfirmed, so some are accepted.
    gate.close_after(Point::Publish, 6_000);
    let mut running = shop.program.start(&["sync", "customers"]);
    gate.wait(STOP);
    running.signal(signal); // 1.
    wait_until("it says that it stops", STOP, || running.stderr().contains("shutting down gracefully"));
    gate.release();
    let ended = running.end_within(STOP);
    assert_eq!(ended.code, Some(5), "{ended:#?}");
    assert!(ended.stderr.contains("shutting down gracefully"), "{ended:#?}");
    let stopped = running.ended();
    assert_eq!(stopped["state"], "cancelled", "{stopped:#}");
    assert_eq!(stopped["error"]["code"], "cancelled", "{stopped:#}");
    let sent = total(&stopped["counts"]["sent"]);
    assert!(0 < sent && sent < u64::from(rows), "{sent} of {rows} were sent");
    let mut heard = Heard::default();
    heard.listen(&vhost);
    assert_eq!(heard.messages, sent); // 2.

    let rest = shop.program.sync("customers", 0);
    assert_eq!(total(&rest["counts"]["sent"]), u64::from(rows) - sent); // 3.
    heard.listen(&vhost);
    assert_eq!((heard.messages, heard.repetitions()), (u64::from(rows), 0));
    heard.assert_true(&shop);
    let states: Vec<_> =
        shop.program.runs().iter().map(|run| run["state"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states, ["cancelled", "success"]);
}

#[test]
fn sigterm_settles_what_is_under_way_and_the_next_run_sends_exactly_the_rest() {
    stopped_and_gone_on("TERM");
}

#[test]
fn sigint_does_the_same() {
    stopped_and_gone_on("INT");
}

#[test]
fn of_two_runs_of_one_sync_one_is_refused() {
    let vhost = rabbit::vhost();
    let shop = Shop::open(&vhost, 200);
    // The first run waits in its query for as long as the test wants.
    shop.database.sql(
        "ALTER TABLE customers RENAME TO people;
         CREATE VIEW customers AS SELECT id, name, CASE WHEN id = 200 THEN length(pg_sleep(300)::text) ELSE seats END AS seats
           FROM people",
    );
    let mut running = shop.program.start(&["sync", "customers"]);
    running.wait_for("it reads", Duration::from_secs(30), |event| event["state"] == "querying");
    let second = shop.program.run(&["sync", "customers"]);
    assert_eq!(second.code, Some(1), "{second:#?}");
    assert!(second.stderr.contains("error[run-under-way]"), "{second:#?}");
    assert!(second.stderr.contains("`customers`") && second.stderr.contains("process "), "{second:#?}");

    running.signal("TERM");
    let ended = running.end_within(Duration::from_secs(20));
    assert_eq!(ended.code, Some(5), "{ended:#?}");
    shop.database.sql("CREATE OR REPLACE VIEW customers AS SELECT id, name, seats FROM people");
    shop.program.sync("customers", 0);
    let mut heard = Heard::default();
    heard.listen(&vhost);
    assert_eq!((heard.messages, heard.repetitions()), (200, 0));
    heard.assert_true(&shop);
    let states: Vec<_> =
        shop.program.runs().iter().map(|run| run["state"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states, ["cancelled", "success"], "a run that was refused is none");
}
