//! Reading a request's body: bounded in bytes and in time.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::time::{Instant, timeout_at};

/// The longest pause between two pieces of a body.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long a body may take in all: at the largest size that is allowed by default, some 10 KiB a second.
const TOTAL_MAX: Duration = Duration::from_secs(120);

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFault {
    /// It is larger than it may be: this many bytes.
    TooLarge(usize),
    /// It came too slowly.
    TooSlow,
    /// It ended before its end, or its chunks are none.
    Broken,
}

impl BodyFault {
    pub(super) fn status(self) -> StatusCode {
        match self {
            BodyFault::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            BodyFault::TooSlow => StatusCode::REQUEST_TIMEOUT,
            BodyFault::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

impl std::fmt::Display for BodyFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BodyFault::TooLarge(bytes_max) => write!(f, "The body is larger than {bytes_max} bytes"),
            BodyFault::TooSlow => f.write_str("The body came too slowly"),
            BodyFault::Broken => f.write_str("The body is broken"),
        }
    }
}

/// Reads a body of at most so many bytes. What is too large is not read to its end; the listener sees to it that the answer arrives.
pub(super) async fn read(mut body: Body, bytes_max: usize) -> Result<Bytes, BodyFault> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(BodyFault::TooLarge(bytes_max));
    }
    let ends = Instant::now() + TOTAL_MAX;
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    loop {
        let frame = timeout_at(ends.min(Instant::now() + PAUSE_MAX), body.frame());
        let data = match frame.await.map_err(|_| BodyFault::TooSlow)? {
            None => break,
            Some(Err(_)) => return Err(BodyFault::Broken),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                Err(_trailers) => continue,
            },
        };
        if first.len() + rest.len() + data.len() > bytes_max {
            return Err(BodyFault::TooLarge(bytes_max));
        }
        // Most bodies are one piece, which is passed on as it is.
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    Ok([first, rest.freeze()].concat().into())
}
