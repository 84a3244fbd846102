//! `/hub`: the websub.rocks hub tests (100 to 106), step by step, and what they leave out.

use axum::http::Method;
use warren_engine::hub::settings::TopicRedirect;
use warren_engine::hub::websub;

use super::client::{Ask, Reply};
use super::subscriber::{Heard, Subscriber};
use super::world::{World, escaped};

/// A hub that serves the subscriber's own topic.
async fn world(subscriber: &Subscriber) -> World {
    World::with(false, |settings| {
        if let Some(websub) = &mut settings.websub {
            websub.topics = vec![subscriber.url("/topic")];
        }
    })
    .await
}

/// A request to the hub, as the tests make it: the standard's parameters and what is added.
async fn ask(world: &World, subscriber: &Subscriber, mode: &str, path: &str, more: &str) -> Reply {
    let body = format!(
        "hub.mode={mode}&hub.topic={}&hub.callback={}{more}",
        escaped(&subscriber.url("/topic")),
        escaped(&subscriber.url(path))
    );
    world.send(Ask::new("POST", "/hub").form(&body)).await
}

/// Step 1 and 2: 202, and the question to the callback.
async fn subscribed(world: &World, subscriber: &Subscriber, path: &str, more: &str) {
    let before = subscriber.of(&Method::GET, path).len();
    let mut changes = world.hub.changes();
    changes.borrow_and_update();
    let reply = ask(world, subscriber, "subscribe", path, more).await;
    assert_eq!(reply.said(), (202, String::new()));
    let asked = subscriber.hears(Method::GET, path, before + 1).await.pop().unwrap();
    assert_eq!(asked.parameter("hub.mode").as_deref(), Some("subscribe"));
    assert_eq!(asked.parameter("hub.topic"), Some(subscriber.url("/topic")));
    assert!(asked.parameter("hub.challenge").is_some() && asked.parameter("hub.lease_seconds").is_some());
    // The answer to the question is noted.
    tokio::time::timeout(super::client::PATIENCE, changes.changed()).await.unwrap().unwrap();
}

async fn ping(world: &World, subscriber: &Subscriber, name: &str) -> u16 {
    let body = format!("hub.mode=publish&{name}={}", escaped(&subscriber.url("/topic")));
    world.send(Ask::new("POST", "/hub").form(&body)).await.status
}

/// Step 4, in the order in which websub.rocks checks.
fn check(
    world: &World,
    subscriber: &Subscriber,
    told: &Heard,
    kind: &str,
    body: &str,
    signature: Option<&str>,
) {
    assert_eq!(String::from_utf8_lossy(&told.body), body);
    assert_eq!(told.header("content-type"), Some(kind));
    let link = told.header("link").unwrap();
    assert!(link.contains(&format!("<http://{}/hub>; rel=\"hub\"", world.address)), "{link}");
    assert!(link.contains(&format!("<{}>; rel=\"self\"", subscriber.url("/topic"))), "{link}");
    assert_eq!(told.header("x-hub-signature"), signature);
    assert_eq!(told.query, "", "the callback as it is");
}

const HTML: &str = "text/html; charset=UTF-8";
/// HMAC-SHA256 of `<p>one</p>` with the secret of test 101, made by another program.
const SIGNED: &str = "sha256=9f2e91874320c8bdeba1a8c83b04836ffe194004be506897d4491eed555eb6b4";

#[tokio::test]
async fn tests_100_to_104_subscribe_publish_renew_and_end() {
    let subscriber = Subscriber::start().await;
    let mut world = world(&subscriber).await;
    world.deliver();
    subscribed(&world, &subscriber, "/100", "").await;
    subscribed(&world, &subscriber, "/101", "&hub.secret=abcdefghijklmnopqrst").await;
    subscribed(&world, &subscriber, "/102", "&foo=bar&hub.foo=hub.bar").await;
    subscribed(&world, &subscriber, "/103", "").await;
    for name in ["hub.topic", "hub.url"] {
        assert_eq!(ping(&world, &subscriber, name).await, 204);
    }
    for path in ["/100", "/101", "/102", "/103"] {
        let told = subscriber.hears(Method::POST, path, 1).await.remove(0);
        check(&world, &subscriber, &told, HTML, "<p>one</p>", (path == "/101").then_some(SIGNED));
    }
    // 103: once more, and then exactly one. 104: ended, and then none.
    subscribed(&world, &subscriber, "/103", "").await;
    assert_eq!(world.hub.all().len(), 4);
    let reply = ask(&world, &subscriber, "unsubscribe", "/100", "").await;
    assert_eq!(reply.status, 202);
    let asked = subscriber.hears(Method::GET, "/100", 2).await.pop().unwrap();
    assert_eq!(asked.parameter("hub.mode").as_deref(), Some("unsubscribe"));
    let key = websub::key(world.hub.settings(), &subscriber.url("/topic"), &subscriber.url("/100"));
    warren_testkit::wait::wait_until_async("it has ended", super::client::PATIENCE, async || {
        !world.hub.get(&key).unwrap().is_active()
    })
    .await;
    for (number, body) in ["<p>two</p>", "<p>three</p>"].into_iter().enumerate() {
        subscriber.says(HTML, body);
        assert_eq!(ping(&world, &subscriber, "hub.topic").await, 204);
        for path in ["/101", "/102", "/103"] {
            let told = subscriber.hears(Method::POST, path, number + 2).await;
            assert_eq!(told.len(), number + 2, "{path}: once each, though the first was pinged twice");
            assert_eq!(told[number + 1].body, body.as_bytes());
        }
    }
    // By now the second would have come.
    assert_eq!(subscriber.of(&Method::POST, "/100").len(), 1);
}

#[tokio::test]
async fn tests_105_and_106_text_and_json_stay_as_they_are() {
    let subscriber = Subscriber::start().await;
    let mut world = world(&subscriber).await;
    world.deliver();
    subscribed(&world, &subscriber, "/105", "").await;
    let contents = [("text/plain", "plain ✓ text\r\n"), ("application/json", "{\"a\": 1.0 }")];
    for (number, (kind, body)) in contents.into_iter().enumerate() {
        subscriber.says(kind, body);
        assert_eq!(ping(&world, &subscriber, "hub.topic").await, 204);
        let told = subscriber.hears(Method::POST, "/105", number + 1).await.pop().unwrap();
        check(&world, &subscriber, &told, kind, body, None);
    }
}

#[tokio::test]
async fn requests_that_are_none_are_told_so_in_plain_text() {
    let subscriber = Subscriber::start().await;
    let world = world(&subscriber).await;
    let post = |body: &str| {
        let ask = Ask::new("POST", "/hub").form(body);
        async { world.send(ask).await }
    };
    let callback = escaped(&subscriber.url("/cb"));
    let topic = escaped(&subscriber.url("/topic"));
    for (body, text) in [
        (String::new(), "hub.mode is missing"),
        (
            format!("hub.mode=odd&hub.topic={topic}&hub.callback={callback}"),
            "hub.mode is none of subscribe, unsubscribe, publish",
        ),
        (format!("hub.mode=subscribe&hub.topic={topic}"), "hub.callback is missing"),
        (format!("hub.mode=subscribe&hub.callback={callback}"), "hub.topic is missing"),
        ("hub.mode=publish".to_owned(), "hub.url is missing"),
    ] {
        let reply = post(&body).await;
        assert_eq!(reply.said(), (400, text.to_owned()), "{body}");
        assert!(reply.header("content-type").unwrap().starts_with("text/plain"));
    }
    let secret = "s".repeat(200);
    let reply =
        post(&format!("hub.mode=subscribe&hub.topic={topic}&hub.callback={callback}&hub.secret={secret}"))
            .await;
    assert_eq!(reply.status, 400);
    for callback in ["nonsense", "ftp%3A%2F%2Fa%2F", "http%3A%2F%2Fa%2F%23fragment"] {
        let reply = post(&format!("hub.mode=subscribe&hub.topic={topic}&hub.callback={callback}")).await;
        assert_eq!(reply.status, 400, "{callback}");
    }
    let charset = "application/x-www-form-urlencoded; charset=UTF-8";
    let body = format!("hub.mode=subscribe&hub.topic={topic}&hub.callback={callback}");
    assert_eq!(world.send(Ask::new("POST", "/hub").body(charset, body.clone())).await.status, 202);
    assert_eq!(world.send(Ask::new("POST", "/hub").body("application/json", "{}")).await.status, 415);
    assert_eq!(world.send(Ask::new("GET", "/hub")).await.status, 405);
    let many = format!("hub.mode=publish{}", format!("&hub.url={topic}").repeat(101));
    assert_eq!(post(&many).await.status, 400);
    let off = World::with(false, |settings| settings.websub = None).await;
    assert_eq!(off.send(Ask::new("POST", "/hub").form(&body)).await.status, 404);
}

#[tokio::test]
async fn a_topic_that_is_not_served_is_denied_to_the_callback() {
    let subscriber = Subscriber::start().await;
    let world = world(&subscriber).await;
    let body = format!(
        "hub.mode=subscribe&hub.topic={}&hub.callback={}",
        escaped("https://elsewhere.example/feed"),
        escaped(&subscriber.url("/denied"))
    );
    assert_eq!(world.send(Ask::new("POST", "/hub").form(&body)).await.status, 202);
    let told = subscriber.hears(Method::GET, "/denied", 1).await.remove(0);
    assert_eq!(told.parameter("hub.mode").as_deref(), Some("denied"));
    assert_eq!(told.parameter("hub.topic").as_deref(), Some("https://elsewhere.example/feed"));
}

#[tokio::test]
async fn a_failed_verification_leaves_the_subscription_as_it_was() {
    let subscriber = Subscriber::start().await;
    let world = world(&subscriber).await;
    subscribed(&world, &subscriber, "/cb", "&hub.lease_seconds=1000").await;
    let before = world.hub.all();
    // Nobody can know when an answer is not acted upon; asked at once, the refusal is the answer.
    let reply = ask(&world, &subscriber, "subscribe", "/refuses", "&hub.verify=sync").await;
    assert_eq!(reply.status, 409, "{reply:?}");
    assert_eq!(world.hub.all(), before);
    // A secret may change with a renewal, and vanish with another.
    subscribed(&world, &subscriber, "/cb", "&hub.secret=new").await;
    assert!(world.hub.all()[0].secret.is_some());
}

#[tokio::test]
async fn a_topic_of_our_own_says_where_its_hub_is() {
    let subscriber = Subscriber::start().await;
    let world = world(&subscriber).await;
    world.estate.host("/").declare_exchange("news", "topic");
    let own = format!("http://{}/topics/%2F/news/a%2E%23", world.address);
    for method in ["GET", "HEAD"] {
        let reply = world.send(Ask::new(method, "/topics/%2F/news/a.%23")).await;
        let link = format!("<http://{}/hub>; rel=\"hub\", <{own}>; rel=\"self\"", world.address);
        assert_eq!((reply.status, reply.header("link")), (200, Some(link.as_str())));
    }
    assert_eq!(world.send(Ask::new("GET", "/topics/%2F/secret/a")).await.status, 401);
    assert_eq!(world.send(Ask::new("GET", "/topics/%2F/news")).await.status, 404);
    assert_eq!(world.send(Ask::new("POST", "/topics/%2F/news/a")).await.status, 405);
    // Whoever follows it gets what is published to the exchange.
    let callback = escaped(&subscriber.url("/own"));
    let mut changes = world.hub.changes();
    changes.borrow_and_update();
    let body = format!("hub.mode=subscribe&hub.topic={}&hub.callback={callback}", escaped(&own));
    assert_eq!(world.send(Ask::new("POST", "/hub").form(&body)).await.status, 202);
    subscriber.hears(Method::GET, "/own", 1).await;
    tokio::time::timeout(super::client::PATIENCE, changes.changed()).await.unwrap().unwrap();
    let publish = Ask::new("POST", "/endpoint/x/news?hub.topic=a.b").body("text/plain", "hello");
    assert_eq!(world.boss(publish).await.status, 202);
    let queue = world.hub.all()[0].queue().to_owned();
    assert_eq!(&world.estate.host("/").queues.messages(&queue)[0].body[..], b"hello");
}

#[tokio::test]
async fn line_17_a_request_for_a_topic_that_another_hub_has_is_sent_there() {
    let subscriber = Subscriber::start().await;
    for (permanent, status) in [(false, 307), (true, 308)] {
        let mut world = World::with(false, |settings| {
            if let Some(websub) = &mut settings.websub {
                websub.topics = vec![subscriber.url("/topic")];
                let moved = |path: &str| TopicRedirect {
                    topics: subscriber.url(path),
                    hub: "https://other.example/hub".to_owned(),
                    permanent,
                };
                websub.redirects = vec![moved("/moved")];
            }
        })
        .await;
        world.deliver();
        let post = async |body: &str| world.send(Ask::new("POST", "/hub").form(body)).await;
        let callback = escaped(&subscriber.url("/cb"));
        for topic in ["/moved", "/moved/1?x=y"] {
            let topic = escaped(&subscriber.url(topic));
            for body in [
                format!("hub.mode=subscribe&hub.topic={topic}&hub.callback={callback}"),
                format!("hub.mode=unsubscribe&hub.topic={topic}&hub.callback={callback}"),
                format!("hub.mode=publish&hub.url={topic}"),
                format!("hub.mode=publish&hub.topic={topic}&hub.url={topic}"),
            ] {
                let reply = post(&body).await;
                let sent = (reply.status, reply.header("location"));
                assert_eq!(sent, (status, Some("https://other.example/hub")), "{body}");
            }
        }
        // What is here is here, a form that is none is told so, and a ping of both is taken.
        let (here, moved) = (escaped(&subscriber.url("/topic")), escaped(&subscriber.url("/moved")));
        subscribed(&world, &subscriber, "/here", "").await;
        assert_eq!(post(&format!("hub.mode=subscribe&hub.topic={moved}")).await.status, 400);
        assert_eq!(post(&format!("hub.mode=publish&hub.url={moved}&hub.url={here}")).await.status, 204);
        let told = subscriber.hears(Method::POST, "/here", 1).await;
        assert_eq!(told.len(), 1);
        assert!(subscriber.of(&Method::GET, "/cb").is_empty(), "nobody is asked for what is elsewhere");
        subscriber.forget();
    }
}

#[tokio::test]
async fn one_who_is_here_already_is_served_and_ended_here_after_the_topic_moved() {
    let subscriber = Subscriber::start().await;
    let mut world = World::with(false, |settings| {
        if let Some(websub) = &mut settings.websub {
            websub.topics = vec![subscriber.url("/topic")];
            let hub = "https://other.example/hub".to_owned();
            websub.redirects = vec![TopicRedirect { topics: subscriber.url("/topic"), hub, permanent: true }];
        }
    })
    .await;
    world.deliver();
    // As if it had been made before the setting was.
    let (topic, callback) = (subscriber.url("/topic"), subscriber.url("/old"));
    let batch = serde_json::json!({"subscriptions": [{"vhost": "/", "resource_type": "exchange",
        "resource_name": websub::EXCHANGE, "topic": topic, "callback": callback, "protocol": "websub"}]});
    world.estate.host("/").declare_exchange(websub::EXCHANGE, "topic");
    let reply = world.boss(Ask::new("POST", "/subscriptions").json(&batch)).await;
    assert!(reply.text().contains("\"status\":\"ok\""), "{reply:?}");
    assert_eq!(ping(&world, &subscriber, "hub.url").await, 308, "the publisher learns of it");
    subscriber.hears(Method::POST, "/old", 1).await;
    assert_eq!(
        ask(&world, &subscriber, "subscribe", "/old", "").await.status,
        308,
        "a renewal is made there"
    );
    let asked = subscriber.of(&Method::GET, "/old").len();
    assert_eq!(ask(&world, &subscriber, "unsubscribe", "/old", "").await.status, 202);
    subscriber.hears(Method::GET, "/old", asked + 1).await;
    let key = websub::key(world.hub.settings(), &topic, &callback);
    warren_testkit::wait::wait_until_async("it has ended", super::client::PATIENCE, async || {
        !world.hub.get(&key).unwrap().is_active()
    })
    .await;
    assert_eq!(ask(&world, &subscriber, "subscribe", "/old", "").await.status, 308);
}

#[tokio::test]
async fn a_redirect_of_a_topic_leads_to_no_address_that_is_not_allowed() {
    // The topic may be called, and sends us to a server of the same machine, which may not.
    let (subscriber, inner) = (Subscriber::start().await, Subscriber::start().await);
    let mut world = World::with(false, |settings| {
        settings.allow_callbacks = vec![subscriber.url("/")];
        if let Some(websub) = &mut settings.websub {
            websub.topics = vec![subscriber.url("/topic")];
        }
    })
    .await;
    world.deliver();
    subscribed(&world, &subscriber, "/cb", "").await;
    let port = inner.address.port();
    for location in [
        inner.url("/secret"),
        format!("http://localhost:{port}/secret"),
        format!("http://[::ffff:127.0.0.1]:{port}/secret"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
    ] {
        let fetched = subscriber.of(&Method::GET, "/topic").len();
        subscriber.sends_to(Some(&location));
        assert_eq!(ping(&world, &subscriber, "hub.url").await, 204);
        subscriber.hears(Method::GET, "/topic", fetched + 1).await;
    }
    // The next hop that may be called is called.
    subscriber.sends_to(Some("/topic/new"));
    let fetched = subscriber.of(&Method::GET, "/topic").len();
    assert_eq!(ping(&world, &subscriber, "hub.url").await, 204);
    subscriber.hears(Method::GET, "/topic", fetched + 1).await;
    let told = subscriber.hears(Method::POST, "/cb", 1).await;
    assert_eq!(told[0].body, b"<p>one</p>");
    assert!(inner.heard().is_empty(), "{:?}", inner.heard());
}
