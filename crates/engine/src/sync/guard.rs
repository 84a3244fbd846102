//! When not to send.

use crate::codes;
use crate::failure::{Failure, FailureKind};
use crate::ports::DiffSummary;
use crate::sync::plan::{Guard, GuardLimit, SyncPlan};

/// Looks at what a diff found before anything is sent.
///
/// # Errors
/// The run must stop: the query returned nothing over a filled baseline, columns that count changed, or a limit is
/// exceeded. The failure's code says which.
pub fn check(plan: &SyncPlan, summary: &DiffSummary) -> Result<(), Failure> {
    let counts = &summary.counts;
    let stop = |code, what: String| {
        Failure::new(FailureKind::Invalid, code, what).at(format!("sync `{}`", plan.name)).remedy(format!(
            "look at the query's result; if this is right, run `warren sync {} --no-guard` once",
            plan.name
        ))
    };
    if counts.rows == 0 && counts.baseline_rows > 0 {
        return Err(stop(
            codes::EMPTY_RESULT,
            format!(
                "the query returned no row, but the destination has been told of {}",
                counts.baseline_rows
            ),
        ));
    }
    if let Some(sentence) = &summary.columns_changed {
        return Err(stop(codes::COLUMNS_CHANGED, sentence.clone()).remedy(format!(
            "if the new columns are right, move the baseline without sending (`warren sync {0} --reset-baseline`) \
             or send what differs (`warren sync {0} --no-guard`)",
            plan.name
        )));
    }
    let Guard { added, changed, removed, total } = plan.guard;
    let planned = counts.planned;
    let on = |wanted: bool, count: u64| if wanted { count } else { 0 };
    let wanted = [
        ("added", added, on(plan.added.is_some(), planned.added)),
        ("changed", changed, on(plan.changed.is_some(), planned.changed)),
        ("removed", removed, on(plan.removed.is_some(), planned.removed)),
    ];
    let all = wanted.iter().map(|(_, _, count)| count).sum();
    for (name, limit, count) in wanted.into_iter().chain([("total", total, all)]) {
        let Some(limit) = limit else { continue };
        if let Some(allowed) = exceeded(limit, count, counts.baseline_rows) {
            let verb = if name == "total" { "to be sent".to_owned() } else { name.to_owned() };
            return Err(stop(
                codes::GUARD_EXCEEDED,
                format!("{count} rows are {verb}, and the guard `{name}` allows {allowed}"),
            ));
        }
    }
    Ok(())
}

/// What is allowed, where a count is over it.
fn exceeded(limit: GuardLimit, count: u64, baseline: u64) -> Option<String> {
    match limit {
        GuardLimit::Rows(rows) => (count > rows).then(|| rows.to_string()),
        // A share of nothing says nothing: the first run is not held by it.
        GuardLimit::Share(_) if baseline == 0 => None,
        GuardLimit::Share(share) => (count as f64 > share * baseline as f64)
            .then(|| format!("{}% of {baseline}", (share * 1e4).round() / 100.0)),
    }
}
