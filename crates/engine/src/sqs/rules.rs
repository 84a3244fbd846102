//! One message against the rules of SQS. Each rule has a stable code; the failure names the part, the rule and the value.

use super::{
    ATTRIBUTES_MAX, Attribute, AttributeValue, DELAY_SECONDS, DELAY_SECONDS_MAX, MESSAGE_BYTES_MAX, Parts,
    is_fifo, number,
};
use crate::codes::{self, Code};
use crate::failure::{Failure, FailureKind};
use crate::message::{HeaderValue, Outbound, Route};
use crate::size::ByteSize;

/// The longest group or deduplication id, in characters.
const ID_CHARS_MAX: usize = 128;
/// The longest name of an attribute, and the longest type, in characters.
const NAME_CHARS_MAX: usize = 256;

/// Checks a message against the rules of SQS and its queue's largest message (name, type and value of each attribute count).
///
/// # Errors
/// The first rule that is broken.
pub fn check(outbound: &Outbound, bytes_max: u64) -> Result<(), Failure> {
    let queue = match &outbound.route {
        Route::Queue(queue) => queue,
        Route::Exchange { .. } => {
            return Err(broken(codes::NO_SUCH_EXCHANGE, format!("publish to {}", outbound.route))
                .detail("SQS has queues only")
                .remedy("name a queue"));
        }
    };
    let body = &outbound.message.body;
    let parts = Parts::of(&outbound.message);
    if body.is_empty() {
        return Err(broken(
            codes::EMPTY_MESSAGE,
            "the message is empty, and SQS takes none without a character",
        )
        .remedy("give the row a message, or leave it out with `when`"));
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        broken(codes::INVALID_CHARACTERS, "the message is not UTF-8, and SQS takes only text")
            .detail(format!("byte {at} is 0x{:02X}", body[at]))
            .remedy("encode it, for example as base64")
    })?;
    characters("the message", text)?;
    attributes(&parts)?;
    size(body.len(), &parts, parts.bytes(body), bytes_max)?;
    order(queue, outbound, &parts)
}

fn size(body: usize, parts: &Parts<'_>, bytes: u64, bytes_max: u64) -> Result<(), Failure> {
    let bytes_max = bytes_max.min(MESSAGE_BYTES_MAX);
    if bytes <= bytes_max {
        return Ok(());
    }
    let with = match parts.attributes.len() {
        0 => String::new(),
        count => format!(" ({} of body, the rest in {count} attributes)", ByteSize(body as u64)),
    };
    Err(broken(
        codes::MESSAGE_TOO_LARGE,
        format!(
            "the message has {}{with} and the queue takes at most {}",
            ByteSize(bytes),
            ByteSize(bytes_max)
        ),
    )
    .detail(format!("{bytes} bytes of {bytes_max}"))
    .remedy("send less of the row, or raise the queue's MaximumMessageSize, up to 1 MiB"))
}

fn order(queue: &str, outbound: &Outbound, parts: &Parts<'_>) -> Result<(), Failure> {
    if let Some(group) = parts.group_id {
        id("group_id", group, codes::INVALID_GROUP_ID)?;
    }
    if let Some(deduplication) = parts.deduplication_id {
        id("deduplication_id", deduplication, codes::INVALID_DEDUPLICATION_ID)?;
    }
    delay(queue, outbound, parts.delay_seconds)?;
    if is_fifo(queue) && parts.group_id.is_none() {
        return Err(broken(
            codes::MISSING_GROUP_ID,
            format!("`group_id` is missing, and queue `{queue}` is a FIFO queue, which needs one"),
        )
        .remedy("give the sync or its trigger a `group_id`; a row whose column is NULL has none"));
    }
    Ok(())
}

fn delay(queue: &str, outbound: &Outbound, delay: Option<i64>) -> Result<(), Failure> {
    let given = outbound.message.properties.headers.get(DELAY_SECONDS);
    let Some(seconds) = delay else {
        return match given {
            None | Some(HeaderValue::Void) => Ok(()),
            Some(value) => Err(broken(
                codes::INVALID_DELAY,
                format!(
                    "`delay_seconds` is `{value:?}` and must be a whole number from 0 to {DELAY_SECONDS_MAX}"
                ),
            )),
        };
    };
    if !(0..=DELAY_SECONDS_MAX).contains(&seconds) {
        return Err(broken(
            codes::INVALID_DELAY,
            format!("`delay_seconds` is {seconds} and must be from 0 to {DELAY_SECONDS_MAX}"),
        )
        .remedy("SQS holds a message back for 15 minutes at most"));
    }
    if seconds > 0 && is_fifo(queue) {
        return Err(broken(
            codes::INVALID_DELAY,
            format!("`delay_seconds` is {seconds}, and queue `{queue}` is a FIFO queue, which delays no single message"),
        )
        .remedy("remove `delay_seconds`; a FIFO queue has a delay of its own for all its messages"));
    }
    Ok(())
}

fn id(field: &str, text: &str, code: Code) -> Result<(), Failure> {
    match id_fault(text) {
        None => Ok(()),
        Some(fault) => Err(broken(code, format!("`{field}` {fault}"))
            .remedy("letters and digits of ASCII and its punctuation are allowed, and no space")),
    }
}

/// Which rule a group or deduplication id breaks.
pub fn id_fault(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some(format!("is empty and must have 1 to {ID_CHARS_MAX} characters"));
    }
    if let Some(bad) = text.chars().find(|character| !character.is_ascii_graphic()) {
        return Some(format!("is `{}` and has {}, which SQS does not take there", shown(text), named(bad)));
    }
    let length = text.len(); // all ASCII
    (length > ID_CHARS_MAX)
        .then(|| format!("is `{}`, with {length} characters where {ID_CHARS_MAX} are allowed", shown(text)))
}

fn attributes(parts: &Parts<'_>) -> Result<(), Failure> {
    let count = parts.attributes.len();
    if count > ATTRIBUTES_MAX {
        let names: Vec<&str> = parts.attributes.iter().map(|attribute| attribute.name).collect();
        return Err(broken(
            codes::TOO_MANY_ATTRIBUTES,
            format!("the message has {count} attributes and SQS takes at most {ATTRIBUTES_MAX}"),
        )
        .detail(names.join(", "))
        .remedy("move some of them into the message"));
    }
    parts.attributes.iter().try_for_each(one_attribute)
}

fn one_attribute(attribute: &Attribute<'_>) -> Result<(), Failure> {
    let Attribute { name, kind, value } = attribute;
    let wrong =
        |what: String| Err(broken(codes::INVALID_ATTRIBUTE, format!("attribute `{}` {what}", shown(name))));
    if let Some(fault) = name_fault(name) {
        return wrong(fault);
    }
    if let Some(fault) = kind_fault(kind) {
        return wrong(format!("has the type `{}`, {fault}", shown(kind)));
    }
    let is_binary = base(kind) == "Binary";
    match value {
        AttributeValue::Text(text) if !is_binary => {
            if text.is_empty() {
                return wrong("is empty, and SQS takes no empty value; NULL leaves it out".to_owned());
            }
            if base(kind) == "Number" {
                if let Some(fault) = number::fault(text) {
                    return wrong(format!("is `{}`: {fault}", shown(text)));
                }
                return Ok(());
            }
            characters(&format!("attribute `{name}`"), text)
        }
        AttributeValue::Bytes(bytes) if is_binary => {
            if bytes.is_empty() {
                return wrong("is empty, and SQS takes no empty value; NULL leaves it out".to_owned());
            }
            Ok(())
        }
        AttributeValue::Text(_) => wrong(format!("has the type `{kind}` and a text as its value")),
        AttributeValue::Bytes(_) => wrong(format!("has the type `{kind}` and bytes as its value")),
    }
}

/// Which rule an attribute's name breaks.
pub fn name_fault(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("has no name".to_owned());
    }
    let allowed =
        |character: &char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.');
    if let Some(bad) = name.chars().find(|character| !allowed(character)) {
        return Some(format!(
            "has {} in its name, where letters and digits of ASCII, `_`, `-` and `.` are allowed",
            named(bad)
        ));
    }
    if name.len() > NAME_CHARS_MAX {
        return Some(format!("has a name of {} characters, and {NAME_CHARS_MAX} are allowed", name.len()));
    }
    if name.starts_with('.') || name.ends_with('.') || name.contains("..") {
        return Some("has a name that begins or ends with a dot or has two in a row".to_owned());
    }
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("aws.") || lower.starts_with("amazon.") {
        return Some(
            "has a name that begins with `AWS.` or `Amazon.`, which Amazon keeps for itself".to_owned(),
        );
    }
    None
}

/// Which rule an attribute's type breaks.
pub fn kind_fault(kind: &str) -> Option<String> {
    if !matches!(base(kind), "String" | "Number" | "Binary") {
        return Some(
            "which is none of `String`, `Number` and `Binary`, with or without a label: `Number.float`"
                .to_owned(),
        );
    }
    let label = kind.split_once('.').map(|(_, label)| label);
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.');
    if label.is_some_and(|label| label.is_empty() || !label.chars().all(allowed)) {
        return Some("whose label is not made of letters and digits of ASCII, `_`, `-` and `.`".to_owned());
    }
    if kind.len() > NAME_CHARS_MAX {
        return Some(format!("which is longer than {NAME_CHARS_MAX} characters"));
    }
    None
}

fn base(kind: &str) -> &str {
    kind.split_once('.').map_or(kind, |(base, _)| base)
}

/// What SQS takes: `#x9 | #xA | #xD | #x20–#xD7FF | #xE000–#xFFFD | #x10000–#x10FFFF`.
fn characters(part: &str, text: &str) -> Result<(), Failure> {
    let forbidden = |character: &char| matches!(character, '\u{0}'..='\u{8}' | '\u{B}' | '\u{C}' | '\u{E}'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}');
    // Most texts have none, and bytes are looked at faster than characters: what is forbidden begins with one of these.
    if !text.bytes().any(|byte| byte < 0x20 || byte == 0xEF) {
        return Ok(());
    }
    let Some((at, bad)) = text.char_indices().find(|(_, character)| forbidden(character)) else {
        return Ok(());
    };
    Err(broken(
        codes::INVALID_CHARACTERS,
        format!("{part} has {} at byte {at}, which SQS does not take", named(bad)),
    )
    .remedy("take it out in the query, or send the text as a JSON value, where such characters are escaped"))
}

fn named(character: char) -> String {
    match character {
        ' ' => "a space".to_owned(),
        character if character.is_control() || ('\u{FFFE}'..='\u{FFFF}').contains(&character) => {
            format!("the character U+{:04X}", u32::from(character))
        }
        character => format!("the character `{character}`"),
    }
}

fn shown(text: &str) -> String {
    let shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().count() > 60 { format!("{shown}…") } else { shown }
}

fn broken(code: Code, what: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Invalid, code, what)
}

#[cfg(test)]
mod tests;
