//! The framing of requests by RFC 9112 (F20) on the pages of the listener: `/metrics`, `/healthz`, `/readyz`.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use super::served::{SOON, Served};

/// The status of the first answer, and whether it is the only one: what follows a request whose end is not certain is no request.
fn asks(address: &str, method: &str, path: &str, headers: &str, body: &str) -> (u16, bool) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let request =
        format!("{method} {path} HTTP/1.1\r\n{headers}\r\n{body}GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    // A server that has answered already may have closed it.
    stream.shutdown(Shutdown::Write).ok();
    let mut answered = Vec::new();
    // A reset after the answer is as good as an end.
    stream.read_to_end(&mut answered).ok();
    let text = String::from_utf8_lossy(&answered);
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no answer to {request}: {text}"));
    (status, text.matches("HTTP/1.1 ").count() == 1)
}

#[test]
fn a_request_with_an_uncertain_end_is_refused_on_every_page() {
    let served = Served::embedded("");
    let serving = served.consume();
    for path in ["/metrics", "/healthz", "/readyz", "/nothing"] {
        for method in ["GET", "POST"] {
            for (headers, expected) in [
                ("", 400),
                ("host: h\r\nhost: h\r\n", 400),
                ("host: a b\r\n", 400),
                ("host: \r\n", 400),
                ("host: h\r\ntransfer-encoding: gzip, chunked\r\n", 501),
                ("host: h\r\ntransfer-encoding: identity, chunked\r\n", 501),
                ("host: h\r\ntransfer-encoding: chunked, chunked\r\n", 400),
                ("host: h\r\ntransfer-encoding: chunked, gzip\r\n", 400),
                ("host: h\r\ntransfer-encoding: xchunked\r\n", 400),
                ("host: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n", 400),
            ] {
                let answered = asks(&serving.address, method, path, headers, "1\r\nx\r\n0\r\n\r\n");
                assert_eq!(answered, (expected, true), "{method} {path} {headers:?}");
            }
        }
    }
    // Good ones are answered, and where the end is known without reading the body, the next request of the connection too.
    for path in ["/metrics", "/healthz", "/readyz"] {
        for (headers, body) in [
            ("host: h\r\n", ""),
            ("host: h\r\ncontent-length: 1\r\n", "x"),
            ("host: h\r\ntransfer-encoding: chunked\r\n", "1\r\nx\r\n0\r\n\r\n"),
        ] {
            let (status, only) = asks(&serving.address, "GET", path, headers, body);
            assert_eq!(status, 200, "{path} {headers:?}");
            assert!(!only || headers.contains("chunked"), "{path} {headers:?}");
        }
    }
}
