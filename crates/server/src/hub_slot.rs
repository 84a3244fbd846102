//! Where the hub of this process is found while it runs. Its routes answer 503 while it does not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tower_service::Service as _;
use warren_engine::failure::Failure;
use warren_engine::hub::Hub;
use warren_engine::hub::delivering::Delivering;
use warren_engine::ports::Lease;

use crate::hub::answer::tried;

/// Where the hub is while it runs. Shared by the one who keeps it and those who ask it.
#[derive(Clone, Default)]
pub struct HubSlot(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    open: Option<Open>,
    /// Why it is not open.
    waits_for: Option<Failure>,
}

/// A hub that runs.
#[derive(Clone)]
pub struct Open {
    /// Its routes.
    pub router: Router,
    /// The subscriptions.
    pub hub: Arc<Hub>,
    /// The consumers.
    pub delivering: Arc<Delivering>,
    /// Held until the last request was answered.
    pub lease: Arc<dyn Lease>,
}

impl HubSlot {
    /// The hub, if it runs.
    pub fn open(&self) -> Option<Open> {
        self.held().open.clone()
    }

    /// Why it does not run, as far as is known.
    pub fn waits_for(&self) -> Option<Failure> {
        self.held().waits_for.clone()
    }

    /// The hub runs from now on.
    pub fn opened(&self, open: Open) {
        *self.held() = Held { open: Some(open), waits_for: None };
    }

    /// The hub cannot run yet.
    pub fn waits(&self, failure: Failure) {
        self.held().waits_for = Some(failure);
    }

    /// The routes of the hub; 503 while it does not run.
    pub fn router(&self) -> Router {
        Router::new().fallback(any).with_state(self.clone())
    }

    /// Closes the broker's connections and lets another process have the hub.
    pub async fn close(&self) {
        let open = self.held().open.take();
        if let Some(open) = open {
            open.hub.estate().close().await;
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn any(State(slot): State<HubSlot>, request: Request<Body>) -> Response {
    if let Some(Open { mut router, .. }) = slot.open() {
        return match router.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
    }
    let detail =
        slot.waits_for().map_or_else(|| "the hub is being opened".to_owned(), |failure| tried(&failure));
    let problem = json!({ "type": "about:blank", "title": "the hub does not run here", "status": 503, "detail": detail });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json")),
        (header::RETRY_AFTER, HeaderValue::from_static("5")),
    ];
    (StatusCode::SERVICE_UNAVAILABLE, headers, problem.to_string()).into_response()
}
