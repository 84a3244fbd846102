//! `warren queues`: the queues that brokers have.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::json;

use crate::assemble;
use crate::cli::{Context, Stop};
use crate::exit::Exit;
use crate::report::Style;
use crate::report::figures::count;

/// List the queues of the configured brokers.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only of this broker.
    #[arg(value_name = "BROKER")]
    broker: Option<String>,
}

pub async fn run(context: &Context, args: &Args) -> Result<Exit, Stop> {
    let project = context.project()?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["broker", "queue", "kind", "messages", "consumers"]);
    let number = |number: Option<u64>| number.map(count).unwrap_or_default();
    for name in assemble::broker_names(&project, args.broker.as_deref())? {
        let broker = assemble::broker(&project, &name)?;
        let queues = broker.queues().await;
        broker.close().await;
        for queue in queues? {
            if context.style == Style::Json {
                let document = json!({
                    "broker": name, "queue": queue.name, "kind": queue.kind, "messages": queue.messages,
                    "consumers": queue.consumers, "durable": queue.durable,
                });
                context.document("queue", document);
            }
            table.add_row([
                name.clone(),
                queue.name,
                queue.kind,
                number(queue.messages),
                number(queue.consumers),
            ]);
        }
    }
    context.say(&table.to_string());
    Ok(Exit::Done)
}
