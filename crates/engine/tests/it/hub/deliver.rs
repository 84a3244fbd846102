//! Deliveries as they are by default: retry, breaker, dead letter; the subscription lives to the end of its lease.

use std::time::Duration;

use tokio::time::Instant;
use warren_engine::codes;
use warren_engine::consume::record::MessageStatus;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::hub::push::ids::IdSlots;
use warren_engine::hub::request::{Change, SubscribeRequest};
use warren_engine::hub::resource::Resource;
use warren_engine::hub::settings::HubSettings;
use warren_engine::hub::subscription::{Signing, SubscriptionState, WhyInactive};
use warren_engine::message::{HeaderValue, Message, Properties, Route};
use warren_engine::pipeline::outside::Hidden;
use warren_engine::statuses::Statuses;

use super::world::{Act, World, passes, to, to_queue};

const DEAD: &str = "warren.hub.dead";

#[tokio::test(start_paused = true)]
async fn a_message_arrives_byte_for_byte() {
    let world = World::new().await;
    let request = SubscribeRequest { basic_auth: Some(Hidden("dTpw".into())), ..to_queue("http://good/cb") };
    world.subscribe(request).await;
    let body = bytes::Bytes::from_static(b"\x00\xff\xfe body");
    let properties = Properties { content_type: Some("image/x".into()), ..Properties::default() };
    world.send(Route::Queue("q".into()), Message { body: body.clone(), properties }).await;
    world.until_taken("good", 1).await;
    let post = world.web.requests("POST", "good").pop().unwrap();
    assert_eq!((post.body, post.url.as_str()), (body, "http://good/cb?hub.topic=q"));
    assert_eq!(post.authorization, Some(Hidden("Basic dTpw".into())));
    assert!(post.headers.contains(&("content-type".into(), "image/x".into())));
    assert!(post.guard.is_some() && post.options.cut_answer && post.options.again_if_stale);
    assert_eq!(world.records.all().len(), 1, "it is on record");
}

#[tokio::test(start_paused = true)]
async fn what_a_renewal_changes_holds_from_the_next_message_on() {
    let world = World::new().await;
    let request = SubscribeRequest { secret: Some(Hidden("one".into())), ..to_queue("http://good/") };
    world.subscribe(request.clone()).await;
    let signature = || {
        let headers = world.web.requests("POST", "good").pop().unwrap().headers;
        headers.into_iter().find(|(name, _)| name == "x-hub-signature").map(|(_, value)| value)
    };
    world.publish("q", ["m"]).await;
    world.until_taken("good", 1).await;
    let first = signature().unwrap();
    let secret = Some(Hidden("two".into()));
    let renewal = SubscribeRequest { secret, signing: Signing::Sha512, ..request.clone() };
    world.hub.subscribe(renewal).await.unwrap();
    world.publish("q", ["m"]).await;
    world.until_taken("good", 2).await;
    let second = signature().unwrap();
    assert!(first.starts_with("sha256=") && second.starts_with("sha512="));
    let renewal = SubscribeRequest { secret: None, basic_auth: Some(Hidden("x".into())), ..request };
    world.hub.subscribe(renewal).await.unwrap();
    world.publish("q", ["m"]).await;
    world.until_taken("good", 3).await;
    assert_eq!(signature(), None, "a secret may vanish");
    assert!(world.web.requests("POST", "good").pop().unwrap().authorization.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_down_for_ten_minutes_gets_all() {
    for in_flight in [1, 10] {
        let world = World::new().await;
        let request = SubscribeRequest { max_in_flight: Some(in_flight), ..to_queue("http://down/") };
        world.subscribe(request.clone()).await;
        world.web.posted("down", Act::Down);
        let bodies: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        world.publish("q", bodies.clone()).await;
        passes(Duration::from_secs(600)).await;
        world.web.posted("down", Act::Well);
        world.until_taken("down", 40).await;
        let mut taken = world.web.taken("down");
        if in_flight > 1 {
            taken.sort_by_key(|body| body.parse::<u32>().unwrap());
        }
        assert_eq!(taken, bodies, "each once, in order where one is in flight");
        assert!(world.hub.get(&request.key).unwrap().is_active());
        assert_eq!(world.depth(DEAD), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_final_status_is_dead_lettered_at_once_and_the_subscription_stays() {
    let world = World::new().await;
    let final_statuses = Some(Statuses::parse("422").unwrap());
    let request = SubscribeRequest { final_statuses, ..to_queue("http://bad/") };
    world.subscribe(request.clone()).await;
    world.web.posted("bad", Act::Status(422));
    world.publish("q", ["m"]).await;
    world.until("the dead letter", || world.depth(DEAD) == 1).await;
    let dead = world.host().queues.messages(DEAD).pop().unwrap();
    assert_eq!(dead.body, "m");
    assert!(world.began.elapsed() < Duration::from_secs(5), "without a retry");
    let header = |name: &str| dead.properties.headers.get(name).cloned();
    assert_eq!(header("x-warren-status"), Some(HeaderValue::I64(422)));
    assert_eq!(header("x-warren-answer"), Some(HeaderValue::Text("says the receiver".into())));
    let held = world.hub.get(&request.key).unwrap();
    assert!(held.is_active() && held.errors.count == 1);
    // A receiver that has trouble of its own gets more time, and in the end the same.
    world.web.posted("bad", Act::Status(503));
    world.publish("q", ["n"]).await;
    world.until("the second", || world.depth(DEAD) == 2).await;
    assert!(world.began.elapsed() > Duration::from_secs(7 * 3600), "the whole schedule");
    // WebSub: it must be tried again for the next one.
    world.web.posted("bad", Act::Well);
    world.publish("q", ["o"]).await;
    world.until_taken("bad", 1).await;
}

/// Answers that a deployment, a proxy or an expired login gives to every request.
const PASSING: [u16; 14] = [301, 302, 307, 400, 401, 402, 403, 404, 405, 409, 411, 421, 451, 499];

#[tokio::test(start_paused = true)]
async fn any_answer_to_all_messages_for_ten_minutes_dead_letters_nothing() {
    for status in PASSING {
        let world = World::new().await;
        world.host().queues.declare("other");
        let (bad, good) = (to_queue("http://bad/"), to(Resource::queue("/", "other"), "t", "http://good/"));
        world.subscribe(bad.clone()).await;
        world.subscribe(good).await;
        world.web.posted("bad", Act::Status(status));
        let bodies: Vec<String> = (0..200).map(|number| number.to_string()).collect();
        world.publish("q", bodies.clone()).await;
        let began = Instant::now();
        world.publish("other", bodies.clone()).await;
        world.until_taken("good", 200).await;
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{status}: the healthy subscription is not held up"
        );
        passes(Duration::from_secs(600)).await;
        assert_eq!(world.depth(DEAD), 0, "{status}");
        assert_eq!(world.consumer(&bad.key), "paused", "{status}: the breaker opened");
        let tries = world.web.requests("POST", "bad").len();
        assert!(tries < 60, "{status}: {tries} requests in ten minutes");
        world.web.posted("bad", Act::Well);
        world.until_taken("bad", 200).await;
        let mut taken = world.web.taken("bad");
        taken.sort_by_key(|body| body.parse::<u32>().unwrap());
        assert_eq!((taken, world.depth(DEAD)), (bodies, 0), "{status}: each once");
        assert_eq!(world.web.taken("good").len(), 200);
        assert!(world.hub.get(&bad.key).unwrap().is_active());
    }
}

#[tokio::test(start_paused = true)]
async fn any_answer_to_one_message_is_retried_by_the_schedule_and_then_dead_lettered() {
    for status in PASSING {
        let world = World::new().await;
        world.subscribe(to_queue("http://bad/")).await;
        world.web.posted("bad", Act::Status(status));
        world.publish("q", ["m"]).await;
        world.until("the first try", || !world.web.requests("POST", "bad").is_empty()).await;
        passes(Duration::from_secs(7 * 3600)).await;
        assert_eq!(world.depth(DEAD), 0, "{status}");
        world.until("the dead letter", || world.depth(DEAD) == 1).await;
        let dead = world.host().queues.messages(DEAD).pop().unwrap();
        assert_eq!(dead.properties.headers.get("x-warren-status"), Some(&HeaderValue::I64(status.into())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_has_final_statuses_of_its_own_or_the_settings() {
    let mut settings = HubSettings::new(false);
    settings.final_statuses = Statuses::parse("4xx").unwrap();
    let world = World::with(settings).await;
    let own = |texts: &str| Some(Statuses::parse(texts).unwrap());
    for (host, finals) in [("settings", None), ("own", own("404")), ("nothing", own("none"))] {
        world.host().queues.declare(host);
        let request = to(Resource::queue("/", host), "t", &format!("http://{host}/"));
        world.subscribe(SubscribeRequest { final_statuses: finals, ..request }).await;
        world.web.posted(host, Act::Status(403));
        world.publish(host, ["m"]).await;
    }
    world
        .until("the first tries", || {
            ["settings", "own", "nothing"].iter().all(|host| !world.web.requests("POST", host).is_empty())
        })
        .await;
    passes(Duration::from_secs(3600)).await;
    assert_eq!(world.depth(DEAD), 1, "that of the settings");
    assert_eq!(world.web.requests("POST", "settings").len(), 1);
    // An operator changes it; that applies from the next try on.
    let key = to(Resource::queue("/", "own"), "t", "http://own/").key;
    let change = Change { final_statuses: Some(own("403")), ..Change::default() };
    let changed = world.hub.change(&key, change).await.unwrap().unwrap();
    assert_eq!((changed.final_statuses.clone(), changed.is_active()), (own("403"), true));
    world.until("the second", || world.depth(DEAD) == 2).await;
    let change = Change { final_statuses: Some(None), ..Change::default() };
    assert_eq!(world.hub.change(&key, change).await.unwrap().unwrap().final_statuses, None);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_sent_counts_for_the_breaker() {
    for kind in [FailureKind::Invalid, FailureKind::Internal, FailureKind::Refused, FailureKind::NotFound] {
        let world = World::new().await;
        let request = to_queue("http://bad/");
        world.subscribe(request.clone()).await;
        world.web.posted("bad", Act::Fails(kind));
        world.publish("q", (0..50).map(|number| number.to_string())).await;
        world.until("the breaker", || world.consumer(&request.key) == "paused").await;
        world.web.posted("bad", Act::Well);
        world.until_taken("bad", 50).await;
        assert_eq!(world.depth(DEAD), 0, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_asked_for_is_made() {
    let world = World::new().await;
    world.subscribe(to_queue("http://busy/")).await;
    world.web.posted("busy", Act::Busy(503, 3600));
    world.publish("q", ["m"]).await;
    world.until("the first try", || world.web.requests("POST", "busy").len() == 1).await;
    world.web.posted("busy", Act::Well);
    world.until_taken("busy", 1).await;
    assert!(world.began.elapsed() >= Duration::from_secs(3600));
}

#[tokio::test(start_paused = true)]
async fn gone_ends_the_subscription() {
    let world = World::new().await;
    let request = SubscribeRequest { max_in_flight: Some(1), ..to_queue("http://gone/") };
    world.subscribe(request.clone()).await;
    world.web.posted("gone", Act::Status(410));
    world.publish("q", ["1", "2", "3"]).await;
    world.until("its end", || world.consumer(&request.key) == "none").await;
    let held = world.hub.get(&request.key).unwrap();
    assert_eq!(held.state, SubscriptionState::Inactive(WhyInactive::Gone));
    world.until("rest", || world.host().queues.unsettled() == 0).await;
    assert_eq!(world.depth("q") + world.depth(DEAD), 3, "nothing is lost");
    assert_eq!(world.web.requests("POST", "gone").len(), 1, "nobody is bothered any more");
}

#[tokio::test(start_paused = true)]
async fn max_tps_is_one_budget_for_all_deliveries() {
    let world = World::new().await;
    let request = SubscribeRequest { max_tps: 5, max_in_flight: Some(8), ..to_queue("http://good/") };
    world.subscribe(request.clone()).await;
    world.publish("q", (0..50).map(|number| number.to_string())).await;
    world.until_taken("good", 50).await;
    let at = world.web.taken_at("good");
    let gaps: Vec<Duration> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap >= Duration::from_millis(199)), "{gaps:?}");
    assert!(at[49] - at[0] < Duration::from_secs(11), "and no slower than that");
    // A renewal without a limit lets go from the next message on.
    world.hub.subscribe(SubscribeRequest { max_tps: 0, ..request }).await.unwrap();
    world.publish("q", (0..50).map(|number| number.to_string())).await;
    world.until_taken("good", 100).await;
    let at = world.web.taken_at("good");
    assert!(at[99] - at[55] < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_costs_the_others_nothing() {
    let world = World::new().await;
    for number in 0..5 {
        world.host().queues.declare(&format!("q{number}"));
        let resource = Resource::queue("/", &format!("q{number}"));
        world.subscribe(to(resource, "t", &format!("http://h{number}/"))).await;
    }
    world.web.posted("h0", Act::Hangs);
    let began = Instant::now();
    for number in 0..5 {
        world.publish(&format!("q{number}"), (0..100).map(|number| number.to_string())).await;
    }
    for number in 1..5 {
        world.until_taken(&format!("h{number}"), 100).await;
    }
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(world.web.requests("POST", "h0").len() <= 10, "and holds no more than it may");
}

#[tokio::test(start_paused = true)]
async fn hole_6_no_number_of_failures_of_some_stops_the_others() {
    let acts = [
        Act::Panics,
        Act::Down,
        Act::Hangs,
        Act::Status(500),
        Act::Status(400),
        Act::Status(410),
        Act::Busy(503, 1),
    ];
    for mut settings in [HubSettings::new(false), HubSettings::new(true)] {
        settings.unsubscribe_on_http_post_error = false;
        let world = World::with(settings).await;
        let hosts: Vec<String> = (0..acts.len() * 2).map(|number| format!("h{number}")).collect();
        for (at, host) in hosts.iter().enumerate() {
            world.host().queues.declare(host);
            world.subscribe(to(Resource::queue("/", host), "t", &format!("http://{host}/"))).await;
            // Each second one is well.
            if at % 2 == 1 {
                world.web.posted(host, acts[at / 2].clone());
            }
        }
        let began = Instant::now();
        for host in &hosts {
            world.publish(host, (0..200).map(|number| number.to_string())).await;
        }
        for host in hosts.iter().step_by(2) {
            world.until_taken(host, 200).await;
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        // What they did for hours has not stopped anybody either, and nobody was forgotten.
        passes(Duration::from_secs(3 * 3600)).await;
        for host in hosts.iter().step_by(2) {
            world.publish(host, ["later"]).await;
            world.until_taken(host, 201).await;
        }
        assert_eq!(world.hub.all().len(), hosts.len());
        // Those that are well again take what comes, but for the one that said that it is gone.
        for (host, act) in hosts.iter().skip(1).step_by(2).zip(&acts) {
            world.web.posted(host, Act::Well);
            if !matches!(act, Act::Status(410)) || world.settings.compat {
                world.publish(host, ["last"]).await;
                world.until("the last", || world.web.taken(host).iter().any(|body| body == "last")).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_away_is_waited_for() {
    let mut world = World::new().await;
    let request = to_queue("http://good/");
    world.subscribe(request.clone()).await;
    world.until("the consumer", || world.consumer(&request.key) == "consuming").await;
    world.host().queues.delete("q");
    world.until("that it waits", || world.consumer(&request.key) == "waiting").await;
    passes(Duration::from_secs(3600)).await;
    world.restart().await; // RabbitHub deleted the subscription here
    world.until("that it waits", || world.consumer(&request.key) == "waiting").await;
    assert!(world.hub.get(&request.key).unwrap().is_active());
    world.host().queues.declare("q");
    world.publish("q", ["m"]).await;
    world.until_taken("good", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_says_why_it_waits_and_no_more_once_it_is_delivered_to() {
    let world = World::new().await;
    world.host().queues.declare("other");
    let (request, other) =
        (to_queue("http://good/"), to(Resource::queue("/", "other"), "t", "http://other/"));
    world.subscribe(request.clone()).await;
    world.subscribe(other.clone()).await;
    let id = request.key.id();
    let waits = || world.hub.waits_for(id).map(|failure| failure.code);
    let consumes = || world.consumer(&request.key) == "consuming";
    world.until("the consumer", consumes).await;
    assert_eq!((waits(), world.hub.waiting()), (None, 0));
    // The queue is deleted: the broker cancels the consumer.
    world.host().queues.delete("q");
    world.until("that it waits", || waits() == Some(codes::NO_SUCH_QUEUE)).await;
    assert_eq!(
        (world.hub.waiting(), world.hub.waits_for(other.key.id()).is_none()),
        (1, true),
        "one of them"
    );
    assert!(world.hub.get(&request.key).unwrap().is_active());
    world.host().queues.declare("q");
    world.until("that it consumes", consumes).await;
    assert_eq!((waits(), world.hub.waiting()), (None, 0));
    // The broker is away, refuses its login, or has no such virtual host any more.
    let failures = [
        (FailureKind::Disconnected, codes::BROKER_UNREACHABLE),
        (FailureKind::Refused, codes::ACCESS_REFUSED),
        (FailureKind::NotFound, codes::UNKNOWN_VHOST),
    ];
    for (kind, code) in failures {
        world.host().refuses_consumers(Some(Failure::new(kind, code, "consume")));
        world.host().queues.disconnect();
        world.until("that it waits", || waits() == Some(code)).await;
        world.host().refuses_consumers(None);
        world.until("that it consumes", consumes).await;
        assert_eq!(waits(), None, "{code}");
    }
    // A receiver that is down is no reason to wait for the queue.
    world.web.posted("good", Act::Down);
    world.publish("q", (0..20).map(|number| number.to_string())).await;
    world.until("the breaker", || world.consumer(&request.key) == "paused").await;
    assert_eq!(waits(), None);
    world.hub.end(id, WhyInactive::Unsubscribed).await.unwrap();
    world.until("its end", || world.consumer(&request.key) == "none").await;
    assert_eq!(world.hub.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_queue_of_ours_that_was_deleted_comes_back_bound() {
    let world = World::new().await;
    let request = to(Resource::exchange("/", "x"), "#", "http://good/");
    let queue = world.subscribe(request.clone()).await.pseudo_queue.clone().unwrap();
    world.until("the consumer", || world.consumer(&request.key) == "consuming").await;
    warren_engine::hub::ports::Estate::delete(&*world.estate, &Resource::queue("/", &queue)).await.unwrap();
    assert!(world.host().bindings().is_empty());
    world.until("that it is back", || world.host().bindings().len() == 1).await;
    let route = Route::Exchange { exchange: "x".into(), routing_key: "a".into() };
    world.send(route, Message { body: "m".into(), properties: Properties::default() }).await;
    world.until_taken("good", 1).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_when_the_process_dies_again_and_again() {
    let mut world = World::new().await;
    let requests: Vec<_> = (0..3).map(|number| to_queue(&format!("http://h{number}/"))).collect();
    for request in &requests {
        world.subscribe(request.clone()).await;
    }
    let all = 200;
    for round in 0..20 {
        let bodies = (round * all / 20..(round + 1) * all / 20).map(|number| number.to_string());
        world.publish("q", bodies).await;
        world.web.posted("h1", if round % 2 == 0 { Act::Down } else { Act::Well });
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        world.restart().await;
        assert_eq!(world.hub.all().len(), 3, "no subscription is forgotten");
    }
    world.web.posted("h1", Act::Well);
    let arrived = || {
        let mut taken: Vec<u32> = (0..3)
            .flat_map(|number| world.web.taken(&format!("h{number}")))
            .map(|body| body.parse().unwrap())
            .collect();
        taken.extend(
            world
                .host()
                .queues
                .messages(DEAD)
                .iter()
                .map(|message| String::from_utf8_lossy(&message.body).parse::<u32>().unwrap()),
        );
        taken.sort_unstable();
        taken.dedup();
        taken.len()
    };
    world.until("all of them", || arrived() == all as usize).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_parked_of_one_that_ends_goes_back_to_its_queue() {
    let world = World::new().await;
    world.host().queues.refuses_to_declare(true); // so messages are parked
    let request = to_queue("http://bad/");
    world.subscribe(request.clone()).await;
    world.web.posted("bad", Act::Status(503));
    world.publish("q", ["1", "2"]).await;
    world.until("that they are parked", || world.parking.all().len() == 2).await;
    world.hub.end(request.key.id(), WhyInactive::Unsubscribed).await.unwrap();
    world.until("that they are back", || world.depth("q") == 2).await;
    assert!(world.parking.all().is_empty());
    world.web.posted("bad", Act::Well);
    world.subscribe(request).await;
    world.until_taken("bad", 2).await;
}

#[tokio::test(start_paused = true)]
async fn an_orderly_end_hands_back_what_is_not_done() {
    let mut settings = HubSettings::new(true);
    settings.unsubscribe_on_http_post_error = false;
    let mut world = World::with(settings).await;
    world.web.posted("down", Act::Down);
    world.subscribe(to_queue("http://down/")).await;
    world.publish("q", ["1", "2"]).await;
    passes(Duration::from_secs(100)).await;
    let began = Instant::now();
    world.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5), "it does not wait for the grace");
    assert_eq!(world.depth("q"), 2);
    assert!(world.records.all().iter().all(|run| run.status == MessageStatus::HandedBack));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_idle_subscriptions_do_nothing() {
    let world = World::new().await;
    let mut keys = Vec::new();
    for number in 0..1000 {
        let request = SubscribeRequest {
            lease_seconds: Some(86_400),
            ..to(Resource::queue("/", "q"), "t", &format!("http://h{number}/"))
        };
        keys.push(request.key.clone());
        world.hub.subscribe(request).await.unwrap();
    }
    world.until("the consumers", || keys.iter().all(|key| world.consumer(key) == "consuming")).await;
    let before = world.host().queues.events().len();
    passes(Duration::from_secs(3600)).await;
    assert_eq!(world.host().queues.events().len(), before);
    let looked = world
        .hub
        .consumers()
        .iter()
        .all(|(_, status)| status.reconnects.load(std::sync::atomic::Ordering::Relaxed) == 0);
    assert!(looked && world.web.requests("POST", "h0").is_empty());
}

/// The `webhook-id` of each request to the receiver, in order.
fn webhook_ids(world: &World, host: &str) -> Vec<String> {
    let requests = world.web.requests("POST", host).into_iter();
    let id = |headers: Vec<(String, String)>| {
        headers.into_iter().find(|(name, _)| name == "webhook-id").map(|(_, value)| value)
    };
    requests.map(|request| id(request.headers).expect("it is signed")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_webhook_id_stays_the_same_until_the_message_is_taken() {
    for in_flight in [1, 10] {
        let mut world = World::new().await;
        let secret = Some(Hidden("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()));
        world
            .subscribe(SubscribeRequest {
                secret,
                signing: Signing::Standard,
                max_in_flight: Some(in_flight),
                ..to_queue("http://busy/")
            })
            .await;
        world.web.posted("busy", Act::Status(503));
        // Two that are alike, and enough others for the breaker to open.
        let others = (0..20).map(|number| number.to_string());
        let bodies: Vec<String> = ["same".to_owned(), "same".to_owned()].into_iter().chain(others).collect();
        world.publish("q", bodies.clone()).await;
        passes(Duration::from_secs(20 * 60)).await;
        let failed = webhook_ids(&world, "busy");
        world.restart().await;
        passes(Duration::from_secs(60)).await;
        world.web.posted("busy", Act::Well);
        world.until_taken("busy", bodies.len()).await;
        let all = webhook_ids(&world, "busy");
        let distinct = |ids: &[String]| ids.iter().collect::<std::collections::BTreeSet<_>>().len();
        assert!(all.len() > failed.len() && failed.len() > distinct(&failed), "messages were retried");
        assert_eq!(distinct(&all), bodies.len(), "an id for each message");
        let taken = &all[all.len() - bodies.len()..];
        assert_eq!(distinct(taken), bodies.len(), "each id was taken once: {all:?}");
        assert_eq!(world.ids.all().len(), 0, "nothing is left to be stored");
    }
}
