//! What should run, and does: a consumer for each trigger and the hub, kept running until the end; and what can be seen of them.
//!
//! A trigger that cannot be built (a certificate that is missing, a state that another process uses) is a state that is shown
//! and tried again; it never keeps another from running.

pub mod hub;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use warren_engine::codes;
use warren_engine::consume::record::MessageStatus;
use warren_engine::consume::status::Status;
use warren_engine::consume::worker::Worker;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::ports::Leases;
use warren_server::hub_slot::HubSlot;
use warren_server::listen::{self, Listener};
use warren_server::{Statuses, pages};
use warren_store::listening::Listening;
use warren_store::state;

use self::hub::HubKeeper;
use crate::assemble::{self, Consuming};
use warren_config::Project;

/// How soon a trigger that could not be built is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// All that a configuration says should run.
pub struct Server {
    project: Arc<Project>,
    consuming: Arc<Consuming>,
    state: Arc<dyn state::State>,
    statuses: Statuses,
    hub: Option<HubSlot>,
    tls: Option<Arc<ServerConfig>>,
    listener: TcpListener,
    address: SocketAddr,
    /// Where others of this state folder find it; `None`: it cannot be written now.
    listening: Option<Listening>,
}

impl Server {
    /// Opens the state and the listener. Connects to no broker yet.
    ///
    /// # Errors
    /// The state cannot be used, or the address is taken.
    pub async fn open(project: Project, listen: SocketAddr) -> Result<Server, Failure> {
        let consuming = Arc::new(Consuming::open(&project)?);
        let state = assemble::state(&project)?;
        let tls = match &project.listen_tls {
            Some(tls) => Some(warren_connectors::kit::tls::server_config(&tls.cert, &tls.key)?),
            None => None,
        };
        let hub = project.hub.is_some().then(HubSlot::default);
        let cannot = |error: std::io::Error| {
            Failure::new(FailureKind::Refused, codes::INVALID_VALUE, format!("listen on {listen}"))
                .detail(error.to_string())
                .remedy("name another address with `--listen` or in `http.listen`")
        };
        let listener = TcpListener::bind(listen).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        // A full disk is no reason not to serve.
        let listening = Listening::record(&project.state.folder, address, tls.is_some())
            .inspect_err(|failure| {
                tracing::warn!(failure = failure.line(), "`warren doctor` will not find this process")
            })
            .ok();
        let statuses = project.triggers.keys().map(|name| (name.clone(), Arc::default())).collect();
        let (project, statuses) = (Arc::new(project), Arc::new(statuses));
        Ok(Server { project, consuming, state, statuses, hub, tls, listener, address, listening })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it serves HTTPS.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether there is a hub.
    pub fn has_hub(&self) -> bool {
        self.hub.is_some()
    }

    /// How many triggers there are.
    pub fn triggers(&self) -> u64 {
        self.statuses.len() as u64
    }

    /// Runs until it is told to stop; yields how many messages were handed back because they did not end in time.
    pub async fn run(self, stop: CancellationToken) -> u64 {
        let Server { project, consuming, state, statuses, hub, tls, listener, listening, .. } = self;
        let mut running = JoinSet::new();
        for (name, status) in statuses.iter() {
            let keeper = Keeper {
                name: name.clone(),
                project: project.clone(),
                consuming: consuming.clone(),
                state: state.clone(),
                status: status.clone(),
            };
            running.spawn(keeper.run(stop.clone()));
        }
        if let Some(slot) = &hub {
            let keeper = HubKeeper {
                project: project.clone(),
                consuming: consuming.clone(),
                leases: state.clone(),
                slot: slot.clone(),
            };
            running.spawn(keeper.run(stop.clone()));
        }
        let ended = CancellationToken::new();
        let mut pages = JoinSet::new();
        let router = pages::router(statuses.clone(), hub.clone());
        let listener = Listener::new(listener).with_tls(tls).behind(&project.trusted_proxies);
        pages.spawn(listen::serve(listener, router, ended.clone()));
        stop.cancelled().await;
        while running.join_next().await.is_some() {}
        consuming.close().await;
        // To the very end, so that whoever waits for the end can see how far it is.
        ended.cancel();
        while pages.join_next().await.is_some() {}
        drop(listening);
        if let Some(slot) = hub {
            slot.close().await;
        }
        statuses.values().map(|status| status.ended(MessageStatus::HandedBack)).sum()
    }
}

/// Keeps one trigger running.
struct Keeper {
    name: String,
    project: Arc<Project>,
    consuming: Arc<Consuming>,
    state: Arc<dyn state::State>,
    status: Arc<Status>,
}

impl Keeper {
    async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(failure) = self.once(&stop).await {
                tracing::warn!(trigger = self.name, failure = failure.line(), "the trigger cannot begin");
                self.status.waits(failure);
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }

    async fn once(&self, stop: &CancellationToken) -> Result<(), Failure> {
        let leases: &dyn Leases = &*self.state;
        let lease = leases.take(&format!("trigger {}", self.name)).await?;
        let _lease = lease.map_err(|holder| {
            Failure::new(FailureKind::Refused, codes::RUN_UNDER_WAY, format!("run trigger `{}`", self.name))
                .detail(format!("{} runs it, with the same state folder", holder.who))
                .remedy("end that one, or give each its own `state.folder`")
        })?;
        let Some(trigger) = self.project.triggers.get(&self.name) else { return Ok(()) };
        let ports = self.consuming.trigger(&self.project, &self.name)?;
        let worker = Worker::new(trigger.plan.clone(), ports, self.status.clone());
        let mut task = JoinSet::new();
        task.spawn(worker.run(stop.clone(), self.project.state.shutdown_grace));
        match task.join_next().await {
            Some(Err(panic)) if panic.is_panic() => {
                Err(Failure::internal(format!("run trigger `{}`", self.name)).detail("it panicked"))
            }
            _ => Ok(()),
        }
    }
}
