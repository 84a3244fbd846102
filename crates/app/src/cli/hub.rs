//! `warren hub`: what belongs to a hub and is done at a terminal.

use std::io::{BufRead, IsTerminal};

use warren_connectors::kit::users::hash_password;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use crate::cli::{Context, Stop};
use crate::exit::Exit;
use crate::report::{Style, line, note};

/// Help with the hub's configuration.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Read a password from stdin, one line, and print its argon2 hash, for `password_hash` under `hub.users`.
    HashPassword,
}

pub fn run(context: &Context, args: &Args) -> Result<Exit, Stop> {
    match args.command {
        Command::HashPassword => hash(context),
    }
}

fn hash(context: &Context) -> Result<Exit, Stop> {
    let wrong = |detail: String| {
        Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, "read a password from stdin").detail(detail)
    };
    if std::io::stdin().is_terminal() {
        note("the password, which is shown as you type it:");
    }
    let mut text = String::new();
    std::io::stdin().lock().read_line(&mut text).map_err(|error| wrong(error.to_string()))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        let remedy = "give it as one line, such as `printf %s \"$PASSWORD\" | warren hub hash-password`";
        return Err(wrong("it is empty".to_owned()).remedy(remedy).into());
    }
    let hash = hash_password(password)?;
    match context.style {
        Style::Json => context.document("hashed", serde_json::json!({ "password_hash": hash })),
        Style::Person => line(&hash),
    }
    Ok(Exit::Done)
}
