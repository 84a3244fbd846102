//! Rows from SQLite.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use warren_connectors::kit::setting::Span;
use warren_connectors::sqlite::{Config, source};
use warren_engine::codes;
use warren_engine::failure::FailureKind;
use warren_engine::ports::Source;

use crate::reading::{count, limited, model, one, read, told};

const ENDLESS: &str = "WITH RECURSIVE t(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM t) SELECT id, printf('%.100c', 'x') AS pad FROM t";
/// Works for ever and yields nothing.
const SILENT: &str =
    "WITH RECURSIVE t(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM t) SELECT id FROM t WHERE id < 0";

struct Database {
    folder: tempfile::TempDir,
    writer: rusqlite::Connection,
}

impl Database {
    fn new(statements: &str) -> Database {
        let folder = tempfile::tempdir().unwrap();
        let writer = rusqlite::Connection::open(folder.path().join("shop.db")).unwrap();
        writer.execute_batch(statements).unwrap();
        Database { folder, writer }
    }

    fn source(&self) -> Arc<dyn Source> {
        at(&self.folder.path().join("shop.db"))
    }
}

fn at(path: &Path) -> Arc<dyn Source> {
    let config = Config {
        path: path.to_owned(),
        busy_timeout: Some(Span(Duration::from_millis(100))),
        statement_timeout: None,
    };
    source("shop", &config).unwrap()
}

#[tokio::test]
async fn every_value_has_its_own_type() {
    let database = Database::new("CREATE TABLE t (v)");
    let source = database.source();
    let table = [
        ("NULL", "any: Null"),
        ("9223372036854775807", "any: Int(9223372036854775807)"),
        ("-9223372036854775808", "any: Int(-9223372036854775808)"),
        ("0.1", "any: Float(0.1)"),
        ("9e999", "any: Float(inf)"),
        ("'ü🦀'", "any: Text(\"ü🦀\")"),
        ("''", "any: Text(\"\")"),
        ("x'00ff'", "any: Bytes([0, 255])"),
        ("x''", "any: Bytes([])"),
        ("CAST(x'61ff' AS TEXT)", "any: Bytes([97, 255])"),
        ("json('{\"a\":1}')", "any: Text(\"{\\\"a\\\":1}\")"),
    ];
    for (expression, expected) in table {
        assert_eq!(
            one(&*source, &format!("SELECT {expression} AS v;  -- end")).await,
            expected,
            "{expression}"
        );
    }
    database.writer.execute_batch("INSERT INTO t VALUES (1), ('one'), (NULL)").unwrap();
    let mixed = read(&*source, "SELECT v FROM t ORDER BY rowid").await.unwrap();
    assert_eq!(mixed.rows, [["Int(1)"], ["Text(\"one\")"], ["Null"]]);
}

#[tokio::test]
async fn a_query_that_is_refused_says_where_and_why() {
    let database = Database::new("CREATE TABLE t (id INTEGER)");
    let source = database.source();
    let table = [
        (
            "SELECT id,\n  nope FROM t",
            "query-failed | describe the query of model `m` (line 2, column 3 of the query): no such column: nope, in `nope FROM t` | Run the query with the sqlite3 shell, and mend it there.",
        ),
        (
            "SELECT 1 AS a, 2 AS a",
            "duplicate-column | describe the query of model `m`: the query yields two columns named `a` | Give one of them another name: … AS another_a.",
        ),
        (
            "DELETE FROM t",
            "query-failed | describe the query of model `m`: the statement would write | Warren only reads: give a SELECT.",
        ),
        (
            "INSERT INTO t VALUES (1) RETURNING id",
            "query-failed | describe the query of model `m`: the statement would write | Warren only reads: give a SELECT.",
        ),
        (
            "ATTACH 'other.db' AS other",
            "query-failed | describe the query of model `m`: the query yields no columns | Give a SELECT, WITH … SELECT or VALUES.",
        ),
        (
            "SELECT 1 AS a; SELECT 2 AS b",
            "query-failed | describe the query of model `m`: the query is several statements | Give one SELECT; WITH can name the parts of a long one.",
        ),
        (
            "SELECT ? AS a",
            "query-failed | describe the query of model `m`: the query has parameters such as `?` | Write the value into the query, by a variable of the configuration if it must vary.",
        ),
    ];
    for (sql, expected) in table {
        assert_eq!(told(&read(&*source, sql).await.unwrap_err()), expected);
    }
}

#[tokio::test]
async fn a_query_that_fails_half_way_is_an_error_and_no_end() {
    let database = Database::new("CREATE TABLE t (id INTEGER)");
    let sql = "WITH RECURSIVE t(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM t LIMIT 100000)
               SELECT id, printf('%.100c', 'x') AS pad, CASE WHEN id = 50000 THEN json('{') END AS bad FROM t";
    let mut stream = database.source().rows(&model(sql)).await.unwrap();
    let (rows, failure) = count(&mut *stream).await;
    let failure = failure.unwrap();
    assert!(rows > 0 && rows < 50_000);
    assert_eq!(failure.code, codes::QUERY_INTERRUPTED);
    assert!(failure.to_string().contains("malformed JSON"), "{failure}");
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_ended() {
    let database = Database::new("CREATE TABLE t (id INTEGER)");
    let source = database.source();
    for sql in [SILENT, ENDLESS] {
        let mut stream = source.rows(&limited(sql, Duration::from_millis(200))).await.unwrap();
        let (_, failure) = count(&mut *stream).await;
        let failure = failure.unwrap();
        assert_eq!(failure.code, codes::QUERY_TIMEOUT, "{sql}");
        assert!(
            failure.to_string().ends_with("it took longer than 200ms, which the model's `timeout` allows"),
            "{failure}"
        );
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_ends_the_query() {
    // Not in WAL mode: a query under way keeps the writer from committing.
    let database = Database::new("CREATE TABLE t (id INTEGER); INSERT INTO t VALUES (1)");
    database.writer.busy_timeout(Duration::ZERO).unwrap();
    for sql in [SILENT, ENDLESS] {
        let stream = database.source().rows(&model(sql)).await.unwrap();
        assert!(database.writer.execute("INSERT INTO t VALUES (2)", []).is_err());
        drop(stream);
        let free = || database.writer.execute("INSERT INTO t VALUES (2)", []).is_ok();
        warren_testkit::wait_until("the reader lets go", Duration::from_secs(20), free);
    }
}

#[tokio::test]
async fn a_read_sees_one_moment() {
    let database = Database::new(
        "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER, pad TEXT, n INTEGER);
         WITH RECURSIVE g(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM g LIMIT 50000)
         INSERT INTO t SELECT id, printf('%.200c', 'x'), 0 FROM g",
    );
    let mut stream = database.source().rows(&model("SELECT id, pad, n FROM t")).await.unwrap();
    let mut rows = stream.next().await.unwrap().unwrap().len();
    database.writer.execute_batch("UPDATE t SET n = 1; DELETE FROM t WHERE id % 2 = 0").unwrap();
    let mut changed = 0;
    while let Some(batch) = stream.next().await.unwrap() {
        rows += batch.len();
        changed += batch.rows().filter(|row| row.get(2) != warren_engine::row::Value::Int(0)).count();
    }
    assert_eq!((rows, changed), (50_000, 0));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let missing = at(&folder.path().join("none.db")).describe(&model("SELECT 1 AS id")).await.unwrap_err();
    assert_eq!((missing.kind, missing.code), (FailureKind::NotFound, codes::UNKNOWN_DATABASE));
    assert!(told(&missing).contains("there is no such file"));
    assert!(!folder.path().join("none.db").exists());
    let other = folder.path().join("letter.txt");
    std::fs::write(&other, "Dear reader, this is a letter and no database. ".repeat(40)).unwrap();
    let other = at(&other).describe(&model("SELECT 1 AS id")).await.unwrap_err();
    assert_eq!((other.kind, other.code), (FailureKind::Invalid, codes::UNKNOWN_DATABASE));
    let locked = Database::new("CREATE TABLE t (id INTEGER); BEGIN EXCLUSIVE");
    let failure = locked.source().describe(&model("SELECT id FROM t")).await.unwrap_err();
    assert_eq!((failure.kind, failure.code), (FailureKind::Throttled, codes::SOURCE_UNREACHABLE));
    assert!(source("shop", &Config::default()).is_err());
}
