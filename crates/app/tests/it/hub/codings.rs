//! Content codings (F33): topics whose servers answer with one that nobody asked for, and messages that are published with one.

use std::io::Write as _;

use axum::http::Method;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use warren_engine::hub::sign;
use warren_engine::hub::subscription::Signing;
use warren_testkit::wait::wait_until_async;

use super::client::{Ask, PATIENCE};
use super::subscriber::{Heard, Subscriber};
use super::world::{World, escaped};

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// A hub that serves the subscriber's topics, and a subscription with a secret for each of these topics, to a callback of its path.
async fn followed(subscriber: &Subscriber, topics: &[(&str, &str)]) -> World {
    let mut world = World::with(false, |settings| {
        settings.websub.as_mut().unwrap().topics = vec![subscriber.url("/topic")];
    })
    .await;
    world.deliver();
    for (topic, callback) in topics {
        let body = format!(
            "hub.mode=subscribe&hub.topic={}&hub.callback={}&hub.secret=key",
            escaped(&subscriber.url(topic)),
            escaped(&subscriber.url(callback))
        );
        assert_eq!(world.send(Ask::new("POST", "/hub").form(&body)).await.status, 202);
    }
    wait_until_async("all follow", PATIENCE, async || {
        world.hub.all().iter().filter(|one| one.is_active()).count() == topics.len()
    })
    .await;
    world
}

async fn ping(world: &World, subscriber: &Subscriber, topic: &str) {
    let body = format!("hub.mode=publish&hub.url={}", escaped(&subscriber.url(topic)));
    assert_eq!(world.send(Ask::new("POST", "/hub").form(&body)).await.status, 204);
}

fn check(told: &Heard, body: &[u8], coding: Option<&str>) {
    assert_eq!(told.body, body);
    assert_eq!((told.header("content-encoding"), told.header("content-type")), (coding, Some("text/plain")));
    let signed = sign::headers(Signing::Sha256, "key", "", 0, body);
    assert_eq!(told.header("x-hub-signature"), Some(signed[0].1.as_str()), "of what is sent");
}

#[tokio::test]
async fn a_topic_in_gzip_is_decoded_and_one_in_another_coding_is_passed_on_with_it() {
    let subscriber = Subscriber::start().await;
    let world = followed(&subscriber, &[("/topic", "/cb")]).await;
    let twice = gzip(&gzip(b"three"));
    for (number, (coding, coded, body, shown)) in [
        ("gzip", gzip(b"one"), &b"one"[..], None),
        ("x-gzip", gzip(b"two"), b"two", None),
        ("gzip, gzip", twice, b"three", None),
        ("br", b"\x0b\x02\x80four\x03".to_vec(), b"\x0b\x02\x80four\x03", Some("br")),
        ("identity", b"five".to_vec(), b"five", None),
    ]
    .into_iter()
    .enumerate()
    {
        subscriber.says_coded(coding, coded);
        ping(&world, &subscriber, "/topic").await;
        let told = subscriber.hears(Method::POST, "/cb", number + 1).await.pop().unwrap();
        check(&told, body, shown);
    }
    let asked = subscriber.of(&Method::GET, "/topic").pop().unwrap();
    assert_eq!(asked.header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn a_topic_that_cannot_be_decoded_is_an_error_of_its_followers_and_of_no_others() {
    let subscriber = Subscriber::start().await;
    let world = followed(&subscriber, &[("/topic", "/bad"), ("/topic/new", "/good")]).await;
    let failures = || world.hub.fetches().failed.load(std::sync::atomic::Ordering::Relaxed);
    let cut = gzip(b"cut off in the middle");
    // More than `hub.max_body` once it is decoded, cut off, and not gzip at all.
    for (number, coded) in
        [gzip(&vec![0; 2 << 20]), cut[..cut.len() - 9].to_vec(), b"plain".to_vec()].into_iter().enumerate()
    {
        subscriber.says_coded("gzip", coded);
        ping(&world, &subscriber, "/topic").await;
        wait_until_async("it has failed", PATIENCE, async || failures() > number as u64).await;
        subscriber.says("text/plain", &format!("good {number}"));
        ping(&world, &subscriber, "/topic/new").await;
        let told = subscriber.hears(Method::POST, "/good", number + 1).await.pop().unwrap();
        check(&told, format!("good {number}").as_bytes(), None);
    }
    assert!(subscriber.of(&Method::POST, "/bad").is_empty());
    for one in world.hub.all() {
        assert_eq!(one.errors.count > 0, one.key.callback.ends_with("/bad"), "{one:?}");
    }
}

#[tokio::test]
async fn a_message_that_is_published_in_gzip_is_delivered_in_it() {
    let subscriber = Subscriber::start().await;
    let mut world = World::start(false).await;
    world.queues(&["q"]);
    let body = json!({"queue": "q", "callback": subscriber.url("/cb"), "verify": "sync"});
    assert_eq!(world.boss(Ask::new("POST", "/api/v1/subscriptions").json(&body)).await.status, 201);
    let coded = gzip(b"a message");
    let publish = Ask::new("POST", "/endpoint/q/q").header("content-encoding", "gzip");
    assert_eq!(world.boss(publish.body("text/plain", coded.clone())).await.status, 202);
    let message = world.estate.host("/").queues.messages("q").remove(0);
    assert_eq!(
        (&message.body[..], message.properties.content_encoding.as_deref()),
        (&coded[..], Some("gzip"))
    );
    world.deliver();
    let told = subscriber.hears(Method::POST, "/cb", 1).await.remove(0);
    assert_eq!((&told.body, told.header("content-encoding")), (&coded, Some("gzip")));
}
