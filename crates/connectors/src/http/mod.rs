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
//! | connections, kept and used again | `pool` |
//! | from a URL to a connection | `target`, `connect`, `proxy` |
//! | looking before doing | `check` |
//! | what happened on a connection | `line` |
//! | compressed answers | `coding` |
//! | what went wrong | `fault` |

pub mod config;

mod check;
mod coding;
mod connect;
mod fault;
mod line;
mod pool;
mod proxy;
mod target;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{Method, Request, Response};
use rustls::ClientConfig as TlsConfig;
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::pipeline::outside::{AddressGuard, HttpAnswer, HttpRequest};
use warren_engine::ports::HttpCaller;

pub use self::check::check_proxies;
use self::coding::Excess;
use self::config::{ClientConfig, ClientFor};
use self::connect::{Connector, Place};
use self::pool::{Open, Pool};
use self::proxy::Proxies;
use self::target::{Target, Targets};
use crate::kit::guard::Allowed;
use crate::kit::tls::{TlsSettings, Watched, watched_client_config};

/// A server that does not take a connection in this time is not there; the step's own timeout bounds the whole.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for callbacks.
const CALLBACK_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than servers and middleboxes keep an idle connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections to one host.
const IDLE_MAX: usize = 256;
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
            if let Some(why) = Allowed::prefix_fault(url) {
                let what = format!("read the URL `{url}`");
                return Err(Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, what)
                    .detail(format!("it {why}"))
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
        if self.choices.is_empty() {
            return self.otherwise.call(request).await;
        }
        let url = Url::parse(&request.url).ok();
        let fits = |urls: &Allowed| url.as_ref().is_some_and(|url| urls.url(url));
        let chosen = self.choices.iter().find(|(urls, _)| fits(urls)).map(|(_, caller)| caller);
        chosen.unwrap_or(&self.otherwise).call(request).await
    }
}

/// Clients of one kind.
#[derive(Clone)]
struct Clients {
    /// What its guard allows; anything where there is none.
    allowed: Option<Arc<Allowed>>,
    connections: Arc<Pool>,
}

/// What tells one kind of clients from another: a connection is used again only under the same guard.
#[derive(PartialEq, Eq, Hash)]
struct Kind {
    allow: Option<Vec<String>>,
    connect_timeout: Duration,
}

struct Caller {
    tls: Arc<Watched<Arc<TlsConfig>>>,
    server_name: Option<String>,
    proxies: Arc<Proxies>,
    connect_timeout: Duration,
    idle_max: usize,
    idle_timeout: Duration,
    clients: Mutex<HashMap<Kind, Clients>>,
    targets: Targets,
}

#[async_trait]
impl HttpCaller for Caller {
    async fn call(&self, request: &HttpRequest) -> Result<HttpAnswer, Failure> {
        let call = Call { request, target: self.targets.get(request)? };
        let connections = self.connections(&call)?;
        let timeout = request.options.timeout.unwrap_or(TIMEOUT);
        let deadline = Instant::now() + timeout;
        let (open, response) = match timeout_at(deadline, self.send(&connections, &call)).await {
            Ok(sent) => sent?,
            Err(_) => return Err(fault::late(&call.what(), timeout)),
        };
        answer(open, response, &connections, &call, deadline).await
    }
}

/// A request on its way.
struct Call<'c> {
    request: &'c HttpRequest,
    target: Arc<Target>,
}

impl Call<'_> {
    /// It in a few words, for failures.
    fn what(&self) -> String {
        target::what(self.request)
    }
}

impl Caller {
    fn new(config: &ClientConfig, connect_timeout: Duration) -> Result<Caller, Failure> {
        let tls = config.tls.clone().unwrap_or_default();
        Ok(Caller {
            tls: Arc::new(watched_client_config(&tls)?),
            server_name: tls.server_name,
            proxies: Arc::new(Proxies::new(config)?),
            connect_timeout: config.connect_timeout.map_or(connect_timeout, |span| span.0),
            idle_max: config.max_sessions.unwrap_or(IDLE_MAX),
            idle_timeout: config.keep_alive_timeout.map_or(IDLE_TIMEOUT, |span| span.0),
            clients: Mutex::default(),
            targets: Targets::default(),
        })
    }

    /// The connections for a request, if the URL's host may be called as far as its name tells.
    fn connections(&self, call: &Call<'_>) -> Result<Arc<Pool>, Failure> {
        let (request, url) = (call.request, &call.target.url);
        let allow = request.guard.as_ref().map(|AddressGuard { allow }| allow);
        let clients = self.clients_of(allow, request.options.connect_timeout);
        let Some(allowed) = &clients.allowed else { return Ok(clients.connections) };
        if allowed.url(url) {
            // All of it is allowed, wherever its name leads.
            return Ok(self.clients_of(None, request.options.connect_timeout).connections);
        }
        // A name is looked up, and its addresses checked, when it is connected to; an address is not looked up.
        let address = match url.host() {
            Some(Host::Domain(_)) => return Ok(clients.connections),
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            None => return Err(fault::url(&call.what(), "it has no host")),
        };
        if allowed.address(address) {
            Ok(clients.connections)
        } else {
            Err(fault::address(&call.what(), &address.to_string()))
        }
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
        let connections = Pool::new(connector, self.idle_max, self.idle_timeout);
        let clients = Clients { allowed, connections };
        known.insert(kind, clients.clone());
        clients
    }

    /// Sends a request and waits for the head of its answer.
    async fn send(
        &self,
        connections: &Arc<Pool>,
        call: &Call<'_>,
    ) -> Result<(Open, Response<Incoming>), Failure> {
        let place = &call.target.place;
        let connect =
            async || connections.connect(place).await.map_err(|error| fault::connecting(error, &call.what()));
        let mut again = call.request.options.again_if_stale;
        let mut kept = connections.take(place);
        loop {
            let fresh = kept.is_none();
            let mut open = match kept.take() {
                Some(open) => open,
                None => connect().await?,
            };
            let mut refused = match open.send(self.made(call, &open)?).await {
                Ok(response) => {
                    open.past.answered();
                    return Ok((open, response));
                }
                Err(refused) => refused,
            };
            if refused.take_message().is_some() && !fresh {
                // Nothing of it was sent: the server had closed the connection. Another is tried, at last a new one.
                kept = connections.take(place);
            } else if again && open.past.is_stale() {
                again = false; // and on a connection of its own
            } else {
                return Err(fault::unanswered(refused.into_error(), &call.what()));
            }
        }
    }

    fn made(&self, call: &Call<'_>, open: &Open) -> Result<Request<Full<Bytes>>, Failure> {
        let mut made = made(call, open.proxied)?;
        // A tunnel was opened with it; without one, the proxy reads the request itself.
        let Place { https, host, .. } = &call.target.place;
        if !https
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

fn made(call: &Call<'_>, proxied: bool) -> Result<Request<Full<Bytes>>, Failure> {
    let (request, target) = (call.request, &call.target);
    let wrong =
        |detail: String| Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, call.what()).detail(detail);
    let method = Method::from_bytes(request.method.as_bytes())
        .map_err(|_| wrong(format!("`{}` is no method", request.method)))?;
    let mut made = Request::new(Full::new(request.body.clone()));
    *made.method_mut() = method;
    // A proxy must be told where it leads.
    *made.uri_mut() = if proxied { target.whole.clone() } else { target.path.clone() };
    let headers = made.headers_mut();
    headers.insert(HOST, target.host.clone());
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
    mut open: Open,
    response: Response<Incoming>,
    connections: &Arc<Pool>,
    call: &Call<'_>,
    deadline: Instant,
) -> Result<HttpAnswer, Failure> {
    let request = call.request;
    let bytes_max = request.answer_bytes_max;
    let cut = request.options.cut_answer;
    let (mut head, mut stream) = response.into_parts();
    let excess = if head.status.is_success() && !cut { Excess::Refuse } else { Excess::Cut };
    let mut body = BytesMut::new();
    loop {
        let frame = match timeout_at(deadline, open.frame(&mut stream)).await {
            Ok(None) => {
                connections.give_back(&call.target.place, open);
                break;
            }
            Ok(Some(Ok(frame))) => frame,
            // The status is what counts; of the body, what came.
            Ok(Some(Err(_))) | Err(_) if cut => break,
            Ok(Some(Err(error))) => return Err(fault::broken(error, &call.what())),
            Err(_) => return Err(fault::late(&call.what(), request.options.timeout.unwrap_or(TIMEOUT))),
        };
        let Ok(data) = frame.into_data() else { continue };
        if body.len() + data.len() > bytes_max {
            if excess == Excess::Refuse {
                return Err(fault::too_large(
                    &call.what(),
                    format!("the answer has more than {bytes_max} bytes"),
                ));
            }
            let room = bytes_max - body.len();
            body.extend_from_slice(&data[..room]);
            break;
        }
        body.extend_from_slice(&data);
    }
    let body = coding::decode(&mut head.headers, body.freeze(), bytes_max, excess)
        .await
        .map_err(|error| fault::undecodable(error, &call.what()))?;
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Ok(HttpAnswer {
        status: head.status.as_u16(),
        headers: head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
        body,
    })
}
