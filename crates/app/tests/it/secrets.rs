//! What variables and files filled into a configuration stays out of everything that is shown, logged or stored.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use warren_config::{Environment, load_with};
use warren_testkit::scratch;

const SECRET: &str = "sw0rdfish-of-the-tests";
/// The same as the configuration's file, with a line break at its end.
const LINES: &str = "first-line-of-it\nsecond-line-of-it\n";

/// A configuration over SQLite and the embedded broker, whose texts hold variables.
struct World {
    folder: warren_testkit::Scratch,
}

impl World {
    fn new(models: &str, syncs: &str) -> World {
        let folder = scratch("secrets");
        let database = rusqlite::Connection::open(folder.path().join("shop.db")).unwrap();
        database
            .execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a')")
            .unwrap();
        std::fs::write(folder.path().join("token"), LINES).unwrap();
        let text = format!(
            "sources:\n  shop: {{type: sqlite, path: shop.db}}\nmodels:\n{models}\
             brokers:\n  local: {{type: embedded, queues: {{q: {{}}}}}}\nsyncs:\n{syncs}"
        );
        std::fs::write(folder.path().join("warren.yaml"), text).unwrap();
        World { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// All that a call shows, with everything logged.
    fn call(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_warren"))
            .arg("-c")
            .arg(self.path().join("warren.yaml"))
            .args(arguments)
            .env("TOKEN", SECRET)
            .env("WARREN_LOG", "trace")
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.code(), text)
    }

    /// Calls all commands that may come upon a fault of a sync, and looks at what they show and store.
    fn nothing_shows(&self, sync: &str) {
        self.no_output_shows(sync);
        for name in ["state.db", "state.db-wal"] {
            let Ok(bytes) = std::fs::read(self.path().join(".warren").join(name)) else { continue };
            assert_clean(&String::from_utf8_lossy(&bytes), name);
        }
    }

    fn no_output_shows(&self, sync: &str) {
        let plan = self.path().join("plan.json").display().to_string();
        for arguments in [
            &["check"][..],
            &["check", "--json"],
            &["check", "--offline"],
            &["plan", sync],
            &["plan", sync, "--json", "--out", &plan],
            &["render", sync, "--key", "1"],
            &["sync", sync],
            &["sync", sync, "--json"],
            &["runs"],
            &["runs", "1", "--json"],
            &["explain", "1"],
            &["explain", "1", "--json"],
            &["doctor"],
            &["doctor", "--json"],
        ] {
            let (_, text) = self.call(arguments);
            assert_clean(&text, &format!("{arguments:?}"));
        }
        let plan = std::fs::read_to_string(plan).unwrap_or_default();
        assert_clean(&plan, "the plan");
    }
}

fn assert_clean(text: &str, of: &str) {
    for secret in [SECRET, "first-line-of-it", "second-line-of-it", "sw0rdfish"] {
        assert!(!text.to_lowercase().contains(secret), "{of} shows {secret}:\n{text}");
    }
}

const MODEL: &str = "  m: {source: shop, primary_key: id, table: t}\n";

fn sync(keys: &str) -> String {
    format!("  s:\n    model: m\n    to: local\n    on: [added, changed]\n{keys}")
}

#[test]
fn a_value_in_a_query_that_is_refused_is_not_shown() {
    for sql in [
        "select id, f('${TOKEN}') as v from nope",
        "select id, '${TOKEN}' as v from t where",
        "select id, ${TOKEN} as v from t",
        "select id, '${file:token}' as v from nope",
        "select id,\n '${TOKEN}',\n nope as v from t",
    ] {
        let sql = serde_json::to_string(sql).unwrap();
        let model = format!("  m: {{source: shop, primary_key: id, sql: {sql}}}\n");
        let world = World::new(&model, &sync("    queue: q\n    message: {fields: all}\n"));
        let (code, text) = world.call(&["sync", "s"]);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("query-failed") && text.contains("model `m`"), "{text}");
        world.nothing_shows("s");
        assert!(world.path().join(".warren/state.db").exists(), "the state is where the test looks");
    }
}

#[test]
fn a_value_in_a_message_that_cannot_be_made_is_not_shown() {
    for keys in [
        "    queue: q\n    message:\n      template: '{\"token\": \"${TOKEN}\", \"n\": {{ row.nope }}}'\n",
        "    queue: q\n    message:\n      template: '{\"token\": ${TOKEN}, \"n\": {{ row.id }}}'\n",
        "    queue: q\n    message:\n      template: '{\"token\": \"${file:token}\", \"n\": {{ row.id | divided_by: 0 }}}'\n",
        "    queue: q\n    message: {fields: {id: '${TOKEN}'}}\n",
        "    queue: q\n    message: {fields: {id: id}}\n    headers: {h: {column: '${TOKEN}'}}\n",
        "    queue: q\n    message: {fields: {id: id}}\n    priority: {template: '${TOKEN}'}\n",
    ] {
        World::new(MODEL, &sync(keys)).nothing_shows("s");
    }
}

#[test]
fn a_value_in_a_message_that_is_sent_is_not_shown() {
    // The record has it as it was sent, so that it can be sent again.
    for (queue, code) in [("q", 0), ("${TOKEN}", 3)] {
        let template = "'{\"token\": \"${TOKEN}\", \"n\": {{ row.id }}}'";
        let world = World::new(
            MODEL,
            &sync(&format!("    queue: '{queue}'\n    message:\n      template: {template}\n")),
        );
        let (ended, text) = world.call(&["sync", "s"]);
        assert_eq!(ended, Some(code), "{text}");
        world.no_output_shows("s");
    }
}

#[test]
fn a_value_that_the_configuration_refuses_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warren.yaml");
    let environment: Environment = [("TOKEN", SECRET)].into_iter().collect();
    for text in [
        "brokers: {b: {type: rabbitmq, url: 'http://u:${TOKEN}@h'}}",
        "brokers: {b: {type: rabbitmq, url: '${TOKEN}'}}",
        "brokers: {b: {type: rabbitmq, management_url: 'ftp://${TOKEN}'}}",
        "brokers: {b: {type: rabbitmq, url: 'amqps://h', tls: {ca: '${TOKEN}', cert: x, key: '${TOKEN}'}}}",
        "sources: {p: {type: postgres, url: 'postgres://u@h/d?sslmode=${TOKEN}'}}",
        "sources: {p: {type: postgres, url: 'postgres://u@h/d?${TOKEN}=1'}}",
        "sources: {p: {type: mysql, url: '${TOKEN}'}}",
        "pipelines: {p: [{validate: {schema: {type: '${TOKEN}'}}}]}",
        "pipelines: {p: [{set: {x: '.a | ${TOKEN}('}}]}",
        "pipelines: {p: [{http: {method: GET, url: '${TOKEN}://x'}}]}",
        "pipelines: {p: [{http: {method: GET, url: 'http://h', headers: {'a': '${TOKEN}'}, nope: '${TOKEN}'}}]}",
        "pipelines: {p: [{exec: {command: ['${TOKEN}', '.a(']}}]}",
        "hub: {broker: '${TOKEN}', allow_callbacks: ['${TOKEN} x'], public_url: '${TOKEN}'}",
        "syncs: {s: {model: '${TOKEN}', to: '${TOKEN}', on: ['${TOKEN}'], queue: q}}",
    ] {
        std::fs::write(&path, text).unwrap();
        let faults = load_with(&path, &environment).unwrap_err();
        for shown in
            [faults.render(warren_config::Colours::Off), serde_json::json!(faults.events()).to_string()]
        {
            assert_clean(&shown, text);
        }
    }
}

#[test]
fn what_the_configuration_spells_out_is_shown() {
    let world = World::new(MODEL, &sync("    queue: q\n    message: {fields: {nope: nope}}\n"));
    // A variable of the value `shop` or `local` must not cover these names in every message.
    let text = std::fs::read_to_string(world.path().join("warren.yaml")).unwrap();
    std::fs::write(world.path().join("warren.yaml"), text.replace("source: shop", "source: \"${NAME}\""))
        .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_warren"))
        .arg("-c")
        .arg(world.path().join("warren.yaml"))
        .args(["check", "--json"])
        .env("NAME", "shop")
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let document: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(document["findings"][0]["code"], "unknown-column", "{document:#}");
    assert!(!document.to_string().contains("***"), "{document:#}");
}
