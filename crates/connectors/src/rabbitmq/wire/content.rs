//! The header frame of a content: the body's size and the properties.

use warren_engine::message::Properties;

use super::field::{Reader, put_short, put_u16, put_u64};
use super::method::BASIC;
use super::table::{put_table, table};
use super::{Malformed, Unsayable};

const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const KIND: u16 = 1 << 5;
const USER_ID: u16 = 1 << 4;
const APP_ID: u16 = 1 << 3;
const CLUSTER_ID: u16 = 1 << 2;
const MORE_FLAGS: u16 = 1;

/// Bytes of a header frame's payload before the properties: class, weight, body size, flags.
pub(crate) const FIXED: usize = 14;

const TRANSIENT: u8 = 1;
const PERSISTENT: u8 = 2;

/// Writes the payload of a header frame.
pub(crate) fn put_header(out: &mut Vec<u8>, properties: &Properties, body: u64) -> Result<(), Unsayable> {
    put_u16(out, BASIC);
    put_u16(out, 0);
    put_u64(out, body);
    let flags_at = out.len();
    put_u16(out, 0);
    let mut flags = DELIVERY_MODE;
    let mut text = |out: &mut Vec<u8>, flag: u16, what: &'static str, value: Option<&String>| match value {
        Some(value) => {
            flags |= flag;
            put_short(out, what, value)
        }
        None => Ok(()),
    };
    text(out, CONTENT_TYPE, "content_type", properties.content_type.as_ref())?;
    text(out, CONTENT_ENCODING, "content_encoding", properties.content_encoding.as_ref())?;
    if !properties.headers.is_empty() {
        put_table(out, &properties.headers)?;
    }
    out.push(if properties.persistent { PERSISTENT } else { TRANSIENT });
    out.extend(properties.priority);
    text(out, CORRELATION_ID, "correlation_id", properties.correlation_id.as_ref())?;
    text(out, REPLY_TO, "reply_to", properties.reply_to.as_ref())?;
    text(out, EXPIRATION, "expiration", properties.expiration.as_ref())?;
    text(out, MESSAGE_ID, "message_id", properties.message_id.as_ref())?;
    if let Some(seconds) = properties.timestamp {
        put_u64(out, seconds);
    }
    text(out, KIND, "type", properties.kind.as_ref())?;
    // RabbitMQ compares an empty one with the login too, and nobody is called that.
    let user_id = properties.user_id.as_ref().filter(|user_id| !user_id.is_empty());
    text(out, USER_ID, "user_id", user_id)?;
    text(out, APP_ID, "app_id", properties.app_id.as_ref())?;
    for (flag, present) in [
        (HEADERS, !properties.headers.is_empty()),
        (PRIORITY, properties.priority.is_some()),
        (TIMESTAMP, properties.timestamp.is_some()),
    ] {
        if present {
            flags |= flag;
        }
    }
    out[flags_at..flags_at + 2].copy_from_slice(&flags.to_be_bytes());
    Ok(())
}

/// Reads the payload of a header frame: the body's size and the properties.
pub(crate) fn header(payload: &[u8]) -> Result<(u64, Properties), Malformed> {
    let mut reader = Reader::new(payload);
    let size = body_size(&mut reader)?;
    let flags = flags(&mut reader)?;
    let mut properties = Properties { persistent: false, ..Properties::default() };
    let text = |reader: &mut Reader<'_>, flag: u16| -> Result<Option<String>, Malformed> {
        if flags & flag == 0 { Ok(None) } else { reader.short_text().map(Some) }
    };
    properties.content_type = text(&mut reader, CONTENT_TYPE)?;
    properties.content_encoding = text(&mut reader, CONTENT_ENCODING)?;
    if flags & HEADERS != 0 {
        properties.headers = table(&mut reader)?;
    }
    if flags & DELIVERY_MODE != 0 {
        properties.persistent = reader.u8()? == PERSISTENT;
    }
    if flags & PRIORITY != 0 {
        properties.priority = Some(reader.u8()?);
    }
    properties.correlation_id = text(&mut reader, CORRELATION_ID)?;
    properties.reply_to = text(&mut reader, REPLY_TO)?;
    properties.expiration = text(&mut reader, EXPIRATION)?;
    properties.message_id = text(&mut reader, MESSAGE_ID)?;
    if flags & TIMESTAMP != 0 {
        properties.timestamp = Some(reader.u64()?);
    }
    properties.kind = text(&mut reader, KIND)?;
    properties.user_id = text(&mut reader, USER_ID)?;
    properties.app_id = text(&mut reader, APP_ID)?;
    text(&mut reader, CLUSTER_ID)?; // deprecated, and nobody's to read
    Ok((size, properties))
}

/// The message id in the payload of a header frame, without decoding the rest.
pub(crate) fn message_id(payload: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let mut reader = Reader::new(payload);
    body_size(&mut reader)?;
    let flags = flags(&mut reader)?;
    let skip_text = |reader: &mut Reader<'_>, flag: u16| -> Result<(), Malformed> {
        if flags & flag == 0 { Ok(()) } else { reader.short().map(drop) }
    };
    skip_text(&mut reader, CONTENT_TYPE)?;
    skip_text(&mut reader, CONTENT_ENCODING)?;
    if flags & HEADERS != 0 {
        reader.long()?;
    }
    let octets = usize::from(flags & DELIVERY_MODE != 0) + usize::from(flags & PRIORITY != 0);
    reader.take(octets)?;
    skip_text(&mut reader, CORRELATION_ID)?;
    skip_text(&mut reader, REPLY_TO)?;
    skip_text(&mut reader, EXPIRATION)?;
    if flags & MESSAGE_ID == 0 { Ok(None) } else { reader.short().map(Some) }
}

fn body_size(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    if reader.u16()? != BASIC {
        return Err(Malformed("a content is not of class basic"));
    }
    reader.u16()?; // weight, unused
    reader.u64()
}

fn flags(reader: &mut Reader<'_>) -> Result<u16, Malformed> {
    let flags = reader.u16()?;
    if flags & MORE_FLAGS != 0 {
        return Err(Malformed("a content has properties that class basic does not have"));
    }
    Ok(flags)
}
