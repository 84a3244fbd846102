//! Properties that hold for any template and any row.
//!
//! Templates are made from pieces that are mostly well formed, so that many are accepted; rows hold
//! every kind of value. Whatever is accepted either fails for the row or writes JSON, and each value
//! parses back to the row's.

use proptest::prelude::*;
use warren_liquid::{Format, Options, Template, Val, json};

use crate::data::{Data, Entries, Items};
use crate::drive::{drive, drive_bytes, options};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,12}",
        "[\"\\\\\u{0}-\u{1f}a{}%]{0,12}",
        Just("}}{{%}\"',:[]".to_owned()),
        "[0-9]{1,4}(\\.[0-9]{1,3})?",
    ]
}

fn data() -> impl Strategy<Value = Data> {
    let leaf = prop_oneof![
        Just(Data::Nil),
        any::<bool>().prop_map(Data::Bool),
        any::<i64>().prop_map(Data::Int),
        any::<u64>().prop_map(Data::UInt),
        any::<f64>().prop_map(Data::Float),
        "-?[0-9]{1,30}(\\.[0-9]{1,12})?".prop_map(Data::Decimal),
        text().prop_map(Data::Str),
        text().prop_map(Data::Str),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(Data::Bytes),
        any::<i32>().prop_map(Data::Date),
        (0..86_400_000_000_i64).prop_map(Data::Time),
        any::<i64>().prop_map(Data::DateTime),
        (any::<i64>(), -900..900_i16).prop_map(|(micros, offset)| Data::Timestamp(micros, offset)),
        any::<[u8; 16]>().prop_map(Data::Uuid),
        text().prop_map(|text| Data::Json(serde_json::json!({"a": [text, 1.50, null]}).to_string())),
        text().prop_map(Data::Json),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| Data::List(Items(items))),
            prop::collection::vec((text(), inner), 0..4).prop_map(|entries| Data::Map(Entries(entries))),
        ]
    })
}

fn globals() -> impl Strategy<Value = Entries> {
    (data(), data(), data(), prop::collection::vec(data(), 0..4)).prop_map(|(a, b, c, list)| {
        let row = Entries(vec![
            ("a".to_owned(), a),
            ("b".to_owned(), b),
            ("c".to_owned(), c),
            ("list".to_owned(), Data::List(Items(list))),
        ]);
        Entries(vec![("row".to_owned(), Data::Map(row)), ("op".to_owned(), Data::Str("added".to_owned()))])
    })
}

const EXPRESSIONS: &[&str] = &[
    "row.a",
    "row.b",
    "row.c",
    "row.list",
    "row.list[0]",
    "row.c.a",
    "x",
    "y",
    "op",
    "row",
    "'t\"'",
    "1",
    "2.5",
    "nil",
    "(1..3)",
    "blank",
    "forloop.index",
    "row.a.size",
    "row['b']",
    "row.c.first",
    "row.a[row.b]",
];

const FILTERS: &[&str] = &[
    "upcase",
    "append: row.b",
    "plus: 1",
    "times: row.b",
    "divided_by: 3",
    "split: ''",
    "join: ','",
    "json",
    "size",
    "default: 'd'",
    "first",
    "last",
    "sort",
    "uniq",
    "map: 'a'",
    "where: 'a'",
    "date: '%Y-%m-%dT%H:%M'",
    "base64",
    "sha256",
    "truncate: 3",
    "slice: 1, 2",
    "reverse",
    "escape",
    "round: 2",
    "sum",
    "compact",
    "url_encode",
    "replace: 'a', row.b",
    "strip_html",
    "concat: row.list",
    "sort_natural",
    "has: 'a'",
    "url_decode",
    "floor",
    "truncatewords: 1",
    "strip",
    "base64_decode",
    "modulo: row.b",
    "at_most: row.b",
    "newline_to_br",
    "squish",
];

fn chain() -> impl Strategy<Value = String> {
    (prop::sample::select(EXPRESSIONS), prop::collection::vec(prop::sample::select(FILTERS), 0..3)).prop_map(
        |(expression, filters)| {
            filters.iter().fold(expression.to_owned(), |chain, filter| format!("{chain} | {filter}"))
        },
    )
}

fn condition() -> impl Strategy<Value = String> {
    let operator = prop::sample::select(&["==", "!=", "<", ">=", "contains"][..]);
    let expression = || prop::sample::select(EXPRESSIONS);
    prop_oneof![
        expression().prop_map(str::to_owned),
        (expression(), operator.clone(), expression()).prop_map(|(a, o, b)| format!("{a} {o} {b}")),
        (expression(), operator, expression(), expression())
            .prop_map(|(a, o, b, c)| format!("{c} and {a} {o} {b} or {c}")),
    ]
}

/// Text for the inside of a string.
fn inside() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        chain().prop_map(|chain| format!("{{{{ {chain} }}}}")),
        chain().prop_map(|chain| format!("{{{{- {chain} -}}}}")),
        "[a-z ,:]{0,5}",
        Just("\\n\\u0041\\\"".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (condition(), inner.clone(), inner.clone())
                .prop_map(|(test, a, b)| format!("{{% if {test} %}}{a}{{% else %}}{b}{{% endif %}}")),
            inner.clone().prop_map(|body| format!("{{% for x in row.list %}}{body}{{% endfor %}}")),
            inner
                .clone()
                .prop_map(|body| format!("{{% tablerow y in row.list cols:2 %}}{body}{{% endtablerow %}}")),
            (inner.clone(), inner).prop_map(|(a, b)| a + &b),
        ]
    })
    .boxed()
}

/// Text for the place of a value: usually one value, at times something else.
fn value() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        4 => chain().prop_map(|chain| format!("{{{{ {chain} }}}}")),
        2 => inside().prop_map(|inside| format!("\"{inside}\"")),
        1 => prop::sample::select(&["1", "-2.5e3", "null", "true", "\"\"", "[]", "{}", "{% cycle 'a', row.b %}",
            "{% increment n %}", "{% render 'value' %}", "{% render 'value' with row.a %}", "\"{% include 'text' %}\"",
            "{{ row.a | raw }}", "\"{{ row.a | raw }}\""][..]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let comma = prop::sample::select(&["{% unless forloop.last %},{% endunless %}", ",", ""][..]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((inside(), inner.clone()), 0..4).prop_map(|members| {
                let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
                format!("{{ {} }}", members.join(", "))
            }),
            (chain(), inner.clone()).prop_map(|(name, value)| format!("{{ {{{{ {name} }}}}: {value} }}")),
            (condition(), inner.clone(), inner.clone())
                .prop_map(|(test, a, b)| format!("{{% if {test} %}}{a}{{% else %}}{b}{{% endif %}}")),
            (condition(), inner.clone(), inner.clone())
                .prop_map(|(test, a, b)| format!("[{a}{{% if {test} %}},{b}{{% endif %}}]")),
            (inner.clone(), comma).prop_map(|(body, comma)| {
                format!("[{{% for x in row.list %}}{body}{comma}{{% endfor %}}]")
            }),
            (inner.clone(), condition()).prop_map(|(body, test)| {
                format!("[0{{% for x in row.list %}}{{% if {test} %}}{{% break %}}{{% endif %}}, {body}{{% endfor %}}]")
            }),
            (prop::sample::select(EXPRESSIONS), inner.clone(), inner.clone()).prop_map(|(subject, a, b)| {
                format!("{{% case {subject} %}}{{% when 1, 'a' %}}{a}{{% when row.b %}}{b}{{% else %}}{a}{{% endcase %}}")
            }),
            (inside(), inner.clone())
                .prop_map(|(body, value)| format!("{{% capture y %}}{body}{{% endcapture %}}{value}")),
            (chain(), inner.clone()).prop_map(|(chain, value)| format!("{{% assign y = {chain} %}}{value}")),
            inner.prop_map(|body| format!("{{% ifchanged %}}{body}{{% endifchanged %}}")),
        ]
    })
    .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A template that is accepted writes JSON or fails, and where it was proven it needs no check.
    #[test]
    fn what_is_rendered_is_json(source in value(), globals in globals(), lax in any::<bool>()) {
        let Ok(template) = Template::parse(&source, &options(Format::Json, lax)) else { return Ok(()) };
        let mut out = b"before".to_vec();
        match template.render(&globals, &mut out) {
            Ok(()) => {
                let result = &out[6..];
                prop_assert_eq!(json::validate(result), Ok(()), "{} wrote {}", source, String::from_utf8_lossy(result));
                let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(result);
                prop_assert!(parsed.is_ok(), "{:?}", parsed);
            }
            Err(error) => {
                prop_assert_eq!(&out, b"before", "nothing is left of a row that failed");
                prop_assert!(error.line >= 1 && error.column >= 1);
            }
        }
    }

    /// Each value parses back to what the row holds, at a value's place and inside a string.
    #[test]
    fn values_come_back(value in data()) {
        let template = Template::parse(r#"[{{ row.v }}, "{{ row.v }}", {{ row.v | json }}, "{{ row.v | json }}"]"#,
            &Options::default()).expect("a template");
        prop_assert!(template.is_proven_json());
        let row = Entries(vec![("v".to_owned(), value.clone())]);
        let globals = Entries(vec![("row".to_owned(), Data::Map(row))]);
        let mut out = Vec::new();
        if template.render(&globals, &mut out).is_err() {
            prop_assert!(has_no_form(&value), "{:?}", value);
            return Ok(());
        }
        let parsed: Vec<serde_json::Value> = serde_json::from_slice(&out).expect("JSON");
        prop_assert!(is_same(&value, &parsed[0]), "{:?} came back as {}", value, parsed[0]);
        prop_assert_eq!(&parsed[2], &parsed[0]);
        let nested: serde_json::Value = serde_json::from_str(parsed[3].as_str().expect("text")).expect("JSON in text");
        prop_assert_eq!(&nested, &parsed[0]);
        if let Data::Str(text) = &value {
            prop_assert_eq!(parsed[1].as_str(), Some(text.as_str()));
        }
    }

    /// Our check says what serde_json says.
    #[test]
    fn the_check_agrees_with_serde_json(text in r#"[\[\]{}:,"\\ \n\ttrufalsen0-9.eE+a-]{0,24}"#) {
        let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        prop_assert_eq!(json::validate(text.as_bytes()).is_ok(), theirs, "{}", text);
    }

    #[test]
    fn the_check_agrees_on_documents_with_one_byte_changed(value in data(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = Vec::new();
        if json::write_value(value.val(), &mut bytes).is_err() {
            return Ok(());
        }
        prop_assert_eq!(json::validate(&bytes), Ok(()));
        let i = at.index(bytes.len());
        bytes[i] = byte;
        let theirs = serde_json::from_slice::<serde_json::Value>(&bytes).is_ok();
        // serde_json refuses lone surrogates, which the grammar allows.
        let surrogate = bytes.windows(3).any(|window| window.eq_ignore_ascii_case(b"\\ud"));
        prop_assert!(surrogate || json::validate(&bytes).is_ok() == theirs, "{}", String::from_utf8_lossy(&bytes));
    }

    /// Anything at all can be parsed or is refused with a place; what is accepted can be rendered.
    #[test]
    fn no_text_makes_it_panic(source in "(\\{\\{|\\}\\}|\\{%|%\\}|-|if |for |in |end|case|when|[a-z'\"|:,.()\\[\\]= \n0-9é]){0,24}",
        globals in globals(), json in any::<bool>(), lax in any::<bool>()) {
        drive(&source, &globals, json, lax);
    }

    /// The function of the fuzz target, without a fuzzer.
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drive_bytes(&bytes);
    }

    #[test]
    fn no_template_makes_it_panic(source in value(), cut in any::<prop::sample::Index>(), globals in globals(), json in any::<bool>()) {
        // Cut anywhere, a template is mostly broken.
        let chars: Vec<char> = source.chars().collect();
        let at = cut.index(chars.len() + 1);
        let (before, after): (String, String) = (chars[..at].iter().collect(), chars[at..].iter().collect());
        for source in [&before, &after, &source] {
            drive(source, &globals, json, true);
            drive(source, &globals, json, false);
        }
    }
}

/// Floats that are not finite, and JSON columns that are not JSON, wherever they are.
fn has_no_form(data: &Data) -> bool {
    match data {
        Data::Float(float) => !float.is_finite(),
        Data::Json(text) => json::validate(text.as_bytes()).is_err(),
        Data::List(items) => items.0.iter().any(has_no_form),
        Data::Map(entries) => entries.0.iter().any(|(_, data)| has_no_form(data)),
        _ => false,
    }
}

fn is_same(data: &Data, parsed: &serde_json::Value) -> bool {
    match data {
        Data::Nil => parsed.is_null(),
        Data::Bool(on) => parsed.as_bool() == Some(*on),
        Data::Int(int) => parsed.as_i64() == Some(*int),
        Data::UInt(int) => parsed.as_u64() == Some(*int),
        Data::Float(float) => parsed.as_f64() == Some(*float),
        // Leading zeros are no part of a number; every other digit is kept.
        Data::Decimal(digits) => {
            let (sign, digits) =
                digits.strip_prefix('-').map_or(("", digits.as_str()), |digits| ("-", digits));
            let whole = digits.split('.').next().unwrap_or("");
            let zeros = (whole.len() - whole.trim_start_matches('0').len()).min(whole.len() - 1);
            parsed.is_number() && format!("{parsed}") == format!("{sign}{}", &digits[zeros..])
        }
        Data::Str(text) => parsed.as_str() == Some(text),
        Data::Json(text) => {
            serde_json::from_str::<serde_json::Value>(text).is_ok_and(|value| value == *parsed)
        }
        Data::List(items) => {
            let parsed = parsed.as_array().map(Vec::as_slice).unwrap_or_default();
            parsed.len() == items.0.len()
                && items.0.iter().zip(parsed).all(|(data, parsed)| is_same(data, parsed))
        }
        // Of a name that occurs twice the last stays.
        Data::Map(entries) => entries.0.iter().enumerate().all(|(i, (name, data))| {
            let again = entries.0[i + 1..].iter().any(|(later, _)| later == name);
            again || parsed.get(name).is_some_and(|parsed| is_same(data, parsed))
        }),
        Data::Bytes(_)
        | Data::Date(_)
        | Data::Time(_)
        | Data::DateTime(_)
        | Data::Timestamp(..)
        | Data::Uuid(_) => {
            let mut text = Vec::new();
            json::write_value(data.val(), &mut text).is_ok()
                && parsed.is_string()
                && parsed.to_string().as_bytes() == text
        }
    }
}

#[test]
fn a_borrowed_value_costs_no_copy() {
    // The row lends its text for as long as it lives; nothing of it is kept.
    let template = Template::parse("{{ row.a }}", &Options::default()).expect("a template");
    let mut out = Vec::new();
    for i in 0..3 {
        let text = format!("row {i}");
        let row = vec![("a", Val::Str(&text))];
        out.clear();
        template.render(&vec![("row", Val::Object(&row))], &mut out).expect("a result");
        assert_eq!(out, format!("\"row {i}\"").into_bytes());
    }
}
