//! `/[{vhost}/]subscribe/{q|x}/{name}`: subscribe, unsubscribe, remove; and the shortcut by which one of our own queues is subscribed to
//! an exchange without a callback.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::hub::callback;
use warren_engine::hub::params::{self, Fault, Fields, Form, Manner, Media, Separators, Written};
use warren_engine::hub::path::Facet;
use warren_engine::hub::ports::{HubBinding, Right, User};
use warren_engine::hub::request::{Answered, Mode, NotVerified, Refusal, SubscribeRequest, Verify};
use warren_engine::hub::resource::{Resource, ResourceKind};
use warren_engine::hub::subscription::{HaMode, Protocol};
use warren_engine::hub::token::Claim;
use warren_engine::message::Headers;

use super::login::{self, Denied};
use super::{SUBSCRIBE_BYTES_MAX, Web, answer, body, endpoint, query, routes, tokens};

/// The one node there is.
pub(super) const NODE: &str = "warren";

pub(super) async fn answer(web: &Web, parts: &Parts, body: Body, resource: &Resource) -> Response {
    let query = query(parts);
    let answered = match (&parts.method, query.first("hub.mode")) {
        (&Method::GET, None) => endpoint::describe(web, parts, Facet::Subscribe, resource).await,
        (&Method::GET, Some(_)) => Ok(routes::fault(&Fault::InvalidOperation)),
        (&Method::POST, _) => post(web, parts, body, &query, resource).await,
        (&Method::DELETE, _) => delete(web, parts, &query, resource).await,
        _ => Ok(routes::wrong_method(web, "GET, POST, DELETE")),
    };
    answered.unwrap_or_else(|denied| denied.text(web.compat()))
}

/// The parameters of a request: those of the query where it says a mode, else those of the body.
async fn fields(web: &Web, parts: &Parts, body: Body, query: &Form) -> Result<(Fields, Written), Response> {
    if query.first("hub.mode").is_some() {
        return Ok((Fields::of_form(query), Written::Form));
    }
    // Read before anybody has logged in, as a wrong mode is said to all.
    let bytes_max = SUBSCRIBE_BYTES_MAX.min(web.hub.settings().body_bytes_max);
    let body = body::read(body, bytes_max);
    let body = body.await.map_err(|fault| answer::text(fault.status(), fault.to_string()))?;
    match Media::of(answer::header(&parts.headers, CONTENT_TYPE)) {
        Media::Form => {
            let form = Form::read(&body, Separators::AmpersandOrSemicolon);
            Ok((Fields::of_form(&form), Written::Form))
        }
        Media::Json => {
            let fields = Fields::of_json(&body).map_err(|_| routes::fault(&Fault::InvalidJson))?;
            Ok((fields, Written::Json))
        }
        Media::Other => Err(routes::fault(&Fault::ContentType)),
    }
}

async fn post(
    web: &Web,
    parts: &Parts,
    body: Body,
    query: &Form,
    resource: &Resource,
) -> Result<Response, Denied> {
    let (fields, written) = match fields(web, parts, body, query).await {
        Ok(fields) => fields,
        Err(answer) => return Ok(answer),
    };
    let mode = match params::mode(&fields) {
        Ok(mode) => mode,
        Err(fault) => return Ok(routes::fault(&fault)),
    };
    // Any login was enough to unsubscribe anybody once.
    let user = login::login(web, parts).await?;
    let key = fields.topic.clone().unwrap_or_default();
    login::may_with_key(&web.users, &user, Right::Read, resource, &key).await?;
    if let Some(claim) = shortcut(web, resource, &fields).await {
        return Ok(match claim {
            Ok(claim) => bind(web, &claim, mode, resource, &key).await,
            Err(answer) => answer,
        });
    }
    let manner = if web.compat() { Manner::Compat } else { Manner::Own };
    let request = match params::request(resource, fields, manner, written) {
        Ok(request) => SubscribeRequest { user: Some(user.name.clone()), ..request },
        // What is not there is said before what is missing.
        Err(_) if mode == Mode::Subscribe && is_missing(web, resource).await => return Ok(no_such_resource()),
        Err(fault) => return Ok(routes::fault(&fault)),
    };
    Ok(ask(web, request).await)
}

async fn is_missing(web: &Web, resource: &Resource) -> bool {
    matches!(web.hub.estate().look(resource).await, Ok(None))
}

async fn ask(web: &Web, request: SubscribeRequest) -> Response {
    let mode = request.mode;
    let names_address = callback::names_address(&request.key.callback);
    let ha_mode = match mode {
        Mode::Subscribe => request.ha_mode.unwrap_or(web.hub.settings().ha_mode),
        Mode::Unsubscribe => web.hub.settings().ha_mode,
    };
    match subscribed(web, request).await {
        Ok(Answered::Later) => answer::empty(StatusCode::ACCEPTED),
        Ok(Answered::Done) if ha_mode == HaMode::None => answer::empty(StatusCode::NO_CONTENT),
        Ok(Answered::Done) => {
            let mut answered = answer::json(StatusCode::CREATED, consumers("ok"));
            if web.compat() {
                answered.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
            }
            answered
        }
        Err(refusal) => refused(&refusal, names_address),
    }
}

/// Subscribes, with a bound on how many callbacks are waited for at once. Strangers have one of their own: they can keep nobody else from
/// being served.
pub(super) async fn subscribed(web: &Web, request: SubscribeRequest) -> Result<Answered, Refusal> {
    let places = match (request.verify, request.protocol) {
        (Verify::Async, _) => None,
        (Verify::Sync, Protocol::Rabbithub) => Some(&web.verifying),
        (Verify::Sync, Protocol::Websub) => Some(&web.strangers),
    };
    let _place = match places {
        None => None,
        Some(places) => {
            let (user, host) =
                (request.user.as_deref().unwrap_or_default(), callback::host(&request.key.callback));
            Some(places.place(user, &host).await.ok_or_else(|| Refusal::Failed(busy()))?)
        }
    };
    web.hub.subscribe(request).await
}

fn busy() -> Failure {
    Failure::new(FailureKind::Throttled, codes::HUB_BUSY, "ask the callback at once")
        .remedy("leave `hub.verify=sync` out, or come again later")
}

const ADDRESS_NOT_ALLOWED: &str = "Request verification failed: the callback's address is not a public one, and this hub's \
     `allow_callbacks` does not name it";

fn no_such_resource() -> Response {
    answer::text(StatusCode::NOT_FOUND, "queue or exchange not found")
}

/// `names_address`: the callback's host is an address, so that nothing is betrayed by saying that it is not allowed.
fn refused(refusal: &Refusal, names_address: bool) -> Response {
    match refusal {
        Refusal::NotVerified(NotVerified::Unreachable(failure))
            if names_address && failure.code == codes::ADDRESS_REFUSED =>
        {
            answer::text(StatusCode::BAD_REQUEST, ADDRESS_NOT_ALLOWED)
        }
        Refusal::NoSuchResource => no_such_resource(),
        Refusal::NoSuchSubscription => answer::empty(StatusCode::NOT_FOUND),
        Refusal::BadParameter(name, rule) => routes::fault(&Fault::Bad(name, rule.clone())),
        Refusal::BadCallback(_) | Refusal::NotVerified(_) => {
            let text = format!("Request verification failed: {}", reason(refusal));
            answer::text(StatusCode::BAD_REQUEST, text)
        }
        Refusal::Failed(failure) => answer::text_of(failure),
    }
}

/// Why a callback did not agree. Whether nothing listens, a name is unknown or an address is not allowed is all one: the text is no means
/// to look around in our network.
pub(super) fn reason(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NoSuchResource => "not_found".to_owned(),
        Refusal::NoSuchSubscription => "no_such_subscription".to_owned(),
        Refusal::BadCallback(_) => "invalid_callback_url".to_owned(),
        Refusal::BadParameter(name, rule) => format!("{}: {rule}", name.trim_start_matches("hub.")),
        Refusal::NotVerified(NotVerified::ChallengeMismatch) => "challenge_mismatch".to_owned(),
        Refusal::NotVerified(NotVerified::Status(status)) => format!("{{request_status,{status}}}"),
        Refusal::NotVerified(NotVerified::Unreachable(_)) => "failed_connect".to_owned(),
        Refusal::Failed(failure) => failure.code.as_str().replace('-', "_"),
    }
}

/// RabbitHub's list of nodes.
pub(super) fn consumers(status: &str) -> Value {
    json!({ "consumers": [{ "node": NODE, "status": status }] })
}

/// The claim of a token of ours for a queue, where an exchange is subscribed with one; `None`: this is no shortcut.
async fn shortcut(web: &Web, resource: &Resource, fields: &Fields) -> Option<Result<Claim, Response>> {
    let token = fields.verify_token.as_deref().filter(|_| resource.kind == ResourceKind::Exchange)?;
    let key = match tokens::key(web).await {
        Ok(key) => key,
        Err(failure) => return Some(Err(answer::text_of(&failure))),
    };
    let age_ms_max = i64::try_from(web.hub.settings().signed_term_max_age.as_millis()).unwrap_or(i64::MAX);
    let claim = key.read(token, web.now_ms(), age_ms_max)?;
    (claim.resource.kind == ResourceKind::Queue).then_some(Ok(claim))
}

/// Binds the token's queue to the exchange. Who made the token may write to the queue, who brings it may read the exchange: what a broker
/// asks of whoever binds.
async fn bind(web: &Web, claim: &Claim, mode: Mode, exchange: &Resource, key: &str) -> Response {
    if claim.mode() != mode {
        return answer::text(StatusCode::BAD_REQUEST, "Shortcut token has wrong hub.mode");
    }
    // RabbitHub did not look whether both are in one virtual host.
    if claim.resource.vhost != exchange.vhost || key.is_empty() {
        return answer::empty(StatusCode::NOT_FOUND);
    }
    let binding = HubBinding {
        vhost: exchange.vhost.clone(),
        exchange: exchange.name.clone(),
        queue: claim.resource.name.clone(),
        routing_key: key.to_owned(),
        arguments: Headers::default(),
    };
    let done = match mode {
        Mode::Subscribe => web.hub.estate().bind(&binding).await,
        Mode::Unsubscribe => web.hub.estate().unbind(&binding).await,
    };
    match done {
        Ok(()) => answer::empty(StatusCode::NO_CONTENT),
        Err(failure) if failure.kind == FailureKind::NotFound => answer::empty(StatusCode::NOT_FOUND),
        Err(failure) => answer::text_of(&failure),
    }
}

async fn delete(web: &Web, parts: &Parts, query: &Form, resource: &Resource) -> Result<Response, Denied> {
    let _user: User = login::allowed(web, parts, Right::Configure, resource).await?;
    let key =
        match params::key(resource, query.first("hub.callback"), query.first("hub.topic"), Manner::Websub) {
            Ok(key) => key,
            Err(fault) => return Ok(routes::fault(&fault)),
        };
    if web.hub.get(&key).is_none() {
        let status = if web.compat() { StatusCode::BAD_REQUEST } else { StatusCode::NOT_FOUND };
        return Ok(answer::text(status, "Subscription not found please validate parameters"));
    }
    Ok(match web.hub.remove(&key).await {
        Ok(true) => answer::json(StatusCode::OK, consumers("ok")),
        Ok(false) => answer::json(StatusCode::NOT_FOUND, consumers("not_found")),
        Err(failure) => answer::text_of(&failure),
    })
}
