//! A block: what became of some hundreds of rows, packed.
//!
//! A row of the record costs a few microseconds and some tens of bytes only because it is not a row of a database: it
//! would need an index entry for its key and one for its change, each in a random place of a large tree. A block
//! holds the rows of one run as they came, in three parts that are read one after the other and only as far as
//! needed: the change ids (bare), the rows (packed), the bodies (packed). A [filter](crate::packed::seen) says of nearly every
//! block that does not hold a key or change that it does not, so a search reads few blocks whole.

mod read;
mod write;

pub(super) use read::{Packed, RowView};
pub(super) use write::{Block, BlockWriter};

use warren_engine::change::Op;
use warren_engine::run::RowStatus;

/// The format's version, the first byte of the rows.
const VERSION: u8 = 1;

const HAS_CHANGE: u8 = 1;
const HAS_OUTBOUND: u8 = 2;
const MESSAGE_ID_IS_CHANGE: u8 = 4;
const OP_SHIFT: u8 = 3;
const STATUS_SHIFT: u8 = 5;

fn op_bits(op: Option<Op>) -> u8 {
    match op {
        None => 0,
        Some(Op::Added) => 1,
        Some(Op::Changed) => 2,
        Some(Op::Removed) => 3,
    }
}

fn op_of_bits(bits: u8) -> Option<Op> {
    [None, Some(Op::Added), Some(Op::Changed), Some(Op::Removed)][usize::from(bits & 3)]
}

fn status_bits(status: RowStatus) -> u8 {
    match status {
        RowStatus::Sent => 0,
        RowStatus::Rejected => 1,
        RowStatus::Unknown => 2,
        RowStatus::Held => 3,
    }
}

fn status_of_bits(bits: u8) -> RowStatus {
    [RowStatus::Sent, RowStatus::Rejected, RowStatus::Unknown, RowStatus::Held][usize::from(bits & 3)]
}

/// The bit of a status in [`Block::statuses`].
pub(super) fn status_mask(status: RowStatus) -> u8 {
    1 << status_bits(status)
}

#[cfg(test)]
mod tests {
    use ::bytes::Bytes;
    use proptest::prelude::*;
    use warren_engine::change::ChangeId;
    use warren_engine::codes;
    use warren_engine::message::{HeaderValue, Headers, Message, Outbound, Properties, Route};
    use warren_engine::run::{Attempt, RowOutcome};

    use super::*;
    use crate::packed::{Damaged, seen};

    const NOW: i64 = 1_700_000_000_000;

    fn packed(outcomes: &[RowOutcome]) -> Block {
        let mut writer = BlockWriter::new().unwrap();
        for outcome in outcomes {
            writer.push(NOW, outcome);
        }
        writer.take().unwrap().unwrap()
    }

    fn unpacked(block: &Block) -> Result<Vec<RowOutcome>, Damaged> {
        let rows = Packed::open(&block.rows, &block.ids)?;
        let bodies = rows.bodies(&block.bodies)?;
        rows.rows()?.iter().map(|row| row.to_outcome(&bodies)).collect()
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
            (-1e30f32..1e30).prop_map(HeaderValue::F32),
            (-1e300f64..1e300).prop_map(HeaderValue::F64),
            (any::<u8>(), any::<i32>()).prop_map(|(scale, value)| HeaderValue::Decimal { scale, value }),
            ".{0,9}".prop_map(HeaderValue::Text),
            proptest::collection::vec(any::<u8>(), 0..9).prop_map(HeaderValue::Bytes),
            any::<u64>().prop_map(HeaderValue::Timestamp),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(HeaderValue::Array),
                proptest::collection::vec((".{0,4}", inner), 0..4)
                    .prop_map(|entries| HeaderValue::Table(entries.into_iter().collect::<Headers>())),
            ]
        })
    }

    fn text() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(".{0,12}")
    }

    fn properties() -> impl Strategy<Value = Properties> {
        (
            (text(), text(), any::<bool>(), any::<Option<u8>>(), text(), text(), text(), text()),
            (any::<Option<u64>>(), text(), text(), text()),
            proptest::collection::vec((".{0,6}", header_value()), 0..4),
        )
            .prop_map(|(first, second, headers)| Properties {
                content_type: first.0,
                content_encoding: first.1,
                persistent: first.2,
                priority: first.3,
                correlation_id: first.4,
                reply_to: first.5,
                expiration: first.6,
                message_id: first.7,
                timestamp: second.0,
                kind: second.1,
                user_id: second.2,
                app_id: second.3,
                headers: headers.into_iter().collect(),
            })
    }

    fn route() -> impl Strategy<Value = Route> {
        prop_oneof![
            ".{0,8}".prop_map(Route::Queue),
            (".{0,8}", ".{0,8}")
                .prop_map(|(exchange, routing_key)| Route::Exchange { exchange, routing_key }),
        ]
    }

    fn outcome() -> impl Strategy<Value = RowOutcome> {
        let outbound = (route(), properties(), proptest::collection::vec(any::<u8>(), 0..200)).prop_map(
            |(route, properties, body)| Outbound {
                route,
                message: Message { body: Bytes::from(body), properties },
            },
        );
        let attempt = (any::<i64>(), ".{0,12}").prop_map(|(at, answer)| Attempt { at, answer });
        (
            proptest::option::of(any::<u128>().prop_map(ChangeId)),
            0u8..4,
            ".{0,20}",
            0u8..4,
            proptest::option::of(proptest::sample::select(codes::ALL)),
            proptest::option::of(outbound),
            proptest::collection::vec(attempt, 0..4),
            any::<bool>(),
        )
            .prop_map(|(change, op, key, status, code, outbound, attempts, own_id)| {
                let mut outcome = RowOutcome {
                    change,
                    op: op_of_bits(op),
                    key,
                    status: status_of_bits(status),
                    code,
                    outbound,
                    attempts,
                };
                if let (true, Some(outbound), Some(change)) = (own_id, &mut outcome.outbound, change) {
                    outbound.message.properties.message_id = Some(change.to_string());
                }
                outcome
            })
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(outcomes in proptest::collection::vec(outcome(), 1..20)) {
            let block = packed(&outcomes);
            prop_assert_eq!(block.count as usize, outcomes.len());
            prop_assert_eq!(unpacked(&block).unwrap(), outcomes.clone());
            for outcome in &outcomes {
                prop_assert!(seen::may_hold(&block.seen, seen::of_key(&outcome.key)));
                prop_assert!(block.statuses & status_mask(outcome.status) != 0);
                if let Some(change) = outcome.change {
                    prop_assert!(seen::may_hold(&block.seen, seen::of_change(change)));
                }
            }
        }

        #[test]
        fn damage_is_found_and_never_a_panic(
            outcomes in proptest::collection::vec(outcome(), 1..6),
            part in 0u8..3,
            at in any::<proptest::sample::Index>(),
            flip in 1u8..=255,
        ) {
            let mut block = packed(&outcomes);
            let bytes = match part { 0 => &mut block.rows, 1 => &mut block.bodies, _ => &mut block.ids };
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
                let read = unpacked(&block);
                prop_assert!(read.is_err() || read.unwrap() == outcomes);
            }
        }
    }

    #[test]
    fn a_header_that_is_not_a_number_comes_back() {
        let mut properties = Properties::default();
        properties.headers.set("x", HeaderValue::F64(f64::NAN));
        let message = Message { body: Bytes::new(), properties };
        let outbound = Outbound { route: Route::Queue("q".into()), message };
        let block = packed(&[RowOutcome {
            change: None,
            op: None,
            key: "1".into(),
            status: RowStatus::Rejected,
            code: Some(codes::INVALID_PROPERTY),
            outbound: Some(outbound),
            attempts: Vec::new(),
        }]);
        let back = unpacked(&block).unwrap().remove(0).outbound.unwrap();
        let value = back.message.properties.headers.get("x").cloned();
        assert!(matches!(value, Some(HeaderValue::F64(number)) if number.is_nan()), "{value:?}");
    }
}
