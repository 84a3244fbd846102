//! Servers through `scripts/servers`, and programs run to their end.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::place::scripts;

/// Runs a command and returns what it wrote to stdout.
///
/// # Panics
/// When it cannot be started or fails; with its stderr.
pub(crate) fn output(command: &mut Command) -> Vec<u8> {
    let output =
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output.stdout
}

/// `scripts/servers SERVER VERB FOLDER ARGUMENTS`, with settings for the server in its environment.
pub(crate) fn servers(
    server: &str,
    verb: &str,
    folder: &Path,
    arguments: &[&str],
    settings: &[(String, String)],
) -> String {
    let mut command = Command::new(scripts().join("servers"));
    command.args([server, verb]).arg(folder).args(arguments);
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    String::from_utf8(output(&mut command)).expect("the script prints text")
}

/// The `name=value` lines that a start prints.
pub(crate) fn values(printed: &str) -> HashMap<String, String> {
    printed
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
