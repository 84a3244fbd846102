//! Filters on text. Anything that is no text is taken as the text it prints.

use super::{Given, Refusal, Work, integer};
use crate::held::Held;
use crate::list;

type Result<'r> = std::result::Result<Held<'r>, Refusal>;

fn own<'r>(text: impl Into<std::rc::Rc<str>>) -> Held<'r> {
    Held::own_str(text)
}

pub(super) fn append<'r>(input: &Held<'r>, given: &Given<'r>) -> Held<'r> {
    own([&*input.text(), &*given.text(0)].concat())
}

pub(super) fn prepend<'r>(input: &Held<'r>, given: &Given<'r>) -> Held<'r> {
    own([&*given.text(0), &*input.text()].concat())
}

pub(super) fn upcase<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    own(input.text().to_uppercase())
}

pub(super) fn downcase<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    own(input.text().to_lowercase())
}

pub(super) fn capitalize<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    let text = input.text();
    let mut chars = text.chars();
    let first: String = chars.next().map(|first| first.to_uppercase().collect()).unwrap_or_default();
    own(first + &chars.as_str().to_lowercase())
}

fn is_space(c: char) -> bool {
    crate::scan::is_space(c) || c == '\0'
}

pub(super) fn strip<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    own(input.text().trim_matches(is_space))
}

pub(super) fn lstrip<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    own(input.text().trim_start_matches(is_space))
}

pub(super) fn rstrip<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    own(input.text().trim_end_matches(is_space))
}

pub(super) fn squish<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    if matches!(input, Held::Nil) {
        return Held::Nil;
    }
    own(input.text().split_whitespace().collect::<Vec<_>>().join(" "))
}

pub(super) fn default<'r>(input: &Held<'r>, given: &Given<'r>) -> Held<'r> {
    let absent = match input {
        Held::Nil | Held::Blank | Held::Empty => true,
        Held::Bool(false) => !given.allow_false,
        other => other.is_empty(),
    };
    if !absent {
        return input.clone();
    }
    given.get(0).cloned().unwrap_or(Held::own_str(""))
}

pub(super) fn replace<'r>(input: &Held<'r>, given: &Given<'r>, work: &mut Work<'_>) -> Result<'r> {
    replace_all(&input.text(), &given.text(0), &given.text(1), work)
}

pub(super) fn remove<'r>(input: &Held<'r>, given: &Given<'r>, work: &mut Work<'_>) -> Result<'r> {
    replace_all(&input.text(), &given.text(0), "", work)
}

fn replace_all<'r>(text: &str, pattern: &str, with: &str, work: &mut Work<'_>) -> Result<'r> {
    // The length is known before the text is made, so that a long replacement cannot fill the memory.
    let count = if with.len() > pattern.len() { text.matches(pattern).count() } else { 0 };
    work.charge(count / 8)?;
    work.bytes(text.len().saturating_add(count.saturating_mul(with.len())))?;
    Ok(own(text.replace(pattern, with)))
}

pub(super) fn replace_first<'r>(input: &Held<'r>, given: &Given<'r>) -> Held<'r> {
    own(input.text().replacen(&*given.text(0), &given.text(1), 1))
}

pub(super) fn remove_first<'r>(input: &Held<'r>, given: &Given<'r>) -> Held<'r> {
    own(input.text().replacen(&*given.text(0), "", 1))
}

pub(super) fn replace_last<'r>(input: &Held<'r>, given: &Given<'r>) -> Held<'r> {
    replace_rightmost(input, &given.text(0), &given.text(1))
}

pub(super) fn remove_last<'r>(input: &Held<'r>, given: &Given<'r>) -> Held<'r> {
    replace_rightmost(input, &given.text(0), "")
}

fn replace_rightmost<'r>(input: &Held<'r>, pattern: &str, with: &str) -> Held<'r> {
    let text = input.text();
    match text.rfind(pattern) {
        Some(at) => own([&text[..at], with, &text[at + pattern.len()..]].concat()),
        None => own(&*text),
    }
}

pub(super) fn slice<'r>(input: &Held<'r>, given: &Given<'r>, work: &mut Work<'_>) -> Result<'r> {
    let offset = integer(given.get(0).unwrap_or(&Held::Nil))?;
    let length = given.some(1).map_or(Ok(1), integer)?;
    if input.is_array() {
        let range = window(list::len(input), offset, length);
        work.charge(range.len())?;
        return Ok(Held::list(match input {
            Held::Json(_) => list::items(input).drain(range).collect(),
            _ => range.map(|i| list::at(input, i)).collect(),
        }));
    }
    let text = input.text();
    let range = window(text.chars().count(), offset, length);
    Ok(own(text.chars().skip(range.start).take(range.len()).collect::<String>()))
}

/// The items from `offset` on (from the end when negative), as far as there are any.
fn window(count: usize, offset: i64, length: i64) -> std::ops::Range<usize> {
    let count_signed = i64::try_from(count).unwrap_or(i64::MAX);
    let start = if offset < 0 { count_signed.saturating_add(offset) } else { offset };
    if start < 0 || start > count_signed || length < 0 {
        return 0..0;
    }
    let end = start.saturating_add(length).min(count_signed);
    start as usize..end as usize
}

pub(super) fn split<'r>(input: &Held<'r>, given: &Given<'r>, work: &mut Work<'_>) -> Result<'r> {
    let (text, pattern) = (input.text(), given.text(0));
    let mut parts = Vec::new();
    let mut push = |part: &str| {
        parts.push(Held::own_str(part));
        work.charge(1)
    };
    match &*pattern {
        // One space means any run of white space.
        " " => text.split_whitespace().try_for_each(&mut push)?,
        "" => text.char_indices().try_for_each(|(at, c)| push(&text[at..at + c.len_utf8()]))?,
        pattern => text.split(pattern).try_for_each(&mut push)?,
    }
    // Nothing at the end is not handed out, however often.
    while parts.last().is_some_and(Held::is_empty) {
        parts.pop();
    }
    Ok(Held::list(parts))
}

pub(super) fn truncate<'r>(input: &Held<'r>, given: &Given<'r>, _: &mut Work<'_>) -> Result<'r> {
    if matches!(input, Held::Nil) {
        return Ok(Held::Nil);
    }
    let text = input.text();
    let length = given.some(0).map_or(Ok(50), integer)?;
    let tail = given.get(1).map_or("...".into(), Held::text);
    let count = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    if count <= length {
        return Ok(own(&*text));
    }
    let kept = length.saturating_sub(tail.chars().count() as i64).max(0) as usize;
    Ok(own(text.chars().take(kept).chain(tail.chars()).collect::<String>()))
}

pub(super) fn truncatewords<'r>(input: &Held<'r>, given: &Given<'r>, _: &mut Work<'_>) -> Result<'r> {
    if matches!(input, Held::Nil) {
        return Ok(Held::Nil);
    }
    let text = input.text();
    let count = given.some(0).map_or(Ok(15), integer)?.max(1) as usize;
    let tail = given.get(1).map_or("...".into(), Held::text);
    let mut words = text.split_whitespace();
    let kept: Vec<_> = words.by_ref().take(count).collect();
    if words.next().is_none() {
        return Ok(own(&*text));
    }
    Ok(own(kept.join(" ") + &tail))
}
