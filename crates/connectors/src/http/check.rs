//! Whether proxies are there and let us in, before a request needs them.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use super::config::ClientConfig;
use super::proxy::{Proxies, Proxy};
use crate::kit::setting::Misfit;

/// A proxy that does not answer in this time is not there.
const ANSWER: Duration = Duration::from_secs(5);
/// The beginning of an answer: its status line.
const ANSWER_BYTES: u64 = 64;

/// What is wrong with the proxies of a client; each fault names the key of its proxy. Nothing is sent through them.
pub async fn check_proxies(config: &ClientConfig) -> Vec<Misfit> {
    let proxies = match Proxies::new(config) {
        Ok(proxies) => proxies,
        Err(failure) => return vec![Misfit::new("", failure)],
    };
    let mut found = Vec::new();
    for (key, proxy) in proxies.all() {
        let failed = |kind| {
            Failure::new(kind, codes::HTTP_FAILED, format!("use the proxy {}:{}", proxy.host, proxy.port))
                .remedy("Check host, port and login of the proxy.")
        };
        let failure = match timeout(ANSWER, status(proxy)).await {
            Ok(Ok(Some(407))) => failed(FailureKind::Refused).detail("it refuses the login (407)"),
            Ok(Ok(Some(_))) => continue,
            Ok(Ok(None)) => failed(FailureKind::Refused).detail("it does not answer as an HTTP proxy"),
            Ok(Err(error)) => failed(FailureKind::Disconnected).detail(error.to_string()),
            Err(_) => failed(FailureKind::Timeout).detail(format!("no answer within {ANSWER:?}")),
        };
        found.push(Misfit::new(key, failure));
    }
    found
}

/// The status of a proxy's answer to a question about itself; `None`: it is not HTTP. A login is checked before anything else.
async fn status(proxy: &Proxy) -> io::Result<Option<u16>> {
    let host = if proxy.host.contains(':') { format!("[{}]", proxy.host) } else { proxy.host.clone() };
    let mut stream = TcpStream::connect((proxy.host.as_str(), proxy.port)).await?;
    let mut request =
        format!("OPTIONS http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\n", port = proxy.port);
    if let Some(authorization) = &proxy.authorization {
        request.push_str("Proxy-Authorization: ");
        request.push_str(authorization.reveal());
        request.push_str("\r\n");
    }
    request.push_str("Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
    let line = String::from_utf8_lossy(&answer);
    Ok(line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.get(..3)?.parse().ok()))
}
