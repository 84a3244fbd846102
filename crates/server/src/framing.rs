//! What RFC 9112 demands of the head of every request, whatever it asks for: one valid `Host`, and no transfer coding but `chunked`.
//!
//! hyper rejects with 400 what it cannot delimit: a `Transfer-Encoding` that does not end in `chunked`, one in HTTP/1.0, and
//! `Content-Length` values that contradict each other.

use std::net::Ipv6Addr;

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use axum::http::{Response, StatusCode, Version};

/// The answer to a request whose framing is wrong; the connection ends after it, because the end of the request is not certain.
pub(super) fn refused(version: Version, headers: &HeaderMap) -> Option<Response<Body>> {
    let (status, text) = fault(version, headers)?;
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Some(answer)
}

fn fault(version: Version, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version >= Version::HTTP_11 => {
            return Some((StatusCode::BAD_REQUEST, "The Host header is missing"));
        }
        (Some(_), Some(_)) => return Some((StatusCode::BAD_REQUEST, "There is more than one Host header")),
        (Some(host), None) if !is_host(host.as_bytes()) => {
            return Some((StatusCode::BAD_REQUEST, "The Host header is not a host with an optional port"));
        }
        (None | Some(_), _) => {}
    }
    transfer_coding_fault(headers)
}

fn transfer_coding_fault(headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    let lines = headers.get_all(TRANSFER_ENCODING);
    let codings: Vec<&[u8]> = lines
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.is_empty())
        .collect();
    let chunked = codings.iter().filter(|coding| coding.eq_ignore_ascii_case(b"chunked")).count();
    match (codings.len(), chunked) {
        (0, _) if lines.iter().next().is_none() => None,
        (1, 1) => None,
        (0, _) => Some((StatusCode::BAD_REQUEST, "Transfer-Encoding is empty")),
        (_, 2..) => Some((StatusCode::BAD_REQUEST, "Transfer-Encoding has chunked more than once")),
        _ => Some((StatusCode::NOT_IMPLEMENTED, "The only supported Transfer-Encoding is chunked")),
    }
}

/// `uri-host [ ":" port ]` (RFC 9110, 7.2); an empty host is none of an `http` URI (4.2.1).
fn is_host(value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else { return false };
    let (host, rest) = match value.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) if address.parse::<Ipv6Addr>().is_ok() => (address, rest),
        Some(_) => return false,
        None if value.starts_with('[') => return false,
        None => value.split_at(value.find(':').unwrap_or(value.len())),
    };
    let is_port = match rest.strip_prefix(':') {
        // A port may be left out after the colon.
        Some("") => true,
        Some(port) => port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok(),
        None => rest.is_empty(),
    };
    is_port && !host.is_empty() && (value.starts_with('[') || is_reg_name(host.as_bytes()))
}

/// RFC 3986, 3.2.2: unreserved characters, sub-delimiters, and percent-encoded bytes.
fn is_reg_name(host: &[u8]) -> bool {
    let mut rest = host;
    while let Some((first, after)) = rest.split_first() {
        rest = match first {
            b'%' => match after {
                [high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
                _ => return false,
            },
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b','
            | b';' | b'=' => after,
            byte if byte.is_ascii_alphanumeric() => after,
            _ => return false,
        };
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for host in
            ["h", "h:80", "h:", "example.com:65535", "127.0.0.1:1", "[::1]", "[::1]:80", "a_b-c", "%41"]
        {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "", ":80", "h:x", "h:65536", "h:-1", "h:+1", "h:80:80", "a b", "a/b", "a@b", "http://h", "[::1",
            "[", "[:80", "[h:80", "::1", "[]", "[h]", "[::1]x", "h?", "h#", "h\\", "%4", "%zz", "é",
            "h,h:80,h", "h\t",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
        assert!(is_host(b"h,h"), "a comma may be in a name");
        assert!(!is_host(b"h\xff"));
    }

    #[test]
    fn transfer_codings() {
        for (lines, status) in [
            (&[][..], None),
            (&["chunked"], None),
            (&["Chunked"], None),
            (&[" chunked ,"], None),
            (&[""], Some(400)),
            (&[","], Some(400)),
            (&["chunked, chunked"], Some(400)),
            (&["chunked", "chunked"], Some(400)),
            (&["gzip, chunked"], Some(501)),
            (&["gzip", "chunked"], Some(501)),
            (&["chunked", "gzip"], Some(501)),
            (&["identity"], Some(501)),
            (&["xchunked"], Some(501)),
            (&["chunked;q=1"], Some(501)),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(TRANSFER_ENCODING, line.parse().unwrap());
            }
            let found = transfer_coding_fault(&headers).map(|(status, _)| status.as_u16());
            assert_eq!(found, status, "{lines:?}");
        }
    }
}
