//! `/api/v1`.

use axum::http::Method;
use serde_json::{Value, json};
use warren_engine::memory::Fault;
use warren_engine::message::HeaderValue;
use warren_testkit::wait::wait_until_async;

use super::client::{Ask, PATIENCE, Reply};
use super::subscriber::Subscriber;
use super::world::World;

async fn publish(world: &World, body: &Value) -> Reply {
    world.boss(Ask::new("POST", "/api/v1/publish").json(body)).await
}

fn problem(reply: &Reply, status: u16) -> Value {
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (status, Some("application/problem+json")),
        "{reply:?}"
    );
    let problem = reply.json();
    assert_eq!(problem["status"], status);
    assert!(problem["title"].is_string() && problem["detail"].is_string() && problem["type"].is_string());
    problem
}

#[tokio::test]
async fn a_message_has_every_property_and_typed_headers() {
    let world = World::start(false).await;
    world.bound("fx", "q").await;
    let properties = json!({
        "content_type": "a/b", "content_encoding": "gzip", "persistent": false, "priority": 7, "correlation_id": "c",
        "reply_to": "r", "expiration": "60000", "message_id": "m", "timestamp": 1_700_000_000, "type": "t",
        "user_id": "boss", "app_id": "a",
    });
    let reply = publish(
        &world,
        &json!({"exchange": "fx", "routing_key": "k", "body_base64": "AP8=", "properties": properties,
            "headers": {"n": 1, "b": {"$type": "uint8", "value": 255}, "l": [true, null]}}),
    )
    .await;
    assert_eq!((reply.status, reply.json()), (202, json!({"status": "accepted", "message_id": "m"})));
    let message = world.estate.host("/").queues.messages("q").remove(0);
    assert_eq!(&message.body[..], [0, 255]);
    let mut sent = serde_json::to_value(&message.properties).unwrap();
    sent.as_object_mut().unwrap().remove("headers");
    assert_eq!(sent, properties);
    assert_eq!(message.properties.headers.get("b"), Some(&HeaderValue::U8(255)));
    assert_eq!(message.properties.headers.get("n"), Some(&HeaderValue::I64(1)));
    let whole = Ask::new("POST", "/api/v1/publish")
        .body("application/json", r#"{"queue": "q", "json": {"a": 1.50}}"#);
    assert_eq!(world.boss(whole).await.status, 202);
    let message = world.estate.host("/").queues.messages("q").remove(1);
    assert_eq!(&message.body[..], br#"{"a":1.50}"#);
    assert_eq!(message.properties.content_type.as_deref(), Some("application/json"));
}

#[tokio::test]
async fn what_cannot_be_published_is_a_problem() {
    let world = World::start(false).await;
    world.queues(&["q"]);
    world.estate.host("/").declare_exchange("lonely", "fanout");
    assert_eq!(problem(&publish(&world, &json!({"exchange": "lonely"})).await, 422)["code"], "unroutable");
    assert_eq!(
        problem(&publish(&world, &json!({"exchange": "none"})).await, 404)["code"],
        "no-such-exchange"
    );
    assert_eq!(problem(&publish(&world, &json!({"queue": "none"})).await, 404)["code"], "no-such-queue");
    for body in [
        json!({"queue": "q", "exchange": "x"}),
        json!({"body": "x"}),
        json!({"queue": "q", "body": "x", "json": 1}),
        json!({"queue": "q", "body_base64": "%"}),
        json!({"queue": "q", "routing_key": "k"}),
        json!({"queue": "q", "nonsense": 1}),
        json!({"queue": "q", "properties": {"priority": 256}}),
        json!({"queue": "q", "properties": {"user_id": "other"}}),
        json!({"queue": "q", "properties": {"expiration": "soon"}}),
        json!({"queue": "q", "headers": {"h": {"$type": "int8", "value": 1000}}}),
        json!([]),
    ] {
        problem(&publish(&world, &body).await, 422);
    }
    let junk = world.boss(Ask::new("POST", "/api/v1/publish").body("application/json", "{")).await;
    problem(&junk, 400);
    problem(&world.boss(Ask::new("POST", "/api/v1/publish").body("text/plain", "{}")).await, 415);
    world.estate.host("/").queues.script([Some(Fault::Nack)]);
    let later = publish(&world, &json!({"queue": "q"})).await;
    problem(&later, 503);
    assert!(later.header("retry-after").is_some());
    assert!(world.estate.host("/").queues.messages("q").is_empty());
}

#[tokio::test]
async fn a_body_of_the_wrong_form_names_the_member_what_is_allowed_and_what_was_given() {
    let world = World::start(false).await;
    world.queues(&["q"]);
    let login = |password: Value| json!({"queue": "q", "callback": "c", "basic_auth": {"username": "u", "password": password}});
    for (method, target, body, pointer, detail) in [
        (
            "POST",
            "/publish",
            json!({"queue": "q", "properties": {"priority": 300}}),
            "/properties/priority",
            "`/properties/priority` must be an integer from 0 to 255, not 300",
        ),
        (
            "POST",
            "/publish",
            json!({"queue": "q", "properties": {"timestamp": -1.5}}),
            "/properties/timestamp",
            "`/properties/timestamp` must be an integer of at least 0 or null, not -1.5",
        ),
        (
            "POST",
            "/publish",
            json!({"queue": {"name": "q"}}),
            "/queue",
            "`/queue` must be a string or null, not an object",
        ),
        (
            "POST",
            "/publish",
            json!({"queue": "q", "vhost": null}),
            "/vhost",
            "`/vhost` must be a string, not null",
        ),
        (
            "POST",
            "/publish",
            json!({"queue": "q", "properties": {"proirity": 3}}),
            "/properties/proirity",
            "`/properties/proirity` is unknown; did you mean `priority`?",
        ),
        ("POST", "/publish", json!(["q"]), "", "the body must be an object, not a list"),
        (
            "POST",
            "/subscriptions",
            json!({"queue": "q"}),
            "/callback",
            "`/callback` is missing: give a string",
        ),
        (
            "POST",
            "/subscriptions",
            json!({"queue": "q", "callback": "c", "basic_auth": "u:geheim"}),
            "/basic_auth",
            "`/basic_auth` must be an object or null, not a string",
        ),
        (
            "POST",
            "/subscriptions",
            login(json!(4711)),
            "/basic_auth/password",
            "`/basic_auth/password` must be a string, not another type",
        ),
        (
            "POST",
            "/subscriptions",
            json!({"queue": "q", "callback": "c", "max_tps": -1}),
            "/max_tps",
            "`/max_tps` must be an integer from 0 to 4294967295, not -1",
        ),
        (
            "POST",
            "/subscriptions",
            json!({"queue": "q", "callback": "c", "contact": {"app_name": "a", "mail": "m"}}),
            "/contact/mail",
            "`/contact/mail` is unknown; did you mean `email`?",
        ),
        ("PUT", "/exchanges/%2F/x", json!({"type": 7}), "/type", "`/type` must be a string, not 7"),
        (
            "PATCH",
            "/subscriptions/0",
            json!({"state": "odd"}),
            "/state",
            "`/state` must be one of `active` or `inactive`, not `odd`",
        ),
    ] {
        let reply = world.boss(Ask::new(method, &format!("/api/v1{target}")).json(&body)).await;
        let told = problem(&reply, 422);
        assert_eq!(told["detail"], detail, "{body}");
        assert_eq!(told["errors"], json!([{"pointer": pointer, "detail": detail}]), "{body}");
    }
    let twice =
        Ask::new("POST", "/api/v1/publish").body("application/json", r#"{"queue": "q", "queue": "q"}"#);
    assert_eq!(problem(&world.boss(twice).await, 422)["detail"], "`queue` is given more than once");
    let batch = json!({"subscriptions": {}});
    let told = problem(&world.boss(Ask::new("POST", "/api/v1/import").json(&batch)).await, 400);
    assert_eq!(told["detail"], "`/subscriptions` must be a list, not an object");
    assert!(world.hub.all().is_empty() && world.estate.host("/").queues.messages("q").is_empty());
}

#[tokio::test]
async fn a_repetition_with_a_key_is_published_once() {
    let world = World::start(false).await;
    world.queues(&["q"]);
    let body = json!({"queue": "q", "body": "x"});
    let ask = |key: &str, body: &Value| {
        Ask::new("POST", "/api/v1/publish").header("idempotency-key", key).json(body)
    };
    // What came to nothing is tried again.
    world.estate.host("/").queues.script([Some(Fault::Nack)]);
    assert_eq!(world.boss(ask("k", &body)).await.status, 503);
    let first = world.boss(ask("k", &body)).await;
    let second = world.boss(ask("k", &body)).await;
    assert_eq!((first.status, first.text()), (202, second.text()));
    assert_eq!(world.estate.host("/").queues.messages("q").len(), 1);
    problem(&world.boss(ask("k", &json!({"queue": "q", "body": "other"}))).await, 422);
    problem(&world.boss(ask("", &body)).await, 400);
    // The key is the user's own, and RabbitHub's route has it too.
    let other = ask("k", &body).login("writer", "secret");
    assert_eq!(world.send(other).await.status, 202);
    let plain = || Ask::new("POST", "/endpoint/q/q").header("idempotency-key", "p").body("", "x");
    assert_eq!(world.boss(plain()).await.status, 202);
    assert_eq!(world.boss(plain()).await.status, 202);
    assert_eq!(world.estate.host("/").queues.messages("q").len(), 3);
    assert_eq!(world.boss(plain().header("content-type", "a/b")).await.status, 422);
}

#[tokio::test]
async fn a_subscription_from_beginning_to_end() {
    let subscriber = Subscriber::start().await;
    let world = World::start(false).await;
    world.queues(&["q"]);
    world.estate.host("/").declare_exchange("fx", "headers");
    let body = json!({
        "exchange": "fx", "topic": "t", "callback": subscriber.url("/agrees"), "verify": "sync", "lease_seconds": 600,
        "max_tps": 5, "max_in_flight": 3, "secret": "whsec_YWJj", "signing": "standard",
        "basic_auth": {"username": "u", "password": "p"}, "contact": {"app_name": "app"},
        "arguments": {"x-match": "any", "kind": "a"},
    });
    let made = world.boss(Ask::new("POST", "/api/v1/subscriptions").json(&body)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let shown = made.json();
    let id = shown["id"].as_str().unwrap();
    assert_eq!(
        made.header("location"),
        Some(format!("http://{}/api/v1/subscriptions/{id}", world.address).as_str())
    );
    for (name, value) in [
        ("exchange", json!("fx")),
        ("state", json!("active")),
        ("lease_seconds", json!(600)),
        ("max_tps", json!(5)),
        ("max_in_flight", json!(3)),
        ("secret", json!("***")),
        ("basic_auth", json!("***")),
        ("signing", json!("standard")),
        ("user", json!("boss")),
        ("arguments", json!({"x-match": "any", "kind": "a"})),
        ("errors", Value::Null),
    ] {
        assert_eq!(shown[name], value, "{name} of {shown}");
    }
    let asked = &subscriber.of(&Method::GET, "/agrees")[0];
    assert_eq!(asked.header("authorization"), Some("Basic dTpw"));
    let binding = world.estate.host("/").bindings().remove(0);
    assert_eq!(
        (binding.queue.as_str(), binding.routing_key.as_str()),
        (shown["own_queue"].as_str().unwrap(), "t")
    );
    assert_eq!(binding.arguments.get("kind"), Some(&HeaderValue::Text("a".to_owned())));

    let target = format!("/api/v1/subscriptions/{id}");
    assert_eq!(world.boss(Ask::new("GET", &target)).await.json(), shown);
    let stopped = world.boss(Ask::new("PATCH", &target).json(&json!({"state": "inactive"}))).await.json();
    assert_eq!(
        (&stopped["state"], &stopped["inactive_because"]),
        (&json!("inactive"), &json!("unsubscribed"))
    );
    let again = world.boss(Ask::new("PATCH", &target).json(&json!({"state": "active"}))).await;
    assert_eq!((again.status, &again.json()["state"]), (200, &json!("active")));
    problem(&world.boss(Ask::new("PATCH", &target).json(&json!({"state": "odd"}))).await, 422);
    assert_eq!(world.boss(Ask::new("DELETE", &target)).await.status, 204);
    problem(&world.boss(Ask::new("DELETE", &target)).await, 404);
    problem(&world.boss(Ask::new("GET", "/api/v1/subscriptions/x")).await, 404);

    let later = json!({"queue": "q", "callback": subscriber.url("/later")});
    let later = world.boss(Ask::new("POST", "/api/v1/subscriptions").json(&later)).await;
    assert_eq!((later.status, &later.json()["state"]), (202, &json!("pending")));
    subscriber.hears(Method::GET, "/later", 1).await;
    for (body, status) in [
        (json!({"queue": "none", "callback": subscriber.url("/agrees")}), 404),
        (json!({"queue": "q", "callback": "ftp://a/"}), 422),
        (json!({"queue": "q", "callback": subscriber.url("/refuses"), "verify": "sync"}), 422),
        (json!({"exchange": "fx", "callback": subscriber.url("/agrees")}), 422),
        (json!({"queue": "q", "callback": subscriber.url("/agrees"), "secret": "s".repeat(200)}), 422),
    ] {
        problem(&world.boss(Ask::new("POST", "/api/v1/subscriptions").json(&body)).await, status);
    }
}

#[tokio::test]
async fn subscriptions_come_in_pages_and_only_those_one_may_read() {
    let subscriber = Subscriber::start().await;
    let world = World::start(false).await;
    world.queues(&["a"]);
    world.estate.host("V").queues.declare("b");
    for (vhost, queue) in [("/", "a"), ("V", "b")] {
        for number in 0..3 {
            let body = json!({"vhost": vhost, "queue": queue, "topic": number.to_string(),
                "callback": subscriber.url("/agrees"), "verify": "sync"});
            let made = world.boss(Ask::new("POST", "/api/v1/subscriptions").json(&body)).await;
            assert_eq!(made.status, 201);
        }
    }
    let list = |user: &str, query: &str| {
        let ask = Ask::new("GET", &format!("/api/v1/subscriptions{query}")).login(user, "secret");
        async { world.send(ask).await.json() }
    };
    let count = |page: &Value| page["subscriptions"].as_array().unwrap().len();
    assert_eq!(count(&list("boss", "").await), 6);
    assert_eq!(count(&list("reader", "").await), 3, "none of V");
    assert_eq!(count(&list("nobody", "").await), 0);
    assert_eq!(count(&list("boss", "?vhost=V&queue=b&state=active").await), 3);
    let (mut after, mut seen) = (String::new(), 0);
    loop {
        let page = list("boss", &format!("?limit=4{after}")).await;
        seen += count(&page);
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, 6);
    for query in ["?limit=0", "?limit=x", "?state=odd", "?after=x"] {
        problem(&world.boss(Ask::new("GET", &format!("/api/v1/subscriptions{query}"))).await, 400);
    }
    // What is exported with its secrets can be imported elsewhere.
    let export = world.boss(Ask::new("GET", "/api/v1/export?reveal=true")).await;
    let other = World::start(false).await;
    other.queues(&["a"]);
    other.estate.host("V").queues.declare("b");
    let reply = other.boss(Ask::new("POST", "/api/v1/import").json(&export.json())).await;
    assert_eq!((reply.status, reply.json()["results"].as_array().unwrap().len()), (200, 6));
    assert_eq!(other.hub.all().len(), 6);
    problem(&other.boss(Ask::new("POST", "/api/v1/import").json(&json!(7))).await, 400);
}

#[tokio::test]
async fn queues_and_exchanges() {
    let world = World::start(false).await;
    let ask = |method: &str, target: &str| Ask::new(method, &format!("/api/v1{target}"));
    assert_eq!(world.boss(ask("PUT", "/queues/%2F/a%2Fb")).await.status, 201);
    assert_eq!(world.boss(ask("PUT", "/queues/%2F/a%2Fb")).await.status, 204);
    let shown = world.boss(ask("GET", "/queues/%2F/a%2Fb")).await;
    assert_eq!(shown.json(), json!({"vhost": "/", "name": "a/b"}));
    assert_eq!(world.boss(ask("DELETE", "/queues/%2F/a%2Fb")).await.status, 204);
    problem(&world.boss(ask("DELETE", "/queues/%2F/a%2Fb")).await, 404);
    problem(&world.boss(ask("GET", "/queues/%2F/a%2Fb")).await, 404);
    let kind = |kind: &str| ask("PUT", "/exchanges/V/x").json(&json!({"type": kind}));
    assert_eq!(world.boss(kind("topic")).await.status, 201);
    assert_eq!(world.boss(kind("topic")).await.status, 204);
    problem(&world.boss(kind("fanout")).await, 409);
    problem(&world.boss(kind("nosuch")).await, 400);
    problem(&world.boss(ask("PUT", "/exchanges/V/amq.x").json(&json!({"type": "topic"}))).await, 422);
    assert_eq!(world.boss(ask("GET", "/exchanges/V/x")).await.json()["type"], "topic");
    problem(&world.boss(ask("DELETE", "/exchanges/V/")).await, 403);
    assert_eq!(world.boss(ask("DELETE", "/exchanges/V/x")).await.status, 204);
}

#[tokio::test]
async fn a_subscription_without_its_queue_is_shown_as_waiting_until_the_queue_is_there_again() {
    let subscriber = Subscriber::start().await;
    for compat in [false, true] {
        let mut world = World::start(compat).await;
        world.queues(&["gone", "there"]);
        world.deliver();
        for queue in ["gone", "there"] {
            let body = json!({"queue": queue, "callback": subscriber.url("/agrees"), "verify": "sync"});
            let made = world.boss(Ask::new("POST", "/api/v1/subscriptions").json(&body)).await;
            assert_eq!(made.status, 201, "{made:?}");
        }
        let listed = async |state: &str| {
            let reply = world.boss(Ask::new("GET", &format!("/api/v1/subscriptions?state={state}"))).await;
            let page = reply.json();
            let queues = page["subscriptions"].as_array().unwrap().iter();
            queues.map(|one| one["queue"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let until = async |state: &str, count: usize| {
            wait_until_async(state, PATIENCE, async || listed(state).await.len() == count).await;
        };
        world.estate.host("/").queues.delete("gone");
        until("waiting", 1).await;
        assert_eq!(
            (listed("waiting").await, listed("active").await),
            (vec!["gone".into()], vec!["there".into()])
        );
        let page = world.boss(Ask::new("GET", "/api/v1/subscriptions?queue=gone")).await.json();
        let one = &page["subscriptions"][0];
        assert_eq!(one["state"], "waiting");
        let because = "cannot consume from queue `gone` (no-such-queue)";
        assert_eq!(one["waiting_because"], because);
        for target in ["/subscriptions", "/api/v1/export"] {
            let exported = world.boss(Ask::new("GET", target)).await.json();
            let entry = &exported["subscriptions"][0];
            assert_eq!(entry["status"], if compat { "active" } else { "waiting" });
            assert_eq!(entry["waiting_because"], because);
            assert_eq!(exported["subscriptions"][1]["status"], "active");
            // It is active when it is imported.
            let imported = world.boss(Ask::new("POST", "/api/v1/import").json(&exported)).await.json();
            let status = |at: usize| imported["results"][at]["status"]["consumers"][0]["status"].clone();
            assert_eq!(status(1), "ok");
            assert!(
                status(0).as_str().unwrap().contains("not_found"),
                "its callback is asked, its queue looked for"
            );
        }
        world.queues(&["gone"]);
        until("active", 2).await;
        let page = world.boss(Ask::new("GET", "/api/v1/subscriptions?queue=gone")).await.json();
        assert!(page["subscriptions"][0]["waiting_because"].is_null());
        assert_eq!(world.boss(Ask::new("GET", "/api/v1/subscriptions?state=odd")).await.status, 400);
    }
}
