//! Field tables, with the type letters RabbitMQ uses
//! (<https://www.rabbitmq.com/amqp-0-9-1-errata#section_3>), in order.

use warren_engine::message::{HeaderValue, Headers};

use super::field::{Reader, put_short, put_sized, put_u16, put_u32, put_u64};
use super::{Malformed, Unsayable};

/// How deep tables and arrays may be nested. Anybody who may publish chooses the depth of what we consume, and a frame has
/// room for twenty thousand levels, more than a stack has. What lies deeper is yielded as its raw bytes.
pub(crate) const DEPTH_MAX: usize = 64;

/// Writes a table with its length.
pub(crate) fn put_table(out: &mut Vec<u8>, headers: &Headers) -> Result<(), Unsayable> {
    put_table_at(out, headers, 0)
}

/// Reads a table with its length. Of a name that stands twice the last value counts.
pub(crate) fn table(reader: &mut Reader<'_>) -> Result<Headers, Malformed> {
    table_at(reader.long()?, 0)
}

fn put_table_at(out: &mut Vec<u8>, headers: &Headers, depth: usize) -> Result<(), Unsayable> {
    if depth > DEPTH_MAX {
        return Err(Unsayable::TooDeep(DEPTH_MAX));
    }
    put_sized(out, |out| {
        headers.iter().try_for_each(|(name, value)| {
            put_short(out, "a header's name", name)?;
            put_value(out, value, depth)
        })
    })
}

fn put_value(out: &mut Vec<u8>, value: &HeaderValue, depth: usize) -> Result<(), Unsayable> {
    match value {
        HeaderValue::Void => out.push(b'V'),
        HeaderValue::Bool(value) => out.extend_from_slice(&[b't', u8::from(*value)]),
        HeaderValue::I8(value) => out.extend_from_slice(&[b'b', *value as u8]),
        HeaderValue::U8(value) => out.extend_from_slice(&[b'B', *value]),
        HeaderValue::I16(value) => {
            out.push(b's');
            put_u16(out, *value as u16);
        }
        HeaderValue::U16(value) => {
            out.push(b'u');
            put_u16(out, *value);
        }
        HeaderValue::I32(value) => {
            out.push(b'I');
            put_u32(out, *value as u32);
        }
        HeaderValue::U32(value) => {
            out.push(b'i');
            put_u32(out, *value);
        }
        HeaderValue::I64(value) => {
            out.push(b'l');
            put_u64(out, *value as u64);
        }
        HeaderValue::F32(value) => {
            out.push(b'f');
            put_u32(out, value.to_bits());
        }
        HeaderValue::F64(value) => {
            out.push(b'd');
            put_u64(out, value.to_bits());
        }
        HeaderValue::Decimal { scale, value } => {
            out.extend_from_slice(&[b'D', *scale]);
            put_u32(out, *value);
        }
        HeaderValue::Text(text) => put_bytes(out, b'S', text.as_bytes()),
        HeaderValue::Bytes(bytes) => put_bytes(out, b'x', bytes),
        HeaderValue::Timestamp(seconds) => {
            out.push(b'T');
            put_u64(out, *seconds);
        }
        HeaderValue::Array(values) => {
            if depth >= DEPTH_MAX {
                return Err(Unsayable::TooDeep(DEPTH_MAX));
            }
            out.push(b'A');
            put_sized(out, |out| values.iter().try_for_each(|value| put_value(out, value, depth + 1)))?;
        }
        HeaderValue::Table(headers) => {
            out.push(b'F');
            put_table_at(out, headers, depth + 1)?;
        }
    }
    Ok(())
}

fn put_bytes(out: &mut Vec<u8>, letter: u8, bytes: &[u8]) {
    out.push(letter);
    put_u32(out, bytes.len() as u32); // longer ones fail with the frame's size
    out.extend_from_slice(bytes);
}

fn table_at(bytes: &[u8], depth: usize) -> Result<Headers, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut headers = Headers::default();
    while !reader.is_empty() {
        let name = reader.short_text()?;
        headers.set(name, value(&mut reader, depth)?);
    }
    Ok(headers)
}

fn value(reader: &mut Reader<'_>, depth: usize) -> Result<HeaderValue, Malformed> {
    Ok(match reader.u8()? {
        b'V' => HeaderValue::Void,
        b't' => HeaderValue::Bool(reader.u8()? != 0),
        b'b' => HeaderValue::I8(reader.u8()? as i8),
        b'B' => HeaderValue::U8(reader.u8()?),
        b's' | b'U' => HeaderValue::I16(reader.u16()? as i16),
        b'u' => HeaderValue::U16(reader.u16()?),
        b'I' => HeaderValue::I32(reader.u32()? as i32),
        b'i' => HeaderValue::U32(reader.u32()?),
        b'l' | b'L' => HeaderValue::I64(reader.u64()? as i64),
        b'f' => HeaderValue::F32(f32::from_bits(reader.u32()?)),
        b'd' => HeaderValue::F64(f64::from_bits(reader.u64()?)),
        b'D' => HeaderValue::Decimal { scale: reader.u8()?, value: reader.u32()? },
        b'S' => {
            let bytes = reader.long()?;
            match std::str::from_utf8(bytes) {
                Ok(text) => HeaderValue::Text(text.to_owned()),
                Err(_) => HeaderValue::Bytes(bytes.to_vec()),
            }
        }
        b'x' => HeaderValue::Bytes(reader.long()?.to_vec()),
        b'T' => HeaderValue::Timestamp(reader.u64()?),
        b'A' => array(reader.long()?, depth + 1)?,
        b'F' => {
            let bytes = reader.long()?;
            if depth >= DEPTH_MAX {
                HeaderValue::Bytes(bytes.to_vec())
            } else {
                HeaderValue::Table(table_at(bytes, depth + 1)?)
            }
        }
        _ => return Err(Malformed("a field table has a type that RabbitMQ does not know")),
    })
}

fn array(bytes: &[u8], depth: usize) -> Result<HeaderValue, Malformed> {
    if depth > DEPTH_MAX {
        return Ok(HeaderValue::Bytes(bytes.to_vec()));
    }
    let mut reader = Reader::new(bytes);
    let mut values = Vec::new();
    while !reader.is_empty() {
        values.push(value(&mut reader, depth)?);
    }
    Ok(HeaderValue::Array(values))
}
