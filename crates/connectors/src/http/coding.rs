//! The content codings of an answer (RFC 9110, section 8.4): `gzip`, `x-gzip` and `deflate` are decoded, within the bound of the answer.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH};

/// More codings on top of each other than this are not decoded.
const CODINGS_MAX: usize = 4;
/// With a bound up to this the task itself decodes, otherwise a thread for blocking work.
const INLINE_BYTES_MAX: usize = 1 << 20;

/// A coding that can be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
}

/// What to do about an answer that is larger than its bound, or ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// It is an error.
    Refuse,
    /// The beginning is enough.
    Cut,
}

/// Why an answer cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undecodable {
    #[error("the answer has more than {0} bytes once it is decoded")]
    TooLarge(usize),
    #[error("the answer cannot be decoded as `{coding}`")]
    Broken {
        coding: &'static str,
        #[source]
        cause: io::Error,
    },
}

/// Decodes the body of an answer, and removes the headers that described its coded form. A body with a coding that is not known stays as it
/// is, with its headers.
///
/// # Errors
/// The decoded body has more than `bytes_max` bytes, or is not what its header says.
pub(super) async fn decode(
    headers: &mut HeaderMap,
    body: Bytes,
    bytes_max: usize,
    excess: Excess,
) -> Result<Bytes, Undecodable> {
    let Some(codings) = codings(headers) else { return Ok(body) };
    if !codings.is_empty() && !body.is_empty() {
        headers.remove(CONTENT_LENGTH);
    }
    headers.remove(CONTENT_ENCODING);
    if codings.is_empty() || body.is_empty() {
        return Ok(body);
    }
    let decode = move || {
        // The last coding was applied last.
        codings.iter().rev().try_fold(body, |body, coding| coding.decode(&body, bytes_max, excess))
    };
    if bytes_max <= INLINE_BYTES_MAX {
        return decode();
    }
    tokio::task::spawn_blocking(decode).await.unwrap_or_else(|error| {
        Err(Undecodable::Broken { coding: Coding::Gzip.name(), cause: io::Error::other(error) })
    })
}

/// The codings of an answer in the order in which they were applied, without `identity`. `None`: there are none, too many, or one that is
/// not known.
fn codings(headers: &HeaderMap) -> Option<Vec<Coding>> {
    let mut codings = Vec::new();
    let mut named = false;
    for value in headers.get_all(CONTENT_ENCODING) {
        for name in value.to_str().ok()?.split(',') {
            named = true;
            match name.trim().to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => codings.push(Coding::Gzip),
                "deflate" => codings.push(Coding::Deflate),
                "identity" | "" => {}
                _ => return None,
            }
        }
    }
    (named && codings.len() <= CODINGS_MAX).then_some(codings)
}

impl Coding {
    fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
        }
    }

    fn decode(self, coded: &[u8], bytes_max: usize, excess: Excess) -> Result<Bytes, Undecodable> {
        match self {
            Coding::Gzip => self.read(MultiGzDecoder::new(coded), bytes_max, excess),
            // Some servers send deflate without the zlib header that RFC 9110 requires.
            Coding::Deflate if is_zlib(coded) => self.read(ZlibDecoder::new(coded), bytes_max, excess),
            Coding::Deflate => self.read(DeflateDecoder::new(coded), bytes_max, excess),
        }
    }

    fn read(self, mut decoder: impl Read, bytes_max: usize, excess: Excess) -> Result<Bytes, Undecodable> {
        let mut decoded = Vec::new();
        // One byte more tells an answer of exactly the bound from one beyond it.
        let bound = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        let read = decoder.by_ref().take(bound).read_to_end(&mut decoded);
        if decoded.len() > bytes_max {
            if excess == Excess::Refuse {
                return Err(Undecodable::TooLarge(bytes_max));
            }
            decoded.truncate(bytes_max);
            return Ok(decoded.into());
        }
        match read {
            Err(cause) if excess == Excess::Refuse => Err(Undecodable::Broken { coding: self.name(), cause }),
            Ok(_) | Err(_) => Ok(decoded.into()),
        }
    }
}

/// Whether deflated bytes begin with a zlib header (RFC 1950, section 2.2).
fn is_zlib(coded: &[u8]) -> bool {
    match coded {
        [method, flags, ..] => method & 0x0f == 8 && (u16::from(*method) << 8 | u16::from(*flags)) % 31 == 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use hyper::header::HeaderValue;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn raw_deflate(plain: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn headers(codings: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("1"));
        for coding in codings {
            headers.append(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        headers
    }

    #[tokio::test]
    async fn known_codings_are_decoded_and_their_headers_removed() {
        let plain = b"{\"a\": 1}".repeat(10);
        let twice = gzip(&gzip(&plain));
        let members = [gzip(&plain[..8]), gzip(&plain[8..])].concat();
        for (codings, coded) in [
            (&["gzip"][..], gzip(&plain)),
            (&["X-GZip"], gzip(&plain)),
            (&["gzip"], members),
            (&["deflate"], zlib(&plain)),
            (&["deflate"], raw_deflate(&plain)),
            (&["gzip, gzip"], twice.clone()),
            (&["gzip", "gzip"], twice),
            (&["deflate, gzip"], gzip(&zlib(&plain))),
            (&["identity, gzip"], gzip(&plain)),
        ] {
            for bytes_max in [plain.len().max(coded.len()), 4 << 20] {
                let mut headers = headers(codings);
                let decoded = decode(&mut headers, coded.clone().into(), bytes_max, Excess::Refuse).await;
                assert_eq!(decoded.unwrap(), plain, "{codings:?}");
                assert!(headers.is_empty(), "{headers:?}");
            }
        }
    }

    #[tokio::test]
    async fn unknown_codings_and_none_leave_the_answer_as_it_is() {
        for codings in [&[][..], &["br"], &["gzip, br"], &["gzip", "zstd"], &["gzip,gzip,gzip,gzip,gzip"]] {
            let mut given = headers(codings);
            let body = Bytes::from(gzip(b"x"));
            let decoded = decode(&mut given, body.clone(), 100, Excess::Refuse).await.unwrap();
            assert_eq!((decoded, given), (body, headers(codings)));
        }
        // The answer to HEAD has the header, and no body.
        let mut given = headers(&["gzip"]);
        assert!(decode(&mut given, Bytes::new(), 100, Excess::Refuse).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_bomb_is_bounded() {
        let plain = vec![0; 4 << 20];
        for (codings, coded) in [
            (&["gzip"][..], gzip(&plain)),
            (&["deflate"], zlib(&plain)),
            (&["gzip, gzip"], gzip(&gzip(&plain))),
        ] {
            for bytes_max in [64 << 10, 2 << 20] {
                let body = Bytes::from(coded.clone());
                let refused = decode(&mut headers(codings), body.clone(), bytes_max, Excess::Refuse).await;
                let cut = decode(&mut headers(codings), body, bytes_max, Excess::Cut).await.unwrap();
                assert!(matches!(refused, Err(Undecodable::TooLarge(_))), "{refused:?}");
                assert_eq!(cut.len(), bytes_max);
            }
        }
    }

    #[tokio::test]
    async fn the_bound_is_exact() {
        let coded = Bytes::from(gzip(&[7; 1000]));
        for (bytes_max, fits) in [(999, false), (1000, true), (1001, true)] {
            let decoded = decode(&mut headers(&["gzip"]), coded.clone(), bytes_max, Excess::Refuse).await;
            assert_eq!(decoded.is_ok(), fits);
            let cut = decode(&mut headers(&["gzip"]), coded.clone(), bytes_max, Excess::Cut).await.unwrap();
            assert_eq!(cut.len(), bytes_max.min(1000));
        }
    }

    #[tokio::test]
    async fn damaged_and_truncated_answers_are_errors_unless_they_may_be_cut() {
        let whole = gzip(b"hello hello hello");
        for (coding, coded) in [
            ("gzip", whole[..whole.len() - 9].to_vec()),
            ("gzip", b"not gzip at all".to_vec()),
            ("deflate", vec![0xff; 20]),
            ("gzip", vec![0x1f]),
        ] {
            let mut given = headers(&[coding]);
            let refused = decode(&mut given, coded.clone().into(), 100, Excess::Refuse).await;
            assert!(matches!(refused, Err(Undecodable::Broken { .. })), "{coding} {refused:?}");
            decode(&mut headers(&[coding]), coded.into(), 100, Excess::Cut).await.unwrap();
        }
    }
}
