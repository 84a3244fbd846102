//! A path that leads nowhere is told as it was tried.

use serde_json::Value;
use warren_testkit::scratch;

use crate::program::Program;

#[test]
fn a_missing_partial_says_where_it_was_looked_for() {
    let folder = scratch("tried");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("m.liquid"), "{\"a\": {% render 'part' %}}").unwrap();
    std::fs::write(path("row.json"), "{\"id\": 1}").unwrap();
    let config = "sources: {s: {type: sqlite, path: x.db}}\nmodels: {m: {source: s, primary_key: id, table: t}}\n\
        brokers: {b: {type: embedded}}\nsyncs: {s: {model: m, to: b, queue: q, message: {template: '{\"a\": {% render \"part\" %}}'}}}\n";
    let program = Program::configured(folder.path(), config);
    let templates = std::path::absolute(folder.path().join("templates")).unwrap().display().to_string();
    let (template, row) = (path("m.liquid"), path("row.json"));
    for arguments in [&["render", "--template", &template, "--row", &row][..], &["check", "--offline"]] {
        std::fs::remove_dir_all(path("templates")).ok(); // not there in the first turn
        let ended = program.run(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:#?}");
        assert!(ended.stderr.contains("there is no partial `part`"), "{ended:#?}");
        let wanted = format!("create the folder `{templates}`");
        assert!(ended.stderr.contains(&wanted), "{arguments:?}: {ended:#?}");
        std::fs::create_dir(path("templates")).unwrap();
        let ended = program.run(arguments);
        assert!(ended.stderr.contains(&format!("to the folder `{templates}`")), "{arguments:?}: {ended:#?}");
    }
    std::fs::write(path("templates/part.liquid"), "1").unwrap();
    assert_eq!(program.run(&["render", "--template", &template, "--row", &row]).code, Some(0));
}

#[test]
fn a_missing_sqlite_file_is_told_with_the_whole_path_whatever_opens_it() {
    let folder = scratch("tried");
    let config = "sources: {s: {type: sqlite, path: db/gone.db}}\nmodels: {m: {source: s, primary_key: id, table: t}}\n\
        brokers: {b: {type: embedded, queues: {q: {}}}}\n\
        syncs: {s: {model: m, to: b, queue: q, message: {fields: all}}}\n";
    let program = Program::configured(folder.path(), config);
    let tried = std::path::absolute(folder.path().join("db/gone.db")).unwrap().display().to_string();
    for arguments in [&["check"][..], &["sync", "s"], &["plan", "s"], &["doctor"]] {
        // Given as a relative path, the configuration's folder is the current one.
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_warren"))
            .args(arguments)
            .arg("--json")
            .current_dir(program.config().parent().unwrap())
            .output()
            .unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let mut lines = stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let error = lines.find(|line| line["event"] == "error").unwrap();
        assert_eq!(error["code"], "unknown-database");
        assert!(error["message"].as_str().unwrap().contains(&tried), "{arguments:?}: {error:#}");
    }
}
