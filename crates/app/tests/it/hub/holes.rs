//! The security holes that RabbitHub is known to have (reference, 6.1), each closed.

use std::sync::Arc;

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use warren_engine::pipeline::outside::Hidden;

use super::client::Ask;
use super::subscriber::Subscriber;
use super::world::{World, escaped};

const FORM: &str = "hub.mode=subscribe&hub.verify=sync&hub.topic=t&hub.callback=";

#[tokio::test]
async fn hole_1_a_missing_mode_is_no_endless_loop() {
    for compat in [true, false] {
        let world = World::start(compat).await;
        for body in ["", "hub.topic=t", "hub.callback=http%3A%2F%2Fa%2F&hub.topic=t&hub.verify=sync"] {
            let reply = world.send(Ask::new("POST", "/subscribe/q/foo").form(body)).await;
            assert_eq!(reply.said(), (400, "Missing required parameter".to_owned()));
        }
        let reply = world.send(Ask::new("POST", "/subscribe/q/foo").json(&json!({"hub": {}}))).await;
        assert_eq!(reply.said(), (400, "Missing required parameter".to_owned()));
    }
}

#[tokio::test]
async fn hole_2_a_callback_leads_to_no_private_address_and_the_answer_does_not_tell_what_is_there() {
    let subscriber = Subscriber::start().await;
    let world = World::with(true, |settings| settings.allow_callbacks.clear()).await;
    world.queues(&["foo"]);
    let ask = async |callback: &str| {
        let form = format!("{FORM}{}", escaped(callback));
        world.boss(Ask::new("POST", "/subscribe/q/foo").form(&form)).await.said()
    };
    // Addresses: which are allowed is no secret, and that is all that is said.
    let listens = ask(&subscriber.url("/agrees")).await;
    assert!(listens.0 == 400 && listens.1.contains("`allow_callbacks` does not name it"), "{listens:?}");
    for silent in [
        "http://127.0.0.1:1/",
        "http://[::ffff:127.0.0.1]:1/",
        "http://169.254.169.254/latest",
        "http://[::1]/",
    ] {
        assert_eq!(ask(silent).await, listens, "{silent}");
    }
    // Names: what they lead to is not told, not even whether there is such a name.
    let port = subscriber.address.port();
    for name in [
        format!("http://localhost:{port}/"),
        "http://localhost:1/".to_owned(),
        "http://nosuchhost.invalid/".to_owned(),
    ] {
        let failed = (400, "Request verification failed: failed_connect".to_owned());
        assert_eq!(ask(&name).await, failed, "{name}");
    }
    assert!(subscriber.heard().is_empty());
}

#[tokio::test]
async fn hole_2_redirects_are_not_followed() {
    let subscriber = Subscriber::start().await;
    let world = World::start(true).await;
    world.queues(&["foo"]);
    let body = format!("{FORM}{}", escaped(&subscriber.url("/redirects")));
    let reply = world.boss(Ask::new("POST", "/subscribe/q/foo").form(&body)).await;
    assert_eq!(reply.said(), (400, "Request verification failed: {request_status,302}".to_owned()));
    assert!(subscriber.of(&Method::GET, "/agrees").is_empty());
}

#[tokio::test]
async fn hole_3_a_secret_is_taken_and_shown_to_nobody_who_does_not_ask() {
    let subscriber = Subscriber::start().await;
    let world = World::start(true).await;
    world.queues(&["foo"]);
    let body = format!("{FORM}{}&hub.secret=s3cret&hub.basic_auth=dTpw", escaped(&subscriber.url("/agrees")));
    assert_eq!(world.boss(Ask::new("POST", "/subscribe/q/foo").form(&body)).await.status, 204);
    assert_eq!(world.hub.all()[0].secret, Some(Hidden("s3cret".to_owned())));
    for target in ["/subscriptions", "/api/v1/subscriptions", "/api/v1/export"] {
        let (status, text) = world.said("GET", target).await;
        assert_eq!(status, 200);
        assert!(
            text.contains("***") && !text.contains("s3cret") && !text.contains("dTpw"),
            "{target}: {text}"
        );
    }
    let id = world.hub.all()[0].id();
    let ask = |user: &str| {
        let ask = Ask::new("GET", &format!("/api/v1/subscriptions/{id}?reveal=true")).login(user, "secret");
        async { world.send(ask).await.text() }
    };
    assert!(ask("boss").await.contains("s3cret"));
    assert!(!ask("reader").await.contains("s3cret"), "no administrator");
}

#[tokio::test]
async fn hole_4_unsubscribing_needs_read() {
    let subscriber = Subscriber::start().await;
    for compat in [true, false] {
        let world = World::with(compat, |settings| settings.validate_callback_on_unsubscribe = false).await;
        world.queues(&["foo"]);
        let body = format!("{FORM}{}", escaped(&subscriber.url("/agrees")));
        assert_eq!(world.boss(Ask::new("POST", "/subscribe/q/foo").form(&body)).await.status, 204);
        let ask = || Ask::new("POST", "/subscribe/q/foo").form(&body.replace("subscribe&", "unsubscribe&"));
        assert_eq!(world.send(ask()).await.status, 401);
        for user in ["writer", "maker", "nobody"] {
            assert_eq!(world.send(ask().login(user, "secret")).await.status, 403, "{user}");
        }
        assert!(world.hub.all()[0].is_active());
        assert_eq!(world.send(ask().login("reader", "secret")).await.status, 204);
        assert!(!world.hub.all()[0].is_active());
    }
}

#[tokio::test]
async fn hole_4_a_default_user_may_what_that_user_may_and_is_off_unless_set() {
    let world = World::with(true, |settings| settings.default_username = Some("reader".to_owned())).await;
    world.queues(&["foo"]);
    assert_eq!(world.send(Ask::new("GET", "/endpoint/q/foo")).await.status, 200);
    assert_eq!(world.send(Ask::new("POST", "/endpoint/q/foo")).await.status, 403);
    assert_eq!(world.send(Ask::new("GET", "/subscriptions")).await.status, 403);
    // A wrong login does not become the default user.
    assert_eq!(world.send(Ask::new("GET", "/endpoint/q/foo").login("reader", "wrong")).await.status, 403);
}

#[tokio::test]
async fn hole_5_strangers_learn_of_no_names_and_get_no_echo() {
    for compat in [true, false] {
        let world = World::start(compat).await;
        world.queues(&["foo"]);
        for facet in ["endpoint", "subscribe"] {
            for name in ["foo", "none"] {
                let reply = world.send(Ask::new("GET", &format!("/{facet}/q/{name}"))).await;
                assert_eq!(reply.said(), (401, "Authentication required.".to_owned()));
                let ask = Ask::new("GET", &format!("/{facet}/q/{name}")).login("nobody", "secret");
                assert_eq!(world.send(ask).await.said(), (403, "Forbidden".to_owned()));
            }
            let ask = Ask::new("GET", &format!("/{facet}/q/foo")).login("reader", "secret");
            let reply = world.send(ask).await;
            assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/xml")));
            assert!(reply.text().contains("<class>amqp.queue</class>"));
        }
        for target in ["/endpoint/errors/marker", "/endpoint//marker"] {
            let reply = world.send(Ask::new("GET", target)).await;
            assert_eq!(reply.said(), (404, "Not found.".to_owned()));
        }
        let reply = world.boss(Ask::new("POST", "/subscriptions/q/marker").body("", "marker")).await;
        assert!(reply.status >= 400 && !reply.text().contains("marker"), "{reply:?}");
    }
}

#[tokio::test]
async fn hole_7_nothing_of_others_becomes_markup_and_no_host_is_believed() {
    let world = World::start(true).await;
    let name = "%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    let made =
        world.boss(Ask::new("PUT", &format!("/endpoint/q/{name}")).header("host", "evil.example")).await;
    assert_eq!(made.status, 201);
    assert!(!made.header("location").unwrap().contains("evil"), "{made:?}");
    let reply = world.boss(Ask::new("GET", &format!("/endpoint/q/{name}"))).await;
    assert!(
        !reply.text().contains("<script>") && reply.text().contains("&lt;script&gt;"),
        "{}",
        reply.text()
    );
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert!(reply.header("content-security-policy").unwrap().contains("default-src 'none'"));
}

#[tokio::test]
async fn hole_8_tokens_tell_nothing_and_challenges_differ() {
    let subscriber = Subscriber::start().await;
    let (world, other) = (World::start(true).await, World::start(true).await);
    for world in [&world, &other] {
        world.queues(&["confidential"]);
    }
    let target = "/endpoint/q/confidential?hub.mode=generate_token&hub.intended_use=subscribe";
    let text = world.boss(Ask::new("GET", target)).await.text();
    let token = text.strip_prefix("hub.verify_token=").unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(token).unwrap();
    assert!(!bytes.windows(12).any(|window| window == b"confidential"));
    let check =
        format!("/endpoint/q/confidential?hub.mode=subscribe&hub.challenge=c&hub.verify_token={token}");
    assert_eq!(world.send(Ask::new("GET", &check)).await.status, 200);
    assert_eq!(other.send(Ask::new("GET", &check)).await.status, 400, "made with another key");
    let body = format!("{FORM}{}", escaped(&subscriber.url("/agrees")));
    for _ in 0..2 {
        assert_eq!(world.boss(Ask::new("POST", "/subscribe/q/confidential").form(&body)).await.status, 204);
    }
    let challenges: Vec<_> =
        subscriber.heard().iter().map(|heard| heard.parameter("hub.challenge")).collect();
    assert!(challenges[0] != challenges[1] && challenges[0].as_ref().unwrap().len() >= 22, "{challenges:?}");
}

#[tokio::test]
async fn hole_9_json_injects_no_parameters() {
    let subscriber = Subscriber::start().await;
    let world = World::start(true).await;
    world.queues(&["foo"]);
    let callback = subscriber.url("/agrees?x=1&hub.topic=evil&hub.lease_seconds=1");
    let body = json!({"hub": {"callback": callback, "topic": "a&hub.max_tps=9#%2B+", "mode": "subscribe",
        "verify": "sync", "ha_mode": 1}});
    let reply = world.boss(Ask::new("POST", "/subscribe/q/foo").json(&body)).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let all = world.hub.all();
    let one = Arc::clone(&all[0]);
    assert_eq!(
        (one.key.callback.as_str(), one.key.topic.as_str()),
        (callback.as_str(), "a&hub.max_tps=9#%2B+")
    );
    assert_eq!((one.max_tps, one.lease_seconds), (0, 2_592_000));
}

#[tokio::test]
async fn hole_10_headers_lead_past_no_permission_and_bring_no_lines() {
    let subscriber = Subscriber::start().await;
    let world = World::start(false).await;
    world.bound("fx", "q").await;
    world.queues(&["other"]);
    let ask = Ask::new("POST", "/endpoint/x/fx").header("x-rabbithub-msg_header", "CC = other");
    assert_eq!(world.boss(ask).await.status, 400);
    let ask = json!({"exchange": "fx", "body": "x", "headers": {"BCC": ["other"]}});
    assert_eq!(world.boss(Ask::new("POST", "/api/v1/publish").json(&ask)).await.status, 422);
    let body = format!("{FORM}{}&hub.basic_auth=a%0d%0aX-Evil%3A1", escaped(&subscriber.url("/agrees")));
    assert_eq!(world.boss(Ask::new("POST", "/subscribe/q/q").form(&body)).await.status, 400);
    let body = format!("{FORM}{}", escaped("file:///etc/passwd"));
    assert_eq!(world.boss(Ask::new("POST", "/subscribe/q/q").form(&body)).await.status, 400);
    assert!(subscriber.heard().is_empty() && world.estate.host("/").queues.messages("q").is_empty());
}

#[tokio::test]
async fn hole_10_a_user_and_a_host_have_no_more_than_they_may() {
    let subscriber = Subscriber::start().await;
    for compat in [true, false] {
        let world = World::with(compat, |settings| settings.subscriptions_per_user_max = 1).await;
        world.queues(&["foo"]);
        let form = |path: &str| format!("{FORM}{}", escaped(&subscriber.url(path)));
        let ask = |path: &str| Ask::new("POST", "/subscribe/q/foo").form(&form(path));
        assert_eq!(world.boss(ask("/agrees")).await.status, 204);
        assert_eq!(world.boss(ask("/agrees")).await.status, 204, "renewed");
        let plain =
            (403, "cannot take another subscription of user `boss` (too-many-subscriptions)".to_owned());
        assert_eq!(world.boss(ask("/other")).await.said(), plain);
        let body = json!({"queue": "foo", "callback": subscriber.url("/other"), "verify": "sync"});
        let reply = world.boss(Ask::new("POST", "/api/v1/subscriptions").json(&body)).await;
        assert_eq!(
            (reply.status, &reply.json()["code"]),
            (403, &json!("too-many-subscriptions")),
            "{reply:?}"
        );
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        assert_eq!(world.send(ask("/other").login("reader", "secret")).await.status, 204);
        // An import brings back what an export had.
        let entry = |path: &str| {
            json!({"vhost": "/", "resource_type": "queue", "resource_name": "foo", "topic": "t",
                "callback": subscriber.url(path), "user": "boss"})
        };
        let batch = json!({"subscriptions": [entry("/1"), entry("/2"), entry("/3")]});
        let reply = world.boss(Ask::new("POST", "/subscriptions").json(&batch)).await;
        assert_eq!((reply.status, reply.text().matches("\"status\":\"ok\"").count()), (202, 3), "{reply:?}");
        assert_eq!(world.hub.all().len(), 5);
    }
}

#[tokio::test]
async fn hole_10_a_host_is_asked_so_often_in_a_minute() {
    let subscriber = Subscriber::start().await;
    for compat in [true, false] {
        let world = World::with(compat, |settings| settings.verifications_per_minute_max = 2).await;
        world.queues(&["foo"]);
        let body = format!("{FORM}{}", escaped(&subscriber.url("/agrees")));
        let ask = || Ask::new("POST", "/subscribe/q/foo").form(&body);
        let mut last = world.boss(ask()).await;
        // A minute may end in between, once.
        for _ in 0..4 {
            if last.status == 204 {
                last = world.boss(ask()).await;
            }
        }
        assert_eq!(last.said(), (429, "cannot ask host `127.0.0.1` now (too-many-verifications)".to_owned()));
        let after: u64 = last.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&after), "{after}");
        let ask = json!({"queue": "foo", "callback": subscriber.url("/agrees"), "verify": "sync"});
        let mut reply = world.boss(Ask::new("POST", "/api/v1/subscriptions").json(&ask)).await;
        for _ in 0..3 {
            if reply.status == 201 {
                reply = world.boss(Ask::new("POST", "/api/v1/subscriptions").json(&ask)).await;
            }
        }
        assert_eq!(
            (reply.status, &reply.json()["code"]),
            (429, &json!("too-many-verifications")),
            "{reply:?}"
        );
        assert!(reply.header("retry-after").is_some());
        let websub = format!(
            "hub.mode=subscribe&hub.verify=sync&hub.topic={}&hub.callback={}",
            escaped("http://127.0.0.1/feed"),
            escaped(&subscriber.url("/agrees"))
        );
        let mut reply = world.send(Ask::new("POST", "/hub").form(&websub)).await;
        for _ in 0..3 {
            if reply.status == 204 {
                reply = world.send(Ask::new("POST", "/hub").form(&websub)).await;
            }
        }
        assert_eq!(reply.status, 429, "{reply:?}");
    }
}
