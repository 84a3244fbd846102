//! Entries of batches as they come, and what is made of them.

use proptest::prelude::*;

use super::*;
use crate::hub::subscription::{DeliveryErrors, SubscriptionKey};
use crate::message::HeaderValue;
use crate::pipeline::outside::Hidden;
use crate::statuses::Statuses;

fn subscription() -> Subscription {
    Subscription {
        key: SubscriptionKey {
            resource: Resource::exchange("v", "fx"),
            topic: "#".to_owned(),
            callback: "http://a.example/".to_owned(),
        },
        protocol: Protocol::Rabbithub,
        state: SubscriptionState::Active,
        lease_seconds: 60,
        expires_at_ms: 1_700_000_000_123,
        max_tps: 5,
        max_in_flight: Some(3),
        final_statuses: Some(Statuses::parse("404, 5xx").unwrap()),
        ha_mode: HaMode::Count(2),
        basic_auth: Some(Hidden("dTpw".to_owned())),
        secret: Some(Hidden("s3cret".to_owned())),
        signing: Signing::Sha512,
        contact: Some(Contact {
            app_name: "app".to_owned(),
            phone: Some("1".to_owned()),
            ..Contact::default()
        }),
        arguments: [("x".to_owned(), HeaderValue::U8(1))].into_iter().collect(),
        pseudo_queue: Some("warren.hub.1".to_owned()),
        user: Some("u".to_owned()),
        created_at_ms: 0,
        verified_at_ms: None,
        errors: DeliveryErrors::default(),
    }
}

#[test]
fn what_is_exported_is_imported() {
    let text = json!({ "subscriptions": [entry(&subscription(), Secrets::Revealed, None)] }).to_string();
    let rows = rows(text.as_bytes()).unwrap();
    let [Row { entry: Ok(ImportEntry { request, state }), .. }] = &rows[..] else { panic!("{rows:?}") };
    let sent = subscription();
    assert_eq!((&request.key, state), (&sent.key, &sent.state));
    assert_eq!((request.lease_seconds, request.max_tps), (Some(60), 5));
    assert_eq!((request.max_in_flight, request.ha_mode), (Some(3), Some(HaMode::Count(2))));
    assert_eq!(request.final_statuses, sent.final_statuses);
    assert_eq!((&request.basic_auth, &request.secret), (&sent.basic_auth, &sent.secret));
    assert_eq!((request.signing, &request.contact), (Signing::Sha512, &sent.contact));
    assert_eq!((&request.arguments, &request.user), (&sent.arguments, &sent.user));
}

#[test]
fn secrets_are_hidden_unless_revealed() {
    let text = json!([entry(&subscription(), Secrets::Hidden, None)]).to_string();
    assert!(!text.contains("dTpw") && !text.contains("s3cret"), "{text}");
    let row = rows(text.as_bytes()).unwrap().remove(0);
    assert_eq!(row.keeps, Keeps { basic_auth: true, secret: true });
    let request = row.entry.unwrap().request;
    assert_eq!((request.basic_auth, request.secret), (None, None));
}

/// Written as RabbitHub 3.6.6 writes it.
#[test]
fn an_old_export_is_taken_as_it_is() {
    let old = r#"{"subscriptions":[
        {"vhost":"rhtest2","resource_type":"queue","resource_name":"q1","topic":"t1","callback":"http://localhost:8999/rest/testcallback/1",
         "lease_expiry_time_microsec":1488381498543000,"lease_seconds":1000000,"ha_mode":"all","max_tps":0,"status":"active",
         "pseudo_queue":"[undefined]","outbound_auth":"undefined","contact":"undefined"},
        {"vhost":"/","resource_type":"exchange","resource_name":"x","topic":"","callback":"http://a/",
         "lease_seconds":5,"ha_mode":"none","max_tps":0,"status":"inactive","pseudo_queue":"{resource,<<\"/\">>,queue,<<\"amq.http.pseudoqueue-1\">>}",
         "outbound_auth":{"auth_type":"basic_auth","auth_config":"dTpw"},
         "contact":{"app_name":"app","contact_name":"undefined","phone":"undefined","email":"a@b","description":"undefined"}},
        {"vhost":"/","resource_type":"exchange","resource_name":"x","topic":"t","callback":"http://a/",
         "lease_seconds":5,"ha_mode":1,"max_tps":7,"status":"inactive",
         "outbound_auth":{"auth_type":"basic_auth","auth_config":"dTpw"},
         "contact":{"app_name":"app","contact_name":"undefined","phone":"undefined","email":"a@b","description":"undefined"}}
    ]}"#;
    let rows = rows(old.as_bytes()).unwrap();
    let first = rows[0].entry.as_ref().unwrap();
    assert_eq!(first.state, SubscriptionState::Active);
    assert_eq!((first.request.ha_mode, &first.request.contact), (Some(HaMode::All), &None));
    assert_eq!(rows[1].entry, Err("topic is missing".to_owned()));
    let third = rows[2].entry.as_ref().unwrap();
    assert_eq!(third.state, SubscriptionState::Inactive(WhyInactive::Imported));
    assert_eq!(third.request.basic_auth, Some(Hidden("dTpw".to_owned())));
    let contact = third.request.contact.as_ref().unwrap();
    assert_eq!((contact.phone.as_deref(), contact.email.as_deref()), (None, Some("a@b")));
}

#[test]
fn one_bad_entry_keeps_no_other_from_being_imported() {
    let good = json!({"vhost": "/", "resource_type": "queue", "resource_name": "q", "topic": "t", "callback": "http://a/"});
    let mut late = good.clone();
    late["max_tps"] = json!(9);
    let mut other_auth = good.clone();
    other_auth["outbound_auth"] = json!({"auth_type": "oauth"});
    let batch = json!({"anything": [good, 7, {"vhost": "/"}, other_auth, late]}).to_string();
    let rows = rows(batch.as_bytes()).unwrap();
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0].entry.as_ref().unwrap().request.max_tps, 9, "the last of equal keys counts");
    assert!(rows[1..].iter().all(|row| row.entry.is_err()));
}

#[test]
fn what_is_no_batch_is_refused() {
    for text in ["", "{}", "7", r#"{"a": 1}"#, "junk"] {
        assert_eq!(rows(text.as_bytes()), Err(JsonFault), "{text}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        rows(&bytes).ok();
    }

    #[test]
    fn any_members_are_read_or_refused(
        members in proptest::collection::btree_map(
            "vhost|resource_type|resource_name|topic|callback|status|outbound_auth|contact|lease_seconds|secret",
            prop_oneof!["queue|exchange|\\*\\*\\*|undefined|\\PC{0,9}".prop_map(Value::from), any::<i64>().prop_map(Value::from),
                Just(json!({"auth_type": "basic_auth"})), Just(json!([])), Just(Value::Null)],
            0..10,
        ),
    ) {
        let entry: Map<_, _> = members.into_iter().collect();
        prop_assert_eq!(rows(json!([entry]).to_string().as_bytes()).unwrap().len(), 1);
    }
}
