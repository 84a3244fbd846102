//! `--json`: every line is an object with `event`, and whatever went wrong is a line `error`, for every command and every end.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use warren_engine::codes::Code;
use warren_testkit::{Scratch, scratch};

use crate::program::{Ended, Program};

const SOON: Duration = Duration::from_secs(60);

const GOOD: &str = "sources:\n  shop: {type: sqlite, path: shop.db}\n\
     models:\n  m: {source: shop, primary_key: id, table: t}\n\
     brokers:\n  local: {type: embedded, queues: {q: {}}}\n\
     syncs:\n  s: {model: m, to: local, on: [added], queue: q, message: {fields: {id: id}}}\n\
     pipelines: {p: [{map: .body}]}\n";

const CASES: &str = "pipeline: p\ncases:\n  - {name: good, message: {body: x}, value: x}\n";

/// Every command that reads the configuration.
const COMMANDS: [&[&str]; 11] = [
    &["check"],
    &["doctor"],
    &["plan", "s"],
    &["sync", "s"],
    &["render", "s", "--key", "1"],
    &["runs"],
    &["explain", "1"],
    &["replay", "--run", "1"],
    &["queues"],
    &["serve"],
    &["pipeline", "test", "cases.yaml"],
];

fn program(config: &str) -> (Scratch, Program) {
    let folder = scratch("json");
    let database = rusqlite::Connection::open(folder.path().join("shop.db")).unwrap();
    database
        .execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b')",
        )
        .unwrap();
    std::fs::write(folder.path().join("cases.yaml"), CASES).unwrap();
    let program = Program::configured(folder.path(), config);
    (folder, program)
}

/// All lines of a call; each is an object with `event`, and each error has the documented form.
fn lines(folder: &Scratch, arguments: &[&str]) -> (Ended, Vec<Value>) {
    let output = Command::new(env!("CARGO_BIN_EXE_warren"))
        .args(arguments)
        .arg("--json")
        .current_dir(folder.path())
        .env_remove("WARREN_LOG")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let ended = Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    let lines = checked(&ended.stdout, &format!("{arguments:?}"));
    (ended, lines)
}

fn checked(stdout: &str, of: &str) -> Vec<Value> {
    let lines = stdout.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{of}: {error}: {line}"));
        let event = line["event"].as_str().unwrap_or_else(|| panic!("{of}: no event: {line:#}"));
        if ["error", "warning", "note"].contains(&event) {
            assert_eq!(line["severity"], event, "{of}: {line:#}");
            assert!(line["code"].as_str().and_then(Code::from_name).is_some(), "{of}: {line:#}");
            assert!(line["message"].as_str().is_some_and(|text| !text.is_empty()), "{of}: {line:#}");
            for key in ["place", "detail", "help"] {
                let value = line.get(key).unwrap_or_else(|| panic!("{of}: no {key}: {line:#}"));
                assert!(value.is_string() || value.is_null(), "{of}: {key}: {line:#}");
            }
        }
        line
    });
    lines.collect()
}

/// The codes of the errors.
fn errors(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter(|line| line["event"] == "error").map(|line| line["code"].as_str().unwrap()).collect()
}

fn assert_ends(folder: &Scratch, arguments: &[&str], code: i32, wanted: &[&str]) {
    let (ended, lines) = lines(folder, arguments);
    assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:#?}");
    let errors = errors(&lines);
    assert_eq!(errors, wanted, "{arguments:?}: {lines:#?}");
    assert!(!ended.stderr.contains("error["), "{arguments:?}: {ended:#?}");
}

#[test]
fn each_fault_of_a_configuration_is_a_line_in_every_command() {
    let (folder, _program) = program(&format!("{GOOD}sorces: {{}}\nhubb: {{}}\n"));
    for command in COMMANDS {
        assert_ends(&folder, command, 2, &["unknown-key", "unknown-key"]);
    }
    let (_, lines) = lines(&folder, &["check"]);
    assert_eq!(
        (&lines[0]["place"], &lines[0]["line"], &lines[0]["file"]),
        (&"warren.yaml:10:1".into(), &10.into(), &"warren.yaml".into())
    );
    assert_eq!(lines[0]["help"], "did you mean `sources`?");
}

#[test]
fn a_configuration_that_is_missing_is_one_line_in_every_command() {
    let folder = scratch("json");
    for command in COMMANDS {
        assert_ends(&folder, command, 2, &["config-unreadable"]);
    }
}

#[test]
fn a_command_line_that_is_wrong_is_one_line() {
    let (folder, _program) = program(GOOD);
    let others: [&[&str]; 7] = [
        &["init"],
        &["schema"],
        &["demo"],
        &["hub", "hash-password"],
        &["completions", "bash"],
        &["chek"],
        &["sync", "s", "--all"],
    ];
    for command in COMMANDS.iter().chain(&others) {
        assert_ends(&folder, &[command, &["--nope"][..]].concat(), 2, &["invalid-arguments"]);
    }
    for command in
        [&["sync"][..], &["plan"], &["hub"], &[], &["runs", "--limit", "x"], &["check", "--color", "x"]]
    {
        assert_ends(&folder, command, 2, &["invalid-arguments"]);
    }
    // Behind `--` it is no option.
    let output = Command::new(env!("CARGO_BIN_EXE_warren")).args(["chek", "--", "--json"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]));
}

#[test]
fn a_name_that_does_not_exist_is_one_line() {
    let (folder, _program) = program(GOOD);
    for (command, code) in [
        (&["plan", "x"][..], 2),
        (&["sync", "x"], 2),
        (&["render", "x", "--key", "1"], 2),
        (&["render", "s", "--key", "9"], 2),
        (&["queues", "x"], 2),
        (&["runs", "99"], 2),
        (&["runs", "m99"], 2),
        (&["explain", "99"], 1),
        (&["init", "-c", "new.yaml", "--example", "x"], 2),
        (&["pipeline", "test", "cases.yaml", "--only", "x"], 1),
    ] {
        assert_ends(&folder, command, code, &["unknown-name"]);
    }
    assert_ends(&folder, &["replay"], 2, &["invalid-value"]);
    assert_ends(&folder, &["runs", "x"], 2, &["invalid-value"]);
    assert_ends(&folder, &["init"], 2, &["invalid-value"]);
    assert_ends(&folder, &["hub", "hash-password"], 2, &["invalid-value"]);
    assert_ends(&folder, &["pipeline", "test", "gone.yaml"], 2, &["config-unreadable"]);
    assert_ends(&folder, &["render", "--template", "gone", "--row", "gone"], 2, &["invalid-value"]);
}

#[test]
fn a_source_that_fails_is_one_line() {
    let (folder, _program) = program(&GOOD.replace("shop.db", "gone.db"));
    for command in
        [&["check"][..], &["doctor"], &["plan", "s"], &["sync", "s"], &["render", "s", "--key", "1"]]
    {
        assert_ends(&folder, command, 1, &["unknown-database"]);
    }
    let (folder, _program) = program(&GOOD.replace("table: t", "sql: \"SELECT id FROM gone\""));
    for command in
        [&["check"][..], &["doctor"], &["plan", "s"], &["sync", "s"], &["render", "s", "--key", "1"]]
    {
        assert_ends(&folder, command, 1, &["query-failed"]);
    }
}

#[test]
fn a_broker_that_fails_is_one_line() {
    // Nothing listens on the port of a listener that is gone.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rabbit = format!("{{type: rabbitmq, url: \"amqp://{nowhere}\"}}");
    let config = GOOD.replace("{type: embedded, queues: {q: {}}}", &rabbit);
    let (folder, program) = program(&config.replace("on: [added]", "on: [added], give_up_after: 1s"));
    for command in [&["check"][..], &["doctor"]] {
        assert_ends(&folder, command, 1, &["broker-unreachable"]);
    }
    let (ended, of_queues) = lines(&folder, &["queues"]);
    assert!(ended.code != Some(0) && errors(&of_queues).len() == 1, "{ended:#?}");
    assert_ends(&folder, &["sync", "s"], 5, &["gave-up"]);
    std::fs::write(program.config(), config).unwrap();
    // A signal ends it in good order.
    let mut running = program.start(&["sync", "s"]);
    running.wait_for("it waits for the broker", SOON, |event| event["event"] == "waiting");
    running.signal("TERM");
    let ended = running.end_within(SOON);
    assert_eq!(ended.code, Some(5), "{ended:#?}");
    assert_eq!(errors(&checked(&ended.stdout, "sync")), ["cancelled"], "{ended:#?}");
    assert!(
        ended
            .stderr
            .contains("shutting down gracefully; press Ctrl-C again to exit immediately (no data is lost)"),
        "{ended:#?}"
    );
}

#[test]
fn a_state_that_is_damaged_is_one_line() {
    let (folder, _program) = program(GOOD);
    std::fs::create_dir(folder.path().join(".warren")).unwrap();
    std::fs::write(folder.path().join(".warren/state.db"), "x".repeat(8192)).unwrap();
    for command in COMMANDS {
        match command[0] {
            "queues" | "serve" | "pipeline" => {}
            _ => assert_ends(&folder, command, 1, &["state-damaged"]),
        }
    }
}

#[test]
fn a_guard_and_a_row_that_is_rejected_are_told() {
    let (folder, _program) = program(&GOOD.replace("on: [added]", "on: [added], guard: {total: 1}"));
    assert_ends(&folder, &["plan", "s"], 4, &["guard-exceeded"]);
    assert_ends(&folder, &["sync", "s"], 4, &["guard-exceeded"]);
    let template = "message: {template: '{\"a\": {{ row.id | divided_by: 0 }}}'}";
    let (folder, _program) = program(&GOOD.replace("message: {fields: {id: id}}", template));
    assert_ends(&folder, &["render", "s", "--key", "1"], 3, &["template-failed"]);
    let (_, lines) = lines(&folder, &["sync", "s"]);
    assert_eq!(lines.iter().filter(|line| line["event"] == "rejected").count(), 2, "{lines:#?}");
}

#[test]
fn what_went_well_has_its_event_in_every_command() {
    let (folder, program) = program(GOOD);
    std::fs::write(folder.path().join("t.liquid"), "{\"a\": {{ row.id }}}").unwrap();
    std::fs::write(folder.path().join("row.json"), "{\"id\": 1}").unwrap();
    for (command, event) in [
        (&["check"][..], "checked"),
        (&["check", "--offline"], "checked"),
        (&["doctor"], "examined"),
        (&["plan", "s"], "plan"),
        (&["sync", "s"], "ended"),
        (&["render", "s", "--key", "1"], "rendered"),
        (&["render", "--template", "t.liquid", "--row", "row.json"], "rendered"),
        (&["runs"], "run"),
        (&["runs", "1"], "run"),
        (&["explain", "1"], "row"),
        (&["replay", "--run", "1"], "ended"),
        (&["queues"], "queue"),
        (&["pipeline", "test", "cases.yaml"], "case"),
        (&["init", "-c", "new.yaml"], "written"),
        (&["init", "--example", "list"], "example"),
        (&["demo", "--once", "--folder", "demo"], "ended"),
    ] {
        let (ended, lines) = lines(&folder, command);
        assert_eq!(ended.code, Some(0), "{command:?}: {ended:#?}");
        assert_eq!(lines.last().unwrap()["event"], event, "{command:?}: {lines:#?}");
        assert_eq!(errors(&lines), [""; 0], "{command:?}: {lines:#?}");
    }
    let trigger = "triggers:\n  t: {from: local, queue: q, dead_letter: drop, pipeline: p}\nhttp: {listen: \"127.0.0.1:0\"}\n";
    std::fs::write(program.config(), format!("{GOOD}{trigger}")).unwrap();
    let mut running = program.start(&["serve"]);
    running.wait_for("it serves", SOON, |event| event["event"] == "serving");
    running.signal("TERM");
    let ended = running.end_within(SOON);
    let lines = checked(&ended.stdout, "serve");
    assert_eq!((ended.code, &lines.last().unwrap()["event"]), (Some(0), &"stopped".into()), "{ended:#?}");
}
