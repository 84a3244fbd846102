//! Unpacking: a block → the rows wanted of it. Nothing is copied of rows that are not.

use std::ops::Range;

use bytes::Bytes;
use warren_engine::change::{ChangeId, Op};
use warren_engine::codes::Code;
use warren_engine::message::{Message, Outbound, Route};
use warren_engine::run::{Attempt, RowOutcome, RowStatus};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    HAS_CHANGE, HAS_OUTBOUND, MESSAGE_ID_IS_CHANGE, OP_SHIFT, STATUS_SHIFT, VERSION, op_of_bits,
    status_of_bits,
};
use crate::packed::bytes::Reader;
use crate::packed::{Damaged, properties, unpack};

/// A block whose rows are unpacked, and its bodies not.
pub(crate) struct Packed<'a> {
    rows: Vec<u8>,
    ids: &'a [u8],
}

/// A row in a block.
#[derive(Debug)]
pub(crate) struct RowView<'a> {
    pub(crate) change: Option<ChangeId>,
    pub(crate) op: Option<Op>,
    pub(crate) status: RowStatus,
    pub(crate) key: &'a str,
    pub(crate) code: Option<&'a str>,
    pub(crate) at: i64,
    attempts: Reader<'a>,
    attempt_count: usize,
    outbound: Option<OutboundView<'a>>,
    dictionary: std::rc::Rc<[&'a [u8]]>,
}

#[derive(Debug)]
struct OutboundView<'a> {
    route: &'a [u8],
    properties: &'a [u8],
    message_id_is_change: bool,
    body: Range<usize>,
}

impl<'a> Packed<'a> {
    /// Unpacks the rows.
    pub(crate) fn open(rows: &[u8], ids: &'a [u8]) -> Result<Packed<'a>, Damaged> {
        let (version, packed) = rows.split_first().ok_or(Damaged("it is empty"))?;
        if *version != VERSION {
            return Err(Damaged("its format is unknown"));
        }
        Ok(Packed { rows: unpack(packed)?, ids })
    }

    /// Unpacks the bodies.
    #[expect(clippy::unused_self, reason = "bodies are read after the rows and only with them")]
    pub(crate) fn bodies(&self, packed: &[u8]) -> Result<Vec<u8>, Damaged> {
        if packed.is_empty() { Ok(Vec::new()) } else { unpack(packed) }
    }

    /// The rows, in the order they were recorded.
    pub(crate) fn rows(&self) -> Result<Vec<RowView<'_>>, Damaged> {
        let mut reader = Reader(&self.rows);
        let count = reader.size()?;
        if u64::from_le_bytes(reader.array()?) != xxh3_64(self.ids) {
            return Err(Damaged("its change ids are not those that were written"));
        }
        let mut dictionary = Vec::new();
        for _ in 0..reader.size()? {
            dictionary.push(reader.bytes()?);
        }
        let dictionary: std::rc::Rc<[&[u8]]> = dictionary.into();
        let (mut ids, mut body_at, mut last_at) = (Reader(self.ids), 0usize, 0i64);
        let mut rows = Vec::new();
        for _ in 0..count {
            let row = row(&mut reader, &dictionary, &mut ids, last_at, body_at)?;
            last_at = row.at;
            body_at = row.outbound.as_ref().map_or(body_at, |outbound| outbound.body.end);
            rows.push(row);
        }
        reader.end()?;
        ids.end()?;
        Ok(rows)
    }
}

fn row<'a>(
    reader: &mut Reader<'a>,
    dictionary: &std::rc::Rc<[&'a [u8]]>,
    ids: &mut Reader<'_>,
    last_at: i64,
    body_at: usize,
) -> Result<RowView<'a>, Damaged> {
    let entry = |place: u64| {
        let place = usize::try_from(place).map_err(|_| Damaged("a reference leads nowhere"))?;
        dictionary.get(place).copied().ok_or(Damaged("a reference leads nowhere"))
    };
    let flags = reader.byte()?;
    let change =
        if flags & HAS_CHANGE == 0 { None } else { Some(ChangeId(u128::from_le_bytes(ids.array()?))) };
    let key = reader.text()?;
    let code = match reader.number()? {
        0 => None,
        place => Some(std::str::from_utf8(entry(place - 1)?).map_err(|_| Damaged("a code is not text"))?),
    };
    let at = last_at.wrapping_add(reader.signed()?);
    let attempt_count = reader.size()?;
    let attempts = *reader;
    for _ in 0..attempt_count {
        reader.signed()?;
        entry(reader.number()?)?;
    }
    let outbound = if flags & HAS_OUTBOUND == 0 {
        None
    } else {
        let route = entry(reader.number()?)?;
        let properties = entry(reader.number()?)?;
        let end = body_at.checked_add(reader.size()?).ok_or(Damaged("a length is too large"))?;
        let message_id_is_change = flags & MESSAGE_ID_IS_CHANGE != 0;
        Some(OutboundView { route, properties, message_id_is_change, body: body_at..end })
    };
    Ok(RowView {
        change,
        op: op_of_bits(flags >> OP_SHIFT),
        status: status_of_bits(flags >> STATUS_SHIFT),
        key,
        code,
        at,
        attempts,
        attempt_count,
        outbound,
        dictionary: dictionary.clone(),
    })
}

impl RowView<'_> {
    /// Where it went or was meant to go.
    pub(crate) fn route(&self) -> Result<Option<Route>, Damaged> {
        self.outbound.as_ref().map(|outbound| properties::route(outbound.route)).transpose()
    }

    /// Whether there is a body to be read for it.
    pub(crate) fn has_body(&self) -> bool {
        self.outbound.as_ref().is_some_and(|outbound| !outbound.body.is_empty())
    }

    /// The row as it was recorded, given the bodies of the block. A code that this version does not know is left
    /// out; what was answered is still there.
    pub(crate) fn to_outcome(&self, bodies: &[u8]) -> Result<RowOutcome, Damaged> {
        Ok(RowOutcome {
            change: self.change,
            op: self.op,
            key: self.key.to_owned(),
            status: self.status,
            code: self.code.and_then(Code::from_name),
            outbound: self
                .outbound
                .as_ref()
                .map(|outbound| self.to_outbound(outbound, bodies))
                .transpose()?,
            attempts: self.to_attempts()?,
        })
    }

    fn to_outbound(&self, outbound: &OutboundView<'_>, bodies: &[u8]) -> Result<Outbound, Damaged> {
        let mut properties = properties::properties(outbound.properties)?;
        if outbound.message_id_is_change {
            let change = self.change.ok_or(Damaged("a message id refers to no change"))?;
            properties.message_id = Some(change.to_string());
        }
        // Where all bodies wanted are empty none were read.
        let body = if outbound.body.is_empty() { Some(&[][..]) } else { bodies.get(outbound.body.clone()) };
        let body = body.ok_or(Damaged("a body is missing"))?;
        Ok(Outbound {
            route: properties::route(outbound.route)?,
            message: Message { body: Bytes::copy_from_slice(body), properties },
        })
    }

    fn to_attempts(&self) -> Result<Vec<Attempt>, Damaged> {
        let mut reader = self.attempts;
        let mut attempts = Vec::new();
        for _ in 0..self.attempt_count {
            let at = self.at.wrapping_add(reader.signed()?);
            let place = reader.size()?;
            let answer = self.dictionary.get(place).ok_or(Damaged("a reference leads nowhere"))?;
            let answer = std::str::from_utf8(answer).map_err(|_| Damaged("an answer is not text"))?;
            attempts.push(Attempt { at, answer: answer.to_owned() });
        }
        Ok(attempts)
    }
}
