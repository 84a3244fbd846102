//! One connection, with what must be known about it when a request on it fails.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A byte stream, in the clear or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection.
pub(super) struct Line {
    stream: Box<dyn Stream>,
    /// Whether requests go to a proxy, which must be told where they lead.
    proxied: bool,
    past: Past,
}

/// What happened on a connection so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Past(Arc<Moments>);

#[derive(Debug, Default)]
struct Moments {
    /// A request was answered on it.
    answered: AtomicBool,
    /// Something was heard since something was last said.
    heard: AtomicBool,
}

impl Past {
    /// A request was answered on the connection.
    pub(super) fn answered(&self) {
        self.0.answered.store(true, Ordering::Relaxed);
    }

    /// Whether a request that failed on the connection may have met one that the server had closed: it worked before, and not a byte
    /// came back.
    pub(super) fn is_stale(&self) -> bool {
        self.0.answered.load(Ordering::Relaxed) && !self.0.heard.load(Ordering::Relaxed)
    }
}

impl Line {
    pub(super) fn new(stream: impl Stream + 'static, proxied: bool) -> Line {
        Line { stream: Box::new(stream), proxied, past: Past::default() }
    }

    pub(super) fn past(&self) -> Past {
        self.past.clone()
    }

    pub(super) fn is_proxied(&self) -> bool {
        self.proxied
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.past.0.heard.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.past.0.heard.store(false, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.past.0.heard.store(false, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
