//! Calls to HTTP servers, for `http` steps.
//!
//! HTTP/1.1 over hyper, TLS by rustls with ring. Connections are kept and used again; one that was closed meanwhile, before a byte of the
//! request was written, is replaced without a word. Redirects are not followed. A guarded request resolves its host, is refused
//! unless every address it would connect to is allowed, and connects to these addresses and no others.

mod fault;
mod resolve;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use url::{Host, Url};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::pipeline::outside::{AddressGuard, HttpAnswer, HttpRequest};
use warren_engine::ports::HttpCaller;

use crate::kit::guard::Allowed;
use crate::kit::tls::{TlsSettings, client_config};
use resolve::Resolver;

/// A server that does not take a connection in this time is not there; the step's own timeout bounds the whole.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter than servers and middleboxes keep an idle connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections to one host.
const IDLE_MAX: usize = 64;
/// Guards of different steps; more are not kept apart from being made anew.
const GUARDS_MAX: usize = 64;

type Connector = HttpsConnector<HttpConnector<Resolver>>;
type Calls = Client<Connector, Full<Bytes>>;

/// Makes a caller. Nothing is connected yet.
///
/// # Errors
/// A certificate cannot be read.
pub fn caller(tls: &TlsSettings) -> Result<Arc<dyn HttpCaller>, Failure> {
    let tls = client_config(tls)?;
    let open = client(&tls, None);
    Ok(Arc::new(Caller { tls, open, guarded: Mutex::default() }))
}

/// A client whose connections are those that a guard allows.
type Guarded = (Arc<Allowed>, Calls);

struct Caller {
    tls: Arc<ClientConfig>,
    /// For URLs whose host the configuration chose.
    open: Calls,
    /// For the others, by what they allow: a connection is used again only under the same guard.
    guarded: Mutex<HashMap<Vec<String>, Guarded>>,
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
        let client = match &request.guard {
            None => self.open.clone(),
            Some(guard) => self.guarded(guard, &url, &what)?,
        };
        let response =
            client.request(made(request, &url, &what)?).await.map_err(|error| fault::client(error, &what))?;
        answer(response, request.answer_bytes_max, &what).await
    }
}

impl Caller {
    /// The client for a guard, if the URL's host may be called as far as its name tells.
    fn guarded(&self, guard: &AddressGuard, url: &Url, what: &str) -> Result<Calls, Failure> {
        let (allowed, client) = {
            let mut guarded = self.guarded.lock().unwrap_or_else(PoisonError::into_inner);
            if guarded.len() >= GUARDS_MAX {
                guarded.clear();
            }
            let made = || {
                let allowed = Arc::new(Allowed::new(&guard.allow));
                (allowed.clone(), client(&self.tls, Some(allowed)))
            };
            guarded.entry(guard.allow.clone()).or_insert_with(made).clone()
        };
        // A name is looked up, and its addresses checked, when it is connected to; an address is not looked up.
        let address = match url.host() {
            Some(Host::Domain(_)) => return Ok(client),
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            None => return Err(fault::url(what, "it has no host")),
        };
        if allowed.address(address) { Ok(client) } else { Err(fault::address(what, &address.to_string())) }
    }
}

fn client(tls: &Arc<ClientConfig>, allowed: Option<Arc<Allowed>>) -> Calls {
    let mut http = HttpConnector::new_with_resolver(Resolver { allowed });
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls.as_ref().clone())
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_MAX)
        .build(https)
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

/// Reads an answer whole. Of one that is an error as much as may be read is enough.
async fn answer(response: Response<Incoming>, bytes_max: usize, what: &str) -> Result<HttpAnswer, Failure> {
    let (head, mut stream) = response.into_parts();
    let mut body = BytesMut::new();
    while let Some(frame) = stream.frame().await {
        let frame = frame.map_err(|error| fault::broken(error, what))?;
        let Ok(data) = frame.into_data() else { continue };
        if body.len() + data.len() > bytes_max {
            if head.status.is_success() {
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
