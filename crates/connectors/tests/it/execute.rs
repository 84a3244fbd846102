//! Statements on real databases.

mod pool;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use warren_connectors::kit::setting::Secret;
use warren_connectors::{mysql, postgres, sqlite};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::pipeline::outside::{SqlAnswer, SqlCall};
use warren_engine::ports::SqlExecutor;
use warren_testkit::wait::wait_until_async;
use warren_testkit::{mysql as my, pg};

const SOON: Duration = Duration::from_secs(60);

fn call(statement: &str, sets: &[Value]) -> SqlCall {
    SqlCall {
        statement: statement.into(),
        parameters: sets.iter().map(|set| set.as_array().unwrap().clone()).collect(),
        timeout: SOON,
        rows_max: 100,
    }
}

async fn execute(on: &Arc<dyn SqlExecutor>, statement: &str, sets: &[Value]) -> Result<SqlAnswer, Failure> {
    tokio::time::timeout(SOON, on.execute(&call(statement, sets))).await.unwrap()
}

async fn rows(on: &Arc<dyn SqlExecutor>, statement: &str, set: Value) -> Vec<Value> {
    execute(on, statement, &[set]).await.unwrap().rows
}

/// What every executor must do; `mark` writes its nth placeholder.
async fn keeps_its_promises(on: &Arc<dyn SqlExecutor>, mark: impl Fn(usize) -> String) {
    execute(on, "CREATE TABLE stock (sku VARCHAR(100) PRIMARY KEY, n INT NOT NULL)", &[json!([])])
        .await
        .unwrap();
    let insert = format!("INSERT INTO stock (sku, n) VALUES ({}, {})", mark(1), mark(2));
    // Once for each set, all of them in one transaction.
    let both =
        execute(on, &insert, &[json!(["a", 5]), json!(["x'; DROP TABLE stock; --", 7])]).await.unwrap();
    assert_eq!((both.affected, both.rows.len()), (2, 0));
    let all = "SELECT sku, n FROM stock ORDER BY sku";
    let wanted = vec![json!({"sku": "a", "n": 5}), json!({"sku": "x'; DROP TABLE stock; --", "n": 7})];
    assert_eq!(rows(on, all, json!([])).await, wanted);
    // The second fails, so the first does not count.
    let failure = execute(on, &insert, &[json!(["b", 1]), json!(["a", 1])]).await.unwrap_err();
    assert_eq!(failure.code, codes::QUERY_FAILED, "{failure}");
    assert_eq!(rows(on, all, json!([])).await, wanted);
    let update = format!("UPDATE stock SET n = n - {} WHERE sku = {}", mark(1), mark(2));
    assert_eq!(execute(on, &update, &[json!([2, "a"])]).await.unwrap().affected, 1);
    assert_eq!(execute(on, &update, &[json!([2, "nobody"])]).await.unwrap().affected, 0);
    let one = format!("SELECT n FROM stock WHERE sku = {}", mark(1));
    assert_eq!(rows(on, &one, json!(["a"])).await, [json!({"n": 3})]);
    // No sets, no executions.
    assert_eq!(execute(on, &insert, &[]).await.unwrap(), SqlAnswer::default());
    for set in [json!([]), json!(["a", 1])] {
        let failure = execute(on, &one, &[set]).await.unwrap_err();
        assert_eq!(failure.code, codes::INVALID_PARAMETER);
        assert!(failure.to_string().contains("1 parameters"), "{failure}");
    }
    let failure = execute(on, "SELEKT 1", &[json!([])]).await.unwrap_err();
    assert_eq!((failure.kind, failure.code), (FailureKind::Invalid, codes::QUERY_FAILED));
    let few = SqlCall { rows_max: 1, ..call(all, &[json!([])]) };
    assert!(on.execute(&few).await.unwrap_err().to_string().contains("more than 1 rows"));
}

fn postgres() -> (pg::Database, Arc<dyn SqlExecutor>) {
    let database = pg::database();
    let config =
        postgres::Config { url: Some(Secret::new(database.admin_url())), ..postgres::Config::default() };
    let executor = postgres::executor("shop", &config).unwrap();
    (database, executor)
}

fn mariadb() -> (my::Database, Arc<dyn SqlExecutor>) {
    let database = my::database();
    let config = mysql::Config { url: Some(Secret::new(database.url())), ..mysql::Config::default() };
    let executor = mysql::executor("shop", &config).unwrap();
    (database, executor)
}

fn sqlite(folder: &tempfile::TempDir) -> Arc<dyn SqlExecutor> {
    let path = folder.path().join("shop.db");
    std::fs::write(&path, "").unwrap();
    sqlite::executor("shop", &sqlite::Config { path, ..sqlite::Config::default() }).unwrap()
}

#[tokio::test]
async fn statements_on_postgresql() {
    let (_database, on) = postgres();
    keeps_its_promises(&on, |nth| format!("${nth}")).await;
    let returning = "INSERT INTO stock (sku, n) VALUES ($1, $2) RETURNING sku, n + 1 AS more";
    let answer = execute(&on, returning, &[json!(["r", 1])]).await.unwrap();
    assert_eq!((answer.affected, answer.rows), (1, vec![json!({"sku": "r", "more": 2})]));
}

#[tokio::test]
async fn statements_on_mariadb() {
    let (_database, on) = mariadb();
    keeps_its_promises(&on, |_| "?".to_owned()).await;
}

#[tokio::test]
async fn statements_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    keeps_its_promises(&sqlite(&folder), |_| "?".to_owned()).await;
    let missing = sqlite::Config { path: folder.path().join("none.db"), ..sqlite::Config::default() };
    let failure =
        execute(&sqlite::executor("shop", &missing).unwrap(), "SELECT 1", &[json!([])]).await.unwrap_err();
    assert_eq!(failure.code, codes::UNKNOWN_DATABASE);
}

/// Two transactions each want what the other has: the server ends one of them, which will do another time.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_on_postgresql_is_no_fault_of_the_statement() {
    let (database, on) = postgres();
    database.sql(
        "CREATE FUNCTION takes(one int, other int) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
           PERFORM pg_advisory_xact_lock(one);
           WHILE (SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
                  WHERE datname = current_database() AND locktype = 'advisory' AND granted) < 2
           LOOP PERFORM pg_sleep(0.01); END LOOP;
           PERFORM pg_advisory_xact_lock(other);
         END $$",
    );
    let takes = "SELECT takes($1, $2) IS NULL AS void";
    let sets = [[json!([1, 2])], [json!([2, 1])]];
    let (one, other) = tokio::join!(execute(&on, takes, &sets[0]), execute(&on, takes, &sets[1]));
    let failures: Vec<Failure> = [one, other].into_iter().filter_map(Result::err).collect();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!(failures[0].kind, FailureKind::Disconnected, "{failures:?}");
    let held = pg::sql(
        &database.admin_url(),
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid IN (1, 2)",
    );
    assert_eq!(held.trim(), "0");
}

/// As `FOR UPDATE NOWAIT` and `lock_timeout` end a statement.
#[tokio::test]
async fn a_lock_that_another_holds_on_postgresql_is_no_fault_of_the_statement() {
    let (database, on) = postgres();
    database.sql(
        "CREATE FUNCTION locks() RETURNS void LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'could not obtain lock' USING ERRCODE = 'lock_not_available'; END $$",
    );
    let failure = execute(&on, "SELECT locks() IS NULL AS void", &[json!([])]).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Disconnected, "{failure}");
}

#[tokio::test]
async fn postgresql_reads_a_parameter_by_the_type_it_wants() {
    let (_database, on) = postgres();
    for (kind, given, wanted) in [
        ("int8", json!(7), json!(7)),
        ("int4", json!("7"), json!(7)),
        (
            "numeric",
            serde_json::from_str("12345678901234567890.50").unwrap(),
            serde_json::from_str("12345678901234567890.50").unwrap(),
        ),
        ("float8", json!(0.5), json!(0.5)),
        ("bool", json!(true), json!(true)),
        ("text", json!(5), json!("5")),
        ("text", json!(null), json!(null)),
        ("date", json!("2026-01-31"), json!("2026-01-31")),
        ("timestamptz", json!("2026-01-31T12:00:00Z"), json!("2026-01-31T12:00:00Z")),
        (
            "uuid",
            json!("00000000-0000-0000-0000-000000000001"),
            json!("00000000-0000-0000-0000-000000000001"),
        ),
        ("jsonb", json!({"a": [1, "x"]}), json!({"a": [1, "x"]})),
        ("json", json!("text"), json!("text")),
        ("int4[]", json!([1, null, 3]), json!([1, null, 3])),
        ("text[]", json!(["a\"b", "c,d\\", ""]), json!(["a\"b", "c,d\\", ""])),
    ] {
        let found = rows(&on, &format!("SELECT $1::{kind} AS v"), json!([given])).await;
        assert_eq!(found, [json!({"v": wanted})], "{kind}");
    }
    for (statement, given) in [
        ("SELECT $1::int AS v", json!("no number")),
        ("SELECT $1::int2 AS v", json!(70_000)),
        ("SELECT $1::date AS v", json!("2026-02-30")),
        ("SELECT $1::uuid AS v", json!("x")),
        ("SELECT $1::text AS v", json!("a\u{0}b")),
    ] {
        let failure = execute(&on, statement, &[json!([given])]).await.unwrap_err();
        assert_eq!(
            (failure.kind, failure.code),
            (FailureKind::Invalid, codes::INVALID_PARAMETER),
            "{statement}: {failure}"
        );
    }
    // Stored rows, and not the parameter, may be at fault here.
    let failure = execute(&on, "SELECT $1::int / 0 AS v", &[json!([1])]).await.unwrap_err();
    assert_eq!(failure.code, codes::QUERY_FAILED);
    let failure = execute(&on, "SELECT '1'::money AS v", &[json!([])]).await.unwrap_err();
    assert!(failure.to_string().contains("type money"), "{failure}");
}

#[tokio::test]
async fn a_statement_that_takes_too_long_or_is_dropped_does_not_count() {
    let (database, on) = postgres();
    execute(&on, "CREATE TABLE t (n int)", &[json!([])]).await.unwrap();
    let slow = "WITH w AS (INSERT INTO t VALUES (1)) SELECT pg_sleep(600)";
    let short = SqlCall { timeout: Duration::from_millis(200), ..call(slow, &[json!([])]) };
    let failure = on.execute(&short).await.unwrap_err();
    assert_eq!((failure.kind, failure.code), (FailureKind::Timeout, codes::QUERY_TIMEOUT));
    let looked = format!(
        "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = '{}' AND query LIKE '%pg_sleep(600)%' AND query NOT LIKE '%pg_stat_activity%'",
        database.name()
    );
    let running = async || rows(&on, &looked, json!([])).await[0]["n"].as_u64().unwrap();
    let long = call(slow, &[json!([])]);
    let mut dropped = Box::pin(on.execute(&long));
    tokio::select! {
        end = &mut dropped => panic!("it ended: {end:?}"),
        () = wait_until_async("the statement runs", SOON, async || running().await == 1) => {}
    }
    drop(dropped);
    wait_until_async("the statement is cancelled", SOON, async || running().await == 0).await;
    assert_eq!(rows(&on, "SELECT count(*) AS n FROM t", json!([])).await, [json!({"n": 0})]);
}

#[tokio::test]
async fn a_statement_on_sqlite_that_is_dropped_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let on = sqlite(&folder);
    execute(&on, "CREATE TABLE t (n int)", &[json!([])]).await.unwrap();
    let endless = "INSERT INTO t WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c LIMIT 1000000000000";
    let short = SqlCall { timeout: Duration::from_millis(100), ..call(endless, &[json!([])]) };
    let failure = on.execute(&short).await.unwrap_err();
    assert_eq!((failure.kind, failure.code), (FailureKind::Timeout, codes::QUERY_TIMEOUT));
    let long = call(endless, &[json!([])]);
    assert!(tokio::time::timeout(Duration::from_millis(100), on.execute(&long)).await.is_err());
    // The writer's lock comes free: the thread has noticed.
    assert_eq!(execute(&on, "INSERT INTO t VALUES (1)", &[json!([])]).await.unwrap().affected, 1);
    assert_eq!(rows(&on, "SELECT count(*) AS n FROM t", json!([])).await, [json!({"n": 1})]);
}
