//! `warren serve`: runs all triggers and the hub of a configuration until it is told to stop.

use std::net::SocketAddr;

use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use crate::cli::{Context, Stop};
use crate::exit::Exit;
use crate::report::Style;
use crate::serve;

/// Run all triggers and the hub of the configuration until SIGTERM or Ctrl-C; then finish what is under way, hand the rest back, and end.
///
/// The hub, `/metrics`, `/healthz` and `/readyz` are served meanwhile.
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
    let (address, count, hub) = (server.address(), server.triggers(), server.has_hub());
    let what = crate::report::figures::counted(count, "trigger");
    let what = match (count, hub) {
        (0, true) => "the hub".to_owned(),
        (_, true) => format!("{what} and the hub"),
        (_, false) => what,
    };
    let scheme = if server.is_secure() { "https" } else { "http" };
    context.say(&format!("serving {what}: {scheme}://{address}"));
    let document = serde_json::json!({ "address": address.to_string(), "triggers": count, "hub": hub });
    context.document("serving", serde_json::json!({ "serving": document }));
    let handed_back = server.run(context.cancel.clone()).await;
    context.document("stopped", serde_json::json!({ "handed_back": handed_back }));
    if handed_back > 0 {
        if context.style == Style::Json {
            context.error(&went_back(handed_back));
        }
        context
            .say(&format!("stopped; {} went back", crate::report::figures::counted(handed_back, "message")));
        return Ok(Exit::Interrupted);
    }
    context.say("stopped");
    Ok(Exit::Done)
}

/// Messages that did not end within the grace.
fn went_back(messages: u64) -> Failure {
    let what = format!("stop; {} went back", crate::report::figures::counted(messages, "message"));
    Failure::new(FailureKind::Unavailable, codes::CANCELLED, what)
        .detail("they did not end within `state.shutdown_grace`")
        .remedy("start `warren serve` again, or raise `state.shutdown_grace`")
}
