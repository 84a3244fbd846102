//! Settings that cannot work, found by every command alike: with place and hint, and with the exit codes of `docs/cli.md`.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};
use warren_config::{Environment, load_with, schema};
use warren_connectors::{BROKER_KINDS, BrokerConfig, SOURCE_KINDS, SourceConfig};
use warren_testkit::{Scratch, rabbit, scratch};

use crate::program::Program;

/// A program over SQLite and an embedded broker, with more of a configuration.
fn program(folder: &Scratch, more: &str) -> Program {
    let database = rusqlite::Connection::open(folder.path().join("shop.db")).unwrap();
    database.execute_batch("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v TEXT)").unwrap();
    Program::configured(
        folder.path(),
        &format!(
            "sources:\n  shop: {{type: sqlite, path: shop.db}}\n\
         models:\n  m: {{source: shop, primary_key: id, table: t}}\n\
         syncs:\n  s: {{model: m, to: local, on: [added], queue: q, message: {{fields: {{id: id}}}}}}\n\
         brokers:\n  local: {{type: embedded, queues: {{q: {{}}}}}}\n{more}"
        ),
    )
}

/// An address at which nothing listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn a_broker_that_cannot_work_is_a_fault_of_the_configuration_in_every_command() {
    for (broker, key) in [
        ("channels: 0", "channels"),
        ("channels: 65", "channels"),
        ("heartbeat: 1ms", "heartbeat"),
        ("heartbeat: 19h", "heartbeat"),
        ("connect_timeout: 0s", "connect_timeout"),
        ("port: 0", "port"),
        ("url: amqp://localhost/a/b", "url"),
        ("url: http://localhost", "url"),
        ("url: amqp://localhost, host: x", "host"),
        ("url: amqps://localhost, tls: {ca: nope.pem}", "tls.ca"),
        ("url: amqps://localhost, tls: {cert: nope.pem}", "tls.cert"),
        ("url: amqp://localhost, tls: {}", "tls"),
        ("management_url: ftp://x", "management_url"),
    ] {
        let folder = scratch("settings");
        let program = program(&folder, &format!("  rabbit: {{type: rabbitmq, {broker}}}\n"));
        for arguments in
            [&["check"][..], &["check", "--offline"], &["plan", "s"], &["sync", "s"], &["serve"], &["doctor"]]
        {
            let ended = program.run(arguments);
            assert_eq!(ended.code, Some(2), "{broker} {arguments:?}: {ended:#?}");
            assert!(ended.stderr.contains("warren.yaml:9:"), "{broker}: {}", ended.stderr);
            assert!(ended.stderr.contains(&format!("brokers.rabbit.{key}`")), "{broker}: {}", ended.stderr);
            assert!(ended.stderr.contains("= help: "), "{broker}: {}", ended.stderr);
            assert!(ended.stderr.contains("1 error in the configuration"), "{broker}: {}", ended.stderr);
        }
    }
}

#[test]
fn a_source_that_cannot_work_is_a_fault_of_the_configuration() {
    for (source, key) in [
        ("type: postgres, url: \"mysql://h/d\"", "url"),
        ("type: postgres, url: \"postgres://u@h/d?schema=public\"", "url"),
        ("type: postgres, url: \"postgres://u@h/d\", host: h", "host"),
        ("type: postgres, url: \"postgres://u:a@h/d\", password: b", "password"),
        ("type: postgres, url: \"postgres://h/d?sslmode=disable\", tls: {}", "tls"),
        ("type: postgres, host: h, port: 0", "port"),
        ("type: postgres, host: h, tls: {ca: nope.pem}", "tls.ca"),
        ("type: mysql, url: \"postgres://h/d\"", "url"),
        ("type: mysql, url: \"mysql://h/d\", port: 3306", "port"),
        ("type: mysql, host: h, tls: {key: nope.pem}", "tls.key"),
        ("type: mysql, host: h, statement_timeout: 0s", "statement_timeout"),
        ("type: sqlite, path: x.db, statement_timeout: 0s", "statement_timeout"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("warren.yaml");
        std::fs::write(&path, format!("sources: {{s: {{{source}}}}}")).unwrap();
        let faults = load_with(&path, &Environment::default()).unwrap_err().events();
        let fault = &faults[0];
        assert!(
            fault["message"].as_str().unwrap().contains(&format!("`sources.s.{key}`")),
            "{source}: {fault:#}"
        );
        assert!(fault["help"].is_string() && fault["line"] == 1, "{source}: {fault:#}");
    }
}

#[test]
fn all_settings_that_cannot_work_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warren.yaml");
    let text = "brokers: {r: {type: rabbitmq, url: 'amqp://h/a/b', channels: 0, heartbeat: 5, tls: {ca: nope}, \
                management_url: 'ftp://x'}}\nsources: {p: {type: postgres, host: h, port: 0, tls: {cert: nope}}}";
    std::fs::write(&path, text).unwrap();
    let faults = load_with(&path, &Environment::default()).unwrap_err();
    let told: Vec<_> = faults.iter().map(|fault| fault.message.clone()).collect();
    for key in ["r.url", "r.channels", "r.heartbeat", "r.tls.ca", "r.management_url", "p.port", "p.tls.cert"]
    {
        assert!(told.iter().any(|message| message.contains(&format!("{key}`"))), "{key}: {told:#?}");
    }
}

#[test]
fn a_server_that_is_down_is_one_error_and_not_one_of_the_configuration() {
    let folder = scratch("settings");
    let (broker, management) = (nowhere(), nowhere());
    let program = program(
        &folder,
        &format!(
            "  rabbit: {{type: rabbitmq, url: \"amqp://{broker}\", management_url: \"http://{management}\"}}\n\
         triggers:\n  a: {{from: rabbit, queue: a, dead_letter: drop, pipeline: [{{validate: {{schema: {{type: object}}}}}}]}}\n\
         \x20 b: {{from: rabbit, queue: b, dead_letter: drop, pipeline: [{{validate: {{schema: {{type: object}}}}}}]}}\n"
        ),
    );
    let found = program.documents(&["check"], 1).pop().unwrap();
    let codes: Vec<_> =
        found["findings"].as_array().unwrap().iter().map(|finding| &finding["code"]).collect();
    assert_eq!(codes, ["broker-unreachable"], "{found:#}");
    let ended = program.run(&["check"]);
    assert!(ended.stderr.contains("1 error found in "), "{ended:#?}");
    for wrong in ["all is well", "tried again", "in the configuration"] {
        assert!(!format!("{}{}", ended.stdout, ended.stderr).contains(wrong), "{ended:#?}");
    }
    assert_eq!(program.run(&["check", "--offline"]).code, Some(0));
    // The good sync is not kept from running.
    assert_eq!(program.run(&["sync", "s"]).code, Some(0));
}

#[test]
fn check_connects_to_sources_that_nothing_reads() {
    let folder = scratch("settings");
    let (postgres, mysql) = (nowhere(), nowhere());
    let program = Program::configured(
        folder.path(),
        &format!(
            "sources:\n  gone: {{type: sqlite, path: gone.db}}\n  pg: {{type: postgres, url: \"postgres://u:p@{postgres}/d\"}}\n\
         \x20 my: {{type: mysql, url: \"mysql://u:p@{mysql}/d\"}}\n"
        ),
    );
    let found = program.documents(&["check"], 1).pop().unwrap();
    let subjects: BTreeSet<_> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["subject"].as_str().unwrap())
        .collect();
    assert_eq!(subjects, BTreeSet::from(["sources.gone", "sources.my", "sources.pg"]), "{found:#}");
}

/// Answers each connection with one text, until the test ends.
fn answering(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            let mut request = [0; 4096];
            // Whatever was asked, the answer is the same.
            let Ok(1..) = stream.read(&mut request) else { continue };
            stream.write_all(text.as_bytes()).ok();
        }
    });
    address
}

#[test]
fn check_asks_proxies_for_their_login() {
    let folder = scratch("settings");
    let refusing = answering("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
    let good = answering("HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n");
    let other = answering("220 mail.example ESMTP\r\n");
    let hub = |proxy: &str| {
        format!(
            "hub: {{broker: local, users: {{}}, http_client_options: {{proxy: \"http://u:p@{proxy}\"}}}}\n"
        )
    };
    for (proxy, code, wanted) in [
        (&refusing, 1, "407"),
        (&good, 0, ""),
        (&other, 1, "not answer as an HTTP proxy"),
        (&nowhere(), 1, "refused"),
    ] {
        let found = program(&folder, &hub(proxy)).documents(&["check"], code).pop().unwrap();
        assert!(found.to_string().contains(wanted), "{proxy}: {found:#}");
        let of_proxy = |finding: &Value| finding["subject"] == "hub.http_client_options.proxy";
        assert_eq!(found["findings"].as_array().unwrap().iter().any(of_proxy), code == 1, "{found:#}");
    }
}

#[test]
fn check_logs_in_at_the_management_api_whatever_uses_it() {
    let vhost = rabbit::vhost();
    let url = vhost.url();
    let good = vhost.management().url().to_owned();
    let (scheme, rest) = good.split_once("://").unwrap();
    let (login, place) = rest.split_once('@').unwrap();
    let untagged = vhost.user(".*", ".*", ".*");
    let body = json!({"password": untagged.password, "tags": ""});
    vhost.management().request("PUT", &format!("/api/users/{}", untagged.name), &body);
    let cases = [
        (good.clone(), 0),
        (format!("{scheme}://guest:nope@{place}"), 1),
        (format!("{scheme}://nobody:guest@{place}"), 1),
        (format!("{scheme}://{login}@{}", nowhere()), 1),
        (format!("{scheme}://{login}@{place}/elsewhere"), 1),
        (format!("https://{login}@{place}"), 1),
        (untagged.management_url.clone(), 1),
    ];
    for (management, code) in cases {
        let folder = scratch("settings");
        let more =
            format!("  rabbit: {{type: rabbitmq, url: \"{url}\", management_url: \"{management}\"}}\n");
        let found = program(&folder, &more).documents(&["check"], code).pop().unwrap();
        let errors =
            found["findings"].as_array().unwrap().iter().filter(|finding| finding["severity"] == "error");
        let subjects: Vec<_> = errors.map(|finding| &finding["subject"]).collect();
        let wanted: &[&str] = if code == 0 { &[] } else { &["brokers.rabbit.management_url"] };
        assert_eq!(subjects, wanted, "{management}: {found:#}");
        assert!(!found.to_string().contains("nope"), "{found:#}");
    }
}

#[test]
fn a_renamed_sync_is_told_of_the_baseline_it_left_behind() {
    let folder = scratch("settings");
    let first = program(&folder, "");
    let database = rusqlite::Connection::open(folder.path().join("shop.db")).unwrap();
    database.execute_batch("INSERT INTO t VALUES (1, 'a'), (2, 'b')").unwrap();
    assert!(first.run(&["plan", "s"]).stdout.contains("first run"), "a plan of a first run says so");
    assert_eq!(first.run(&["sync", "s"]).code, Some(0));
    assert!(!first.run(&["plan", "s"]).stdout.contains("first run"));
    let rename = |to: &str, more: &str| {
        let text = std::fs::read_to_string(first.config()).unwrap();
        std::fs::write(first.config(), text.replace("  s: {model: m", &format!("  {to}: {{model: m")) + more)
            .unwrap();
    };
    rename("S", "");
    for arguments in [&["check"][..], &["check", "--offline"], &["doctor"], &["plan", "S"]] {
        let found = first.documents(arguments, 0).pop().unwrap();
        let findings = found["findings"].as_array().unwrap();
        let orphan = findings.iter().find(|finding| finding["code"] == "orphaned-baseline");
        let orphan = orphan.unwrap_or_else(|| panic!("{arguments:?}: {found:#}"));
        assert_eq!(orphan["subject"], "syncs.S");
        assert!(
            orphan["message"].as_str().unwrap().starts_with("`s` has a baseline and is gone"),
            "{orphan:#}"
        );
        assert!(orphan["remedy"].as_str().unwrap().contains("baselines/s "), "{orphan:#}");
    }
    // A sync that has its baseline is told of nothing, whatever else lies beside it.
    assert_eq!(first.run(&["sync", "S"]).code, Some(0));
    assert_eq!(first.documents(&["check", "--offline"], 0).pop().unwrap()["findings"], json!([]));
}

#[test]
fn a_plan_on_file_counts_for_the_configuration_it_was_made_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warren.yaml");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("templates")).unwrap();
    write("templates/part.liquid", "1");
    write("m.liquid", "{\"id\": {{ row.id }}}");
    write("q.sql", "select 1 as id");
    let text = "sources: {s: {type: sqlite, path: x.db}}\nmodels: {m: {source: s, primary_key: id, file: q.sql}}\n\
                brokers: {b: {type: embedded}}\n\
                syncs: {s: {model: m, to: b, on: [added], queue: q, message: {file: m.liquid}, headers: {h: \"${V}\"}}}\n";
    write("warren.yaml", text);
    let digest = |value: &str| {
        let environment = [("V", value)].into_iter().collect();
        load_with(&path, &environment).unwrap_or_else(|faults| panic!("{:?}", faults.events())).syncs["s"]
            .digest
    };
    let first = digest("one");
    assert_eq!(digest("one"), first);
    assert_ne!(digest("two"), first, "a variable in a header");
    let mut seen = BTreeSet::from([first]);
    for (name, changed) in [
        ("m.liquid", "{\"id\": 2}"),
        ("templates/part.liquid", "2"),
        ("q.sql", "select 2 as id"),
        ("warren.yaml", &text.replace("queue: q,", "queue: r,")),
    ] {
        write(name, changed);
        assert!(seen.insert(digest("one")), "{name} changed and the digest did not");
    }
    write("warren.yaml", &format!("{}x-note: 1\n", text.replace("queue: q,", "queue: r,")));
    assert!(!seen.insert(digest("one")), "what does not concern the sync changed its digest");
}

/// Calls `take` with the path of every schema in a schema, and the schema.
fn walk(path: &str, schema: &Value, take: &mut impl FnMut(&str, &Value)) {
    take(path, schema);
    for key in ["properties", "patternProperties", "$defs"] {
        for (name, inner) in schema[key].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), inner, take);
        }
    }
    for key in ["anyOf", "oneOf"] {
        schema[key].as_array().into_iter().flatten().for_each(|inner| walk(path, inner, take));
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            walk(&format!("{path}[]"), &schema[key], take);
        }
    }
}

#[test]
fn every_keyword_of_the_schema_is_enforced() {
    // Each of these is looked at in `config/walk.rs`, or says nothing about what is valid.
    const ENFORCED: &[&str] = &[
        "$ref",
        "type",
        "properties",
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        "required",
        "enum",
        "const",
        "anyOf",
        "oneOf",
        "items",
        "minItems",
        "minProperties",
        "maxProperties",
        "minimum",
        "maximum",
        "pattern",
        "format",
        "x-secret",
        "x-public",
        "x-least",
        "x-most",
        "x-step",
    ];
    const SAYS_NOTHING: &[&str] = &["$schema", "$defs", "title", "description", "default", "examples"];
    const FORMATS: &[&str] = &[
        "path", "span", "size", "jq", "uint8", "uint16", "uint32", "uint64", "uint", "int32", "int64",
        "double",
    ];
    let schema = schema();
    let mut wrong = Vec::new();
    walk("", schema, &mut |path, schema| {
        for (keyword, value) in schema.as_object().into_iter().flatten() {
            let known = ENFORCED.contains(&keyword.as_str()) || SAYS_NOTHING.contains(&keyword.as_str());
            let enforced = match keyword.as_str() {
                "format" => FORMATS.contains(&value.as_str().unwrap()),
                // The three that are read by functions of their own.
                "pattern" => schema["format"] == "span" || value == warren_config::raw::forms::SHARE_PATTERN,
                "patternProperties" => value.as_object().unwrap().keys().all(|pattern| pattern == "^x-"),
                "propertyNames" => *value == json!({"pattern": warren_config::schema::NAME_PATTERN}),
                // Only a value by column or template has one, and its visitor takes one key.
                "maxProperties" => schema["properties"]["column"].is_object(),
                _ => true,
            };
            if !known || !enforced {
                wrong.push(format!("{path}: {keyword}: {value}"));
            }
        }
    });
    assert!(wrong.is_empty(), "not enforced: {wrong:#?}");
}

#[test]
fn every_number_that_is_a_time_has_its_unit_in_its_name() {
    let mut wrong = BTreeSet::new();
    walk("", schema(), &mut |path, schema| {
        let numeric = |kind: &Value| kind == "integer" || kind == "number";
        let is_number = numeric(&schema["type"])
            || schema["type"].as_array().is_some_and(|kinds| kinds.iter().any(numeric));
        let text = schema["description"].as_str().unwrap_or("").to_lowercase();
        // Names of other keys say nothing about this one.
        let text: String = text.split('`').step_by(2).collect();
        let is_time = ["milliseconds", "seconds", " days", "how long"].iter().any(|word| text.contains(word));
        let name = path.rsplit('.').next().unwrap_or("");
        let says = ["seconds", "milliseconds", "microseconds"].iter().any(|unit| name.ends_with(unit));
        // AMQP's own, as the protocol has them, and RabbitHub's, which says days in its documentation.
        let given = ["expiration", "timestamp", "log_subscription_expiration"].contains(&name);
        if is_number && is_time && !says && !given && schema["format"] != "size" {
            wrong.insert(path.to_owned());
        }
    });
    assert!(wrong.is_empty(), "numbers without a unit: {wrong:#?}");
}

/// A configuration of a kind in which every text is another word, and the words of those marked as secret.
fn filled(schema: &Value, root: &Value, words: &mut Vec<(String, bool)>, secret: bool) -> Value {
    let secret = secret || schema["x-secret"] == true;
    if let Some(name) = schema["$ref"].as_str() {
        return filled(&root["$defs"][name.trim_start_matches("#/$defs/")], root, words, secret);
    }
    if let Some(name) = schema["enum"].get(0).or(schema.get("const")) {
        return name.clone();
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(branches) = schema[key].as_array() {
            let branch = branches.iter().find(|branch| branch["type"] != "null").unwrap();
            return filled(branch, root, words, secret);
        }
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or("object");
    match (schema["format"].as_str(), kind) {
        (Some("span"), _) => json!("3s"),
        (Some("size"), _) => json!("3kB"),
        (_, "integer" | "number") => {
            schema.get("minimum").filter(|least| **least != json!(0)).cloned().unwrap_or(json!(1))
        }
        (_, "boolean") => json!(true),
        (_, "array") => json!([filled(&schema["items"], root, words, secret)]),
        (_, "object") => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            let mut map: serde_json::Map<_, _> =
                properties.map(|(key, inner)| (key.clone(), filled(inner, root, words, secret))).collect();
            if schema["additionalProperties"].is_object() {
                map.insert("name".to_owned(), filled(&schema["additionalProperties"], root, words, secret));
            }
            map.into()
        }
        _ => {
            let word = format!("word{:03}x", words.len());
            words.push((word.clone(), secret));
            word.into()
        }
    }
}

#[test]
fn what_a_type_hides_is_marked_as_secret_in_the_schema_and_nothing_else() {
    let mut hidden = 0;
    let mut compare = |kind: &str, shown: String, words: &[(String, bool)]| {
        for (word, secret) in words {
            assert_eq!(!shown.contains(word.as_str()), *secret, "{kind}: {word} in {shown}");
            hidden += usize::from(*secret);
        }
    };
    let root = schema();
    let of = |section: &str, kind: &str| {
        let kinds = root["properties"][section]["additionalProperties"]["oneOf"].as_array().unwrap();
        let mut schema = kinds.iter().find(|branch| branch["title"] == kind).unwrap().clone();
        schema["properties"].as_object_mut().unwrap().remove("type");
        let mut words = Vec::new();
        let config = filled(&schema, root, &mut words, false);
        (config, words)
    };
    for kind in SOURCE_KINDS {
        let (config, words) = of("sources", kind);
        let config = SourceConfig::read(kind, config).unwrap().unwrap();
        compare(kind, format!("{config:?}"), &words);
    }
    for kind in BROKER_KINDS {
        let (config, words) = of("brokers", kind);
        let config = BrokerConfig::read(kind, config).unwrap().unwrap();
        compare(kind, format!("{config:?}"), &words);
    }
    assert!(hidden >= 12, "only {hidden} secrets were seen");
}
