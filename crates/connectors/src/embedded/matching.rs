//! Which bindings a message matches: the rules of topic and headers exchanges, as RabbitMQ has them. Pure.

use warren_engine::message::{HeaderValue, Headers};

/// Whether a topic pattern matches a routing key: words between dots, `*` for one word, `#` for any number of them.
///
/// An empty routing key has no words, so that `#` matches it and `*` does not.
pub(super) fn topic(pattern: &str, key: &str) -> bool {
    let pattern = words(pattern);
    let key = words(key);
    // Reads both from the left and remembers the last `#`; on a mismatch that `#` takes one more word.
    let (mut at, mut word) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while word < key.len() {
        match pattern.get(at) {
            Some(&"#") => {
                retry = Some((at, word));
                at += 1;
            }
            Some(&part) if part == "*" || part == key[word] => {
                at += 1;
                word += 1;
            }
            _ => match retry {
                Some((hash, from)) => {
                    retry = Some((hash, from + 1));
                    at = hash + 1;
                    word = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|part| *part == "#")
}

fn words(text: &str) -> Vec<&str> {
    if text.is_empty() { Vec::new() } else { text.split('.').collect() }
}

/// How a headers binding counts its matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadersMatch {
    /// All arguments that do not begin with `x-`.
    All,
    /// At least one of them.
    Any,
    /// All arguments but `x-match`.
    AllWithX,
    /// At least one of them.
    AnyWithX,
}

/// What a binding's `x-match` says; `all` where there is none; an error that names the fault otherwise.
pub(super) fn headers_match(arguments: &Headers) -> Result<HeadersMatch, String> {
    match arguments.get("x-match") {
        None => Ok(HeadersMatch::All),
        Some(HeaderValue::Text(text)) => match text.as_str() {
            "all" => Ok(HeadersMatch::All),
            "any" => Ok(HeadersMatch::Any),
            "all-with-x" => Ok(HeadersMatch::AllWithX),
            "any-with-x" => Ok(HeadersMatch::AnyWithX),
            other => Err(format!("x-match is `{other}`, expected all, any, all-with-x or any-with-x")),
        },
        Some(other) => Err(format!("x-match is {other:?}, expected a text")),
    }
}

/// Whether a message's headers match a binding's arguments. A binding without arguments matches every message with
/// `all`, and none with `any`.
pub(super) fn headers(arguments: &Headers, headers: &Headers) -> bool {
    let how = headers_match(arguments).unwrap_or(HeadersMatch::All);
    let with_x = matches!(how, HeadersMatch::AllWithX | HeadersMatch::AnyWithX);
    let mut wanted = arguments
        .iter()
        .filter(|(name, _)| *name != "x-match" && (with_x || !name.starts_with("x-")))
        .map(|(name, want)| {
            headers.get(name).is_some_and(|have| *want == HeaderValue::Void || same(want, have))
        });
    match how {
        HeadersMatch::All | HeadersMatch::AllWithX => wanted.all(|matched| matched),
        HeadersMatch::Any | HeadersMatch::AnyWithX => wanted.any(|matched| matched),
    }
}

/// Equal as RabbitMQ compares: by value, whatever the width of the number and the tag of the text.
fn same(want: &HeaderValue, have: &HeaderValue) -> bool {
    if let (Some(want), Some(have)) = (whole(want), whole(have)) {
        return want == have;
    }
    if let (Some(want), Some(have)) = (number(want), number(have)) {
        #[expect(clippy::float_cmp, reason = "RabbitMQ matches exactly")]
        return want == have;
    }
    if let (Some(want), Some(have)) = (bytes(want), bytes(have)) {
        return want == have;
    }
    want == have
}

/// A whole number of any width.
pub(super) fn whole(value: &HeaderValue) -> Option<i128> {
    match value {
        HeaderValue::I8(value) => Some((*value).into()),
        HeaderValue::U8(value) => Some((*value).into()),
        HeaderValue::I16(value) => Some((*value).into()),
        HeaderValue::U16(value) => Some((*value).into()),
        HeaderValue::I32(value) => Some((*value).into()),
        HeaderValue::U32(value) => Some((*value).into()),
        HeaderValue::I64(value) => Some((*value).into()),
        HeaderValue::Timestamp(value) => Some((*value).into()),
        HeaderValue::Void
        | HeaderValue::Bool(_)
        | HeaderValue::F32(_)
        | HeaderValue::F64(_)
        | HeaderValue::Decimal { .. }
        | HeaderValue::Text(_)
        | HeaderValue::Bytes(_)
        | HeaderValue::Array(_)
        | HeaderValue::Table(_) => None,
    }
}

fn number(value: &HeaderValue) -> Option<f64> {
    match value {
        HeaderValue::F32(value) => Some((*value).into()),
        HeaderValue::F64(value) => Some(*value),
        other => whole(other).map(|value| value as f64),
    }
}

fn bytes(value: &HeaderValue) -> Option<&[u8]> {
    if let HeaderValue::Text(text) = value {
        return Some(text.as_bytes());
    }
    if let HeaderValue::Bytes(bytes) = value { Some(bytes) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_match_word_by_word() {
        for (pattern, key, matches) in [
            ("a.b.c", "a.b.c", true),
            ("a.b.c", "a.b", false),
            ("a.b", "a.b.c", false),
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.c", false),
            ("a.*.c", "a.b.b.c", false),
            ("*", "a", true),
            ("*", "", false),
            ("*", "a.b", false),
            ("#", "", true),
            ("#", "a", true),
            ("#", "a.b.c", true),
            ("", "", true),
            ("", "a", false),
            ("a.#", "a", true),
            ("a.#", "a.b.c", true),
            ("a.#", "b", false),
            ("#.c", "c", true),
            ("#.c", "a.b.c", true),
            ("#.c", "a.b.c.d", false),
            ("a.#.c", "a.c", true),
            ("a.#.c", "a.b.c.c", true),
            ("a.#.b.#.c", "a.x.b.y.b.c", true),
            ("a.#.b.#.c", "a.x.y.c", false),
            ("#.*", "", false),
            ("#.*", "a", true),
            ("*.#", "a.b", true),
            ("#.#", "", true),
            ("*.*", "a.", true), // the empty word behind the dot is a word
            ("a..b", "a..b", true),
            ("a.*.b", "a..b", true),
            ("a*", "ab", false), // wildcards stand for whole words only
            ("a#", "a", false),
        ] {
            assert_eq!(topic(pattern, key), matches, "pattern `{pattern}`, key `{key}`");
        }
    }

    #[test]
    fn headers_match_by_value() {
        let table = |entries: &[(&str, HeaderValue)]| -> Headers {
            entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
        };
        let text = |text: &str| HeaderValue::Text(text.into());
        let message = table(&[
            ("kind", text("order")),
            ("n", HeaderValue::I32(7)),
            ("x-team", text("a")),
            ("flag", HeaderValue::Bool(true)),
        ]);
        for (arguments, matches) in [
            (vec![], true),
            (vec![("x-match", text("any"))], false),
            (vec![("kind", text("order"))], true),
            (vec![("kind", text("order")), ("n", HeaderValue::I64(7))], true),
            (vec![("kind", text("order")), ("n", HeaderValue::I64(8))], false),
            (vec![("x-match", text("any")), ("kind", text("order")), ("n", HeaderValue::I64(8))], true),
            (vec![("x-match", text("any")), ("kind", text("bill")), ("n", HeaderValue::I64(8))], false),
            (vec![("n", HeaderValue::F64(7.0))], true),
            (vec![("n", text("7"))], false),
            (vec![("flag", HeaderValue::I64(1))], false),
            (vec![("flag", HeaderValue::Bool(true))], true),
            (vec![("kind", HeaderValue::Void)], true),
            (vec![("absent", HeaderValue::Void)], false),
            (vec![("kind", HeaderValue::Bytes(b"order".to_vec()))], true),
            // `x-` headers are looked at only where x-match says so.
            (vec![("x-team", text("b"))], true),
            (vec![("x-match", text("any")), ("x-team", text("a"))], false),
            (vec![("x-match", text("all-with-x")), ("x-team", text("b"))], false),
            (vec![("x-match", text("all-with-x")), ("x-team", text("a")), ("kind", text("order"))], true),
            (vec![("x-match", text("any-with-x")), ("x-team", text("a")), ("kind", text("bill"))], true),
            (vec![("x-match", text("any-with-x")), ("x-team", text("b"))], false),
        ] {
            assert_eq!(headers(&table(&arguments), &message), matches, "{arguments:?}");
        }
        assert!(headers_match(&table(&[("x-match", text("some"))])).is_err());
        assert!(headers_match(&table(&[("x-match", HeaderValue::Bool(true))])).is_err());
    }
}
