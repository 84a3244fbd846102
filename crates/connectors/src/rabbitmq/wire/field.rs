//! Integers and strings, in network order, read with checks and written into a `Vec`.

use super::{Malformed, Unsayable};

/// Reads from a slice, never past its end.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed("a field is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed("a field is cut short"))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// The bytes of a short string.
    pub(crate) fn short(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// A short string as text. Clients may send any bytes there; what is not UTF-8 is replaced.
    pub(crate) fn short_text(&mut self) -> Result<String, Malformed> {
        self.short().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// The bytes of a long string or table.
    pub(crate) fn long(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()?;
        self.take(length as usize)
    }
}

pub(crate) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Writes a short string. `what` names it in the fault.
pub(crate) fn put_short(out: &mut Vec<u8>, what: &'static str, text: &str) -> Result<(), Unsayable> {
    let length = u8::try_from(text.len()).map_err(|_| Unsayable::TooLong { what, bytes: text.len() })?;
    out.push(length);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Writes a length of four bytes before what `fill` writes.
pub(crate) fn put_sized<E>(
    out: &mut Vec<u8>,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    put_u32(out, 0);
    fill(out)?;
    let length = (out.len() - start - 4) as u32; // frames bound this far below 4 GiB
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}
