//! Rows from PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use warren_connectors::kit::setting::Secret;
use warren_connectors::kit::tls::TlsSettings;
use warren_connectors::postgres::{Config, source};
use warren_engine::codes;
use warren_engine::failure::FailureKind;
use warren_engine::ports::Source;
use warren_testkit::{pg, tls, wait_until};

use crate::reading::{count, limited, model, one, read, told};

const SOON: Duration = Duration::from_secs(20);

fn at(url: &str) -> Arc<dyn Source> {
    source("shop", &Config { url: Some(Secret::new(url)), ..Config::default() }).unwrap()
}

/// A query that yields rows for minutes, and the first ones at once (in FROM the series would be stored first).
const ENDLESS: &str = "SELECT generate_series(1, 1000000000) AS id, repeat('x', 100) AS pad";

#[tokio::test]
async fn every_type_comes_as_what_it_is() {
    let database = pg::database();
    pg::sql(
        &database.admin_url(),
        "CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION ltree",
    );
    database.sql(
        "CREATE TYPE mood AS ENUM ('sad', 'so so');
         CREATE DOMAIN email AS varchar(40) CHECK (value LIKE '%@%');
         CREATE DOMAIN emails AS email[];
         CREATE DOMAIN addresses AS inet[];
         CREATE DOMAIN ranges AS int4range[];
         CREATE TYPE point3 AS (x int, y numeric, name text)",
    );
    let source = at(&database.url());
    let table = [
        ("true", "boolean: Bool(true)"),
        ("(-32768)::int2", "integer: Int(-32768)"),
        ("(-2147483648)::int4", "integer: Int(-2147483648)"),
        ("(-9223372036854775808)::int8", "integer: Int(-9223372036854775808)"),
        ("9223372036854775807::int8", "integer: Int(9223372036854775807)"),
        ("4294967295::oid", "integer: Int(4294967295)"),
        ("0.1::float4", "float: Float(0.1)"),
        ("'-3.4028235e38'::float4", "float: Float(-3.4028235e38)"),
        ("'1e-45'::float4", "float: Float(1e-45)"),
        ("0.1::float8 + 0.2::float8", "float: Float(0.30000000000000004)"),
        ("'NaN'::float8", "float: Float(NaN)"),
        ("'-Infinity'::float4", "float: Float(-inf)"),
        ("0::numeric", "decimal: Decimal(\"0\")"),
        ("-12.50::numeric", "decimal: Decimal(\"-12.50\")"),
        ("0.000000000000000000010::numeric", "decimal: Decimal(\"0.000000000000000000010\")"),
        (
            "12345678901234567890123456789012345678.90::numeric(40,2)",
            "decimal: Decimal(\"12345678901234567890123456789012345678.90\")",
        ),
        ("1e30::numeric", "decimal: Decimal(\"1000000000000000000000000000000\")"),
        ("'NaN'::numeric", "decimal: Float(NaN)"),
        ("'Infinity'::numeric", "decimal: Float(inf)"),
        ("1234.5::money", "decimal: Decimal(\"1234.50\")"),
        ("'a ''quote'' ü🦀'::text", "text: Text(\"a 'quote' ü🦀\")"),
        ("''::varchar(3)", "text: Text(\"\")"),
        ("'ab'::char(4)", "text: Text(\"ab  \")"),
        ("'x'::\"char\"", "text: Text(\"x\")"),
        ("'pg_class'::name", "text: Text(\"pg_class\")"),
        ("'so so'::mood", "text: Text(\"so so\")"),
        ("'A@b'::citext", "text: Text(\"A@b\")"),
        ("'a@b'::email", "text: Text(\"a@b\")"),
        ("'{a@b,NULL}'::emails", "array: [Text(\"a@b\"), Null]"),
        ("'{10.0.0.1}'::addresses", "array: [Text(\"10.0.0.1\")]"),
        ("'{\"[1,2)\"}'::ranges", "array: [Text(\"[1,2)\")]"),
        ("ARRAY['{\"[1,2)\"}'::ranges]", "text: Text(\"{\\\"{\\\\\\\"[1,2)\\\\\\\"}\\\"}\")"),
        ("'\\x00ff'::bytea", "bytes: Bytes([0, 255])"),
        ("'1969-12-31'::date", "date: Date(-1)"),
        ("'4713-01-01 BC'::date", "date: Date(-2440550)"),
        ("'infinity'::date", "date: Text(\"infinity\")"),
        ("'-infinity'::timestamptz", "timestamp: Text(\"-infinity\")"),
        ("'24:00:00'::time", "time: Time(86400000000)"),
        ("'00:00:00.000001'::time", "time: Time(1)"),
        ("'12:30:00+05:30'::timetz", "text: Text(\"12:30:00+05:30\")"),
        ("'1970-01-01 00:00:00.5'::timestamp", "date and time: DateTime(500000)"),
        (
            "'294276-12-31 23:59:59.999999'::timestamp",
            "date and time: Text(\"294276-12-31T23:59:59.999999\")",
        ),
        ("'2024-02-29 12:00:00+02'::timestamptz", "timestamp: Timestamp(1709200800000000, 0)"),
        ("'1 year 2 months -3 days 04:05:06.789'::interval", "text: Text(\"P1Y2M-3DT4H5M6.789S\")"),
        ("'6ba7b810-9dad-11d1-80b4-00c04fd430c8'::uuid", "uuid: Uuid(6ba7b8109dad11d180b400c04fd430c8)"),
        ("'{\"b\": 1.50, \"a\":null}'::json", r#"json: Json("{\"b\": 1.50, \"a\":null}")"#),
        ("'{\"b\": 1.50, \"a\":null}'::jsonb", r#"json: Json("{\"a\": null, \"b\": 1.50}")"#),
        ("'<a>ü</a>'::xml", "text: Text(\"<a>ü</a>\")"),
        ("'10.0.0.0/8'::inet", "text: Text(\"10.0.0.0/8\")"),
        ("'10.0.0.0/8'::cidr", "text: Text(\"10.0.0.0/8\")"),
        ("'10.0.0.1'::cidr", "text: Text(\"10.0.0.1/32\")"),
        ("'2001:db8::1/64'::inet", "text: Text(\"2001:db8::1/64\")"),
        ("'::ffff:10.1.2.3'::inet", "text: Text(\"::ffff:10.1.2.3\")"),
        ("'08:00:2b:01:02:03'::macaddr", "text: Text(\"08:00:2b:01:02:03\")"),
        ("B'101'::bit(3)", "text: Text(\"101\")"),
        ("B''::varbit", "text: Text(\"\")"),
        ("'[1,5)'::int4range", "text: Text(\"[1,5)\")"),
        ("'{[1,5),[7,8)}'::int4multirange", "text: Text(\"{[1,5),[7,8)}\")"),
        ("ROW(1, 2.50, 'a b')::point3", "text: Text(\"(1,2.50,\\\"a b\\\")\")"),
        ("ROW(1, NULL)", "text: Text(\"(1,)\")"),
        ("'a=>1'::hstore", "text: Text(\"\\\"a\\\"=>\\\"1\\\"\")"),
        ("'Top.Science'::ltree", "text: Text(\"Top.Science\")"),
        ("'(1,2)'::point", "text: Text(\"(1,2)\")"),
        ("'a & b'::tsquery", "text: Text(\"'a' & 'b'\")"),
        ("'pg_class'::regclass", "text: Text(\"pg_class\")"),
        ("'0/1'::pg_lsn", "text: Text(\"0/1\")"),
        ("NULL", "text: Null"),
        ("NULL::numeric", "decimal: Null"),
        ("NULL::inet", "text: Null"),
        ("NULL::int[]", "array: Null"),
        ("'{}'::int[]", "array: []"),
        ("'{{1,NULL},{3,4}}'::int8[]", "array: [[Int(1), Null], [Int(3), Int(4)]]"),
        ("'[0:1]={1.5,NaN}'::numeric[]", "array: [Decimal(\"1.5\"), Float(NaN)]"),
        ("ARRAY['x', NULL, '']::text[]", "array: [Text(\"x\"), Null, Text(\"\")]"),
        ("ARRAY['{}'::jsonb]", "array: [Json(\"{}\")]"),
        ("'{sad}'::mood[]", "array: [Text(\"sad\")]"),
        ("'{10.0.0.1,NULL}'::inet[]", "array: [Text(\"10.0.0.1\"), Null]"),
        ("'{1.5}'::money[]", "array: [Decimal(\"1.50\")]"),
        ("ARRAY[ROW(1,2,'x')::point3]", "array: [Text(\"(1,2,x)\")]"),
        ("'1 2 3'::int2vector", "array: [Int(1), Int(2), Int(3)]"),
    ];
    for (expression, expected) in table {
        assert_eq!(one(&*source, &format!("SELECT {expression} AS v")).await, expected, "{expression}");
    }
}

#[tokio::test]
async fn queries_are_taken_as_people_write_them() {
    let database = pg::database();
    let source = at(&database.url());
    for sql in [
        "SELECT 1 AS v;",
        "SELECT 1 AS v; -- the end",
        "SELECT 1 AS v -- the end",
        "/* first; */ SELECT 1 AS v /* last */ ; ;",
        "WITH t AS (SELECT 1 AS v) SELECT * FROM t",
        "VALUES (1)",
        "SELECT v FROM (VALUES (1), (2)) AS t(v) ORDER BY v LIMIT 1",
    ] {
        assert_eq!(one(&*source, sql).await, "integer: Int(1)", "{sql}");
    }
    assert_eq!(
        one(&*source, "SELECT '08:00:2b:01:02:03'::macaddr AS \"a \"\"b\"\" ü\"; -- x").await,
        "text: Text(\"08:00:2b:01:02:03\")"
    );
    let ordered = read(
        &*source,
        "SELECT g AS id, '[1,2)'::int4range AS r FROM generate_series(1, 3) g ORDER BY g DESC",
    )
    .await;
    let ids: Vec<String> = ordered.unwrap().rows.into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(ids, ["Int(3)", "Int(2)", "Int(1)"]);
    assert!(read(&*source, "SELECT 1 AS v WHERE false").await.unwrap().rows.is_empty());
}

#[tokio::test]
async fn a_query_that_is_refused_says_where_and_why() {
    let database = pg::database();
    database.sql("CREATE TABLE t (id int); CREATE SEQUENCE s");
    let source = at(&database.url());
    let table = [
        (
            "SELECT id,\n       nope\nFROM t",
            "query-failed | describe the query of model `m` (line 2, column 8 of the query): column \"nope\" does not exist (SQLSTATE 42703), in `nope` | Check the column's name.",
        ),
        (
            "SELEC 1",
            "query-failed | describe the query of model `m` (line 1, column 1 of the query): syntax error at or near \"SELEC\" (SQLSTATE 42601), in `SELEC 1` | Run the query with psql as the same user, and mend it there.",
        ),
        (
            "SELECT 1 AS a, 2 AS a",
            "duplicate-column | describe the query of model `m`: the query yields two columns named `a` | Give one of them another name: … AS another_a.",
        ),
        (
            "SELECT $1::int AS a",
            "query-failed | describe the query of model `m`: the query has parameters such as `$1` | Write the value into the query, by a variable of the configuration if it must vary.",
        ),
        (
            "DELETE FROM t",
            "query-failed | describe the query of model `m`: the query yields no columns | Give a query that reads: SELECT, WITH … SELECT, TABLE or VALUES.",
        ),
        (
            "SELECT 1; SELECT 2",
            "query-failed | describe the query of model `m`: cannot insert multiple commands into a prepared statement (SQLSTATE 42601) | Run the query with psql as the same user, and mend it there.",
        ),
    ];
    for (sql, expected) in table {
        assert_eq!(told(&read(&*source, sql).await.unwrap_err()), expected);
    }
    for sql in [
        "SELECT nextval('s') AS id",
        "WITH w AS (INSERT INTO t VALUES (1) RETURNING id) SELECT id FROM w",
        "INSERT INTO t VALUES (1) RETURNING id",
    ] {
        let failure = read(&*source, sql).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused, "{sql}: {failure}");
        assert!(told(&failure).contains("Warren only reads"), "{failure}");
    }
    assert_eq!(database.sql("SELECT count(*) FROM t").trim(), "0");
    let outside = read(&*source, "SELECT 1) TO STDOUT; DROP TABLE t; --").await.unwrap_err();
    assert_eq!(outside.code, codes::QUERY_FAILED);
}

#[tokio::test]
async fn a_query_that_fails_half_way_is_an_error_and_no_end() {
    let database = pg::database();
    let source = at(&database.url());
    let sql =
        "SELECT g AS id, repeat('x', 1000) AS pad, 1 / (5000 - g) AS d FROM generate_series(1, 10000) g";
    let mut stream = source.rows(&model(sql)).await.unwrap();
    let (rows, failure) = count(&mut *stream).await;
    let failure = failure.unwrap();
    assert!(rows < 5000);
    assert_eq!(failure.code, codes::QUERY_INTERRUPTED);
    assert!(failure.to_string().contains("division by zero (SQLSTATE 22012)"), "{failure}");
    drop(stream);
    wait_until("the connection is gone", SOON, || database.connections() == 0);
}

#[tokio::test]
async fn a_connection_that_is_cut_is_an_error_and_no_end() {
    let database = pg::database();
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
    let database = pg::database();
    let source = at(&database.url());
    let limit = Duration::from_millis(300);
    let slow = "SELECT 1 AS id FROM pg_sleep(60)";
    let (_, failure) = count(&mut *source.rows(&limited(slow, limit)).await.unwrap()).await;
    assert!(told(&failure.unwrap()).starts_with(
        "query-timeout | run the query of model `m`: it took longer than 300ms, which the model's `timeout` allows"
    ));
    let (_, failure) = count(&mut *source.rows(&limited(ENDLESS, limit)).await.unwrap()).await;
    assert_eq!(failure.unwrap().code, codes::QUERY_TIMEOUT);
    let config = Config {
        url: Some(Secret::new(database.url())),
        statement_timeout: Some(warren_connectors::kit::setting::Span(limit)),
        ..Config::default()
    };
    let limited = self::source("shop", &config).unwrap();
    let (_, failure) = count(&mut *limited.rows(&model(slow)).await.unwrap()).await;
    let failure = failure.unwrap();
    assert_eq!(failure.code, codes::QUERY_TIMEOUT);
    assert!(failure.to_string().contains("the source's `statement_timeout`"), "{failure}");
}

#[tokio::test]
async fn a_query_with_a_filled_value_is_not_quoted() {
    let database = pg::database();
    let source = at(&database.url());
    let secret = "Sw0rdfish-of-mine";
    warren_engine::redact::hide([secret]);
    for sql in [
        format!("SELECT id, pgp_sym_decrypt(v, '{secret}') AS v FROM nope"),
        format!("SELECT 1 AS id,\n '{secret}' AS v,\n \"{secret}\" AS w"),
        format!("SELECT '{secret}'::int AS id"),
        format!("SELECT 1 AS id WHERE {secret}"),
    ] {
        warren_engine::redact::hide_text(&sql);
        let failure = match source.rows(&model(&sql)).await {
            Ok(mut stream) => count(&mut *stream).await.1.unwrap(),
            Err(failure) => failure,
        };
        let text = format!("{failure} {:?}", failure.remedy);
        assert!(!text.to_lowercase().contains("sw0rdfish"), "{text}");
        assert!(!text.contains("SELECT") && text.contains("SQLSTATE"), "{text}");
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_ends_the_query() {
    let database = pg::database();
    let source = at(&database.url());
    let mut sending = source.rows(&model(ENDLESS)).await.unwrap();
    sending.next().await.unwrap().unwrap();
    let computing = source.rows(&model("SELECT 1 AS id FROM pg_sleep(600)")).await.unwrap();
    assert_eq!(database.connections(), 2);
    drop(sending);
    drop(computing);
    let gone = async || database.connections() == 0;
    warren_testkit::wait::wait_until_async("both backends are gone", SOON, gone).await;
}

#[tokio::test]
async fn a_read_sees_one_moment() {
    let database = pg::database();
    database.sql(
        "CREATE TABLE t AS SELECT g AS id, repeat('x', 200) AS pad, 0 AS n FROM generate_series(1, 50000) g",
    );
    let source = at(&database.url());
    let mut stream = source.rows(&model("SELECT id, pad, n FROM t")).await.unwrap();
    let first = stream.next().await.unwrap().unwrap();
    database.sql("UPDATE t SET n = 1; DELETE FROM t WHERE id % 2 = 0; INSERT INTO t VALUES (0, '', 1)");
    let mut changed = 0;
    let mut rows = first.len();
    while let Some(batch) = stream.next().await.unwrap() {
        rows += batch.len();
        changed += batch.rows().filter(|row| row.get(2) != warren_engine::row::Value::Int(0)).count();
    }
    assert_eq!((rows, changed), (50_000, 0));
}

#[tokio::test]
async fn many_rows_do_not_pile_up() {
    let database = pg::database();
    let source = at(&database.url());
    let sql = "SELECT g AS id, repeat('x', 1000) AS pad FROM generate_series(1, 200000) g";
    let mut stream = source.rows(&model(sql)).await.unwrap();
    let before = resident_kib();
    let mut rows = 0;
    let mut most = 0;
    while let Some(batch) = stream.next().await.unwrap() {
        rows += batch.len();
        assert!(batch.size() < 300 * 1024, "a batch of {} bytes", batch.size());
        most = most.max(resident_kib());
    }
    assert_eq!(rows, 200_000);
    // 200 MB went through; other tests of this process take some memory meanwhile.
    assert!(most < before + 100 * 1024, "from {before} KiB to {most} KiB");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn who_is_not_let_in_is_told_why() {
    let database = pg::database();
    let url = database.url();
    let table = [
        (
            url.replace(":secret@", ":wrong@"),
            codes::SOURCE_REFUSED_LOGIN,
            "password authentication failed for user \"warren\"",
        ),
        (url.replace(":secret@", "@"), codes::SOURCE_REFUSED_LOGIN, "password missing"),
        (
            url.replace(database.name(), "no_such_db"),
            codes::UNKNOWN_DATABASE,
            "database \"no_such_db\" does not exist",
        ),
        (
            "postgres://warren:secret@127.0.0.1:1/x".to_owned(),
            codes::SOURCE_UNREACHABLE,
            "Connection refused",
        ),
        (
            "postgres://warren:secret@no-such-host.invalid/x".to_owned(),
            codes::SOURCE_UNREACHABLE,
            "failed to lookup address",
        ),
    ];
    for (url, code, words) in table {
        let failure = at(&url).describe(&model("SELECT 1 AS id")).await.unwrap_err();
        assert_eq!(failure.code, code, "{failure}");
        let told = told(&failure);
        assert!(told.contains(words), "{told}");
        assert!(!format!("{failure:?}").contains("secret"), "{failure:?}");
    }
    // Nobody answers: the listener takes the connection and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://warren@{}/x", silent.local_addr().unwrap());
    let config = Config {
        url: Some(Secret::new(url)),
        connect_timeout: Some(warren_connectors::kit::setting::Span(Duration::from_millis(200))),
        ..Config::default()
    };
    let failure = source("shop", &config).unwrap().describe(&model("SELECT 1 AS id")).await.unwrap_err();
    assert_eq!((failure.kind, failure.code), (FailureKind::Timeout, codes::SOURCE_UNREACHABLE));
}

fn with_tls(url: &str, tls: TlsSettings) -> Arc<dyn Source> {
    source("shop", &Config { url: Some(Secret::new(url)), tls: Some(tls), ..Config::default() }).unwrap()
}

fn ca(path: &std::path::Path) -> TlsSettings {
    TlsSettings { ca: Some(path.to_str().unwrap().to_owned()), ..TlsSettings::default() }
}

#[tokio::test]
async fn tls_knows_the_server_by_its_authority_and_name() {
    let url = pg::tls_url();
    let plain = url.replace("?sslmode=require", "?sslmode=disable");
    let encrypted = "SELECT ssl AS id FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(one(&*with_tls(&url, ca(&tls::ca())), encrypted).await, "boolean: Bool(true)");
    let refused = [
        (with_tls(&url, ca(&tls::stranger_ca())), codes::TLS_FAILED, "UnknownIssuer"),
        (at(&url), codes::TLS_FAILED, "UnknownIssuer"),
        (
            with_tls(&url, TlsSettings { server_name: Some("db.example.com".into()), ..ca(&tls::ca()) }),
            codes::TLS_FAILED,
            "not valid for name",
        ),
        (at(&plain), codes::SOURCE_REFUSED_LOGIN, "no encryption"),
    ];
    for (source, code, words) in refused {
        let failure = source.describe(&model("SELECT 1 AS id")).await.unwrap_err();
        let told = told(&failure);
        assert_eq!(failure.code, code, "{told}");
        assert!(told.contains(words), "{told}");
    }
    let mut dropped = with_tls(&url, ca(&tls::ca())).rows(&model(ENDLESS)).await.unwrap();
    dropped.next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_who_asks() {
    let url = pg::cert_url();
    let settings = TlsSettings {
        cert: Some(tls::client_certificate().to_str().unwrap().to_owned()),
        key: Some(Secret::new(std::fs::read_to_string(tls::client_key()).unwrap())),
        ..ca(&tls::ca())
    };
    let user = "SELECT current_user AS id";
    assert_eq!(one(&*with_tls(&url, settings), user).await, "text: Text(\"warren_cert\")");
    let failure = with_tls(&url, ca(&tls::ca())).describe(&model(user)).await.unwrap_err();
    assert_eq!(failure.code, codes::SOURCE_REFUSED_LOGIN, "{failure}");
}
