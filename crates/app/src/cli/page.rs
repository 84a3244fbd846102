//! `docs/cli.md` against the command line: every command and option is documented, and everything documented exists.

use std::collections::BTreeSet;
use std::path::Path;

use clap::CommandFactory;

use super::Args;

/// A section `## warren COMMAND …` of the page.
struct Section {
    /// The words of its command: `["hub", "hash-password"]`.
    command: Vec<String>,
    text: String,
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    std::fs::read_to_string(path).unwrap()
}

fn sections(page: &str) -> Vec<Section> {
    let parts = page.split("\n## warren ").skip(1);
    let section = |part: &str| {
        let (heading, text) = part.split_once('\n').unwrap();
        let is_command = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        let command = heading.split_whitespace().take_while(is_command).map(str::to_owned).collect();
        let text = text.split("\n## ").next().unwrap_or_default().to_owned();
        Section { command, text }
    };
    parts.map(section).collect()
}

/// Long options in backquotes, each with the values that are listed for it: `--op added|changed` has `added` and `changed`.
fn options(text: &str) -> Vec<(String, Vec<String>)> {
    let code = text.split('`').skip(1).step_by(2);
    let option = |code: &str| {
        let rest = code.strip_prefix("--")?;
        let (name, values) = rest.split_once(' ').unwrap_or((rest, ""));
        let values = values.replace("\\|", "|");
        let is_list = values.contains('|') && values.chars().all(|c| c.is_ascii_lowercase() || c == '|');
        let values = if is_list { values.split('|').map(str::to_owned).collect() } else { Vec::new() };
        Some((name.to_owned(), values))
    };
    code.filter_map(option).collect()
}

/// All commands that have no subcommands, with the words that call them.
fn leaves(command: &clap::Command, words: &[String], found: &mut Vec<(Vec<String>, clap::Command)>) {
    let mut has_any = false;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        has_any = true;
        let words: Vec<String> = words.iter().cloned().chain([sub.get_name().to_owned()]).collect();
        leaves(sub, &words, found);
    }
    if !has_any {
        found.push((words.to_vec(), command.clone()));
    }
}

fn faults(page: &str) -> Vec<String> {
    let mut root = Args::command();
    root.build();
    let mut commands = Vec::new();
    leaves(&root, &[], &mut commands);
    let sections = sections(page);
    let mut faults = Vec::new();
    for section in &sections {
        if !commands.iter().any(|(words, _)| *words == section.command) {
            faults.push(format!("there is no command `warren {}`", section.command.join(" ")));
        }
    }
    for (words, command) in &commands {
        let name = words.join(" ");
        let texts: Vec<&str> = sections
            .iter()
            .filter(|section| section.command == *words)
            .map(|section| &*section.text)
            .collect();
        if texts.is_empty() {
            faults.push(format!("`warren {name}` has no section"));
        }
        let documented: Vec<_> = texts.iter().flat_map(|text| options(text)).collect();
        // `replay` takes the filters of `explain`, and says so in place of listing them again.
        let borrowed: BTreeSet<String> = match &*name {
            "replay" => sections
                .iter()
                .filter(|section| section.command == ["explain"])
                .flat_map(|section| options(&section.text))
                .map(|(name, _)| name)
                .collect(),
            _ => BTreeSet::new(),
        };
        for argument in
            command.get_arguments().filter(|argument| !argument.is_global_set() && !argument.is_hide_set())
        {
            let Some(long) = argument.get_long().filter(|long| !["help", "version"].contains(long)) else {
                continue;
            };
            if !borrowed.contains(long) && !documented.iter().any(|(name, _)| name == long) {
                faults.push(format!("`warren {name} --{long}` is not documented"));
            }
        }
        for (long, values) in documented {
            let argument = root
                .get_arguments()
                .chain(command.get_arguments())
                .find(|argument| argument.get_long() == Some(&*long));
            let Some(argument) = argument else {
                // Text may name an option of another command: `warren sync --full`.
                let elsewhere = commands.iter().any(|(_, other)| {
                    other.get_arguments().any(|argument| argument.get_long() == Some(&*long))
                });
                if !elsewhere {
                    faults.push(format!("there is no `warren {name} --{long}`"));
                }
                continue;
            };
            let possible: Vec<String> =
                argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
            // Some options take names that are checked later, with a better text than clap has.
            if !values.is_empty() && !possible.is_empty() && values != possible {
                faults.push(format!("`warren {name} --{long}` takes {possible:?}, the page says {values:?}"));
            }
        }
    }
    faults
}

#[test]
fn every_command_and_option_is_documented_and_exists() {
    let faults = faults(&page());
    assert!(faults.is_empty(), "docs/cli.md:\n{}", faults.join("\n"));
}

#[test]
fn missing_and_invented_options_are_found() {
    let page = page();
    let invented = page.replace("| `--force` |", "| `--forcefully` |");
    assert_eq!(
        faults(&invented),
        ["`warren init --force` is not documented", "there is no `warren init --forcefully`"]
    );
    let wrong = page.replace("`--broker rabbitmq\\|sqs\\|embedded`", "`--broker rabbitmq\\|embedded`");
    assert_eq!(faults(&wrong).len(), 1);
    let unknown = format!("{page}\n## warren fly\n\ntext\n");
    assert_eq!(faults(&unknown), ["there is no command `warren fly`"]);
}
