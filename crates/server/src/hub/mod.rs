//! The hub over HTTP: RabbitHub's routes, the WebSub hub, and the API of today.
//!
//! A request comes in as it was sent (the path is not decoded) and always gets an answer: what is decided here is who asks, what is
//! asked, and how the answer reads. What is done is done by the engine's [`Hub`] and the ports beneath it.
//!
//! | routes | module |
//! |---|---|
//! | `/[{vhost}/]{facet}/{q\|x}/{name}`, `/subscriptions…` | `routes`, `endpoint`, `subscribe`, `subscriptions` |
//! | `/hub`, `/topics/…` | `websub` |
//! | `/api/v1/…` | `api` |

pub(crate) mod answer;
mod api;
mod body;
mod endpoint;
mod idempotency;
mod login;
mod publishing;
mod routes;
mod subscribe;
mod subscriptions;
mod tokens;
mod verifying;
mod websub;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::http::request::Parts;
use axum::response::Response;
use futures_util::FutureExt as _;
use tokio::sync::OnceCell;
use warren_engine::hub::Hub;
use warren_engine::hub::params::{Form, Separators};
use warren_engine::hub::path::Target;
use warren_engine::hub::ports::Users;
use warren_engine::hub::token::TokenKey;

use self::idempotency::Idempotency;
use self::publishing::Known;
use self::verifying::Verifying;

/// The largest body of a request that subscribes, in bytes: it is read before anybody has logged in.
const SUBSCRIBE_BYTES_MAX: usize = 64 << 10;
/// The largest batch, unless a larger body is allowed for everything, in bytes.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// What all requests share.
struct Web {
    hub: Arc<Hub>,
    users: Arc<dyn Users>,
    /// `http` or `https`: how the listener is reached.
    scheme: &'static str,
    known: Known,
    idempotency: Idempotency,
    tokens: OnceCell<TokenKey>,
    verifying: Verifying,
    strangers: Verifying,
}

/// How the listener is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

/// The routes of a hub.
pub fn router(hub: Arc<Hub>, users: Arc<dyn Users>, scheme: Scheme) -> Router {
    let web = Web {
        hub,
        users,
        scheme: match scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        },
        known: Known::default(),
        idempotency: Idempotency::default(),
        tokens: OnceCell::new(),
        verifying: Verifying::of_users(),
        strangers: Verifying::of_strangers(),
    };
    Router::new().fallback(any).with_state(Arc::new(web))
}

/// Answers, whatever comes: a panic is a 500, and the connection lives.
async fn any(State(web): State<Arc<Web>>, request: Request) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let answered = AssertUnwindSafe(dispatch(&web, request)).catch_unwind().await;
    answer::guarded(answered.unwrap_or_else(|_| {
        tracing::error!(%method, path, "a request made its handler panic");
        answer::problem(StatusCode::INTERNAL_SERVER_ERROR, "internal error; see the server log")
    }))
}

async fn dispatch(web: &Web, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if path == "/hub" {
        return websub::hub(web, &parts, body).await;
    }
    if path == "/api/v1" || path.starts_with("/api/v1/") {
        return api::answer(web, &parts, body).await;
    }
    // A virtual host may be called `topics`.
    let target = Target::parse(path);
    match path.strip_prefix("/topics/") {
        Some(topic) if target.is_err() => websub::topic(web, &parts, topic).await,
        _ => routes::answer(web, &parts, body, target).await,
    }
}

impl Web {
    fn compat(&self) -> bool {
        self.hub.settings().compat
    }

    /// Where this hub is reached, without a `/` at the end.
    fn base(&self, parts: &Parts) -> String {
        let settings = self.hub.settings();
        if let Some(base) = &settings.public_url {
            return base.trim_end_matches('/').to_owned();
        }
        let scheme = settings.canonical_scheme.as_deref().unwrap_or(self.scheme);
        let host = answer::header(&parts.headers, HOST)
            .or_else(|| parts.uri.authority().map(axum::http::uri::Authority::as_str));
        let host = host.or(settings.canonical_host.as_deref()).unwrap_or("localhost");
        format!("{scheme}://{host}")
    }

    fn now_ms(&self) -> i64 {
        self.hub.ports().clock.now_ms()
    }

    fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.hub.ports().random)(&mut bytes);
        bytes
    }
}

/// The query of a request, as RabbitHub's server read it.
fn query(parts: &Parts) -> Form {
    Form::read(parts.uri.query().unwrap_or_default().as_bytes(), Separators::AmpersandOrSemicolon)
}
