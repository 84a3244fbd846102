//! The replay table once more, with nothing in memory: `warren serve` as a process, RabbitMQ, its users, and callbacks that are
//! delivered to.

use std::net::SocketAddr;

use axum::http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use warren_testkit::rabbit::{self, Vhost};
use warren_testkit::wait::wait_until_async;

use super::client::{Ask, PATIENCE, Reply};
use super::subscriber::Subscriber;
use super::world::escaped;
use crate::program::{Program, Running};

/// How a hub is set up.
#[derive(Default)]
pub struct Setup {
    pub compat: bool,
    /// What a login of the hub's own may configure, write and read; `None`: it logs in as an administrator.
    pub own: Option<[&'static str; 3]>,
    /// Further keys of `http`, each with a comma before it.
    pub http: &'static str,
}

/// A hub as a process, with a virtual host and a user of its own who has both tags.
pub struct Hub {
    pub address: SocketAddr,
    /// The hub's own login, where it has one of its own.
    pub own: Option<rabbit::User>,
    pub vhost: Vhost,
    pub user: String,
    _running: Running,
    _folder: TempDir,
}

impl Hub {
    async fn start(compat: bool) -> Hub {
        Hub::with(Setup { compat, ..Setup::default() }).await
    }

    /// A hub that is set up like this.
    pub async fn with(setup: Setup) -> Hub {
        tokio::task::spawn_blocking(move || {
            let Setup { compat, own, http } = setup;
            let vhost = rabbit::vhost();
            let own = own.map(|[configure, write, read]| vhost.user(configure, write, read));
            let user = format!("{}-boss", vhost.name());
            add_user(&vhost, &user, "administrator,rabbithub_admin", [".*"; 3]);
            let folder = tempfile::tempdir().unwrap();
            let config = format!(
                "brokers:\n  mq: {{type: rabbitmq, url: \"{}\", management_url: \"{}\"}}\n\
                 http: {{listen: \"127.0.0.1:0\"{http}}}\nstate: {{folder: state}}\n\
                 hub:\n  broker: mq\n  allow_callbacks: [127.0.0.1/32]\n  set_correlation_id: x-correlation-id\n{}",
                own.as_ref().map_or_else(|| vhost.url(), |own| own.url.clone()),
                vhost.management().url(),
                if compat { "  compat: rabbithub\n" } else { "" },
            );
            let program = Program::configured(folder.path(), &config);
            let mut running = program.start(&["serve"]);
            running.wait_for("it serves", PATIENCE, |event| event["serving"].is_object());
            let event = running.find(|event| event["serving"].is_object()).unwrap();
            let address = event.json["serving"]["address"].as_str().unwrap().parse().unwrap();
            Hub { address, own, vhost, user, _running: running, _folder: folder }
        })
        .await
        .unwrap()
    }

    /// Until the hub is open, its routes say 503.
    pub async fn boss(&self, ask: Ask) -> Reply {
        let ask = ask.login(&self.user, "secret");
        let mut reply = None;
        wait_until_async("the hub is open", PATIENCE, async || {
            let answered = ask.send(self.address).await;
            let open = answered.status != 503;
            reply = Some(answered);
            open
        })
        .await;
        reply.unwrap()
    }

    async fn said(&self, method: &str, target: &str) -> (u16, String) {
        self.boss(Ask::new(method, &self.path(target))).await.said()
    }

    /// A path in the virtual host of the test.
    pub fn path(&self, target: &str) -> String {
        format!("/{}{target}", self.vhost.name())
    }

    async fn subscribe(&self, target: &str, body: &str) -> (u16, String) {
        self.boss(Ask::new("POST", &self.path(target)).form(body)).await.said()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.vhost.management().request("DELETE", &format!("/api/users/{}", self.user), &Value::Null);
    }
}

pub fn add_user(vhost: &Vhost, name: &str, tags: &str, [configure, write, read]: [&str; 3]) {
    let management = vhost.management();
    management.request("PUT", &format!("/api/users/{name}"), &json!({"password": "secret", "tags": tags}));
    let rights = json!({"configure": configure, "write": write, "read": read});
    management.request("PUT", &format!("/api/permissions/{}/{name}", vhost.name()), &rights);
}

fn is(said: &(u16, String), status: u16, text: &str) {
    assert_eq!((said.0, said.1.as_str()), (status, text));
}

fn form(subscriber: &Subscriber, path: &str, topic: &str, more: &str) -> String {
    let callback = escaped(&subscriber.url(path));
    format!("hub.mode=subscribe&hub.callback={callback}&hub.topic={topic}{more}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replay_table_in_compatibility_mode() {
    replay(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replay_table_by_default() {
    replay(false).await;
}

async fn replay(compat: bool) {
    let subscriber = Subscriber::start().await;
    let hub = Hub::start(compat).await;
    // 1 to 6
    let made = hub.boss(Ask::new("PUT", &hub.path("/endpoint/q/foo"))).await;
    assert_eq!(made.status, 201, "{made:?}");
    let location = format!("http://{}/{}/endpoint/q/foo", hub.address, hub.vhost.name());
    assert_eq!(made.header("location"), Some(location.as_str()));
    is(&hub.said("PUT", "/endpoint/q/foo").await, 204, "");
    is(&hub.said("PUT", "/endpoint/x/fx?amqp.exchange_type=nosuch").await, 400, "Invalid exchange type");
    for unknown in ["x-nosuch", "x-delayed-message", "", "x-%20"] {
        let said = hub.said("PUT", &format!("/endpoint/x/fx?amqp.exchange_type={unknown}")).await;
        is(&said, 400, "Invalid exchange type");
        let path = format!("/api/v1/exchanges/{}/fx", hub.vhost.name());
        let typed = json!({ "type": unknown.replace("%20", " ") });
        let reply = hub.boss(Ask::new("PUT", &path).json(&typed)).await;
        assert_eq!(reply.status, 400, "{reply:?}");
        assert!(reply.said().1.contains("Invalid exchange type"), "{reply:?}");
    }
    is(&hub.said("PUT", "/endpoint/q/amq.x").await, 400, "Invalid queue name");
    is(&hub.said("DELETE", "/endpoint/x/").await, 403, "Deleting the default exchange is not permitted");
    is(&hub.said("DELETE", "/endpoint/q/none").await, 404, "Not found.");
    is(&hub.said("POST", "/endpoint/x/none?hub.topic=a").await, 404, "exchange not found");
    is(&hub.said("PUT", "/endpoint/x/fx?amqp.exchange_type=topic").await, 201, "");
    let other = hub.said("PUT", "/endpoint/x/fx?amqp.exchange_type=fanout").await.0;
    assert_eq!(other, if compat { 204 } else { 409 });
    // 7 to 13
    let queue = "/subscribe/q/foo";
    let seven = form(&subscriber, "/seven", "foo", "&hub.verify=sync&hub.lease_seconds=60000");
    is(&hub.subscribe(queue, &seven).await, 204, "");
    let asked = subscriber.of(&Method::GET, "/seven").remove(0);
    assert_eq!(asked.parameter("hub.lease_seconds").as_deref(), Some("60000"));
    let refused = form(&subscriber, "/refuses", "foo", "&hub.verify=sync");
    is(&hub.subscribe(queue, &refused).await, 400, "Request verification failed: {request_status,404}");
    let nine = hub.subscribe(queue, &form(&subscriber, "/refuses", "foo", "")).await;
    if compat {
        is(&nine, 400, "Missing required parameter");
    } else {
        is(&nine, 202, "");
    }
    let none = form(&subscriber, "/eleven", "foo", "&hub.verify=sync");
    is(&hub.subscribe("/subscribe/q/none", &none).await, 404, "queue or exchange not found");
    is(&hub.subscribe(queue, "hub.mode=banana").await, 400, "Invalid operation");
    let junk = Ask::new("POST", &hub.path(queue)).body("application/json", "{junk");
    is(&hub.boss(junk).await.said(), 400, "invalid json");
    // 14 and 15: through an exchange to a callback
    let blue = json!({"hub": {"callback": subscriber.url("/blue"), "topic": "#", "mode": "subscribe", "verify": "sync",
        "basic_auth": "dTpw"}});
    is(&hub.boss(Ask::new("POST", &hub.path("/subscribe/x/fx")).json(&blue)).await.said(), 204, "");
    let ask = Ask::new("POST", &hub.path("/endpoint/x/fx?hub.topic=blue"))
        .header("x-correlation-id", "c-1")
        .header("x-rabbithub-msg_header", "key1 = A,key2 = B")
        .body("text/x-odd; a=b", "some bytes");
    let reply = hub.boss(ask).await;
    assert_eq!((reply.status, reply.header("x-correlation-id")), (202, Some("c-1")));
    let told = subscriber.hears(Method::POST, "/blue", 1).await.remove(0);
    assert_eq!(told.parameter("hub.topic").as_deref(), Some("blue"));
    for (name, value) in [
        ("content-type", "text/x-odd; a=b"),
        ("x-amqp-routing-key", "blue"),
        ("x-amqp-exchange", "fx"),
        ("x-amqp-redelivered", "false"),
        ("x-rabbithub-msg_header", "key1 = A, key2 = B"),
        ("x-correlation-id", "c-1"),
        ("authorization", "Basic dTpw"),
        ("content-length", "10"),
    ] {
        assert_eq!(told.header(name), Some(value), "{name}");
    }
    assert_eq!(told.body, b"some bytes");
    // To the queue itself: the topic is what the publisher said.
    let reply =
        hub.boss(Ask::new("POST", &hub.path("/endpoint/q/foo?hub.topic=straight")).body("", "x")).await;
    assert_eq!(reply.status, 202);
    let told = subscriber.hears(Method::POST, "/seven", 1).await.remove(0);
    assert_eq!(told.parameter("hub.topic").as_deref(), Some("straight"));
    assert_eq!(
        (told.header("x-amqp-routing-key"), told.header("x-amqp-exchange")),
        (Some("straight"), Some(""))
    );
    // Nobody is bound.
    assert_eq!(hub.said("PUT", "/endpoint/x/lonely").await.0, 201);
    let lonely = hub.boss(Ask::new("POST", &hub.path("/endpoint/x/lonely")).body("", "x")).await;
    assert_eq!(lonely.status, if compat { 202 } else { 422 });
    // 16
    let ends = seven.replace("hub.mode=subscribe", "hub.mode=unsubscribe");
    is(&hub.subscribe(queue, &ends).await, 204, "");
    is(&hub.subscribe(queue, &ends.replace("seven", "unknown")).await, 404, "");
    // 17 to 19
    let list = hub.boss(Ask::new("GET", "/subscriptions")).await.json();
    let seventh = list["subscriptions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["callback"] == subscriber.url("/seven"));
    assert_eq!(seventh.unwrap()["status"], "inactive");
    let soon = hub.boss(Ask::new("GET", "/subscriptions?hub.expires=1")).await.json();
    assert_eq!(soon["subscriptions"].as_array().unwrap().len(), 1, "{soon}");
    let one = format!("hub.callback={}&hub.topic=foo", escaped(&subscriber.url("/seven")));
    let fetched = hub.boss(Ask::new("GET", &hub.path(&format!("/subscriptions/q/foo?{one}")))).await.json();
    assert_eq!(fetched["subscriptions"].as_array().unwrap().len(), 1);
    // 20
    let entry = |path: &str, status: &str| {
        json!({"vhost": hub.vhost.name(), "resource_type": "queue", "resource_name": "foo", "topic": "t", "status": status,
            "callback": subscriber.url(path)})
    };
    let batch = json!({"subscriptions": [entry("/off", "inactive"), entry("/on", "active"), entry("/refuses", "active")]});
    let reply = hub.boss(Ask::new("POST", "/subscriptions").json(&batch)).await;
    let results = reply.json();
    let states: Vec<_> = results["rabbithub_batch_results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["status"]["consumers"][0]["status"].as_str().unwrap())
        .collect();
    assert_eq!((reply.status, states), (202, vec!["ok", "ok", "{error,{request_status,404}}"]));
    // 21
    let target = hub.path(&format!("/subscribe/q/foo?{one}"));
    let removed = hub.boss(Ask::new("DELETE", &target)).await;
    assert_eq!((removed.status, removed.json()["consumers"][0]["status"].as_str()), (200, Some("ok")));
    assert_eq!(hub.boss(Ask::new("DELETE", &target)).await.status, if compat { 400 } else { 404 });
    // 22
    let text = hub.said("GET", "/endpoint/q/foo?hub.mode=generate_token&hub.intended_use=subscribe").await.1;
    let check = |use_: &str| hub.path(&format!("/endpoint/q/foo?hub.mode={use_}&hub.challenge=c&{text}"));
    is(&Ask::new("GET", &check("subscribe")).send(hub.address).await.said(), 200, "c");
    assert_eq!(Ask::new("GET", &check("unsubscribe")).send(hub.address).await.status, 400);
    // 23
    let ask = || Ask::new("GET", "/subscriptions");
    is(&ask().send(hub.address).await.said(), 401, "Authentication required.");
    let wrong = ask().login(&hub.user, "wrong").send(hub.address).await;
    assert_eq!(wrong.status, if compat { 403 } else { 401 });
    assert_eq!(ask().login("guest", "guest").send(hub.address).await.status, 403, "one tag only");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brokers_permissions_count() {
    let subscriber = Subscriber::start().await;
    let hub = Hub::start(true).await;
    assert_eq!(hub.said("PUT", "/endpoint/q/mine-1").await.0, 201);
    assert_eq!(hub.said("PUT", "/endpoint/q/other").await.0, 201);
    let user = format!("{}-part", hub.vhost.name());
    add_user(&hub.vhost, &user, "", ["^mine-made$", "^mine-1$", "^other$"]);
    let as_user = async |method: &str, target: &str| {
        Ask::new(method, &hub.path(target)).login(&user, "secret").send(hub.address).await.status
    };
    assert_eq!(as_user("PUT", "/endpoint/q/mine-made").await, 201);
    assert_eq!(as_user("PUT", "/endpoint/q/yours").await, 403);
    assert_eq!(as_user("POST", "/endpoint/q/mine-1").await, 202);
    assert_eq!(as_user("POST", "/endpoint/q/other").await, 403);
    let callback = escaped(&subscriber.url("/cb"));
    let query = format!("?hub.mode=subscribe&hub.verify=sync&hub.topic=t&hub.callback={callback}");
    assert_eq!(as_user("POST", &format!("/subscribe/q/mine-1{query}")).await, 403);
    assert_eq!(as_user("POST", &format!("/subscribe/q/other{query}")).await, 204);
    let elsewhere = Ask::new("PUT", "/endpoint/q/mine-made").login(&user, "secret").send(hub.address).await;
    assert_eq!(elsewhere.status, 403, "the default vhost");
    hub.vhost.management().request("DELETE", &format!("/api/users/{user}"), &Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_not_subscribed_to() {
    let subscriber = Subscriber::start().await;
    let hub = Hub::start(false).await;
    hub.vhost.queue_with("stream", &json!({"x-queue-type": "stream"}));
    let (status, text) =
        hub.subscribe("/subscribe/q/stream", &form(&subscriber, "/one", "t", "&hub.verify=sync")).await;
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("it is a stream"), "{text}");
    assert!(subscriber.of(&Method::GET, "/one").is_empty(), "its callback is not asked");
}

/// RabbitMQ hands direct replies to a requester, and returns them as unroutable where they are mandatory.
#[tokio::test(flavor = "multi_thread")]
async fn direct_replies_are_published() {
    let hub = Hub::start(false).await;
    hub.vhost.queue("requests");
    let url = hub.vhost.url();
    let requester =
        tokio::task::spawn_blocking(move || warren_testkit::python::request(&url, "requests", "ask"));
    let mut reply_to = None;
    wait_until_async("the request is there", PATIENCE, async || {
        let url = hub.vhost.url();
        let taken = tokio::task::spawn_blocking(move || warren_testkit::python::drain(&url, "requests"));
        let request = taken.await.unwrap().pop();
        reply_to = request.map(|request| request.properties["reply_to"].as_str().unwrap().to_owned());
        reply_to.is_some()
    })
    .await;
    let reply_to = reply_to.unwrap();
    let escaped = reply_to.replace('/', "%2F").replace('+', "%2B");
    let ask = Ask::new("POST", &hub.path(&format!("/endpoint/q/{escaped}"))).body("text/plain", "answer");
    let reply = hub.boss(ask).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    assert_eq!(requester.await.unwrap(), "answer");
    // By the API, to one that has gone.
    let late = json!({"vhost": hub.vhost.name(), "queue": reply_to, "body": "late"});
    let reply = hub.boss(Ask::new("POST", "/api/v1/publish").json(&late)).await;
    assert_eq!(reply.status, 202, "{reply:?}");
}
