//! A block: some hundreds of attempts, packed, which is how the record keeps all but the newest.

use std::borrow::Cow;
use std::io;

use rusqlite::{Connection, params};
use warren_engine::consume::record::{MessageRunId, MessageStatus};
use xxhash_rust::xxh3::xxh3_64_with_seed;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use super::attempt::{View, Written, status_byte, status_of_byte};
use super::query::{MessageFilter, RecordedMessage};
use crate::database::Fault;
use crate::packed::bytes::{Reader, put_bytes, put_number};
use crate::packed::{Damaged, seen, unpack};

/// The format's version, the first byte.
const VERSION: u8 = 1;
/// Attempts in a block. More pack hardly better, and make a look at one of them read more.
pub(super) const ATTEMPTS_MAX: usize = 1024;
/// Bytes of attempts and bodies in a block, unless one alone has more.
pub(super) const BYTES_MAX: usize = 2 << 20;
/// As in the record of rows, where higher ones were measured to gain nothing.
const LEVEL: i32 = 1;

/// Attempts one after another, not packed yet.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// The number of the first; those of the others follow.
    pub(super) first: i64,
    statuses: Vec<u8>,
    attempts: Vec<u8>,
    bodies: Vec<u8>,
    /// What stands for each message.
    messages: Vec<u64>,
    /// What stands for each consumer, once.
    consumers: Vec<u64>,
    /// When the one that ended first did, and the one that ended last.
    ended: Option<(i64, i64)>,
}

/// A block as it is stored.
pub(super) struct Block {
    pub(super) first: i64,
    pub(super) count: i64,
    /// A bit for each [status](status_mask) that occurs.
    pub(super) statuses: i64,
    pub(super) oldest: i64,
    pub(super) newest: i64,
    /// Which messages and consumers it may hold.
    pub(super) seen: Vec<u8>,
    pub(super) attempts: Vec<u8>,
    pub(super) bodies: Vec<u8>,
}

/// The bit of a status.
pub(super) fn status_mask(status: MessageStatus) -> i64 {
    1 << status_byte(status)
}

/// What stands for a consumer; for a message it is [`seen::of_key`].
pub(super) fn of_consumer(name: &str) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), 2)
}

impl Gathered {
    /// None yet; the first will have that number.
    pub(super) fn new(first: i64) -> Gathered {
        Gathered { first, ..Gathered::default() }
    }

    /// Makes room for so many bytes of attempts and bodies. Where bodies are kept they are most of it.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.bodies.reserve(bytes);
        self.attempts.reserve(bytes / 8);
    }

    pub(super) fn count(&self) -> usize {
        self.statuses.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.count() >= ATTEMPTS_MAX || self.attempts.len() + self.bodies.len() >= BYTES_MAX
    }

    /// When the first of them ended, if there is one.
    pub(super) fn oldest(&self) -> Option<i64> {
        self.ended.map(|(oldest, _)| oldest)
    }

    /// Adds an attempt as it was written.
    pub(super) fn add(&mut self, status: u8, attempt: &[u8], body: &[u8]) -> Result<(), Damaged> {
        let view = View::of(attempt)?;
        if view.body_kept != body.len() {
            return Err(Damaged("a body is not as long as it was said to be"));
        }
        let (message, consumer) = (seen::of_key(view.message), of_consumer(view.consumer));
        let at = view.ended_at;
        self.messages.push(message);
        if !self.consumers.contains(&consumer) {
            self.consumers.push(consumer);
        }
        self.ended = Some(self.ended.map_or((at, at), |(oldest, newest)| (oldest.min(at), newest.max(at))));
        self.statuses.push(status);
        put_bytes(&mut self.attempts, attempt);
        self.bodies.extend_from_slice(body);
        Ok(())
    }

    /// Adds an attempt that is read already.
    pub(super) fn add_recorded(&mut self, recorded: &RecordedMessage) -> Result<(), Damaged> {
        let written = Written::of_recorded(recorded);
        let mut attempt = Vec::new();
        written.put(&mut attempt);
        let status = status_byte(recorded.status);
        self.add(status, &attempt, written.body.unwrap_or_default())
    }

    /// Notes that the result of an attempt came late; whether it is one of these.
    pub(super) fn late(&mut self, id: MessageRunId) -> bool {
        let at = usize::try_from(id.0.wrapping_sub(self.first)).ok();
        let status = at.and_then(|at| self.statuses.get_mut(at));
        status.map(|status| *status = status_byte(MessageStatus::Late)).is_some()
    }

    /// Those that a filter asks for, in the order of their numbers.
    pub(super) fn find(&self, filter: &MessageFilter) -> Result<Vec<RecordedMessage>, Fault> {
        wanted(self.first, &self.statuses, &self.attempts, filter, || Ok(self.bodies.as_slice().into()))
    }

    /// Packs them.
    pub(super) fn pack(&self) -> io::Result<Block> {
        let mut compressor = compressor()?;
        let mut plain = Vec::with_capacity(self.attempts.len() + self.statuses.len() + 8);
        put_number(&mut plain, self.statuses.len() as u64);
        plain.extend_from_slice(&self.statuses);
        plain.extend_from_slice(&self.attempts);
        let attempts = packed(&mut compressor, &plain)?;
        let bodies = if self.bodies.is_empty() { Vec::new() } else { compressor.compress(&self.bodies)? };
        let (oldest, newest) = self.ended.unwrap_or_default();
        Ok(Block {
            first: self.first,
            count: self.count() as i64,
            statuses: mask(&self.statuses),
            oldest,
            newest,
            seen: seen::filter(&[&self.consumers[..], &self.messages[..]].concat()),
            attempts,
            bodies,
        })
    }
}

/// Those of a stored block that a filter asks for, in the order of their numbers. The bodies are read only where one is wanted.
pub(super) fn find<'b>(
    first: i64,
    attempts: &[u8],
    bodies: impl Fn() -> Result<&'b [u8], Fault>,
    filter: &MessageFilter,
) -> Result<Vec<RecordedMessage>, Fault> {
    let plain = open(attempts)?;
    let mut reader = Reader(&plain);
    let count = reader.size()?;
    let (statuses, attempts) = reader.0.split_at_checked(count).ok_or(Damaged("it ends too early"))?;
    let bodies = || match bodies()? {
        [] => Ok(Cow::Borrowed(&[][..])),
        packed => Ok(Cow::Owned(unpack(packed)?)),
    };
    wanted(first, statuses, attempts, filter, bodies)
}

fn wanted<'b>(
    first: i64,
    statuses: &[u8],
    attempts: &[u8],
    filter: &MessageFilter,
    bodies: impl Fn() -> Result<Cow<'b, [u8]>, Fault>,
) -> Result<Vec<RecordedMessage>, Fault> {
    if first.checked_add(statuses.len() as i64).is_none() {
        return Err(Damaged("its numbers are out of range").into());
    }
    let mut reader = Reader(attempts);
    let mut all_bodies = None;
    let (mut found, mut body_at) = (Vec::new(), 0_usize);
    for (number, status) in statuses.iter().enumerate() {
        let id = MessageRunId(first + number as i64);
        let view = View::of(reader.bytes()?)?;
        let body = body_at..body_at.checked_add(view.body_kept).ok_or(Damaged("a length is too large"))?;
        body_at = body.end;
        let status = status_of_byte(*status)?;
        if !filter.wants(id, status, &view) {
            continue;
        }
        if all_bodies.is_none() && !body.is_empty() {
            all_bodies = Some(bodies()?);
        }
        let body = match &all_bodies {
            Some(bodies) => bodies.get(body).ok_or(Damaged("a body is missing"))?,
            None => &[],
        };
        found.push(view.whole(id, status, body)?);
    }
    reader.end()?;
    Ok(found)
}

/// The attempts of a stored block with one of them late, and the bits of the statuses that occur then.
pub(super) fn late_in(first: i64, attempts: &[u8], id: MessageRunId) -> Result<(Vec<u8>, i64), Fault> {
    let mut plain = open(attempts)?;
    let mut reader = Reader(&plain);
    let count = reader.size()?;
    let statuses_at = plain.len() - reader.0.len();
    let statuses = plain.get_mut(statuses_at..).and_then(|rest| rest.get_mut(..count));
    let statuses = statuses.ok_or(Damaged("it ends too early"))?;
    let at = usize::try_from(id.0.wrapping_sub(first)).ok();
    if let Some(status) = at.and_then(|at| statuses.get_mut(at)) {
        *status = status_byte(MessageStatus::Late);
    }
    let mask = mask(statuses);
    Ok((packed(&mut compressor()?, &plain)?, mask))
}

impl Block {
    /// Stores it.
    pub(super) fn insert(&self, connection: &Connection) -> Result<(), Fault> {
        connection
            .prepare_cached(
                "INSERT INTO blocks (first, count, statuses, oldest, newest, seen, attempts, bodies) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                self.first,
                self.count,
                self.statuses,
                self.oldest,
                self.newest,
                self.seen,
                self.attempts,
                self.bodies,
            ])?;
        Ok(())
    }
}

fn compressor() -> io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(LEVEL)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    Ok(compressor)
}

fn packed(compressor: &mut Compressor<'_>, plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = vec![VERSION];
    packed.append(&mut compressor.compress(plain)?);
    Ok(packed)
}

fn open(attempts: &[u8]) -> Result<Vec<u8>, Damaged> {
    let (version, packed) = attempts.split_first().ok_or(Damaged("it is empty"))?;
    if *version != VERSION {
        return Err(Damaged("its format is unknown"));
    }
    unpack(packed)
}

fn mask(statuses: &[u8]) -> i64 {
    statuses.iter().fold(0, |mask, status| mask | 1 << (status & 63))
}
