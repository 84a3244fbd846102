//! The ports of the hub in memory: a topology of virtual hosts over [`MemoryBroker`]s, and stored subscriptions that can be told to
//! fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::MemoryBroker;
use crate::codes;
use crate::failure::{Failure, FailureKind};
use crate::finding::Finding;
use crate::hub::ports::{Estate, HubBinding, Made, Nature, Subscriptions};
use crate::hub::resource::{Resource, ResourceKind};
use crate::hub::subscription::{Subscription, SubscriptionId};
use crate::message::{Answer, HeaderValue, Headers, Message, Outbound, Receipt, Route};
use crate::ports::{Broker, Consumer, MessageLimits, QueueInfo};

/// A topology in memory: any virtual host that was added.
#[derive(Debug, Default)]
pub struct MemoryEstate {
    hosts: Mutex<BTreeMap<String, Arc<MemoryHost>>>,
}

/// One virtual host: a broker whose exchanges route.
#[derive(Debug, Default)]
pub struct MemoryHost {
    /// Its queues.
    pub queues: MemoryBroker,
    inner: Mutex<Exchanges>,
    refusal: Mutex<Option<Failure>>,
}

#[derive(Debug, Default)]
struct Exchanges {
    kinds: BTreeMap<String, String>,
    bindings: Vec<HubBinding>,
}

impl MemoryEstate {
    /// A topology with these virtual hosts, all empty.
    pub fn with_vhosts<'v>(vhosts: impl IntoIterator<Item = &'v str>) -> MemoryEstate {
        let host = |name: &'v str| (name.to_owned(), Arc::<MemoryHost>::default());
        MemoryEstate { hosts: Mutex::new(vhosts.into_iter().map(host).collect()) }
    }

    /// A virtual host, to look at and to trouble.
    ///
    /// # Panics
    /// There is none of that name.
    pub fn host(&self, vhost: &str) -> Arc<MemoryHost> {
        self.find(vhost).expect("the test made that virtual host")
    }

    fn find(&self, vhost: &str) -> Result<Arc<MemoryHost>, Failure> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(vhost).cloned().ok_or_else(|| {
            let what = format!("use vhost `{vhost}`");
            Failure::new(FailureKind::NotFound, codes::UNKNOWN_VHOST, what)
        })
    }
}

impl MemoryHost {
    /// The bindings, in the order in which they were made.
    pub fn bindings(&self) -> Vec<HubBinding> {
        self.lock().bindings.clone()
    }

    /// Adds an exchange.
    pub fn declare_exchange(&self, name: &str, kind: &str) {
        self.lock().kinds.insert(name.to_owned(), kind.to_owned());
    }

    /// What opening a consumer fails with from now on; `None`: it works.
    pub fn refuses_consumers(&self, refusal: Option<Failure>) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
    }

    fn has_queue(&self, name: &str) -> bool {
        self.queues.has(name)
    }

    /// The queues that a message goes to; `None`: there is no such exchange.
    fn routed(&self, exchange: &str, routing_key: &str, message: &Message) -> Option<Vec<String>> {
        if exchange.is_empty() {
            return Some(if self.has_queue(routing_key) { vec![routing_key.to_owned()] } else { Vec::new() });
        }
        let inner = self.lock();
        let kind = inner.kinds.get(exchange)?.clone();
        let fits = |binding: &&HubBinding| {
            binding.exchange == exchange
                && match kind.as_str() {
                    "fanout" => true,
                    "topic" => topic_fits(&binding.routing_key, routing_key),
                    "headers" => headers_fit(&binding.arguments, &message.properties.headers),
                    _ => binding.routing_key == routing_key,
                }
        };
        let mut queues: Vec<String> =
            inner.bindings.iter().filter(fits).map(|binding| binding.queue.clone()).collect();
        queues.sort();
        queues.dedup();
        Some(queues)
    }

    fn lock(&self) -> MutexGuard<'_, Exchanges> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `*` is one word, `#` any number of them.
fn topic_fits(pattern: &str, key: &str) -> bool {
    fn fits(pattern: &[&str], words: &[&str]) -> bool {
        match (pattern.split_first(), words.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), _) => (0..=words.len()).any(|skip| fits(rest, &words[skip..])),
            (Some((one, rest)), Some((word, words))) => (*one == "*" || one == word) && fits(rest, words),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
    let split = |text: &'_ str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (pattern, key) = (split(pattern), split(key));
    fits(
        &pattern.iter().map(String::as_str).collect::<Vec<_>>(),
        &key.iter().map(String::as_str).collect::<Vec<_>>(),
    )
}

fn headers_fit(wanted: &Headers, headers: &Headers) -> bool {
    let any = wanted.get("x-match") == Some(&HeaderValue::Text("any".into()));
    let mut asked = wanted.iter().filter(|(name, _)| !name.starts_with("x-"));
    let holds = |(name, value): (&str, &HeaderValue)| headers.get(name) == Some(value);
    if any { asked.any(holds) } else { asked.all(holds) }
}

fn not_found(code: codes::Code, what: &str, name: &str) -> Failure {
    Failure::new(FailureKind::NotFound, code, format!("use {what} `{name}`"))
}

#[async_trait]
impl Broker for MemoryHost {
    async fn publish(&self, batch: &[Outbound]) -> Vec<Receipt> {
        let mut receipts = Vec::with_capacity(batch.len());
        for outbound in batch {
            let queues = match &outbound.route {
                Route::Queue(_) => {
                    receipts.extend(self.queues.publish(std::slice::from_ref(outbound)).await);
                    continue;
                }
                Route::Exchange { exchange, routing_key } => {
                    self.routed(exchange, routing_key, &outbound.message)
                }
            };
            let refused = |kind, code| {
                Receipt::Refused(Failure::new(kind, code, format!("publish to {}", outbound.route)))
            };
            let mut receipt = match &queues {
                None => refused(FailureKind::NotFound, codes::NO_SUCH_EXCHANGE),
                Some(queues) if queues.is_empty() => refused(FailureKind::Unroutable, codes::UNROUTABLE),
                Some(_) => Receipt::Accepted(Answer("confirmed".into())),
            };
            let Route::Exchange { exchange, routing_key } = &outbound.route else { continue };
            for queue in queues.unwrap_or_default() {
                let through = (exchange.clone(), routing_key.clone());
                match self.queues.route_through(&queue, through, &outbound.message) {
                    Receipt::Accepted(_) => {}
                    other => receipt = other,
                }
            }
            receipts.push(receipt);
        }
        receipts
    }

    async fn limits(&self) -> Result<MessageLimits, Failure> {
        self.queues.limits().await
    }

    async fn check(&self, routes: &[Route]) -> Vec<Finding> {
        self.queues.check(routes).await
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>, Failure> {
        self.queues.queues().await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, Failure> {
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match refusal {
            Some(failure) => Err(failure),
            None => self.queues.consume(queue, prefetch).await,
        }
    }

    async fn declare_delay_queue(&self, queue: &crate::consume::retry::DelayQueue) -> Result<(), Failure> {
        self.queues.declare_delay_queue(queue).await
    }

    async fn ensure_queue(&self, queue: &str) -> Result<(), Failure> {
        self.queues.ensure_queue(queue).await
    }

    async fn close(&self) {}
}

#[async_trait]
impl Estate for MemoryEstate {
    async fn broker(&self, vhost: &str) -> Result<Arc<dyn Broker>, Failure> {
        Ok(self.find(vhost)?)
    }

    async fn create_queue(&self, vhost: &str, name: &str) -> Result<bool, Failure> {
        let host = self.find(vhost)?;
        let was_there = host.has_queue(name);
        host.queues.ensure_queue(name).await?;
        Ok(!was_there)
    }

    async fn create_exchange(&self, vhost: &str, name: &str, kind: &str) -> Result<Made, Failure> {
        let host = self.find(vhost)?;
        if !matches!(kind, "direct" | "fanout" | "topic" | "headers") {
            return Ok(Made::UnknownType);
        }
        let mut inner = host.lock();
        let made = match inner.kinds.get(name) {
            None => Made::New,
            Some(held) if held == kind => Made::Same,
            Some(held) => Made::Other(Some(held.clone())),
        };
        if made == Made::New {
            inner.kinds.insert(name.to_owned(), kind.to_owned());
        }
        Ok(made)
    }

    async fn delete(&self, resource: &Resource) -> Result<bool, Failure> {
        let host = self.find(&resource.vhost)?;
        let name = &resource.name;
        match resource.kind {
            ResourceKind::Queue => {
                let was_there = host.has_queue(name);
                host.queues.delete(name);
                host.lock().bindings.retain(|binding| binding.queue != *name);
                Ok(was_there)
            }
            ResourceKind::Exchange => {
                let mut inner = host.lock();
                inner.bindings.retain(|binding| binding.exchange != *name);
                Ok(inner.kinds.remove(name).is_some())
            }
        }
    }

    async fn look(&self, resource: &Resource) -> Result<Option<Nature>, Failure> {
        let host = self.find(&resource.vhost)?;
        Ok(match resource.kind {
            ResourceKind::Queue => host.has_queue(&resource.name).then_some(Nature { exchange_type: None }),
            ResourceKind::Exchange if resource.name.is_empty() => {
                Some(Nature { exchange_type: Some("direct".into()) })
            }
            ResourceKind::Exchange => {
                let kind = host.lock().kinds.get(&resource.name).cloned();
                kind.map(|kind| Nature { exchange_type: Some(kind) })
            }
        })
    }

    async fn bind(&self, binding: &HubBinding) -> Result<(), Failure> {
        let host = self.find(&binding.vhost)?;
        if !host.has_queue(&binding.queue) {
            return Err(not_found(codes::NO_SUCH_QUEUE, "queue", &binding.queue));
        }
        let mut inner = host.lock();
        if !inner.kinds.contains_key(&binding.exchange) {
            return Err(not_found(codes::NO_SUCH_EXCHANGE, "exchange", &binding.exchange));
        }
        if !inner.bindings.contains(binding) {
            inner.bindings.push(binding.clone());
        }
        Ok(())
    }

    async fn unbind(&self, binding: &HubBinding) -> Result<(), Failure> {
        self.find(&binding.vhost)?.lock().bindings.retain(|held| held != binding);
        Ok(())
    }

    async fn close(&self) {}
}

/// Subscriptions in memory. What is kept stays when a hub is opened on it again.
#[derive(Debug, Default)]
pub struct MemorySubscriptions {
    inner: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    subscriptions: BTreeMap<SubscriptionId, Subscription>,
    values: BTreeMap<String, Vec<u8>>,
    full: bool,
    stuck: bool,
    puts: usize,
}

impl MemorySubscriptions {
    /// How often a subscription was stored.
    pub fn puts(&self) -> usize {
        self.lock().puts
    }

    /// Whether every write fails, as on a full disk.
    pub fn full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Whether storing a subscription never ends and nothing is stored: the moment before it, held.
    pub fn stuck(&self, stuck: bool) {
        self.lock().stuck = stuck;
    }

    fn writable(&self) -> Result<MutexGuard<'_, Kept>, Failure> {
        let kept = self.lock();
        if kept.full {
            let what = "store a subscription";
            return Err(
                Failure::new(FailureKind::Internal, codes::STATE_UNWRITABLE, what).detail("the disk is full")
            );
        }
        Ok(kept)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Subscriptions for MemorySubscriptions {
    async fn all(&self) -> Result<Vec<Subscription>, Failure> {
        Ok(self.lock().subscriptions.values().cloned().collect())
    }

    async fn put(&self, subscription: &Subscription) -> Result<(), Failure> {
        let stuck = self.lock().stuck;
        if stuck {
            return std::future::pending().await;
        }
        let mut kept = self.writable()?;
        kept.subscriptions.insert(subscription.id(), subscription.clone());
        kept.puts += 1;
        Ok(())
    }

    async fn remove(&self, id: SubscriptionId) -> Result<bool, Failure> {
        Ok(self.writable()?.subscriptions.remove(&id).is_some())
    }

    async fn value(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.lock().values.get(name).cloned())
    }

    async fn keep(&self, name: &str, value: &[u8]) -> Result<(), Failure> {
        self.writable()?.values.insert(name.to_owned(), value.to_vec());
        Ok(())
    }

    async fn names(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        Ok(self.lock().values.keys().filter(|name| name.starts_with(prefix)).cloned().collect())
    }

    async fn forget(&self, name: &str) -> Result<(), Failure> {
        self.writable()?.values.remove(name);
        Ok(())
    }
}
