//! Forms, queries and JSON as they come, and what is read from them.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::message::HeaderValue;

const LEAST: &str = "hub.mode=subscribe&hub.callback=http%3A%2F%2Fa.example%2Fcb%3Fx%3D1%26y&hub.topic=blue";

fn of(text: &str, manner: Manner) -> Result<SubscribeRequest, Fault> {
    let form = Form::read(text.as_bytes(), Separators::AmpersandOrSemicolon);
    request(&Resource::queue("/", "foo"), Fields::of_form(&form), manner, Written::Form)
}

fn of_json(value: &serde_json::Value) -> Result<SubscribeRequest, Fault> {
    let fields = Fields::of_json(value.to_string().as_bytes()).map_err(|_| Fault::InvalidJson)?;
    request(&Resource::queue("/", "foo"), fields, Manner::Compat, Written::Json)
}

#[test]
fn the_parameters_of_a_form() {
    let request = of(
        &format!(
            "{LEAST}&hub.verify=sync&hub.lease_seconds=60000&hub.max_tps=5&hub.ha_mode=3abc&hub.basic_auth=dTpw\
             &hub.app_name=app;hub.email=a%40b&hub.secret=s+1&hub.max_in_flight=4&hub.signing=sha1\
             &hub.verify_token=t&hub.arguments=%7B%22x-match%22%3A%22any%22%2C%22n%22%3A1%7D&hub.foo=bar"
        ),
        Manner::Compat,
    )
    .unwrap();
    assert_eq!(request.key.callback, "http://a.example/cb?x=1&y");
    assert_eq!(request.key.topic, "blue");
    assert_eq!((request.mode, request.verify), (Mode::Subscribe, Verify::Sync));
    assert_eq!((request.lease_seconds, request.max_tps, request.max_in_flight), (Some(60000), 5, Some(4)));
    assert_eq!(request.ha_mode, Some(HaMode::Count(3)));
    assert_eq!(request.basic_auth, Some(Hidden("dTpw".to_owned())));
    assert_eq!(request.secret, Some(Hidden("s 1".to_owned())));
    assert_eq!(request.signing, Signing::Sha1);
    assert_eq!(request.verify_token.as_deref(), Some("t"));
    let contact = request.contact.unwrap();
    assert_eq!((contact.app_name.as_str(), contact.email.as_deref()), ("app", Some("a@b")));
    assert_eq!(request.arguments.get("n"), Some(&HeaderValue::I64(1)));
}

#[test]
fn json_and_form_say_the_same() {
    let json = of_json(&json!({"hub": {
        "callback": "http://a.example/cb?x=1&y", "topic": "blue", "mode": "subscribe", "verify": "sync",
        "lease_seconds": 60, "max_tps": 5, "ha_mode": 1, "basic_auth": "dTpw", "contact": {"app_name": "app"},
    }}));
    let form = of(
        &format!(
            "{LEAST}&hub.verify=sync&hub.lease_seconds=60&hub.max_tps=5&hub.ha_mode=1&hub.basic_auth=dTpw&hub.app_name=app"
        ),
        Manner::Compat,
    );
    assert_eq!(json, form);
    assert!(form.is_ok());
}

/// `ha_mode` alone once became the lease.
#[test]
fn ha_mode_in_json_is_no_lease() {
    let request = of_json(&json!({"hub": {
        "callback": "http://a/", "topic": "t", "mode": "subscribe", "verify": "sync", "ha_mode": 1,
    }}))
    .unwrap();
    assert_eq!((request.lease_seconds, request.ha_mode), (None, Some(HaMode::Count(1))));
}

#[test]
fn what_is_missing_or_wrong_is_said() {
    let missing = |what| Err(Fault::Missing(what));
    let cases = [
        ("hub.callback=http://a/&hub.topic=t&hub.verify=sync", missing("hub.mode")),
        ("hub.mode=&hub.callback=http://a/&hub.topic=t", missing("hub.mode")),
        ("", missing("hub.mode")),
        ("hub.mode=banana", Err(Fault::InvalidOperation)),
        ("hub.mode=subscribe&hub.topic=t&hub.verify=sync", missing("hub.callback")),
        ("hub.mode=subscribe&hub.callback=http://a/&hub.verify=sync", missing("hub.topic")),
        ("hub.mode=subscribe&hub.callback=http://a/&hub.topic=t", missing("hub.verify")),
        ("hub.mode=subscribe&hub.callback=http://a/&hub.topic=t&hub.verify=weird", Err(Fault::NoVerify)),
    ];
    for (text, expected) in cases {
        assert_eq!(of(text, Manner::Compat), expected, "{text}");
    }
    let with = |more: &str| of(&format!("{LEAST}&hub.verify=sync&{more}"), Manner::Own);
    assert_eq!(with("hub.email=a"), Err(Fault::NoAppName(Written::Form)));
    assert!(matches!(with("hub.basic_auth=a%0d%0aX%3A1"), Err(Fault::Bad("hub.basic_auth", _))));
    assert!(matches!(with("hub.max_in_flight=0"), Err(Fault::Bad("hub.max_in_flight", _))));
    assert!(matches!(with("hub.signing=md5"), Err(Fault::Bad("hub.signing", _))));
    assert!(matches!(with("hub.arguments=x"), Err(Fault::Bad("hub.arguments", _))));
    assert!(matches!(with(&format!("hub.secret={}", "s".repeat(200))), Err(Fault::Bad("hub.secret", _))));
    assert!(with(&format!("hub.secret={}", "s".repeat(199))).is_ok());
}

#[test]
fn ways_to_verify_stand_in_order_of_preference() {
    let way = |more: &str, manner| of(&format!("{LEAST}&{more}"), manner).map(|request| request.verify);
    assert_eq!(way("hub.verify=sync&hub.verify=async", Manner::Compat), Ok(Verify::Sync));
    assert_eq!(way("hub.verify=weird,async", Manner::Compat), Ok(Verify::Async));
    assert_eq!(way("hub.verify=async, sync", Manner::Own), Ok(Verify::Async));
    assert_eq!(way("", Manner::Own), Ok(Verify::Async));
    assert_eq!(way("hub.verify=weird", Manner::Websub), Ok(Verify::Async));
}

#[test]
fn a_websub_request_needs_three_parameters_and_ignores_the_rest() {
    let request =
        of(&format!("{LEAST}&foo=bar&hub.foo=hub.bar&hub.email=x&hub.basic_auth=%0a"), Manner::Websub)
            .unwrap();
    assert_eq!((request.protocol, request.verify), (Protocol::Websub, Verify::Async));
    assert_eq!((request.contact, request.basic_auth), (None, None));
}

#[test]
fn numbers_that_are_none() {
    assert_eq!(lease_seconds(Some("-5")), None);
    assert_eq!(lease_seconds(Some("0")), None);
    assert_eq!(lease_seconds(Some("ten")), None);
    assert_eq!(lease_seconds(Some("99999999999999999999999")), Some(u64::MAX));
    assert_eq!((max_tps(Some("-1")), max_tps(Some("x")), max_tps(Some("7"))), (0, 0, 7));
    assert_eq!(ha_mode("all"), HaMode::All);
    assert_eq!((ha_mode("-1"), ha_mode("x"), ha_mode("0")), (HaMode::None, HaMode::None, HaMode::None));
}

#[test]
fn a_media_type_is_compared_without_its_parameters() {
    assert_eq!(Media::of(None), Media::Form);
    assert_eq!(Media::of(Some("Application/X-WWW-form-urlencoded ; charset=UTF-8")), Media::Form);
    assert_eq!(Media::of(Some("application/json;charset=utf-8")), Media::Json);
    assert_eq!(Media::of(Some("text/plain")), Media::Other);
}

#[test]
fn a_trailing_comma_is_tolerated() {
    let read = |text: &str| lenient(text.as_bytes());
    assert_eq!(read(r#"{"a": [1, 2, ], "b,}": ",]", }"#), Ok(json!({"a": [1, 2], "b,}": ",]"})));
    assert_eq!(read(r#"{"a": "\",}" ,}"#), Ok(json!({"a": "\",}"})));
    assert_eq!(read("{,,}"), Err(JsonFault));
    assert_eq!(read("junk"), Err(JsonFault));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let form = Form::read(&bytes, Separators::Ampersand);
        request(&Resource::queue("/", "q"), Fields::of_form(&form), Manner::Own, Written::Form).ok();
        Fields::of_json(&bytes).ok();
    }

    #[test]
    fn any_values_are_read_or_refused(values in proptest::collection::vec("\\PC{0,40}", 12)) {
        let names = ["mode", "callback", "topic", "verify", "lease_seconds", "max_tps", "ha_mode", "basic_auth",
            "secret", "signing", "max_in_flight", "arguments"];
        let members: serde_json::Map<_, _> = names.iter().zip(&values)
            .map(|(name, value)| ((*name).to_owned(), serde_json::Value::from(value.clone()))).collect();
        request(&Resource::queue("/", "q"), Fields::of_members(&members), Manner::Own, Written::Json).ok();
    }

    #[test]
    fn a_text_comes_through_a_form_whole(value in "\\PC{0,60}") {
        let text = format!("hub.topic={}", percent_encoding::utf8_percent_encode(&value, percent_encoding::NON_ALPHANUMERIC));
        let form = Form::read(text.as_bytes(), Separators::AmpersandOrSemicolon);
        prop_assert_eq!(form.first("hub.topic"), Some(value.as_str()));
    }
}
