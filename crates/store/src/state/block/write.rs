//! Packing: outcomes → a block.
//!
//! What repeats from row to row (routes, properties, answers, codes) stands once in a dictionary and is referred to by
//! number. A message id that is the change id, which is the default, is not written again.

use std::collections::HashMap;
use std::io;

use warren_engine::change::ChangeId;
use warren_engine::run::RowOutcome;
use xxhash_rust::xxh3::xxh3_64;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use super::{
    HAS_CHANGE, HAS_OUTBOUND, MESSAGE_ID_IS_CHANGE, OP_SHIFT, STATUS_SHIFT, VERSION, op_bits, status_bits,
    status_mask,
};
use crate::packed::bytes::{put_bytes, put_number, put_signed};
use crate::packed::properties::{put_properties, put_route};
use crate::packed::seen;

/// Rows in a block. More pack hardly better and make a search for one row read more.
const ROWS_MAX: usize = 1024;

/// Bytes of bodies in a block, unless one row alone has more.
const BODY_BYTES_MAX: usize = 2 << 20;

/// The largest body that is kept: more than any broker takes, less than the storage's longest value.
const KEPT_BODY_BYTES_MAX: usize = 512 << 20;

/// Level 3 was measured (a million rows with JSON bodies of 142 bytes) at the same 42 bytes a row and 1.0 µs instead of
/// 0.8 µs.
const LEVEL: i32 = 1;

/// Packed rows.
#[derive(Debug)]
pub(crate) struct Block {
    /// How many.
    pub(crate) count: u32,
    /// Which [statuses](super::status_mask) occur.
    pub(crate) statuses: u8,
    /// The oldest time of a row.
    pub(crate) oldest_at: i64,
    /// The newest time of a row.
    pub(crate) newest_at: i64,
    /// Which keys and changes it may hold.
    pub(crate) seen: Vec<u8>,
    /// The change ids, bare, of the rows that have one.
    pub(crate) ids: Vec<u8>,
    /// The rows, packed.
    pub(crate) rows: Vec<u8>,
    /// The bodies, packed.
    pub(crate) bodies: Vec<u8>,
}

/// Packs rows into blocks. Keeps its memory from block to block.
pub(crate) struct BlockWriter {
    compressor: Compressor<'static>,
    dictionary: Dictionary,
    count: u32,
    statuses: u8,
    oldest_at: i64,
    newest_at: i64,
    last_at: i64,
    hashes: Vec<u64>,
    ids: Vec<u8>,
    rows: Vec<u8>,
    bodies: Vec<u8>,
    scratch: Vec<u8>,
}

impl BlockWriter {
    /// With nothing in it.
    pub(crate) fn new() -> io::Result<BlockWriter> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(BlockWriter {
            compressor,
            dictionary: Dictionary::default(),
            count: 0,
            statuses: 0,
            oldest_at: i64::MAX,
            newest_at: i64::MIN,
            last_at: 0,
            hashes: Vec::new(),
            ids: Vec::new(),
            rows: Vec::new(),
            bodies: Vec::new(),
            scratch: Vec::new(),
        })
    }

    /// Whether no more rows should go in before it is taken.
    pub(crate) fn is_full(&self) -> bool {
        self.count as usize >= ROWS_MAX || self.bodies.len() >= BODY_BYTES_MAX
    }

    /// Packs a row; `now` is its time where it has no attempt.
    pub(crate) fn push(&mut self, now: i64, outcome: &RowOutcome) {
        let outbound = outcome.outbound.as_ref().filter(|it| it.message.body.len() <= KEPT_BODY_BYTES_MAX);
        let own_id = outcome.change.filter(|change| {
            let id = outbound.and_then(|outbound| outbound.message.properties.message_id.as_deref());
            id.is_some_and(|id| is_hex_of(id, *change))
        });

        let mut flags = (op_bits(outcome.op) << OP_SHIFT) | (status_bits(outcome.status) << STATUS_SHIFT);
        if let Some(change) = outcome.change {
            flags |= HAS_CHANGE;
            self.ids.extend_from_slice(&change.0.to_le_bytes());
            self.hashes.push(seen::of_change(change));
        }
        if outbound.is_some() {
            flags |= HAS_OUTBOUND;
        }
        if own_id.is_some() {
            flags |= MESSAGE_ID_IS_CHANGE;
        }
        self.rows.push(flags);
        self.hashes.push(seen::of_key(&outcome.key));
        put_bytes(&mut self.rows, outcome.key.as_bytes());
        let code =
            outcome.code.map_or(0, |code| 1 + self.dictionary.place(Kind::Code, code.as_str().as_bytes()));
        put_number(&mut self.rows, code);

        let at = outcome.attempts.last().map_or(now, |attempt| attempt.at);
        put_signed(&mut self.rows, at.wrapping_sub(self.last_at));
        self.last_at = at;
        put_number(&mut self.rows, outcome.attempts.len() as u64);
        for attempt in &outcome.attempts {
            put_signed(&mut self.rows, attempt.at.wrapping_sub(at));
            let answer = self.dictionary.place(Kind::Answer, attempt.answer.as_bytes());
            put_number(&mut self.rows, answer);
        }

        if let Some(outbound) = outbound {
            self.scratch.clear();
            put_route(&mut self.scratch, &outbound.route);
            let route = self.dictionary.place(Kind::Route, &self.scratch);
            put_number(&mut self.rows, route);
            self.scratch.clear();
            put_properties(&mut self.scratch, &outbound.message.properties, own_id.is_none());
            let properties = self.dictionary.place(Kind::Properties, &self.scratch);
            put_number(&mut self.rows, properties);
            put_number(&mut self.rows, outbound.message.body.len() as u64);
            self.bodies.extend_from_slice(&outbound.message.body);
        }

        self.count += 1;
        self.statuses |= status_mask(outcome.status);
        self.oldest_at = self.oldest_at.min(at);
        self.newest_at = self.newest_at.max(at);
    }

    /// Ends the block; `None` where nothing is in it.
    pub(crate) fn take(&mut self) -> io::Result<Option<Block>> {
        if self.count == 0 {
            return Ok(None);
        }
        self.scratch.clear();
        put_number(&mut self.scratch, u64::from(self.count));
        self.scratch.extend_from_slice(&xxh3_64(&self.ids).to_le_bytes());
        self.dictionary.put(&mut self.scratch);
        self.scratch.extend_from_slice(&self.rows);
        let mut rows = vec![VERSION];
        rows.append(&mut self.compressor.compress(&self.scratch)?);
        let bodies =
            if self.bodies.is_empty() { Vec::new() } else { self.compressor.compress(&self.bodies)? };
        let block = Block {
            count: self.count,
            statuses: self.statuses,
            oldest_at: self.oldest_at,
            newest_at: self.newest_at,
            seen: seen::filter(&self.hashes),
            ids: std::mem::take(&mut self.ids),
            rows,
            bodies,
        };
        self.clear();
        Ok(Some(block))
    }

    /// Forgets what is in it.
    pub(crate) fn clear(&mut self) {
        self.dictionary.clear();
        self.count = 0;
        self.statuses = 0;
        self.oldest_at = i64::MAX;
        self.newest_at = i64::MIN;
        self.last_at = 0;
        self.hashes.clear();
        self.ids.clear();
        self.rows.clear();
        self.bodies.clear();
        // One huge body must not keep its memory for ever.
        self.bodies.shrink_to(2 * BODY_BYTES_MAX);
        self.scratch.shrink_to(2 * BODY_BYTES_MAX);
    }
}

/// Whether a text is exactly how a change id is written.
fn is_hex_of(text: &str, change: ChangeId) -> bool {
    let text = text.as_bytes();
    text.len() == 32
        && text.iter().enumerate().all(|(at, digit)| {
            let nibble = (change.0 >> (124 - 4 * at)) as u8 & 15;
            *digit == b"0123456789abcdef"[usize::from(nibble)]
        })
}

/// What is looked up; each kind remembers what it was asked last, since that is mostly asked again.
#[derive(Clone, Copy)]
enum Kind {
    Code,
    Answer,
    Route,
    Properties,
}

#[derive(Default)]
struct Dictionary {
    entries: Vec<Box<[u8]>>,
    places: HashMap<Box<[u8]>, u64>,
    last: [Option<u64>; 4],
}

impl Dictionary {
    fn place(&mut self, kind: Kind, bytes: &[u8]) -> u64 {
        if let Some(last) = self.last[kind as usize]
            && *self.entries[last as usize] == *bytes
        {
            return last;
        }
        let place = self.places.get(bytes).copied().unwrap_or_else(|| {
            let place = self.entries.len() as u64;
            self.entries.push(bytes.into());
            self.places.insert(bytes.into(), place);
            place
        });
        self.last[kind as usize] = Some(place);
        place
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_number(out, self.entries.len() as u64);
        for entry in &self.entries {
            put_bytes(out, entry);
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.places.clear();
        self.last = [None; 4];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_text_of_a_change_id_is_left_out() {
        let change = ChangeId(0x0123_4567_89ab_cdef_0000_0000_0000_00ff);
        let text = change.to_string();
        assert!(is_hex_of(&text, change));
        assert!(!is_hex_of(&text.to_uppercase(), change));
        assert!(!is_hex_of(&text[1..], change));
        assert!(!is_hex_of(&ChangeId(1).to_string(), change));
    }
}
