//! Warren over HTTP: the listener, health and metrics, and the routes of the hub.
//!
//! | module | does |
//! |---|---|
//! | [`listen`], `framing`, `linger` | accepts connections, refuses requests whose framing is wrong, closes connections without losing answers |
//! | [`client_address`] | which client a request comes from, behind trusted proxies |
//! | [`pages`], `metrics` | `/healthz`, `/readyz`, `/metrics` |
//! | [`hub`], [`hub_slot`] | the routes of the hub, and 503 while it does not run here |
//!
//! Nothing here reads configuration or builds connectors.

pub mod client_address;
mod framing;
pub mod hub;
pub mod hub_slot;
mod linger;
pub mod listen;
mod metrics;
pub mod pages;

use std::collections::BTreeMap;
use std::sync::Arc;

use warren_engine::consume::status::Status;
use warren_engine::failure::Failure;

/// What can be seen of all triggers, by name.
pub type Statuses = Arc<BTreeMap<String, Arc<Status>>>;

/// An error as JSON, in the output of commands and in answers.
pub fn failure_json(failure: &Failure) -> serde_json::Value {
    serde_json::json!({
        "kind": failure.name().as_str(), "code": failure.code.as_str(), "message": failure.what, "detail": failure.detail,
        "place": failure.place, "remedy": failure.remedy,
    })
}
