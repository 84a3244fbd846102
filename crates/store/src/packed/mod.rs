//! What the records of rows and of messages have in common on disk: numbers and texts as bytes, properties, and the filter
//! that says of a block what it may hold.

pub(crate) mod bytes;
pub(crate) mod properties;
pub(crate) mod seen;

use std::io::Read;

/// Bytes that say something impossible.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("a block of the record is damaged: {0}")]
pub(crate) struct Damaged(pub(crate) &'static str);

/// Unpacks what zstd packed.
pub(crate) fn unpack(packed: &[u8]) -> Result<Vec<u8>, Damaged> {
    // Streamed rather than into room made beforehand: a damaged length must not ask for all memory.
    let mut out = Vec::new();
    let mut decoder =
        zstd::stream::read::Decoder::with_buffer(packed).map_err(|_| Damaged("it cannot be unpacked"))?;
    decoder.read_to_end(&mut out).map_err(|_| Damaged("it cannot be unpacked"))?;
    Ok(out)
}
