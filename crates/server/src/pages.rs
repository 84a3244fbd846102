//! `/healthz`, `/readyz` and `/metrics`.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Map, json};
use warren_engine::consume::status::{State as TriggerState, Status};

use crate::hub_slot::HubSlot;
use crate::{Statuses, failure_json, metrics};

/// The most parts that `/readyz` lists.
const PARTS_MAX: usize = 100;

/// What the pages show.
#[derive(Clone)]
struct Shown {
    statuses: Statuses,
    hub: Option<HubSlot>,
}

/// The pages, and what the hub answers.
pub fn router(statuses: Statuses, hub: Option<HubSlot>) -> Router {
    let routes = hub.as_ref().map(HubSlot::router);
    let pages = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(numbers))
        .with_state(Shown { statuses, hub });
    match routes {
        Some(routes) => pages.merge(routes),
        None => pages,
    }
}

/// 200 where every trigger consumes, no operator must act, the hub answers, and its subscriptions have not all stopped consuming; else 503 with
/// the state of each. `needs_operator` lists the parts for which an operator must act.
async fn ready(State(Shown { statuses, hub }): State<Shown>) -> Response {
    let triggers: Map<_, _> = statuses.iter().map(|(name, status)| (name.clone(), shown(status))).collect();
    let needs_operator = needs_operator(&statuses, hub.as_ref());
    let all = statuses.values().all(|status| is_ready(&status.state()) && status.needs_operator().is_none());
    let hub_shown = hub.as_ref().map(shown_hub);
    let all = all && hub_shown.as_ref().is_none_or(|(ready, _)| *ready);
    let code = if all { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut answer = json!({ "ready": all, "needs_operator": needs_operator, "triggers": triggers });
    if let Some((_, shown)) = hub_shown {
        answer["hub"] = shown;
    }
    (code, axum::Json(answer)).into_response()
}

/// The affected parts, and what an operator must do for each.
fn needs_operator(statuses: &Statuses, hub: Option<&HubSlot>) -> Vec<serde_json::Value> {
    let triggers = statuses.iter().map(|(name, status)| (format!("trigger {name}"), status.needs_operator()));
    let consumers = hub.and_then(HubSlot::open).map(|open| open.hub.consumers()).unwrap_or_default();
    let consumers =
        consumers.iter().map(|(id, status)| (format!("subscription {id}"), status.needs_operator()));
    triggers
        .chain(consumers)
        .filter_map(|(part, failure)| {
            let mut shown = failure_json(&failure?);
            shown["part"] = part.into();
            Some(shown)
        })
        .take(PARTS_MAX)
        .collect()
}

/// Whether the hub does its work, and its state. One subscription that waits, for its queue perhaps, is a matter of its own; where none of
/// them consumes it is the broker's, or ours.
fn shown_hub(slot: &HubSlot) -> (bool, serde_json::Value) {
    let Some(open) = slot.open() else {
        let waits_for = slot.waits_for();
        let shown = json!({ "state": "waiting", "waits_for": waits_for.as_ref().map(failure_json) });
        return (false, shown);
    };
    let all = open.hub.all();
    let active = all.iter().filter(|subscription| subscription.is_active()).count();
    let waiting = open.hub.waiting();
    let statuses = open.hub.consumers();
    let consuming = statuses.iter().filter(|(_, status)| is_ready(&status.state())).count();
    let shown = json!({
        "state": "running",
        "subscriptions": all.len(),
        "active": active,
        "waiting": waiting,
        "consuming": consuming,
    });
    (statuses.is_empty() || consuming > 0, shown)
}

fn is_ready(state: &TriggerState) -> bool {
    match state {
        TriggerState::Consuming | TriggerState::Paused => true,
        TriggerState::Starting
        | TriggerState::Waiting(_)
        | TriggerState::Blocked(_)
        | TriggerState::Draining
        | TriggerState::Stopped => false,
    }
}

fn shown(status: &Status) -> serde_json::Value {
    let state = status.state();
    let waits_for = match &state {
        TriggerState::Waiting(failure) | TriggerState::Blocked(failure) => Some(failure_json(failure)),
        _ => None,
    };
    json!({
        "state": state.as_str(),
        "waits_for": waits_for,
        "trouble": status.trouble().as_ref().map(failure_json),
        "needs_operator": status.needs_operator().as_ref().map(failure_json),
        "retries_by": status.mechanism().map(|mechanism| mechanism.as_str()),
    })
}

async fn numbers(State(Shown { statuses, hub }): State<Shown>) -> Response {
    let text = metrics::text(&statuses, hub.and_then(|hub| hub.open()).as_ref());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
