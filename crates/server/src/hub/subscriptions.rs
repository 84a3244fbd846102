//! `/subscriptions…`: export, fetch one, import, errors of deliveries. For those with both tags.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};
use warren_engine::failure::Failure;
use warren_engine::hub::batch::{self, Row, Secrets, Waiting};
use warren_engine::hub::params::{self, Fault, Form, Manner};
use warren_engine::hub::resource::Resource;
use warren_engine::hub::subscription::Subscription;

use super::login::{self, Denied};
use super::{BATCH_BYTES_MAX, Web, answer, body, query, routes, subscribe};

const DAY_MS: i64 = 24 * 3600 * 1000;
/// So many entries of an import are worked on at once.
const IMPORTS_AT_ONCE: usize = 8;

/// `GET` and `POST /subscriptions`
pub(super) async fn all(web: &Web, parts: &Parts, body: Body) -> Response {
    let answered = match parts.method {
        Method::GET => list(web, parts).await,
        Method::POST => import(web, parts, body).await,
        _ => Ok(routes::wrong_method(web, "GET, POST")),
    };
    answered.unwrap_or_else(|denied| denied.text(web.compat()))
}

/// `GET /[{vhost}/]subscriptions/{q|x}/{name}`
pub(super) async fn one(web: &Web, parts: &Parts, resource: &Resource) -> Response {
    if parts.method != Method::GET {
        return routes::wrong_method(web, "GET");
    }
    if let Err(denied) = login::admin(web, parts).await {
        return denied.text(web.compat());
    }
    let query = query(parts);
    let (callback, topic) = (query.first("hub.callback"), query.first("hub.topic"));
    match params::key(resource, callback, topic, Manner::Websub) {
        Err(fault) => routes::fault(&fault),
        Ok(key) => match web.hub.get(&key) {
            Some(subscription) => exported(web, &[subscription], &query),
            None => answer::text(StatusCode::NOT_FOUND, "Subscription not found please validate parameters"),
        },
    }
}

/// `GET /subscriptions/errors`
pub(super) async fn errors(web: &Web, parts: &Parts) -> Response {
    if parts.method != Method::GET {
        return routes::wrong_method(web, "GET");
    }
    match login::admin(web, parts).await {
        Ok(_) => answer::json(StatusCode::OK, json!({ "errors": error_entries(web) })),
        Err(denied) => denied.text(web.compat()),
    }
}

/// The subscriptions whose deliveries went wrong.
pub(super) fn error_entries(web: &Web) -> Vec<Value> {
    let all = web.hub.all();
    all.iter().filter(|one| one.errors.count > 0).map(|one| batch::error_entry(one)).collect()
}

async fn list(web: &Web, parts: &Parts) -> Result<Response, Denied> {
    login::admin(web, parts).await?;
    let query = query(parts);
    let subscriptions = match query.first("hub.expires") {
        None => web.hub.all(),
        Some(days) => {
            let Ok(days) = days.trim().parse::<i64>() else {
                let fault = Fault::Bad("hub.expires", "it is no number of days".to_owned());
                return Ok(routes::fault(&fault));
            };
            web.hub.expiring_before(web.now_ms().saturating_add(days.saturating_mul(DAY_MS)))
        }
    };
    Ok(exported(web, &subscriptions, &query))
}

fn exported(web: &Web, subscriptions: &[std::sync::Arc<Subscription>], query: &Form) -> Response {
    answer::json(StatusCode::OK, json!({ "subscriptions": entries(web, subscriptions, secrets(query)) }))
}

/// The entries of an export.
pub(super) fn entries(
    web: &Web,
    subscriptions: &[std::sync::Arc<Subscription>],
    secrets: Secrets,
) -> Vec<Value> {
    let entry = |one: &std::sync::Arc<Subscription>| {
        let because = web.hub.waits_for(one.id()).map(|failure| waiting_because(&failure));
        let waiting = because.as_deref().map(|because| Waiting { because, in_status: !web.compat() });
        batch::entry(one, secrets, waiting)
    };
    subscriptions.iter().map(entry).collect()
}

/// Why a subscription waits: what fails and its code. Details may name hosts and logins of ours; they are in the log.
pub(super) fn waiting_because(failure: &Failure) -> String {
    answer::tried(failure)
}

/// Whether `reveal=true` was said; whoever sees an export is an administrator.
pub(super) fn secrets(query: &Form) -> Secrets {
    if query.first("reveal") == Some("true") { Secrets::Revealed } else { Secrets::Hidden }
}

async fn import(web: &Web, parts: &Parts, body: Body) -> Result<Response, Denied> {
    login::admin(web, parts).await?;
    let bytes_max = web.hub.settings().body_bytes_max.max(BATCH_BYTES_MAX);
    let body = match body::read(body, bytes_max).await {
        Ok(body) => body,
        Err(fault) => return Ok(answer::text(fault.status(), fault.to_string())),
    };
    Ok(match imported(web, &body).await {
        Some(results) => answer::json(StatusCode::ACCEPTED, json!({ "rabbithub_batch_results": results })),
        None => routes::fault(&Fault::InvalidJson),
    })
}

/// Imports a batch; what became of each entry, in their order. `None`: it is no batch.
pub(super) async fn imported(web: &Web, bytes: &[u8]) -> Option<Vec<Value>> {
    let rows = batch::rows(bytes).ok()?;
    let results = stream::iter(rows).map(|row| import_row(web, row)).buffered(IMPORTS_AT_ONCE);
    Some(results.collect().await)
}

async fn import_row(web: &Web, row: Row) -> Value {
    let Row { mut identity, entry, keeps } = row;
    let (expires_at_ms, status) = match entry {
        Err(why) => (0, format!("{{error,{why}}}")),
        Ok(mut entry) => {
            let present = web.hub.get(&entry.request.key);
            if keeps.basic_auth {
                entry.request.basic_auth = present.as_ref().and_then(|present| present.basic_auth.clone());
            }
            if keeps.secret {
                entry.request.secret = present.as_ref().and_then(|present| present.secret.clone());
            }
            let lost = (keeps.basic_auth && entry.request.basic_auth.is_none())
                || (keeps.secret && entry.request.secret.is_none());
            if lost {
                (0, "{error,a secret was exported as ***}".to_owned())
            } else {
                match web.hub.import(entry).await {
                    Ok(subscription) => (subscription.expires_at_ms, "ok".to_owned()),
                    Err(refusal) => (0, format!("{{error,{}}}", subscribe::reason(&refusal))),
                }
            }
        }
    };
    if let Value::Object(members) = &mut identity {
        members.insert("lease_expiry_time_microsec".to_owned(), expires_at_ms.saturating_mul(1000).into());
        members.insert("status".to_owned(), subscribe::consumers(&status));
    }
    identity
}
