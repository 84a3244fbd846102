//! The hub of a configuration, ready to run.

use std::sync::Arc;

use warren_engine::failure::Failure;
use warren_engine::hub::delivering::{Delivering, DeliveringPorts};
use warren_engine::hub::ports::Users;
use warren_engine::hub::{Hub, HubPorts};
use warren_store::in_flight::FileInFlight;
use warren_store::state::SystemClock;
use warren_store::subscriptions::FileSubscriptions;

use super::{Consuming, unknown};
use crate::config::Project;
use crate::config::hub::ProjectHub;

/// A hub with those who may use it, and with its consumers.
pub struct OpenHub {
    /// Its subscriptions.
    pub hub: Arc<Hub>,
    /// Who may do what.
    pub users: Arc<dyn Users>,
    /// Its consumers.
    pub delivering: Arc<Delivering>,
}

impl Consuming {
    /// Opens the hub of a configuration. Connects to nothing yet. Whoever calls holds the lease of the hub, and closes the hub's estate
    /// in the end.
    ///
    /// # Errors
    /// A setting cannot be used, or the state cannot be read or written.
    pub async fn hub(&self, project: &Project, section: &ProjectHub) -> Result<OpenHub, Failure> {
        let (name, folder) = (&section.broker, &project.state.folder);
        let broker = project.brokers.get(name).ok_or_else(|| unknown("broker", name))?;
        let users = match &section.users {
            Some(users) => warren_connectors::kit::users::configured(users)?,
            None => broker.users(name)?,
        };
        let ports = HubPorts {
            estate: broker.estate(name, folder)?,
            store: Arc::new(FileSubscriptions::open(folder)?),
            http: warren_connectors::http::callbacks(&section.client, &section.clients)?,
            clock: Arc::new(SystemClock),
            random: Arc::new(warren_store::random),
        };
        let hub = Hub::open(section.settings.clone(), ports).await?;
        let ports = DeliveringPorts {
            records: self.records.clone(),
            parking: self.parking.clone(),
            in_flight: Arc::new(FileInFlight::open(&folder.join("inflight"), "%hub")?), // the name of no trigger
            dice: Arc::new(fastrand::f64),
        };
        let state = &project.state;
        let delivering = Delivering::new(hub.clone(), ports, state.shutdown_grace, state.record_bodies);
        Ok(OpenHub { hub, users, delivering })
    }
}
