//! `/healthz`, `/readyz` and `/metrics`.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Map, json};
use warren_engine::consume::status::{State as TriggerState, Status};

use super::{Statuses, metrics};

/// The pages.
pub(super) fn router(statuses: Statuses) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(numbers))
        .with_state(statuses)
}

/// 200 where every trigger consumes; 503 with the state of each where one does not.
async fn ready(State(statuses): State<Statuses>) -> Response {
    let triggers: Map<_, _> = statuses.iter().map(|(name, status)| (name.clone(), shown(status))).collect();
    let all = statuses.values().all(|status| is_ready(&status.state()));
    let code = if all { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, axum::Json(json!({ "ready": all, "triggers": triggers }))).into_response()
}

fn is_ready(state: &TriggerState) -> bool {
    match state {
        TriggerState::Consuming | TriggerState::Paused => true,
        TriggerState::Starting
        | TriggerState::Waiting(_)
        | TriggerState::Draining
        | TriggerState::Stopped => false,
    }
}

fn shown(status: &Status) -> serde_json::Value {
    let state = status.state();
    let waits_for = match &state {
        TriggerState::Waiting(failure) => Some(crate::cli::failure_json(failure)),
        _ => None,
    };
    json!({
        "state": state.as_str(),
        "waits_for": waits_for,
        "trouble": status.trouble().as_ref().map(crate::cli::failure_json),
        "retries_by": status.mechanism().map(|mechanism| mechanism.as_str()),
    })
}

async fn numbers(State(statuses): State<Statuses>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::text(&statuses))
        .into_response()
}
