//! What the house rules ask of the repository and no lint can hold. Each test lists all faults at
//! once, with their places. Needs no server.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use warren_testkit::root;

/// Past this, ask what the second idea in the file is.
const LINES_MAX: usize = 700;

/// Longer files, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// Names that say nothing about what a module is for.
const EMPTY_NAMES: &[&str] =
    &["common", "helper", "helpers", "manager", "misc", "service", "stuff", "types", "util", "utils"];

/// What the engine must not have in its manifest: it touches nothing outside.
const NOT_IN_ENGINE: &[&str] = &[
    "axum",
    "hyper",
    "hyper-util",
    "mysql_async",
    "rusqlite",
    "rustls",
    "tempfile",
    "tokio-postgres",
    "tokio-rustls",
    "warren-app",
    "warren-connectors",
    "warren-store",
];

#[test]
fn no_file_holds_more_than_can_be_read_in_one_sitting() {
    let listed = |path: &str| LONG_FILES.iter().any(|(long, _)| *long == path);
    let mut faults: Vec<String> = sources()
        .iter()
        .map(|file| (file, file.text.lines().count()))
        .filter(|(file, lines)| *lines > LINES_MAX && !listed(&file.path))
        .map(|(file, lines)| format!("{}: {lines} lines, at most {LINES_MAX}; split it by idea", file.path))
        .collect();
    for (long, _) in LONG_FILES {
        if !sources().iter().any(|file| file.path == *long && file.text.lines().count() > LINES_MAX) {
            faults.push(format!("{long}: is short now; take it off LONG_FILES"));
        }
    }
    none(&faults);
}

#[test]
fn modules_are_named_after_an_idea() {
    let mut faults = Vec::new();
    for file in sources() {
        for part in file.path.split('/').skip(3) {
            let name = part.trim_end_matches(".rs");
            if EMPTY_NAMES.contains(&name) {
                faults.push(format!("{}: `{name}` says nothing; name it after what it is about", file.path));
            }
        }
    }
    none(&faults);
}

#[test]
fn modules_say_first_what_they_are_for() {
    let mut faults = Vec::new();
    for file in sources() {
        if !file.text.trim_start().starts_with("//!") {
            faults.push(format!("{}: begins without a module comment", file.path));
        }
    }
    none(&faults);
}

#[test]
fn a_connector_names_no_other_connector() {
    let connectors = root().join("crates/connectors/src");
    let folders: BTreeSet<String> = fs::read_dir(&connectors)
        .expect("there are connectors")
        .map(|entry| entry.expect("the folder can be read"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != "kit")
        .collect();
    assert!(!folders.is_empty(), "there are no connectors: has the folder moved?");
    let mut faults = Vec::new();
    for file in sources() {
        let Some(rest) = file.path.strip_prefix("crates/connectors/src/") else {
            continue;
        };
        let Some((own, _)) = rest.split_once('/') else {
            continue;
        };
        for other in folders.iter().filter(|other| *other != own && own != "kit") {
            for (line, text) in file.code() {
                if text.contains(&format!("crate::{other}::"))
                    || text.contains(&format!("super::super::{other}::"))
                {
                    faults.push(format!("{}:{line}: names the connector {other}", file.path));
                }
            }
        }
    }
    none(&faults);
}

#[test]
fn nothing_unfinished_is_left() {
    // Put together here, so that this file does not hold them.
    let unfinished = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!("));
    let mut faults = Vec::new();
    for file in sources() {
        for (line, text) in file.code() {
            for word in unfinished.iter().filter(|word| text.contains(word.as_str())) {
                faults.push(format!("{}:{line}: {word}…)", file.path));
            }
        }
    }
    none(&faults);
}

#[test]
fn tests_wait_for_states_and_do_not_sleep() {
    let sleep = format!("::{}(", "sleep");
    let mut faults = Vec::new();
    for file in files(&root().join("crates"), "rs").iter().filter(|file| file.path.contains("/tests/")) {
        for (line, text) in file.code() {
            if text.contains(&sleep) {
                faults.push(format!(
                    "{}:{line}: use warren_testkit::wait_until; wait::pause where time itself is the point",
                    file.path
                ));
            }
        }
    }
    none(&faults);
}

#[test]
fn one_integration_binary_a_crate() {
    let mut faults = Vec::new();
    for entry in fs::read_dir(root().join("crates")).expect("there are crates") {
        let tests = entry.expect("the folder can be read").path().join("tests");
        let Ok(entries) = fs::read_dir(&tests) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("the folder can be read").path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                faults.push(format!("{}: make it a module of tests/it/main.rs", relative(&path)));
            }
        }
    }
    none(&faults);
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let mut faults = Vec::new();
    for manifest in manifests() {
        if !manifest.text.contains("[lints]\nworkspace = true") {
            faults.push(format!("{}: add `[lints]` with `workspace = true`", manifest.path));
        }
    }
    none(&faults);
}

#[test]
fn the_engine_depends_on_nothing_outside() {
    let manifest =
        fs::read_to_string(root().join("crates/engine/Cargo.toml")).expect("the engine has a manifest");
    let mut faults = Vec::new();
    for line in manifest.lines() {
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        if NOT_IN_ENGINE.contains(&name) {
            faults.push(format!("crates/engine/Cargo.toml: {name} is of the outside world"));
        }
        let reaches_out =
            ["\"net\"", "\"fs\"", "\"process\"", "\"full\""].iter().any(|feature| line.contains(feature));
        if name == "tokio" && reaches_out {
            faults.push(format!("crates/engine/Cargo.toml: {line}"));
        }
    }
    none(&faults);
}

#[test]
fn only_send_advances_the_baseline() {
    let mut faults = Vec::new();
    for file in sources() {
        if !file.path.starts_with("crates/engine/src/sync/") || file.path.ends_with("/send.rs") {
            continue;
        }
        for (line, text) in file.code() {
            if text.contains(".advance(") {
                faults.push(format!("{}:{line}: only sync/send.rs advances the baseline", file.path));
            }
        }
    }
    none(&faults);
}

#[test]
fn only_settle_settles() {
    let mut faults = Vec::new();
    for file in sources() {
        if !file.path.starts_with("crates/engine/src/consume/") || file.path.ends_with("/settle.rs") {
            continue;
        }
        for (line, text) in file.code() {
            if text.contains(".settle(") {
                faults.push(format!("{}:{line}: only consume/settle.rs settles a delivery", file.path));
            }
        }
    }
    none(&faults);
}

#[test]
fn nothing_names_a_home_folder() {
    let homes = ["home", "Users"].map(|folder| format!("/{folder}/"));
    let mut faults = Vec::new();
    let mut all = files(&root().join("crates"), "");
    all.extend(files(&root().join("scripts"), ""));
    all.extend(files(&root().join("docs"), ""));
    for file in &all {
        for (line, text) in file.text.lines().enumerate() {
            if homes.iter().any(|home| text.contains(home.as_str())) {
                faults.push(format!("{}:{}: {}", file.path, line + 1, text.trim()));
            }
        }
    }
    none(&faults);
}

/// Once there are pages at all. `docs/errors/README.md` is not one.
#[test]
fn every_error_code_has_a_page_and_every_page_a_code() {
    let pages = root().join("docs/errors");
    let Ok(entries) = fs::read_dir(&pages) else {
        return;
    };
    let pages: BTreeSet<String> = entries
        .map(|entry| entry.expect("the folder can be read").file_name().to_string_lossy().into_owned())
        .filter_map(|name| name.strip_suffix(".md").map(str::to_owned))
        .filter(|name| name != "README")
        .collect();
    let codes = codes();
    let mut faults: Vec<String> = codes
        .difference(&pages)
        .map(|code| format!("docs/errors/{code}.md: the page of this code is missing"))
        .collect();
    faults
        .extend(pages.difference(&codes).map(|page| format!("docs/errors/{page}.md: there is no such code")));
    none(&faults);
}

/// The codes that `codes.rs` declares: lines `NAME = "name-of-the-code";`.
fn codes() -> BTreeSet<String> {
    let path = root().join("crates/engine/src/codes.rs");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    let codes: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.trim().strip_suffix("\";")?.split_once(" = \""))
        .filter(|(name, _)| {
            name.chars().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_')
        })
        .map(|(_, code)| code.to_owned())
        .collect();
    assert!(!codes.is_empty(), "no codes found in codes.rs: has its form changed?");
    codes
}

struct File {
    /// From the root of the repository, with slashes.
    path: String,
    text: String,
}

impl File {
    /// Lines that are neither comment nor in the tests at the end of the file, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
            .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// The Rust files of all crates' `src`.
fn sources() -> Vec<File> {
    let mut sources = files(&root().join("crates"), "rs");
    sources.retain(|file| file.path.split('/').nth(2) == Some("src"));
    assert!(sources.len() > 5, "hardly any source files found: has the tree moved?");
    sources
}

fn manifests() -> Vec<File> {
    let mut manifests = files(&root().join("crates"), "toml");
    manifests.retain(|file| file.path.ends_with("/Cargo.toml"));
    assert!(!manifests.is_empty(), "no crates found: has the tree moved?");
    manifests
}

/// Text files below a folder with an extension, or all of them; none when there is no such folder.
fn files(folder: &Path, extension: &str) -> Vec<File> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    waiting.push(path);
                }
            } else if extension.is_empty() || path.extension().is_some_and(|own| own == extension) {
                // What is not text is none of our business here.
                if let Ok(text) = fs::read_to_string(&path) {
                    found.push(File { path: relative(&path), text });
                }
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn relative(path: &Path) -> String {
    let path: PathBuf = path.strip_prefix(root()).unwrap_or(path).to_owned();
    path.to_string_lossy().replace('\\', "/")
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}
