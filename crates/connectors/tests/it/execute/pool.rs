//! How many connections statements take, and what one leaves for the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use warren_engine::failure::FailureKind;
use warren_engine::pipeline::outside::SqlCall;
use warren_engine::ports::SqlExecutor;
use warren_testkit::wait::wait_until_async;

use super::{SOON, call, execute, mariadb, postgres, rows, sqlite};

/// As the pool has it.
const MOST: u64 = 10;

/// A hundred statements at once; the most connections to the database that `count` saw meanwhile.
async fn most_of_a_hundred(
    on: &Arc<dyn SqlExecutor>,
    statement: &str,
    count: impl Fn() -> u64 + Send + 'static,
) -> u64 {
    let mut running = JoinSet::new();
    let left = Arc::new(AtomicUsize::new(100));
    for _ in 0..100 {
        let (on, call, left) = (on.clone(), call(statement, &[json!([])]), left.clone());
        running.spawn(async move {
            on.execute(&call).await.unwrap();
            left.fetch_sub(1, Ordering::SeqCst);
        });
    }
    let counting = tokio::task::spawn_blocking(move || {
        let mut most = 0;
        while left.load(Ordering::SeqCst) > 0 {
            most = count().max(most);
        }
        most
    });
    running.join_all().await;
    tokio::time::timeout(SOON, counting).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_statements_take_ten_connections_of_postgresql() {
    let (database, on) = postgres();
    let count = {
        let name = database.name().to_owned();
        move || {
            let count = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'");
            warren_testkit::pg::sql(&warren_testkit::pg::admin_url(), &count).trim().parse().unwrap()
        }
    };
    let most = most_of_a_hundred(&on, "SELECT pg_sleep(0.1)", count).await;
    assert_eq!(most, MOST);
    assert_eq!(database.connections() as u64, MOST, "they are kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_statements_take_ten_connections_of_mariadb() {
    let (database, on) = mariadb();
    let count = {
        let name = database.name().to_owned();
        move || {
            let count = format!("SELECT count(*) FROM information_schema.processlist WHERE db = '{name}'");
            warren_testkit::mysql::sql(&warren_testkit::mysql::url(), &count).trim().parse().unwrap()
        }
    };
    assert_eq!(most_of_a_hundred(&on, "SELECT SLEEP(0.1)", count).await, MOST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_writers_of_sqlite_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let on = sqlite(&folder);
    execute(&on, "CREATE TABLE t (n int)", &[json!([])]).await.unwrap();
    let path = folder.path().join("shop.db");
    let count = move || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        links.filter(|link| std::fs::read_link(link.path()).is_ok_and(|of| of == path)).count() as u64
    };
    let most = most_of_a_hundred(&on, "INSERT INTO t VALUES (1)", count).await;
    assert!(most <= 1, "{most} at once");
    assert_eq!(rows(&on, "SELECT count(*) AS n FROM t", json!([])).await, [json!({"n": 100})]);
}

#[tokio::test]
async fn nothing_of_one_statement_meets_the_next_on_postgresql() {
    let (_database, on) = postgres();
    execute(&on, "CREATE TABLE t (n int UNIQUE)", &[json!([])]).await.unwrap();
    for left in [
        "SET search_path TO nowhere",
        "SET application_name = 'left'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET ROLE pg_monitor",
        "CREATE TEMPORARY TABLE left_over (n int)",
        "SELECT pg_advisory_lock(7)",
        "LISTEN left_over",
        "BEGIN",
        "SAVEPOINT left_over",
        "COMMIT AND CHAIN",
        "ROLLBACK",
    ] {
        execute(&on, left, &[json!([])]).await.unwrap();
        let seen = "SELECT current_setting('application_name') AS name, current_setting('search_path') AS path, current_user::text AS \"user\",
             session_user::text AS session, current_setting('default_transaction_read_only') AS reads,
             to_regclass('left_over')::text AS temporary, (SELECT count(*) FROM pg_listening_channels()) AS listens, pg_sleep(0.05)::text AS slept,
             (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks";
        // So many at once that each connection there is has one of them.
        let all = futures_util::future::join_all((0..4).map(|_| rows(&on, seen, json!([])))).await;
        for seen in all.into_iter().flatten() {
            assert_eq!(seen["user"], seen["session"], "{left}");
            let clean = [&seen["reads"], &seen["temporary"], &seen["listens"], &seen["locks"]];
            assert_eq!(clean, [&json!("off"), &json!(null), &json!(0), &json!(0)], "{left}");
            assert_ne!(seen["name"], "left", "{left}");
            assert_eq!(seen["path"], "\"$user\", public", "{left}");
        }
        assert_eq!(
            execute(&on, "INSERT INTO t VALUES (1)", &[json!([])]).await.unwrap().affected,
            1,
            "{left}"
        );
        // A refusal leaves its transaction broken, and the connection good.
        let twice = execute(&on, "INSERT INTO t VALUES (1)", &[json!([])]).await.unwrap_err();
        assert_eq!(twice.kind, FailureKind::Invalid, "{left}: {twice}");
        assert_eq!(execute(&on, "DELETE FROM t", &[json!([])]).await.unwrap().affected, 1, "{left}");
    }
    let open = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
    assert_eq!(rows(&on, open, json!([])).await, [json!({"n": 0})]);
}

#[tokio::test]
async fn nothing_of_one_statement_meets_the_next_on_mariadb() {
    let (_database, on) = mariadb();
    execute(&on, "CREATE TABLE t (n int UNIQUE)", &[json!([])]).await.unwrap();
    for left in [
        "SET SESSION sql_mode = 'ANSI'",
        "SET @left = 7",
        "SET autocommit = 0",
        "SET SESSION TRANSACTION READ ONLY",
        "CREATE TEMPORARY TABLE left_over (n int)",
        "SELECT GET_LOCK('left', 1)",
    ] {
        execute(&on, left, &[json!([])]).await.unwrap();
        let lock = "SELECT @@sql_mode = @@global.sql_mode AS mode, @left IS NULL AS variable, @@autocommit AS autocommit, IS_FREE_LOCK('left') AS free";
        // Cleaned after the answer: the next connection may be another, and the lock free only a little later.
        wait_until_async(left, SOON, async || {
            rows(&on, lock, json!([])).await
                == [json!({"mode": 1, "variable": 1, "autocommit": 1, "free": 1})]
        })
        .await;
        let failure = execute(&on, "SELECT * FROM left_over", &[json!([])]).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::NotFound, "{left}: {failure}");
        assert_eq!(
            execute(&on, "INSERT INTO t VALUES (1)", &[json!([])]).await.unwrap().affected,
            1,
            "{left}"
        );
        let twice = execute(&on, "INSERT INTO t VALUES (1)", &[json!([])]).await.unwrap_err();
        assert_eq!(twice.kind, FailureKind::Invalid, "{left}: {twice}");
        assert_eq!(execute(&on, "DELETE FROM t", &[json!([])]).await.unwrap().affected, 1, "{left}");
    }
}

/// Connections that end while nobody uses them cost nothing; one that ends under a statement costs that statement, which may be tried again.
async fn lost_connections_cost_at_most_themselves(
    on: &Arc<dyn SqlExecutor>,
    slow: &str,
    one: &str,
    running: impl AsyncFn() -> bool,
    disconnect: impl Fn(),
) {
    let many = async || {
        let mut running = JoinSet::new();
        for _ in 0..20 {
            let (on, call) = (on.clone(), call(one, &[json!([])]));
            running.spawn(async move { on.execute(&call).await });
        }
        running.join_all().await
    };
    assert!(many().await.iter().all(Result::is_ok));
    disconnect();
    for answer in many().await {
        answer.unwrap();
    }
    let call = SqlCall { timeout: Duration::from_secs(600), ..call(slow, &[json!([])]) };
    let under_way = on.execute(&call);
    let ending = async {
        wait_until_async("it runs", SOON, async || running().await).await;
        disconnect();
    };
    let (lost, ()) = tokio::join!(under_way, ending);
    let lost = lost.unwrap_err();
    assert_eq!(lost.kind, FailureKind::Disconnected, "{lost}");
    for answer in many().await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn connections_that_postgresql_ends_cost_at_most_themselves() {
    let (database, on) = postgres();
    let running = async || {
        let looked = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND state = 'active' AND query LIKE '%pg_sleep(599)%'",
            database.name()
        );
        warren_testkit::pg::sql(&warren_testkit::pg::admin_url(), &looked).trim() == "1"
    };
    let disconnect = || database.disconnect();
    lost_connections_cost_at_most_themselves(&on, "SELECT pg_sleep(599)", "SELECT 1", running, disconnect)
        .await;
}

#[tokio::test]
async fn connections_that_mariadb_ends_cost_at_most_themselves() {
    let (database, on) = mariadb();
    let running = async || {
        let looked = format!(
            "SELECT count(*) FROM information_schema.processlist WHERE db = '{}' AND state = 'User sleep'",
            database.name()
        );
        warren_testkit::mysql::sql(&warren_testkit::mysql::url(), &looked).trim() == "1"
    };
    let disconnect = || database.disconnect();
    lost_connections_cost_at_most_themselves(&on, "SELECT SLEEP(599)", "SELECT 1", running, disconnect).await;
}

#[tokio::test]
async fn whoever_waits_for_a_connection_and_goes_takes_none() {
    let (database, on) = postgres();
    let long = call("SELECT pg_sleep(599)", &[json!([])]);
    let holding: Vec<_> = (0..MOST).map(|_| Box::pin(on.execute(&long))).collect();
    let mut holding = futures_util::future::join_all(holding);
    tokio::select! {
        _ = &mut holding => panic!("they ended"),
        () = wait_until_async("all are taken", SOON, async || database.connections() as u64 == MOST) => {}
    }
    let one = call("SELECT 1", &[json!([])]);
    // The limit of the step is around all of it.
    tokio::select! {
        _ = &mut holding => panic!("they ended"),
        waited = tokio::time::timeout(Duration::from_millis(200), on.execute(&one)) => assert!(waited.is_err()),
    }
    drop(holding);
    // Those were cancelled on the server, and their places are free.
    assert_eq!(tokio::time::timeout(SOON, on.execute(&one)).await.unwrap().unwrap().rows.len(), 1);
    wait_until_async("the others are gone", SOON, async || database.connections() <= 1).await;
}
