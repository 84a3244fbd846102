//! The WebSub hub, by the lines of the checklist that concern it here (numbers as in PubSubHubbub 0.3/0.4 and WebSub's own order:
//! subscribing, verification, denial, publishing, distribution).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::hub::ports::Subscriptions as _;
use warren_engine::hub::request::{Answered, Refusal, SubscribeRequest};
use warren_engine::hub::resource::Resource;
use warren_engine::hub::settings::{HubSettings, WebsubSettings};
use warren_engine::hub::subscription::{Signing, SubscriptionState, WhyInactive};
use warren_engine::hub::websub;
use warren_engine::message::{Message, Properties, Route};
use warren_engine::pipeline::outside::Hidden;

use super::world::{Act, World, passes, to_topic, unsubscribe};

const TOPIC: &str = "https://blog/feeds/1?a=b";
const HOUR: Duration = Duration::from_secs(3600);

fn settings() -> HubSettings {
    let mut settings = HubSettings::new(false);
    settings.public_url = Some("https://hub.example".into());
    settings.websub = Some(WebsubSettings {
        topics: vec!["https://blog/feeds/".into()],
        exchanges: vec![("/".into(), "x".into())],
        redirects: Vec::new(),
        vhost: "web".into(),
    });
    settings
}

async fn world() -> World {
    let world = World::with(settings()).await;
    world.web.topic(TOPIC, 200, &[("content-type", "text/html; charset=UTF-8")], "one");
    world
}

/// Pings, and waits until all that follows from it is done here.
async fn ping(world: &World) {
    world.hub.ping(TOPIC).await.unwrap();
    world.until("the fetch", || world.hub.chores() == 0).await;
}

fn header(world: &World, host: &str, name: &str) -> Option<String> {
    let post = world.web.requests("POST", host).pop()?;
    post.headers.into_iter().find(|(other, _)| other == name).map(|(_, value)| value)
}

#[tokio::test(start_paused = true)]
async fn line_01_14_callback_mode_and_topic_are_enough_and_the_answer_does_not_depend_on_verification() {
    let world = world().await;
    for (host, act) in [("good", Act::Well), ("no", Act::Status(404)), ("down", Act::Down)] {
        world.web.asked(host, act);
        let request = to_topic(&world.settings, TOPIC, &format!("http://{host}/"));
        assert_eq!(world.hub.subscribe(request).await.unwrap(), Answered::Later);
    }
    let gone = to_topic(&world.settings, "https://elsewhere/", "http://good/");
    assert_eq!(world.hub.subscribe(gone).await.unwrap(), Answered::Later);
    let unknown = unsubscribe(&to_topic(&world.settings, TOPIC, "http://unknown/"));
    assert_eq!(world.hub.subscribe(unknown).await.unwrap(), Answered::Later);
}

#[tokio::test(start_paused = true)]
async fn line_08_10_a_lease_is_granted_and_enforced() {
    let world = world().await;
    let request = to_topic(&world.settings, TOPIC, "http://good/");
    let held = world.subscribe(request.clone()).await;
    assert_eq!(held.lease_seconds, 864_000, "10 days");
    assert_eq!(world.web.parameter("GET", "good", "hub.lease_seconds").as_deref(), Some("864000"));
    let long = SubscribeRequest { lease_seconds: Some(u64::MAX), ..request.clone() };
    world.subscribe(long).await;
    world.until("the renewal", || world.hub.get(&request.key).unwrap().lease_seconds == 31_536_000).await;
    let short = SubscribeRequest { lease_seconds: Some(3600), ..request.clone() };
    world.hub.subscribe(short).await.unwrap();
    world.until("the end", || !world.hub.get(&request.key).unwrap().is_active()).await;
    world.web.topic(TOPIC, 200, &[], "after the end");
    ping(&world).await;
    passes(HOUR).await;
    assert!(world.web.taken("good").is_empty());
}

#[tokio::test(start_paused = true)]
async fn line_13_a_renewal_counts_once_it_is_verified_and_there_is_one_subscription() {
    let world = world().await;
    let request = to_topic(&world.settings, TOPIC, "http://good/");
    let secret = Some(Hidden("one".into()));
    world.subscribe(SubscribeRequest { secret: secret.clone(), ..request.clone() }).await;
    // A failed verification leaves the state unchanged.
    world.web.asked("good", Act::Status(404));
    world.hub.subscribe(SubscribeRequest { secret: None, ..request.clone() }).await.unwrap();
    world.until("the answer", || world.hub.chores() == 0).await;
    assert_eq!(world.hub.get(&request.key).unwrap().secret, secret);
    // Verified, the secret changes, or vanishes.
    world.web.asked("good", Act::Well);
    let other = Some(Hidden("two".into()));
    world.hub.subscribe(SubscribeRequest { secret: other.clone(), ..request.clone() }).await.unwrap();
    world.until("the change", || world.hub.get(&request.key).unwrap().secret == other).await;
    world.hub.subscribe(request.clone()).await.unwrap();
    world.until("the change", || world.hub.get(&request.key).unwrap().secret.is_none()).await;
    ping(&world).await;
    world.until_taken("good", 1).await;
    passes(HOUR).await;
    assert_eq!(world.web.taken("good"), ["one"], "exactly one notification");
}

#[tokio::test(start_paused = true)]
async fn line_18_31_the_callbacks_query_is_kept_and_the_callback_is_posted_to_exactly() {
    let world = world().await;
    world.subscribe(to_topic(&world.settings, TOPIC, "http://good/cb?token=1&x")).await;
    let asked = world.web.requests("GET", "good").pop().unwrap().url;
    assert!(asked.starts_with("http://good/cb?token=1&x&hub.mode=subscribe&hub.topic="), "{asked}");
    assert_eq!(world.web.parameter("GET", "good", "hub.topic").as_deref(), Some(TOPIC));
    ping(&world).await;
    world.until_taken("good", 1).await;
    assert_eq!(world.web.requests("POST", "good")[0].url, "http://good/cb?token=1&x");
}

#[tokio::test(start_paused = true)]
async fn line_19_fragments_are_refused() {
    let world = world().await;
    let request = to_topic(&world.settings, TOPIC, "http://good/#part");
    assert!(matches!(world.hub.subscribe(request).await.unwrap_err(), Refusal::BadCallback(_)));
    let request = to_topic(&world.settings, &format!("{TOPIC}#part"), "http://good/");
    world.hub.subscribe(request.clone()).await.unwrap();
    world.until("the denial", || world.hub.chores() == 0).await;
    assert!(world.hub.get(&request.key).is_none());
}

#[tokio::test(start_paused = true)]
async fn line_22_only_2xx_with_the_challenge_verifies() {
    let world = world().await;
    for act in [Act::Wrongly, Act::Status(302), Act::Status(404), Act::Status(500)] {
        world.web.asked("moody", act.clone());
        let request = to_topic(&world.settings, TOPIC, "http://moody/");
        world.hub.subscribe(request.clone()).await.unwrap();
        passes(Duration::from_secs(5)).await;
        assert!(world.hub.get(&request.key).is_none(), "{act:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn line_25_one_who_may_not_follow_a_topic_is_told() {
    let world = world().await;
    let url = |exchange| websub::topic_url(&world.settings, &Resource::exchange("/", exchange), "a").unwrap();
    for (at, topic) in
        ["https://elsewhere/feed".to_owned(), url("h"), "nonsense".to_owned()].iter().enumerate()
    {
        let request = to_topic(&world.settings, topic, &format!("http://sad{at}/?x=1"));
        world.hub.subscribe(request.clone()).await.unwrap();
        let host = format!("sad{at}");
        world.until("the denial", || !world.web.requests("GET", &host).is_empty()).await;
        let told = |name| world.web.parameter("GET", &host, name);
        assert_eq!(told("hub.mode").as_deref(), Some("denied"));
        assert_eq!(told("hub.topic").as_ref(), Some(topic));
        assert!(
            told("hub.reason").is_some_and(|reason| !reason.is_empty()) && told("hub.challenge").is_none()
        );
        assert!(world.web.requests("GET", &host)[0].guard.is_some());
        world.until("the end of it", || world.hub.chores() == 0).await;
        assert!(world.hub.get(&request.key).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn line_27_unsubscribing_is_verified_and_ends_it() {
    let world = world().await;
    let request = to_topic(&world.settings, TOPIC, "http://good/");
    let queue = world.subscribe(request.clone()).await.pseudo_queue.clone().unwrap();
    world.web.asked("good", Act::Status(404));
    world.hub.subscribe(unsubscribe(&request)).await.unwrap();
    world.until("the answer", || world.hub.chores() == 0).await;
    assert!(world.hub.get(&request.key).unwrap().is_active(), "somebody else asked");
    world.web.asked("good", Act::Well);
    world.hub.subscribe(unsubscribe(&request)).await.unwrap();
    world.until("the end", || !world.hub.get(&request.key).unwrap().is_active()).await;
    assert_eq!(world.web.parameter("GET", "good", "hub.mode").as_deref(), Some("unsubscribe"));
    world.until("that its queue is gone", || !world.estate.host("web").queues.has(&queue)).await;
    ping(&world).await;
    passes(HOUR).await;
    assert!(world.web.taken("good").is_empty());
}

#[tokio::test(start_paused = true)]
async fn line_28_30_a_ping_fetches_once_on_a_condition_and_says_for_how_many() {
    let world = world().await;
    ping(&world).await;
    assert!(world.web.requests("GET", "blog").is_empty(), "nobody follows it");
    world.web.topic(TOPIC, 200, &[("etag", "\"1\""), ("content-type", "text/plain")], "one");
    world.subscribe(to_topic(&world.settings, TOPIC, "http://a/")).await;
    world.subscribe(to_topic(&world.settings, TOPIC, "http://b/")).await;
    for _ in 0..50 {
        world.hub.ping(TOPIC).await.unwrap();
    }
    world.until("the fetch", || world.hub.chores() == 0).await;
    world.until_taken("b", 1).await;
    let fetches = world.web.requests("GET", "blog");
    assert!(fetches.len() <= 2, "one under way, one pending: {}", fetches.len());
    let value = |at: usize, name: &str| {
        let headers = &world.web.requests("GET", "blog")[at].headers;
        headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
    };
    assert!(value(0, "user-agent").unwrap().ends_with("(+https://hub.example/hub; 2 subscribers)"));
    assert_eq!(value(0, "if-none-match"), None);
    let before = fetches.len();
    ping(&world).await;
    assert_eq!(value(before, "if-none-match").as_deref(), Some("\"1\""));
    passes(HOUR).await;
    assert_eq!(world.web.taken("b"), ["one"], "what did not change is not handed out");
    // A page that knows no conditions is compared.
    world.web.topic(TOPIC, 200, &[("content-type", "text/plain")], "one");
    ping(&world).await;
    passes(HOUR).await;
    assert_eq!(world.web.taken("b"), ["one"]);
    world.web.topic(TOPIC, 200, &[("content-type", "text/plain")], "two");
    ping(&world).await;
    world.until_taken("b", 2).await;
    assert_eq!(world.web.taken("b"), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn line_30_redirects_of_a_topic_are_followed_hop_by_hop_under_the_guard() {
    let world = world().await;
    world.subscribe(to_topic(&world.settings, TOPIC, "http://good/")).await;
    world.web.topic(TOPIC, 302, &[("location", "/feeds/2")], "");
    world.web.topic("https://blog/feeds/2", 308, &[("location", "https://cdn/x")], "");
    world.web.topic("https://cdn/x", 200, &[("content-type", "text/plain")], "moved");
    ping(&world).await;
    world.until_taken("good", 1).await;
    assert_eq!(world.web.taken("good"), ["moved"]);
    for host in ["blog", "cdn"] {
        assert!(world.web.requests("GET", host).iter().all(|request| request.guard.is_some()));
    }
    // Round and round, to nowhere, and down to plain HTTP: none is followed.
    for location in [TOPIC, "ftp://blog/x", "http://cdn/x", "http://u:p@cdn/x", "//"] {
        world.web.topic(TOPIC, 302, &[("location", location)], "");
        let before = world.web.requests("GET", "cdn").len();
        ping(&world).await;
        assert_eq!(world.web.requests("GET", "cdn").len(), before, "{location}");
    }
}

#[tokio::test(start_paused = true)]
async fn line_32_34_content_type_body_and_links_are_the_topics() {
    let world = world().await;
    world.subscribe(to_topic(&world.settings, TOPIC, "http://good/")).await;
    ping(&world).await;
    world.until_taken("good", 1).await;
    assert_eq!(world.web.taken("good"), ["one"]);
    assert_eq!(header(&world, "good", "content-type").as_deref(), Some("text/html; charset=UTF-8"));
    let link = format!("<https://hub.example/hub>; rel=\"hub\", <{TOPIC}>; rel=\"self\"");
    assert_eq!(header(&world, "good", "link"), Some(link));
    assert_eq!(header(&world, "good", "x-hub-signature"), None);
}

#[tokio::test(start_paused = true)]
async fn line_35_with_a_secret_each_delivery_is_signed_by_the_method_asked_for() {
    let world = world().await;
    for (at, signing) in
        [Signing::Sha1, Signing::Sha256, Signing::Sha384, Signing::Sha512].into_iter().enumerate()
    {
        let request = to_topic(&world.settings, TOPIC, &format!("http://s{at}/"));
        let secret = Some(Hidden("s".into()));
        world.subscribe(SubscribeRequest { secret, signing, ..request }).await;
    }
    ping(&world).await;
    for (at, method) in ["sha1", "sha256", "sha384", "sha512"].into_iter().enumerate() {
        let host = format!("s{at}");
        world.until_taken(&host, 1).await;
        let signature = header(&world, &host, "x-hub-signature").unwrap();
        let (name, hex) = signature.split_once('=').unwrap();
        assert_eq!(name, method);
        assert!(hex.chars().all(|digit| digit.is_ascii_hexdigit() && !digit.is_ascii_uppercase()));
    }
}

#[tokio::test(start_paused = true)]
async fn line_37_a_redirect_of_a_callback_is_a_failure_and_moves_nothing() {
    let world = world().await;
    let request = to_topic(&world.settings, TOPIC, "http://moved/");
    world.subscribe(request.clone()).await;
    world.web.posted("moved", Act::Status(308));
    ping(&world).await;
    let dead = || world.estate.host("web").queues.messages("warren.hub.dead").len();
    world.until("the dead letter", || dead() == 1).await;
    assert_eq!(world.hub.all().len(), 1);
    assert_eq!(world.hub.get(&request.key).unwrap().key.callback, "http://moved/");
}

#[tokio::test(start_paused = true)]
async fn line_38_410_ends_it() {
    let world = world().await;
    let request = to_topic(&world.settings, TOPIC, "http://gone/");
    world.subscribe(request.clone()).await;
    world.web.posted("gone", Act::Status(410));
    ping(&world).await;
    let ended = SubscriptionState::Inactive(WhyInactive::Gone);
    world.until("the end", || world.hub.get(&request.key).unwrap().state == ended).await;
}

#[tokio::test(start_paused = true)]
async fn line_39_40_a_delivery_is_retried_and_given_up_and_the_next_one_tried_again() {
    let world = world().await;
    let request = to_topic(&world.settings, TOPIC, "http://flaky/");
    world.subscribe(request.clone()).await;
    world.web.posted("flaky", Act::Status(500));
    ping(&world).await;
    let dead = || world.estate.host("web").queues.messages("warren.hub.dead").len();
    world.until("the dead letter", || dead() == 1).await;
    assert!(world.web.requests("POST", "flaky").len() >= 9);
    assert!(world.hub.get(&request.key).unwrap().is_active());
    world.web.posted("flaky", Act::Well);
    world.web.topic(TOPIC, 200, &[], "two");
    ping(&world).await;
    world.until_taken("flaky", 1).await;
    assert_eq!(world.web.taken("flaky"), ["two"]);
}

#[tokio::test(start_paused = true)]
async fn an_exchange_of_ours_is_a_topic() {
    let world = world().await;
    let topic = websub::topic_url(&world.settings, &Resource::exchange("/", "x"), "a.*").unwrap();
    let request = to_topic(&world.settings, &topic, "http://good/");
    world.subscribe(request).await;
    let route = Route::Exchange { exchange: "x".into(), routing_key: "a.b".into() };
    let properties = Properties { content_type: Some("text/x".into()), ..Properties::default() };
    world.send(route, Message { body: "m".into(), properties }).await;
    world.until_taken("good", 1).await;
    assert_eq!(header(&world, "good", "content-type").as_deref(), Some("text/x"));
    assert!(header(&world, "good", "link").unwrap().contains(&format!("<{topic}>; rel=\"self\"")));
    assert_eq!(world.web.requests("POST", "good")[0].url, "http://good/");
    world.hub.ping(&topic).await.unwrap(); // nothing to fetch
    assert_eq!(world.hub.chores(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_cannot_be_fetched_is_fetched_again_also_over_a_restart() {
    let mut world = world().await;
    world.subscribe(to_topic(&world.settings, TOPIC, "http://good/")).await;
    world.web.topic(TOPIC, 503, &[], "");
    world.hub.ping(TOPIC).await.unwrap();
    passes(Duration::from_secs(60)).await;
    world.restart().await;
    world.web.topic(TOPIC, 200, &[], "at last");
    world.until_taken("good", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_cannot_be_handed_out_is_counted_and_on_record_at_its_followers() {
    let large = Failure::new(FailureKind::Invalid, codes::ANSWER_TOO_LARGE, "GET https://blog/feeds/1")
        .remedy("raise `max_answer`, or ask for less");
    let failures = [
        (Answer::Status(503), "fetch topic https://blog/feeds/1?…: the answer was 503"),
        (Answer::Status(404), "fetch topic https://blog/feeds/1?…: the answer was 404"),
        (Answer::Fails(large), "raise `hub.max_body`"),
    ];
    for (answer, said) in failures {
        let world = world().await;
        world.web.topic("https://blog/feeds/2", 200, &[], "two");
        let (follower, other) = (
            to_topic(&world.settings, TOPIC, "http://good/"),
            to_topic(&world.settings, "https://blog/feeds/2", "http://other/"),
        );
        world.subscribe(follower.clone()).await;
        world.subscribe(other.clone()).await;
        match answer {
            Answer::Status(status) => world.web.topic(TOPIC, status, &[], ""),
            Answer::Fails(failure) => world.web.topic_fails(TOPIC, failure),
        }
        for topic in [TOPIC, "https://blog/feeds/2"] {
            world.hub.ping(topic).await.unwrap();
        }
        world.until_taken("other", 1).await;
        world.until("that it is given up", || world.hub.chores() == 0).await;
        let errors = world.hub.get(&follower.key).unwrap().errors.clone();
        assert!(errors.count == 5 && errors.last_message.contains(said), "{errors:?}");
        assert_eq!(world.hub.get(&other.key).unwrap().errors.count, 0);
        let count = |count: &AtomicU64| count.load(Relaxed);
        let fetches = world.hub.fetches();
        assert_eq!((count(&fetches.failed), count(&fetches.handed_out)), (5, 1));
        let stored = world.store.all().await.unwrap();
        let stored = stored.iter().find(|one| one.key == follower.key).unwrap();
        assert_eq!(stored.errors, errors, "also over a restart");
    }
}

/// How a topic answers.
enum Answer {
    Status(u16),
    Fails(Failure),
}

/// The headers of an answer.
type HeaderLines<'h> = &'h [(&'h str, &'h str)];

#[tokio::test(start_paused = true)]
async fn a_coding_of_a_topic_is_passed_on_with_its_body_and_the_signature_covers_what_is_sent() {
    for compat in [false, true] {
        let settings = HubSettings { compat, ..settings() };
        let world = World::with(settings).await;
        let request = to_topic(&world.settings, TOPIC, "http://good/");
        world.subscribe(SubscribeRequest { secret: Some(Hidden("key".into())), ..request }).await;
        let kind = ("content-type", "text/plain");
        let contents: [(HeaderLines<'_>, Option<&str>); 5] = [
            (&[kind, ("content-encoding", "br")], Some("br")),
            (&[kind, ("Content-Encoding", "gzip, zstd")], Some("gzip, zstd")),
            (&[kind, ("content-encoding", "gzip"), ("content-encoding", "br")], Some("gzip, br")),
            (&[kind], None),
            (&[kind, ("content-encoding", " ")], None),
        ];
        for (number, (headers, expected)) in contents.into_iter().enumerate() {
            // The same bytes with another coding are another content.
            world.web.topic(TOPIC, 200, headers, if expected.is_some() { "coded" } else { "plain" });
            ping(&world).await;
            let count = number.min(3) + 1;
            world.until_taken("good", count).await;
            assert_eq!(world.web.taken("good").len(), count, "{headers:?}");
            assert_eq!(header(&world, "good", "content-encoding").as_deref(), expected, "{headers:?}");
            let body = world.web.taken("good").pop().unwrap();
            let signed = warren_engine::hub::sign::headers(Signing::Sha256, "key", "", 0, body.as_bytes());
            assert_eq!(header(&world, "good", "x-hub-signature"), Some(signed[0].1.clone()));
        }
        let asked = world.web.requests("GET", "blog").pop().unwrap();
        assert!(asked.headers.contains(&("accept-encoding".into(), "identity".into())));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_anew_has_the_topic_with_the_next_ping_although_it_did_not_change() {
    let world = world().await;
    world.subscribe(to_topic(&world.settings, TOPIC, "http://a/")).await;
    ping(&world).await;
    world.until_taken("a", 1).await;
    world.subscribe(to_topic(&world.settings, TOPIC, "http://b/")).await;
    ping(&world).await;
    world.until_taken("b", 1).await;
}
