//! One way through everything a template can be made to do, for random input and for the fuzzer.

use warren_liquid::{Condition, Format, Limits, Names, Options, Partials, Template, json};

use crate::data::{Data, Entries, Items};

pub fn options(format: Format, lax: bool) -> Options {
    Options {
        format,
        lax,
        limits: Limits { steps_max: 20_000, output_bytes_max: 1 << 16, ..Limits::default() },
        partials: Partials::from_iter([("value", "{{ row.b }}"), ("text", "x{{ y }}")]),
        name: String::new(),
    }
}

/// Parses, checks, renders and tests; panics when a limit or a promise does not hold.
pub fn drive(source: &str, globals: &Entries, json: bool, lax: bool) {
    let format = if json { Format::Json } else { Format::Text };
    let options = options(format, lax);
    match Template::parse(source, &options) {
        Ok(template) => {
            let mut out = b"before".to_vec();
            match template.render(globals, &mut out) {
                Ok(()) => {
                    let result = &out[6..];
                    assert!(result.len() <= options.limits.output_bytes_max, "the limit holds");
                    assert!(std::str::from_utf8(result).is_ok(), "templates write UTF-8");
                    assert!(!json || json::validate(result).is_ok(), "{source:?} wrote no JSON");
                }
                Err(error) => {
                    assert!(out == b"before" && error.line > 0, "nothing is left of a row that failed")
                }
            }
            template.check(&Names { tops: &["row"], columns: &["a"] });
        }
        Err(error) => assert!(error.line > 0 && error.column > 0 && !error.to_string().is_empty()),
    }
    if let Ok(condition) = Condition::parse(source, &options) {
        condition.test(globals).ok();
    }
}

/// The first byte chooses the options, a NUL parts the template from a text for the row.
pub fn drive_bytes(bytes: &[u8]) {
    let (flags, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let text = String::from_utf8_lossy(rest);
    let (source, text) = text.split_once('\0').unwrap_or((&text, "[1, {\"a\": \"x\"}]"));
    let row = vec![
        ("a".to_owned(), Data::Str(text.to_owned())),
        ("b".to_owned(), Data::Decimal("12.50".to_owned())),
        ("c".to_owned(), Data::Json(text.to_owned())),
        (
            "list".to_owned(),
            Data::List(Items(vec![Data::Str(text.to_owned()), Data::Float(f64::NAN), Data::Nil])),
        ),
    ];
    let globals = Entries(vec![
        ("row".to_owned(), Data::Map(Entries(row))),
        ("op".to_owned(), Data::Str("added".to_owned())),
    ]);
    drive(source, &globals, flags & 1 == 0, flags & 2 != 0);
}
