//! Fewer and larger messages for the driver: between it and the socket, the rows of a copy are joined.
//!
//! The server sends each row of a `COPY` as a message of its own, and the driver counts references, wakes and takes apart for each
//! of them, which costs more than the row itself. The protocol gives the cuts between `CopyData` messages no meaning, so those
//! that have come are handed on as one, as large as the driver has room for. All else passes as it is.
//!
//! It stands where the driver has TLS: over TLS, or with [`Plain`] in its place.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

/// What is read from the socket at once. The server writes 8 KiB at a time; what has piled up is fetched in one go.
const BUFFER: usize = 128 * 1024;
/// A tag, and the length of what follows and itself.
const HEADER: usize = 5;
const COPY_DATA: u8 = b'd';

/// A stream from the server with its copy messages joined. What is written passes through.
pub(super) struct Merging<S> {
    inner: S,
    joiner: Joiner,
    binding: fn(&S) -> ChannelBinding,
}

/// The bytes that have come and were not handed on.
struct Joiner {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// How many of the next bytes are handed on as they are.
    verbatim: usize,
    ended: bool,
}

impl<S> Merging<S> {
    /// Joins what comes from `inner`, to which a login can be bound as `binding` says.
    pub(super) fn new(inner: S, binding: fn(&S) -> ChannelBinding) -> Merging<S> {
        Merging { inner, joiner: Joiner::new(), binding }
    }
}

impl Joiner {
    fn new() -> Joiner {
        Joiner { buffer: vec![0; BUFFER].into(), start: 0, end: 0, verbatim: 0, ended: false }
    }

    /// Hands on what there is, while there is room. Hands on nothing only if more must come first.
    fn hand_on(&mut self, out: &mut ReadBuf<'_>) {
        let before = out.filled().len();
        while self.start < self.end && out.remaining() > 0 {
            if self.verbatim == 0 && !self.join(out) {
                let Some(length) = self.message(self.start) else { return };
                let copy = self.buffer[self.start] == COPY_DATA;
                let comes_whole = length <= self.buffer.len() && self.start + length > self.end;
                // A row cut in two is put together again by copying, so it waits for its rest, or for more room.
                if copy && (comes_whole || out.filled().len() > before) && !self.ended {
                    return;
                }
                self.verbatim = length;
            }
            let count = self.verbatim.min(self.end - self.start).min(out.remaining());
            out.put_slice(&self.buffer[self.start..self.start + count]);
            self.start += count;
            self.verbatim -= count;
        }
    }

    /// Joins the copy messages that are here whole and fit; says whether there was one.
    fn join(&mut self, out: &mut ReadBuf<'_>) -> bool {
        let begin = out.filled().len();
        let mut joined = 0;
        while let Some(length) = self.message(self.start) {
            let room = if joined == 0 { length } else { length - HEADER };
            let whole = length <= self.end - self.start;
            if self.buffer[self.start] != COPY_DATA || !whole || room > out.remaining() {
                break;
            }
            out.put_slice(&self.buffer[self.start + length - room..self.start + length]);
            self.start += length;
            joined += 1;
        }
        if joined > 1 {
            let filled = &mut out.filled_mut()[begin..];
            // The driver's room is far below 4 GiB, and the length counts itself.
            let length = (filled.len() - 1) as u32;
            filled[1..HEADER].copy_from_slice(&length.to_be_bytes());
        }
        joined > 0
    }

    /// The length of the message that begins at a place, its header included; `None` while the header is not here. A
    /// length that cannot be is the driver's to complain about: all that comes passes as it is.
    fn message(&self, at: usize) -> Option<usize> {
        let rest = &self.buffer[at..self.end];
        let Some(header) = rest.first_chunk::<HEADER>() else {
            return (self.ended && !rest.is_empty()).then_some(usize::MAX);
        };
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        Some(if length < 4 { usize::MAX } else { length + 1 })
    }

    /// Room for what comes next.
    fn room(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.buffer[self.end..]
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Merging<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Merging { inner, joiner, .. } = self.get_mut();
        let before = out.filled().len();
        loop {
            joiner.hand_on(out);
            if out.filled().len() > before || joiner.ended || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let mut more = ReadBuf::new(joiner.room());
            ready!(Pin::new(&mut *inner).poll_read(context, &mut more))?;
            let count = more.filled().len();
            joiner.end += count;
            joiner.ended = count == 0;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Merging<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Merging<S> {
    fn channel_binding(&self) -> ChannelBinding {
        (self.binding)(&self.inner)
    }
}

/// No TLS, where the driver has a place for it. With `sslmode=require` and `sslnegotiation=direct` the driver sends nothing of its own before it
/// asks for a stream, so the connection on the wire is a plain one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plain;

impl MakeTlsConnect<Socket> for Plain {
    type Stream = Merging<Socket>;
    type TlsConnect = Plain;
    type Error = Infallible;

    fn make_tls_connect(&mut self, _host: &str) -> Result<Plain, Infallible> {
        Ok(Plain)
    }
}

impl TlsConnect<Socket> for Plain {
    type Stream = Merging<Socket>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Merging<Socket>, Infallible>>;

    fn connect(self, socket: Socket) -> Self::Future {
        std::future::ready(Ok(Merging::new(socket, |_| ChannelBinding::none())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, payload: &[u8]) -> Vec<u8> {
        let mut message = vec![tag];
        message.extend_from_slice(&(payload.len() as u32 + 4).to_be_bytes());
        message.extend_from_slice(payload);
        message
    }

    type Message = (u8, Vec<u8>);

    /// What the driver reads when the bytes come in pieces of one size and it has room for another.
    fn read(bytes: &[u8], piece: usize, room: usize) -> Vec<u8> {
        let mut joiner = Joiner::new();
        let (mut out, mut pieces) = (Vec::new(), bytes.chunks(piece));
        loop {
            let mut space = vec![0; room];
            let mut buffer = ReadBuf::new(&mut space);
            joiner.hand_on(&mut buffer);
            out.extend_from_slice(buffer.filled());
            if !buffer.filled().is_empty() {
                continue;
            }
            if joiner.ended {
                return out;
            }
            match pieces.next() {
                Some(piece) => {
                    joiner.room()[..piece.len()].copy_from_slice(piece);
                    joiner.end += piece.len();
                }
                None => joiner.ended = true,
            }
        }
    }

    /// The messages in bytes, those of a copy joined: what must come through however it was cut. What is left
    /// over at the end comes too.
    fn meaning(mut bytes: &[u8]) -> (Vec<Message>, Vec<u8>, usize) {
        let (mut messages, mut count): (Vec<Message>, _) = (Vec::new(), 0);
        while bytes.len() >= HEADER {
            let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize + 1;
            if length < HEADER || length > bytes.len() {
                break;
            }
            count += 1;
            match messages.last_mut().filter(|(tag, _)| *tag == COPY_DATA && bytes[0] == COPY_DATA) {
                Some((_, joined)) => joined.extend_from_slice(&bytes[HEADER..length]),
                None => messages.push((bytes[0], bytes[HEADER..length].to_vec())),
            }
            bytes = &bytes[length..];
        }
        (messages, bytes.to_vec(), count)
    }

    fn copy() -> Vec<u8> {
        let mut bytes = message(b'R', b"login");
        bytes.extend(message(b'd', b""));
        for length in [1, 90, 3, 0, 700, 100, 101] {
            bytes.extend(message(b'd', &vec![length as u8; length]));
        }
        bytes.extend(message(b'N', b"a notice"));
        bytes.extend(message(b'd', &[7; 20]));
        bytes.extend(message(b'c', b""));
        bytes
    }

    #[test]
    fn what_comes_through_means_the_same() {
        let copy = copy();
        for end in [copy.len(), copy.len() - 3, copy.len() - 30] {
            for piece in [1, 2, 7, 50, 333, copy.len()] {
                for room in [1, 4, 5, 6, 9, 64, 110, 500, 8192] {
                    let came = read(&copy[..end], piece, room);
                    let (messages, rest, _) = meaning(&came);
                    let (expected, expected_rest, _) = meaning(&copy[..end]);
                    assert_eq!(
                        (messages, rest),
                        (expected, expected_rest),
                        "{end} bytes in {piece} to {room}"
                    );
                }
            }
        }
    }

    #[test]
    fn rows_that_came_together_are_one_message() {
        let rows = message(b'd', &[1; 100]).repeat(50);
        assert_eq!(meaning(&read(&rows, rows.len(), 8192)).2, 1);
        assert_eq!(meaning(&read(&rows, 1000, 8192)).2, 6);
        assert!(meaning(&read(&rows, rows.len(), 1000)).2 <= 6);
    }

    #[test]
    fn a_message_larger_than_the_buffer_passes() {
        let large = message(b'd', &vec![3; BUFFER + 17]);
        assert_eq!(read(&large, BUFFER / 2, 8192), large);
    }

    #[test]
    fn what_is_no_message_passes_as_it_is() {
        for nonsense in [&b"d\0\0\0\x03xyz"[..], b"E\0\0\0\0", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"d\0"] {
            for piece in [1, 3, nonsense.len()] {
                assert_eq!(read(nonsense, piece, 64), nonsense);
            }
        }
    }
}
