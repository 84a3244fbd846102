//! The framing of requests by RFC 9112 (F20): `Host` and `Transfer-Encoding`, on every route.

use super::client::{Reply, raw};
use super::world::World;

const PATHS: [&str; 6] =
    ["/endpoint/q/foo", "/subscribe/q/foo", "/hub", "/api/v1/publish", "/api/v1/health", "/nothing"];
const LOGIN: &str = "authorization: Basic Ym9zczpzZWNyZXQ=\r\n";

/// The first answer, and whether it is the only one: what follows a request whose end is not certain is no request.
async fn asks(world: &World, path: &str, headers: &str, body: &str) -> (u16, bool) {
    let request = format!(
        "POST {path} HTTP/1.1\r\n{LOGIN}{headers}\r\n{body}GET /api/v1/health HTTP/1.1\r\nhost: h\r\n\r\n"
    );
    let answered = raw(world.address, request.as_bytes(), true).await;
    let status = Reply::read(&answered).unwrap_or_else(|| panic!("no answer to {request}")).status;
    let answers = answered.windows(9).filter(|window| *window == b"HTTP/1.1 ").count();
    (status, answers == 1)
}

#[tokio::test]
async fn a_transfer_encoding_other_than_chunked_is_refused() {
    let world = World::start(false).await;
    world.queues(&["foo"]);
    for path in PATHS {
        for (codings, expected) in [
            // RFC 9112, 6.1: a coding that is not understood.
            (&["gzip, chunked"][..], 501),
            (&["gzip", "chunked"], 501),
            (&["identity, chunked"], 501),
            (&["chunked, gzip, chunked"], 400),
            // 6.3: the length cannot be known unless the last coding is chunked; 7.1: chunked once.
            (&["chunked, gzip"], 400),
            (&["chunked", "gzip"], 400),
            (&["gzip"], 400),
            (&["identity"], 400),
            (&[""], 400),
            (&["chunked, chunked"], 400),
            (&["chunked", "chunked"], 400),
            (&["xchunked"], 400),
        ] {
            let lines: String =
                codings.iter().map(|coding| ["transfer-encoding: ", coding, "\r\n"].concat()).collect();
            let answered = asks(&world, path, &format!("host: h\r\n{lines}"), "1\r\nx\r\n0\r\n\r\n").await;
            assert_eq!(answered, (expected, true), "{path} {codings:?}");
        }
    }
    assert!(world.estate.host("/").queues.messages("foo").is_empty(), "nothing of it was published");
    let (status, _) =
        asks(&world, "/endpoint/q/foo", "host: h\r\ntransfer-encoding: Chunked\r\n", "1\r\nx\r\n0\r\n\r\n")
            .await;
    assert_eq!(status, 202);
}

#[tokio::test]
async fn exactly_one_valid_host_is_needed() {
    let world = World::start(false).await;
    world.queues(&["foo"]);
    for path in PATHS {
        for hosts in [
            &[][..],
            &["h", "h"],
            &["h", "other"],
            &[""],
            &["a b"],
            &["h:x"],
            &["h:70000"],
            &["user@h"],
            &["http://h"],
            &["h/path"],
            &["[::1"],
            &["h,h/"],
        ] {
            let lines: String = hosts.iter().map(|host| ["host: ", host, "\r\n"].concat()).collect();
            let answered = asks(&world, path, &format!("{lines}content-length: 1\r\n"), "x").await;
            assert_eq!(answered, (400, true), "{path} {hosts:?}");
        }
    }
    assert!(world.estate.host("/").queues.messages("foo").is_empty());
    for host in ["h", "h:1", "127.0.0.1:80", "[::1]:80", "a_b.example"] {
        let request =
            format!("POST /endpoint/q/foo HTTP/1.1\r\nhost: {host}\r\n{LOGIN}content-length: 1\r\n\r\nx");
        let answered = raw(world.address, request.as_bytes(), true).await;
        assert_eq!(Reply::read(&answered).unwrap().status, 202, "{host}");
    }
    // HTTP/1.0 needs none, but not two.
    for (hosts, expected) in [("", 202), ("host: h\r\n", 202), ("host: h\r\nhost: h\r\n", 400)] {
        let request = format!("POST /endpoint/q/foo HTTP/1.0\r\n{hosts}{LOGIN}content-length: 1\r\n\r\nx");
        let answered = raw(world.address, request.as_bytes(), true).await;
        assert_eq!(Reply::read(&answered).unwrap().status, expected, "{hosts:?}");
    }
}
