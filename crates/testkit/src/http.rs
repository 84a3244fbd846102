//! Just enough HTTP for the management API on loopback: one request a connection, basic
//! authentication, a JSON body each way. No TLS, no redirects.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Nothing on loopback takes longer unless it is stuck.
const TIMEOUT: Duration = Duration::from_secs(30);

/// `http://user:password@host:port`, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    address: String,
    user: String,
    password: String,
}

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Base {
    pub(crate) fn parse(url: &str) -> Base {
        let rest = url.strip_prefix("http://").expect("the management URL is http");
        let (user_info, address) = rest.split_once('@').expect("the management URL has a user");
        let (user, password) = user_info.split_once(':').expect("the management URL has a password");
        Base {
            address: address.trim_end_matches('/').to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
        }
    }

    pub(crate) fn url_as(&self, user: &str, password: &str) -> String {
        format!("http://{user}:{password}@{}", self.address)
    }

    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> std::io::Result<Response> {
        let credentials = STANDARD.encode(format!("{}:{}", self.user, self.password));
        let authorization = format!("Basic {credentials}");
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        Base::send(&self.address, method, path, &headers, body)
    }

    /// One request with headers of one's own.
    pub(crate) fn send(
        address: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Response> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n");
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.extend(["content-length: ", &body.len().to_string(), "\r\nconnection: close\r\n\r\n"]);
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw)?;
        parse(&raw)
            .ok_or_else(|| std::io::Error::other(format!("not HTTP: {}", String::from_utf8_lossy(&raw))))
    }
}

fn parse(raw: &[u8]) -> Option<Response> {
    let end = find(raw, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&raw[..end]).ok()?.to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = &raw[end + 4..];
    let chunked = head.lines().any(|line| line.starts_with("transfer-encoding:") && line.contains("chunked"));
    let body = if chunked { unchunk(body)? } else { body.to_vec() };
    Some(Response { status, body })
}

fn unchunk(mut raw: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = find(raw, b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&raw[..end]).ok()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(raw.get(end + 2..end + 2 + size)?);
        raw = raw.get(end + 2 + size + 2..)?;
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_answer_is_put_together() {
        let raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let response = parse(raw).expect("it is HTTP");
        assert_eq!(response.status, 200);
        assert_eq!(response.body, b"abcde");
    }

    #[test]
    fn a_broken_answer_is_none() {
        assert!(parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nabc").is_none());
        assert!(parse(b"").is_none());
    }
}
