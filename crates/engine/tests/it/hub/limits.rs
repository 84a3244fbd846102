//! How much one user, and one host of callbacks, may have.

use std::time::Duration;

use tokio::time::Instant;
use warren_engine::codes;
use warren_engine::failure::Failure;
use warren_engine::hub::request::{Answered, Change, ImportEntry, Refusal, SubscribeRequest, Verify};
use warren_engine::hub::resource::Resource;
use warren_engine::hub::settings::{HubSettings, WebsubSettings};
use warren_engine::hub::subscription::{SubscriptionState, WhyInactive};

use super::world::{Act, World, passes, to, to_queue, to_topic, unsubscribe};

/// What waits for nobody is done within this.
const SOON: Duration = Duration::from_secs(1);

fn settings(change: impl FnOnce(&mut HubSettings)) -> HubSettings {
    let mut settings = HubSettings::new(false);
    change(&mut settings);
    settings
}

fn of(user: &str, callback: &str) -> SubscribeRequest {
    SubscribeRequest { user: Some(user.to_owned()), ..to_queue(callback) }
}

fn failed(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn one_user_has_no_more_than_it_may() {
    let world = World::with(settings(|settings| settings.subscriptions_per_user_max = 2)).await;
    for host in ["a", "b"] {
        world.subscribe(of("one", &format!("http://{host}/"))).await;
    }
    for verify in [Verify::Sync, Verify::Async] {
        let third = SubscribeRequest { verify, ..of("one", "http://c/") };
        let failure = failed(world.hub.subscribe(third).await.unwrap_err());
        assert_eq!(failure.code, codes::TOO_MANY_SUBSCRIPTIONS);
        assert_eq!(failure.what, "take another subscription of user `one`");
    }
    assert!(world.web.requests("GET", "c").is_empty(), "nobody is asked in vain");
    // Renewals go on, others are not touched, and what has ended makes room.
    world.subscribe(of("one", "http://a/")).await;
    world.subscribe(of("two", "http://c/")).await;
    world.hub.subscribe(unsubscribe(&of("one", "http://a/"))).await.unwrap();
    world.subscribe(of("one", "http://d/")).await;
    failed(world.hub.subscribe(of("one", "http://a/")).await.unwrap_err());
    assert!(world.hub.remove(&of("one", "http://b/").key).await.unwrap());
    world.subscribe(of("one", "http://a/")).await;
}

#[tokio::test(start_paused = true)]
async fn one_host_has_no_more_than_it_may_whoever_asks_and_however_it_is_spelt() {
    let mut world = World::with(settings(|settings| settings.subscriptions_per_host_max = 2)).await;
    world.subscribe(of("one", "http://a:1/x")).await;
    world.subscribe(of("two", "https://A./y")).await;
    let third = of("one", "http://a/z");
    let failure = failed(world.hub.subscribe(third.clone()).await.unwrap_err());
    assert_eq!(
        (failure.code, failure.what.as_str()),
        (codes::TOO_MANY_SUBSCRIPTIONS, "take another subscription to host `a`")
    );
    // Those that are stored count after a restart, and a lease that ends makes room.
    world.restart().await;
    failed(world.hub.subscribe(third.clone()).await.unwrap_err());
    world.subscribe(SubscribeRequest { lease_seconds: Some(60), ..of("one", "http://a:1/x") }).await;
    world.until("its end", || !world.hub.get(&of("one", "http://a:1/x").key).unwrap().is_active()).await;
    world.subscribe(third).await;
}

#[tokio::test(start_paused = true)]
async fn one_user_who_takes_all_of_a_host_leaves_others_their_share() {
    let world = World::with(settings(|settings| settings.subscriptions_per_host_max = 200)).await;
    for number in 0..200 {
        world.subscribe(of("one", &format!("http://shared/{number}"))).await;
    }
    failed(world.hub.subscribe(of("one", "http://shared/more")).await.unwrap_err());
    for number in 0..2 {
        world.subscribe(of("two", &format!("http://shared/two{number}"))).await;
    }
    failed(world.hub.subscribe(of("two", "http://shared/more")).await.unwrap_err());
}

#[tokio::test(start_paused = true)]
async fn one_stranger_who_takes_all_of_a_host_leaves_other_strangers_theirs() {
    let world = World::with(settings(|settings| {
        settings.subscriptions_per_user_max = 10;
        open(settings);
    }))
    .await;
    let ask = |callback: &str| world.hub.subscribe(to_topic(&world.settings, "https://blog/1", callback));
    for number in 0..5 {
        ask(&format!("http://greedy/{number}")).await.unwrap();
    }
    world.until("all of them", || world.hub.all().len() == 5).await;
    failed(ask("http://greedy/more").await.unwrap_err());
    for number in 0..5 {
        ask(&format!("http://good{number}/")).await.unwrap();
    }
    world.until("the others", || world.hub.all().len() == 10).await;
}

#[tokio::test(start_paused = true)]
async fn an_administrator_imports_and_activates_whatever_there_is() {
    let world = World::with(settings(|settings| {
        settings.subscriptions_per_user_max = 1;
        settings.subscriptions_per_host_max = 1;
        settings.verifications_per_minute_max = 1;
    }))
    .await;
    for number in 0..5 {
        let request = of("one", &format!("http://a/{number}"));
        world.hub.import(ImportEntry { request, state: SubscriptionState::Active }).await.unwrap();
    }
    let first = of("one", "http://a/0").key;
    world
        .hub
        .change(&first, Change::state(SubscriptionState::Inactive(WhyInactive::Unsubscribed)))
        .await
        .unwrap();
    world.hub.change(&first, Change::state(SubscriptionState::Active)).await.unwrap().unwrap();
    assert_eq!(world.hub.all().iter().filter(|subscription| subscription.is_active()).count(), 5);
    // Each of them can be renewed.
    world.subscribe(of("one", "http://a/3")).await;
}

#[tokio::test(start_paused = true)]
async fn one_host_is_asked_so_often_in_a_minute() {
    let world = World::with(settings(|settings| settings.verifications_per_minute_max = 3)).await;
    let request = of("one", "http://a/");
    for _ in 0..3 {
        world.hub.subscribe(request.clone()).await.unwrap();
    }
    for wish in [request.clone(), unsubscribe(&request), of("one", "http://a:8080/other")] {
        let failure = failed(world.hub.subscribe(wish).await.unwrap_err());
        assert_eq!(failure.code, codes::TOO_MANY_VERIFICATIONS);
        assert!(failure.retry_after.is_some_and(|after| after <= Duration::from_secs(60)), "{failure:?}");
    }
    assert_eq!(world.web.requests("GET", "a").len(), 3);
    // Another user has a share of the host, and another host is not concerned.
    world.subscribe(of("two", "http://a:8080/other")).await;
    failed(world.hub.subscribe(of("two", "http://a/more")).await.unwrap_err());
    world.subscribe(of("one", "http://b/")).await;
    // Asked later, it has its turn later.
    let later = SubscribeRequest { verify: Verify::Async, ..of("one", "http://a/later") };
    assert_eq!(world.hub.subscribe(later.clone()).await.unwrap(), Answered::Later);
    world.until("its turn", || world.hub.get(&later.key).is_some()).await;
    // And a minute later everything goes on.
    passes(Duration::from_secs(60)).await;
    world.hub.subscribe(unsubscribe(&request)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn strangers_are_one_user_and_a_denial_is_a_question_too() {
    let world = World::with(settings(|settings| {
        settings.subscriptions_per_user_max = 1;
        settings.verifications_per_minute_max = 2;
        open(settings);
    }))
    .await;
    let ask = |topic: &str, callback: &str| world.hub.subscribe(to_topic(&world.settings, topic, callback));
    // Both are taken before either is stored: the second is told no.
    assert_eq!(ask("https://blog/1", "http://a/").await.unwrap(), Answered::Later);
    world.until("the first", || world.hub.all().len() == 1).await;
    assert_eq!(
        failed(ask("https://blog/2", "http://b/").await.unwrap_err()).code,
        codes::TOO_MANY_SUBSCRIPTIONS
    );
    world
        .subscribe(SubscribeRequest {
            user: Some("one".into()),
            ..to(Resource::queue("/", "q"), "t", "http://b/")
        })
        .await;
    for number in 0..20 {
        let denied = ask("https://elsewhere/", &format!("http://victim/{number}")).await.unwrap();
        assert_eq!(denied, Answered::Later);
    }
    passes(Duration::from_secs(30)).await;
    assert!(world.web.requests("GET", "victim").len() <= 2, "{}", world.web.requests("GET", "victim").len());
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_while_there_was_room_is_denied_when_there_is_none() {
    let world = World::with(settings(|settings| {
        settings.subscriptions_per_user_max = 1;
        open(settings);
    }))
    .await;
    world.web.asked("slow", Act::Down);
    let slow = to_topic(&world.settings, "https://blog/1", "http://slow/");
    world.hub.subscribe(slow.clone()).await.unwrap();
    world.subscribe(to_topic(&world.settings, "https://blog/1", "http://quick/")).await;
    world.web.asked("slow", Act::Well);
    world.until("the end of it", || world.hub.chores() == 0).await;
    assert!(world.hub.get(&slow.key).is_none());
    assert_eq!(world.web.parameter("GET", "slow", "hub.mode").as_deref(), Some("denied"));
}

/// Lets strangers have topics under `https://blog/`.
fn open(settings: &mut HubSettings) {
    settings.public_url = Some("https://hub.example".into());
    settings.websub = Some(WebsubSettings {
        topics: vec!["https://blog/".into()],
        vhost: "web".into(),
        ..WebsubSettings::default()
    });
}

/// A hub with strangers' topics under `https://blog/`.
async fn open_to_strangers() -> World {
    let world = World::with(settings(open)).await;
    world.web.topic("https://blog/1", 200, &[], "one");
    world
}

/// Strangers ask for hosts that hang, so many of them and so often each.
async fn hang(world: &World, hosts: usize, each: usize) {
    for host in 0..hosts {
        world.web.asked(&format!("hangs{host}"), Act::Hangs);
    }
    for number in 0..each {
        for host in 0..hosts {
            let callback = format!("http://hangs{host}/{number}");
            world.hub.subscribe(to_topic(&world.settings, "https://blog/1", &callback)).await.unwrap();
        }
    }
}

/// How long it takes until a subscription that is asked for now is there.
async fn until_there(world: &World, request: SubscribeRequest) -> Duration {
    let began = Instant::now();
    let request = SubscribeRequest { verify: Verify::Async, ..request };
    world.hub.subscribe(request.clone()).await.unwrap();
    let there = || world.hub.get(&request.key).is_some_and(|held| held.is_active());
    while !there() {
        passes(Duration::from_millis(100)).await;
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_hangs_while_it_is_asked_holds_up_nobody_elses_question() {
    let world = World::new().await;
    world.web.asked("hangs", Act::Hangs);
    for number in 0..500 {
        let request =
            SubscribeRequest { verify: Verify::Async, ..of("one", &format!("http://hangs/{number}")) };
        world.hub.subscribe(request).await.unwrap();
    }
    let good = SubscribeRequest { verify: Verify::Async, ..of("two", "http://good/") };
    world.hub.subscribe(good.clone()).await.unwrap();
    passes(Duration::from_secs(1)).await;
    assert!(world.hub.get(&good.key).is_some_and(|held| held.is_active()));
    // And it is asked by few at once.
    assert!(world.web.requests("GET", "hangs").len() <= 8);
}

#[tokio::test(start_paused = true)]
async fn hosts_of_strangers_that_hang_hold_up_nobody() {
    let world = open_to_strangers().await;
    hang(&world, 30, 20).await;
    passes(Duration::from_secs(1)).await;
    let stranger = |host: &str| to_topic(&world.settings, "https://blog/1", host);
    assert!(until_there(&world, stranger("http://a/")).await < SOON);
    // Nor later, when they are asked again and again.
    for number in 0..50 {
        passes(Duration::from_secs(7)).await;
        assert!(until_there(&world, stranger(&format!("http://b{number}/"))).await < SOON);
        let elsewhere = to_topic(&world.settings, "https://elsewhere/", &format!("http://c{number}/"));
        world.hub.subscribe(elsewhere).await.unwrap();
        passes(SOON).await;
        assert_eq!(world.web.requests("GET", &format!("c{number}")).len(), 1, "a denial");
    }
    for host in 0..30 {
        assert!(!world.web.requests("GET", &format!("hangs{host}")).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn however_many_hosts_of_strangers_hang_users_topics_and_queues_wait_for_none_and_strangers_for_a_while()
 {
    let world = open_to_strangers().await;
    let followed =
        SubscribeRequest { user: Some("one".into()), ..to(Resource::exchange("/", "x"), "#", "http://a/") };
    let queue = world.subscribe(followed.clone()).await.pseudo_queue.clone().unwrap();
    world.subscribe(to_topic(&world.settings, "https://blog/1", "http://reader/")).await;
    hang(&world, 320, 3).await;
    passes(Duration::from_secs(1)).await;
    // 1. Whoever logged in has its turn at once,
    assert!(until_there(&world, of("two", "http://good/")).await < SOON);
    // 2. a topic is fetched and handed out,
    world.hub.ping("https://blog/1").await.unwrap();
    passes(SOON).await;
    assert_eq!(world.web.taken("reader"), ["one"]);
    // 3. and a queue that nobody needs any more goes.
    assert!(world.hub.remove(&followed.key).await.unwrap());
    passes(SOON).await;
    assert!(!world.host().queues.has(&queue));
    // 4. A stranger waits until each of those before it was asked once, 32 or more at a time,
    let stranger = |host: &str| to_topic(&world.settings, "https://blog/1", host);
    let waited = until_there(&world, stranger("http://patient/")).await;
    assert!(waited <= Duration::from_secs(15) * (320 / 32), "{waited:?}");
    // 5. and no more than that: what they are is known from then on.
    for number in 0..50 {
        passes(Duration::from_secs(7)).await;
        assert!(until_there(&world, stranger(&format!("http://b{number}/"))).await < SOON);
    }
    let most = (0..320).map(|host| world.web.requests("GET", &format!("hangs{host}")).len()).max();
    assert!(most > Some(1), "they are asked again");
}

#[tokio::test(start_paused = true)]
async fn a_bug_in_a_chore_keeps_no_place_and_it_is_tried_again() {
    let world = World::new().await;
    world.web.asked("buggy", Act::Panics);
    let request = SubscribeRequest { verify: Verify::Async, ..of("one", "http://buggy/") };
    world.hub.subscribe(request.clone()).await.unwrap();
    passes(Duration::from_secs(1)).await;
    assert_eq!(world.web.requests("GET", "buggy").len(), 1);
    world.web.asked("buggy", Act::Well);
    world.until("the next try", || world.hub.get(&request.key).is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_being_stored_without_end_holds_up_no_other() {
    let world = World::new().await;
    let expiring = SubscribeRequest { lease_seconds: Some(60), ..to_queue("http://expiring/") };
    world.subscribe(expiring.clone()).await;
    let stuck = SubscribeRequest { lease_seconds: Some(60), ..to_queue("http://stuck/") };
    world.subscribe(stuck.clone()).await;
    // Renewing it never ends, and so it keeps its turn.
    world.store.stuck(true);
    let mut renewing = std::pin::pin!(world.hub.subscribe(stuck.clone()));
    tokio::select! {
        biased;
        renewed = &mut renewing => panic!("it must not end: {renewed:?}"),
        () = world.until("that it was asked", || world.web.requests("GET", "stuck").len() == 2) => {}
    }
    world.store.stuck(false);
    let others = async {
        // Twice as many as there were turns to share.
        for number in 0..128 {
            world.subscribe(to_queue(&format!("http://other{number}/"))).await;
        }
        world.web.posted("other0", Act::Status(503));
        world.publish("q", (0..500).map(|number| number.to_string())).await;
        let active = || world.hub.get(&expiring.key).unwrap().is_active();
        world.until("the end of another's lease", || !active()).await;
    };
    tokio::select! {
        biased;
        renewed = &mut renewing => panic!("it must not end: {renewed:?}"),
        () = others => {}
    }
    assert!(world.hub.get(&stuck.key).unwrap().is_active(), "its own lease ends when its turn is free");
}

/// What a ping of a topic without followers and a look at a page cost must not grow with the number of subscriptions. They are compared with
/// a walk over all subscriptions on the same machine at the same time: one that walks over them costs at least a part of that each time.
#[tokio::test]
async fn ten_thousand_subscriptions_make_a_ping_no_dearer() {
    const COUNT: usize = 10_000;
    const EACH: usize = 200;
    let world = World::with(settings(open)).await;
    for number in 0..COUNT {
        let mut request = to_topic(&world.settings, &format!("https://blog/{number}"), "http://a/");
        request.user = Some(format!("user{}", number % 100));
        let entry = ImportEntry { request, state: SubscriptionState::Inactive(WhyInactive::Imported) };
        world.hub.import(entry).await.unwrap();
    }
    let all = world.hub.all();
    assert!(all.len() == COUNT && all.is_sorted_by_key(|one| one.key.clone()));
    let last_but_one = &all[COUNT - 2].key;
    let [mut walk, mut pings, mut pages] = [Duration::MAX; 3];
    // The best of some rounds: what else the machine does is no matter.
    for _ in 0..10 {
        let began = Instant::now();
        assert_eq!(world.hub.all().len(), COUNT);
        walk = walk.min(began.elapsed());
        let began = Instant::now();
        for _ in 0..EACH {
            world.hub.ping("https://blog/none").await.unwrap();
        }
        pings = pings.min(began.elapsed());
        let began = Instant::now();
        for _ in 0..EACH {
            assert_eq!(world.hub.after(last_but_one).len(), 1);
        }
        pages = pages.min(began.elapsed());
    }
    for (what, took) in [("pings", pings), ("pages", pages)] {
        assert!(
            took < walk * 20,
            "{EACH} {what} took {took:?}, one walk over {COUNT} subscriptions {walk:?}"
        );
    }
}
