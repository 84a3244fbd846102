//! What a command's end means to a script. One table, also in `docs/cli.md`.

use std::process::ExitCode;

use warren_engine::codes::{self, Code};
use warren_engine::run::RunState;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// All was done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The configuration or the command line is wrong; nothing was done.
    Usage = 2,
    /// All was done but for rows that were rejected.
    Rejected = 3,
    /// A guard stopped a run before anything was sent.
    Guarded = 4,
    /// Stopped half-way: by a signal, or because the destination stayed away. The next run goes on from there.
    Interrupted = 5,
}

impl Exit {
    /// The exit of a run.
    pub fn of_run(state: RunState) -> Exit {
        match state {
            RunState::Success => Exit::Done,
            RunState::Warning => Exit::Rejected,
            RunState::Guarded => Exit::Guarded,
            RunState::Interrupted | RunState::Cancelled => Exit::Interrupted,
            RunState::Queued
            | RunState::Querying
            | RunState::Planning
            | RunState::Sending
            | RunState::Failed => Exit::Failed,
        }
    }

    /// The exit of a command that failed with a code.
    pub fn of_code(code: Code) -> Exit {
        const USAGE: [Code; 12] = [
            codes::CONFIG_UNREADABLE,
            codes::CONFIG_SYNTAX,
            codes::UNKNOWN_KEY,
            codes::MISSING_KEY,
            codes::INVALID_VALUE,
            codes::MISSING_VARIABLE,
            codes::UNKNOWN_NAME,
            codes::CONFLICTING_KEYS,
            codes::INVALID_ARGUMENTS,
            codes::TEMPLATE_SYNTAX,
            codes::EXPRESSION_SYNTAX,
            codes::INVALID_SCHEMA,
        ];
        if USAGE.contains(&code) {
            Exit::Usage
        } else if code == codes::PLAN_OUTDATED {
            Exit::Guarded
        } else {
            Exit::Failed
        }
    }

    /// The exit of several runs: failures weigh most, then what was not finished, then what was not begun, then what was
    /// rejected.
    pub fn worst(exits: impl IntoIterator<Item = Exit>) -> Exit {
        const WEIGHT: [Exit; 6] =
            [Exit::Done, Exit::Rejected, Exit::Guarded, Exit::Interrupted, Exit::Failed, Exit::Usage];
        let weight = |exit: &Exit| WEIGHT.iter().position(|other| other == exit);
        exits.into_iter().max_by_key(weight).unwrap_or(Exit::Done)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_several_is_told() {
        assert_eq!(Exit::worst([]), Exit::Done);
        assert_eq!(Exit::worst([Exit::Done, Exit::Rejected]), Exit::Rejected);
        assert_eq!(Exit::worst([Exit::Failed, Exit::Interrupted, Exit::Rejected]), Exit::Failed);
    }
}
