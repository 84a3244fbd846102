//! `warren demo`: a whole working system on embedded parts.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cli::{Context, Stop};
use crate::demo;
use crate::exit::Exit;

/// Run a whole working system on embedded parts, in a scratch folder: a shop's database, a sync, queues, and a web page
/// to watch it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End after the first runs, and serve no page.
    #[arg(long)]
    once: bool,
    /// Use this folder instead of a scratch one.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Where the page is served.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15670")]
    listen: SocketAddr,
}

pub async fn run(context: &Context, args: &Args) -> Result<Exit, Stop> {
    demo::run(context, args.once, args.folder.clone(), args.listen).await
}
