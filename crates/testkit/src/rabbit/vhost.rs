//! A virtual host of one's own: queues, exchanges, users and connections in it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::Management;
use crate::place::unique;
use crate::wait::wait_until;

/// A virtual host for one test; see [`super::vhost`].
#[derive(Debug)]
pub struct Vhost {
    name: String,
    management: Management,
    amqp: String,
    amqps: String,
}

/// A user with rights in one virtual host only; removed when dropped.
#[derive(Debug)]
pub struct User {
    pub name: String,
    pub password: String,
    /// `amqp://…` of this user into the virtual host.
    pub url: String,
    /// `http://…` of this user, who is a `management` user.
    pub management_url: String,
    management: Management,
}

/// A message as the management API shows it. Header types are lost there: see [`crate::python::drain`].
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    pub body: Vec<u8>,
    pub properties: Value,
    pub exchange: String,
    pub routing_key: String,
    pub redelivered: bool,
}

impl Vhost {
    pub(super) fn create(management: Management, amqp: String, amqps: String) -> Vhost {
        let name = unique("test");
        management.request("PUT", &format!("/api/vhosts/{name}"), &json!({}));
        let vhost = Vhost { name, management, amqp, amqps };
        vhost.permit("guest", ".*", ".*", ".*");
        vhost
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn management(&self) -> &Management {
        &self.management
    }

    /// `amqp://guest:guest@127.0.0.1:PORT/NAME`
    #[must_use]
    pub fn url(&self) -> String {
        self.in_vhost(&self.amqp)
    }

    /// `amqps://guest:guest@127.0.0.1:PORT/NAME`
    #[must_use]
    pub fn tls_url(&self) -> String {
        self.in_vhost(&self.amqps)
    }

    fn in_vhost(&self, url: &str) -> String {
        let (start, _) = url.rsplit_once('/').expect("the URL names a virtual host");
        format!("{start}/{}", self.name)
    }

    /// Declares a durable classic queue.
    pub fn queue(&self, name: &str) {
        self.queue_with(name, &json!({}));
    }

    /// Declares a durable queue with arguments, `{"x-queue-type": "quorum"}` for one.
    pub fn queue_with(&self, name: &str, arguments: &Value) {
        self.management.request(
            "PUT",
            &self.path("queues", name),
            &json!({"durable": true, "arguments": arguments}),
        );
    }

    pub fn delete_queue(&self, name: &str) {
        self.management.request("DELETE", &self.path("queues", name), &Value::Null);
    }

    /// Declares a durable exchange: `direct`, `fanout`, `topic` or `headers`.
    pub fn exchange(&self, name: &str, kind: &str) {
        self.management.request(
            "PUT",
            &self.path("exchanges", name),
            &json!({"type": kind, "durable": true}),
        );
    }

    pub fn delete_exchange(&self, name: &str) {
        self.management.request("DELETE", &self.path("exchanges", name), &Value::Null);
    }

    /// Binds a queue to an exchange.
    pub fn bind(&self, exchange: &str, queue: &str, routing_key: &str) {
        self.bind_with(exchange, queue, routing_key, &json!({}));
    }

    /// Binds with arguments, as a `headers` exchange wants them.
    pub fn bind_with(&self, exchange: &str, queue: &str, routing_key: &str, arguments: &Value) {
        let path = format!("/api/bindings/{}/e/{}/q/{}", self.name, encode(exchange), encode(queue));
        self.management.request("POST", &path, &json!({"routing_key": routing_key, "arguments": arguments}));
    }

    /// A policy on all queues whose name matches `pattern`: `{"max-length": 1, "overflow": "reject-publish"}`.
    pub fn policy(&self, name: &str, pattern: &str, definition: &Value) {
        let body = json!({"pattern": pattern, "definition": definition, "apply-to": "queues"});
        self.management.request("PUT", &self.path("policies", name), &body);
    }

    /// Removes a policy.
    pub fn delete_policy(&self, name: &str) {
        self.management.request("DELETE", &self.path("policies", name), &Value::Null);
    }

    /// What the API says about a queue; `None` when there is none.
    #[must_use]
    pub fn look(&self, queue: &str) -> Option<Value> {
        self.management.get(&self.path("queues", queue))
    }

    /// Messages in a queue, ready and unacknowledged, at most half a second old. Exact counts:
    /// [`Vhost::wait_for_depth`], [`Vhost::take`].
    ///
    /// # Panics
    /// When there is no such queue.
    #[must_use]
    pub fn depth(&self, queue: &str) -> u64 {
        let found = self.look(queue).unwrap_or_else(|| panic!("there is no queue {queue}"));
        found["messages"].as_u64().unwrap_or(0) // absent until the first statistics
    }

    /// Waits until a queue has `depth` messages.
    pub fn wait_for_depth(&self, queue: &str, depth: u64, deadline: Duration) {
        wait_until(&format!("{queue} has {depth} messages"), deadline, || self.depth(queue) == depth);
    }

    /// Takes up to `count` messages off a queue, in its order.
    #[must_use]
    pub fn take(&self, queue: &str, count: usize) -> Vec<Received> {
        self.fetch(queue, count, "ack_requeue_false")
    }

    /// Looks at up to `count` messages; they stay, marked as redelivered.
    #[must_use]
    pub fn peek(&self, queue: &str, count: usize) -> Vec<Received> {
        self.fetch(queue, count, "ack_requeue_true")
    }

    fn fetch(&self, queue: &str, count: usize, mode: &str) -> Vec<Received> {
        let path = format!("{}/get", self.path("queues", queue));
        let answer = self.management.request(
            "POST",
            &path,
            &json!({"count": count, "ackmode": mode, "encoding": "auto"}),
        );
        answer.as_array().expect("the messages are a list").iter().map(received).collect()
    }

    /// Empties a queue of what is ready.
    pub fn purge(&self, queue: &str) {
        self.management.request("DELETE", &format!("{}/contents", self.path("queues", queue)), &Value::Null);
    }

    /// Publishes one message and says whether it reached a queue. `properties`: `{"headers": {…}}`.
    pub fn publish(&self, exchange: &str, routing_key: &str, body: &[u8], properties: &Value) -> bool {
        let name = if exchange.is_empty() { "amq.default" } else { exchange };
        let path = format!("{}/publish", self.path("exchanges", name));
        let body = json!({
            "routing_key": routing_key, "payload": STANDARD.encode(body), "payload_encoding": "base64",
            "properties": properties,
        });
        self.management.request("POST", &path, &body)["routed"] == true
    }

    /// A user who may configure, write and read what matches these patterns here, and nothing elsewhere.
    #[must_use]
    pub fn user(&self, configure: &str, write: &str, read: &str) -> User {
        let (name, password) = (unique("user"), unique("password"));
        let body = json!({"password": password, "tags": "management"});
        self.management.request("PUT", &format!("/api/users/{name}"), &body);
        self.permit(&name, configure, write, read);
        let (_, place) = self.amqp.split_once('@').expect("the URL has a user");
        User {
            url: self.in_vhost(&format!("amqp://{name}:{password}@{place}")),
            management_url: self.management.url_as(&name, &password),
            name,
            password,
            management: self.management.clone(),
        }
    }

    /// Sets a user's rights in this virtual host.
    pub fn permit(&self, user: &str, configure: &str, write: &str, read: &str) {
        let body = json!({"configure": configure, "write": write, "read": read});
        self.management.request("PUT", &format!("/api/permissions/{}/{user}", self.name), &body);
    }

    /// The connections into this virtual host, as the API lists them.
    #[must_use]
    pub fn connections(&self) -> Vec<Value> {
        let found = self.management.get(&format!("/api/vhosts/{}/connections", self.name));
        found.and_then(|list| list.as_array().cloned()).unwrap_or_default()
    }

    /// Waits until there are `count` connections into this virtual host.
    pub fn wait_for_connections(&self, count: usize, deadline: Duration) {
        let what = format!("there are {count} connections");
        wait_until(&what, deadline, || self.connections().len() == count);
    }

    /// The broker closes all connections into this virtual host (`CONNECTION_FORCED`); says how many.
    pub fn close_connections(&self) -> usize {
        let connections = self.connections();
        for connection in &connections {
            let name = connection["name"].as_str().expect("a connection has a name");
            // One that ended by itself since is closed as well.
            self.management.try_request(
                "DELETE",
                &format!("/api/connections/{}", encode(name)),
                &Value::Null,
            );
        }
        connections.len()
    }

    fn path(&self, kind: &str, name: &str) -> String {
        format!("/api/{kind}/{}/{}", self.name, encode(name))
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        // The broker is deleted after the run anyway; a failure here must not hide the test's own.
        self.management.try_request("DELETE", &format!("/api/vhosts/{}", self.name), &Value::Null);
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.management.try_request("DELETE", &format!("/api/users/{}", self.name), &Value::Null);
    }
}

fn encode(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

fn received(message: &Value) -> Received {
    let text = |name: &str| message[name].as_str().unwrap_or_default();
    let body = match text("payload_encoding") {
        "base64" => STANDARD.decode(text("payload")).expect("the API encodes in base64"),
        _ => text("payload").as_bytes().to_vec(),
    };
    Received {
        body,
        // An empty table comes as an empty list.
        properties: if message["properties"].is_object() { message["properties"].clone() } else { json!({}) },
        exchange: text("exchange").to_owned(),
        routing_key: text("routing_key").to_owned(),
        redelivered: message["redelivered"] == true,
    }
}
