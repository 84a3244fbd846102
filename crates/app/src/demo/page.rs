//! The page that shows the demo at work: one document, asked for again and again.

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use warren_engine::failure::Failure;
use warren_engine::run::RowStatus;
use warren_store::state::{Order, OutcomeFilter, RunFilter};

use crate::assemble::Parts;
use crate::cli::explain::all;
use crate::cli::failure_json;
use crate::report::summary::{outcome_json, run_json};

/// The page and its document.
pub fn router(parts: Arc<Parts>) -> Router {
    Router::new().route("/", get(page)).route("/demo.json", get(document)).with_state(parts)
}

async fn page() -> Response {
    // The page loads nothing from elsewhere, and nothing else may run in it.
    let policy =
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(include_str!("page.html"))).into_response()
}

async fn document(Shared(parts): Shared<Arc<Parts>>) -> Response {
    match gather(&parts).await {
        Ok(document) => Json(document).into_response(),
        Err(failure) => (StatusCode::INTERNAL_SERVER_ERROR, Json(failure_json(&failure))).into_response(),
    }
}

async fn gather(parts: &Parts) -> Result<Value, Failure> {
    let state = parts.state.as_ref();
    let mut runs = Vec::new();
    for run in state.runs(&RunFilter { limit: Some(12), ..RunFilter::default() }).await? {
        runs.push(run_json(&run, &[]));
    }
    let newest = |status, limit| OutcomeFilter {
        status: Some(status),
        limit: Some(limit),
        order: Order::NewestFirst,
        ..OutcomeFilter::default()
    };
    let shown = |found: Vec<warren_store::state::Recorded>| -> Vec<Value> {
        found.iter().map(|recorded| outcome_json(&recorded.outcome)).collect()
    };
    let sent = shown(all(state, newest(RowStatus::Sent, 8)).await?);
    let rejected = shown(all(state, newest(RowStatus::Rejected, 3)).await?);
    let queues: Vec<Value> = parts
        .ports
        .broker
        .queues()
        .await?
        .into_iter()
        .map(|queue| json!({ "name": queue.name, "messages": queue.messages }))
        .collect();
    Ok(json!({ "runs": runs, "sent": sent, "rejected": rejected, "queues": queues }))
}
