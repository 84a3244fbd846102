//! Calls to a receiver on loopback.

mod callbacks;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use warren_connectors::http::caller;
use warren_connectors::kit::tls::TlsSettings;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::pipeline::outside::{AddressGuard, CallOptions, Hidden, HttpAnswer, HttpRequest};
use warren_engine::ports::HttpCaller;

/// A receiver: what it was sent, and how many connections it took.
struct Receiver {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
    /// Ends with it.
    _running: JoinSet<()>,
}

/// Answers every request with the bytes that `answer` makes of its head; none closes the connection.
async fn receiver(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Receiver {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, connections) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<usize>>::default());
    let (noted, counted, answer) = (heard.clone(), connections.clone(), Arc::new(answer));
    let mut running = JoinSet::new();
    running.spawn(async move {
        let mut serving = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            *counted.lock().unwrap() += 1;
            serving.spawn(serve(stream, noted.clone(), answer.clone()));
        }
    });
    Receiver { address, heard, connections, _running: running }
}

/// From the head of a request to the bytes of its answer; none closes the connection.
type Answers = dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync;

async fn serve(mut stream: TcpStream, heard: Arc<Mutex<Vec<String>>>, answer: Arc<Answers>) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            let mut more = [0; 4096];
            match stream.read(&mut more).await {
                Ok(0) | Err(_) => return,
                Ok(count) => buffer.extend_from_slice(&more[..count]),
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let length: usize = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length:")
                    .map(|value| value.trim().parse().unwrap())
            })
            .unwrap_or(0);
        while buffer.len() < end + length {
            let mut more = [0; 4096];
            let count = stream.read(&mut more).await.unwrap();
            buffer.extend_from_slice(&more[..count]);
        }
        let request = String::from_utf8_lossy(&buffer[..end + length]).into_owned();
        buffer.drain(..end + length);
        heard.lock().unwrap().push(request);
        match answer(&head) {
            Some(bytes) => stream.write_all(&bytes).await.unwrap(),
            None => return,
        }
        if head.contains("/half") {
            return; // what was said is all
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the form of every answer here")]
fn ok(body: &str) -> Option<Vec<u8>> {
    Some(
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nX-Said: yes\r\n\r\n{body}", body.len())
            .into_bytes(),
    )
}

fn request(url: &str) -> HttpRequest {
    HttpRequest {
        method: "POST".into(),
        url: url.into(),
        headers: vec![("X-Id".into(), "7".into())],
        authorization: None,
        body: Bytes::from_static(b"{\"a\":1}"),
        guard: None,
        answer_bytes_max: 1 << 20,
        options: CallOptions::default(),
    }
}

fn guarded(url: &str, allow: &[&str]) -> HttpRequest {
    let allow = allow.iter().map(|allowed| (*allowed).to_owned()).collect();
    HttpRequest { guard: Some(AddressGuard { allow }), ..request(url) }
}

fn calls() -> Arc<dyn HttpCaller> {
    caller(&TlsSettings::default()).unwrap()
}

async fn call(request: &HttpRequest) -> Result<HttpAnswer, Failure> {
    tokio::time::timeout(Duration::from_secs(30), calls().call(request)).await.unwrap()
}

#[tokio::test]
async fn a_request_is_sent_as_it_is_and_its_answer_read() {
    let receiver = receiver(|_| ok("{}")).await;
    let mut asked = request(&format!("http://{}/reserve?x=1", receiver.address));
    asked.authorization = Some(Hidden("Bearer swordfish".into()));
    asked.headers.push(("content-length".into(), "1".into()));
    let answer = call(&asked).await.unwrap();
    assert_eq!((answer.status, answer.header("x-said"), &answer.body[..]), (200, Some("yes"), &b"{}"[..]));
    let heard = receiver.heard.lock().unwrap()[0].to_ascii_lowercase();
    assert!(heard.starts_with("post /reserve?x=1 http/1.1\r\n"), "{heard}");
    for part in [
        "x-id: 7\r\n",
        "authorization: bearer swordfish\r\n",
        "user-agent: warren/",
        "content-length: 7\r\n",
        "\r\n\r\n{\"a\":1}",
    ] {
        assert!(heard.contains(part), "{part} in {heard}");
    }
    assert!(!format!("{asked:?}").contains("swordfish"));
}

#[tokio::test]
async fn connections_are_used_again_and_replaced_when_they_were_closed() {
    let receiver = receiver(|head| if head.contains("/close") { None } else { ok("") }).await;
    let calls = calls();
    let asked = request(&format!("http://{}/", receiver.address));
    for _ in 0..5 {
        assert_eq!(calls.call(&asked).await.unwrap().status, 200);
    }
    assert_eq!(*receiver.connections.lock().unwrap(), 1);
    // It is closed without an answer: nobody knows whether it was heard, so it is not sent twice here.
    let closed = request(&format!("http://{}/close", receiver.address));
    let failure = calls.call(&closed).await.unwrap_err();
    assert_eq!((failure.kind, failure.code), (FailureKind::Disconnected, codes::HTTP_FAILED));
    assert_eq!(calls.call(&asked).await.unwrap().status, 200);
    assert_eq!(receiver.heard.lock().unwrap().iter().filter(|heard| heard.contains("/close")).count(), 1);
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let receiver =
        receiver(|_| Some(b"HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n".to_vec()))
            .await;
    let answer = call(&request(&format!("http://{}/", receiver.address))).await.unwrap();
    assert_eq!((answer.status, receiver.heard.lock().unwrap().len()), (302, 1));
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_read_to_its_end() {
    let receiver = receiver(|head| {
        let status = if head.contains("/error") { "500 No" } else { "200 OK" };
        let mut answer = format!("HTTP/1.1 {status}\r\ncontent-length: 100000\r\n\r\n").into_bytes();
        answer.resize(answer.len() + 100_000, b'x');
        Some(answer)
    })
    .await;
    let mut asked = request(&format!("http://{}/", receiver.address));
    asked.answer_bytes_max = 1000;
    assert_eq!(call(&asked).await.unwrap_err().code, codes::ANSWER_TOO_LARGE);
    asked.url = format!("http://{}/error", receiver.address);
    let answer = call(&asked).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (500, 1000));
}

#[tokio::test]
async fn a_compressed_answer_is_decoded_within_the_bound() {
    let gzip = |plain: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, plain).unwrap();
        encoder.finish().unwrap()
    };
    let bomb = gzip(&vec![0; 10 << 20]);
    assert!(bomb.len() < 100_000);
    let receiver = receiver(move |head| {
        let (status, body) = match head {
            head if head.contains("/bomb") => ("200 OK", bomb.clone()),
            head if head.contains("/broken") => ("200 OK", b"no gzip".to_vec()),
            head if head.contains("/error") => ("500 No", bomb.clone()),
            _ => ("200 OK", gzip(b"{\"a\":1}")),
        };
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-encoding: gzip\r\n\r\n", body.len());
        Some([head.as_bytes(), &body].concat())
    })
    .await;
    let asked = |path: &str| {
        let url = format!("http://{}{path}", receiver.address);
        HttpRequest { answer_bytes_max: 100_000, ..request(&url) }
    };
    let answer = call(&asked("/")).await.unwrap();
    assert_eq!((&answer.body[..], answer.header("content-encoding")), (&b"{\"a\":1}"[..], None));
    assert_eq!(call(&asked("/bomb")).await.unwrap_err().code, codes::ANSWER_TOO_LARGE);
    assert_eq!(call(&asked("/broken")).await.unwrap_err().code, codes::HTTP_FAILED);
    let answer = call(&asked("/error")).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (500, 100_000));
}

#[tokio::test]
async fn a_receiver_that_is_not_there_breaks_off_or_speaks_something_else_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    let failure = call(&request(&format!("http://{gone}/"))).await.unwrap_err();
    assert_eq!((failure.kind, failure.code), (FailureKind::Disconnected, codes::CONNECTION_REFUSED));
    let failure = call(&request("http://nowhere.invalid/")).await.unwrap_err();
    assert_eq!((failure.kind, failure.code), (FailureKind::Disconnected, codes::NAME_NOT_RESOLVED));
    let broken = receiver(|head| {
        let answer = if head.contains("/half") {
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"
        } else {
            "SSH-2.0-nonsense\r\n\r\n"
        };
        Some(answer.as_bytes().to_vec())
    })
    .await;
    let plain = format!("http://{}/", broken.address);
    assert_eq!(call(&request(&plain)).await.unwrap_err().code, codes::HTTP_FAILED);
    // It is no TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut talking = JoinSet::new();
    talking.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        // Until the other side has had enough.
        stream.read_to_end(&mut Vec::new()).await.ok();
    });
    let failure = call(&request(&format!("https://{address}/"))).await.unwrap_err();
    assert_eq!(failure.code, codes::TLS_FAILED, "{failure}");
    talking.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_url_that_cannot_be_called_is_refused() {
    for url in ["", "/path", "ftp://host/", "file:///etc/passwd", "http://user:swordfish@host/", "http://"] {
        let failure = call(&request(url)).await.unwrap_err();
        assert_eq!((failure.kind, failure.code), (FailureKind::Invalid, codes::INVALID_VALUE), "{url}");
        assert!(!failure.to_string().contains("swordfish"));
    }
}

#[tokio::test]
async fn message_data_does_not_lead_to_private_addresses() {
    let receiver = receiver(|_| ok("")).await;
    let port = receiver.address.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "0x7f.1",
        "2130706433",
        "0177.0.0.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "169.254.169.254",
    ] {
        let failure = call(&guarded(&format!("http://{host}:{port}/"), &[])).await.unwrap_err();
        assert_eq!(
            (failure.kind, failure.code),
            (FailureKind::Refused, codes::ADDRESS_REFUSED),
            "{host}: {failure}"
        );
    }
    assert_eq!(*receiver.connections.lock().unwrap(), 0);
    for (host, allow) in [
        ("127.0.0.1", "127.0.0.0/8"),
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("localhost", "127.0.0.1"),
    ] {
        let allow = [allow, "::1"];
        assert_eq!(
            call(&guarded(&format!("http://{host}:{port}/"), &allow)).await.unwrap().status,
            200,
            "{host}"
        );
    }
    // A connection that one guard allowed is not there for another.
    let calls = calls();
    let url = format!("http://localhost:{port}/");
    assert_eq!(calls.call(&guarded(&url, &["localhost"])).await.unwrap().status, 200);
    assert_eq!(calls.call(&request(&url)).await.unwrap().status, 200);
    assert_eq!(calls.call(&guarded(&url, &["10.0.0.0/8"])).await.unwrap_err().code, codes::ADDRESS_REFUSED);
}
