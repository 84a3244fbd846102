//! What a person sees of a configuration that is wrong, and that nothing worse happens.

#![expect(clippy::unwrap_used, clippy::format_push_string, reason = "these are tests, their helpers too")]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use warren_config::{Colours, Environment, load_with};
use warren_testkit::expected::compare;

mod cost;
mod examples;
mod good;
mod page;

/// The folder of this crate, wherever the tests run.
pub fn crate_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A case: files, variables, and what is shown. The parts of its text begin with `--- NAME`.
struct Case {
    parts: Vec<(String, String)>,
}

impl Case {
    fn read(text: &str) -> Case {
        let mut parts: Vec<(String, String)> = Vec::new();
        for line in text.split_inclusive('\n') {
            match (line.strip_prefix("--- "), parts.last_mut()) {
                (Some(name), _) => parts.push((name.trim().to_owned(), String::new())),
                (None, Some((_, part))) => part.push_str(line),
                (None, None) => panic!("a case begins with `--- NAME`"),
            }
        }
        Case { parts }
    }

    fn environment(&self) -> Environment {
        let lines =
            self.parts.iter().filter(|(name, _)| name == "variables").flat_map(|(_, text)| text.lines());
        lines.map(|line| line.split_once('=').expect("NAME=value")).collect()
    }

    /// Writes the files into a folder and says which is the configuration: `warren.yaml`, or else the folder.
    fn write(&self, folder: &Path) -> PathBuf {
        for (name, text) in self.parts.iter().filter(|(name, _)| name != "variables" && name != "shown") {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let file = folder.join("warren.yaml");
        if file.exists() { file } else { folder.to_owned() }
    }

    fn show(&self) -> String {
        let folder = tempfile::tempdir().unwrap();
        let shown = match load_with(&self.write(folder.path()), &self.environment()) {
            Ok(project) => format!("no error\n{}", project.warnings.render(Colours::Off)),
            Err(faults) => faults.render(Colours::Off),
        };
        let prefix = folder.path().display().to_string();
        shown.replace(&format!("{prefix}/"), "").replace(&prefix, "FOLDER")
    }
}

#[test]
fn what_is_wrong_is_shown_with_place_cause_and_remedy() {
    let folder = crate_folder().join("tests/it/cases");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 40, "only {} cases were found", paths.len());
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let (given, _) = text.split_once("--- shown\n").unwrap_or((&text, ""));
        let case = Case::read(given);
        compare(&path, &format!("{given}--- shown\n{}", case.show()));
    }
}

#[test]
fn no_case_shows_what_a_variable_holds() {
    let folder = crate_folder().join("tests/it/cases");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let (_, shown) = text.split_once("--- shown\n").expect("the case was run once");
        // Every value that a case would not want to see has this word in it.
        seen += usize::from(text.contains("swordfish"));
        assert!(!shown.contains("swordfish"), "{shown}");
    }
    assert!(seen >= 3);
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warren.yaml");
    for (bytes, wanted) in [
        (&b"\x7fELF\x02\x01\x01\x00\x00"[..], "is not text: line 1 holds a zero byte"),
        (&b"sources:\n  caf\xe9: {}\n"[..], "is not UTF-8 text: byte 0xe9 in line 2"),
        (&b"\xff\xfea\x00"[..], "is UTF-16"),
    ] {
        fs::write(&path, bytes).unwrap();
        let shown = load_with(&path, &Environment::default()).unwrap_err().render(Colours::Off);
        assert!(shown.contains(wanted), "{shown}");
        assert!(shown.contains("warren.yaml"), "{shown}");
    }
}

#[test]
fn faults_are_told_to_programs_too() {
    let case = Case::read("--- warren.yaml\nsyncs:\n  a: {}\nsorces: {}\n");
    let folder = tempfile::tempdir().unwrap();
    let faults = load_with(&case.write(folder.path()), &case.environment()).unwrap_err();
    let events = faults.events();
    assert_eq!(events.len(), faults.len());
    let unknown = events.iter().find(|fault| fault["code"] == "unknown-key").unwrap();
    assert_eq!((&unknown["line"], &unknown["column"]), (&3.into(), &1.into()));
    assert!(unknown["place"].as_str().unwrap().ends_with("warren.yaml:3:1"), "{unknown:#}");
    assert_eq!(unknown["event"], "error");
    assert_eq!(unknown["help"], "did you mean `sources`?");
}

/// A configuration with one key, whose keys down to it stand in blocks or in one line.
fn with_key(path: &[&str], written: &str, is_flow: bool) -> String {
    let (section, rest) = path.split_first().unwrap();
    if is_flow {
        let inner = rest.iter().rev().fold(written.to_owned(), |inner, key| format!("{{{key}: {inner}}}"));
        return format!("{section}: {inner}\n");
    }
    let lines = path.iter().enumerate().map(|(depth, key)| format!("\n{}{key}:", "  ".repeat(depth)));
    format!("{} {written}\n", lines.collect::<String>())
}

/// What comes of it: the parts, or what is wrong.
fn outcome(text: &str, value: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warren.yaml");
    fs::write(&path, text).unwrap();
    match load_with(&path, &[("N", value)].into_iter().collect()) {
        Ok(project) => {
            let plans: Vec<_> =
                project.syncs.values().map(|sync| (&sync.plan.guard, &sync.plan.give_up_after)).collect();
            format!("{:?} {:?} {plans:?}", project.brokers, project.state)
                .replace(&folder.path().display().to_string(), "FOLDER")
        }
        Err(faults) => {
            let told =
                faults.iter().map(|fault| format!("{} {} {:?}\n", fault.code, fault.message, fault.remedy));
            told.collect()
        }
    }
}

#[test]
fn a_value_from_a_variable_means_the_same_with_and_without_quotes_in_block_and_in_flow_style() {
    let sync = "sources: {d: {type: sqlite, path: x.db}}\nmodels: {m: {source: d, primary_key: id, table: t}}\n\
                brokers: {l: {type: embedded}}\n";
    let of_sync = "model: m, to: l, queue: q, message: {fields: all}";
    let cases: [(&[&str], &[&str], &[&str]); 8] = [
        (
            &["syncs", "s", "guard", "removed"],
            &["20", "20%", "2.5%", "0"],
            &["abc", "120%", "1.5", "-1", "", "true"],
        ),
        (&["syncs", "s", "give_up_after"], &["30s", "1h"], &["30", "abc", "", "true"]),
        (&["brokers", "r", "channels"], &["4"], &["0", "abc", "4.5", "true", ""]),
        (&["brokers", "r", "heartbeat"], &["30s"], &["30", "1ms", "abc"]),
        (&["brokers", "r", "password"], &["123", "true", "null", "~", "1.5", "text"], &[]),
        (&["state", "record", "bodies"], &["true", "false"], &["yes", "1", "abc", ""]),
        (&["state", "record", "size"], &["1MiB", "1048576"], &["1.5", "abc", "true"]),
        (&["state", "shutdown_grace"], &["30s"], &["30"]),
    ];
    for (path, good, bad) in cases {
        for (value, is_good) in good.iter().map(|good| (good, true)).chain(bad.iter().map(|bad| (bad, false)))
        {
            let ways = [
                ("${N}", false),
                ("\"${N}\"", false),
                ("'${N}'", false),
                ("\"${N}\"", true),
                ("'${N}'", true),
            ];
            let outcomes = ways.map(|(written, is_flow)| {
                let text = with_key(path, written, is_flow);
                let text = match path[0] {
                    "syncs" if is_flow => {
                        format!("{sync}{}", text.replace("{s: {", &format!("{{s: {{{of_sync}, ")))
                    }
                    "syncs" => {
                        let keys =
                            of_sync.replace(", ", "\n    ").replace("{fields:\n    all}", "{fields: all}");
                        format!("{sync}{}", text.replace("  s:", &format!("  s:\n    {keys}")))
                    }
                    "brokers" if is_flow => text.replace("{r: {", "{r: {type: rabbitmq, "),
                    "brokers" => text.replace("  r:", "  r:\n    type: rabbitmq"),
                    _ => text,
                };
                outcome(&text, value)
            });
            for (way, outcome) in ways.iter().zip(&outcomes) {
                assert_eq!(outcome, &outcomes[0], "{path:?} {way:?} with {value:?}");
            }
            assert_eq!(outcomes[0].starts_with('{'), is_good, "{path:?} with {value:?}: {}", outcomes[0]);
        }
    }
}

#[test]
fn a_variable_without_quotes_in_one_line_says_that_it_needs_them() {
    let shown = outcome("syncs: {s: {guard: {removed: ${N}}}}", "20");
    assert!(shown.contains("put the variable in quotes"), "{shown}");
}

#[test]
fn colours_are_for_terminals_only() {
    let case = Case::read("--- warren.yaml\nsorces: {}\n");
    let folder = tempfile::tempdir().unwrap();
    let faults = load_with(&case.write(folder.path()), &case.environment()).unwrap_err();
    assert!(!faults.render(Colours::Off).contains('\u{1b}'));
    assert!(faults.render(Colours::On).contains('\u{1b}'));
}

fn load_text(text: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warren.yaml");
    fs::write(&path, text).unwrap();
    let environment = [("SHOP_URL", "postgres://localhost/shop"), ("N", "5")].into_iter().collect();
    match load_with(&path, &environment) {
        Ok(project) => drop(project.warnings.render(Colours::On)),
        Err(faults) => {
            assert!(!faults.is_empty());
            let shown = faults.render(Colours::Off);
            assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        load_text(&bytes);
    }

    #[test]
    fn random_yaml_does_no_harm(text in "[a-z:{}\\[\\]\"'|>&*#?!%$, \\-\n\t~<0-9éü\u{202e}]{0,300}") {
        load_text(text.as_bytes());
    }

    #[test]
    fn a_good_file_may_be_broken_anywhere(edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..5_u8, "[a-z:{}\\[\\]\"'|>&*$ \n0-9é-]{1,6}"), 1..6)) {
        let mut text: Vec<char> = good::EVERYTHING.chars().collect();
        for (at, how, insert) in edits {
            let at = at.index(text.len().max(1));
            match how {
                0 => drop(text.splice(at..at, insert.chars())),
                1 => drop(text.drain(at..(at + insert.len()).min(text.len()))),
                2 => text.truncate(at.max(1)),
                3 => {
                    let line: Vec<char> = text[at..].split(|c| *c == '\n').next().unwrap_or(&[]).to_vec();
                    text.splice(at..at, line);
                }
                _ => {
                    let end = (at + 1).min(text.len());
                    text.splice(at..end, insert.chars());
                }
            }
        }
        load_text(text.iter().collect::<String>().as_bytes());
    }
}
