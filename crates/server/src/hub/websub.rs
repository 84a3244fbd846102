//! `/hub`, the W3C WebSub hub (<https://www.w3.org/TR/websub/>), and the URLs of our own topics.
//!
//! Anybody may ask; what a request costs is bounded: its body is small, its answer depends on nothing but its form, and what it sets off is
//! done by the engine, so many at once.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue, LINK, LOCATION};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use warren_engine::hub::params::{self, Fault, Fields, Form, Manner, Media, Separators, Written};
use warren_engine::hub::path;
use warren_engine::hub::ports::Right;
use warren_engine::hub::request::{Answered, Mode, Refusal};
use warren_engine::hub::resource::Resource;
use warren_engine::hub::settings::TopicRedirect;
use warren_engine::hub::websub;

use super::{SUBSCRIBE_BYTES_MAX, Web, answer, body, login, routes, subscribe};

/// So many URLs may stand in one ping.
const PINGED_MAX: usize = 100;

/// `POST /hub`
pub(super) async fn hub(web: &Web, parts: &Parts, body: Body) -> Response {
    if web.hub.settings().websub.is_none() {
        return routes::not_found();
    }
    if parts.method != Method::POST {
        let text = "This is a WebSub hub: POST hub.callback, hub.mode and hub.topic to it.";
        let answered = answer::text(StatusCode::METHOD_NOT_ALLOWED, text);
        return answer::with(answered, axum::http::header::ALLOW, "POST");
    }
    if Media::of(answer::header(&parts.headers, CONTENT_TYPE)) != Media::Form {
        let text = "The body has to be application/x-www-form-urlencoded";
        return answer::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
    }
    let body = match body::read(body, SUBSCRIBE_BYTES_MAX).await {
        Ok(body) => body,
        Err(fault) => return answer::text(fault.status(), fault.to_string()),
    };
    let form = Form::read(&body, Separators::Ampersand);
    match form.first("hub.mode") {
        Some("publish") => publish(web, &form).await,
        _ => subscription(web, &form).await,
    }
}

async fn subscription(web: &Web, form: &Form) -> Response {
    let fields = Fields::of_form(form);
    let topic = fields.topic.as_deref().unwrap_or_default();
    let callback = fields.callback.as_deref().unwrap_or_default();
    let key = websub::key(web.hub.settings(), topic, callback);
    let request = match params::request(&key.resource, fields, Manner::Websub, Written::Form) {
        Ok(request) => request,
        Err(fault) => return bad(&fault),
    };
    // What is here is ended here.
    let here = request.mode == Mode::Unsubscribe && web.hub.get(&request.key).is_some();
    if let Some(redirect) = websub::elsewhere(web.hub.settings(), &request.key.topic).filter(|_| !here) {
        return sent_to(redirect);
    }
    match subscribe::subscribed(web, request).await {
        Ok(Answered::Later) => answer::empty(StatusCode::ACCEPTED),
        // PubSubHubbub 0.3 with `hub.verify=sync`.
        Ok(Answered::Done) => answer::empty(StatusCode::NO_CONTENT),
        Err(Refusal::BadCallback(why)) => {
            answer::text(StatusCode::BAD_REQUEST, format!("hub.callback will not do: {why}"))
        }
        Err(Refusal::BadParameter(name, rule)) => bad(&Fault::Bad(name, rule)),
        Err(Refusal::NoSuchResource) => answer::text(StatusCode::NOT_FOUND, "There is no such topic"),
        Err(Refusal::NoSuchSubscription) => {
            answer::text(StatusCode::NOT_FOUND, "There is no such subscription")
        }
        Err(refusal @ Refusal::NotVerified(_)) => {
            let text = format!("Request verification failed: {}", subscribe::reason(&refusal));
            answer::text(StatusCode::CONFLICT, text)
        }
        Err(Refusal::Failed(failure)) => answer::text_of(&failure),
    }
}

fn bad(fault: &Fault) -> Response {
    let text = match fault {
        Fault::Missing(name) => format!("{name} is missing"),
        Fault::InvalidOperation => "hub.mode is none of subscribe, unsubscribe, publish".to_owned(),
        other => other.to_string(),
    };
    answer::text(StatusCode::BAD_REQUEST, text)
}

/// A publisher says that topics changed: `hub.url` by the older convention, `hub.topic` by that of websub.rocks.
async fn publish(web: &Web, form: &Form) -> Response {
    let urls: Vec<&str> =
        form.all("hub.url").chain(form.all("hub.topic")).filter(|url| !url.is_empty()).collect();
    if urls.is_empty() {
        return answer::text(StatusCode::BAD_REQUEST, "hub.url is missing");
    }
    if urls.len() > PINGED_MAX {
        let text = format!("A ping has {PINGED_MAX} URLs at most");
        return answer::text(StatusCode::BAD_REQUEST, text);
    }
    for url in &urls {
        match web.hub.ping(url).await {
            Ok(()) => {}
            Err(failure) => return answer::text_of(&failure),
        }
    }
    // Whoever still follows them here was told. Only all of a ping can be sent elsewhere.
    let mut hubs = urls.iter().map(|url| websub::elsewhere(web.hub.settings(), url));
    match hubs.next().flatten() {
        Some(first) if hubs.all(|other| other.is_some_and(|other| other.hub == first.hub)) => sent_to(first),
        _ => answer::empty(StatusCode::NO_CONTENT),
    }
}

/// Sends a request to another hub, where it is made as it was made here (WebSub, section 5).
fn sent_to(redirect: &TopicRedirect) -> Response {
    let status =
        if redirect.permanent { StatusCode::PERMANENT_REDIRECT } else { StatusCode::TEMPORARY_REDIRECT };
    let answered = answer::text(status, format!("This topic is at {}", redirect.hub));
    answer::with(answered, LOCATION, &redirect.hub)
}

/// `GET` and `HEAD /topics/{vhost}/{exchange}/{routing key}`: where a subscriber finds the hub of a topic of ours (WebSub, section 4).
pub(super) async fn topic(web: &Web, parts: &Parts, rest: &str) -> Response {
    let Some(websub) = &web.hub.settings().websub else { return routes::not_found() };
    let names: Vec<&str> = rest.splitn(3, '/').collect();
    let [vhost, name, key] = names[..] else { return routes::not_found() };
    let (Ok(vhost), Ok(name), Ok(key)) = (path::decoded(vhost), path::decoded(name), path::decoded(key))
    else {
        return answer::text(StatusCode::BAD_REQUEST, "Invalid name");
    };
    let exchange = Resource::exchange(&vhost, &name);
    // Strangers learn of what is open and nothing else; others of what they may read.
    if !websub.exchanges.contains(&(vhost, name))
        && let Err(denied) = login::allowed(web, parts, Right::Read, &exchange).await
    {
        return denied.text(web.compat());
    }
    if parts.method != Method::GET && parts.method != Method::HEAD {
        let answered = answer::text(StatusCode::METHOD_NOT_ALLOWED, "A topic is read");
        return answer::with(answered, axum::http::header::ALLOW, "GET, HEAD");
    }
    let base = web.base(parts);
    let own = websub::topic_url(web.hub.settings(), &exchange, &key)
        .unwrap_or_else(|| format!("{base}{}", parts.uri.path()));
    let link = format!("<{base}/hub>; rel=\"hub\", <{own}>; rel=\"self\"");
    let mut answered = answer::text(StatusCode::OK, format!("Subscribe to this topic at {base}/hub\n"));
    if let Ok(link) = HeaderValue::from_str(&link) {
        answered.headers_mut().insert(LINK, link);
    }
    answered
}
