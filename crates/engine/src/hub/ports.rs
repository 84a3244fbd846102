//! The ports of the hub: the topology of a broker with its virtual hosts, its users, and the stored subscriptions.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::resource::Resource;
use super::subscription::{Subscription, SubscriptionId};
use crate::failure::Failure;
use crate::message::Headers;
use crate::pipeline::outside::Hidden;
use crate::ports::Broker;

/// A broker with all of its virtual hosts: what a hub makes, deletes, binds, publishes to and consumes from. Calls may run at once.
#[async_trait]
pub trait Estate: Send + Sync {
    /// The broker of a virtual host, the same for all who ask.
    ///
    /// # Errors
    /// There is no such virtual host as far as is known without asking, or its settings cannot be used.
    async fn broker(&self, vhost: &str) -> Result<Arc<dyn Broker>, Failure>;

    /// Makes a durable queue without arguments unless one of that name is there; whether it was made.
    ///
    /// # Errors
    /// It may not be made, or the broker cannot be reached.
    async fn create_queue(&self, vhost: &str, name: &str) -> Result<bool, Failure>;

    /// Makes a durable exchange without arguments unless one of that name is there.
    ///
    /// # Errors
    /// [`Invalid`](crate::failure::FailureKind::Invalid): the broker refuses the declaration, and will refuse it again. The login
    /// lacks the permission, or the broker cannot be reached.
    async fn create_exchange(&self, vhost: &str, name: &str, kind: &str) -> Result<Made, Failure>;

    /// Deletes a queue with its messages, or an exchange with its bindings; whether it was there.
    ///
    /// # Errors
    /// It may not be deleted, or the broker cannot be reached.
    async fn delete(&self, resource: &Resource) -> Result<bool, Failure>;

    /// What a queue or an exchange is; `None`: it is not there.
    ///
    /// # Errors
    /// The broker cannot be reached, or does not let us look.
    async fn look(&self, resource: &Resource) -> Result<Option<Nature>, Failure>;

    /// Looks whether a queue is of a type that can be consumed whole. Yes, where the broker has one type only.
    ///
    /// # Errors
    /// It is not, with the code [`QUEUE_MISFIT`](crate::codes::QUEUE_MISFIT). It does not exist, may not be read, or the broker
    /// cannot be reached.
    async fn check_queue(&self, vhost: &str, queue: &str) -> Result<(), Failure> {
        let _ = (vhost, queue);
        Ok(())
    }

    /// Binds a queue to an exchange. What is bound so already stays.
    ///
    /// # Errors
    /// [`NotFound`](crate::failure::FailureKind::NotFound): one of them does not exist.
    /// [`Invalid`](crate::failure::FailureKind::Invalid): the broker refuses key or arguments, and will refuse them again. The login
    /// lacks the permission, or the broker cannot be reached.
    async fn bind(&self, binding: &HubBinding) -> Result<(), Failure>;

    /// Takes a binding away, given as it was made. One that is not there is no error.
    ///
    /// # Errors
    /// It may not, or the broker cannot be reached.
    async fn unbind(&self, binding: &HubBinding) -> Result<(), Failure>;

    /// Closes all connections in good order.
    async fn close(&self);
}

/// What came of making an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// It was made.
    New,
    /// It was there, of that type.
    Same,
    /// It was there, of another type, where the broker tells which.
    Other(Option<String>),
    /// The broker does not have the type; no exchange was made.
    UnknownType,
}

/// What a queue or an exchange is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nature {
    /// The type of an exchange, where the broker tells it.
    pub exchange_type: Option<String>,
}

/// A queue bound to an exchange of the same virtual host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HubBinding {
    /// The virtual host of both.
    pub vhost: String,
    /// The exchange.
    pub exchange: String,
    /// The queue.
    pub queue: String,
    /// The binding key.
    pub routing_key: String,
    /// What a headers exchange looks for.
    pub arguments: Headers,
}

/// Who may do what. The broker's own users, or those of the configuration. Answers may be some seconds old; a wrong password never
/// counts as right because of that.
#[async_trait]
pub trait Users: Send + Sync {
    /// Who logs in from an address; `None`: there is no such user with that password, or it may not log in.
    ///
    /// # Errors
    /// The password cannot be checked now, or too many were tried from there or for this name.
    async fn login(&self, from: IpAddr, name: &str, password: &Hidden) -> Result<Option<User>, Failure>;

    /// A user by name alone, for `default_username`.
    ///
    /// # Errors
    /// Nobody can tell now.
    async fn named(&self, name: &str) -> Result<Option<User>, Failure>;

    /// Whether a user may do that with a queue or an exchange. A virtual host that the user may not enter, or that is not there, is
    /// no.
    ///
    /// # Errors
    /// Nobody can tell now.
    async fn may(&self, user: &User, right: Right, resource: &Resource) -> Result<bool, Failure>;

    /// Whether a user who may use an exchange so may do it with this routing or binding key: RabbitMQ's topic permissions, which count
    /// for exchanges of the type `topic`. Those who have no such thing say yes.
    ///
    /// # Errors
    /// Nobody can tell now.
    async fn may_key(&self, _: &User, _: Right, _exchange: &Resource, _key: &str) -> Result<bool, Failure> {
        Ok(true)
    }
}

/// A user who logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The tags, such as `administrator`.
    pub tags: Vec<String>,
}

impl User {
    /// Whether all of these are tags of the user.
    pub fn has_tags(&self, tags: &[&str]) -> bool {
        tags.iter().all(|tag| self.tags.iter().any(|own| own == tag))
    }
}

/// The rights of RabbitMQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Right {
    /// Make, delete, bind.
    Configure,
    /// Publish.
    Write,
    /// Consume, and bind an exchange to something.
    Read,
}

/// The stored subscriptions of one hub, used by one process at a time. What a call changed outlives the death of the process and of the
/// machine once it returns; secrets are encrypted at rest.
#[async_trait]
pub trait Subscriptions: Send + Sync {
    /// All of them, in no order.
    ///
    /// # Errors
    /// The state cannot be read, or its secrets cannot be decrypted.
    async fn all(&self) -> Result<Vec<Subscription>, Failure>;

    /// Stores one, in the place of one of the same key.
    ///
    /// # Errors
    /// The state cannot be written.
    async fn put(&self, subscription: &Subscription) -> Result<(), Failure>;

    /// Forgets one; whether it was there.
    ///
    /// # Errors
    /// The state cannot be written.
    async fn remove(&self, id: SubscriptionId) -> Result<bool, Failure>;

    /// A value that the hub keeps under a name, such as its token key or a topic's last state.
    ///
    /// # Errors
    /// The state cannot be read, or decrypted.
    async fn value(&self, name: &str) -> Result<Option<Vec<u8>>, Failure>;

    /// Keeps a value under a name, encrypted.
    ///
    /// # Errors
    /// The state cannot be written.
    async fn keep(&self, name: &str, value: &[u8]) -> Result<(), Failure>;

    /// The names that begin so, of values that are kept.
    ///
    /// # Errors
    /// The state cannot be read.
    async fn names(&self, prefix: &str) -> Result<Vec<String>, Failure>;

    /// Forgets a value.
    ///
    /// # Errors
    /// The state cannot be written.
    async fn forget(&self, name: &str) -> Result<(), Failure>;
}
