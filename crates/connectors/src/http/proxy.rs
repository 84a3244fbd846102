//! Proxies: which requests go through one, and how a tunnel through one is opened.

use std::io;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use url::Url;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use super::config::ClientConfig;
use crate::kit::address::no_controls;
use crate::kit::guard::Allowed;
use crate::kit::setting::Secret;

/// The longest answer to `CONNECT`.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Where a proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    /// The value of `Proxy-Authorization`.
    pub(super) authorization: Option<Secret>,
}

/// Which requests go through which proxy.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    /// Names and networks without one.
    direct: Allowed,
    /// Domains all below which have none, each with its dot in front.
    direct_below: Vec<String>,
}

impl Proxies {
    pub(super) fn new(config: &ClientConfig) -> Result<Proxies, Failure> {
        let mut below = Vec::new();
        let mut named = Vec::new();
        for entry in &config.no_proxy {
            let entry = entry.trim().to_ascii_lowercase();
            match entry.strip_prefix('*').unwrap_or(&entry) {
                domain if domain.starts_with('.') => below.push(domain.to_owned()),
                _ => named.push(entry),
            }
        }
        Ok(Proxies {
            http: config.proxy.as_ref().map(|url| read("proxy", url)).transpose()?,
            https: config.https_proxy.as_ref().map(|url| read("https_proxy", url)).transpose()?,
            direct: Allowed::new(&named),
            direct_below: below,
        })
    }

    /// All of them, each with its key.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, &Proxy)> {
        let both = [("proxy", self.http.as_ref()), ("https_proxy", self.https.as_ref())];
        both.into_iter().filter_map(|(key, proxy)| Some((key, proxy?)))
    }

    /// The proxy for a host, without brackets.
    pub(super) fn of(&self, https: bool, host: &str) -> Option<&Proxy> {
        let proxy = if https { self.https.as_ref() } else { self.http.as_ref() }?;
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let named = self.direct.host(&host)
            || self.direct_below.iter().any(|domain| host.ends_with(domain))
            || host.parse::<IpAddr>().is_ok_and(|address| self.direct.names(address));
        (!named).then_some(proxy)
    }
}

fn read(key: &str, url: &Secret) -> Result<Proxy, Failure> {
    // The text may hold a password: only what is wrong with it is told.
    let wrong = |detail: &str| {
        Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, format!("read `{key}`"))
            .detail(detail)
            .remedy("write it as http://proxy:3128 or http://user:password@proxy:3128")
    };
    no_controls(&format!("`{key}`"), url.reveal())
        .map_err(|unusable| wrong(&unusable.detail).remedy(unusable.remedy))?;
    let url = Url::parse(url.reveal()).map_err(|error| wrong(&error.to_string()))?;
    let host = url.host_str().filter(|_| url.scheme() == "http").ok_or_else(|| wrong("it is no http URL"))?;
    if !matches!(url.path(), "" | "/") || url.query().is_some() {
        return Err(wrong("a proxy has no path"));
    }
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let login = format!("{}:{}", decode(url.username()), decode(url.password().unwrap_or_default()));
    Ok(Proxy {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: url.port().unwrap_or(80),
        authorization: (login != ":").then(|| Secret::new(format!("Basic {}", STANDARD.encode(login)))),
    })
}

impl Proxy {
    /// Opens a tunnel over a connection to the proxy.
    pub(super) async fn tunnel(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        host: &str,
        port: u16,
    ) -> io::Result<()> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str("Proxy-Authorization: ");
            request.push_str(authorization.reveal());
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        // Byte by byte: what comes behind the answer is not ours to read.
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() >= ANSWER_BYTES_MAX {
                return Err(io::Error::other("the proxy's answer has no end"));
            }
            answer.push(stream.read_u8().await?);
        }
        let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        match line.split(' ').nth(1) {
            Some(status) if status.len() == 3 && status.starts_with('2') && line.starts_with("HTTP/1.") => {
                Ok(())
            }
            _ => {
                let said: String = line.chars().take(100).collect();
                Err(io::Error::other(format!("the proxy opens no tunnel: {said}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_no_proxy_has_none() {
        let config = ClientConfig {
            proxy: Some(Secret::new("http://us%40er:p%3Aw@proxy:3128")),
            no_proxy: ["localhost", ".corp.example", "*.lan", "10.0.0.0/8", "Host.Example"]
                .map(str::to_owned)
                .to_vec(),
            ..ClientConfig::default()
        };
        let proxies = Proxies::new(&config).unwrap();
        for (host, through) in [
            ("localhost", false),
            ("a.corp.example", false),
            ("a.corp.example.", false),
            ("corp.example", true),
            ("evilcorp.example", true),
            ("x.lan", false),
            ("10.1.2.3", false),
            ("11.1.2.3", true),
            ("8.8.8.8", true),
            ("HOST.example", false),
            ("sub.host.example", true),
        ] {
            assert_eq!(proxies.of(false, host).is_some(), through, "{host}");
            assert_eq!(proxies.of(true, host), None);
        }
        let proxy = proxies.of(false, "x").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy", 3128));
        let login = STANDARD.encode("us@er:p:w");
        assert_eq!(proxy.authorization.as_ref().unwrap().reveal(), format!("Basic {login}"));
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_told_without_its_password() {
        for url in
            ["proxy:3128", "https://u:swordfish@p:1", "socks5://u:swordfish@p", "http://u:swordfish@p/x", ""]
        {
            let config = ClientConfig { proxy: Some(Secret::new(url)), ..ClientConfig::default() };
            let failure = Proxies::new(&config).unwrap_err();
            assert!(!format!("{failure:?}").contains("swordfish"), "{failure:?}");
        }
        let url = Some(Secret::new("http://u:swordfish@proxy:3128\n"));
        let failure = Proxies::new(&ClientConfig { proxy: url, ..ClientConfig::default() }).unwrap_err();
        assert!(failure.to_string().contains("`proxy` ends in a line break"), "{failure}");
    }
}
