//! Rows from MariaDB. What only MySQL does (JSON as a type, `max_execution_time`) is not run here.

use std::sync::Arc;
use std::time::Duration;

use warren_connectors::kit::setting::{Secret, Span};
use warren_connectors::kit::tls::TlsSettings;
use warren_connectors::mysql::{Config, source};
use warren_engine::codes;
use warren_engine::failure::FailureKind;
use warren_engine::ports::Source;
use warren_testkit::wait::wait_until_async;
use warren_testkit::{mysql, tls};

use crate::reading::{count, limited, model, one, read, told};

const SOON: Duration = Duration::from_secs(20);
/// A query that yields rows for minutes.
const ENDLESS: &str = "SELECT seq AS id, repeat('x', 100) AS pad FROM seq_1_to_1000000000";

fn at(url: &str) -> Arc<dyn Source> {
    source("shop", &Config { url: Some(Secret::new(url)), ..Config::default() }).unwrap()
}

fn connections(database: &mysql::Database) -> usize {
    let list =
        format!("SELECT count(*) FROM information_schema.processlist WHERE db = '{}'", database.name());
    mysql::sql(&mysql::url(), &list).trim().parse().unwrap()
}

#[tokio::test]
async fn every_type_comes_as_what_it_is() {
    let database = mysql::database();
    let source = at(&database.url());
    let table = [
        ("TINYINT", "-128", "integer: Int(-128)"),
        ("TINYINT UNSIGNED", "255", "integer: Int(255)"),
        ("BOOLEAN", "true", "integer: Int(1)"),
        ("SMALLINT", "-32768", "integer: Int(-32768)"),
        ("MEDIUMINT", "-8388608", "integer: Int(-8388608)"),
        ("MEDIUMINT UNSIGNED", "16777215", "integer: Int(16777215)"),
        ("INT", "-2147483648", "integer: Int(-2147483648)"),
        ("INT UNSIGNED ZEROFILL", "42", "integer: Int(42)"),
        ("INT UNSIGNED", "4294967295", "integer: Int(4294967295)"),
        ("BIGINT", "-9223372036854775808", "integer: Int(-9223372036854775808)"),
        ("BIGINT UNSIGNED", "18446744073709551615", "integer: UInt(18446744073709551615)"),
        ("YEAR", "2024", "integer: Int(2024)"),
        ("BIT(1)", "b'1'", "integer: Int(1)"),
        ("BIT(64)", "18446744073709551615", "integer: UInt(18446744073709551615)"),
        ("FLOAT", "0.1", "float: Float(0.1)"),
        ("FLOAT", "-3.40282e38", "float: Float(-3.40282e38)"),
        ("DOUBLE", "0.30000000000000004", "float: Float(0.30000000000000004)"),
        ("DECIMAL(4,2)", "-12.50", "decimal: Decimal(\"-12.50\")"),
        ("DECIMAL(3,3)", "0.001", "decimal: Decimal(\"0.001\")"),
        ("DECIMAL(8,2) ZEROFILL", "12.5", "decimal: Decimal(\"12.50\")"),
        (
            "DECIMAL(65,30)",
            "-99999999999999999999999999999999999.999999999999999999999999999999",
            "decimal: Decimal(\"-99999999999999999999999999999999999.999999999999999999999999999999\")",
        ),
        ("CHAR(4)", "'ab'", "text: Text(\"ab\")"),
        ("VARCHAR(40)", "'a ''quote'' ü🦀'", "text: Text(\"a 'quote' ü🦀\")"),
        ("VARCHAR(40) CHARACTER SET latin1", "'grün'", "text: Text(\"grün\")"),
        ("VARCHAR(40) COLLATE utf8mb4_bin", "'x'", "text: Text(\"x\")"),
        ("LONGTEXT", "''", "text: Text(\"\")"),
        ("ENUM('so so', 'sad')", "'so so'", "text: Text(\"so so\")"),
        ("SET('a', 'b')", "'b,a'", "text: Text(\"a,b\")"),
        ("JSON", "'{\"b\": 1.50}'", r#"text: Text("{\"b\": 1.50}")"#),
        (
            "UUID",
            "'6ba7b810-9dad-11d1-80b4-00c04fd430c8'",
            "text: Text(\"6ba7b810-9dad-11d1-80b4-00c04fd430c8\")",
        ),
        ("INET6", "'2001:db8::1'", "text: Text(\"2001:db8::1\")"),
        ("BINARY(3)", "x'00ff'", "bytes: Bytes([0, 255, 0])"),
        ("VARBINARY(3)", "x'00ff'", "bytes: Bytes([0, 255])"),
        ("BLOB", "''", "bytes: Bytes([])"),
        ("DATE", "'1969-12-31'", "date: Date(-1)"),
        ("DATE", "'9999-12-31'", "date: Date(2932896)"),
        ("DATE", "'0000-00-00'", "date: Text(\"0000-00-00\")"),
        ("DATE", "'2020-00-00'", "date: Text(\"2020-00-00\")"),
        ("DATETIME", "'0000-00-00'", "date and time: Text(\"0000-00-00 00:00:00\")"),
        ("DATETIME(6)", "'1970-01-01 00:00:00.5'", "date and time: DateTime(500000)"),
        ("DATETIME", "'1000-01-01'", "date and time: DateTime(-30610224000000000)"),
        ("TIMESTAMP", "'2024-02-29 12:00:00'", "timestamp: Timestamp(1709200800000000, 0)"),
        ("TIMESTAMP(3)", "'2024-02-29 12:00:00.25'", "timestamp: Timestamp(1709200800250000, 0)"),
        ("TIMESTAMP", "0", "timestamp: Text(\"0000-00-00 00:00:00\")"),
        ("TIME", "'23:59:59'", "time: Time(86399000000)"),
        ("TIME(6)", "'00:00:00.000001'", "time: Time(1)"),
        ("TIME", "'-838:59:59'", "time: Text(\"-838:59:59\")"),
        ("TIME(3)", "'24:00:00.5'", "time: Text(\"24:00:00.500000\")"),
    ];
    for (kind, literal, expected) in table {
        // What the writer calls noon is ten o'clock in UTC.
        database.sql(&format!(
            "SET sql_mode = ''; SET time_zone = '+02:00';
             DROP TABLE IF EXISTS t; CREATE TABLE t (v {kind} NULL) CHARACTER SET utf8mb4; INSERT INTO t VALUES ({literal})"
        ));
        assert_eq!(one(&*source, "SELECT v FROM t").await, expected, "{kind} {literal}");
        database.sql("UPDATE t SET v = NULL");
        // A TIMESTAMP that takes no NULL takes the time of the update.
        if !kind.starts_with("TIMESTAMP")
            || one(&*source, "SELECT v IS NULL AS n FROM t").await == "integer: Int(1)"
        {
            let null = one(&*source, "SELECT v FROM t").await;
            assert!(null.ends_with(": Null"), "{kind}: {null}");
        }
    }
    let point = one(&*source, "SELECT ST_GeomFromText('POINT(1 2)') AS v").await;
    assert!(point.starts_with("bytes: Bytes(["), "{point}");
    assert_eq!(one(&*source, "SELECT NULL AS v").await, "text: Null");
    assert_eq!(one(&*source, "SELECT 1.0 / 3 AS v").await, "decimal: Decimal(\"0.33333\")");
}

#[tokio::test]
async fn queries_are_taken_as_people_write_them() {
    let database = mysql::database();
    let source = at(&database.url());
    for sql in [
        "SELECT 1 AS v;",
        "SELECT 1 AS v; -- the end",
        "SELECT 1 AS v # the end",
        "/* first; */ (SELECT 1 AS v) /* last */",
        "WITH t AS (SELECT 1 AS v) SELECT * FROM t",
    ] {
        assert_eq!(one(&*source, sql).await, "integer: Int(1)", "{sql}");
    }
    assert!(read(&*source, "SELECT 1 AS v FROM dual WHERE false").await.unwrap().rows.is_empty());
}

#[tokio::test]
async fn a_query_that_is_refused_says_where_and_why() {
    let database = mysql::database();
    database.sql(
        "CREATE TABLE t (id int); CREATE SEQUENCE s;\nDELIMITER //\n\
         CREATE FUNCTION writes() RETURNS int MODIFIES SQL DATA BEGIN INSERT INTO t VALUES (1); RETURN 1; END //\n",
    );
    let source = at(&database.url());
    let table = [
        (
            "SELECT id\nFROM t WHERRE id = 1",
            "query-failed | describe the query of model `m` (line 2 of the query): You have an error in your SQL syntax; check the manual that corresponds to your MariaDB server version for the right syntax to use near 'id = 1' at line 2 (error 1064, SQLSTATE 42000), in `FROM t WHERRE id = 1` | Run the query with the mysql client as the same user, and mend it there.",
        ),
        (
            "SELECT 1 AS a, 2 AS a",
            "duplicate-column | describe the query of model `m`: the query yields two columns named `a` | Give one of them another name: … AS another_a.",
        ),
        (
            "SELECT ? AS a",
            "query-failed | describe the query of model `m`: the query has parameters such as `?` | Write the value into the query, by a variable of the configuration if it must vary.",
        ),
        (
            "ANALYZE TABLE t",
            "query-failed | describe the query of model `m`: the statement is no query | Warren only reads: give a SELECT, WITH … SELECT or VALUES.",
        ),
        (
            "SELECT 1 AS a INTO @a",
            "query-failed | describe the query of model `m`: the query yields no columns | Give a SELECT, WITH … SELECT or VALUES.",
        ),
    ];
    for (sql, expected) in table {
        assert_eq!(told(&read(&*source, sql).await.unwrap_err()), expected);
    }
    // Where the server saw it is put in other words by other versions.
    let unknown = told(&read(&*source, "SELECT nope FROM t").await.unwrap_err());
    assert!(
        unknown.starts_with("query-failed | describe the query of model `m`: Unknown column 'nope' in "),
        "{unknown}"
    );
    assert_eq!(read(&*source, "SELECT 1 AS a; SELECT 2 AS b").await.unwrap_err().code, codes::QUERY_FAILED);
    for sql in ["SELECT writes() AS id", "SELECT nextval(s) AS id"] {
        let failure = read(&*source, sql).await.unwrap_err();
        assert!(told(&failure).contains("Warren only reads"), "{sql}: {failure}");
        assert_eq!(failure.kind, FailureKind::Refused);
    }
    assert_eq!(database.sql("SELECT count(*) FROM t").trim(), "0");
}

#[tokio::test]
async fn a_query_that_fails_half_way_is_an_error_and_no_end() {
    let database = mysql::database();
    let source = at(&database.url());
    let sql = "SELECT seq AS id, repeat('x', 1000) AS pad, (SELECT 1 FROM (SELECT 1 UNION SELECT 2) two WHERE seq = 5000) AS bad
               FROM seq_1_to_10000";
    let mut stream = source.rows(&model(sql)).await.unwrap();
    let (rows, failure) = count(&mut *stream).await;
    let failure = failure.unwrap();
    assert!(rows < 5000);
    assert_eq!(failure.code, codes::QUERY_INTERRUPTED, "{failure}");
    assert!(failure.to_string().contains("Subquery returns more than 1 row"), "{failure}");
}

#[tokio::test]
async fn a_connection_that_is_cut_is_an_error_and_no_end() {
    let database = mysql::database();
    let source = at(&database.url());
    let mut stream = source.rows(&model(ENDLESS)).await.unwrap();
    stream.next().await.unwrap().unwrap();
    database.disconnect();
    let (_, failure) = count(&mut *stream).await;
    let failure = failure.unwrap();
    assert_eq!(failure.code, codes::QUERY_INTERRUPTED, "{failure}");
    assert_eq!(failure.kind, FailureKind::Disconnected);
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_ended() {
    let database = mysql::database();
    let source = at(&database.url());
    let limit = Duration::from_millis(300);
    let (_, failure) =
        count(&mut *source.rows(&limited("SELECT sleep(60) AS id", limit)).await.unwrap()).await;
    assert_eq!(failure.unwrap().code, codes::QUERY_TIMEOUT);
    let (_, failure) = count(&mut *source.rows(&limited(ENDLESS, limit)).await.unwrap()).await;
    let failure = failure.unwrap();
    assert_eq!(failure.code, codes::QUERY_TIMEOUT);
    assert!(
        failure.to_string().ends_with("it took longer than 300ms, which the model's `timeout` allows"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_query_with_a_filled_value_is_not_quoted() {
    let database = mysql::database();
    let source = at(&database.url());
    // Longer than what the server quotes, so that it cuts the value off.
    let secret = "sw0rdfish".repeat(12);
    for sql in [
        format!("SELECT x '{secret}' FROM"),
        format!("SELECT '{secret}' AS id FROM nope"),
        format!("SELECT {secret} AS id"),
    ] {
        warren_engine::redact::hide([secret.as_str()]);
        warren_engine::redact::hide_text(&sql);
        let failure = read(&*source, &sql).await.unwrap_err();
        let text = format!("{failure} {:?}", failure.remedy);
        assert!(!text.to_lowercase().contains("sw0rd"), "{text}");
        assert!(text.contains("SQLSTATE"), "{text}");
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_ends_the_query() {
    let database = mysql::database();
    let source = at(&database.url());
    let mut sending = source.rows(&model(ENDLESS)).await.unwrap();
    sending.next().await.unwrap().unwrap();
    let computing = source.rows(&model("SELECT sleep(600) AS id")).await.unwrap();
    assert_eq!(connections(&database), 2);
    drop(sending);
    drop(computing);
    wait_until_async("both connections are gone", SOON, async || connections(&database) == 0).await;
}

#[tokio::test]
async fn a_read_sees_one_moment() {
    let database = mysql::database();
    database.sql("CREATE TABLE t (id int, pad varchar(200), n int) ENGINE = InnoDB; INSERT INTO t SELECT seq, repeat('x', 200), 0 FROM seq_1_to_50000");
    let source = at(&database.url());
    let mut stream = source.rows(&model("SELECT id, pad, n FROM t")).await.unwrap();
    let mut rows = stream.next().await.unwrap().unwrap().len();
    database.sql("UPDATE t SET n = 1; DELETE FROM t WHERE id % 2 = 0; INSERT INTO t VALUES (0, '', 1)");
    let mut changed = 0;
    while let Some(batch) = stream.next().await.unwrap() {
        rows += batch.len();
        changed += batch.rows().filter(|row| row.get(2) != warren_engine::row::Value::Int(0)).count();
    }
    assert_eq!((rows, changed), (50_000, 0));
}

#[tokio::test]
async fn who_is_not_let_in_is_told_why() {
    let database = mysql::database();
    let url = database.url();
    let table = [
        (url.replace(":secret@", ":wrong@"), codes::SOURCE_REFUSED_LOGIN, "Access denied for user 'warren'"),
        (
            url.replace(database.name(), "no_such_db"),
            codes::UNKNOWN_DATABASE,
            "Unknown database 'no_such_db'",
        ),
        ("mysql://warren:secret@127.0.0.1:1/x".to_owned(), codes::SOURCE_UNREACHABLE, "Connection refused"),
        (
            "mysql://warren:secret@no-such-host.invalid/x".to_owned(),
            codes::SOURCE_UNREACHABLE,
            "failed to lookup address",
        ),
    ];
    for (url, code, words) in table {
        let failure = at(&url).describe(&model("SELECT 1 AS id")).await.unwrap_err();
        let told = told(&failure);
        assert_eq!(failure.code, code, "{told}");
        assert!(told.contains(words), "{told}");
        assert!(!format!("{failure:?}").contains("secret"), "{failure:?}");
    }
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Config {
        url: Some(Secret::new(format!("mysql://warren@{}/x", silent.local_addr().unwrap()))),
        connect_timeout: Some(Span(Duration::from_millis(200))),
        ..Config::default()
    };
    let failure = source("shop", &config).unwrap().describe(&model("SELECT 1 AS id")).await.unwrap_err();
    assert_eq!((failure.kind, failure.code), (FailureKind::Timeout, codes::SOURCE_UNREACHABLE));
}

#[tokio::test]
async fn tls_knows_the_server_by_its_authority_and_name() {
    let url = mysql::tls_url();
    let with = |tls: TlsSettings| {
        source("shop", &Config { url: Some(Secret::new(url.as_str())), tls: Some(tls), ..Config::default() })
            .unwrap()
    };
    let ca = |path: std::path::PathBuf| TlsSettings {
        ca: Some(path.to_str().unwrap().to_owned()),
        ..TlsSettings::default()
    };
    let shown = read(&*with(ca(tls::ca())), "SHOW SESSION STATUS LIKE 'Ssl_cipher'").await.unwrap();
    assert!(shown.rows[0][1].contains("TLS_"), "{shown:?}");
    let refused = [
        (with(ca(tls::stranger_ca())), codes::TLS_FAILED, "UnknownIssuer"),
        (
            with(TlsSettings { server_name: Some("db.example.com".into()), ..ca(tls::ca()) }),
            codes::TLS_FAILED,
            "not valid for name",
        ),
        (at(&url), codes::SOURCE_REFUSED_LOGIN, "Access denied"),
    ];
    for (source, code, words) in refused {
        let failure = source.describe(&model("SELECT 1 AS id")).await.unwrap_err();
        let told = told(&failure);
        assert_eq!(failure.code, code, "{told}");
        assert!(told.contains(words), "{told}");
    }
}
