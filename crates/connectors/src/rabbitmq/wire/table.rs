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
        HeaderValue::F32(value) if !value.is_finite() => return Err(Unsayable::NotFinite),
        HeaderValue::F64(value) if !value.is_finite() => return Err(Unsayable::NotFinite),
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
            put_u32(out, value.cast_unsigned());
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
        b'D' => HeaderValue::Decimal { scale: reader.u8()?, value: reader.u32()?.cast_signed() },
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

#[cfg(test)]
mod tests {
    use amq_protocol::types::parsing::parse_field_table;
    use amq_protocol::types::{AMQPValue, FieldTable};
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = String> {
        "[a-zA-Zäß _.-]{0,12}"
    }

    fn header_value() -> impl Strategy<Value = HeaderValue> {
        let leaf = prop_oneof![
            Just(HeaderValue::Void),
            any::<bool>().prop_map(HeaderValue::Bool),
            any::<i8>().prop_map(HeaderValue::I8),
            any::<u8>().prop_map(HeaderValue::U8),
            any::<i16>().prop_map(HeaderValue::I16),
            any::<u16>().prop_map(HeaderValue::U16),
            any::<i32>().prop_map(HeaderValue::I32),
            any::<u32>().prop_map(HeaderValue::U32),
            any::<i64>().prop_map(HeaderValue::I64),
            any::<f32>().prop_filter("finite", |f| f.is_finite()).prop_map(HeaderValue::F32),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(HeaderValue::F64),
            (any::<u8>(), any::<i32>()).prop_map(|(scale, value)| HeaderValue::Decimal { scale, value }),
            ".{0,20}".prop_map(HeaderValue::Text),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(HeaderValue::Bytes),
            any::<u64>().prop_map(HeaderValue::Timestamp),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(HeaderValue::Array),
                prop::collection::vec((name(), inner), 0..5)
                    .prop_map(|entries| HeaderValue::Table(entries.into_iter().collect())),
            ]
        })
    }

    fn headers() -> impl Strategy<Value = Headers> {
        prop::collection::vec((name(), header_value()), 0..8)
            .prop_map(|entries| entries.into_iter().collect())
    }

    fn read(bytes: &[u8]) -> Result<Headers, Malformed> {
        table(&mut Reader::new(bytes))
    }

    /// Another implementation's reading of a value.
    fn theirs(value: &AMQPValue) -> HeaderValue {
        match value {
            AMQPValue::Boolean(value) => HeaderValue::Bool(*value),
            AMQPValue::ShortShortInt(value) => HeaderValue::I8(*value),
            AMQPValue::ShortShortUInt(value) => HeaderValue::U8(*value),
            AMQPValue::ShortInt(value) => HeaderValue::I16(*value),
            AMQPValue::ShortUInt(value) => HeaderValue::U16(*value),
            AMQPValue::LongInt(value) => HeaderValue::I32(*value),
            AMQPValue::LongUInt(value) => HeaderValue::U32(*value),
            AMQPValue::LongLongInt(value) => HeaderValue::I64(*value),
            AMQPValue::Float(value) => HeaderValue::F32(*value),
            AMQPValue::Double(value) => HeaderValue::F64(*value),
            // Theirs has the 32 bits without a sign.
            AMQPValue::DecimalValue(value) => {
                HeaderValue::Decimal { scale: value.scale, value: value.value.cast_signed() }
            }
            AMQPValue::LongString(value) => {
                HeaderValue::Text(String::from_utf8(value.as_bytes().to_vec()).unwrap())
            }
            AMQPValue::ByteArray(value) => HeaderValue::Bytes(value.as_slice().to_vec()),
            AMQPValue::Timestamp(value) => HeaderValue::Timestamp(*value),
            AMQPValue::FieldArray(values) => {
                HeaderValue::Array(values.as_slice().iter().map(theirs).collect())
            }
            AMQPValue::FieldTable(table) => HeaderValue::Table(their_table(table)),
            AMQPValue::Void => HeaderValue::Void,
            other @ AMQPValue::ShortString(_) => panic!("{other:?}"),
        }
    }

    fn their_table(table: &FieldTable) -> Headers {
        table.inner().iter().map(|(name, value)| (name.to_string(), theirs(value))).collect()
    }

    /// Their tables are sorted, ours keep their order.
    fn sorted(headers: &Headers) -> Headers {
        fn value(from: &HeaderValue) -> HeaderValue {
            match from {
                HeaderValue::Array(values) => HeaderValue::Array(values.iter().map(value).collect()),
                HeaderValue::Table(headers) => HeaderValue::Table(sorted(headers)),
                other => other.clone(),
            }
        }
        let mut entries: Vec<_> = headers.iter().map(|(name, from)| (name.to_owned(), value(from))).collect();
        entries.sort_by(|one, other| one.0.cmp(&other.0));
        entries.into_iter().collect()
    }

    proptest! {
        #[test]
        fn headers_come_back_as_they_were_and_in_order(headers in headers()) {
            let mut bytes = Vec::new();
            put_table(&mut bytes, &headers).unwrap();
            prop_assert_eq!(read(&bytes), Ok(headers));
        }

        #[test]
        fn another_implementation_reads_the_same(headers in headers()) {
            let mut bytes = Vec::new();
            put_table(&mut bytes, &headers).unwrap();
            let (rest, table) = parse_field_table(&bytes[..]).unwrap();
            prop_assert!(rest.is_empty());
            prop_assert_eq!(their_table(&table), sorted(&headers));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read(&bytes).ok();
            let mut sized = (bytes.len() as u32).to_be_bytes().to_vec();
            sized.extend(&bytes);
            read(&sized).ok();
            super::super::method::method(&bytes).ok();
            super::super::content::header(&bytes).ok();
            super::super::content::message_id(&bytes).ok();
            super::super::publish::Sent::read(&bytes).ok();
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_not_sent() {
        let put = |value: HeaderValue| {
            let headers: Headers = [("h".to_owned(), value)].into_iter().collect();
            put_table(&mut Vec::new(), &headers)
        };
        for wide in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e300] {
            let narrow = HeaderValue::F32(wide as f32);
            let table = HeaderValue::Table([("in".to_owned(), narrow.clone())].into_iter().collect());
            for value in [narrow.clone(), HeaderValue::Array(vec![HeaderValue::Void, narrow]), table] {
                assert_eq!(put(value), Err(Unsayable::NotFinite), "{wide}");
            }
        }
        assert_eq!(put(HeaderValue::F64(f64::NAN)), Err(Unsayable::NotFinite));
        for value in [f64::MAX, f64::MIN, 5e-324, -0.0] {
            assert_eq!(put(HeaderValue::F64(value)), Ok(()), "{value}");
        }
        assert_eq!(put(HeaderValue::F32(f32::MAX)), Ok(()));
    }

    #[test]
    fn text_that_is_not_utf8_is_bytes() {
        let bytes = [0, 0, 0, 9, 1, b'h', b'S', 0, 0, 0, 2, 0xff, 0xfe];
        assert_eq!(read(&bytes).unwrap().get("h"), Some(&HeaderValue::Bytes(vec![0xff, 0xfe])));
    }

    #[test]
    fn what_is_nested_as_deep_as_a_frame_allows_is_read_without_end_of_stack() {
        let mut nested: Vec<u8> = Vec::new();
        for _ in 0..20_000 {
            let mut outer = vec![0, b'F'];
            outer.extend((nested.len() as u32).to_be_bytes());
            outer.append(&mut nested);
            nested = outer;
        }
        let mut bytes = (nested.len() as u32).to_be_bytes().to_vec();
        bytes.append(&mut nested);
        let mut headers = read(&bytes).unwrap();
        let mut depth = 0;
        while let Some(HeaderValue::Table(inner)) = headers.remove("") {
            headers = inner;
            depth += 1;
        }
        assert_eq!(depth, DEPTH_MAX);
    }

    #[test]
    fn what_is_nested_too_deep_is_not_sent() {
        let nest =
            |levels: usize| (0..levels).fold(HeaderValue::Void, |inner, _| HeaderValue::Array(vec![inner]));
        let put = |levels| {
            let headers: Headers = [("h".to_owned(), nest(levels))].into_iter().collect();
            put_table(&mut Vec::new(), &headers)
        };
        assert_eq!(put(DEPTH_MAX), Ok(()));
        assert_eq!(put(DEPTH_MAX + 1), Err(Unsayable::TooDeep(DEPTH_MAX)));
    }
}
