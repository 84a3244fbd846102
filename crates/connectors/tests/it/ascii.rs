//! PostgreSQL databases in SQL_ASCII, whose text may be any bytes.

use std::sync::Arc;

use warren_connectors::kit::setting::Secret;
use warren_connectors::postgres::{Config, source};
use warren_engine::ports::Source;
use warren_testkit::pg;

use crate::reading::{one, read, told};

/// A database of that encoding; dropped with the value.
struct Ascii {
    name: String,
}

impl Ascii {
    fn new(test: &str, encoding: &str) -> Ascii {
        let name = format!("{test}_{}", std::process::id());
        let made = format!("CREATE DATABASE {name} ENCODING {encoding} LOCALE 'C' TEMPLATE template0");
        pg::sql(&pg::admin_url(), &made);
        Ascii { name }
    }

    fn url(&self) -> String {
        format!("{}/{}", pg::admin_url().rsplit_once('/').unwrap().0, self.name)
    }

    fn source(&self) -> Arc<dyn Source> {
        source("shop", &Config { url: Some(Secret::new(self.url())), ..Config::default() }).unwrap()
    }
}

impl Drop for Ascii {
    fn drop(&mut self) {
        pg::sql(&pg::admin_url(), &format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

#[tokio::test]
async fn text_that_is_not_utf8_is_bytes_in_every_type() {
    let database = Ascii::new("ascii_types", "SQL_ASCII");
    pg::sql(
        &database.url(),
        r"CREATE TYPE pair AS (a int, b text);
          CREATE DOMAIN label AS varchar(9);
          CREATE DOMAIN labels AS label[]",
    );
    let source = database.source();
    let table = [
        (r"E'a\xff'::text", "text: Bytes([97, 255])"),
        (r"'plain'::text", "text: Text(\"plain\")"),
        // UTF-8 is text here too.
        (r"E'\xc3\xbc'::text", "text: Text(\"ü\")"),
        (r"E'a\xff'::varchar(5)", "text: Bytes([97, 255])"),
        (r"E'\xff'::char(2)", "text: Bytes([255, 32])"),
        (r"E'a\xff'::name", "text: Bytes([97, 255])"),
        (r"E'a\xff'::label", "text: Bytes([97, 255])"),
        (r"ARRAY[E'a\xff', 'b', NULL]::text[]", "array: [Bytes([97, 255]), Text(\"b\"), Null]"),
        (r"ARRAY[E'a\xff']::labels", "array: [Bytes([97, 255])]"),
        (r"ROW(1, E'a\xff')::pair", "text: Bytes([40, 49, 44, 97, 255, 41])"),
        (r#"E'"\xff"'::json"#, "json: Bytes([34, 255, 34])"),
        ("'{\"a\": 1}'::json", "json: Json(\"{\\\"a\\\": 1}\")"),
        (r"'2024-02-29'::date", "date: Date(19782)"),
    ];
    for (expression, expected) in table {
        assert_eq!(one(&*source, &format!("SELECT {expression} AS v")).await, expected, "{expression}");
    }
}

#[tokio::test]
async fn one_row_that_is_not_utf8_does_not_stop_the_others() {
    let database = Ascii::new("ascii_rows", "SQL_ASCII");
    pg::sql(
        &database.url(),
        r"CREATE TABLE t (id text PRIMARY KEY, v text, unused text);
          INSERT INTO t VALUES ('a', E'x\xff', 'u'), (E'b\xfe', 'y', 'u'), ('c', 'z', E'\x80'), ('d', 'w', 'u')",
    );
    let source = database.source();
    let rows = read(&*source, "SELECT id, v FROM t ORDER BY v").await.unwrap().rows;
    let expected = [
        ["Text(\"d\")", "Text(\"w\")"],
        ["Text(\"a\")", "Bytes([120, 255])"],
        ["Bytes([98, 254])", "Text(\"y\")"],
        ["Text(\"c\")", "Text(\"z\")"],
    ];
    assert_eq!(rows, expected);
    assert_eq!(read(&*source, "TABLE t").await.unwrap().rows.len(), 4);
}

#[tokio::test]
async fn labels_and_names_of_types_may_be_any_bytes() {
    let database = Ascii::new("ascii_labels", "SQL_ASCII");
    pg::sql(
        &database.url(),
        r"CREATE TYPE mood AS ENUM (E'sad\xff', 'so so');
          CREATE DOMAIN moods AS mood[];
          CREATE TABLE t (id int, m mood, ms mood[], d moods, n numeric(6, 2), ts timestamptz[]);
          INSERT INTO t VALUES (1, E'sad\xff', ARRAY[E'sad\xff', NULL]::mood[], ARRAY['so so']::mood[], 1.50, '{}'),
            (2, 'so so', '{}', NULL, NULL, NULL)",
    );
    let source = database.source();
    let table = read(&*source, "SELECT * FROM t ORDER BY id; -- all").await.unwrap();
    let kinds: Vec<String> =
        table.schema.columns().iter().map(|column| format!("{} {}", column.name, column.kind)).collect();
    assert_eq!(kinds, ["id integer", "m text", "ms array", "d array", "n decimal", "ts array"]);
    let sad = "Bytes([115, 97, 100, 255])";
    let first = ["Int(1)", sad, &format!("[{sad}, Null]"), "[Text(\"so so\")]", "Decimal(\"1.50\")", "[]"];
    assert_eq!(table.rows[0], first);
    assert_eq!(table.rows[1], ["Int(2)", "Text(\"so so\")", "[]", "Null", "Null", "Null"]);
    let twice = read(&*source, "SELECT m, m FROM t").await.unwrap_err();
    assert_eq!(twice.code.as_str(), "duplicate-column");
}

#[tokio::test]
async fn other_encodings_are_converted_and_what_has_no_character_is_explained() {
    let database = Ascii::new("ascii_latin", "WIN1252");
    // 0x81 has no character in this encoding.
    pg::sql(
        &database.url(),
        "CREATE TABLE t AS SELECT 1 AS id, convert_from('\\xfc', 'WIN1252') AS v;
         CREATE TABLE bad AS SELECT 1 AS id, convert_from('\\x81', 'WIN1252') AS v",
    );
    let source = database.source();
    assert_eq!(one(&*source, "SELECT v FROM t").await, "text: Text(\"ü\")");
    let failure = told(&read(&*source, "SELECT v FROM bad").await.unwrap_err());
    assert!(failure.contains("convert_to(column, current_setting('server_encoding'))"), "{failure}");
    let bytes = "SELECT convert_to(v, current_setting('server_encoding')) AS v FROM bad";
    assert_eq!(one(&*source, bytes).await, "bytes: Bytes([129])");
}
