//! `warren pipeline test`, as a person sees it.

use crate::config::{compare, crate_folder};
use crate::program::Program;

fn shown(file: &str, code: i32) {
    let folder = crate_folder().join("tests/it/pipeline");
    let scratch = tempfile::tempdir().unwrap();
    for name in ["cases.yaml", "wrong.yaml", "broken.yaml", "calls.yaml"] {
        std::fs::copy(folder.join(name), scratch.path().join(name)).unwrap();
    }
    let config = std::fs::read_to_string(folder.join("warren.yaml")).unwrap();
    let program = Program::configured(scratch.path(), &config);
    let path = scratch.path().join(file);
    let ended = program.run(&["pipeline", "test", path.to_str().unwrap()]);
    let prefix = format!("{}/", scratch.path().display());
    let text = format!("{}{}", ended.stdout, ended.stderr).replace(&prefix, "");
    compare(&folder.join(file.replace(".yaml", ".txt")), &text);
    assert_eq!(ended.code, Some(code), "{ended:?}");
}

#[test]
fn cases_that_hold_are_ok() {
    shown("cases.yaml", 0);
}

#[test]
fn what_is_not_as_expected_is_told_with_the_steps() {
    shown("wrong.yaml", 1);
}

#[test]
fn faults_of_the_file_are_told_with_their_places() {
    shown("broken.yaml", 2);
    shown("calls.yaml", 2);
}

#[test]
fn a_test_that_ran_nothing_has_failed() {
    let folder = crate_folder().join("tests/it/pipeline");
    let scratch = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(folder.join("warren.yaml")).unwrap();
    let program = Program::configured(scratch.path(), &config);
    let cases = folder.join("cases.yaml");
    let cases = cases.to_str().unwrap();
    assert_eq!(program.run(&["pipeline", "test", cases, "--only", "swordfish"]).code, Some(1));
    let documents = program.documents(&["pipeline", "test", cases, "--only", "stock"], 0);
    assert_eq!(documents.len(), 2);
    assert_eq!((&documents[0]["ok"], &documents[1]["steps"][2]["path"]), (&true.into(), &"3.http".into()));
}
