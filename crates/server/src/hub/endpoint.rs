//! `/[{vhost}/]endpoint/{q|x}/{name}`: make, delete, publish to, describe, and tokens.

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use warren_engine::failure::FailureKind;
use warren_engine::hub::describe;
use warren_engine::hub::params::{Fault, Form};
use warren_engine::hub::path::{self, Facet};
use warren_engine::hub::ports::{Made, Nature, Right};
use warren_engine::hub::publish::{self, MESSAGE_HEADERS, Said};
use warren_engine::hub::request::Mode;
use warren_engine::hub::resource::{Resource, ResourceKind};
use warren_engine::hub::settings::LOG_TARGET;
use warren_engine::hub::token::{Claim, DATA_BYTES_MAX};

use super::idempotency::{KEY_BYTES_MAX, Kept, Seen};
use super::login::{self, Denied};
use super::publishing::{Published, publish};
use super::{Web, answer, body, query, routes, tokens};

/// Headers whose values no log shows.
const SECRET_HEADERS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "x-api-key"];
/// How much of a body stands in a log line, in bytes.
const LOGGED_BYTES_MAX: usize = 4096;

pub(super) async fn answer(
    web: &Web,
    parts: &Parts,
    body: Body,
    resource: &Resource,
    vhost_named: bool,
) -> Response {
    let query = query(parts);
    let mode = query.first("hub.mode");
    let answered = match (&parts.method, mode) {
        (&Method::GET, None) => describe(web, parts, Facet::Endpoint, resource).await,
        (&Method::GET, Some("generate_token")) => generate(web, parts, &query, resource).await,
        (&Method::GET, Some("subscribe")) => check(web, &query, Mode::Subscribe, resource).await,
        (&Method::GET, Some("unsubscribe")) => check(web, &query, Mode::Unsubscribe, resource).await,
        (&Method::PUT, None) => create(web, parts, &query, resource, vhost_named).await,
        (&Method::DELETE, None) => delete(web, parts, resource).await,
        (&Method::POST, None) => post(web, parts, body, &query, resource).await,
        (&Method::GET | &Method::PUT | &Method::DELETE | &Method::POST, Some(_)) => {
            Ok(routes::fault(&Fault::InvalidOperation))
        }
        _ => Ok(routes::wrong_method(web, "GET, PUT, DELETE, POST")),
    };
    answered.unwrap_or_else(|denied| denied.text(web.compat()))
}

/// Why this name may not be made; `None`: it may be tried.
pub(super) fn reserved(resource: &Resource) -> Option<&'static str> {
    match resource.kind {
        ResourceKind::Queue if resource.name.starts_with("amq.") => Some("Invalid queue name"),
        ResourceKind::Exchange if resource.name.starts_with("amq.") => Some("Invalid exchange name"),
        ResourceKind::Exchange if resource.name.is_empty() => Some("Invalid exchange name"),
        ResourceKind::Queue | ResourceKind::Exchange => None,
    }
}

/// Whether a broker may know an exchange type of that name: its own, or a plugin's.
pub(super) fn is_exchange_type(kind: &str) -> bool {
    matches!(kind, "direct" | "fanout" | "topic" | "headers") || (kind.starts_with("x-") && kind.len() <= 255)
}

/// A queue name for one who names none. RabbitHub's began with `amq.gen.`, which brokers keep for themselves.
pub(super) fn generated(web: &Web) -> String {
    format!("http.gen-{}", URL_SAFE_NO_PAD.encode(web.random::<16>()))
}

async fn create(
    web: &Web,
    parts: &Parts,
    query: &Form,
    resource: &Resource,
    vhost_named: bool,
) -> Result<Response, Denied> {
    if let Some(text) = reserved(resource) {
        return Ok(answer::text(StatusCode::BAD_REQUEST, text));
    }
    let mut resource = resource.clone();
    if resource.kind == ResourceKind::Queue && resource.name.is_empty() {
        resource.name = generated(web);
    }
    let user = login::login(web, parts).await?;
    login::may(&web.users, &user, Right::Configure, &resource).await?;
    let estate = web.hub.estate();
    let made = match resource.kind {
        ResourceKind::Queue => estate
            .create_queue(&resource.vhost, &resource.name)
            .await
            .map(|new| if new { Made::New } else { Made::Same }),
        ResourceKind::Exchange => {
            let kind = query.first("amqp.exchange_type").unwrap_or("fanout");
            if !is_exchange_type(kind) {
                return Ok(answer::text(StatusCode::BAD_REQUEST, "Invalid exchange type"));
            }
            estate.create_exchange(&resource.vhost, &resource.name, kind).await
        }
    };
    Ok(match made {
        Ok(Made::New) => {
            let path = path::of(Facet::Endpoint, &resource, vhost_named);
            let location = format!("{}{path}", web.base(parts));
            answer::with(answer::empty(StatusCode::CREATED), LOCATION, &location)
        }
        Ok(Made::Same) => answer::empty(StatusCode::NO_CONTENT),
        // RabbitHub did not look at the type.
        Ok(Made::Other(_)) if web.compat() => answer::empty(StatusCode::NO_CONTENT),
        Ok(Made::Other(kind)) => {
            let kind = kind.map_or(String::new(), |kind| format!(": {kind}"));
            answer::text(StatusCode::CONFLICT, format!("The exchange is there, of another type{kind}"))
        }
        Ok(Made::UnknownType) => answer::text(StatusCode::BAD_REQUEST, "Invalid exchange type"),
        Err(failure) => answer::text_of(&failure),
    })
}

async fn delete(web: &Web, parts: &Parts, resource: &Resource) -> Result<Response, Denied> {
    if *resource == Resource::exchange(&resource.vhost, "") {
        login::login(web, parts).await?;
        let text = "Deleting the default exchange is not permitted";
        return Ok(answer::text(StatusCode::FORBIDDEN, text));
    }
    login::allowed(web, parts, Right::Configure, resource).await?;
    if resource.kind == ResourceKind::Exchange {
        web.known.forget(&resource.vhost, &resource.name);
    }
    Ok(match web.hub.estate().delete(resource).await {
        Ok(true) => answer::empty(StatusCode::NO_CONTENT),
        Ok(false) => routes::not_found(),
        Err(failure) if failure.kind == FailureKind::NotFound => routes::not_found(),
        Err(failure) => answer::text_of(&failure),
    })
}

/// What the resource is, or the answer that it is not there.
async fn found(web: &Web, resource: &Resource) -> Result<Nature, Response> {
    match web.hub.estate().look(resource).await {
        Ok(Some(nature)) => Ok(nature),
        Ok(None) => Err(routes::not_found()),
        Err(failure) if failure.kind == FailureKind::NotFound => Err(routes::not_found()),
        Err(failure) => Err(answer::text_of(&failure)),
    }
}

/// RabbitHub described everything to anybody; here one has to know the resource to be told of it.
pub(super) async fn describe(
    web: &Web,
    parts: &Parts,
    facet: Facet,
    resource: &Resource,
) -> Result<Response, Denied> {
    login::knows(web, parts, resource).await?;
    let nature = match found(web, resource).await {
        Ok(nature) => nature,
        Err(answer) => return Ok(answer),
    };
    let xml = describe::xml(facet, resource, &nature);
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("text/xml"))], xml).into_response())
}

async fn generate(web: &Web, parts: &Parts, query: &Form, resource: &Resource) -> Result<Response, Denied> {
    login::allowed(web, parts, Right::Write, resource).await?;
    let mode = match query.first("hub.intended_use") {
        Some("subscribe") => Mode::Subscribe,
        Some("unsubscribe") => Mode::Unsubscribe,
        _ => {
            let text = "Missing or bad hub.intended_use parameter";
            return Ok(answer::text(StatusCode::BAD_REQUEST, text));
        }
    };
    let data = query.first("rabbithub.data").map(str::to_owned);
    if data.as_ref().is_some_and(|data| data.len() > DATA_BYTES_MAX) {
        let text = format!("rabbithub.data is longer than {DATA_BYTES_MAX} bytes");
        return Ok(answer::text(StatusCode::BAD_REQUEST, text));
    }
    if let Err(answer) = found(web, resource).await {
        return Ok(answer);
    }
    let claim = Claim::new(mode, resource.clone(), web.now_ms(), data);
    Ok(match tokens::key(web).await {
        Ok(key) => {
            let body = format!("hub.verify_token={}", key.token(&claim, web.random()));
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            ([(CONTENT_TYPE, kind)], body).into_response()
        }
        Err(failure) => answer::text_of(&failure),
    })
}

/// Answers the verification of another hub, where it has a token of ours.
async fn check(web: &Web, query: &Form, mode: Mode, resource: &Resource) -> Result<Response, Denied> {
    let key = match tokens::key(web).await {
        Ok(key) => key,
        Err(failure) => return Ok(answer::text_of(&failure)),
    };
    let age_ms_max = i64::try_from(web.hub.settings().signed_term_max_age.as_millis()).unwrap_or(i64::MAX);
    let token = query.first("hub.verify_token").unwrap_or_default();
    Ok(match key.read(token, web.now_ms(), age_ms_max) {
        None => answer::text(StatusCode::BAD_REQUEST, "Bad hub.verify_token"),
        Some(claim) if claim.resource == *resource && claim.mode() == mode => {
            answer::text(StatusCode::OK, query.first("hub.challenge").unwrap_or_default())
        }
        Some(_) => answer::text(
            StatusCode::BAD_REQUEST,
            "Intended use or resource does not match actual use or resource.",
        ),
    })
}

async fn post(
    web: &Web,
    parts: &Parts,
    body: Body,
    query: &Form,
    resource: &Resource,
) -> Result<Response, Denied> {
    let topic = query.first("hub.topic");
    let user = login::login(web, parts).await?;
    let (right, key) = (Right::Write, topic.unwrap_or_default());
    login::may_with_key(&web.users, &user, right, resource, key).await?;
    let body = match body::read(body, web.hub.settings().body_bytes_max).await {
        Ok(body) => body,
        Err(fault) => return Ok(answer::text(fault.status(), fault.to_string())),
    };
    let Some(key) = parts.headers.get("idempotency-key") else {
        return Ok(deliver(web, parts, body, query, resource).await);
    };
    let Some(key) = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= KEY_BYTES_MAX) else {
        return Ok(answer::text(StatusCode::BAD_REQUEST, "Bad Idempotency-Key"));
    };
    Ok(match web.idempotency.begin(&user.name, key, print(parts, &body)) {
        Seen::Done(kept) => (kept.status, kept.headers, kept.body).into_response(),
        Seen::UnderWay => {
            answer::text(StatusCode::CONFLICT, "A request with this Idempotency-Key is under way")
        }
        Seen::Other => answer::text(
            StatusCode::UNPROCESSABLE_ENTITY,
            "This Idempotency-Key was used for another request",
        ),
        Seen::New(ticket) => {
            let answered = deliver(web, parts, body, query, resource).await;
            if answered.status() == StatusCode::ACCEPTED {
                let (status, headers) = (answered.status(), answered.headers().clone());
                ticket.keep(Kept { status, headers, body: Bytes::new() });
            }
            answered
        }
    })
}

/// Of all that makes a publish what it is.
pub(super) fn print(parts: &Parts, body: &[u8]) -> u128 {
    let mut text = Vec::with_capacity(body.len() + 256);
    let header = |name: &str| parts.headers.get(name).map_or(&[][..], |value| value.as_bytes());
    for part in [
        parts.method.as_str().as_bytes(),
        parts.uri.path().as_bytes(),
        parts.uri.query().unwrap_or_default().as_bytes(),
        header("content-type"),
        header("content-encoding"),
        header(MESSAGE_HEADERS),
        body,
    ] {
        text.extend_from_slice(&(part.len() as u64).to_le_bytes());
        text.extend_from_slice(part);
    }
    xxhash_rust::xxh3::xxh3_128(&text)
}

async fn deliver(web: &Web, parts: &Parts, body: Bytes, query: &Form, resource: &Resource) -> Response {
    let (settings, headers) = (web.hub.settings(), &parts.headers);
    let message_id = settings.set_message_id.as_ref().map(|_| publish::message_id(web.random()));
    let correlation_id =
        settings.set_correlation_id.as_deref().and_then(|name| answer::header(headers, name));
    let said = Said {
        topic: query.first("hub.topic"),
        persist: query.first("hub.persistmsg"),
        content_type: answer::header(headers, CONTENT_TYPE),
        content_encoding: answer::header(headers, CONTENT_ENCODING),
        message_headers: answer::header(headers, MESSAGE_HEADERS),
        message_id: message_id.as_deref(),
        correlation_id,
    };
    let logged = settings.log_message_body.then(|| body.clone());
    let outbound = match publish::outbound(resource, &said, body, web.compat()) {
        Ok(outbound) => outbound,
        Err(unfit) => return answer::text(StatusCode::BAD_REQUEST, unfit.0),
    };
    let published = publish(web, &resource.vhost, outbound).await;
    if settings.log_published_messages {
        log(web, headers, resource, &said, logged.as_deref(), &published);
    }
    let accepted = || {
        let mut answered = answer::empty(StatusCode::ACCEPTED);
        for (name, value) in [
            (&settings.set_message_id, &said.message_id),
            (&settings.set_correlation_id, &said.correlation_id),
        ] {
            if let (Some(name), Some(value)) = (name, value)
                && let Ok(name) = name.parse::<HeaderName>()
            {
                answered = answer::with(answered, name, value);
            }
        }
        answered
    };
    match published {
        Published::Accepted => accepted(),
        Published::Unroutable if web.compat() => {
            answer::with(accepted(), HeaderName::from_static("warren-unroutable"), "true")
        }
        Published::Unroutable => answer::text(
            StatusCode::UNPROCESSABLE_ENTITY,
            "No queue takes a message with this topic from the exchange",
        ),
        Published::NotThere => match resource.kind {
            ResourceKind::Exchange if said.message_headers.is_none() || !web.compat() => {
                answer::text(StatusCode::NOT_FOUND, "exchange not found")
            }
            ResourceKind::Queue | ResourceKind::Exchange => routes::not_found(),
        },
        Published::Unfit(failure) | Published::Failed(failure) => answer::text_of(&failure),
    }
}

fn log(
    web: &Web,
    headers: &HeaderMap,
    resource: &Resource,
    said: &Said<'_>,
    body: Option<&[u8]>,
    published: &Published,
) {
    let shown = web.hub.settings().log_http_headers.iter().filter_map(|name| {
        let value = headers.get(name.as_str())?;
        let secret = SECRET_HEADERS.iter().any(|other| name.eq_ignore_ascii_case(other));
        Some(format!("{name}: {}", if secret { "***" } else { value.to_str().unwrap_or("(no text)") }))
    });
    let shown: Vec<String> = shown.collect();
    let body =
        body.map(|body| String::from_utf8_lossy(&body[..body.len().min(LOGGED_BYTES_MAX)]).into_owned());
    tracing::info!(
        target: LOG_TARGET, %resource, topic = said.topic, message_id = said.message_id, correlation_id = said.correlation_id,
        headers = ?shown, body, accepted = matches!(published, Published::Accepted), "published by HTTP"
    );
}
