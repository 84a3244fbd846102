use super::*;
use crate::message::{Headers, Message, Properties};
use crate::sqs::{DEDUPLICATION_ID, GROUP_ID, set_attribute};

fn outbound(queue: &str, body: impl Into<bytes::Bytes>, headers: &[(&str, HeaderValue)]) -> Outbound {
    let headers: Headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Outbound {
        route: Route::Queue(queue.into()),
        message: Message { body: body.into(), properties: Properties { headers, ..Properties::default() } },
    }
}

fn text(text: &str) -> HeaderValue {
    HeaderValue::Text(text.to_owned())
}

#[track_caller]
fn fails(outbound: &Outbound, code: &str, says: &str) {
    let failure = check(outbound, MESSAGE_BYTES_MAX).expect_err("a rule is broken");
    assert_eq!(failure.code.as_str(), code, "{failure:?}");
    assert!(failure.line().contains(says), "{}", failure.line());
}

#[track_caller]
fn passes(outbound: &Outbound) {
    check(outbound, MESSAGE_BYTES_MAX).unwrap_or_else(|failure| panic!("{failure:?}"));
}

#[test]
fn bodies() {
    passes(&outbound("q", "\u{9}\u{A}\u{D} ~\u{D7FF}\u{E000}\u{FFFD}\u{10000}\u{10FFFF}", &[]));
    passes(&outbound("q", "\u{FEFF}ｆ", &[]));
    fails(&outbound("q", "", &[]), "empty-message", "empty");
    fails(&outbound("q", vec![b'a', 0xFF], &[]), "invalid-characters", "byte 1 is 0xFF");
    for bad in ['\u{0}', '\u{8}', '\u{B}', '\u{C}', '\u{E}', '\u{1F}', '\u{FFFE}', '\u{FFFF}'] {
        let body = format!("ab{bad}");
        fails(
            &outbound("q", body, &[]),
            "invalid-characters",
            &format!("U+{:04X} at byte 2", u32::from(bad)),
        );
    }
}

#[test]
fn sizes_count_attributes() {
    let mut exact = outbound("q", vec![b'x'; (1 << 20) - 15], &[]);
    set_attribute(&mut exact.message.properties.headers, "abc", "String", text("123456"));
    passes(&exact); // 3 + 6 + 6
    set_attribute(&mut exact.message.properties.headers, "abc", "String", text("1234567"));
    fails(&exact, "message-too-large", "1048577 bytes of 1048576");
    let old = outbound("q", vec![b'x'; 262_145], &[]);
    let failure = check(&old, 262_144).expect_err("an old queue takes 256 KiB");
    assert_eq!(failure.code, codes::MESSAGE_TOO_LARGE);
}

#[test]
fn groups_and_deduplication() {
    let group = |group: &str| outbound("q.fifo", "x", &[(GROUP_ID, text(group))]);
    passes(&group("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~aZ09"));
    passes(&group(&"g".repeat(128)));
    fails(&group(&"g".repeat(129)), "invalid-group-id", "129 characters");
    fails(&group("a b"), "invalid-group-id", "a space");
    fails(&group("ä"), "invalid-group-id", "`ä`");
    fails(&group(""), "invalid-group-id", "empty");
    fails(&outbound("q.fifo", "x", &[]), "missing-group-id", "q.fifo");
    fails(&outbound("https://sqs.eu-west-1.amazonaws.com/1/q.fifo", "x", &[]), "missing-group-id", "q.fifo");
    passes(&outbound("q", "x", &[(GROUP_ID, text("tenant"))]));
    let id = |id: &str| outbound("q.fifo", "x", &[(GROUP_ID, text("g")), (DEDUPLICATION_ID, text(id))]);
    passes(&id("d"));
    fails(&id("d d"), "invalid-deduplication-id", "a space");
    fails(&id(&"d".repeat(129)), "invalid-deduplication-id", "129");
}

#[test]
fn delays() {
    let delay = |queue: &str, seconds| {
        outbound(queue, "x", &[(DELAY_SECONDS, HeaderValue::I64(seconds)), (GROUP_ID, text("g"))])
    };
    passes(&delay("q", 0));
    passes(&delay("q", 900));
    fails(&delay("q", 901), "invalid-delay", "901");
    fails(&delay("q", -1), "invalid-delay", "-1");
    passes(&delay("q.fifo", 0));
    fails(&delay("q.fifo", 1), "invalid-delay", "q.fifo");
    fails(&outbound("q", "x", &[(DELAY_SECONDS, text("soon"))]), "invalid-delay", "soon");
}

#[test]
fn attributes_have_rules_for_name_type_and_value() {
    let with = |name: &str, kind: &str, value: HeaderValue| {
        let mut outbound = outbound("q", "x", &[]);
        set_attribute(&mut outbound.message.properties.headers, name, kind, value);
        outbound
    };
    let many = |count: usize| {
        let mut outbound = outbound("q", "x", &[]);
        for at in 0..count {
            outbound.message.properties.headers.set(format!("a{at}"), text("v"));
        }
        outbound
    };
    passes(&many(10));
    fails(&many(11), "too-many-attributes", "11 attributes");
    passes(&with("aZ_0-9.x", "Number.float", text("1.5e3")));
    passes(&with("b", "Binary.png", HeaderValue::Bytes(vec![0, 1])));
    passes(&with(&"n".repeat(256), "String.x.y", text("é")));
    for (name, says) in [
        ("", "no name"),
        ("a b", "a space"),
        ("é", "`é`"),
        (".a", "dot"),
        ("a.", "dot"),
        ("a..b", "dot"),
        ("aWs.x", "AWS."),
        ("AMAZON.x", "Amazon."),
    ] {
        fails(&with(name, "String", text("v")), "invalid-attribute", says);
    }
    fails(&with(&"n".repeat(257), "String", text("v")), "invalid-attribute", "257");
    for kind in ["", "string", "StringList", "Integer", "Number.", "String.a b"] {
        fails(&with("a", kind, text("1")), "invalid-attribute", "type");
    }
    fails(&with("a", &format!("String.{}", "l".repeat(250)), text("1")), "invalid-attribute", "256");
    fails(&with("a", "String", text("")), "invalid-attribute", "empty");
    fails(&with("a", "Binary", HeaderValue::Bytes(vec![])), "invalid-attribute", "empty");
    fails(&with("a", "Number", text("12x")), "invalid-attribute", "not a number");
    fails(&with("a", "Number", text(&"1".repeat(39))), "invalid-attribute", "39");
    fails(&with("a", "String", text("\u{1}")), "invalid-characters", "attribute `a`");
    fails(&with("a", "Binary", text("x")), "invalid-attribute", "text");
    fails(&with("a", "String", HeaderValue::Bytes(vec![1])), "invalid-attribute", "bytes");
}

#[test]
fn an_exchange_is_no_queue() {
    let mut outbound = outbound("q", "x", &[]);
    outbound.route = Route::Exchange { exchange: "events".into(), routing_key: "k".into() };
    fails(&outbound, "no-such-exchange", "queues only");
}
