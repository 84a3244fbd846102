//! `/healthz`, `/readyz` and `/metrics`.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Map, Value, json};
use warren_engine::consume::status::{State as TriggerState, Status};

use super::{Seen, metrics};

/// The pages.
pub(super) fn router(seen: &Seen) -> Router {
    let pages = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(numbers))
        .with_state(seen.clone());
    match &seen.hub {
        None => pages,
        Some(stage) => pages.fallback_service(stage.router()),
    }
}

/// 200 where every trigger consumes and the hub is open; 503 with the state of each where not. A subscription that waits for its queue
/// is counted and keeps nobody from the hub: anybody may subscribe.
async fn ready(State(seen): State<Seen>) -> Response {
    let triggers: Map<_, _> =
        seen.triggers.iter().map(|(name, status)| (name.clone(), shown(status))).collect();
    let mut all = seen.triggers.values().all(|status| is_ready(&status.state()));
    let mut told = json!({ "triggers": triggers });
    if let Some(stage) = &seen.hub {
        let (state, waits_for) = stage.state();
        all &= state == "open";
        let waits_for = waits_for.as_ref().map(crate::cli::failure_json);
        let mut consumers: Map<String, Value> = Map::new();
        for (_, status) in stage.consumers() {
            let count = consumers.entry(status.state().as_str()).or_insert(0.into());
            *count = (count.as_u64().unwrap_or(0) + 1).into();
        }
        told["hub"] = json!({ "state": state, "waits_for": waits_for, "consumers": consumers });
    }
    told["ready"] = all.into();
    let code = if all { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, axum::Json(told)).into_response()
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

async fn numbers(State(seen): State<Seen>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::text(&seen))
        .into_response()
}
