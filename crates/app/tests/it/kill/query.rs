//! The database gives up in the middle of the query: the run fails, nothing is sent, the baseline stays, and the next
//! run is as if it had not been.

use std::time::Duration;

use serde_json::Value;
use warren_testkit::rabbit::{self, Vhost};

use crate::program::total;
use crate::shop::{Heard, Shop};

const ROWS: u32 = 20_000;

/// A shop that was told of once, then changed, with a view in place of the table that the test may break.
struct Broken {
    vhost: Vhost,
    shop: Shop,
    heard: Heard,
}

impl Broken {
    fn shop() -> Broken {
        let vhost = rabbit::vhost();
        let shop = Shop::open(&vhost, ROWS);
        // A view with the name of the table: what it does can be changed without touching the configuration.
        shop.database.sql(
            "ALTER TABLE customers RENAME TO people;
             CREATE VIEW customers AS SELECT * FROM people",
        );
        shop.program.sync("customers", 0);
        let mut heard = Heard::default();
        heard.listen(&vhost);
        assert_eq!(heard.messages, u64::from(ROWS));
        shop.database.sql(
            "UPDATE people SET seats = seats + 1 WHERE id % 10 = 0; DELETE FROM people WHERE id % 10 = 1",
        );
        Broken { vhost, shop, heard }
    }

    /// What the query does with each row from now on.
    fn behave(&self, seats: &str) {
        self.shop.database.sql(&format!(
            "CREATE OR REPLACE VIEW customers AS SELECT id, name, {seats} AS seats, updated FROM people"
        ));
    }

    /// The run failed and sent nothing; the next one sends what is due.
    fn goes_on(mut self, failed: &Value, code: &str) {
        assert_eq!(failed["state"], "failed", "{failed:#}");
        assert_eq!(failed["error"]["code"], code, "{failed:#}");
        self.heard.listen(&self.vhost);
        assert_eq!(self.heard.messages, u64::from(ROWS), "a run that failed sent nothing");
        self.behave("seats");
        let next = self.shop.program.sync("customers", 0);
        let tenth = u64::from(ROWS / 10);
        let expected = serde_json::json!({"added": 0, "changed": tenth, "removed": tenth});
        assert_eq!(next["counts"]["sent"], expected, "{next:#}");
        self.heard.listen(&self.vhost);
        self.heard.assert_true(&self.shop);
        assert_eq!(total(&self.shop.program.sync("customers", 0)["counts"]["planned"]), 0);
    }
}

#[test]
fn a_query_that_breaks_half_way_looks_like_nothing() {
    let broken = Broken::shop();
    // Rows before the last are yielded, then one divides by zero.
    broken.behave(&format!("CASE WHEN id >= {} THEN 1 / (id % 2 - id % 2) ELSE seats END", ROWS - 5));
    let failed = broken.shop.program.sync("customers", 1);
    assert!(failed["error"]["message"].as_str().unwrap().contains("division by zero"), "{failed:#}");
    broken.goes_on(&failed, "query-interrupted");
}

#[test]
fn a_statement_timeout_looks_like_nothing() {
    let broken = Broken::shop();
    broken.behave(&format!("CASE WHEN id >= {} THEN length(pg_sleep(60)::text) ELSE seats END", ROWS - 5));
    broken.shop.database.sql(&format!(
        "ALTER ROLE warren IN DATABASE {} SET statement_timeout = '1s'",
        broken.shop.database.name()
    ));
    let failed = broken.shop.program.sync("customers", 1);
    broken.shop.database.sql(&format!(
        "ALTER ROLE warren IN DATABASE {} RESET statement_timeout",
        broken.shop.database.name()
    ));
    broken.goes_on(&failed, "query-timeout");
}

#[test]
fn a_connection_that_is_ended_half_way_looks_like_nothing() {
    let broken = Broken::shop();
    broken.behave(&format!("CASE WHEN id >= {} THEN length(pg_sleep(60)::text) ELSE seats END", ROWS - 5));
    let mut running = broken.shop.program.start(&["sync", "customers"]);
    running.wait_for("it reads", Duration::from_secs(30), |event| event["state"] == "querying");
    warren_testkit::wait_until("the query sleeps in a row", Duration::from_secs(30), || {
        broken.shop.database.sql(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event = 'PgSleep'",
        ) == "1\n"
    });
    broken.shop.database.disconnect();
    let ended = running.end_within(Duration::from_secs(30));
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let failed = running.ended();
    broken.goes_on(&failed, "query-interrupted");
}
