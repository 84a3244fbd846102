//! `warren serve`: runs all triggers of a configuration until it is told to stop.

use std::net::SocketAddr;

use crate::cli::{Context, Stop};
use crate::exit::Exit;
use crate::serve;

/// Run all triggers of the configuration until SIGTERM or Ctrl-C; then finish what is under way, hand the rest back, and end.
///
/// `/metrics`, `/healthz` and `/readyz` are served meanwhile.
///
/// Exit codes: 0 stopped in good order; 5 some messages did not end in time and went back to their queues; 1 it could not
/// begin; 2 the configuration is wrong.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen, instead of the configuration's `http.listen`; port 0 for any free one.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
}

pub async fn run(context: &Context, args: &Args) -> Result<Exit, Stop> {
    let project = context.project()?;
    if !project.warnings.is_empty() {
        super::tell_faults(context, &project.warnings);
    }
    let listen = args.listen.unwrap_or(project.listen);
    let server = serve::Server::open(project, listen).await?;
    let (address, count) = (server.address(), server.triggers());
    context.say(&format!("serving {}: http://{address}", crate::report::figures::counted(count, "trigger")));
    context
        .document(&serde_json::json!({ "serving": { "address": address.to_string(), "triggers": count } }));
    let handed_back = server.run(context.cancel.clone()).await;
    if handed_back > 0 {
        context
            .say(&format!("stopped; {} went back", crate::report::figures::counted(handed_back, "message")));
        return Ok(Exit::Interrupted);
    }
    context.say("stopped");
    Ok(Exit::Done)
}
