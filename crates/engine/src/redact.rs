//! Values that came from variables and files, kept out of every error.
//!
//! A variable can be filled into any text of a configuration: a query, a template, a header, an argument of a command. A database, a
//! broker or a receiver may quote that text when it refuses it. No site of the program can know which quotation holds a secret, so
//! the values are known here, once for the process, and every [`Failure`](crate::failure::Failure) and
//! [`Finding`](crate::finding::Finding) is cleaned as it is made. What was cleaned can be shown, logged and stored.
//!
//! Found are a value as it is, in other letters' case, escaped (JSON, Rust, SQL, HTML, percent-encoding, base64), each of its lines,
//! the password of a URL, and the part of a value that was cut off by a quotation.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;
use xxhash_rust::xxh3::xxh3_128;

/// What stands in place of a value.
pub const COVER: &str = "***";
/// Shorter values are not looked for: they would be found in every sentence.
const BYTES_MIN: usize = 4;
/// Shorter numbers are not looked for: they are counts, ports and lines more often than secrets.
const DIGITS_MIN: usize = 6;
/// Shorter values are found only where they are a word of their own.
const BYTES_ANYWHERE: usize = 8;
/// Shorter words of a value are not looked for in what a server says of a text that holds it.
const WORD_BYTES_MIN: usize = 3;
/// Shorter pieces of a value, at the edge of a quotation, are not looked for.
const PIECE_BYTES_MIN: usize = 6;

/// What RFC 3986 leaves as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The values of this process. It only grows: an error may be about a configuration that was replaced.
static HIDDEN: RwLock<Hidden> =
    RwLock::new(Hidden { forms: Vec::new(), words: BTreeSet::new(), texts: None });
/// Whether there is any value, so that programs without one do not pay.
static ANY: AtomicBool = AtomicBool::new(false);

struct Hidden {
    /// All forms of all values in lower case, the longest first.
    forms: Vec<String>,
    /// The words in all values, in lower case.
    words: BTreeSet<String>,
    /// Hashes of whole texts into which something was filled.
    texts: Option<HashSet<u128>>,
}

/// Keeps values out of errors from now on.
pub fn hide<'v>(values: impl IntoIterator<Item = &'v str>) {
    let (mut forms, mut words) = (BTreeSet::new(), BTreeSet::new());
    for value in values {
        add(value, &mut forms);
        words.extend(words_of(value).map(|(_, word)| word.to_ascii_lowercase()));
    }
    if forms.is_empty() {
        return;
    }
    let mut hidden = HIDDEN.write().unwrap_or_else(PoisonError::into_inner);
    hidden.words.append(&mut words);
    forms.extend(std::mem::take(&mut hidden.forms));
    hidden.forms = forms.into_iter().collect();
    hidden.forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    ANY.store(true, Ordering::Release);
}

/// Notes a whole text into which a value was filled: its lines are not to be quoted.
pub fn hide_text(text: &str) {
    let mut hidden = HIDDEN.write().unwrap_or_else(PoisonError::into_inner);
    hidden.texts.get_or_insert_default().insert(print(text));
}

/// Whether a value was filled into this text, so that none of it may be quoted.
pub fn is_filled(text: &str) -> bool {
    let hidden = HIDDEN.read().unwrap_or_else(PoisonError::into_inner);
    hidden.texts.as_ref().is_some_and(|texts| texts.contains(&print(text)))
}

fn print(text: &str) -> u128 {
    xxh3_128(text.trim().as_bytes())
}

/// A text without the values.
pub fn scrub<'t>(text: impl Into<Cow<'t, str>>) -> Cow<'t, str> {
    let text = text.into();
    if !ANY.load(Ordering::Acquire) {
        return text;
    }
    let hidden = HIDDEN.read().unwrap_or_else(PoisonError::into_inner);
    let found = stretches(&text, &hidden.forms);
    if found.is_empty() {
        return text;
    }
    let mut clean = String::with_capacity(text.len());
    let mut at = 0;
    for (from, to) in found {
        clean.push_str(&text[at..from]);
        clean.push_str(COVER);
        at = to;
    }
    clean.push_str(&text[at..]);
    Cow::Owned(clean)
}

/// What another side said of a text, without any word of a value if one was filled into that text: a server may name a part of it,
/// such as one word of an expression.
pub fn scrub_answer(text: &str, said: &str) -> String {
    let said = scrub(said);
    if !is_filled(text) {
        return said.into_owned();
    }
    let hidden = HIDDEN.read().unwrap_or_else(PoisonError::into_inner);
    let mut clean = String::with_capacity(said.len());
    let mut at = 0;
    for (from, word) in words_of(&said) {
        if hidden.words.contains(&word.to_ascii_lowercase()) {
            clean.push_str(&said[at..from]);
            clean.push_str(COVER);
            at = from + word.len();
        }
    }
    clean.push_str(&said[at..]);
    clean
}

/// The words of a text, each with its place: letters and digits, three at least.
fn words_of(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    let place = move |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
    words.filter(|word| word.len() >= WORD_BYTES_MIN).map(move |word| (place(word), word))
}

/// The stretches of a text that hold a value, in order and apart from each other.
fn stretches(text: &str, forms: &[String]) -> Vec<(usize, usize)> {
    // The same length in bytes, so that a place in one is a place in the other.
    let lower = text.to_ascii_lowercase();
    let edges = edges(&lower);
    let mut found = Vec::new();
    for form in forms {
        for (from, _) in lower.match_indices(form.as_str()) {
            let to = from + form.len();
            if form.len() >= BYTES_ANYWHERE || stands_alone(&lower, from, to) {
                found.push((from, to));
            }
        }
        // Most texts hold no piece of it, which one look tells.
        let has = |piece: Option<&str>| piece.is_none_or(|piece| lower.contains(piece));
        let begins = has(form.get(..PIECE_BYTES_MIN));
        let ends = has(form.len().checked_sub(PIECE_BYTES_MIN).and_then(|at| form.get(at..)));
        for edge in edges.iter().filter(|_| begins || ends) {
            let longest = form.len().saturating_sub(1);
            if begins {
                let cut = (PIECE_BYTES_MIN..=longest.min(edge.before)).rev().find(|length| {
                    form.get(..*length).is_some_and(|piece| lower[..edge.before].ends_with(piece))
                });
                found.extend(cut.map(|length| (edge.before - length, edge.before)));
            }
            if ends {
                let cut = (PIECE_BYTES_MIN..=longest.min(lower.len() - edge.after)).rev().find(|length| {
                    form.get(form.len() - *length..)
                        .is_some_and(|piece| lower[edge.after..].starts_with(piece))
                });
                found.extend(cut.map(|length| (edge.after, edge.after + length)));
            }
        }
    }
    found.sort_unstable();
    found.dedup_by(|next, last| {
        let overlaps = next.0 < last.1;
        if overlaps {
            last.1 = last.1.max(next.1);
        }
        overlaps
    });
    found
}

/// Where a quotation may have been cut: what stands before it ends, what stands after it begins.
struct Edge {
    before: usize,
    after: usize,
}

fn edges(text: &str) -> Vec<Edge> {
    let mut edges = vec![Edge { before: text.len(), after: 0 }];
    for (at, character) in text.char_indices() {
        let length = character.len_utf8();
        if matches!(character, '\'' | '"' | '`' | '…' | '\n' | '“' | '”' | '‘' | '’')
            || text[at..].starts_with("...")
        {
            edges.push(Edge { before: at, after: at + length });
        }
        if text[..at + length].ends_with("...") {
            edges.push(Edge { before: at + length, after: at + length });
        }
    }
    edges
}

fn stands_alone(text: &str, from: usize, to: usize) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    !is_word(text[..from].chars().next_back()) && !is_word(text[to..].chars().next())
}

/// Adds all forms of a value.
fn add(value: &str, forms: &mut BTreeSet<String>) {
    let value = value.trim();
    let lines: Vec<&str> = value.split(['\n', '\r']).map(str::trim).collect();
    for part in lines.iter().copied().chain([value]) {
        add_forms(part, forms);
    }
    if let Ok(url) = Url::parse(value)
        && let Some(password) = url.password()
    {
        add_forms(password, forms);
        add_forms(&percent_decode_str(password).decode_utf8_lossy(), forms);
    }
    // The form `host=… password=…`.
    for (at, name) in value.match_indices("password=") {
        let rest = &value[at + name.len()..];
        let end = rest.find([' ', ';', '&', '\n']).unwrap_or(rest.len());
        add_forms(rest[..end].trim_matches('\''), forms);
    }
}

fn add_forms(value: &str, forms: &mut BTreeSet<String>) {
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    if value.len() < if is_number { DIGITS_MIN } else { BYTES_MIN } {
        return;
    }
    let mut debug = String::new();
    write!(debug, "{value:?}").ok(); // writing to a String does not fail
    let json = serde_json::Value::String(value.to_owned()).to_string();
    let inner = |quoted: &str| quoted.get(1..quoted.len() - 1).unwrap_or("").to_owned();
    let html = value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let all = [
        value.to_owned(),
        inner(&debug),
        inner(&json),
        json_ascii(value),
        value.replace('\'', "''"),
        value.replace('"', "\"\""),
        value.replace('\\', "\\\\").replace('\'', "\\'"),
        html.replace('\'', "&#39;"),
        html.replace('\'', "&#x27;"),
        html,
        utf8_percent_encode(value, NON_ALPHANUMERIC).to_string(),
        utf8_percent_encode(value, UNRESERVED).to_string(),
        utf8_percent_encode(value, UNRESERVED).to_string().replace("%20", "+"),
        STANDARD.encode(value),
        STANDARD_NO_PAD.encode(value),
        URL_SAFE.encode(value),
        URL_SAFE_NO_PAD.encode(value),
    ];
    forms.extend(all.iter().map(|form| form.to_ascii_lowercase()));
}

/// The inside of a JSON string in which everything but ASCII is escaped.
fn json_ascii(value: &str) -> String {
    let mut text = String::new();
    for unit in value.encode_utf16() {
        match char::from_u32(u32::from(unit)) {
            Some(character @ ('"' | '\\')) => text.extend(['\\', character]),
            Some(character) if character.is_ascii() && !character.is_control() => text.push(character),
            _ => write!(text, "\\u{unit:04x}").unwrap_or_default(),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(values: &[&str]) -> Vec<String> {
        let mut forms = BTreeSet::new();
        for value in values {
            add(value, &mut forms);
        }
        forms.into_iter().collect()
    }

    fn clean(values: &[&str], text: &str) -> String {
        let mut out = text.to_owned();
        for (from, to) in stretches(text, &forms(values)).into_iter().rev() {
            out.replace_range(from..to, COVER);
        }
        out
    }

    #[test]
    fn a_value_is_covered_in_every_form() {
        let value = r#"pa'ss "w\ö&d"#;
        let json = serde_json::to_string(value).unwrap();
        let percent = utf8_percent_encode(value, UNRESERVED).to_string();
        for text in [
            value.to_owned(),
            json.clone(),
            format!("{value:?}"),
            percent.clone(),
            percent.to_ascii_lowercase(),
            percent.replace("%20", "+"),
            value.replace('\'', "''"),
            "pa&#39;ss &quot;w\\ö&amp;d".to_owned(),
            STANDARD.encode(value),
            r#"pa'ss \"w\\\u00f6&d"#.to_owned(),
            value.to_ascii_uppercase(),
        ] {
            let shown = clean(&[value], &format!("near {text} at line 1"));
            assert!(shown.starts_with("near ") && shown.ends_with(" at line 1"), "{shown}");
            assert!(
                shown.contains(COVER) && !shown.contains("ss") && !shown.contains("SS"),
                "{text}: {shown}"
            );
        }
    }

    #[test]
    fn each_line_of_a_value_is_covered() {
        let value = "first line\nsecond line\r\nthird";
        assert_eq!(clean(&[value], "before second line after"), "before *** after");
        assert_eq!(clean(&[value], "near 'third'"), "near '***'");
        assert_eq!(clean(&[value], &format!("<{value}>")), "<***>");
    }

    #[test]
    fn a_value_that_a_quotation_cuts_off_is_covered() {
        assert_eq!(clean(&["correcthorsebattery"], "near 'x, correcthorse' at"), "near 'x, ***' at");
        assert_eq!(clean(&["correcthorsebattery"], "in `horsebattery' as v`"), "in `***' as v`");
        assert_eq!(clean(&["correcthorsebattery"], "in correcthor..."), "in ***...");
        assert_eq!(clean(&["correcthorsebattery"], "in ...rsebattery x"), "in ...*** x");
        assert_eq!(clean(&["correcthorsebattery"], "a correcthorse of wood"), "a correcthorse of wood");
    }

    #[test]
    fn short_values_are_words_of_their_own() {
        assert_eq!(clean(&["prod"], "queue `prod.orders` of production"), "queue `***.orders` of production");
        assert_eq!(clean(&["abc"], "abc"), "abc");
        assert_eq!(clean(&["5432"], "port 5432"), "port 5432");
        assert_eq!(clean(&["739145"], "pin 739145, 7391456"), "pin ***, 7391456");
    }

    #[test]
    fn the_password_of_a_url_is_covered() {
        let url = "postgres://ann:sword%20fish@db.example/shop";
        assert_eq!(clean(&[url], "user ann, sword fish, at db.example"), "user ann, ***, at db.example");
        assert_eq!(clean(&["host=db password=swordfish"], "said swordfish"), "said ***");
    }

    #[test]
    fn errors_do_not_hold_what_was_hidden() {
        use crate::codes;
        use crate::failure::{Failure, FailureKind};
        hide(["only-in-this-test"]);
        hide_text("select 'only-in-this-test'");
        let failure = Failure::new(FailureKind::Invalid, codes::QUERY_FAILED, "run only-in-this-test")
            .detail("near 'only-in-this-te' and only-in-THIS-test")
            .at("only-in-this-test")
            .remedy("change only-in-this-test");
        let text = format!("{failure:?} {}", failure.line());
        assert!(!text.to_lowercase().contains("only-in"), "{text}");
        assert!(is_filled("select 'only-in-this-test'") && !is_filled("select 1"));
        assert_eq!(scrub_answer("select 'only-in-this-test'", "no such column: Only"), "no such column: ***");
        assert_eq!(scrub_answer("select 1", "no such column: Only"), "no such column: Only");
    }
}
