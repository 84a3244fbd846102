//! Errors, warnings and notes for programs: one JSON object a line, of one form whatever the cause.

use serde_json::{Value, json};
use warren_config::Project;
use warren_engine::failure::Failure;
use warren_engine::finding::Finding;
use warren_engine::run::RunRecord;

/// A failure: what failed, where, why, the way out.
pub fn of_failure(failure: &Failure) -> Value {
    json!({
        "event": "error", "severity": "error", "kind": failure.name().as_str(), "code": failure.code.as_str(),
        "place": failure.place, "message": failure.what, "detail": failure.detail, "help": failure.remedy,
    })
}

/// The error that a run ended with.
pub fn of_run(run: &RunRecord) -> Option<Value> {
    let error = run.error.as_ref()?;
    Some(json!({
        "event": "error", "severity": "error", "sync": run.sync, "run": run.id, "code": error.code, "place": null,
        "message": error.message, "detail": null, "help": error.remedy,
    }))
}

/// A finding of a check; its event is its severity.
pub fn of_finding(project: &Project, finding: &Finding) -> Value {
    let place = project.place(&finding.subject);
    json!({
        "event": finding.severity, "severity": finding.severity, "code": finding.code.as_str(),
        "subject": finding.subject, "place": place.as_ref().map(ToString::to_string),
        "file": place.as_ref().map(|place| &place.file), "line": place.as_ref().map(|place| place.line),
        "column": place.as_ref().map(|place| place.column), "message": finding.message, "detail": finding.detail,
        "help": finding.remedy,
    })
}
