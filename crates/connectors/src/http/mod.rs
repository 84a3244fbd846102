//! Calls to HTTP servers, for `http` steps and the callbacks of a hub.
//!
//! HTTP/1.1 over hyper, TLS by rustls with ring. Connections are kept and used again; one that was closed meanwhile, before a byte of the
//! request was written, is replaced without a word, and one that ends before a byte of the answer came if the request asks for it.
//! Redirects are not followed. A guarded request resolves its host, is refused unless every address it would connect to is
//! allowed, and connects to these addresses and no others.
//!
//! | idea | module |
//! |---|---|
//! | settings | [`config`] |
//! | from a URL to a connection | `connect`, `proxy` |
//! | what happened on a connection | `line` |
//! | what went wrong | `fault` |

pub mod config;

mod connect;
mod fault;
mod line;
mod proxy;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::http::Extensions;
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig as TlsConfig;
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::pipeline::outside::{AddressGuard, HttpAnswer, HttpRequest};
use warren_engine::ports::HttpCaller;

use self::config::{ClientConfig, ClientFor};
use self::connect::Connector;
use self::line::Past;
use self::proxy::Proxies;
use crate::kit::guard::Allowed;
use crate::kit::tls::{TlsSettings, client_config};

/// A server that does not take a connection in this time is not there; the step's own timeout bounds the whole.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for callbacks.
const CALLBACK_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than servers and middleboxes keep an idle connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections to one host.
const IDLE_MAX: usize = 64;
/// Guards of different steps; more are not kept apart from being made anew.
const GUARDS_MAX: usize = 64;
/// A request without a limit of its own ends some day all the same.
const TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes a caller for steps. Nothing is connected yet.
///
/// # Errors
/// A certificate cannot be read.
pub fn caller(tls: &TlsSettings) -> Result<Arc<dyn HttpCaller>, Failure> {
    let config = ClientConfig { tls: Some(tls.clone()), ..ClientConfig::default() };
    Ok(Arc::new(Caller::new(&config, CONNECT_TIMEOUT)?))
}

/// Makes a caller for callbacks, with other settings for some of them. Nothing is connected yet.
///
/// # Errors
/// A certificate cannot be read; a proxy or a URL is wrong.
pub fn callbacks(otherwise: &ClientConfig, special: &[ClientFor]) -> Result<Arc<dyn HttpCaller>, Failure> {
    let caller = |config: &ClientConfig| Caller::new(config, CALLBACK_CONNECT_TIMEOUT);
    let mut choices = Vec::new();
    for entry in special {
        for url in &entry.urls {
            let read =
                Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            if read.is_none() {
                return Err(Failure::new(
                    FailureKind::Invalid,
                    codes::INVALID_VALUE,
                    format!("read the URL `{url}`"),
                )
                .detail("it is not the beginning of a callback's URL")
                .remedy("write it as https://host/path"));
            }
        }
        choices.push((Allowed::new(&entry.urls), caller(&entry.client)?));
    }
    Ok(Arc::new(Callbacks { choices, otherwise: caller(otherwise)? }))
}

/// Callers by the URLs they are for.
struct Callbacks {
    choices: Vec<(Allowed, Caller)>,
    otherwise: Caller,
}

#[async_trait]
impl HttpCaller for Callbacks {
    async fn call(&self, request: &HttpRequest) -> Result<HttpAnswer, Failure> {
        let url = Url::parse(&request.url).ok();
        let fits = |urls: &Allowed| url.as_ref().is_some_and(|url| urls.url(url));
        let chosen = self.choices.iter().find(|(urls, _)| fits(urls)).map(|(_, caller)| caller);
        chosen.unwrap_or(&self.otherwise).call(request).await
    }
}

type Calls = Client<Connector, Full<Bytes>>;

/// Clients of one kind.
#[derive(Clone)]
struct Clients {
    /// What its guard allows; anything where there is none.
    allowed: Option<Arc<Allowed>>,
    /// Uses connections again.
    calls: Calls,
    /// Does not.
    fresh: Calls,
}

/// What tells one kind of clients from another: a connection is used again only under the same guard.
#[derive(PartialEq, Eq, Hash)]
struct Kind {
    allow: Option<Vec<String>>,
    connect_timeout: Duration,
}

struct Caller {
    tls: Arc<TlsConfig>,
    server_name: Option<String>,
    proxies: Arc<Proxies>,
    connect_timeout: Duration,
    idle_max: usize,
    idle_timeout: Duration,
    clients: Mutex<HashMap<Kind, Clients>>,
}

#[async_trait]
impl HttpCaller for Caller {
    async fn call(&self, request: &HttpRequest) -> Result<HttpAnswer, Failure> {
        let what = format!("{} {}", request.method, fault::shown(&request.url));
        let url = Url::parse(&request.url).map_err(|error| fault::url(&what, &error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some()
        {
            return Err(fault::url(&what, "it must be http or https, and hold no user"));
        }
        let clients = self.clients(request, &url, &what)?;
        let timeout = request.options.timeout.unwrap_or(TIMEOUT);
        let deadline = Instant::now() + timeout;
        match timeout_at(deadline, self.send(&clients, request, &url, &what)).await {
            Ok(response) => answer(response?, request, deadline, &what).await,
            Err(_) => Err(fault::late(&what, timeout)),
        }
    }
}

impl Caller {
    fn new(config: &ClientConfig, connect_timeout: Duration) -> Result<Caller, Failure> {
        let tls = config.tls.clone().unwrap_or_default();
        Ok(Caller {
            tls: client_config(&tls)?,
            server_name: tls.server_name,
            proxies: Arc::new(Proxies::new(config)?),
            connect_timeout: config.connect_timeout.map_or(connect_timeout, |span| span.0),
            idle_max: config.max_sessions.unwrap_or(IDLE_MAX),
            idle_timeout: config.keep_alive_timeout.map_or(IDLE_TIMEOUT, |span| span.0),
            clients: Mutex::default(),
        })
    }

    /// The clients for a request, if the URL's host may be called as far as its name tells.
    fn clients(&self, request: &HttpRequest, url: &Url, what: &str) -> Result<Clients, Failure> {
        let allow = request.guard.as_ref().map(|AddressGuard { allow }| allow);
        let clients = self.clients_of(allow, request.options.connect_timeout);
        let Some(allowed) = &clients.allowed else { return Ok(clients) };
        if allowed.url(url) {
            // All of it is allowed, wherever its name leads.
            return Ok(self.clients_of(None, request.options.connect_timeout));
        }
        // A name is looked up, and its addresses checked, when it is connected to; an address is not looked up.
        let address = match url.host() {
            Some(Host::Domain(_)) => return Ok(clients),
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            None => return Err(fault::url(what, "it has no host")),
        };
        if allowed.address(address) { Ok(clients) } else { Err(fault::address(what, &address.to_string())) }
    }

    fn clients_of(&self, allow: Option<&Vec<String>>, connect_timeout: Option<Duration>) -> Clients {
        let kind =
            Kind { allow: allow.cloned(), connect_timeout: connect_timeout.unwrap_or(self.connect_timeout) };
        let mut known = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(clients) = known.get(&kind) {
            return clients.clone();
        }
        if known.len() >= GUARDS_MAX {
            known.clear();
        }
        let allowed = allow.map(|allow| Arc::new(Allowed::new(allow)));
        let connector = Connector {
            tls: self.tls.clone(),
            server_name: self.server_name.clone(),
            proxies: self.proxies.clone(),
            allowed: allowed.clone(),
            timeout: kind.connect_timeout,
        };
        let client = |idle_max: usize| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(self.idle_timeout)
                .pool_max_idle_per_host(idle_max)
                .build(connector.clone())
        };
        let clients = Clients { allowed, calls: client(self.idle_max), fresh: client(0) };
        known.insert(kind, clients.clone());
        clients
    }

    /// Sends a request and waits for the head of its answer.
    async fn send(
        &self,
        clients: &Clients,
        request: &HttpRequest,
        url: &Url,
        what: &str,
    ) -> Result<Response<Incoming>, Failure> {
        let made = || self.made(request, url, what);
        let sent = match clients.calls.request(made()?).await {
            Err(error) if request.options.again_if_stale && is_stale(&error) => {
                clients.fresh.request(made()?).await
            }
            sent => sent,
        };
        let response = sent.map_err(|error| fault::client(error, what))?;
        if let Some(past) = Past::of(response.extensions()) {
            past.answered();
        }
        Ok(response)
    }

    fn made(&self, request: &HttpRequest, url: &Url, what: &str) -> Result<Request<Full<Bytes>>, Failure> {
        let mut made = made(request, url, what)?;
        // A tunnel was opened with it; without one, the proxy reads the request itself.
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        if url.scheme() == "http"
            && let Some(proxy) = self.proxies.of(false, host)
            && let Some(authorization) = &proxy.authorization
            && let Ok(mut value) = HeaderValue::from_str(authorization.reveal())
        {
            value.set_sensitive(true);
            made.headers_mut().insert(PROXY_AUTHORIZATION, value);
        }
        Ok(made)
    }
}

/// Whether a request met a connection that the server had closed.
fn is_stale(error: &legacy::Error) -> bool {
    let mut extensions = Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut extensions);
    }
    Past::of(&extensions).is_some_and(Past::is_stale)
}

fn made(request: &HttpRequest, url: &Url, what: &str) -> Result<Request<Full<Bytes>>, Failure> {
    let wrong =
        |detail: String| Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, what).detail(detail);
    let uri: Uri = url.as_str().parse().map_err(|_| fault::url(what, "it cannot be sent"))?;
    let method = Method::from_bytes(request.method.as_bytes())
        .map_err(|_| wrong(format!("`{}` is no method", request.method)))?;
    let mut made = Request::new(Full::new(request.body.clone()));
    *made.method_mut() = method;
    *made.uri_mut() = uri;
    let headers = made.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("warren/", env!("CARGO_PKG_VERSION"))));
    if let Some(authorization) = &request.authorization {
        let mut value = HeaderValue::from_str(&authorization.0)
            .map_err(|_| wrong("the value of `Authorization` cannot be sent".to_owned()))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    for (name, value) in &request.headers {
        let value = HeaderValue::from_bytes(value.as_bytes());
        match (HeaderName::from_bytes(name.as_bytes()), value) {
            // How the body is framed is the connection's business.
            (Ok(name), Ok(_))
                if matches!(name.as_str(), "content-length" | "transfer-encoding" | "connection") => {}
            (Ok(name), Ok(value)) => drop(headers.insert(name, value)),
            _ => return Err(wrong(format!("the header `{name}` cannot be sent"))),
        }
    }
    Ok(made)
}

/// Reads an answer whole, or as much of it as the request wants. Of one that is an error as much as may be read is enough.
async fn answer(
    response: Response<Incoming>,
    request: &HttpRequest,
    deadline: Instant,
    what: &str,
) -> Result<HttpAnswer, Failure> {
    let bytes_max = request.answer_bytes_max;
    let cut = request.options.cut_answer;
    let (head, mut stream) = response.into_parts();
    let mut body = BytesMut::new();
    loop {
        let frame = match timeout_at(deadline, stream.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            // The status is what counts; of the body, what came.
            Ok(Some(Err(_))) | Err(_) if cut => break,
            Ok(Some(Err(error))) => return Err(fault::broken(error, what)),
            Err(_) => return Err(fault::late(what, request.options.timeout.unwrap_or(TIMEOUT))),
        };
        let Ok(data) = frame.into_data() else { continue };
        if body.len() + data.len() > bytes_max {
            if head.status.is_success() && !cut {
                return Err(Failure::new(FailureKind::Invalid, codes::ANSWER_TOO_LARGE, what)
                    .detail(format!("the answer has more than {bytes_max} bytes"))
                    .remedy("raise `max_answer`, or ask for less"));
            }
            let room = bytes_max - body.len();
            body.extend_from_slice(&data[..room]);
            break;
        }
        body.extend_from_slice(&data);
    }
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Ok(HttpAnswer {
        status: head.status.as_u16(),
        headers: head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
        body: body.freeze(),
    })
}
