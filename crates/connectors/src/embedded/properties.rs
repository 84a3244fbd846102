//! A message's properties as bytes: exactly AMQP 0-9-1's content header (flags, then fields) with RabbitMQ's field types.
//!
//! The format is chosen because it is specified, lossless for our types, and its length is the one that a RabbitMQ
//! frame would have to hold, so that the same messages are too large here as there. It must never change: files hold it.

use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::message::{HeaderValue, Headers, Properties};

/// The longest short string, in bytes.
pub(super) const SHORT_BYTES_MAX: usize = 255;
/// The most bytes of properties: RabbitMQ's frame of 128 KiB less the frame's own 8 and the content header's 12.
pub(super) const HEADER_BYTES_MAX: usize = 131_072 - 8 - 12;
/// How deep tables and arrays may lie in each other; bounds the recursion here and wherever the value is dropped.
const DEPTH_MAX: usize = 64;

/// Writes properties, or says which of them AMQP cannot carry.
pub(super) fn encode(properties: &Properties) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::with_capacity(64);
    out.extend([0, 0]);
    let mut flags = 0_u16;
    let mut short = |out: &mut Vec<u8>, bit: u32, name: &str, text: &Option<String>| match text {
        Some(text) => {
            flags |= 1 << bit;
            put_short(out, name, text)
        }
        None => Ok(()),
    };
    short(&mut out, 15, "content_type", &properties.content_type)?;
    short(&mut out, 14, "content_encoding", &properties.content_encoding)?;
    let mut more_flags = 0_u16;
    if !properties.headers.is_empty() {
        more_flags |= 1 << 13;
        put_table(&mut out, &properties.headers, 0)?;
    }
    more_flags |= 1 << 12;
    out.push(if properties.persistent { 2 } else { 1 });
    if let Some(priority) = properties.priority {
        more_flags |= 1 << 11;
        out.push(priority);
    }
    short(&mut out, 10, "correlation_id", &properties.correlation_id)?;
    short(&mut out, 9, "reply_to", &properties.reply_to)?;
    short(&mut out, 8, "expiration", &properties.expiration)?;
    short(&mut out, 7, "message_id", &properties.message_id)?;
    if let Some(timestamp) = properties.timestamp {
        more_flags |= 1 << 6;
        out.extend(timestamp.to_be_bytes());
    }
    short(&mut out, 5, "type", &properties.kind)?;
    short(&mut out, 4, "user_id", &properties.user_id)?;
    short(&mut out, 3, "app_id", &properties.app_id)?;
    out[..2].copy_from_slice(&(flags | more_flags).to_be_bytes());
    if out.len() > HEADER_BYTES_MAX {
        return Err(Failure::new(FailureKind::Invalid, codes::HEADERS_TOO_LARGE, "publish a message")
            .detail(format!(
                "its properties and headers take {} bytes, at most {HEADER_BYTES_MAX} fit a frame",
                out.len()
            ))
            .remedy("send less in the headers, or send it in the body"));
    }
    Ok(out)
}

/// Writes a table by itself, for arguments.
pub(super) fn encode_table(headers: &Headers) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    put_table(&mut out, headers, 0)?;
    Ok(out)
}

/// Fails for a text that is too long for a short string.
pub(super) fn check_short(name: &str, text: &str) -> Result<(), Failure> {
    if text.len() <= SHORT_BYTES_MAX {
        return Ok(());
    }
    let shown: String = text.chars().take(40).collect();
    Err(Failure::new(FailureKind::Invalid, codes::VALUE_TOO_LONG, "publish a message")
        .detail(format!("{name} `{shown}…` has {} bytes, at most {SHORT_BYTES_MAX} are allowed", text.len())))
}

fn put_short(out: &mut Vec<u8>, name: &str, text: &str) -> Result<(), Failure> {
    check_short(name, text)?;
    out.push(text.len() as u8);
    out.extend(text.as_bytes());
    Ok(())
}

fn put_long(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Failure> {
    let length = u32::try_from(bytes.len()).map_err(|_| too_large())?;
    out.extend(length.to_be_bytes());
    out.extend(bytes);
    Ok(())
}

fn put_table(out: &mut Vec<u8>, headers: &Headers, depth: usize) -> Result<(), Failure> {
    measured(out, |out| {
        for (name, value) in headers.iter() {
            put_short(out, "the header name", name)?;
            put_value(out, value, depth)?;
        }
        Ok(())
    })
}

/// Writes something behind its length.
fn measured(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let start = out.len();
    out.extend([0; 4]);
    write(out)?;
    let length = u32::try_from(out.len() - start - 4).map_err(|_| too_large())?;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn put_value(out: &mut Vec<u8>, value: &HeaderValue, depth: usize) -> Result<(), Failure> {
    if depth >= DEPTH_MAX {
        return Err(Failure::new(FailureKind::Invalid, codes::INVALID_PROPERTY, "publish a message")
            .detail(format!("a header's tables and arrays lie deeper than {DEPTH_MAX} in each other")));
    }
    match value {
        HeaderValue::Void => out.push(b'V'),
        HeaderValue::Bool(value) => out.extend([b't', u8::from(*value)]),
        HeaderValue::I8(value) => out.extend([b'b', value.to_be_bytes()[0]]),
        HeaderValue::U8(value) => out.extend([b'B', *value]),
        HeaderValue::I16(value) => tagged(out, b's', &value.to_be_bytes()),
        HeaderValue::U16(value) => tagged(out, b'u', &value.to_be_bytes()),
        HeaderValue::I32(value) => tagged(out, b'I', &value.to_be_bytes()),
        HeaderValue::U32(value) => tagged(out, b'i', &value.to_be_bytes()),
        HeaderValue::I64(value) => tagged(out, b'l', &value.to_be_bytes()),
        HeaderValue::F32(value) => tagged(out, b'f', &value.to_be_bytes()),
        HeaderValue::F64(value) => tagged(out, b'd', &value.to_be_bytes()),
        HeaderValue::Decimal { scale, value } => {
            out.extend([b'D', *scale]);
            out.extend(value.to_be_bytes());
        }
        HeaderValue::Text(text) => {
            out.push(b'S');
            put_long(out, text.as_bytes())?;
        }
        HeaderValue::Bytes(bytes) => {
            out.push(b'x');
            put_long(out, bytes)?;
        }
        HeaderValue::Timestamp(seconds) => tagged(out, b'T', &seconds.to_be_bytes()),
        HeaderValue::Array(values) => {
            out.push(b'A');
            measured(out, |out| values.iter().try_for_each(|value| put_value(out, value, depth + 1)))?;
        }
        HeaderValue::Table(headers) => {
            out.push(b'F');
            put_table(out, headers, depth + 1)?;
        }
    }
    Ok(())
}

fn tagged(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend(bytes);
}

fn too_large() -> Failure {
    Failure::new(FailureKind::Invalid, codes::HEADERS_TOO_LARGE, "publish a message")
        .detail("a header takes more than 4 GiB")
}

/// Reads what [`encode`] wrote; `None` for anything else.
pub(super) fn decode(bytes: &[u8]) -> Option<Properties> {
    let mut input = Input(bytes);
    let flags = u16::from_be_bytes(input.array()?);
    let has = |bit: u32| flags & (1 << bit) != 0;
    let mut properties = Properties {
        content_type: if has(15) { Some(input.short()?) } else { None },
        content_encoding: if has(14) { Some(input.short()?) } else { None },
        headers: if has(13) { input.table(0)? } else { Headers::default() },
        ..Properties::default()
    };
    properties.persistent = if has(12) { input.array::<1>()?[0] == 2 } else { false };
    properties.priority = if has(11) { Some(input.array::<1>()?[0]) } else { None };
    properties.correlation_id = if has(10) { Some(input.short()?) } else { None };
    properties.reply_to = if has(9) { Some(input.short()?) } else { None };
    properties.expiration = if has(8) { Some(input.short()?) } else { None };
    properties.message_id = if has(7) { Some(input.short()?) } else { None };
    properties.timestamp = if has(6) { Some(u64::from_be_bytes(input.array()?)) } else { None };
    properties.kind = if has(5) { Some(input.short()?) } else { None };
    properties.user_id = if has(4) { Some(input.short()?) } else { None };
    properties.app_id = if has(3) { Some(input.short()?) } else { None };
    input.0.is_empty().then_some(properties)
}

/// Reads what [`encode_table`] wrote; `None` for anything else.
pub(super) fn decode_table(bytes: &[u8]) -> Option<Headers> {
    let mut input = Input(bytes);
    let table = input.table(0)?;
    input.0.is_empty().then_some(table)
}

struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn short(&mut self) -> Option<String> {
        let length = self.array::<1>()?[0];
        String::from_utf8(self.take(length.into())?.to_vec()).ok()
    }

    fn long(&mut self) -> Option<&'b [u8]> {
        let length = u32::from_be_bytes(self.array()?);
        self.take(length as usize)
    }

    fn table(&mut self, depth: usize) -> Option<Headers> {
        let mut input = Input(self.long()?);
        let mut entries = Vec::new();
        while !input.0.is_empty() {
            let name = input.short()?;
            entries.push((name, input.value(depth)?));
        }
        Some(entries.into_iter().collect())
    }

    fn value(&mut self, depth: usize) -> Option<HeaderValue> {
        if depth >= DEPTH_MAX {
            return None;
        }
        Some(match self.array::<1>()?[0] {
            b'V' => HeaderValue::Void,
            b't' => HeaderValue::Bool(self.array::<1>()?[0] != 0),
            b'b' => HeaderValue::I8(i8::from_be_bytes(self.array()?)),
            b'B' => HeaderValue::U8(self.array::<1>()?[0]),
            b's' => HeaderValue::I16(i16::from_be_bytes(self.array()?)),
            b'u' => HeaderValue::U16(u16::from_be_bytes(self.array()?)),
            b'I' => HeaderValue::I32(i32::from_be_bytes(self.array()?)),
            b'i' => HeaderValue::U32(u32::from_be_bytes(self.array()?)),
            b'l' => HeaderValue::I64(i64::from_be_bytes(self.array()?)),
            b'f' => HeaderValue::F32(f32::from_be_bytes(self.array()?)),
            b'd' => HeaderValue::F64(f64::from_be_bytes(self.array()?)),
            b'D' => HeaderValue::Decimal {
                scale: self.array::<1>()?[0],
                value: i32::from_be_bytes(self.array()?),
            },
            b'S' => HeaderValue::Text(String::from_utf8(self.long()?.to_vec()).ok()?),
            b'x' => HeaderValue::Bytes(self.long()?.to_vec()),
            b'T' => HeaderValue::Timestamp(u64::from_be_bytes(self.array()?)),
            b'A' => {
                let mut input = Input(self.long()?);
                let mut values = Vec::new();
                while !input.0.is_empty() {
                    values.push(input.value(depth + 1)?);
                }
                HeaderValue::Array(values)
            }
            b'F' => HeaderValue::Table(self.table(depth + 1)?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_of_it() -> Properties {
        let nested: Headers =
            [("in".to_owned(), HeaderValue::Array(vec![HeaderValue::Void]))].into_iter().collect();
        Properties {
            content_type: Some("application/json".into()),
            content_encoding: Some(String::new()),
            persistent: false,
            priority: Some(9),
            correlation_id: Some("c".into()),
            reply_to: Some("r".into()),
            expiration: Some("60000".into()),
            message_id: Some("ü".into()),
            timestamp: Some(u64::MAX),
            kind: Some("k".into()),
            user_id: Some("u".into()),
            app_id: Some("a".repeat(255)),
            headers: [
                HeaderValue::Void,
                HeaderValue::Bool(true),
                HeaderValue::I8(-1),
                HeaderValue::U8(200),
                HeaderValue::I16(-2),
                HeaderValue::U16(2),
                HeaderValue::I32(-3),
                HeaderValue::U32(3),
                HeaderValue::I64(i64::MIN),
                HeaderValue::F32(1.5),
                HeaderValue::F64(f64::INFINITY),
                HeaderValue::Decimal { scale: 2, value: 314 },
                HeaderValue::Decimal { scale: 255, value: i32::MIN },
                HeaderValue::Decimal { scale: 0, value: -1 },
                HeaderValue::Text("text".into()),
                HeaderValue::Bytes(vec![0xff, 0]),
                HeaderValue::Timestamp(7),
                HeaderValue::Table(nested),
            ]
            .into_iter()
            .enumerate()
            .map(|(at, value)| (format!("h{at}"), value))
            .collect(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for properties in [all_of_it(), Properties::default()] {
            assert_eq!(decode(&encode(&properties).unwrap()), Some(properties));
        }
    }

    // Files hold this format; AMQP's specification fixes it.
    #[test]
    fn the_format_is_amqps() {
        let mut properties = Properties { content_type: Some("t".into()), ..Properties::default() };
        properties.headers.set("n", HeaderValue::I64(1));
        properties.message_id = Some("m".into());
        assert_eq!(
            encode(&properties).unwrap(),
            b"\xb0\x80\x01t\x00\x00\x00\x0b\x01nl\x00\x00\x00\x00\x00\x00\x00\x01\x02\x01m"
        );
    }

    #[test]
    fn a_torn_value_is_no_value() {
        let whole = encode(&all_of_it()).unwrap();
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn what_amqp_cannot_carry_is_refused() {
        let code = |properties: &Properties| encode(properties).unwrap_err().code;
        let long = Properties { message_id: Some("x".repeat(256)), ..Properties::default() };
        assert_eq!(code(&long), codes::VALUE_TOO_LONG);
        let mut properties = Properties::default();
        properties.headers.set("big", HeaderValue::Text("x".repeat(HEADER_BYTES_MAX)));
        assert_eq!(code(&properties), codes::HEADERS_TOO_LARGE);
        let mut value = HeaderValue::Void;
        for _ in 0..=DEPTH_MAX {
            value = HeaderValue::Array(vec![value]);
        }
        let mut properties = Properties::default();
        properties.headers.set("deep", value);
        assert_eq!(code(&properties), codes::INVALID_PROPERTY);
    }
}
