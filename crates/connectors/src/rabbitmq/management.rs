//! The management API: what AMQP does not tell. Read only.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, header};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::ports::QueueInfo;

use super::config::{Management, Target};
use crate::kit::permission::Pattern;
use crate::kit::tls::{self, TlsSettings};

/// Queues on one page; the API's own maximum.
const PAGE: usize = 500;
/// A page of queues takes about 200 bytes a queue; an answer larger than this is not the API's.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Ten million queues; a server that always names a further page does not keep us for ever.
const PAGES_MAX: usize = 20_000;
/// One request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// RabbitMQ collects statistics every 5 s unless it is configured otherwise.
const STATISTICS_PAUSE: Duration = Duration::from_millis(600);
const STATISTICS_TRIES: usize = 10;

/// A page of a list.
#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
    page_count: usize,
}

#[derive(Deserialize)]
struct Queue {
    name: String,
    #[serde(rename = "type", default = "classic")]
    kind: String,
    #[serde(default)]
    durable: bool,
    messages: Option<u64>,
    consumers: Option<u64>,
}

fn classic() -> String {
    "classic".to_owned()
}

/// What a user may do in a vhost, each as a pattern of names.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Permission {
    pub(super) user: String,
    pub(super) vhost: String,
    pub(super) write: String,
    #[serde(default)]
    pub(super) read: String,
    #[serde(default)]
    pub(super) configure: String,
}

impl Permission {
    /// Of a user who has no rights in the vhost.
    pub(super) fn none(user: &str, vhost: &str) -> Permission {
        let (write, read, configure) = (String::new(), String::new(), String::new());
        Permission { user: user.to_owned(), vhost: vhost.to_owned(), write, read, configure }
    }
}

/// What a user may do with the keys of a topic exchange in a vhost, each as a pattern.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TopicPermission {
    pub(super) vhost: String,
    pub(super) exchange: String,
    pub(super) write: String,
    pub(super) read: String,
}

/// A user's tags: a list, or before RabbitMQ 3.9 a text with commas.
#[derive(Deserialize)]
#[serde(untagged)]
enum Tags {
    List(Vec<String>),
    Text(String),
}

impl Tags {
    fn listed(self) -> Vec<String> {
        match self {
            Tags::List(tags) => tags,
            Tags::Text(text) => {
                text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
            }
        }
    }
}

/// What a queue is, by its declaration and the policies that apply to it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct QueueNature {
    #[serde(rename = "type", default = "classic")]
    pub(super) kind: String,
    #[serde(default = "yes")]
    pub(super) durable: bool,
    #[serde(default)]
    pub(super) auto_delete: bool,
    #[serde(default)]
    arguments: serde_json::Value,
    /// Missing until the broker's statistics contain the queue, some seconds after it was declared.
    effective_policy_definition: Option<serde_json::Value>,
}

fn yes() -> bool {
    true
}

impl QueueNature {
    /// A setting: of the policy as `name`, of the arguments as `x-name`.
    pub(super) fn setting(&self, name: &str) -> Option<&serde_json::Value> {
        let argument = self.arguments.get(format!("x-{name}"));
        argument.or_else(|| self.effective_policy_definition.as_ref()?.get(name))
    }

    /// A setting that is a text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.setting(name)?.as_str()
    }

    /// A setting that is a whole number.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.setting(name)?.as_i64()
    }
}

/// A policy, of an operator or not.
#[derive(Debug, Clone, Deserialize)]
struct Policy {
    pattern: String,
    #[serde(rename = "apply-to")]
    apply_to: String,
    definition: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    priority: i64,
}

impl Policy {
    /// The definition of the policy that applies to a queue: of those that match, the one of the highest priority.
    fn of_queue(policies: Vec<Policy>, name: &str, kind: &str) -> serde_json::Map<String, serde_json::Value> {
        let applies = |policy: &Policy| {
            let to = match policy.apply_to.as_str() {
                "all" | "queues" => true,
                "classic_queues" => kind == "classic",
                "quorum_queues" => kind == "quorum",
                "streams" => kind == "stream",
                _ => false,
            };
            to && Pattern::new(&policy.pattern).matches(name).unwrap_or(false)
        };
        let highest = policies.into_iter().filter(applies).max_by_key(|policy| policy.priority);
        highest.map(|policy| policy.definition).unwrap_or_default()
    }
}

/// One way to ask the management API.
pub(super) struct Api {
    management: Management,
    vhost: String,
    tls: TlsSettings,
}

impl Api {
    /// The API of a broker.
    ///
    /// # Errors
    /// The broker's settings name none.
    pub(super) fn new(target: &Target, tls: &TlsSettings) -> Result<Api, Failure> {
        let (target, tls) = target.now(tls);
        match target.management {
            Some(management) => Ok(Api { management, vhost: target.vhost, tls }),
            None => Err(Failure::new(
                FailureKind::Invalid,
                codes::MANAGEMENT_FAILED,
                "ask RabbitMQ's management API",
            )
            .detail("no `management_url` is configured, and AMQP has no list of queues")
            .remedy("Give the broker a `management_url`, such as http://host:15672.")),
        }
    }

    /// The queues of the vhost, by name.
    ///
    /// # Errors
    /// The API cannot be reached, refuses the user, or answers something else.
    pub(super) async fn queues(&self) -> Result<Vec<QueueInfo>, Failure> {
        let what = format!("list the queues of vhost `{}`", self.vhost);
        let mut queues = Vec::new();
        for page in 1..=PAGES_MAX {
            // Without statistics, which are what makes the list slow on a busy broker; totals are cheap. Brokers that do
            // not know an option ignore it.
            let path = format!(
                "/api/queues/{}?disable_stats=true&enable_queue_totals=true&pagination=true&page={page}&page_size={PAGE}",
                segment(&self.vhost)
            );
            let Page { items, page_count } = self.get::<Page<Queue>>(&path, &what).await?;
            queues.extend(items.into_iter().map(|queue| QueueInfo {
                name: queue.name,
                kind: queue.kind,
                messages: queue.messages,
                consumers: queue.consumers,
                durable: queue.durable,
            }));
            if page >= page_count {
                break;
            }
        }
        queues.sort_by(|one, other| one.name.cmp(&other.name));
        queues.dedup_by(|one, other| one.name == other.name); // a queue made meanwhile moves others to the next page
        Ok(queues)
    }

    /// Whether the API is there and lets its user in.
    ///
    /// # Errors
    /// As [`Api::queues`].
    pub(super) async fn whoami(&self) -> Result<(), Failure> {
        #[derive(Deserialize)]
        struct Me {
            #[expect(dead_code, reason = "an answer without a name is not this API's")]
            name: String,
        }
        self.get::<Me>("/api/whoami", "log in at the management API").await.map(drop)
    }

    /// What the user may do in the vhost; `None` if nothing.
    ///
    /// # Errors
    /// As [`Api::queues`].
    pub(super) async fn permission(&self, username: &str) -> Result<Option<Permission>, Failure> {
        let what = format!("look up the rights of user `{username}`");
        let path = format!("/api/users/{}/permissions", segment(username));
        let all: Vec<Permission> = self.get(&path, &what).await?;
        Ok(all.into_iter().find(|permission| permission.vhost == self.vhost && permission.user == username))
    }

    /// The tags of a user; `None`: the broker's own database has no such user.
    ///
    /// # Errors
    /// As [`Api::queues`].
    pub(super) async fn tags(&self, username: &str) -> Result<Option<Vec<String>>, Failure> {
        #[derive(Deserialize)]
        struct User {
            tags: Tags,
        }
        let what = format!("look up user `{username}`");
        let user = self.get::<User>(&format!("/api/users/{}", segment(username)), &what).await;
        Ok(found(user)?.map(|user| user.tags.listed()))
    }

    /// The tags of the user that this API is asked as, which it tells without further rights; `None`: it is another one.
    ///
    /// # Errors
    /// As [`Api::queues`].
    pub(super) async fn own_tags(&self, username: &str) -> Result<Option<Vec<String>>, Failure> {
        #[derive(Deserialize)]
        struct User {
            name: String,
            tags: Tags,
        }
        let user: User = self.get("/api/whoami", "look up the user of the management API").await?;
        Ok((user.name == username).then(|| user.tags.listed()))
    }

    /// What a user may do in all vhosts.
    ///
    /// # Errors
    /// As [`Api::queues`].
    pub(super) async fn permissions(&self, username: &str) -> Result<Vec<Permission>, Failure> {
        let what = format!("look up the rights of user `{username}`");
        let path = format!("/api/users/{}/permissions", segment(username));
        Ok(found(self.get(&path, &what).await)?.unwrap_or_default())
    }

    /// What a user may do with the keys of topic exchanges, in all vhosts. What is not named is not limited.
    ///
    /// # Errors
    /// As [`Api::queues`].
    pub(super) async fn topic_permissions(&self, username: &str) -> Result<Vec<TopicPermission>, Failure> {
        let what = format!("look up the topic permissions of user `{username}`");
        let path = format!("/api/users/{}/topic-permissions", segment(username));
        Ok(found(self.get(&path, &what).await)?.unwrap_or_default())
    }

    /// The type of an exchange; `None`: there is none of that name.
    ///
    /// # Errors
    /// As [`Api::queues`].
    pub(super) async fn exchange_type(&self, exchange: &str) -> Result<Option<String>, Failure> {
        #[derive(Deserialize)]
        struct Exchange {
            #[serde(rename = "type")]
            kind: String,
        }
        let what = format!("look at exchange `{exchange}`");
        let path =
            format!("/api/exchanges/{}/{}?disable_stats=true", segment(&self.vhost), segment(exchange));
        Ok(found(self.get::<Exchange>(&path, &what).await)?.map(|exchange| exchange.kind))
    }

    /// The type of a queue.
    ///
    /// # Errors
    /// As [`Api::queues`].
    pub(super) async fn queue_type(&self, queue: &str) -> Result<String, Failure> {
        let what = format!("look at queue `{queue}`");
        let path = format!("/api/queues/{}/{}?disable_stats=true", segment(&self.vhost), segment(queue));
        self.get::<QueueNature>(&path, &what).await.map(|nature| nature.kind)
    }

    /// What a queue is.
    ///
    /// # Errors
    /// As [`Api::queues`].
    pub(super) async fn nature(&self, queue: &str) -> Result<QueueNature, Failure> {
        let what = format!("look at queue `{queue}`");
        // With statistics: without them the API leaves out which policy applies.
        let path = format!("/api/queues/{}/{}", segment(&self.vhost), segment(queue));
        let mut nature: QueueNature = self.get(&path, &what).await?;
        if nature.effective_policy_definition.is_some() {
            return Ok(nature);
        }
        if let Ok(definition) = self.policy_of(queue, &nature.kind).await {
            nature.effective_policy_definition = Some(definition);
            return Ok(nature);
        }
        // The tag `management` alone does not show the list of policies.
        for _ in 0..STATISTICS_TRIES {
            tokio::time::sleep(STATISTICS_PAUSE).await;
            nature = self.get(&path, &what).await?;
            if nature.effective_policy_definition.is_some() {
                break;
            }
        }
        Ok(nature)
    }

    /// The policy that applies to a queue, with what an operator's policy sets on top of it.
    async fn policy_of(&self, queue: &str, kind: &str) -> Result<serde_json::Value, Failure> {
        let what = format!("look up the policies of vhost `{}`", self.vhost);
        let of = |list: &str| format!("/api/{list}/{}", segment(&self.vhost));
        let policies = self.get(&of("policies"), &what).await?;
        let operators = self.get(&of("operator-policies"), &what).await?;
        let mut definition = Policy::of_queue(policies, queue, kind);
        for (name, limit) in Policy::of_queue(operators, queue, kind) {
            let smaller =
                |set: &serde_json::Value| set.as_i64().is_some_and(|set| Some(set) < limit.as_i64());
            if !definition.get(&name).is_some_and(smaller) {
                definition.insert(name, limit);
            }
        }
        Ok(definition.into())
    }

    /// Whether the broker has an alarm of memory or disk.
    ///
    /// # Errors
    /// As [`Api::queues`].
    pub(super) async fn alarms(&self) -> Result<Vec<String>, Failure> {
        #[derive(Deserialize)]
        struct Node {
            name: String,
            #[serde(default)]
            mem_alarm: bool,
            #[serde(default)]
            disk_free_alarm: bool,
        }
        let nodes: Vec<Node> = self.get("/api/nodes", "look for alarms").await?;
        let mut alarms = Vec::new();
        for node in nodes {
            if node.mem_alarm {
                alarms.push(format!("memory alarm on {}", node.name));
            }
            if node.disk_free_alarm {
                alarms.push(format!("disk alarm on {}", node.name));
            }
        }
        Ok(alarms)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, what: &str) -> Result<T, Failure> {
        let failed =
            |kind| Failure::new(kind, codes::MANAGEMENT_FAILED, what).at(self.management.base.clone());
        let Ok(answer) = tokio::time::timeout(TIMEOUT, self.request(path)).await else {
            return Err(failed(FailureKind::Timeout)
                .detail(format!("the management API did not answer within {TIMEOUT:?}")));
        };
        let (status, body) = answer.map_err(|cause| {
            failed(FailureKind::Disconnected)
                .detail("the management API cannot be reached")
                .remedy("Check `management_url` and that the plugin `rabbitmq_management` is enabled.")
                .because(cause)
        })?;
        match status {
            StatusCode::OK => serde_json::from_slice(&body).map_err(|error| {
                failed(FailureKind::Refused)
                    .detail("its answer is not what the management API gives")
                    .remedy("Check that `management_url` is that of RabbitMQ's management plugin.")
                    .because(error)
            }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(failed(FailureKind::Refused)
                .detail(format!("it refuses the user `{}`: {}", self.management.username, said(status, &body)))
                .remedy(
                    "Give the user the tag `management` and rights in the vhost (`rabbitmqctl set_user_tags`), or \
                     write the login of one that has them into `management_url`.",
                )),
            StatusCode::NOT_FOUND => Err(failed(FailureKind::NotFound)
                .detail(format!("it does not know {path}: {}", said(status, &body)))
                .remedy("Check `management_url` and the vhost.")),
            status => Err(failed(FailureKind::Unavailable).detail(said(status, &body))),
        }
    }

    async fn request(&self, path: &str) -> Result<(StatusCode, Bytes), Unanswered> {
        let login = format!("{}:{}", self.management.username, self.management.password.reveal());
        let request = Request::get(format!("{}{path}", self.management.base))
            .header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(login)))
            .header(header::ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())?;
        // One request now and then: a client of its own keeps no connection open in between.
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_max_idle_per_host(0);
        let response = if self.management.base.starts_with("https") {
            let settings = tls::client_config(&self.tls)?;
            let connector = HttpsConnectorBuilder::new()
                .with_tls_config((*settings).clone())
                .https_only()
                .enable_http1()
                .build();
            client.build(connector).request(request).await?
        } else {
            client.build(HttpConnector::new()).request(request).await?
        };
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(Unanswered::Body)?
            .to_bytes();
        Ok((status, body))
    }
}

/// What is not there is an answer.
fn found<T>(answer: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(failure) if failure.kind == FailureKind::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error(transparent)]
    Tls(#[from] Failure),
    #[error("the address is wrong")]
    Address(#[from] hyper::http::Error),
    #[error("connecting failed")]
    Client(#[from] hyper_util::client::legacy::Error),
    #[error("the answer broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn segment(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

/// Status and the reason, which the API gives as JSON; never more than a line of it.
fn said(status: StatusCode, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Reason {
        reason: serde_json::Value,
    }
    match serde_json::from_slice::<Reason>(body) {
        Ok(Reason { reason: serde_json::Value::String(reason) }) => {
            format!("{status}, {}", reason.chars().take(200).collect::<String>())
        }
        _ => status.to_string(),
    }
}
