//! Queues, exchanges and topics in the API.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use warren_engine::failure::FailureKind;
use warren_engine::hub::ports::{Made, Right};
use warren_engine::hub::resource::{Resource, ResourceKind};

use super::{Answered, LOCATION, Refused, problem, read};
use crate::hub::{Web, answer, endpoint, login};

pub(super) fn queue(vhost: &str, name: &str) -> Resource {
    Resource::queue(vhost, name)
}

pub(super) fn exchange(vhost: &str, name: &str) -> Resource {
    Resource::exchange(vhost, name)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exchange {
    #[serde(rename = "type")]
    kind: String,
}

/// The topics that are open to all.
pub(super) fn topics(web: &Web, parts: &Parts) -> Response {
    let (settings, base) = (web.hub.settings(), web.base(parts));
    let Some(websub) = &settings.websub else {
        return answer::json(StatusCode::OK, json!({ "hub": null, "exchanges": [], "foreign": [] }));
    };
    let exchanges: Vec<_> =
        websub.exchanges.iter().map(|(vhost, name)| json!({ "vhost": vhost, "exchange": name })).collect();
    let answered = json!({ "hub": format!("{base}/hub"), "exchanges": exchanges, "foreign": websub.topics });
    answer::json(StatusCode::OK, answered)
}

pub(super) async fn get(web: &Web, parts: &Parts, resource: &Resource) -> Answered {
    login::knows(web, parts, resource).await?;
    match web.hub.estate().look(resource).await {
        Ok(Some(nature)) => {
            let mut view = json!({ "vhost": resource.vhost, "name": resource.name });
            if resource.kind == ResourceKind::Exchange {
                view["type"] = json!(nature.exchange_type);
            }
            Ok(answer::json(StatusCode::OK, view))
        }
        Ok(None) => Err(missing(resource)),
        Err(failure) if failure.kind == FailureKind::NotFound => Err(missing(resource)),
        Err(failure) => Err(Refused::Answer(answer::problem_of(&failure))),
    }
}

fn missing(resource: &Resource) -> Refused {
    problem(StatusCode::NOT_FOUND, format!("there is no {resource}"))
}

pub(super) async fn put(web: &Web, parts: &Parts, body: Body, resource: &Resource) -> Answered {
    login::allowed(web, parts, Right::Configure, resource).await?;
    if resource.name.is_empty() || endpoint::reserved(resource).is_some() {
        return Err(problem(StatusCode::UNPROCESSABLE_ENTITY, "the broker keeps that name for itself"));
    }
    let estate = web.hub.estate();
    let made = match resource.kind {
        ResourceKind::Queue => estate
            .create_queue(&resource.vhost, &resource.name)
            .await
            .map(|new| if new { Made::New } else { Made::Same }),
        ResourceKind::Exchange => {
            let (Exchange { kind }, _) = read::<Exchange>(web, parts, body, "Exchange").await?;
            if !endpoint::is_exchange_type(&kind) {
                return Err(unknown_type());
            }
            estate.create_exchange(&resource.vhost, &resource.name, &kind).await
        }
    };
    match made {
        Ok(Made::New) => {
            let location = format!("{}{}", web.base(parts), parts.uri.path());
            Ok(answer::with(answer::empty(StatusCode::CREATED), LOCATION, &location))
        }
        Ok(Made::Same) => Ok(answer::empty(StatusCode::NO_CONTENT)),
        Ok(Made::Other(kind)) => {
            let kind = kind.map_or(String::new(), |kind| format!(": {kind}"));
            Err(problem(StatusCode::CONFLICT, format!("the exchange is there, of another type{kind}")))
        }
        Ok(Made::UnknownType) => Err(unknown_type()),
        Err(failure) => Err(Refused::Answer(answer::problem_of(&failure))),
    }
}

fn unknown_type() -> Refused {
    problem(StatusCode::BAD_REQUEST, "Invalid exchange type")
}

pub(super) async fn delete(web: &Web, parts: &Parts, resource: &Resource) -> Answered {
    login::allowed(web, parts, Right::Configure, resource).await?;
    if resource.name.is_empty() {
        return Err(problem(StatusCode::FORBIDDEN, "deleting the default exchange is not permitted"));
    }
    web.known.forget(&resource.vhost, &resource.name);
    match web.hub.estate().delete(resource).await {
        Ok(true) => Ok(answer::empty(StatusCode::NO_CONTENT)),
        Ok(false) => Err(missing(resource)),
        Err(failure) if failure.kind == FailureKind::NotFound => Err(missing(resource)),
        Err(failure) => Err(Refused::Answer(answer::problem_of(&failure))),
    }
}
