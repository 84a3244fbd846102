//! What a person sees when something is wrong: place, cause and remedy. And that no row is lost by it: once it is mended,
//! the next run sends every row.

use std::path::Path;
use std::process::Command;

use warren_testkit::{pg, rabbit, scratch};

use crate::program::{Ended, Program};

/// A model over PostgreSQL, a sync to RabbitMQ, and what a case changes in them.
struct World {
    folder: warren_testkit::Scratch,
    database: pg::Database,
    vhost: rabbit::Vhost,
}

/// The parts of the configuration that cases change.
struct Parts {
    database: String,
    broker: String,
    sql: String,
    sync: String,
}

const TEMPLATE: &str = r#"    message:
      template: |
        {"id": {{ row.id }}, "name": "{{ row.name }}"}
"#;

impl World {
    fn new() -> World {
        let database = pg::database();
        database.sql(
            "CREATE TABLE customers (id int, name text); INSERT INTO customers VALUES (1, 'Ada'), (2, 'Bo')",
        );
        let vhost = rabbit::vhost();
        vhost.queue("crm");
        World { folder: scratch("clear"), database, vhost }
    }

    fn parts(&self) -> Parts {
        Parts {
            database: self.database.url(),
            broker: self.vhost.url(),
            sql: "SELECT id, name FROM customers ORDER BY id".into(),
            sync: format!("    queue: crm\n{TEMPLATE}"),
        }
    }

    fn program(&self, parts: &Parts) -> Program {
        let Parts { database, broker, sql, sync } = parts;
        let text = format!(
            "sources:\n  shop: {{type: postgres, url: \"{database}\"}}\n\
             models:\n  customers:\n    source: shop\n    primary_key: id\n    sql: |\n      {sql}\n\
             brokers:\n  rabbit: {{type: rabbitmq, url: \"{broker}\", max_message_size: 16MiB}}\n\
             syncs:\n  customers:\n    model: customers\n    to: rabbit\n    on: [added, changed, removed]\n{sync}"
        );
        Program::configured(self.folder.path(), &text)
    }

    /// After all is mended: every row arrives, and nothing is left to send.
    fn mended(&self, parts: &Parts, rows: usize) {
        let program = self.program(parts);
        assert_eq!(program.run(&["sync", "customers"]).code, Some(0));
        self.vhost.wait_for_depth("crm", rows as u64, std::time::Duration::from_secs(20));
        let again = program.run(&["sync", "customers"]);
        assert!(again.stdout.contains("nothing changed"), "{again:#?}");
    }

    /// Compares what was shown with the file of the case.
    fn shown(&self, case: &str, calls: &[(&str, &Ended)]) {
        let mut text = String::new();
        for (call, ended) in calls {
            text.push_str(&format!("$ warren {call}\n"));
            text.push_str(&self.steady(&ended.stdout));
            text.push_str(&self.steady(&ended.stderr));
            text.push_str(&format!("[exit {}]\n\n", ended.code.unwrap()));
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clear").join(format!("{case}.txt"));
        warren_testkit::expected::compare(&path, &text);
    }

    /// Without what differs from run to run: addresses, folders, times.
    fn steady(&self, text: &str) -> String {
        let mut text = text.to_owned();
        let authority = |url: &str| {
            let rest = url.split_once('@').map_or(url, |(_, rest)| rest);
            rest.split(['/', '?']).next().unwrap_or_default().to_owned()
        };
        let replace = [
            (self.folder.path().display().to_string(), "FOLDER"),
            (self.database.name().to_owned(), "DATABASE"),
            (self.vhost.name().to_owned(), "VHOST"),
            (authority(&self.database.url()), "POSTGRES"),
            (authority(&self.vhost.url()), "RABBIT"),
        ];
        for (from, to) in replace {
            text = text.replace(&from, to);
        }
        let figures = [
            (r"\bin \d+(\.\d+)? m?s\b", "in TIME"),
            (r" \([\d,]+/s\)", ""),
            (r", [\d,]+/s\)", ")"),
            (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
            (r"\*{3,}.*", "***"), // what is covered is as long as the address
            (r"\b[0-9a-f]{32}\b", "CHANGE_ID"),
            (r#""timestamp":\d+"#, "\"timestamp\":TIME"),
            (r"(?m)[ ]+$", ""),
        ];
        for (pattern, to) in figures {
            text = regex::Regex::new(pattern).unwrap().replace_all(&text, to).into_owned();
        }
        text
    }
}

#[test]
fn a_wrong_database_password() {
    let world = World::new();
    let right = world.parts();
    let wrong = Parts { database: right.database.replace(":secret@", ":hunter2@"), ..world.parts() };
    let program = world.program(&wrong);
    let (check, sync) = (program.run(&["check"]), program.run(&["sync", "customers"]));
    assert!(!format!("{check:?}{sync:?}").contains("hunter2"), "a password is not shown");
    world.shown("wrong_database_password", &[("check", &check), ("sync customers", &sync)]);
    world.mended(&right, 2);
}

#[test]
fn a_wrong_broker_password() {
    let world = World::new();
    let right = world.parts();
    let wrong = Parts { broker: right.broker.replace("guest:guest@", "guest:hunter2@"), ..world.parts() };
    let program = world.program(&wrong);
    let (check, sync) = (program.run(&["check"]), program.run(&["sync", "customers"]));
    assert!(!format!("{check:?}{sync:?}").contains("hunter2"), "a password is not shown");
    world.shown("wrong_broker_password", &[("check", &check), ("sync customers", &sync)]);
    world.mended(&right, 2);
}

#[test]
fn an_unknown_vhost() {
    let world = World::new();
    let right = world.parts();
    let wrong = Parts { broker: right.broker.replace(world.vhost.name(), "nowhere"), ..world.parts() };
    let program = world.program(&wrong);
    let (check, sync) = (program.run(&["check"]), program.run(&["sync", "customers"]));
    world.shown("unknown_vhost", &[("check", &check), ("sync customers", &sync)]);
    world.mended(&right, 2);
}

#[test]
fn an_unknown_queue() {
    let world = World::new();
    let wrong = Parts { sync: format!("    queue: crn\n{TEMPLATE}"), ..world.parts() };
    let program = world.program(&wrong);
    let (check, sync) = (program.run(&["check"]), program.run(&["sync", "customers"]));
    world.shown("unknown_queue", &[("check", &check), ("sync customers", &sync)]);
    world.mended(&world.parts(), 2);
}

#[test]
fn a_template_that_cannot_be_parsed() {
    let world = World::new();
    let sync = "    queue: crm\n    message:\n      template: |\n        {\n          \"id\": {{ row.id | upcas }}\n        }\n";
    let program = world.program(&Parts { sync: sync.into(), ..world.parts() });
    world.shown("template_syntax", &[("check", &program.run(&["check"]))]);
    world.mended(&world.parts(), 2);
}

#[test]
fn an_unknown_column_in_a_template() {
    let world = World::new();
    let sync = "    queue: crm\n    message:\n      template: |\n        {\n          \"name\": \"{{ row.nmae }}\"\n        }\n";
    let program = world.program(&Parts { sync: sync.into(), ..world.parts() });
    let (check, sync) = (program.run(&["check"]), program.run(&["sync", "customers"]));
    world.shown("unknown_column", &[("check", &check), ("sync customers", &sync)]);
    world.mended(&world.parts(), 2);
}

#[test]
fn a_message_that_is_not_json() {
    let world = World::new();
    world.database.sql("UPDATE customers SET name = 'say \"hi\"' WHERE id = 2");
    let sync =
        "    queue: crm\n    message:\n      template: |\n        {\"name\": \"{{ row.name | raw }}\"}\n";
    let program = world.program(&Parts { sync: sync.into(), ..world.parts() });
    let (sync, explain) = (program.run(&["sync", "customers"]), program.run(&["explain", "2"]));
    world.shown("invalid_json", &[("sync customers", &sync), ("explain 2", &explain)]);
    world.mended(&world.parts(), 2);
}

#[test]
fn keys_that_are_null_or_not_unique() {
    let world = World::new();
    world.database.sql("INSERT INTO customers VALUES (NULL, 'Nobody'), (7, 'One'), (7, 'Two')");
    let program = world.program(&world.parts());
    let (plan, sync) =
        (program.run(&["plan", "customers", "--samples", "0"]), program.run(&["sync", "customers"]));
    world.shown(
        "null_and_duplicate_keys",
        &[("plan customers --samples 0", &plan), ("sync customers", &sync)],
    );
    world.database.sql("DELETE FROM customers WHERE id IS NULL OR name = 'Two'");
    world.mended(&world.parts(), 3);
}

#[test]
fn an_empty_result_over_a_filled_baseline() {
    let world = World::new();
    world.mended(&world.parts(), 2);
    world.database.sql("ALTER TABLE customers RENAME TO hidden; CREATE TABLE customers (id int, name text)");
    let program = world.program(&world.parts());
    let (plan, sync) = (program.run(&["plan", "customers"]), program.run(&["sync", "customers"]));
    world.shown("empty_result", &[("plan customers", &plan), ("sync customers", &sync)]);
    world.database.sql("DROP TABLE customers; ALTER TABLE hidden RENAME TO customers");
    world.mended(&world.parts(), 2);
}

#[test]
fn a_value_that_json_cannot_hold() {
    let world = World::new();
    let sql = "SELECT id, name, CASE id WHEN 2 THEN 'NaN'::float8 ELSE 1.5 END AS score FROM customers";
    let sync = "    queue: crm\n    message: {fields: all}\n";
    let parts = Parts { sql: sql.into(), sync: sync.into(), ..world.parts() };
    let sync = world.program(&parts).run(&["sync", "customers"]);
    world.shown("not_a_number", &[("sync customers", &sync)]);
    world.mended(&Parts { sync: format!("{}    nan: null\n", parts.sync), ..parts }, 2);
}

#[test]
fn a_message_of_20_mib() {
    let world = World::new();
    let sql =
        "SELECT id, CASE id WHEN 2 THEN repeat('x', 20 * 1024 * 1024) ELSE name END AS name FROM customers";
    let parts = Parts {
        sql: sql.into(),
        sync: "    queue: crm\n    message: {fields: all}\n".into(),
        ..world.parts()
    };
    let sync = world.program(&parts).run(&["sync", "customers"]);
    world.shown("message_too_large", &[("sync customers", &sync)]);
    let mended = Parts { sql: "SELECT id, left(name, 10) AS name FROM customers".into(), ..parts };
    world.mended(&mended, 2);
}

#[test]
fn a_full_disk() {
    let world = World::new();
    world.database.sql("INSERT INTO customers SELECT i, md5(i::text) FROM generate_series(3, 20000) AS i");
    let program = world.program(&world.parts());
    // A process that may write no file past 64 KiB sees what it would see on a full disk, on any machine.
    let limited = "trap '' XFSZ; ulimit -f 64; exec \"$@\"";
    let output = Command::new("bash")
        .args(["-c", limited, "limited", env!("CARGO_BIN_EXE_warren"), "-c"])
        .arg(program.config())
        .args(["sync", "customers"])
        .output()
        .unwrap();
    let ended = Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    let all = format!("{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.code, Some(1), "{all}");
    for part in ["state-unwritable", "write", "help"] {
        assert!(all.contains(part), "`{part}` is not in\n{all}");
    }
    world.vhost.purge("crm");
    let program = world.program(&world.parts());
    assert_eq!(program.run(&["sync", "customers"]).code, Some(0));
    let again = program.run(&["sync", "customers"]);
    assert!(again.stdout.contains("nothing changed"), "{again:#?}");
}

#[test]
fn a_lenient_template_takes_what_is_not_there_as_nothing() {
    let world = World::new();
    let mut parts = world.parts();
    let template =
        "      template: '{\"id\": {{ row.id }}, \"mail\": {{ row.mail }}, \"n\": {{ row.name | nope }}}'\n";
    parts.sync = format!("    queue: crm\n    message:\n{template}");
    let strict = world.program(&parts).run(&["check"]);
    assert_eq!(strict.code, Some(2), "{strict:#?}");
    parts.sync = format!("    queue: crm\n    message:\n      lax: true\n{template}");
    let program = world.program(&parts);
    assert_eq!(program.run(&["sync", "customers"]).code, Some(0));
    let bodies: Vec<_> = world.vhost.take("crm", 2).into_iter().map(|message| message.body).collect();
    assert!(bodies.contains(&br#"{"id": 1, "mail": null, "n": "Ada"}"#.to_vec()), "{bodies:?}");
}
