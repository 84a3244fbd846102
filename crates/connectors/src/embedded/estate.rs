//! The broker as a hub sees it: one virtual host, `/`.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::hub::ports::{Estate, HubBinding, Made, Nature};
use warren_engine::hub::resource::{DEFAULT_VHOST, Resource, ResourceKind};
use warren_engine::ports::Broker;

use super::broker::Embedded;
use super::config::Config;
use super::declare::Binding;
use super::topology::{QueueSettings, kind, kind_text};

/// Opens an embedded broker as a hub sees it; see [`Embedded::open`].
///
/// # Errors
/// The file cannot be written or is damaged; a declaration is at odds with the file.
pub fn estate(name: &str, config: &Config, folder: &Path) -> Result<Arc<dyn Estate>, Failure> {
    Ok(Arc::new(One(Embedded::open(name, config, folder)?)))
}

struct One(Embedded);

impl One {
    fn broker(&self, vhost: &str) -> Result<&Embedded, Failure> {
        if vhost == DEFAULT_VHOST {
            return Ok(&self.0);
        }
        Err(Failure::new(FailureKind::NotFound, codes::UNKNOWN_VHOST, format!("use the vhost `{vhost}`"))
            .detail("the embedded broker has the vhost `/` alone")
            .remedy("leave the vhost out, or use RabbitMQ"))
    }

    async fn has_queue(&self, name: &str) -> Result<bool, Failure> {
        match self.0.queue_state(name).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.kind == FailureKind::NotFound => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn exchange_type(&self, name: &str) -> Result<Option<&'static str>, Failure> {
        if name.is_empty() {
            return Ok(Some("direct"));
        }
        let states = self.0.exchange_states().await?;
        Ok(states.into_iter().find(|state| state.name == name).map(|state| kind_text(state.kind)))
    }
}

#[async_trait]
impl Estate for One {
    async fn broker(&self, vhost: &str) -> Result<Arc<dyn Broker>, Failure> {
        // A clone is the same broker, with the same file and threads.
        Ok(Arc::new(self.broker(vhost)?.clone()))
    }

    async fn create_queue(&self, vhost: &str, name: &str) -> Result<bool, Failure> {
        let broker = self.broker(vhost)?;
        if self.has_queue(name).await? {
            return Ok(false);
        }
        broker.declare_queue(name, &QueueSettings::default()).await
    }

    async fn create_exchange(&self, vhost: &str, name: &str, wanted: &str) -> Result<Made, Failure> {
        let broker = self.broker(vhost)?;
        let Some(wanted_kind) = kind(wanted) else {
            return Ok(Made::UnknownType);
        };
        match self.exchange_type(name).await? {
            Some(there) if there == wanted => Ok(Made::Same),
            Some(there) => Ok(Made::Other(Some(there.to_owned()))),
            None => {
                let made = broker.declare_exchange(name, wanted_kind).await?;
                Ok(if made { Made::New } else { Made::Same })
            }
        }
    }

    async fn delete(&self, resource: &Resource) -> Result<bool, Failure> {
        let broker = self.broker(&resource.vhost)?;
        let deleted = match resource.kind {
            ResourceKind::Queue => broker.delete_queue(&resource.name).await.map(drop),
            ResourceKind::Exchange if resource.name.is_empty() => {
                return Err(Failure::new(FailureKind::Refused, codes::NOT_ALLOWED, "delete exchange ``")
                    .detail("the default exchange is the broker's own"));
            }
            ResourceKind::Exchange => broker.delete_exchange(&resource.name).await,
        };
        match deleted {
            Ok(()) => Ok(true),
            Err(failure) if failure.kind == FailureKind::NotFound => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn look(&self, resource: &Resource) -> Result<Option<Nature>, Failure> {
        self.broker(&resource.vhost)?;
        match resource.kind {
            ResourceKind::Queue => {
                Ok(self.has_queue(&resource.name).await?.then_some(Nature { exchange_type: None }))
            }
            ResourceKind::Exchange => {
                let kind = self.exchange_type(&resource.name).await?;
                Ok(kind.map(|kind| Nature { exchange_type: Some(kind.to_owned()) }))
            }
        }
    }

    async fn bind(&self, binding: &HubBinding) -> Result<(), Failure> {
        self.broker(&binding.vhost)?.bind(local(binding)).await.map(drop)
    }

    async fn unbind(&self, binding: &HubBinding) -> Result<(), Failure> {
        match self.broker(&binding.vhost)?.unbind(local(binding)).await {
            // Of a queue or an exchange that is gone, so is the binding.
            Err(failure) if failure.kind == FailureKind::NotFound => Ok(()),
            other => other.map(drop),
        }
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

fn local(binding: &HubBinding) -> Binding {
    Binding {
        exchange: binding.exchange.clone(),
        queue: binding.queue.clone(),
        routing_key: binding.routing_key.clone(),
        arguments: binding.arguments.clone(),
    }
}
