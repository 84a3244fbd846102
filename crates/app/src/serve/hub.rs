//! The hub of a configuration: opened, kept running, and asked.
//!
//! One process at a time runs the hub of a state. Another waits, answers the hub's routes with 503, and takes over when it may.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::hub::Hub;
use warren_engine::hub::delivering::Delivering;
use warren_engine::ports::{Lease, Leases};

use crate::assemble::{self, Consuming, HubParts};
use crate::config::Project;
use crate::hub::{Scheme, router};

/// How soon a hub that could not be opened is tried again.
const AGAIN: Duration = Duration::from_secs(5);

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
    router: Router,
    /// The subscriptions.
    pub hub: Arc<Hub>,
    /// The consumers.
    pub delivering: Arc<Delivering>,
    /// Held until the last request was answered.
    _lease: Arc<dyn Lease>,
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
        slot.waits_for().map_or_else(|| "the hub is being opened".to_owned(), |failure| failure.line());
    let problem = json!({ "type": "about:blank", "title": "the hub does not run here", "status": 503, "detail": detail });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json")),
        (header::RETRY_AFTER, HeaderValue::from_static("5")),
    ];
    (StatusCode::SERVICE_UNAVAILABLE, headers, problem.to_string()).into_response()
}

/// Keeps the hub running.
pub struct HubKeeper {
    /// The configuration, which has a hub.
    pub project: Arc<Project>,
    /// What is shared with triggers.
    pub consuming: Arc<Consuming>,
    /// Who knows which process runs it.
    pub leases: Arc<dyn Leases>,
    /// Where it is while it runs.
    pub slot: HubSlot,
}

impl HubKeeper {
    /// Runs the hub until it is told to stop; returns when the last delivery has ended. Its routes are answered after that too.
    pub async fn run(self, stop: CancellationToken) {
        let open = loop {
            match self.open().await {
                Ok(open) => break open,
                Err(failure) => {
                    tracing::warn!(failure = failure.line(), "the hub cannot begin");
                    self.slot.held().waits_for = Some(failure);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.cancelled() => return,
            }
        };
        {
            let mut held = self.slot.held();
            held.open = Some(open.clone());
            held.waits_for = None;
        }
        // What became of the last deliveries is stored after they have ended.
        let last = CancellationToken::new();
        let mut chores = JoinSet::new();
        chores.spawn(open.hub.clone().run(last.clone()));
        open.delivering.run(stop).await;
        last.cancel();
        while chores.join_next().await.is_some() {}
    }

    async fn open(&self) -> Result<Open, Failure> {
        let lease = self.leases.take("hub").await?.map_err(|holder| {
            Failure::new(FailureKind::Refused, codes::HUB_RUNS_ELSEWHERE, "run the hub")
                .detail(format!("{} runs it, with the same state folder", holder.who))
                .remedy("end that one, or give each its own `state.folder`")
        })?;
        let HubParts { settings, ports, users, delivering } =
            assemble::hub(&self.project, &self.consuming).await?;
        let hub = Hub::open(settings, ports).await?;
        let state = &self.project.state;
        let delivering = Delivering::new(hub.clone(), delivering, state.shutdown_grace, state.record_bodies);
        let scheme = if self.project.listen_tls.is_some() { Scheme::Https } else { Scheme::Http };
        Ok(Open { router: router(hub.clone(), users, scheme), hub, delivering, _lease: lease.into() })
    }
}
