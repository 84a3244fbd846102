//! Frames: a kind, a channel, a size, a payload and the byte 0xCE.

use super::Malformed;
use super::field::{put_u16, put_u32};

pub(crate) const METHOD: u8 = 1;
pub(crate) const HEADER: u8 = 2;
pub(crate) const BODY: u8 = 3;
pub(crate) const HEARTBEAT: u8 = 8;
const END: u8 = 0xCE;

/// The largest frame that is read once a connection is open, whatever was negotiated. RabbitMQ holds publishers to `frame_max`, and its own
/// header frames to nothing: it adds `x-death` and other headers to a message that filled a frame, and turns the properties of an
/// AMQP 1.0 message, which may have the size of a whole message, into headers. More than this is not a header.
pub(crate) const READ_BYTES_MAX: usize = 64 << 20;

/// Bytes of a frame beside its payload.
pub(crate) const OVERHEAD: usize = 8;

/// A heartbeat, whole.
pub(crate) const HEARTBEAT_FRAME: [u8; 8] = [HEARTBEAT, 0, 0, 0, 0, 0, 0, END];

/// What a client says first.
pub(crate) const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\0\0\x09\x01";

/// One frame, borrowed from the buffer it was read into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) channel: u16,
    pub(crate) payload: &'a [u8],
}

/// The first frame of a buffer and how many bytes it takes; `None` if it is not there whole yet.
///
/// # Errors
/// It is not a frame, or one larger than `bytes_max`: what follows cannot be read either.
pub(crate) fn first(bytes: &[u8], bytes_max: usize) -> Result<Option<(Frame<'_>, usize)>, Malformed> {
    let Some((header, rest)) = bytes.split_first_chunk::<7>() else {
        // A broker of another protocol version answers with a header of its own.
        if bytes.first() == Some(&b'A') {
            return Err(Malformed("the other side does not speak AMQP 0-9-1"));
        }
        return Ok(None);
    };
    let [kind, channel_high, channel_low, size @ ..] = *header;
    match kind {
        METHOD | HEADER | BODY | HEARTBEAT => {}
        b'A' => return Err(Malformed("the other side does not speak AMQP 0-9-1")),
        _ => return Err(Malformed("the other side sent something that is no AMQP frame")),
    }
    let size = u32::from_be_bytes(size) as usize;
    if size > bytes_max.saturating_sub(OVERHEAD) {
        return Err(Malformed("a frame is larger than any that RabbitMQ sends"));
    }
    let Some(end) = rest.get(size) else { return Ok(None) };
    if *end != END {
        return Err(Malformed("a frame does not end where it says"));
    }
    let channel = u16::from_be_bytes([channel_high, channel_low]);
    Ok(Some((Frame { kind, channel, payload: &rest[..size] }, size + OVERHEAD)))
}

/// Writes a frame around what `fill` writes.
pub(crate) fn put<E>(
    out: &mut Vec<u8>,
    kind: u8,
    channel: u16,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    out.push(kind);
    put_u16(out, channel);
    super::field::put_sized(out, fill)?;
    out.push(END);
    Ok(())
}

/// Writes a frame of a payload that is there.
pub(crate) fn put_whole(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    out.push(kind);
    put_u16(out, channel);
    put_u32(out, payload.len() as u32); // callers split by the frame size
    out.extend_from_slice(payload);
    out.push(END);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back() {
        let mut bytes = Vec::new();
        put_whole(&mut bytes, BODY, 7, b"hello");
        let (frame, taken) = first(&bytes, 4096).unwrap().unwrap();
        assert_eq!(frame, Frame { kind: BODY, channel: 7, payload: b"hello" });
        assert_eq!(taken, bytes.len());
        for cut in 0..bytes.len() {
            assert_eq!(first(&bytes[..cut], 4096), Ok(None), "{cut}");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let mut wrong_end = HEARTBEAT_FRAME;
        wrong_end[7] = 0xCD;
        assert!(first(&wrong_end, 4096).is_err());
        assert!(first(b"AMQP\0\0\x09\x01", 4096).is_err());
        assert!(first(b"HTTP/1.1 400", 4096).is_err());
        assert!(first(&[BODY, 0, 1, 0xff, 0xff, 0xff, 0xff], 4096).is_err());
    }
}
