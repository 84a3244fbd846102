//! JSON: writing values, checking documents, and walking through JSON text without a tree.

mod navigate;
mod validate;
mod write;

pub use validate::{Fault, validate};
pub use write::{ValueError, write_string, write_value};

pub(crate) use navigate::{Kind, elements, kind, member, unescape};
pub(crate) use validate::DEPTH_MAX;
pub(crate) use write::{escape_into, write_base64, write_int, write_uuid};

/// High bit of each byte of `word` that ends a plain run in a string: a quote, a backslash or a
/// control character. May also mark bytes above the first true one, never one below it.
#[inline]
fn special(word: u64) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero_in = |x: u64| x.wrapping_sub(LOW) & !x;
    let quote = zero_in(word ^ (LOW * 0x22));
    let backslash = zero_in(word ^ (LOW * 0x5c));
    let control = word.wrapping_sub(LOW * 0x20) & !word;
    (quote | backslash | control) & HIGH
}

/// Index of the first byte at or after `from` that ends a plain run in a string.
#[inline]
fn plain_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        let marks = special(u64::from_le_bytes(word));
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if *byte < 0x20 || *byte == b'"' || *byte == b'\\' {
            break;
        }
        at += 1;
    }
    at
}
