//! `warren completions` and `warren man`: what shells and `man` need, from the same definitions as `--help`.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use crate::cli::Stop;
use crate::exit::Exit;

/// Print the completions of a shell.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Write the man pages of all commands into a folder.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The folder; it is created if it is missing.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

pub fn run(args: &Args) -> Exit {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut super::Args::command(), "warren", &mut text);
    crate::report::line(String::from_utf8_lossy(&text).trim_end());
    Exit::Done
}

/// One page for `warren` and one for each command, `warren-sync.1`.
///
/// # Errors
/// The folder cannot be written.
pub fn write_man_pages(args: &ManArgs) -> Result<Exit, Stop> {
    std::fs::create_dir_all(&args.folder)
        .and_then(|()| clap_mangen::generate_to(super::Args::command(), &args.folder))
        .map_err(|error| {
            let what = format!("write the man pages into {}", args.folder.display());
            Failure::new(FailureKind::Refused, codes::INVALID_VALUE, what).detail(error.to_string())
        })?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_has_completions_of_every_command() {
        let shells = [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh];
        for shell in shells {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut super::super::Args::command(), "warren", &mut text);
            let text = String::from_utf8(text).unwrap();
            for command in ["sync", "serve", "explain", "completions"] {
                assert!(text.contains(command), "{shell}: {command}");
            }
        }
    }

    #[test]
    fn every_command_has_a_man_page() {
        let folder = tempfile::tempdir().unwrap();
        let args = ManArgs { folder: folder.path().join("man") };
        assert!(write_man_pages(&args).is_ok());
        let mut pages: Vec<String> = std::fs::read_dir(&args.folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        pages.sort();
        for page in ["warren.1", "warren-sync.1", "warren-serve.1", "warren-pipeline-test.1"] {
            assert!(pages.iter().any(|found| found == page), "{page} is not among {pages:?}");
        }
        assert!(!pages.iter().any(|page| page.contains("man.1")), "hidden commands have no page");
    }
}
