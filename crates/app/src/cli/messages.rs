//! Consumed messages in `warren runs`, `explain` and `replay`: each attempt on record, with its steps and its error.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};
use warren_engine::codes;
use warren_engine::consume::record::{MessageRunId, MessageStatus};
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::message::{Message, Outbound, Receipt, Route};
use warren_engine::redact::scrub;
use warren_store::messages::{MessageFilter, RecordedMessage, find};

use crate::assemble;
use crate::cli::explain::Filter;
use crate::cli::{Context, Stop};
use crate::exit::Exit;
use crate::report::figures::{counted, cut, time};
use crate::report::{Style, line};
use warren_config::Project;

/// Messages sent in one batch.
const BATCH: usize = 100;

/// Which consumed messages go back to their queue.
#[derive(Debug, clap::Args)]
pub struct Replay {
    /// Consumed messages of this trigger; with `--status` those that ended so (else `dead_lettered`, `rejected`, `dropped`, `failed`).
    #[arg(long, value_name = "TRIGGER")]
    trigger: Option<String>,
    /// The consumed message with this id, or this attempt at one (`m17`).
    #[arg(long, value_name = "ID")]
    message: Option<String>,
}

impl Replay {
    /// Whether consumed messages are meant, and not rows.
    pub fn is_meant(&self) -> bool {
        self.trigger.is_some() || self.message.is_some()
    }
}

/// Lists the attempts at messages of a trigger.
///
/// # Errors
/// There is no such trigger or state, or the record cannot be read.
pub async fn list(
    context: &Context,
    project: &Project,
    trigger: &str,
    state: Option<&str>,
    limit: usize,
) -> Result<Exit, Stop> {
    let filter = MessageFilter {
        consumer: Some(trigger.to_owned()),
        statuses: state.map(status).transpose()?.into_iter().collect(),
        limit: Some(limit),
        ..MessageFilter::default()
    };
    let found = find(&project.state.folder, filter).await?;
    if context.style == Style::Json {
        for found in &found {
            context.document("attempt", document(found));
        }
        return Ok(Exit::Done);
    }
    if found.is_empty() {
        line(&format!("no messages of trigger `{trigger}` on record"));
        return Ok(Exit::Done);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["run", "message", "attempt", "status", "started", "took", "error"]);
    for found in &found {
        table.add_row([
            found.id.to_string(),
            cut(&found.message, 40),
            found.attempt.to_string(),
            found.status.as_str().to_owned(),
            time(found.started_at),
            took(found),
            found.error.as_ref().map(|error| cut(&error.message, 80)).unwrap_or_default(),
        ]);
    }
    line(&table.to_string());
    Ok(Exit::Done)
}

/// Shows one attempt.
///
/// # Errors
/// There is none of that number, or the record cannot be read.
pub async fn one(context: &Context, project: &Project, id: MessageRunId) -> Result<Exit, Stop> {
    let filter = MessageFilter { id: Some(id), ..MessageFilter::default() };
    let Some(found) = find(&project.state.folder, filter).await?.pop() else {
        let what = format!("there is no attempt {id} on record");
        let failure = Failure::new(FailureKind::NotFound, codes::UNKNOWN_NAME, what);
        return Err(failure.remedy("`warren runs --trigger NAME` lists those that are").into());
    };
    match context.style {
        Style::Json => context.document("attempt", document(&found)),
        Style::Person => tell(&found),
    }
    Ok(Exit::Done)
}

/// Tells what happened to a message, newest first; `false` where nothing is on record of it.
///
/// # Errors
/// The record cannot be read.
pub async fn explain(context: &Context, project: &Project, what: &str, limit: usize) -> Result<bool, Stop> {
    let filter =
        MessageFilter { message: Some(what.to_owned()), limit: Some(limit), ..MessageFilter::default() };
    let mut found = find(&project.state.folder, filter).await?;
    if let Ok(id) = what.parse()
        && found.is_empty()
    {
        found =
            find(&project.state.folder, MessageFilter { id: Some(id), ..MessageFilter::default() }).await?;
    }
    for found in &found {
        match context.style {
            Style::Json => context.document("attempt", document(found)),
            Style::Person => tell(found),
        }
    }
    Ok(!found.is_empty())
}

fn tell(found: &RecordedMessage) {
    let class = found.class.as_ref().map(|class| format!(", {class}")).unwrap_or_default();
    line(&format!(
        "{} message {}: attempt {}, {}{class}",
        found.consumer,
        found.message,
        found.attempt,
        found.status.as_str()
    ));
    line(&format!("  run        {}, {}, took {}", found.id, time(found.started_at), took(found)));
    let envelope = &found.envelope;
    let from = if envelope.exchange.is_empty() {
        format!("queue `{}`", envelope.queue)
    } else {
        let (queue, exchange, key) = (&envelope.queue, &envelope.exchange, &envelope.routing_key);
        format!("queue `{queue}`, exchange `{exchange}` with routing key `{key}`")
    };
    line(&format!("  from       {from}"));
    if let Some(next_at) = found.next_at {
        line(&format!("  next try   {}", time(next_at)));
    }
    for (at, step) in found.steps.iter().enumerate() {
        let word = if at == 0 { "steps" } else { "" };
        let said = step.error.as_ref().or(step.note.as_ref()).map(|said| format!(": {}", cut(said, 200)));
        let took = std::time::Duration::from_micros(step.took_us);
        line(&format!("  {word:<10} {} ({took:?}){}", step.path, said.unwrap_or_default()));
    }
    if let Some(error) = &found.error {
        let code = match (error.kind, error.code.as_str()) {
            (_, "") => String::new(),
            (Some(kind), code) => format!(" [{code}, {}]", kind.as_str()),
            (None, code) => format!(" [{code}]"),
        };
        line(&format!("  error      {}{code}", error.message));
        if let Some(answer) = &error.answer {
            line(&format!("  answer     {}", cut(answer, 300)));
        }
        if let Some(remedy) = &error.remedy {
            line(&format!("  help       {remedy}"));
        }
    }
    let properties = serde_json::to_value(&found.properties).unwrap_or_default();
    line(&format!("  properties {}", cut(&properties.to_string(), 400)));
    match &found.body {
        None => line(&format!("  body       {} bytes, not recorded", found.body_bytes)),
        Some(body) => {
            let body = scrub(String::from_utf8_lossy(body));
            for (at, text) in body.lines().take(40).enumerate() {
                line(&format!("  {:<10} {}", if at == 0 { "body" } else { "" }, cut(text, 300)));
            }
        }
    }
    line("");
}

fn document(found: &RecordedMessage) -> Value {
    let envelope = &found.envelope;
    json!({
        "run": found.id.to_string(), "trigger": found.consumer, "message": found.message,
        "attempt": found.attempt, "status": found.status.as_str(), "class": found.class,
        "received_at": found.received_at, "started_at": found.started_at, "ended_at": found.ended_at,
        "next_at": found.next_at, "error": found.error, "steps": found.steps,
        "queue": envelope.queue, "exchange": envelope.exchange, "routing_key": envelope.routing_key,
        "redelivered": envelope.redelivered, "properties": found.properties, "body_bytes": found.body_bytes,
        "body": found.body.as_ref().map(|body| scrub(String::from_utf8_lossy(body))),
    })
}

fn took(found: &RecordedMessage) -> String {
    crate::report::figures::span(u64::try_from(found.ended_at - found.started_at).unwrap_or(0))
}

fn status(text: &str) -> Result<MessageStatus, Failure> {
    text.parse().map_err(|()| {
        let words: Vec<&str> = MessageStatus::ALL.iter().map(|status| status.as_str()).collect();
        Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, format!("no message ends as `{text}`"))
            .remedy(format!("they end as {}", words.join(", ")))
    })
}

/// Publishes consumed messages again to the queue they came from, as they were, with no attempt spent.
///
/// # Errors
/// What is asked for is not clear, or the record cannot be read.
pub async fn replay(context: &Context, args: &Replay, of: &Filter) -> Result<Exit, Stop> {
    let project = context.project()?;
    let times = Filter { status: None, ..of.clone() }.read()?;
    let mut filter = MessageFilter {
        consumer: args.trigger.clone(),
        since: times.since,
        until: times.until,
        oldest_first: true,
        limit: Some(usize::try_from(i64::MAX).unwrap_or(usize::MAX)),
        ..MessageFilter::default()
    };
    match args.message.as_deref().map(|message| (message.parse(), message)) {
        Some((Ok(id), _)) => filter.id = Some(id),
        Some((Err(()), message)) => filter.message = Some(message.to_owned()),
        None => {
            filter.statuses = match &of.status {
                Some(text) => vec![status(text)?],
                None => vec![
                    MessageStatus::DeadLettered,
                    MessageStatus::Rejected,
                    MessageStatus::Dropped,
                    MessageStatus::Failed,
                ],
            }
        }
    }
    let mut found = find(&project.state.folder, filter).await?;
    if args.message.is_some() {
        // Of several attempts at one message, one copy is enough.
        found.drain(..found.len().saturating_sub(1));
    }
    let (mut sent, mut failed) = (0, 0);
    let mut by_trigger: std::collections::BTreeMap<String, Vec<Outbound>> = std::collections::BTreeMap::new();
    for found in found {
        let Some(outbound) = outbound(&found) else {
            let what = format!("send attempt {} again", found.id);
            let failure = Failure::new(FailureKind::NotFound, codes::UNKNOWN_NAME, what)
                .detail("its body is not on record")
                .remedy("set `state.record.bodies: true` to record bodies from now on");
            context.error(&failure);
            failed += 1;
            continue;
        };
        by_trigger.entry(found.consumer).or_default().push(outbound);
    }
    for (name, messages) in by_trigger {
        let Some(trigger) = project.triggers.get(&name) else {
            let what = format!("send messages of trigger `{name}` again");
            let failure = Failure::new(FailureKind::NotFound, codes::UNKNOWN_NAME, what)
                .detail("the configuration does not have this trigger")
                .remedy("add the trigger to the configuration");
            context.error(&failure);
            failed += messages.len() as u64;
            continue;
        };
        let broker = assemble::broker(&project, &trigger.broker)?;
        for batch in messages.chunks(BATCH) {
            for receipt in broker.publish(batch).await {
                match receipt {
                    Receipt::Accepted(_) => sent += 1,
                    Receipt::Refused(failure) | Receipt::Unknown(failure) => {
                        context.error(&failure);
                        failed += 1;
                    }
                }
            }
        }
        broker.close().await;
    }
    context.say(&format!("{} went back to the queue", counted(sent, "message")));
    context.document("replayed", json!({ "sent": sent, "failed": failed }));
    Ok(if failed > 0 { Exit::Failed } else { Exit::Done })
}

/// The message as it was, but for what a broker would refuse or act on: the publishing user, copies by `CC`.
fn outbound(found: &RecordedMessage) -> Option<Outbound> {
    let mut properties = found.properties.clone();
    properties.user_id = None;
    for name in ["CC", "BCC", "x-delivery-count", "x-acquired-count", "x-death"] {
        properties.headers.remove(name);
    }
    let message = Message { body: found.body.clone()?, properties };
    Some(Outbound { route: Route::Queue(found.envelope.queue.clone()), message })
}
