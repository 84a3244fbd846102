//! Cutting a template into text, outputs and tags, with whitespace control applied.
//!
//! As in the reference the first `}}` or `%}` ends an output or a tag, wherever it stands. The bodies
//! of `raw`, `comment` and `doc` are found here too, because nothing in them may be read as Liquid.

use crate::error::{Error, ErrorKind};
use crate::source::{Place, Sources};

/// A piece of a template. Slices are of the source; `place` is where they begin.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Piece<'t> {
    Text {
        text: &'t str,
        place: Place,
    },
    /// The inside of `{{ … }}`; `open` is the place of the braces.
    Output {
        markup: &'t str,
        place: Place,
        open: Place,
    },
    /// The inside of `{% … %}`.
    Tag {
        markup: &'t str,
        place: Place,
        open: Place,
    },
}

pub(crate) fn scan<'t>(text: &'t str, base: Place, sources: &Sources) -> Result<Vec<Piece<'t>>, Error> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut trim_next = false;
    loop {
        let open = next_open(text, at);
        let (mut literal, mut literal_at) = (&text[at..open.unwrap_or(text.len())], at);
        if trim_next {
            let trimmed = literal.trim_start_matches(is_space);
            literal_at += literal.len() - trimmed.len();
            literal = trimmed;
        }
        let Some(open) = open else {
            push_text(&mut pieces, literal, base.plus(literal_at));
            return Ok(pieces);
        };
        let markup = cut(text, open, base, sources)?;
        if markup.trim_before {
            literal = literal.trim_end_matches(is_space);
        }
        push_text(&mut pieces, literal, base.plus(literal_at));
        let place = base.plus(markup.from);
        let inside = &text[markup.from..markup.to];
        at = markup.end;
        trim_next = markup.trim_after;
        if text.as_bytes()[open + 1] == b'{' {
            pieces.push(Piece::Output { markup: inside, place, open: base.plus(open) });
            continue;
        }
        let name = inside.trim_start_matches(is_space);
        let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
        match name {
            "raw" => {
                let body = raw_end(text, at).ok_or_else(|| unclosed(sources, base.plus(open), "raw"))?;
                let mut kept = &text[at..body.open];
                let mut kept_at = at;
                if trim_next {
                    let trimmed = kept.trim_start_matches(is_space);
                    kept_at += kept.len() - trimmed.len();
                    kept = trimmed;
                }
                if body.trim_before {
                    kept = kept.trim_end_matches(is_space);
                }
                push_text(&mut pieces, kept, base.plus(kept_at));
                (at, trim_next) = (body.after, body.trim_after);
            }
            "comment" | "doc" => {
                let body =
                    comment_end(text, at, name).ok_or_else(|| unclosed(sources, base.plus(open), name))?;
                (at, trim_next) = (body.after, body.trim_after);
            }
            _ => pieces.push(Piece::Tag { markup: inside, place, open: base.plus(open) }),
        }
    }
}

pub(crate) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

fn push_text<'t>(pieces: &mut Vec<Piece<'t>>, text: &'t str, place: Place) {
    if !text.is_empty() {
        pieces.push(Piece::Text { text, place });
    }
}

fn next_open(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = from;
    while let Some(found) = bytes.get(at..)?.iter().position(|byte| *byte == b'{') {
        at += found;
        if matches!(bytes.get(at + 1), Some(b'{' | b'%')) {
            return Some(at);
        }
        at += 1;
    }
    None
}

struct Cut {
    from: usize,
    to: usize,
    end: usize,
    trim_before: bool,
    trim_after: bool,
}

fn cut(text: &str, open: usize, base: Place, sources: &Sources) -> Result<Cut, Error> {
    let bytes = text.as_bytes();
    let (close, what) = if bytes[open + 1] == b'{' { ("}}", "output") } else { ("%}", "tag") };
    let trim_before = bytes.get(open + 2) == Some(&b'-');
    let from = open + 2 + usize::from(trim_before);
    let Some(found) = text[from..].find(close) else {
        let message = format!("this {what} is never closed");
        return Err(sources
            .error(ErrorKind::Syntax, base.plus(open), message)
            .hinted(format!("add `{close}`")));
    };
    let mut to = from + found;
    let end = to + 2;
    let trim_after = to > from && bytes[to - 1] == b'-';
    if trim_after {
        to -= 1;
    }
    Ok(Cut { from, to, end, trim_before, trim_after })
}

fn unclosed(sources: &Sources, place: Place, name: &str) -> Error {
    sources
        .error(ErrorKind::Syntax, place, format!("`{name}` is never closed"))
        .hinted(format!("add `{{% end{name} %}}`"))
}

struct End {
    open: usize,
    /// Behind its closing brace.
    after: usize,
    trim_before: bool,
    trim_after: bool,
}

/// The next tag at or after `from`: its name and its extent.
fn next_tag(text: &str, from: usize) -> Option<(&str, End)> {
    let mut at = from;
    loop {
        let open = at + text.get(at..)?.find("{%")?;
        let trim_before = text.as_bytes().get(open + 2) == Some(&b'-');
        let inside = open + 2 + usize::from(trim_before);
        let close = inside + text[inside..].find("%}")?;
        let trim_after = close > inside && text.as_bytes()[close - 1] == b'-';
        let markup = text[inside..close - usize::from(trim_after)].trim_matches(is_space);
        let name_end = markup.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(markup.len());
        if name_end > 0 {
            let end = End { open, after: close + 2, trim_before, trim_after };
            return Some((&markup[..name_end], end));
        }
        at = open + 2;
    }
}

fn raw_end(text: &str, from: usize) -> Option<End> {
    let mut at = from;
    loop {
        let (name, end) = next_tag(text, at)?;
        if name == "endraw" {
            return Some(end);
        }
        // A `{%` in raw text need not be a tag: look again right behind it.
        at = end.open + 2;
    }
}

/// Comments nest, and `raw` in a comment hides what is in it; a `doc` ends at the first `enddoc`.
fn comment_end(text: &str, from: usize, kind: &str) -> Option<End> {
    let mut depth = 1;
    let mut at = from;
    loop {
        let (name, end) = next_tag(text, at)?;
        at = end.after;
        match (kind, name) {
            ("doc", "enddoc") => return Some(end),
            ("doc", _) => {}
            (_, "comment") => depth += 1,
            (_, "endcomment") => {
                depth -= 1;
                if depth == 0 {
                    return Some(end);
                }
            }
            (_, "raw") => {
                if let Some(raw) = raw_end(text, at) {
                    at = raw.after;
                }
            }
            _ => {}
        }
    }
}
