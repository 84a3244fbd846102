//! `warren schema`: the configuration's JSON Schema, or its reference page.

use crate::exit::Exit;
use crate::report::line;
use warren_config::{reference, schema};

/// Print the JSON Schema of the configuration, for editors; or its reference as Markdown.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the reference page instead.
    #[arg(long)]
    docs: bool,
}

pub fn run(args: &Args) -> Exit {
    if args.docs {
        line(reference::reference(schema::schema()).trim_end());
    } else {
        line(&format!("{:#}", schema::schema()));
    }
    Exit::Done
}
