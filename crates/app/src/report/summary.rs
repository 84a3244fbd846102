//! What a run did, as a few lines for a person and as a document for a program.

use serde_json::{Map, Value, json};
use warren_engine::message::{Outbound, Route};
use warren_engine::redact::scrub;
use warren_engine::run::{PerOp, RowOutcome, RowStatus, RunKind, RunRecord, RunState};
use warren_engine::size::ByteSize;
use warren_store::state::Tally;

use crate::report::figures::{count, counted, cut, rate, span, time_rfc3339};

/// A run's summary in a few lines.
pub fn run_text(run: &RunRecord, tallies: &[Tally]) -> String {
    let mut lines = Vec::new();
    let word = match (run.state, run.kind) {
        (RunState::Warning, _) => "done, with rejected rows".to_owned(),
        (RunState::Success, RunKind::ResetBaseline) => "done, baseline moved, nothing sent".to_owned(),
        (RunState::Success, _) => "done".to_owned(),
        (state, _) => state.to_string(),
    };
    lines.push(format!("{}: {word} in {} (run {})", run.sync, span(run.times.total_ms), run.id));
    let counts = &run.counts;
    if run.kind != RunKind::Replay {
        let speed =
            rate(counts.rows, run.times.querying_ms).map(|rate| format!(" ({rate})")).unwrap_or_default();
        lines.push(format!(
            "  {:<10}{}{speed}, {}",
            "read",
            counted(counts.rows, "row"),
            changes(counts.planned)
        ));
    }
    if counts.sent.total() > 0 {
        let speed = rate(counts.sent.total(), run.times.sending_ms)
            .map(|rate| format!(", {rate}"))
            .unwrap_or_default();
        let size = ByteSize(counts.bytes);
        lines.push(format!("  {:<10}{} ({size}{speed})", "sent", counted(counts.sent.total(), "message")));
    }
    if counts.skipped.total() > 0 {
        let rows = counted(counts.skipped.total(), "change");
        lines.push(format!("  {:<10}{rows} noted, for which nothing is to be sent", "skipped"));
    }
    if counts.rejected_rows() > 0 {
        lines.push(format!("  {:<10}{}", "rejected", counted(counts.rejected_rows(), "row")));
        lines.extend(rejections(tallies).into_iter().map(|text| format!("    {text}")));
        if counts.rejected.total() > 0 {
            lines.push("    they are tried again in the next run".to_owned());
        }
    }
    if counts.held.total() > 0 {
        let rows = counted(counts.held.total(), "message");
        lines.push(format!(
            "  {:<10}{rows} behind a rejected one of its group; they go in the next run",
            "held"
        ));
    }
    if counts.possible_duplicates > 0 {
        let count = counted(counts.possible_duplicates, "message");
        lines.push(format!("  {:<10}{count} may arrive twice, with the same change id", "repeated"));
    }
    if let Some(error) = &run.error
        && run.state != RunState::Warning
    {
        lines.push(format!("  {:<10}{} [{}]", "error", error.message, error.code));
        lines.extend(error.remedy.as_ref().map(|remedy| format!("  {:<10}{remedy}", "help")));
    }
    lines.join("\n")
}

/// The kinds of rejection, each with how often and one example.
fn rejections(tallies: &[Tally]) -> Vec<String> {
    let mut codes: Vec<(String, u64, &Tally)> = Vec::new();
    let is_told = |tally: &&Tally| !matches!(tally.status, RowStatus::Sent | RowStatus::Held);
    for tally in tallies.iter().filter(is_told) {
        let code = tally.code.map_or(tally.status.as_str(), |code| code.as_str()).to_owned();
        match codes.iter_mut().find(|(other, _, _)| *other == code) {
            Some((_, rows, _)) => *rows += tally.rows,
            None => codes.push((code, tally.rows, tally)),
        }
    }
    codes.sort_by_key(|(_, rows, _)| std::cmp::Reverse(*rows));
    let mut lines = Vec::new();
    for (code, rows, sample) in codes {
        let answer = sample.sample_answer.as_deref().unwrap_or_default();
        lines.push(format!(
            "{} × {code}, such as key {}: {}",
            count(rows),
            cut(&sample.sample_key, 40),
            cut(answer, 240)
        ));
    }
    lines
}

/// `nothing changed`, or how many were added, changed and removed.
pub fn changes(planned: PerOp) -> String {
    if planned.total() == 0 {
        return "nothing changed".to_owned();
    }
    let parts = [("added", planned.added), ("changed", planned.changed), ("removed", planned.removed)];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(_, number)| *number > 0)
        .map(|(word, number)| format!("{} {word}", count(*number)))
        .collect();
    parts.join(", ")
}

/// A run as a document.
pub fn run_json(run: &RunRecord, tallies: &[Tally]) -> Value {
    let rejections: Vec<Value> = tallies
        .iter()
        .filter(|tally| !matches!(tally.status, RowStatus::Sent | RowStatus::Held))
        .map(|tally| {
            json!({
                "status": tally.status,
                "code": tally.code.map(warren_engine::codes::Code::as_str),
                "op": tally.op,
                "rows": tally.rows,
                "sample": { "key": tally.sample_key, "answer": tally.sample_answer },
            })
        })
        .collect();
    json!({
        "run": run.id, "sync": run.sync, "kind": run.kind, "state": run.state,
        "started_at": time_rfc3339(run.started_at), "ended_at": run.ended_at.map(time_rfc3339),
        "counts": run.counts, "times": run.times, "error": run.error, "rejections": rejections,
    })
}

/// What became of a row, as a document.
pub fn outcome_json(outcome: &RowOutcome) -> Value {
    json!({
        "change_id": outcome.change.map(|change| change.to_string()),
        "op": outcome.op, "key": outcome.key, "status": outcome.status,
        "code": outcome.code.map(warren_engine::codes::Code::as_str),
        "message": outcome.outbound.as_ref().map(outbound_json),
        "attempts": outcome.attempts.iter()
            .map(|attempt| json!({ "at": time_rfc3339(attempt.at), "answer": attempt.answer }))
            .collect::<Vec<_>>(),
    })
}

/// A document without what came from variables.
fn without_values(document: Value) -> Value {
    match document {
        Value::String(text) => scrub(text).into_owned().into(),
        Value::Array(items) => items.into_iter().map(without_values).collect(),
        Value::Object(entries) => {
            entries.into_iter().map(|(key, value)| (key, without_values(value))).collect::<Map<_, _>>().into()
        }
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
    }
}

/// A message with its route, as a document, without what came from variables. A body that is not text is base64 under `body_base64`.
pub fn outbound_json(outbound: &Outbound) -> Value {
    use base64::Engine as _;
    let mut document = json!({ "properties": outbound.message.properties });
    match &outbound.route {
        Route::Queue(queue) => document["queue"] = queue.clone().into(),
        Route::Exchange { exchange, routing_key } => {
            document["exchange"] = exchange.clone().into();
            document["routing_key"] = routing_key.clone().into();
        }
    }
    match std::str::from_utf8(&outbound.message.body) {
        Ok(text) => document["body"] = text.into(),
        Err(_) => {
            document["body_base64"] =
                base64::engine::general_purpose::STANDARD.encode(&outbound.message.body).into();
        }
    }
    without_values(document)
}
