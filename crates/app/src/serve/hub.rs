//! The hub among what runs: kept running by the one process that holds its lease, seen by the listener while it does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::Response;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;
use warren_engine::codes;
use warren_engine::consume::status::Status;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::hub::Hub;
use warren_engine::hub::delivering::Delivering;
use warren_engine::hub::subscription::SubscriptionId;
use warren_engine::ports::Leases;
use warren_store::state::State;

use super::AGAIN;
use crate::assemble::{Consuming, OpenHub};
use crate::config::Project;
use crate::config::hub::ProjectHub;
use crate::hub::Scheme;

/// The hub as the listener sees it.
#[derive(Clone)]
pub(super) struct Stage(Arc<Mutex<Now>>);

enum Now {
    /// It is about to begin.
    Starting,
    /// It cannot begin, and why; that is tried again.
    Waiting(Box<Failure>),
    /// It runs.
    Open(Open),
    /// It ends.
    Ending,
}

/// A hub that runs.
#[derive(Clone)]
pub(super) struct Open {
    pub hub: Arc<Hub>,
    pub delivering: Arc<Delivering>,
    router: Router,
}

/// Keeps the hub running.
pub(super) struct HubKeeper {
    pub project: Arc<Project>,
    pub section: ProjectHub,
    pub consuming: Arc<Consuming>,
    pub state: Arc<dyn State>,
    pub stage: Stage,
}

impl HubKeeper {
    /// Until it is told to stop; then what is delivered ends in good order.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(failure) = self.once(&stop).await {
                tracing::warn!(failure = failure.line(), "the hub cannot begin");
                self.stage.set(Now::Waiting(Box::new(failure)));
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
        self.stage.set(Now::Ending);
    }

    async fn once(&self, stop: &CancellationToken) -> Result<(), Failure> {
        let leases: &dyn Leases = &*self.state;
        let lease = leases.take("hub").await?;
        let _lease = lease.map_err(|holder| {
            Failure::new(FailureKind::Refused, codes::HUB_RUNS_ELSEWHERE, "run the hub")
                .detail(format!("{} runs it, with the same state folder", holder.who))
                .remedy("end that one, or give each its own `state.folder`")
        })?;
        let OpenHub { hub, users, delivering } = self.consuming.hub(&self.project, &self.section).await?;
        let scheme = if self.project.listen_tls.is_some() { Scheme::Https } else { Scheme::Http };
        let router = crate::hub::router(hub.clone(), users, scheme);
        self.stage.set(Now::Open(Open { hub: hub.clone(), delivering: delivering.clone(), router }));
        tracing::info!(subscriptions = hub.all().len(), "the hub runs");
        let ended = run(&hub, delivering, stop).await;
        self.stage.set(Now::Ending);
        hub.estate().close().await;
        ended
    }
}

/// Runs the consumers, and what the hub does by itself for as long as they run and a moment longer: what they leave is stored.
async fn run(hub: &Arc<Hub>, delivering: Arc<Delivering>, stop: &CancellationToken) -> Result<(), Failure> {
    let (consumers_stop, hub_stop) = (stop.child_token(), CancellationToken::new());
    let mut by_itself = JoinSet::new();
    by_itself.spawn(hub.clone().run(hub_stop.clone()));
    let mut consumers = JoinSet::new();
    consumers.spawn(delivering.run(consumers_stop.clone()));
    let panicked = || Failure::internal("run the hub").detail("it panicked");
    let ended = tokio::select! {
        Some(ended) = consumers.join_next() => ended.map_err(|_| panicked()),
        // It ends only when it is told to, or by a bug: then all of it begins anew.
        Some(_) = by_itself.join_next() => {
            consumers_stop.cancel();
            consumers.join_next().await;
            Err(panicked())
        }
        else => Ok(()),
    };
    hub_stop.cancel();
    while by_itself.join_next().await.is_some() {}
    ended
}

impl Stage {
    pub fn new() -> Stage {
        Stage(Arc::new(Mutex::new(Now::Starting)))
    }

    /// The hub, if it runs.
    pub fn open(&self) -> Option<Open> {
        match &*self.lock() {
            Now::Open(open) => Some(open.clone()),
            Now::Starting | Now::Waiting(_) | Now::Ending => None,
        }
    }

    /// The consumers of its subscriptions.
    pub fn consumers(&self) -> Vec<(SubscriptionId, Arc<Status>)> {
        self.open().map(|open| open.delivering.statuses()).unwrap_or_default()
    }

    /// Its state, and why it waits.
    pub fn state(&self) -> (&'static str, Option<Failure>) {
        match &*self.lock() {
            Now::Starting => ("starting", None),
            Now::Waiting(failure) => ("waiting", Some((**failure).clone())),
            Now::Open(_) => ("open", None),
            Now::Ending => ("ending", None),
        }
    }

    /// The hub's routes, which are answered with 503 while it does not run.
    pub fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    fn set(&self, now: Now) {
        *self.lock() = now;
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(Shared(stage): Shared<Stage>, request: Request) -> Response {
    let Some(Open { mut router, .. }) = stage.open() else { return closed(&stage) };
    match router.call(request).await {
        Ok(response) => response,
    }
}

fn closed(stage: &Stage) -> Response {
    let (state, failure) = stage.state();
    let detail = failure.map_or_else(|| format!("the hub is {state}"), |failure| failure.to_string());
    let problem = json!({ "title": "Service Unavailable", "status": 503, "detail": detail });
    let mut response = Response::new(Body::from(problem.to_string()));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/problem+json"));
    headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("5"));
    response
}
