//! Filters for HTML.

use super::Given;
use crate::held::Held;

fn entity(c: char) -> Option<&'static str> {
    Some(match c {
        '&' => "&amp;",
        '<' => "&lt;",
        '>' => "&gt;",
        '"' => "&quot;",
        '\'' => "&#39;",
        _ => return None,
    })
}

pub(super) fn escape<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    if matches!(input, Held::Nil) {
        return Held::Nil;
    }
    let mut out = String::new();
    for c in input.text().chars() {
        match entity(c) {
            Some(entity) => out.push_str(entity),
            None => out.push(c),
        }
    }
    Held::own_str(out)
}

pub(super) fn escape_once<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    let text = input.text();
    let mut out = String::new();
    for (at, c) in text.char_indices() {
        match entity(c) {
            Some(_) if c == '&' && begins_entity(&text[at + 1..]) => out.push('&'),
            Some(entity) => out.push_str(entity),
            None => out.push(c),
        }
    }
    Held::own_str(out)
}

/// `amp;` or `#39;`
fn begins_entity(text: &str) -> bool {
    let (digits, rest) = match text.strip_prefix('#') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let part = |c: &char| {
        if digits { c.is_ascii_digit() } else { c.is_ascii_alphabetic() }
    };
    let length = rest.chars().take_while(part).count();
    length > 0 && rest[length..].starts_with(';')
}

/// Scripts, comments and styles with what is in them, then every tag.
pub(super) fn strip_html<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    const BLOCKS: &[(&str, &str)] = &[("<script", "</script>"), ("<!--", "-->"), ("<style", "</style>")];
    let text = input.text();
    let mut kept = String::with_capacity(text.len());
    let mut rest = &*text;
    // An opening whose end was looked for in vain needs no second search.
    let mut endless = [false; BLOCKS.len()];
    while let Some(at) = rest.find('<') {
        kept.push_str(&rest[..at]);
        rest = &rest[at..];
        let mut end = None;
        for (i, (open, close)) in BLOCKS.iter().enumerate() {
            if !endless[i] && rest.starts_with(open) {
                end = rest[open.len()..].find(close).map(|found| open.len() + found + close.len());
                endless[i] = end.is_none();
                break;
            }
        }
        if end.is_none() {
            kept.push('<');
        }
        rest = &rest[end.unwrap_or(1)..];
    }
    kept.push_str(rest);
    Held::own_str(without_tags(&kept))
}

fn without_tags(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('<') {
        let Some(close) = rest[open..].find('>') else {
            break;
        };
        out.push_str(&rest[..open]);
        rest = &rest[open + close + 1..];
    }
    out.push_str(rest);
    out
}

pub(super) fn strip_newlines<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    Held::own_str(input.text().replace("\r\n", "\n").replace('\n', ""))
}

pub(super) fn newline_to_br<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    Held::own_str(input.text().replace("\r\n", "\n").replace('\n', "<br />\n"))
}
