//! What a hub asks of its calls beyond what steps do: stale connections, time limits, cut answers, proxies, choice by URL.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use warren_connectors::http::callbacks;
use warren_connectors::http::config::{ClientConfig, ClientFor};
use warren_connectors::kit::setting::Secret;
use warren_connectors::kit::tls::TlsSettings;
use warren_engine::codes;
use warren_engine::failure::{FailureKind, FailureName};
use warren_engine::pipeline::outside::{CallOptions, HttpRequest};
use warren_engine::ports::HttpCaller;
use warren_testkit::tls as test_tls;

use super::{guarded, ok, receiver, request};

fn calls(config: &ClientConfig) -> Arc<dyn HttpCaller> {
    callbacks(config, &[]).unwrap()
}

fn plain() -> Arc<dyn HttpCaller> {
    calls(&ClientConfig::default())
}

fn once_more(url: &str) -> HttpRequest {
    let options = CallOptions { again_if_stale: true, ..CallOptions::default() };
    HttpRequest { options, ..request(url) }
}

/// Answers a connection's first request and closes it, by a reset, when the second has come.
async fn closes_when_used_again() -> (SocketAddr, Arc<AtomicUsize>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answered = Arc::new(AtomicUsize::new(0));
    let counted = answered.clone();
    let mut running = JoinSet::new();
    running.spawn(async move {
        let mut serving = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let counted = counted.clone();
            serving.spawn(async move {
                heard_request(&mut stream).await;
                counted.fetch_add(1, Ordering::Relaxed);
                stream.write_all(&ok("fine").unwrap()).await.unwrap();
                // Not a byte of it is read: closing with unread bytes resets the connection.
                stream.readable().await.unwrap();
            });
        }
    });
    (address, answered, running)
}

async fn heard_request(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    let body = b"{\"a\":1}";
    while !heard.ends_with(body) {
        let mut more = [0; 4096];
        let count = stream.read(&mut more).await.unwrap();
        assert!(count > 0, "a request was cut");
        heard.extend_from_slice(&more[..count]);
    }
    String::from_utf8(heard).unwrap()
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced_where_that_is_asked() {
    let (address, answered, _running) = closes_when_used_again().await;
    let url = format!("http://{address}/");
    let calls = plain();
    // Whatever the server closes: not one of 200 fails (RabbitHub lost its subscriber at the hundredth).
    for _ in 0..200 {
        assert_eq!(calls.call(&once_more(&url)).await.unwrap().status, 200);
    }
    assert_eq!(answered.load(Ordering::Relaxed), 200);
    // Where it is not asked, the second on a connection fails: nobody knows whether it was heard.
    let calls = plain();
    assert_eq!(calls.call(&request(&url)).await.unwrap().status, 200);
    assert_eq!(calls.call(&request(&url)).await.unwrap_err().code, codes::HTTP_FAILED);
}

#[tokio::test]
async fn a_connection_that_breaks_at_its_first_request_or_in_an_answer_is_not_tried_again() {
    let heard = Arc::new(AtomicUsize::new(0));
    let counted = heard.clone();
    let receiver = receiver(move |head| {
        if head.contains("/half") {
            counted.fetch_add(1, Ordering::Relaxed);
            return Some(b"HTTP/1.1 2".to_vec());
        }
        if head.contains("/none") {
            counted.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        ok("")
    })
    .await;
    let url = |path: &str| format!("http://{}{path}", receiver.address);
    // Its first request.
    assert_eq!(plain().call(&once_more(&url("/none"))).await.unwrap_err().code, codes::HTTP_FAILED);
    assert_eq!(heard.load(Ordering::Relaxed), 1);
    // On a used connection: once more, on a fresh one, which breaks at its first request.
    let calls = plain();
    calls.call(&once_more(&url("/"))).await.unwrap();
    assert_eq!(calls.call(&once_more(&url("/none"))).await.unwrap_err().code, codes::HTTP_FAILED);
    assert_eq!(heard.load(Ordering::Relaxed), 3);
    // On a used connection, with a byte of the answer there: the server has begun to answer this very request.
    calls.call(&once_more(&url("/"))).await.unwrap();
    assert_eq!(calls.call(&once_more(&url("/half"))).await.unwrap_err().code, codes::HTTP_FAILED);
    assert_eq!(heard.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_server_that_is_silent_is_left_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut silent = request(&format!("http://{address}/"));
    silent.options.timeout = Some(Duration::from_millis(200));
    let failure = plain().call(&silent).await.unwrap_err();
    assert_eq!((failure.kind, failure.code), (FailureKind::Timeout, codes::HTTP_FAILED), "{failure}");
    // Nothing answers a TLS handshake there either.
    let mut silent = request(&format!("https://{address}/"));
    silent.options.connect_timeout = Some(Duration::from_millis(200));
    let failure = plain().call(&silent).await.unwrap_err();
    assert_eq!((failure.kind, failure.code), (FailureKind::Timeout, codes::HTTP_FAILED), "{failure}");
}

#[tokio::test]
async fn of_an_answer_that_is_cut_the_status_counts() {
    let receiver = receiver(|head| {
        let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n".to_vec();
        let sent = if head.contains("/hangs") { 10 } else { 100_000 };
        answer.resize(answer.len() + sent, b'x');
        Some(answer)
    })
    .await;
    let mut asked = request(&format!("http://{}/", receiver.address));
    asked.answer_bytes_max = 1000;
    asked.options = CallOptions { cut_answer: true, ..CallOptions::default() };
    let answer = plain().call(&asked).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 1000));
    asked.url = format!("http://{}/hangs", receiver.address);
    asked.options.timeout = Some(Duration::from_millis(500));
    let answer = plain().call(&asked).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 10));
    asked.options.cut_answer = false;
    assert_eq!(plain().call(&asked).await.unwrap_err().kind, FailureKind::Timeout);
}

#[tokio::test]
async fn the_beginning_of_a_url_may_be_allowed() {
    let receiver = receiver(|_| ok("")).await;
    let port = receiver.address.port();
    let calls = plain();
    for host in ["127.0.0.1", "localhost"] {
        let allow = format!("http://{host}:{port}/hooks/");
        let url = |path: &str| format!("http://{host}:{port}{path}");
        assert_eq!(calls.call(&guarded(&url("/hooks/a"), &[&allow])).await.unwrap().status, 200);
        let failure = calls.call(&guarded(&url("/admin"), &[&allow])).await.unwrap_err();
        assert_eq!(failure.code, codes::ADDRESS_REFUSED);
    }
}

/// A proxy: passes `CONNECT` through, answers all else itself with what it heard.
async fn proxy() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut running = JoinSet::new();
    running.spawn(async move {
        let mut serving = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            serving.spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                if !head
                    .to_ascii_lowercase()
                    .contains("proxy-authorization: basic dXNlcjpwdw==".to_ascii_lowercase().as_str())
                {
                    stream.write_all(b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                    return;
                }
                let target = head.split(' ').nth(1).unwrap().to_owned();
                if head.starts_with("CONNECT ") {
                    let mut to = TcpStream::connect(target).await.unwrap();
                    stream.write_all(b"HTTP/1.1 200 Yes\r\n\r\n").await.unwrap();
                    copy_bidirectional(&mut stream, &mut to).await.ok();
                } else {
                    stream.write_all(&ok(&target).unwrap()).await.unwrap();
                }
            });
        }
    });
    (address, running)
}

#[tokio::test]
async fn requests_go_through_a_proxy_unless_their_host_has_none() {
    let (proxy, _running) = proxy().await;
    let url = Secret::new(format!("http://user:pw@{proxy}"));
    let receiver = receiver(|_| ok("direct")).await;
    let config = ClientConfig {
        proxy: Some(url.clone()),
        https_proxy: Some(url),
        no_proxy: vec!["127.0.0.0/8".into()],
        ..ClientConfig::default()
    };
    let calls = calls(&config);
    let answer = calls.call(&request("http://some.invalid/x?y=1")).await.unwrap();
    assert_eq!(answer.body, "http://some.invalid/x?y=1");
    let answer = calls.call(&request(&format!("http://{}/", receiver.address))).await.unwrap();
    assert_eq!(answer.body, "direct");
    // What leads to a private address as far as is known here does not go there through a proxy either.
    let private = format!("http://localhost:{}/", receiver.address.port());
    let failure = calls.call(&guarded(&private, &[])).await.unwrap_err();
    assert_eq!(failure.code, codes::ADDRESS_REFUSED);
    let wrong =
        ClientConfig { proxy: Some(Secret::new(format!("http://{proxy}"))), ..ClientConfig::default() };
    assert_eq!(
        super::callbacks::calls(&wrong).call(&request("http://some.invalid/")).await.unwrap().status,
        407
    );
}

/// A server that asks for our certificate.
async fn tls_server() -> (SocketAddr, JoinSet<()>) {
    let file = |name: &str| test_tls::ca().with_file_name(name);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(test_tls::ca()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(file("server.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(file("server.key")).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut running = JoinSet::new();
    running.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Who does not trust us hangs up in the middle of the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0; 4096];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            stream.write_all(&ok("secure").unwrap()).await.unwrap();
            stream.shutdown().await.ok(); // the client may be gone
        }
    });
    (address, running)
}

#[tokio::test]
async fn tls_goes_through_a_tunnel_and_shows_our_certificate_where_that_is_asked() {
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let (server, _serving) = tls_server().await;
    let (proxy, _running) = proxy().await;
    let tls = TlsSettings {
        ca: Some(text(test_tls::ca())),
        cert: Some(text(test_tls::client_certificate())),
        key: Some(Secret::new(text(test_tls::client_key()))),
        server_name: None,
    };
    let url = format!("https://localhost:{}/hooks/a", server.port());
    let through = Secret::new(format!("http://user:pw@{proxy}"));
    let with = ClientConfig { tls: Some(tls), https_proxy: Some(through), ..ClientConfig::default() };
    let special =
        ClientFor { urls: vec![format!("https://localhost:{}/hooks", server.port())], client: with };
    let calls = callbacks(&ClientConfig::default(), &[special]).unwrap();
    assert_eq!(calls.call(&request(&url)).await.unwrap().body, "secure");
    // Another URL has other settings: nobody it trusts signed that certificate.
    let other = url.replace("/hooks/a", "/other");
    assert_eq!(calls.call(&request(&other)).await.unwrap_err().code, codes::TLS_FAILED);
    let nonsense = ClientFor { urls: vec!["partner.example".into()], ..ClientFor::default() };
    assert_eq!(callbacks(&ClientConfig::default(), &[nonsense]).err().unwrap().code, codes::INVALID_VALUE);
}

#[tokio::test]
async fn each_way_not_to_be_answered_has_a_name_of_its_own() {
    let (secure, _serving) = tls_server().await;
    let broken = receiver(|_| None).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        taken.local_addr().unwrap()
    };
    let label = "a".repeat(64); // longer than a label of a name can be: no name server is asked
    for (url, name) in [
        (format!("http://{refused}/"), FailureName::ConnectionRefused),
        (format!("https://{refused}/"), FailureName::ConnectionRefused),
        (format!("http://{}/", broken.address), FailureName::Disconnected),
        (format!("http://{}/", silent.local_addr().unwrap()), FailureName::Timeout),
        (format!("https://localhost:{}/", secure.port()), FailureName::TlsFailed),
        (format!("http://{label}.invalid/"), FailureName::NameNotResolved),
    ] {
        let mut asked = request(&url);
        if name == FailureName::Timeout {
            asked.options.timeout = Some(Duration::from_millis(200));
        }
        let failure = plain().call(&asked).await.unwrap_err();
        assert_eq!(failure.name(), name, "{url}: {failure}");
        assert_ne!(failure.kind, FailureKind::Unavailable, "nobody answered: {failure}");
    }
}
