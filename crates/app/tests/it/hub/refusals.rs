//! Requests that are refused before anything is sent or stored: encoded paths, secrets, headers, numbers, statuses.

use axum::http::Method;
use serde_json::{Value, json};
use warren_engine::statuses::Statuses;

use super::client::{Ask, Reply};
use super::subscriber::Subscriber;
use super::world::{World, escaped};

const FORM: &str = "hub.mode=subscribe&hub.verify=sync&hub.topic=t&hub.callback=";

/// Paths below a prefix that servers read as a parent of it.
const LEAVING: [&str; 12] = [
    "..%2fadmin",
    "..%2Fadmin",
    "..%5cadmin",
    "%2e%2e%2fadmin",
    ".%2e/admin",
    "../admin",
    "..%252fadmin",
    "%252e%252e/admin",
    "..;/admin",
    "..%00/admin",
    "%ef%bc%8e%ef%bc%8e/admin",
    "a//..%2f..%2fadmin",
];

async fn form(world: &World, body: &str) -> (u16, String) {
    world.boss(Ask::new("POST", "/subscribe/q/q").form(body)).await.said()
}

fn export(callback: &str, more: &Value) -> Value {
    let mut entry = json!({"vhost": "/", "resource_type": "queue", "resource_name": "q", "topic": "t", "callback": callback});
    for (name, value) in more.as_object().unwrap() {
        entry[name] = value.clone();
    }
    json!({ "subscriptions": [entry] })
}

async fn import(world: &World, batch: &Value) -> String {
    let reply = world.boss(Ask::new("POST", "/subscriptions").json(batch)).await;
    assert_eq!(reply.status, 202);
    reply.json()["rabbithub_batch_results"][0]["status"]["consumers"][0]["status"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn a_callback_that_leaves_an_allowed_prefix_is_never_called() {
    let subscriber = Subscriber::start().await;
    let world =
        World::with(false, |settings| settings.allow_callbacks = vec![subscriber.url("/hooks/")]).await;
    world.queues(&["q"]);
    for rest in LEAVING {
        let callback = subscriber.url(&format!("/hooks/{rest}"));
        let said = form(&world, &format!("{FORM}{}", escaped(&callback))).await;
        assert_eq!(said.0, 400, "{rest}: {said:?}");
        let asked = json!({"queue": "q", "topic": "t", "callback": callback, "verify": "sync"});
        let reply = world.boss(Ask::new("POST", "/api/v1/subscriptions").json(&asked)).await;
        assert_eq!(reply.status, 422, "{rest}");
        assert!(import(&world, &export(&callback, &json!({}))).await.starts_with("{error,"), "{rest}");
        let later = json!({"queue": "q", "topic": "t", "callback": callback});
        let reply = world.boss(Ask::new("POST", "/api/v1/subscriptions").json(&later)).await;
        assert_eq!(reply.status, 202, "{rest}: asked later, and refused then");
    }
    assert_eq!(form(&world, &format!("{FORM}{}", escaped(&subscriber.url("/hooks/a%2fb")))).await.0, 204);
    let asked: Vec<String> = subscriber.heard().into_iter().map(|heard| heard.path).collect();
    assert_eq!(asked, ["/hooks/a%2fb"]);
    assert_eq!(world.hub.all().len(), 1);
}

#[tokio::test]
async fn a_subscription_whose_callback_leaves_the_prefix_by_now_is_not_called() {
    let subscriber = Subscriber::start().await;
    let mut world =
        World::with(false, |settings| settings.allow_callbacks = vec![subscriber.url("/hooks/")]).await;
    world.queues(&["q"]);
    // An inactive entry is imported without asking its callback, and an administrator can activate it.
    let callback = subscriber.url("/hooks/..%2fadmin");
    assert_eq!(import(&world, &export(&callback, &json!({"status": "inactive"}))).await, "ok");
    let id = world.hub.all()[0].id();
    let target = format!("/api/v1/subscriptions/{id}");
    assert_eq!(world.boss(Ask::new("PATCH", &target).json(&json!({"state": "active"}))).await.status, 200);
    world.deliver();
    let publish = Ask::new("POST", "/endpoint/q/q").body("", "x");
    assert_eq!(world.boss(publish).await.status, 202);
    warren_testkit::wait::wait_until_async("the delivery fails", super::client::PATIENCE, async || {
        world.hub.by_id(id).unwrap().errors.count > 0
    })
    .await;
    // Renewing and unsubscribing ask it, so both are refused; DELETE does not.
    let body = format!("{FORM}{}", escaped(&callback));
    assert_eq!(form(&world, &body).await.0, 400);
    assert_eq!(form(&world, &body.replace("=subscribe", "=unsubscribe")).await.0, 400);
    assert!(subscriber.heard().is_empty(), "{:?}", subscriber.heard());
    assert_eq!(world.boss(Ask::new("DELETE", &target)).await.status, 204);
}

#[tokio::test]
async fn a_topic_that_leaves_a_served_prefix_is_denied() {
    let subscriber = Subscriber::start().await;
    let world = World::with(false, |settings| {
        settings.websub.as_mut().unwrap().topics = vec![subscriber.url("/feeds/")];
    })
    .await;
    for (number, rest) in LEAVING.into_iter().enumerate() {
        let (path, topic) = (format!("/cb{number}"), subscriber.url(&format!("/feeds/{rest}")));
        let body = format!(
            "hub.mode=subscribe&hub.topic={}&hub.callback={}",
            escaped(&topic),
            escaped(&subscriber.url(&path))
        );
        assert_eq!(world.send(Ask::new("POST", "/hub").form(&body)).await.status, 202, "{rest}");
        let told = subscriber.hears(Method::GET, &path, 1).await.remove(0);
        assert_eq!(told.parameter("hub.mode").as_deref(), Some("denied"), "{rest}");
        let mut entry = export(&subscriber.url(&path), &json!({"protocol": "websub"}));
        entry["subscriptions"][0]["topic"] = topic.into();
        entry["subscriptions"][0]["resource_type"] = "exchange".into();
        entry["subscriptions"][0]["resource_name"] = "warren.websub".into();
        assert!(import(&world, &entry).await.starts_with("{error,topic: "), "{rest}");
    }
    assert!(world.hub.all().is_empty());
}

const GOOD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[tokio::test]
async fn a_secret_that_is_none_of_standard_webhooks_is_refused_on_every_route() {
    let subscriber = Subscriber::start().await;
    let callback = subscriber.url("/agrees");
    for compat in [true, false] {
        let world = World::start(compat).await;
        world.queues(&["q"]);
        let bad = [
            Some("whsec_"),
            Some("whsec_!!!"),
            Some("whsec_YWJj\n"),
            Some("whsec_YWJj "),
            Some(" whsec_YWJj"),
            Some("whsec_YQ"),
            Some("whsec_-_-_"),
            Some("WHSEC_YWJj"),
            Some("v1,whsec_YWJj"),
            Some("plain"),
            None,
        ];
        for secret in bad {
            let given = secret.map_or(String::new(), |secret| format!("&hub.secret={}", escaped(secret)));
            let said =
                form(&world, &format!("{FORM}{}&hub.signing=standard{given}", escaped(&callback))).await;
            assert!(
                said.0 == 400 && said.1.contains("`whsec_` followed by the base64"),
                "{secret:?}: {said:?}"
            );
            let fields = json!({"hub": {"mode": "subscribe", "verify": "sync", "topic": "t", "callback": callback,
                "signing": "standard", "secret": secret}});
            let reply = world.boss(Ask::new("POST", "/subscribe/q/q").json(&fields)).await;
            assert_eq!(reply.status, 400, "{secret:?}");
            let asked = json!({"queue": "q", "topic": "t", "callback": callback, "verify": "sync", "signing": "standard",
                "secret": secret});
            let reply = world.boss(Ask::new("POST", "/api/v1/subscriptions").json(&asked)).await;
            assert_eq!(reply.status, 400, "{secret:?}: {reply:?}");
            for status in ["active", "inactive"] {
                let entry = json!({"signing": "standard", "secret": secret, "status": status});
                let said = import(&world, &export(&callback, &entry)).await;
                assert!(said.starts_with("{error,secret: "), "{secret:?}: {said}");
            }
        }
        assert!(world.hub.all().is_empty() && subscriber.heard().is_empty(), "nothing was asked or stored");
        let good = format!("{FORM}{}&hub.signing=standard&hub.secret={GOOD_SECRET}", escaped(&callback));
        assert_eq!(form(&world, &good).await.0, 204);
        subscriber.forget();
    }
}

#[tokio::test]
async fn signing_and_secret_are_changed_together_or_not_at_all() {
    let subscriber = Subscriber::start().await;
    let callback = subscriber.url("/agrees");
    let world = World::start(false).await;
    world.queues(&["q"]);
    assert_eq!(form(&world, &format!("{FORM}{}&hub.secret=plain", escaped(&callback))).await.0, 204);
    let target = format!("/api/v1/subscriptions/{}", world.hub.all()[0].id());
    let patch = async |body: Value| world.boss(Ask::new("PATCH", &target).json(&body)).await;
    let now = || {
        let one = world.hub.all().remove(0);
        (json!(one.signing), one.secret.as_ref().map(|secret| secret.0.clone()))
    };
    for body in [
        json!({"signing": "standard"}),
        json!({"signing": "standard", "secret": null}),
        json!({"signing": "standard", "secret": "whsec_"}),
        json!({"signing": "standard", "secret": "whsec_!!!", "state": "inactive"}),
    ] {
        let reply = patch(body.clone()).await;
        assert_eq!(reply.status, 400, "{body}: {reply:?}");
        assert_eq!(now(), (json!("sha256"), Some("plain".to_owned())), "{body}");
    }
    assert!(world.hub.all()[0].is_active());
    // A renewal that changes the way of signing and leaves the secret out has none.
    let renewal = format!("{FORM}{}&hub.signing=standard", escaped(&callback));
    assert_eq!(form(&world, &renewal).await.0, 400);
    assert_eq!(patch(json!({"signing": "standard", "secret": GOOD_SECRET})).await.status, 200);
    assert_eq!(now(), (json!("standard"), Some(GOOD_SECRET.to_owned())));
    assert_eq!(patch(json!({"secret": "plain"})).await.status, 400);
    assert_eq!(patch(json!({"secret": null})).await.status, 400);
    assert_eq!(patch(json!({"signing": "sha512"})).await.status, 200);
    assert_eq!(patch(json!({"signing": "md5"})).await.status, 422);
    assert_eq!(patch(json!({"secret": null})).await.json()["secret"], Value::Null);
    // An import that keeps the secret of the subscription that is there changes the way of signing, too.
    assert_eq!(patch(json!({"secret": "plain"})).await.status, 200);
    let keeps = export(&callback, &json!({"signing": "standard", "secret": "***"}));
    assert!(import(&world, &keeps).await.starts_with("{error,secret: "));
    assert_eq!(now(), (json!("sha512"), Some("plain".to_owned())));
}

async fn publish(world: &World, body: &str) -> Reply {
    world.boss(Ask::new("POST", "/api/v1/publish").body("application/json", body)).await
}

#[tokio::test]
async fn publishers_cannot_set_headers_of_warren_or_of_the_broker() {
    let world = World::start(false).await;
    world.bound("fx", "q").await;
    let reserved = [
        "x-warren-attempt",
        "X-Warren-Attempts",
        "x-warren-hub-topic",
        "x-death",
        "X-DEATH",
        "x-first-death-queue",
        "x-last-death-reason",
        "x-delivery-count",
        "x-acquired-count",
        "CC",
        "bcc",
    ];
    for name in reserved {
        for (route, value) in [
            (r#""queue": "q""#, "9"),
            (r#""exchange": "fx", "routing_key": "k""#, r#"{"$type": "int32", "value": 9}"#),
            (r#""queue": "q""#, r#"[{"count": 9, "queue": "q", "reason": "rejected"}]"#),
        ] {
            let reply =
                publish(&world, &format!(r#"{{{route}, "headers": {{"a": 1, "{name}": {value}}}}}"#)).await;
            assert_eq!(reply.status, 422, "{name}: {reply:?}");
            assert!(reply.json()["detail"].as_str().unwrap().contains(name), "{reply:?}");
        }
    }
    assert!(world.estate.host("/").queues.messages("q").is_empty());
    // What a subscription delivers may be posted to an endpoint: there they are dropped.
    let ask = Ask::new("POST", "/endpoint/x/fx")
        .header("x-rabbithub-msg_header", "a = 1, x-warren-attempt = 9, X-Death = 9, x-delivery-count = 9");
    assert_eq!(world.boss(ask).await.status, 202);
    let headers = world.estate.host("/").queues.messages("q").remove(0).properties.headers;
    assert_eq!(headers.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a"]);
    for name in ["CC", "Cc", "BCC", "bcc"] {
        let ask =
            Ask::new("POST", "/endpoint/x/fx").header("x-rabbithub-msg_header", &format!("{name} = other"));
        assert_eq!(world.boss(ask).await.status, 400, "{name}");
    }
}

#[tokio::test]
async fn numbers_that_amqp_cannot_hold_are_422_and_nothing_is_sent() {
    let subscriber = Subscriber::start().await;
    let world = World::start(false).await;
    world.queues(&["q"]);
    world.estate.host("/").declare_exchange("hx", "headers");
    for number in [
        r#"{"$type": "float", "value": 1e300}"#,
        r#"{"$type": "float", "value": -1e300}"#,
        r#"{"$type": "float", "value": 1e400}"#,
        r#"{"$type": "double", "value": 1e400}"#,
        r#"{"$type": "double", "value": "NaN"}"#,
        "1e400",
        "-1e400",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775809",
    ] {
        for value in [number.to_owned(), format!("[{number}]"), format!(r#"{{"t": [{{"u": {number}}}]}}"#)] {
            let reply = publish(&world, &format!(r#"{{"queue": "q", "headers": {{"a": {value}}}}}"#)).await;
            assert_eq!(reply.status, 422, "{value}: {reply:?}");
            let body = format!(
                r#"{{"exchange": "hx", "topic": "t", "verify": "sync", "callback": "{}", "arguments": {{"a": {value}}}}}"#,
                subscriber.url("/agrees")
            );
            let ask = Ask::new("POST", "/api/v1/subscriptions").body("application/json", body);
            assert_eq!(world.boss(ask).await.status, 422, "{value}");
            let body = format!(
                "{FORM}{}&hub.arguments={}",
                escaped(&subscriber.url("/agrees")),
                escaped(&format!(r#"{{"a": {value}}}"#))
            );
            let said = world.boss(Ask::new("POST", "/subscribe/x/hx").form(&body)).await.said();
            assert!(said.0 == 400 && said.1.starts_with("Bad hub.arguments: "), "{value}: {said:?}");
        }
    }
    assert!(world.estate.host("/").queues.messages("q").is_empty());
    assert!(world.hub.all().is_empty() && world.estate.host("/").bindings().is_empty());
    let fits =
        r#"{"queue": "q", "headers": {"a": 9223372036854775807, "b": {"$type": "float", "value": 3.4e38}}}"#;
    assert_eq!(publish(&world, fits).await.status, 202);
    for properties in [
        r#"{"expiration": "4294967296"}"#,
        r#"{"expiration": "-1"}"#,
        r#"{"reply_to": "amq.rabbitmq.reply-to"}"#,
    ] {
        let reply = publish(&world, &format!(r#"{{"queue": "q", "properties": {properties}}}"#)).await;
        assert_eq!(reply.status, 422, "{properties}");
    }
}

#[tokio::test]
async fn final_statuses_are_taken_shown_changed_exported_and_imported() {
    let subscriber = Subscriber::start().await;
    let callback = subscriber.url("/agrees");
    let world = World::start(false).await;
    world.queues(&["q"]);
    let held = || world.hub.all()[0].final_statuses.clone();
    let own = |text: &str| Some(Statuses::parse(text).unwrap());
    let subscribe = async |more: &str| form(&world, &format!("{FORM}{}{more}", escaped(&callback))).await;
    assert_eq!(subscribe("&hub.final_statuses=422,400-404").await.0, 204);
    assert_eq!(held(), own("400-404, 422"));
    let target = format!("/api/v1/subscriptions/{}", world.hub.all()[0].id());
    assert_eq!(world.boss(Ask::new("GET", &target)).await.json()["final_statuses"], json!(["400-404", 422]));
    for (more, expected) in
        [("", None), ("&hub.final_statuses=none", own("none")), ("&hub.final_statuses=5xx", own("5xx"))]
    {
        assert_eq!(subscribe(more).await.0, 204);
        assert_eq!(held(), expected, "{more}");
    }
    for bad in ["200", "2xx", "4x", "99", "600", "404;x", "404,", "100-599"] {
        let said = subscribe(&format!("&hub.final_statuses={}", escaped(bad))).await;
        assert!(said.0 == 400 && said.1.starts_with("Bad hub.final_statuses: "), "{bad}: {said:?}");
    }
    let patch = async |body: Value| world.boss(Ask::new("PATCH", &target).json(&body)).await;
    assert_eq!(
        patch(json!({"final_statuses": ["4xx", 503]})).await.json()["final_statuses"],
        json!(["4xx", 503])
    );
    for bad in
        [json!({"final_statuses": [200]}), json!({"final_statuses": {}}), json!({"final_statuses": [true]})]
    {
        assert_eq!(patch(bad.clone()).await.status, 422, "{bad}");
    }
    let exported = world.boss(Ask::new("GET", "/subscriptions")).await.json();
    assert_eq!(exported["subscriptions"][0]["final_statuses"], json!(["4xx", 503]));
    assert_eq!(patch(json!({"final_statuses": null})).await.json()["final_statuses"], Value::Null);
    assert_eq!(import(&world, &exported).await, "ok");
    assert_eq!(held(), own("4xx, 503"));
    let fields = json!({"hub": {"mode": "subscribe", "verify": "sync", "topic": "t", "callback": callback, "final_statuses": [404]}});
    assert_eq!(world.boss(Ask::new("POST", "/subscribe/q/q").json(&fields)).await.status, 204);
    assert_eq!(held(), own("404"));
    let asked =
        json!({"queue": "q", "topic": "t", "callback": callback, "verify": "sync", "final_statuses": "409"});
    let made = world.boss(Ask::new("POST", "/api/v1/subscriptions").json(&asked)).await;
    assert_eq!((made.status, &made.json()["final_statuses"]), (201, &json!([409])));
    let described = world.boss(Ask::new("GET", "/subscribe/q/q")).await.text();
    assert!(described.contains("hub.final_statuses"), "{described}");
}
