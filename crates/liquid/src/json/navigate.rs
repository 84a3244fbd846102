//! Walking through JSON text without building a tree: members, elements and scalars are slices.
//!
//! The text is a value of a row and usually valid, but nothing here relies on it: of text that is
//! not JSON some slice or nothing comes back. Rendering checks what it embeds.

use std::borrow::Cow;

use super::plain_end;

/// What a JSON text begins as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Number,
    String,
    Array,
    Object,
}

pub(crate) fn kind(text: &str) -> Kind {
    match text.trim_start().as_bytes().first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b'"') => Kind::String,
        Some(b't') => Kind::Bool(true),
        Some(b'f') => Kind::Bool(false),
        Some(b'-' | b'0'..=b'9') => Kind::Number,
        _ => Kind::Null,
    }
}

/// The value of member `name` of an object; of several the last, as most readers have it.
pub(crate) fn member<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    if kind(text) != Kind::Object {
        return None;
    }
    elements(text).filter(|(held, _)| unescape(held) == name).last().map(|(_, value)| value)
}

/// The elements of an array (with empty names) or the members of an object, the names still quoted.
pub(crate) fn elements(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let object = kind(text) == Kind::Object;
    let mut at = text.len() - text.trim_start().len() + 1;
    if !object && kind(text) != Kind::Array {
        at = text.len();
    }
    std::iter::from_fn(move || {
        let bytes = text.as_bytes();
        let mut name = "";
        if object {
            at = skip_filler(bytes, at);
            if bytes.get(at) != Some(&b'"') {
                return None;
            }
            let end = value_end(bytes, at);
            name = text.get(at..end)?;
            at = end;
        }
        at = skip_filler(bytes, at);
        if matches!(bytes.get(at), None | Some(b']' | b'}')) {
            return None;
        }
        let end = value_end(bytes, at);
        let value = text.get(at..end)?;
        // A step forward even over text that is not JSON, so that walking always ends.
        at = end.max(at + 1);
        Some((name, value))
    })
}

fn skip_filler(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t' | b',' | b':') = bytes.get(at) {
        at += 1;
    }
    at
}

/// The place after the value that begins at `at`.
fn value_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = at;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b'[' | b'{' => {
                depth += 1;
                at += 1;
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ if depth > 0 => at += 1,
            _ => {
                while bytes.get(at).is_some_and(|byte| !b",]} \n\r\t:".contains(byte)) {
                    at += 1;
                }
            }
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    loop {
        at = plain_end(bytes, at);
        match bytes.get(at) {
            None => return bytes.len(),
            Some(b'"') => return at + 1,
            Some(b'\\') => at = (at + 2).min(bytes.len()),
            Some(_) => at += 1,
        }
    }
}

/// The text of a quoted JSON string; borrowed when nothing in it is escaped.
pub(crate) fn unescape(quoted: &str) -> Cow<'_, str> {
    let trimmed = quoted.trim();
    let inner = trimmed.strip_prefix('"').unwrap_or(trimmed);
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    // A lone surrogate has no UTF-8 form; such text is kept as it was written.
    match serde_json::from_str::<String>(trimmed) {
        Ok(text) => Cow::Owned(text),
        Err(_) => Cow::Borrowed(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_elements_are_found() {
        let text = r#" {"a": [1, {"b": "x]"}], "c\n": null, "d" : -1.50 ,"a": 2} "#;
        assert_eq!(member(text, "a"), Some("2"));
        assert_eq!(member(text, "c\n"), Some("null"));
        assert_eq!(member(text, "d"), Some("-1.50"));
        assert_eq!(member(text, "e"), None);
        let all: Vec<_> = elements("[1, [2,3] ,\"a,b\"]").map(|(_, value)| value).collect();
        assert_eq!(all, ["1", "[2,3]", "\"a,b\""]);
        assert_eq!(elements("[]").count() + elements("{}").count() + elements("3").count(), 0);
    }

    #[test]
    fn text_that_is_not_json_ends_too() {
        for text in ["[", "{\"a", "[1,", "{\"a\":", "[\"\\", "{]", "[}", "{\"a\" \"b\"", "]", "", "[é", "[:"]
        {
            assert!(elements(text).count() <= text.len(), "{text}");
        }
    }
}
