//! `POST /api/v1/publish`: a message with every property that AMQP has.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use warren_engine::codes;
use warren_engine::hub::params::TOPIC_BYTES_MAX;
use warren_engine::hub::ports::Right;
use warren_engine::hub::publish::{check, check_names};
use warren_engine::hub::resource::{DEFAULT_VHOST, Resource, ResourceKind};
use warren_engine::hub::typed;
use warren_engine::message::{Message, Outbound, Properties, Route};

use super::{Answered, Refused, problem, read};
use crate::hub::idempotency::{KEY_BYTES_MAX, Kept, Seen};
use crate::hub::publishing::{self, Published};
use crate::hub::{Web, answer, endpoint, login};

/// What is published.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Publish {
    #[serde(default = "default_vhost")]
    vhost: String,
    queue: Option<String>,
    exchange: Option<String>,
    #[serde(default)]
    routing_key: String,
    body: Option<String>,
    body_base64: Option<String>,
    json: Option<Value>,
    #[serde(default)]
    properties: Given,
    headers: Option<Value>,
}

/// The properties, as they are given.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Given {
    content_type: Option<String>,
    content_encoding: Option<String>,
    persistent: Option<bool>,
    priority: Option<u8>,
    correlation_id: Option<String>,
    reply_to: Option<String>,
    expiration: Option<String>,
    message_id: Option<String>,
    timestamp: Option<u64>,
    #[serde(rename = "type")]
    kind: Option<String>,
    user_id: Option<String>,
    app_id: Option<String>,
}

pub(super) fn default_vhost() -> String {
    DEFAULT_VHOST.to_owned()
}

/// The queue or the exchange of a request that names one of them.
pub(super) fn resource(
    vhost: &str,
    queue: Option<String>,
    exchange: Option<String>,
) -> Result<Resource, Refused> {
    match (queue, exchange) {
        (Some(name), None) => Ok(Resource::queue(vhost, &name)),
        (None, Some(name)) => Ok(Resource::exchange(vhost, &name)),
        _ => Err(problem(StatusCode::UNPROCESSABLE_ENTITY, "name either a `queue` or an `exchange`")),
    }
}

pub(super) async fn publish(web: &Web, parts: &Parts, body: Body) -> Answered {
    let user = login::login(web, parts).await?;
    let (asked, bytes) = read::<Publish>(web, parts, body, "Publish").await?;
    let resource = resource(&asked.vhost, asked.queue.clone(), asked.exchange.clone())?;
    let (right, key) = (Right::Write, asked.routing_key.as_str());
    login::may_with_key(&web.users, &user, right, &resource, key).await?;
    let own_id = asked.properties.user_id.as_ref().is_none_or(|id| *id == user.name);
    if !own_id {
        return Err(problem(StatusCode::UNPROCESSABLE_ENTITY, "user_id is not who logged in"));
    }
    let outbound = outbound(web, &resource, asked)?;
    let Some(key) = parts.headers.get("idempotency-key") else {
        return Ok(deliver(web, &resource, outbound).await);
    };
    let Some(key) = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= KEY_BYTES_MAX) else {
        let rule = format!("Idempotency-Key has 1 to {KEY_BYTES_MAX} characters of ASCII");
        return Err(problem(StatusCode::BAD_REQUEST, rule));
    };
    Ok(match web.idempotency.begin(&user.name, key, endpoint::print(parts, &bytes)) {
        Seen::Done(kept) => (kept.status, kept.headers, kept.body).into_response(),
        Seen::UnderWay => {
            answer::problem(StatusCode::CONFLICT, "a request with this Idempotency-Key is under way")
        }
        Seen::Other => answer::problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            "this Idempotency-Key was used for another request",
        ),
        Seen::New(ticket) => {
            let answered = deliver(web, &resource, outbound).await;
            let (head, body) = answered.into_parts();
            // An answer of ours is in memory already.
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
            if head.status == StatusCode::ACCEPTED {
                let (status, headers) = (head.status, head.headers.clone());
                ticket.keep(Kept { status, headers, body: body.clone() });
            }
            Response::from_parts(head, Body::from(body))
        }
    })
}

/// The message, with its route.
fn outbound(web: &Web, resource: &Resource, asked: Publish) -> Result<Outbound, Refused> {
    let unfit = |detail: String| problem(StatusCode::UNPROCESSABLE_ENTITY, detail);
    let Publish { routing_key, body, body_base64, json, properties: given, headers, .. } = asked;
    let mut content_type = given.content_type;
    let body = match (body, body_base64, json) {
        (None, None, None) => Bytes::new(),
        (Some(text), None, None) => text.into(),
        (None, Some(text), None) => {
            STANDARD.decode(text).map_err(|error| unfit(format!("body_base64 is no base64: {error}")))?.into()
        }
        (None, None, Some(value)) => {
            content_type.get_or_insert_with(|| "application/json".to_owned());
            value.to_string().into()
        }
        _ => return Err(unfit("give one of `body`, `body_base64` and `json`".to_owned())),
    };
    let bytes_max = web.hub.settings().body_bytes_max;
    if body.len() > bytes_max {
        let detail = format!("the message is larger than {bytes_max} bytes");
        return Err(problem(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    let headers = headers.as_ref().map(typed::headers).transpose();
    let headers = headers.map_err(|rule| unfit(format!("headers: {rule}")))?.unwrap_or_default();
    check_names(&headers).map_err(|rule| unfit(rule.0))?;
    let properties = Properties {
        content_type,
        content_encoding: given.content_encoding,
        persistent: given.persistent.unwrap_or(true),
        priority: given.priority,
        correlation_id: given.correlation_id,
        reply_to: given.reply_to,
        expiration: given.expiration,
        message_id: given.message_id,
        timestamp: given.timestamp,
        kind: given.kind,
        user_id: given.user_id,
        app_id: given.app_id,
        headers,
    };
    check(&properties).map_err(|rule| unfit(rule.0))?;
    if routing_key.len() > TOPIC_BYTES_MAX {
        return Err(unfit(format!("routing_key is longer than {TOPIC_BYTES_MAX} bytes")));
    }
    let route = match resource.kind {
        ResourceKind::Queue if !routing_key.is_empty() => {
            return Err(unfit("a queue takes no routing_key".to_owned()));
        }
        ResourceKind::Queue => Route::Queue(resource.name.clone()),
        ResourceKind::Exchange => Route::Exchange { exchange: resource.name.clone(), routing_key },
    };
    Ok(Outbound { route, message: Message { body, properties } })
}

async fn deliver(web: &Web, resource: &Resource, outbound: Outbound) -> Response {
    let coded = |status, detail: String, code: codes::Code| {
        let code = [("code".to_owned(), Value::from(code.as_str()))].into_iter().collect();
        answer::problem_with(status, detail, code)
    };
    let message_id = outbound.message.properties.message_id.clone();
    match publishing::publish(web, &resource.vhost, outbound).await {
        Published::Accepted => {
            answer::json(StatusCode::ACCEPTED, json!({ "status": "accepted", "message_id": message_id }))
        }
        Published::Unroutable => coded(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("no queue takes the message from {resource}"),
            codes::UNROUTABLE,
        ),
        Published::NotThere => {
            let code = match resource.kind {
                ResourceKind::Queue => codes::NO_SUCH_QUEUE,
                ResourceKind::Exchange => codes::NO_SUCH_EXCHANGE,
            };
            coded(StatusCode::NOT_FOUND, format!("there is no {resource}"), code)
        }
        Published::Unfit(failure) => {
            coded(StatusCode::UNPROCESSABLE_ENTITY, failure.to_string(), failure.code)
        }
        Published::Failed(failure) => answer::problem_of(&failure),
    }
}
