//! Subscribing, renewing, unsubscribing, importing, removing; leases.

use std::time::Duration;

use tokio::time::Instant;
use warren_engine::codes;
use warren_engine::hub::request::{
    Answered, Change, ImportEntry, NotVerified, Refusal, SubscribeRequest, Verify,
};
use warren_engine::hub::resource::Resource;
use warren_engine::hub::settings::HubSettings;
use warren_engine::hub::subscription::{SubscriptionState, WhyInactive};
use warren_engine::message::{HeaderValue, Message, Outbound, Properties, Receipt, Route};
use warren_engine::pipeline::outside::Hidden;
use warren_engine::ports::Broker;

use super::world::{Act, World, passes, to, to_queue, unsubscribe};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_callback_that_agrees_is_subscribed() {
    let world = World::new().await;
    let request = SubscribeRequest {
        basic_auth: Some(Hidden("dTpw".into())),
        lease_seconds: Some(60),
        verify_token: Some("mine".into()),
        max_tps: 3,
        ..to_queue("http://good/cb?own=1")
    };
    assert_eq!(world.hub.subscribe(request.clone()).await.unwrap(), Answered::Done);
    let held = world.hub.get(&request.key).unwrap();
    assert!(held.is_active() && held.max_tps == 3 && held.verified_at_ms == Some(world.now_ms()));
    assert_eq!(held.expires_at_ms, world.now_ms() + 60_000);
    let asked = world.web.requests("GET", "good").pop().unwrap();
    assert_eq!(asked.authorization, Some(Hidden("Basic dTpw".into())));
    assert!(
        asked.url.starts_with("http://good/cb?own=1&hub.verify_token=mine&hub.mode=subscribe&hub.topic=all&")
    );
    assert!(asked.guard.is_some(), "private addresses are refused");
    assert_eq!(world.web.parameter("GET", "good", "hub.lease_seconds").as_deref(), Some("60"));
}

#[tokio::test(start_paused = true)]
async fn each_challenge_is_used_once() {
    let world = World::new().await;
    let mut challenges = Vec::new();
    for _ in 0..3 {
        world.hub.subscribe(to_queue("http://good/")).await.unwrap();
        challenges.push(world.web.parameter("GET", "good", "hub.challenge").unwrap());
    }
    challenges.sort();
    challenges.dedup();
    assert_eq!(challenges.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_does_not_agree_changes_nothing() {
    let world = World::new().await;
    let request = SubscribeRequest { max_tps: 3, ..to_queue("http://moody/") };
    world.hub.subscribe(request.clone()).await.unwrap();
    let before = world.hub.get(&request.key).unwrap();
    for act in [Act::Status(404), Act::Status(301), Act::Status(500), Act::Wrongly, Act::Down, Act::Hangs] {
        world.web.asked("moody", act.clone());
        let renewal = SubscribeRequest { max_tps: 9, secret: Some(Hidden("s".into())), ..request.clone() };
        let began = Instant::now();
        let refusal = world.hub.subscribe(renewal).await.unwrap_err();
        let fits = match (&act, &refusal) {
            (Act::Status(status), Refusal::NotVerified(NotVerified::Status(said))) => status == said,
            (Act::Wrongly, Refusal::NotVerified(NotVerified::ChallengeMismatch)) => true,
            (Act::Down | Act::Hangs, Refusal::NotVerified(NotVerified::Unreachable(_))) => true,
            _ => false,
        };
        assert!(fits, "{act:?}: {refusal:?}");
        assert!(began.elapsed() <= Duration::from_secs(15), "a callback has 15 seconds");
        assert_eq!(world.hub.get(&request.key).unwrap(), before);
        let refused = world.hub.subscribe(unsubscribe(&request)).await.unwrap_err();
        assert!(matches!(refused, Refusal::NotVerified(_)));
        assert_eq!(world.hub.get(&request.key).unwrap(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_subscribed_is_refused_before_anybody_is_asked() {
    let world = World::new().await;
    let missing = [Resource::queue("/", "none"), Resource::exchange("/", "none"), Resource::queue("no", "q")];
    for resource in missing {
        let refused = world.hub.subscribe(to(resource, "t", "http://good/")).await.unwrap_err();
        assert!(matches!(refused, Refusal::NoSuchResource), "{refused:?}");
    }
    for callback in ["ftp://good/", "good", "http://u:p@good/"] {
        let refused = world.hub.subscribe(to_queue(callback)).await.unwrap_err();
        assert!(matches!(refused, Refusal::BadCallback(_)), "{refused:?}");
    }
    let unknown = world.hub.subscribe(unsubscribe(&to_queue("http://good/"))).await.unwrap_err();
    assert!(matches!(unknown, Refusal::NoSuchSubscription));
    assert!(world.web.requests("GET", "good").is_empty() && world.hub.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_is_away_is_asked_again_for_six_hours() {
    let world = World::new().await;
    world.web.asked("away", Act::Down);
    let request = SubscribeRequest { verify: Verify::Async, ..to_queue("http://away/") };
    assert_eq!(world.hub.subscribe(request.clone()).await.unwrap(), Answered::Later);
    passes(3 * HOUR).await;
    assert!(world.hub.get(&request.key).is_none() && world.hub.chores() == 1);
    world.web.asked("away", Act::Well);
    world.until("the subscription", || world.hub.get(&request.key).is_some()).await;
    assert!(world.began.elapsed() < 5 * HOUR);
    world.until("the end of it", || world.hub.chores() == 0).await;
    // Another one never comes back.
    world.web.asked("gone", Act::Down);
    let other = SubscribeRequest { verify: Verify::Async, ..to_queue("http://gone/") };
    world.hub.subscribe(other.clone()).await.unwrap();
    let began = Instant::now();
    world.until("that it is given up", || world.hub.chores() == 0).await;
    let took = began.elapsed();
    assert!((5 * HOUR..7 * HOUR).contains(&took), "{took:?}");
    assert!((5..20).contains(&world.web.requests("GET", "gone").len()));
    assert!(world.hub.get(&other.key).is_none());
}

#[tokio::test(start_paused = true)]
async fn one_who_says_no_is_not_asked_again() {
    let world = World::new().await;
    for (host, act) in [("no", Act::Status(404)), ("odd", Act::Wrongly), ("moved", Act::Status(302))] {
        world.web.asked(host, act);
        let request = SubscribeRequest { verify: Verify::Async, ..to_queue(&format!("http://{host}/")) };
        world.hub.subscribe(request.clone()).await.unwrap();
        world.until("the answer", || world.hub.chores() == 0).await;
        passes(7 * HOUR).await;
        assert_eq!(world.web.requests("GET", host).len(), 1);
        assert!(world.hub.get(&request.key).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_asked_later_outlives_the_process() {
    let mut world = World::new().await;
    world.web.asked("away", Act::Down);
    let request = SubscribeRequest {
        verify: Verify::Async,
        secret: Some(Hidden("s".into())),
        lease_seconds: Some(777_777),
        ..to_queue("http://away/")
    };
    world.hub.subscribe(request.clone()).await.unwrap();
    passes(Duration::from_secs(60)).await;
    world.restart().await;
    world.web.asked("away", Act::Well);
    world.until("the subscription", || world.hub.get(&request.key).is_some()).await;
    let held = world.hub.get(&request.key).unwrap();
    assert_eq!((&held.secret, held.lease_seconds), (&request.secret, 777_777));
}

#[tokio::test(start_paused = true)]
async fn unsubscribing_keeps_the_row_and_ends_the_delivery() {
    let world = World::new().await;
    let request = to_queue("http://good/");
    world.subscribe(request.clone()).await;
    world.hub.subscribe(unsubscribe(&request)).await.unwrap();
    assert_eq!(world.web.parameter("GET", "good", "hub.mode").as_deref(), Some("unsubscribe"));
    let held = world.hub.get(&request.key).unwrap();
    assert_eq!(held.state, SubscriptionState::Inactive(WhyInactive::Unsubscribed));
    world.until("its end", || world.consumer(&request.key) == "none").await;
    world.publish("q", ["stays"]).await;
    passes(HOUR).await;
    assert_eq!((world.depth("q"), world.web.taken("good").len()), (1, 0));
    // Subscribing again takes it up.
    world.subscribe(request).await;
    world.until_taken("good", 1).await;
}

#[tokio::test(start_paused = true)]
async fn without_validation_nobody_is_asked_before_he_is_unsubscribed() {
    let mut settings = HubSettings::new(false);
    settings.validate_callback_on_unsubscribe = false;
    let world = World::with(settings).await;
    let request = to_queue("http://dead/");
    world.subscribe(request.clone()).await;
    world.web.asked("dead", Act::Down);
    world.hub.subscribe(unsubscribe(&request)).await.unwrap();
    assert!(!world.hub.get(&request.key).unwrap().is_active());
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_and_the_row_stays_also_over_a_restart() {
    let mut world = World::new().await;
    let request = SubscribeRequest { lease_seconds: Some(3600), ..to_queue("http://good/") };
    world.subscribe(request.clone()).await;
    passes(HOUR / 2).await;
    // Renewed: the lease begins anew.
    world.hub.subscribe(request.clone()).await.unwrap();
    world.restart().await;
    passes(HOUR / 2 + Duration::from_secs(60)).await;
    assert!(world.hub.get(&request.key).unwrap().is_active(), "not at the time of the first lease");
    passes(HOUR / 2).await;
    let held = world.hub.get(&request.key).unwrap();
    assert_eq!(held.state, SubscriptionState::Inactive(WhyInactive::Expired));
    world.until("its end", || world.consumer(&request.key) == "none").await;
    world.restart().await;
    assert_eq!(world.hub.get(&request.key).unwrap().state, held.state, "it is stored");
    assert_eq!(world.hub.expiring_before(world.now_ms()).len(), 1);
    // A lease that ended while nobody ran ends at the start.
    let other = SubscribeRequest { lease_seconds: Some(60), ..to_queue("http://other/") };
    world.subscribe(other.clone()).await;
    world.stop().await;
    passes(HOUR).await;
    world.restart().await;
    world.until("its end", || !world.hub.get(&other.key).unwrap().is_active()).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_stored_is_not_granted() {
    let world = World::new().await;
    let request = to_queue("http://good/");
    world.store.full(true);
    for verify in [Verify::Sync, Verify::Async] {
        let refused = world.hub.subscribe(SubscribeRequest { verify, ..request.clone() }).await.unwrap_err();
        let Refusal::Failed(failure) = refused else { panic!("{refused:?}") };
        assert_eq!(failure.code, codes::STATE_UNWRITABLE);
    }
    assert!(world.hub.get(&request.key).is_none());
    world.store.full(false);
    world.subscribe(request.clone()).await;
    world.store.full(true);
    assert!(world.hub.remove(&request.key).await.is_err());
    assert!(world.hub.subscribe(unsubscribe(&request)).await.is_err());
    assert!(world.hub.get(&request.key).unwrap().is_active());
}

#[tokio::test(start_paused = true)]
async fn an_exchange_is_followed_through_a_queue_of_ours() {
    let world = World::new().await;
    let request = to(Resource::exchange("/", "x"), "a.*", "http://good/");
    let held = world.subscribe(request.clone()).await;
    let queue = held.pseudo_queue.clone().unwrap();
    assert_eq!(queue, format!("warren.hub.{}", request.key.id()));
    for key in ["a.b", "b.c", "a.c"] {
        let message = Message { body: key.into(), properties: Properties::default() };
        let route = Route::Exchange { exchange: "x".into(), routing_key: key.into() };
        let outbound = Outbound { route, message };
        drop(world.host().publish(&[outbound]).await); // those that nobody follows are refused
    }
    world.until_taken("good", 2).await;
    assert_eq!(world.web.taken("good"), ["a.b", "a.c"]);
    assert_eq!(world.web.parameter("POST", "good", "hub.topic").as_deref(), Some("a.c"));
    // Unsubscribed: nothing comes into the queue any more. Removed: it is gone.
    world.hub.subscribe(unsubscribe(&request)).await.unwrap();
    world.until("that nothing is bound", || world.host().bindings().is_empty()).await;
    assert!(world.host().queues.has(&queue));
    assert!(world.hub.remove(&request.key).await.unwrap());
    world.until("that it is gone", || !world.host().queues.has(&queue)).await;
    assert!(!world.hub.remove(&request.key).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_headers_exchange_is_asked_for_the_arguments() {
    let world = World::new().await;
    let mut request = to(Resource::exchange("/", "h"), "t", "http://good/");
    request.arguments.set("colour", HeaderValue::Text("red".into()));
    world.subscribe(request.clone()).await;
    for (colour, routed) in [("red", true), ("blue", false)] {
        let mut properties = Properties::default();
        properties.headers.set("colour", HeaderValue::Text(colour.into()));
        let message = Message { body: colour.into(), properties };
        let route = Route::Exchange { exchange: "h".into(), routing_key: String::new() };
        let outbound = Outbound { route, message };
        let receipts = world.host().publish(&[outbound]).await;
        assert_eq!(matches!(receipts[0], Receipt::Accepted(_)), routed);
    }
    world.until_taken("good", 1).await;
    // A renewal with other arguments takes the old binding away.
    request.arguments.set("colour", HeaderValue::Text("blue".into()));
    world.subscribe(request).await;
    world.until("one binding", || world.host().bindings().len() == 1).await;
    let colour = world.host().bindings()[0].arguments.get("colour").cloned();
    assert_eq!(colour, Some(HeaderValue::Text("blue".into())));
}

#[tokio::test(start_paused = true)]
async fn an_import_is_verified_where_it_is_active() {
    let world = World::new().await;
    world.web.asked("no", Act::Status(404));
    let entry = |host: &str, state| ImportEntry { request: to_queue(&format!("http://{host}/")), state };
    let inactive = SubscriptionState::Inactive(WhyInactive::Imported);
    assert!(world.hub.import(entry("good", SubscriptionState::Active)).await.unwrap().is_active());
    let refused = world.hub.import(entry("no", SubscriptionState::Active)).await.unwrap_err();
    assert!(matches!(refused, Refusal::NotVerified(NotVerified::Status(404))));
    assert!(world.hub.get(&entry("no", inactive.clone()).request.key).is_none());
    let held = world.hub.import(entry("no", inactive.clone())).await.unwrap();
    assert_eq!((&held.state, world.web.requests("GET", "no").len()), (&inactive, 1));
    // One that is active and is imported as inactive is stopped.
    world.hub.import(entry("good", inactive.clone())).await.unwrap();
    let key = entry("good", inactive).request.key;
    world.until("its end", || world.consumer(&key) == "none").await;
    // An operator activates it.
    world.hub.change(&key, Change::state(SubscriptionState::Active)).await.unwrap().unwrap();
    world.until("the consumer", || world.consumer(&key) == "consuming").await;
    assert!(
        world
            .hub
            .change(&to_queue("http://x/").key, Change::state(SubscriptionState::Active))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_cannot_be_tidied_up_now_is_later_also_over_a_restart() {
    let mut world = World::new().await;
    let request = to(Resource::exchange("/", "x"), "#", "http://good/");
    let queue = world.subscribe(request.clone()).await.pseudo_queue.clone().unwrap();
    world.stop().await; // nobody is there to do it
    assert!(world.hub.remove(&request.key).await.unwrap());
    assert!(world.host().queues.has(&queue));
    world.restart().await;
    world.until("that it is gone", || !world.host().queues.has(&queue)).await;
    world.until("that all is done", || world.hub.chores() == 0).await;
}
