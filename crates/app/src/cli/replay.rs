//! `warren replay`: tries rejected rows again, or sends recorded messages again as they were.

use std::collections::{BTreeMap, BTreeSet};

use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::run::{RowOutcome, RowStatus, RunKind};
use warren_engine::sync::run::{self, Ask};
use warren_engine::sync::watch::Silent;
use warren_store::state::{Order, OutcomeFilter};

use crate::assemble::Assembly;
use crate::cli::explain::{Filter, all};
use crate::cli::{Context, Stop, messages, sync};
use crate::exit::Exit;

/// Try rows of earlier runs again.
///
/// Rows that were rejected, and rows whose answer was lost, are rendered anew from what they are now and sent, if they
/// still differ from what the destination was told. Messages that were sent are sent once more exactly as they were,
/// with the same change id. With `--trigger` or `--message`, consumed messages go back to the queue they came from.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    filter: Filter,
    /// Only rows with this key (several columns: a JSON array).
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    #[command(flatten)]
    messages: messages::Replay,
}

pub async fn run(context: &Context, args: &Args) -> Result<Exit, Stop> {
    if args.messages.is_meant() {
        return messages::replay(context, &args.messages, &args.filter).await;
    }
    let filter = OutcomeFilter { key: args.key.clone(), order: Order::OldestFirst, ..args.filter.read()? };
    if filter.run.is_none() && filter.key.is_none() && filter.since.is_none() {
        let what = "replay wants to know which rows";
        let failure = Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, what)
            .remedy("name a run (`--run N`), a key (`--key K`) or a time (`--since TIME`)");
        return Err(failure.into());
    }
    let project = context.project()?;
    let assembly = Assembly::open(&project)?;
    let mut by_sync: BTreeMap<String, Vec<RowOutcome>> = BTreeMap::new();
    for recorded in all(assembly.state().as_ref(), filter).await? {
        by_sync.entry(recorded.sync).or_default().push(recorded.outcome);
    }
    if by_sync.is_empty() {
        context.say("nothing on record is meant by that");
        return Ok(Exit::Done);
    }
    let mut exits = Vec::new();
    for (name, outcomes) in by_sync {
        sync::known(&project, &name)?;
        let parts = assembly.sync(&name)?;
        let (sent, open): (Vec<_>, Vec<_>) =
            outcomes.into_iter().partition(|outcome| outcome.status == RowStatus::Sent);
        if !open.is_empty() {
            let only: BTreeSet<String> = open.into_iter().map(|outcome| outcome.key).collect();
            let ask = Ask { kind: RunKind::Replay, only: Some(only), ..Ask::default() };
            let record = sync::watched_run(context, &parts, ask).await?;
            sync::tell(context, &parts, &record).await?;
            exits.push(Exit::of_run(record.state));
        }
        if !sent.is_empty() {
            let record = run::resend(&parts.plan, &parts.ports, sent, &Silent, &context.cancel).await?;
            sync::tell(context, &parts, &record).await?;
            exits.push(Exit::of_run(record.state));
        }
        super::farewell(parts.ports.broker.as_ref()).await;
    }
    Ok(Exit::worst(exits))
}
