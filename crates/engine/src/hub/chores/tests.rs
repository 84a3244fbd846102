//! Chores that wait, are done and are given up; and how they are written down.

use super::*;
use crate::hub::request::{Mode, Verify};
use crate::hub::resource::Resource;
use crate::hub::subscription::{Contact, HaMode, Protocol, Signing};
use crate::memory::MemorySubscriptions;
use crate::message::{HeaderValue, Headers};
use crate::pipeline::outside::Hidden;
use crate::statuses::Statuses;

fn fetch(topic: &str) -> Chore {
    Chore::Fetch { topic: topic.into() }
}

#[tokio::test]
async fn one_is_done_and_one_waits_however_often_it_is_asked_for() {
    let store = MemorySubscriptions::default();
    let chores = Chores::open(&store, 0).await.unwrap();
    for _ in 0..3 {
        chores.add(&store, fetch("a"), 0).await.unwrap();
    }
    let first = chores.take(0).unwrap();
    assert!(chores.take(0).is_none(), "one under way");
    chores.add(&store, fetch("a"), 1).await.unwrap();
    store.full(true); // what waits already is not written again
    for _ in 0..3 {
        chores.add(&store, fetch("a"), 1).await.unwrap();
    }
    store.full(false);
    assert!(chores.take(1).is_none(), "the next waits for it");
    chores.done(&store, first, Tried::Over, 2).await.unwrap();
    let second = chores.take(2).unwrap();
    chores.done(&store, second, Tried::Over, 3).await.unwrap();
    assert_eq!((chores.pending(), chores.next_ms()), (0, None));
    assert!(store.names(PREFIX).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_forgotten_while_it_is_done_gives_its_place_back() {
    let store = MemorySubscriptions::default();
    let chores = Chores::open(&store, 0).await.unwrap();
    for number in 0..20 {
        chores.add(&store, fetch(&format!("http://slow/{number}")), 0).await.unwrap();
    }
    let first = chores.take(0).unwrap();
    assert!(chores.take(0).is_none(), "a host of which nothing is known");
    chores.forget(&store, &first.name).await.unwrap();
    chores.done(&store, first, Tried::Over, 100).await.unwrap();
    let under_way: Vec<Taken> = std::iter::from_fn(|| chores.take(100)).collect();
    assert_eq!(under_way.len(), turns::OF_HOST_MAX);
    assert_eq!(chores.next_ms(), None, "nothing to wake up for");
    for taken in under_way {
        chores.done(&store, taken, Tried::Over, 20_000).await.unwrap();
    }
    assert_eq!(std::iter::from_fn(|| chores.take(20_000)).count(), 1, "it was slow");
}

#[tokio::test]
async fn one_asker_leaves_room_for_others_and_what_is_ours_is_always_taken() {
    let store = MemorySubscriptions::default();
    let chores = Chores::open(&store, 0).await.unwrap();
    for number in 0..PENDING_OF_ASKER_MAX {
        chores.add(&store, fetch(&format!("http://h/{number}")), 0).await.unwrap();
    }
    let failure = chores.add(&store, fetch("http://h/more"), 0).await.unwrap_err();
    assert_eq!(failure.code, codes::HUB_BUSY);
    chores.add(&store, fetch("http://h/0"), 0).await.unwrap(); // waits already
    let key = SubscriptionKey {
        resource: crate::hub::resource::Resource::queue("/", "q"),
        topic: "t".into(),
        callback: "http://c/".into(),
    };
    chores.add(&store, Chore::Deny { key, reason: "no".into() }, 0).await.unwrap();
    let binding = HubBinding {
        vhost: "/".into(),
        exchange: "x".into(),
        queue: "q".into(),
        routing_key: String::new(),
        arguments: Headers::default(),
    };
    for number in 0..PENDING_MAX {
        let (id, binding) = (number.to_string(), binding.clone());
        chores.add(&store, Chore::Rest { id, binding, rest: Rest::Deleted }, 0).await.unwrap();
    }
    // What is ours takes nobody's room.
    let verify = |user: Option<&str>, number: usize| {
        let mut request =
            SubscribeRequest { mode: Mode::Subscribe, user: user.map(str::to_owned), ..asked() };
        request.key.callback = format!("http://h{number}/");
        Chore::Verify(Box::new(request))
    };
    for number in 1..PENDING_OF_ASKER_MAX {
        chores.add(&store, verify(None, number), 0).await.unwrap();
    }
    // Publishers and strangers have taken all of it: others have their share even so.
    for user in ["one", "two"] {
        for number in 0..RESERVED_OF_ASKER {
            chores.add(&store, verify(Some(user), number + PENDING_MAX * user.len()), 0).await.unwrap();
        }
        let one_more = chores.add(&store, verify(Some(user), usize::MAX), 0).await.unwrap_err();
        assert_eq!(one_more.code, codes::HUB_BUSY);
        let name = verify(Some(user), PENDING_MAX * user.len()).name();
        chores.forget(&store, &name).await.unwrap();
    }
}

#[tokio::test]
async fn what_fails_is_tried_again_and_given_up_in_the_end() {
    let store = MemorySubscriptions::default();
    let chores = Chores::open(&store, 0).await.unwrap();
    chores.add(&store, fetch("a"), 0).await.unwrap();
    let mut at = Vec::new();
    while let Some(next) = chores.next_ms() {
        at.push(next / 1000);
        let taken = chores.take(next).unwrap();
        chores.done(&store, taken, Tried::Again("no".into()), next).await.unwrap();
    }
    assert_eq!(at, [0, 10, 40, 160, 760]);
}

#[tokio::test]
async fn what_a_process_left_is_done_by_the_next() {
    let store = MemorySubscriptions::default();
    Chores::open(&store, 0).await.unwrap().add(&store, fetch("a"), 7).await.unwrap();
    let chores = Chores::open(&store, 50).await.unwrap();
    assert_eq!(chores.take(50).unwrap().chore, fetch("a"));
}

/// A request with all that can be asked for.
fn asked() -> SubscribeRequest {
    SubscribeRequest {
        key: SubscriptionKey {
            resource: Resource::exchange("/", "x"),
            topic: "a.#".into(),
            callback: "https://h/p?t=1".into(),
        },
        protocol: Protocol::Rabbithub,
        mode: Mode::Unsubscribe,
        verify: Verify::Async,
        verify_token: Some("token".into()),
        lease_seconds: Some(60),
        max_tps: 5,
        max_in_flight: Some(3),
        final_statuses: None,
        ha_mode: Some(HaMode::Count(2)),
        basic_auth: Some(Hidden("dTpw".into())),
        secret: Some(Hidden("s".into())),
        signing: Signing::Sha512,
        contact: Some(Contact { app_name: "app".into(), ..Contact::default() }),
        arguments: [("format".to_owned(), HeaderValue::Text("pdf".into()))].into_iter().collect(),
        user: Some("one".into()),
    }
}

/// As version 0.1 wrote it.
const VERIFY: &str = r#"{"begun_at_ms":7,"chore":{"verify":{"key":{"resource":{"vhost":"/","kind":"exchange","name":"x"},"topic":"a.#","callback":"https://h/p?t=1"},"protocol":"rabbithub","unsubscribe":true,"verify_token":"token","lease_seconds":60,"max_tps":5,"max_in_flight":3,"ha_mode":{"count":2},"basic_auth":"dTpw","secret":"s","signing":"sha512","contact":{"app_name":"app"},"arguments":[["format",{"text":"pdf"}]],"user":"one"}}}"#;
const BARE: &str = r#"{"begun_at_ms":7,"chore":{"verify":{"key":{"resource":{"vhost":"/","kind":"queue","name":"q"},"topic":"t","callback":"http://h/"},"protocol":"websub","unsubscribe":false,"signing":"sha256"}}}"#;
const DENY: &str = r#"{"begun_at_ms":7,"chore":{"deny":{"key":{"resource":{"vhost":"/","kind":"queue","name":"q"},"topic":"t","callback":"http://h/"},"reason":"no"}}}"#;
const REST: &str = r#"{"begun_at_ms":7,"chore":{"rest":{"id":"0a","binding":{"vhost":"/","exchange":"x","queue":"q","routing_key":"k","arguments":[]},"rest":"deleted"}}}"#;
const FETCH: &str = r#"{"begun_at_ms":7,"chore":{"fetch":{"topic":"http://h/"}}}"#;

#[test]
fn what_is_stored_is_read_and_written_as_before() {
    for text in [VERIFY, DENY, REST, FETCH] {
        let stored: Stored = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&stored).unwrap(), text);
    }
    let chore = |text| serde_json::from_str::<Stored>(text).unwrap().chore;
    assert_eq!(chore(VERIFY), Chore::Verify(Box::new(asked())));
    let asked = asked();
    let bare = SubscribeRequest {
        key: SubscriptionKey {
            resource: Resource::queue("/", "q"),
            topic: "t".into(),
            callback: "http://h/".into(),
        },
        protocol: Protocol::Websub,
        mode: Mode::Subscribe,
        verify: Verify::Async,
        verify_token: None,
        lease_seconds: None,
        max_tps: 0,
        max_in_flight: None,
        final_statuses: None,
        ha_mode: None,
        basic_auth: None,
        secret: None,
        signing: Signing::Sha256,
        contact: None,
        arguments: Headers::default(),
        user: None,
    };
    assert_eq!(chore(BARE), Chore::Verify(Box::new(bare)), "what is not there");
    let finals =
        SubscribeRequest { final_statuses: Some(Statuses::parse("404, 5xx").unwrap()), ..self::asked() };
    let text =
        serde_json::to_string(&Stored { begun_at_ms: 7, chore: Chore::Verify(Box::new(finals.clone())) })
            .unwrap();
    assert_eq!(chore(&text), Chore::Verify(Box::new(finals)));
    // A chore is no means to show a secret.
    let shown = format!("{:?}", Chore::Verify(Box::new(asked)));
    assert!(!shown.contains("dTpw") && shown.contains("basic_auth: Some(***)"), "{shown}");
}
