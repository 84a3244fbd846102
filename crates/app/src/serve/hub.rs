//! Keeps the hub of a configuration running.
//!
//! One process at a time runs the hub of a state. Another waits, answers the hub's routes with 503, and takes over when it may.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use warren_config::Project;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::hub::Hub;
use warren_engine::hub::delivering::Delivering;
use warren_engine::ports::Leases;
use warren_server::hub::{Scheme, router};
use warren_server::hub_slot::{HubSlot, Open};

use crate::assemble::{self, Consuming, HubParts};

/// How soon a hub that could not be opened is tried again.
const AGAIN: Duration = Duration::from_secs(5);

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
                    self.slot.waits(failure);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.cancelled() => return,
            }
        };
        self.slot.opened(open.clone());
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
        Ok(Open { router: router(hub.clone(), users, scheme), hub, delivering, lease: lease.into() })
    }
}
