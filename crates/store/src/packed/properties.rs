//! Routes, properties and headers as bytes. By hand, because JSON cannot hold a header that is NaN or bytes, and
//! because this runs for every message.

use warren_engine::message::{HeaderValue, Headers, Properties, Route};

use super::Damaged;
use super::bytes::{Reader, put_bytes, put_number, put_signed};

/// Headers in headers in headers …: deeper ones do not fit a frame of any broker.
const DEPTH_MAX: usize = 200;

pub(crate) fn put_route(out: &mut Vec<u8>, route: &Route) {
    match route {
        Route::Queue(queue) => {
            out.push(0);
            put_bytes(out, queue.as_bytes());
        }
        Route::Exchange { exchange, routing_key } => {
            out.push(1);
            put_bytes(out, exchange.as_bytes());
            put_bytes(out, routing_key.as_bytes());
        }
    }
}

pub(crate) fn route(bytes: &[u8]) -> Result<Route, Damaged> {
    let mut reader = Reader(bytes);
    let route = match reader.byte()? {
        0 => Route::Queue(reader.text()?.to_owned()),
        1 => Route::Exchange { exchange: reader.text()?.to_owned(), routing_key: reader.text()?.to_owned() },
        _ => return Err(Damaged("a route of no known kind")),
    };
    reader.end()?;
    Ok(route)
}

/// Writes properties, without the message id where it is kept elsewhere.
pub(crate) fn put_properties(out: &mut Vec<u8>, properties: &Properties, with_message_id: bool) {
    // Named one by one, so a property that is added cannot be forgotten here.
    let Properties {
        content_type,
        content_encoding,
        persistent,
        priority,
        correlation_id,
        reply_to,
        expiration,
        message_id,
        timestamp,
        kind,
        user_id,
        app_id,
        headers,
    } = properties;
    out.push(u8::from(*persistent));
    let no_id = None;
    let message_id = if with_message_id { message_id } else { &no_id };
    let texts = [
        content_type,
        content_encoding,
        correlation_id,
        reply_to,
        expiration,
        message_id,
        kind,
        user_id,
        app_id,
    ];
    let present =
        texts.iter().enumerate().fold(0, |bits, (at, text)| bits | (u64::from(text.is_some()) << at));
    put_number(out, present);
    for text in texts.into_iter().flatten() {
        put_bytes(out, text.as_bytes());
    }
    put_number(out, priority.map_or(0, |priority| u64::from(priority) + 1));
    out.push(u8::from(timestamp.is_some()));
    if let Some(timestamp) = timestamp {
        put_number(out, *timestamp);
    }
    put_headers(out, headers);
}

pub(crate) fn properties(bytes: &[u8]) -> Result<Properties, Damaged> {
    let mut reader = Reader(bytes);
    let properties = next_properties(&mut reader)?;
    reader.end()?;
    Ok(properties)
}

/// Properties with something behind them.
pub(crate) fn next_properties(reader: &mut Reader<'_>) -> Result<Properties, Damaged> {
    let persistent = reader.byte()? != 0;
    let present = reader.number()?;
    let mut texts = [const { None }; 9];
    for (at, text) in texts.iter_mut().enumerate() {
        if present & (1 << at) != 0 {
            *text = Some(reader.text()?.to_owned());
        }
    }
    let [
        content_type,
        content_encoding,
        correlation_id,
        reply_to,
        expiration,
        message_id,
        kind,
        user_id,
        app_id,
    ] = texts;
    let priority = match reader.number()? {
        0 => None,
        priority => Some(u8::try_from(priority - 1).map_err(|_| Damaged("a priority is too large"))?),
    };
    let timestamp = if reader.byte()? == 0 { None } else { Some(reader.number()?) };
    let headers = headers(reader, 0)?;
    Ok(Properties {
        content_type,
        content_encoding,
        persistent,
        priority,
        correlation_id,
        reply_to,
        expiration,
        message_id,
        timestamp,
        kind,
        user_id,
        app_id,
        headers,
    })
}

fn put_headers(out: &mut Vec<u8>, headers: &Headers) {
    put_number(out, headers.len() as u64);
    for (name, value) in headers.iter() {
        put_bytes(out, name.as_bytes());
        put_value(out, value);
    }
}

fn headers(reader: &mut Reader<'_>, depth: usize) -> Result<Headers, Damaged> {
    let mut headers = Headers::default();
    for _ in 0..reader.size()? {
        let name = reader.text()?.to_owned();
        headers.set(name, value(reader, depth)?);
    }
    Ok(headers)
}

/// The tags are RabbitMQ's own.
fn put_value(out: &mut Vec<u8>, value: &HeaderValue) {
    let tag = match value {
        HeaderValue::Void => b'V',
        HeaderValue::Bool(_) => b't',
        HeaderValue::I8(_) => b'b',
        HeaderValue::U8(_) => b'B',
        HeaderValue::I16(_) => b's',
        HeaderValue::U16(_) => b'u',
        HeaderValue::I32(_) => b'I',
        HeaderValue::U32(_) => b'i',
        HeaderValue::I64(_) => b'l',
        HeaderValue::F32(_) => b'f',
        HeaderValue::F64(_) => b'd',
        HeaderValue::Decimal { .. } => b'D',
        HeaderValue::Text(_) => b'S',
        HeaderValue::Bytes(_) => b'x',
        HeaderValue::Timestamp(_) => b'T',
        HeaderValue::Array(_) => b'A',
        HeaderValue::Table(_) => b'F',
    };
    out.push(tag);
    match value {
        HeaderValue::Void => {}
        HeaderValue::Bool(value) => out.push(u8::from(*value)),
        HeaderValue::I8(value) => put_signed(out, i64::from(*value)),
        HeaderValue::U8(value) => put_number(out, u64::from(*value)),
        HeaderValue::I16(value) => put_signed(out, i64::from(*value)),
        HeaderValue::U16(value) => put_number(out, u64::from(*value)),
        HeaderValue::I32(value) => put_signed(out, i64::from(*value)),
        HeaderValue::U32(value) => put_number(out, u64::from(*value)),
        HeaderValue::I64(value) => put_signed(out, *value),
        HeaderValue::F32(value) => out.extend_from_slice(&value.to_bits().to_le_bytes()),
        HeaderValue::F64(value) => out.extend_from_slice(&value.to_bits().to_le_bytes()),
        HeaderValue::Decimal { scale, value } => {
            out.push(*scale);
            put_number(out, value.cast_unsigned().into()); // the format has the 32 bits, without a sign
        }
        HeaderValue::Text(text) => put_bytes(out, text.as_bytes()),
        HeaderValue::Bytes(bytes) => put_bytes(out, bytes),
        HeaderValue::Timestamp(seconds) => put_number(out, *seconds),
        HeaderValue::Array(values) => {
            put_number(out, values.len() as u64);
            for value in values {
                put_value(out, value);
            }
        }
        HeaderValue::Table(headers) => put_headers(out, headers),
    }
}

fn value(reader: &mut Reader<'_>, depth: usize) -> Result<HeaderValue, Damaged> {
    if depth > DEPTH_MAX {
        return Err(Damaged("headers are nested too deep"));
    }
    let range = |_| Damaged("a header's number is out of its range");
    Ok(match reader.byte()? {
        b'V' => HeaderValue::Void,
        b't' => HeaderValue::Bool(reader.byte()? != 0),
        b'b' => HeaderValue::I8(reader.signed()?.try_into().map_err(range)?),
        b'B' => HeaderValue::U8(reader.number()?.try_into().map_err(range)?),
        b's' => HeaderValue::I16(reader.signed()?.try_into().map_err(range)?),
        b'u' => HeaderValue::U16(reader.number()?.try_into().map_err(range)?),
        b'I' => HeaderValue::I32(reader.signed()?.try_into().map_err(range)?),
        b'i' => HeaderValue::U32(reader.number()?.try_into().map_err(range)?),
        b'l' => HeaderValue::I64(reader.signed()?),
        b'f' => HeaderValue::F32(f32::from_bits(u32::from_le_bytes(reader.array()?))),
        b'd' => HeaderValue::F64(f64::from_bits(u64::from_le_bytes(reader.array()?))),
        b'D' => {
            let scale = reader.byte()?;
            let value: u32 = reader.number()?.try_into().map_err(range)?;
            HeaderValue::Decimal { scale, value: value.cast_signed() }
        }
        b'S' => HeaderValue::Text(reader.text()?.to_owned()),
        b'x' => HeaderValue::Bytes(reader.bytes()?.to_vec()),
        b'T' => HeaderValue::Timestamp(reader.number()?),
        b'A' => {
            let mut values = Vec::new();
            for _ in 0..reader.size()? {
                values.push(value(reader, depth + 1)?);
            }
            HeaderValue::Array(values)
        }
        b'F' => HeaderValue::Table(headers(reader, depth + 1)?),
        _ => return Err(Damaged("a header of no known type")),
    })
}
