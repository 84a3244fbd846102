//! All virtual hosts of a broker: what a hub makes, deletes, looks at, binds, publishes to and consumes from.
//!
//! A vhost is connected to when it is first used. Questions and declarations use a separate connection, because a broker may answer
//! a refused one (before RabbitMQ 4.0, an unknown exchange type) by closing the whole connection, and consumers must survive that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::hub::ports::{Estate, HubBinding, Made, Nature};
use warren_engine::hub::resource::{Resource, ResourceKind};
use warren_engine::message::Headers;
use warren_engine::ports::Broker;

use super::Rabbit;
use super::config::{Config, Target};
use super::management::Api;
use super::topology::QueueKind;
use super::wire::method::{Binding, ExchangeSpec, QueueSpec};
use crate::kit::tls::TlsSettings;

/// Vhosts that are used at once; each has up to four connections.
const VHOSTS_MAX: usize = 200;
/// AMQP's short string.
const NAME_BYTES_MAX: usize = 255;

/// All virtual hosts of a broker. Connects to none of them yet.
///
/// # Errors
/// A setting is wrong.
pub fn estate(name: &str, config: &Config) -> Result<Arc<dyn Estate>, Failure> {
    Ok(Arc::new(Vhosts {
        name: name.to_owned(),
        target: config.target()?,
        tls: config.tls.clone().unwrap_or_default(),
        open: Mutex::default(),
    }))
}

struct Vhosts {
    name: String,
    /// With the vhost of the configuration, which is one of many here.
    target: Target,
    tls: TlsSettings,
    open: Mutex<BTreeMap<String, Arc<Vhost>>>,
}

/// One vhost.
struct Vhost {
    /// For messages.
    broker: Arc<Rabbit>,
    /// For questions and declarations.
    clerk: Rabbit,
}

impl Vhosts {
    /// A vhost, the same for all who ask. Whether there is one of that name shows when it is used: what fails is not remembered.
    fn vhost(&self, name: &str) -> Result<Arc<Vhost>, Failure> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let what = format!("use the vhost `{}`", name.chars().take(100).collect::<String>());
            return Err(Failure::new(FailureKind::NotFound, codes::UNKNOWN_VHOST, what)
                .detail("a vhost's name has 1 to 255 bytes"));
        }
        let mut open = self.open();
        if let Some(vhost) = open.get(name) {
            return Ok(vhost.clone());
        }
        if open.len() >= VHOSTS_MAX {
            // Who consumes from one, or has just asked, holds it.
            open.retain(|_, vhost| Arc::strong_count(vhost) > 1 || Arc::strong_count(&vhost.broker) > 1);
        }
        if open.len() >= VHOSTS_MAX {
            let what = format!("use the vhost `{name}`");
            return Err(Failure::new(FailureKind::Throttled, codes::BROKER_UNREACHABLE, what)
                .detail(format!("{VHOSTS_MAX} vhosts are used already"))
                .remedy("spread the vhosts over several hubs"));
        }
        let target = Arc::new(Target { vhost: name.to_owned(), ..self.target.clone() });
        let vhost = Arc::new(Vhost {
            broker: Arc::new(Rabbit::to(&self.name, target.clone(), self.tls.clone())),
            clerk: Rabbit::to(&format!("{} (declaring)", self.name), target, self.tls.clone()),
        });
        open.insert(name.to_owned(), vhost.clone());
        Ok(vhost)
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Vhost>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Estate for Vhosts {
    async fn broker(&self, vhost: &str) -> Result<Arc<dyn Broker>, Failure> {
        Ok(self.vhost(vhost)?.broker.clone())
    }

    async fn create_queue(&self, vhost: &str, name: &str) -> Result<bool, Failure> {
        let vhost = self.vhost(vhost)?;
        if vhost.has_queue(name).await? {
            return Ok(false);
        }
        let spec = QueueSpec {
            name: name.to_owned(),
            durable: true,
            exclusive: false,   // others consume from it
            auto_delete: false, // it outlives its consumers
            arguments: Headers::default(),
        };
        match vhost.clerk.declare_queue(&spec).await {
            Ok(_) => Ok(true),
            // Another client declared it in the meantime, with other settings.
            Err(failure) if said(&failure, "inequivalent arg") => Ok(false),
            Err(failure) => Err(refusal(failure)),
        }
    }

    async fn create_exchange(&self, vhost: &str, name: &str, kind: &str) -> Result<Made, Failure> {
        let vhost = self.vhost(vhost)?;
        let there = vhost.has_exchange(name).await?;
        if name.is_empty() {
            return Ok(if kind == "direct" { Made::Same } else { Made::Other(Some("direct".to_owned())) });
        }
        let spec = ExchangeSpec {
            name: name.to_owned(),
            kind: kind.to_owned(),
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: Headers::default(),
        };
        match vhost.clerk.declare_exchange(&spec).await {
            Ok(()) if there => Ok(Made::Same),
            Ok(()) => Ok(Made::New),
            Err(failure) => declined(failure),
        }
    }

    async fn delete(&self, resource: &Resource) -> Result<bool, Failure> {
        let vhost = self.vhost(&resource.vhost)?;
        let name = resource.name.as_str();
        let there = match resource.kind {
            ResourceKind::Queue => vhost.has_queue(name).await?,
            ResourceKind::Exchange => vhost.has_exchange(name).await?,
        };
        if there {
            match resource.kind {
                ResourceKind::Queue => vhost.clerk.delete_queue(name).await.map(drop)?,
                ResourceKind::Exchange => vhost.clerk.delete_exchange(name).await?,
            }
        }
        Ok(there)
    }

    async fn look(&self, resource: &Resource) -> Result<Option<Nature>, Failure> {
        let vhost = self.vhost(&resource.vhost)?;
        let name = resource.name.as_str();
        match resource.kind {
            ResourceKind::Queue => Ok(vhost.has_queue(name).await?.then_some(Nature { exchange_type: None })),
            ResourceKind::Exchange if !vhost.has_exchange(name).await? => Ok(None),
            ResourceKind::Exchange => Ok(Some(Nature { exchange_type: vhost.exchange_type(name).await })),
        }
    }

    async fn check_queue(&self, vhost: &str, queue: &str) -> Result<(), Failure> {
        let vhost = self.vhost(vhost)?;
        let clerk = &vhost.clerk;
        // The broker logs an error for each question by AMQP, so that is the second choice.
        let told = match Api::new(&clerk.target, &clerk.tls) {
            Ok(api) => api.queue_type(queue).await.ok(),
            Err(_) => None,
        };
        let kind = match told {
            Some(name) => QueueKind::of_name(&name),
            None => clerk.queue_kind(queue).await?,
        };
        kind.refusal(queue).map_or(Ok(()), Err)
    }

    async fn bind(&self, binding: &HubBinding) -> Result<(), Failure> {
        self.vhost(&binding.vhost)?.clerk.bind(&wired(binding)).await.map_err(refusal)
    }

    async fn unbind(&self, binding: &HubBinding) -> Result<(), Failure> {
        // Of a queue or an exchange that is gone, so is the binding.
        match self.vhost(&binding.vhost)?.clerk.unbind(&wired(binding)).await {
            Err(failure) if failure.kind == FailureKind::NotFound && failure.code != codes::UNKNOWN_VHOST => {
                Ok(())
            }
            other => other,
        }
    }

    async fn close(&self) {
        let open = std::mem::take(&mut *self.open());
        for vhost in open.into_values() {
            vhost.broker.close().await;
            vhost.clerk.close().await;
        }
    }
}

impl Vhost {
    async fn has_queue(&self, name: &str) -> Result<bool, Failure> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Ok(false); // to the broker, the empty name means the queue that was declared last
        }
        match self.clerk.queue_state(name).await {
            Ok(_) => Ok(true),
            // Another connection has it for itself, or its node is away: it is there.
            Err(failure) if said(&failure, " 405 ") => Ok(true),
            Err(failure) if failure.code == codes::NO_SUCH_QUEUE => {
                Ok(said(&failure, "home node") || said(&failure, "down or inaccessible"))
            }
            Err(failure) => Err(failure),
        }
    }

    async fn has_exchange(&self, name: &str) -> Result<bool, Failure> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            // Nobody may ask for the default exchange, which every vhost has: that there is the vhost shows all the same.
            return self.clerk.side().await.map(|_| name.is_empty());
        }
        match self.clerk.find_exchange(name).await {
            Ok(()) => Ok(true),
            Err(failure) if failure.code == codes::NO_SUCH_EXCHANGE => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// The type of an exchange that is there. Only the management API tells; where it does not, nobody knows.
    async fn exchange_type(&self, name: &str) -> Option<String> {
        if name.is_empty() {
            return Some("direct".to_owned());
        }
        let api = Api::new(&self.clerk.target, &self.clerk.tls).ok()?;
        api.exchange_type(name).await.ok().flatten()
    }
}

/// What a refused declaration of an exchange means. RabbitMQ answers an unknown type with 503 and closes the connection before
/// 4.0, and with 406 on the channel since then, where 406 alone meant an exchange with other settings.
fn declined(failure: Failure) -> Result<Made, Failure> {
    let detail = failure.detail.clone().unwrap_or_default();
    if ["unknown exchange type", "invalid exchange type"].iter().any(|words| detail.contains(words)) {
        return Ok(Made::UnknownType);
    }
    if let Some((_, current)) = detail.split_once("inequivalent arg 'type'") {
        let current = current.split("current is '").nth(1).and_then(|rest| rest.split('\'').next());
        return Ok(Made::Other(current.map(str::to_owned)));
    }
    if detail.contains("inequivalent arg") {
        return Ok(Made::Same); // it exists with this type, but is not durable or has arguments
    }
    Err(refusal(failure))
}

/// A declaration or binding that the broker refuses for what it says: the same again is refused again. RabbitMQ answers with 406 on
/// the channel, or with 503 (`COMMAND_INVALID`) on the connection.
fn refusal(failure: Failure) -> Failure {
    let detail = failure.detail.clone().unwrap_or_default();
    let reason = ["PRECONDITION_FAILED - ", "COMMAND_INVALID - "]
        .iter()
        .find_map(|name| detail.split_once(name).map(|(_, reason)| reason.to_owned()));
    match reason {
        Some(reason) => Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, failure.what.clone())
            .detail(format!("the broker refuses it: {reason}"))
            .because(failure),
        None => failure,
    }
}

fn said(failure: &Failure, words: &str) -> bool {
    failure.detail.as_deref().is_some_and(|detail| detail.contains(words))
}

fn wired(binding: &HubBinding) -> Binding {
    Binding {
        queue: binding.queue.clone(),
        exchange: binding.exchange.clone(),
        routing_key: binding.routing_key.clone(),
        arguments: binding.arguments.clone(),
    }
}
