//! `warren explain`: what happened to a row or a message, when, and what each side said.

use warren_engine::change::ChangeId;
use warren_engine::codes::{self, Code};
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::redact::scrub;
use warren_engine::run::{RowStatus, RunId};
use warren_store::state::{Order, OutcomeFilter, Recorded, State};

use crate::assemble;
use crate::cli::{Context, Stop, messages};
use crate::exit::Exit;
use crate::report::figures::{cut, time};
use crate::report::{Style, line, summary};

/// Tell what happened to a row or a message: what was sent, where, when, and what the broker said.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The row's key (several columns: a JSON array), a change id, or the id of a consumed message.
    #[arg(value_name = "KEY|CHANGE_ID|MESSAGE_ID")]
    what: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// How many to show, newest first.
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: usize,
}

/// Which recorded rows are meant.
#[derive(Debug, Clone, clap::Args)]
pub struct Filter {
    /// Only of this run.
    #[arg(long, value_name = "N")]
    pub run: Option<i64>,
    /// Only of this sync.
    #[arg(long, value_name = "SYNC")]
    pub sync: Option<String>,
    /// Only what went to this queue or exchange.
    #[arg(long, value_name = "NAME")]
    pub queue: Option<String>,
    /// Only with this outcome: sent, rejected, unknown, held.
    #[arg(long, value_name = "STATUS")]
    pub status: Option<String>,
    /// Only with this error code, such as `no-such-queue`.
    #[arg(long, value_name = "CODE")]
    pub code: Option<String>,
    /// Only since this time (RFC 3339, such as 2026-11-21T10:00:00Z).
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only before this time.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

impl Filter {
    /// As the state store understands it.
    ///
    /// # Errors
    /// A status, code or time that is none.
    pub fn read(&self) -> Result<OutcomeFilter, Failure> {
        let invalid = |what: String, remedy: &str| {
            Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, what).remedy(remedy)
        };
        let status = match &self.status {
            None => None,
            Some(text) => Some(text.parse::<RowStatus>().map_err(|()| {
                invalid(format!("`{text}` is no outcome of a row"), "they are sent, rejected, unknown, held")
            })?),
        };
        let code = match &self.code {
            None => None,
            Some(text) => Some(Code::from_name(text).ok_or_else(|| {
                let near = warren_engine::near::nearest(text, codes::ALL.iter().map(|code| code.as_str()));
                let remedy = near
                    .map_or("`docs/errors` lists them".to_owned(), |near| format!("did you mean `{near}`?"));
                invalid(format!("`{text}` is no error code"), &remedy)
            })?),
        };
        let parse_time = |text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => {
                text.parse::<jiff::Timestamp>().map(|at| Some(at.as_millisecond())).map_err(|error| {
                    invalid(format!("`{text}` is no time: {error}"), "write it as 2026-11-21T10:00:00Z")
                })
            }
        };
        Ok(OutcomeFilter {
            run: self.run.map(RunId),
            sync: self.sync.clone(),
            destination: self.queue.clone(),
            status,
            code,
            since: parse_time(&self.since)?,
            until: parse_time(&self.until)?,
            ..OutcomeFilter::default()
        })
    }
}

pub async fn run(context: &Context, args: &Args) -> Result<Exit, Stop> {
    let project = context.project()?;
    let state = assemble::state(&project)?;
    let mut filter = args.filter.read()?;
    filter.limit = Some(args.limit);
    filter.order = Order::NewestFirst;
    let found = find(state.as_ref(), filter, args.what.as_deref()).await?;
    if let Some(what) = &args.what
        && messages::explain(context, &project, what, args.limit).await?
    {
        if context.style == Style::Person {
            found.iter().for_each(tell);
        }
        return Ok(Exit::Done);
    }
    if context.style == Style::Json {
        for recorded in &found {
            let mut document = summary::outcome_json(&recorded.outcome);
            document["run"] = recorded.run.0.into();
            document["sync"] = recorded.sync.clone().into();
            context.document("row", document);
        }
        if found.is_empty() {
            context.error(&nothing(args.what.as_deref()));
            return Ok(Exit::Failed);
        }
        return Ok(Exit::Done);
    }
    if found.is_empty() {
        let what = args.what.as_deref().map(|what| format!("about `{what}` ")).unwrap_or_default();
        line(&format!("nothing is on record {what}with these conditions"));
        line(
            "  a row that never differed from what the destination was told leaves no record; records are kept for",
        );
        line("  the time and size that `record:` in the configuration says");
        return Ok(Exit::Failed);
    }
    for recorded in &found {
        tell(recorded);
    }
    Ok(Exit::Done)
}

/// Nothing is on record.
fn nothing(what: Option<&str>) -> Failure {
    let about = what.map(|what| format!(" about `{what}`")).unwrap_or_default();
    let what = format!("nothing is on record{about} with these conditions");
    Failure::new(FailureKind::NotFound, codes::UNKNOWN_NAME, what)
        .remedy("leave out conditions; a row that never differed from the baseline leaves no record")
}

/// The records of a key, or of a change id where nothing has that key.
async fn find(
    state: &dyn State,
    filter: OutcomeFilter,
    what: Option<&str>,
) -> Result<Vec<Recorded>, Failure> {
    let Some(what) = what else { return all(state, filter).await };
    let by_key = all(state, OutcomeFilter { key: Some(what.to_owned()), ..filter.clone() }).await?;
    match what.parse::<ChangeId>() {
        Ok(change) if by_key.is_empty() && what.len() == 32 => {
            all(state, OutcomeFilter { change: Some(change), ..filter }).await
        }
        _ => Ok(by_key),
    }
}

/// All records of a filter.
///
/// # Errors
/// The state cannot be read.
pub async fn all(state: &dyn State, filter: OutcomeFilter) -> Result<Vec<Recorded>, Failure> {
    let mut outcomes = state.find(filter);
    let mut found = Vec::new();
    loop {
        let more = outcomes.next().await?;
        if more.is_empty() {
            return Ok(found);
        }
        found.extend(more);
    }
}

fn tell(recorded: &Recorded) {
    let outcome = &recorded.outcome;
    let op = outcome.op.map(|op| format!("{op}, ")).unwrap_or_default();
    let code = outcome.code.map(|code| format!(" [{code}]")).unwrap_or_default();
    line(&format!("{} key {}: {op}{}{code}", recorded.sync, outcome.key, outcome.status.as_str()));
    line(&format!("  run        {}, {}", recorded.run, time(recorded.at)));
    if let Some(change) = outcome.change {
        line(&format!("  change id  {change}"));
    }
    if let Some(outbound) = &outcome.outbound {
        line(&format!("  to         {}", scrub(outbound.route.to_string())));
        let properties = serde_json::to_value(&outbound.message.properties).unwrap_or_default();
        line(&format!("  properties {}", cut(&scrub(properties.to_string()), 400)));
        let body = scrub(String::from_utf8_lossy(&outbound.message.body));
        for (at, text) in body.lines().take(40).enumerate() {
            line(&format!("  {:<10} {}", if at == 0 { "body" } else { "" }, cut(text, 300)));
        }
    }
    for (at, attempt) in outcome.attempts.iter().enumerate() {
        let word = if at == 0 { "answer" } else { "" };
        line(&format!("  {word:<10} {}: {}", time(attempt.at), attempt.answer));
    }
    line("");
}
