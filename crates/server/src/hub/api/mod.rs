//! `/api/v1/…`: what the hub does, in the JSON of today. Errors are problem documents (RFC 9457).
//!
//! One table has all operations; requests are matched against it, and the OpenAPI document is made of it.

mod misfits;
mod openapi;
mod operations;
mod publish;
mod resources;
mod subscriptions;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{ALLOW, CONTENT_TYPE, HeaderName};
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::json;
use warren_engine::hub::params::Media;
use warren_engine::hub::path;

pub(super) use self::operations::{OPERATIONS, Op};
use super::login::Denied;
use super::{BATCH_BYTES_MAX, Web, answer, body};

/// Where all of it lies.
pub(super) const PREFIX: &str = "/api/v1";

/// An answer that is no success.
pub(super) enum Refused {
    /// Whoever asks may not.
    Denied(Denied),
    /// Something else.
    Answer(Response),
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Refused {
        Refused::Denied(denied)
    }
}

/// A problem to answer with.
fn problem(status: StatusCode, detail: impl Into<String>) -> Refused {
    Refused::Answer(answer::problem(status, detail))
}

type Answered = Result<Response, Refused>;

pub(super) async fn answer(web: &Web, parts: &Parts, body: Body) -> Response {
    let (operation, names) = match find(parts) {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    match perform(web, parts, body, operation, &names).await {
        Ok(answer) | Err(Refused::Answer(answer)) => answer,
        Err(Refused::Denied(denied)) => denied.problem(),
    }
}

/// The operation of a request, with the decoded names of its path.
fn find(parts: &Parts) -> Result<(Op, Vec<String>), Response> {
    let path = parts.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let mut allowed = Vec::new();
    for operation in OPERATIONS {
        if let Some(names) = operation.names(&segments) {
            if operation.method == parts.method.as_str() {
                let names: Result<Vec<_>, _> = names.into_iter().map(path::decoded).collect();
                let names = names
                    .map_err(|_| answer::problem(StatusCode::BAD_REQUEST, "a name in the path is none"))?;
                return Ok((operation.op, names));
            }
            allowed.push(operation.method);
        }
    }
    if allowed.is_empty() {
        return Err(answer::problem(StatusCode::NOT_FOUND, "there is nothing of that name in this API"));
    }
    let answered = answer::problem(StatusCode::METHOD_NOT_ALLOWED, "the path has no such method");
    Err(answer::with(answered, ALLOW, &allowed.join(", ")))
}

async fn perform(web: &Web, parts: &Parts, body: Body, op: Op, names: &[String]) -> Answered {
    let name = |at: usize| names.get(at).map_or("", String::as_str);
    match op {
        Op::OpenApi => Ok(answer::json(StatusCode::OK, openapi::document())),
        Op::Health => Ok(answer::json(StatusCode::OK, json!({ "status": "ok" }))),
        Op::Publish => publish::publish(web, parts, body).await,
        Op::ListSubscriptions => subscriptions::list(web, parts).await,
        Op::Subscribe => subscriptions::subscribe(web, parts, body).await,
        Op::GetSubscription => subscriptions::get(web, parts, name(0)).await,
        Op::PatchSubscription => subscriptions::patch(web, parts, body, name(0)).await,
        Op::DeleteSubscription => subscriptions::delete(web, parts, name(0)).await,
        Op::Export => subscriptions::export(web, parts).await,
        Op::Import => subscriptions::import(web, parts, body).await,
        Op::Errors => subscriptions::errors(web, parts).await,
        Op::Topics => Ok(resources::topics(web, parts)),
        Op::GetQueue => resources::get(web, parts, &resources::queue(name(0), name(1))).await,
        Op::PutQueue => resources::put(web, parts, body, &resources::queue(name(0), name(1))).await,
        Op::DeleteQueue => resources::delete(web, parts, &resources::queue(name(0), name(1))).await,
        Op::GetExchange => resources::get(web, parts, &resources::exchange(name(0), name(1))).await,
        Op::PutExchange => resources::put(web, parts, body, &resources::exchange(name(0), name(1))).await,
        Op::DeleteExchange => resources::delete(web, parts, &resources::exchange(name(0), name(1))).await,
    }
}

/// The body, of a size that is allowed.
async fn bytes(body: Body, bytes_max: usize) -> Result<Bytes, Refused> {
    body::read(body, bytes_max).await.map_err(|fault| problem(fault.status(), fault.to_string()))
}

/// The body as JSON of a type. `schema`: the name of its schema in the OpenAPI document.
async fn read<T: DeserializeOwned>(
    web: &Web,
    parts: &Parts,
    body: Body,
    schema: &str,
) -> Result<(T, Bytes), Refused> {
    let media = answer::header(&parts.headers, CONTENT_TYPE);
    if media.is_some() && Media::of(media) != Media::Json {
        return Err(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body has to be application/json"));
    }
    // Text in JSON is up to twice as long as the bytes it stands for; base64 a third longer.
    let bytes = bytes(body, web.hub.settings().body_bytes_max.saturating_mul(2)).await?;
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok((value, bytes)),
        Err(error) if error.is_data() => {
            Err(misfit(StatusCode::UNPROCESSABLE_ENTITY, schema, &bytes, &unnamed(&error)))
        }
        Err(error) => Err(no_json(&error)),
    }
}

fn no_json(error: &serde_json::Error) -> Refused {
    problem(StatusCode::BAD_REQUEST, format!("the body is not JSON: {error}"))
}

/// What is wrong with data where the schema does not tell. The other messages name our types.
fn unnamed(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.strip_prefix("duplicate field `").and_then(|rest| rest.split_once('`')) {
        Some((name, _)) => format!("`{name}` is given more than once"),
        None => {
            format!("the body does not fit its schema at line {}, column {}", error.line(), error.column())
        }
    }
}

/// The problem of a body that does not fit its schema: `detail` tells all that is wrong, `errors` each with its pointer. `otherwise`: what is
/// wrong where the schema does not tell.
fn misfit(status: StatusCode, schema: &str, body: &[u8], otherwise: &str) -> Refused {
    let value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) => return no_json(&error),
    };
    let found = misfits::misfits(&openapi::schema(schema), &value);
    if found.is_empty() {
        return problem(status, otherwise);
    }
    let detail = found.iter().map(|misfit| misfit.detail.as_str()).collect::<Vec<_>>().join("; ");
    let errors: Vec<_> =
        found.iter().map(|misfit| json!({ "pointer": misfit.pointer, "detail": misfit.detail })).collect();
    let more = [("errors".to_owned(), errors.into())].into_iter().collect();
    Refused::Answer(answer::problem_with(status, detail, more))
}

/// The body of an import, which may be larger.
async fn batch(web: &Web, body: Body) -> Result<Bytes, Refused> {
    bytes(body, web.hub.settings().body_bytes_max.max(BATCH_BYTES_MAX)).await
}

const LOCATION: HeaderName = axum::http::header::LOCATION;

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn reads<T: DeserializeOwned>(body: &Value) -> bool {
        serde_json::from_slice::<T>(body.to_string().as_bytes()).is_ok()
    }

    /// The members of a schema's object, with the way to each and those within.
    fn members(schema: &Value, at: &str, found: &mut Vec<String>) {
        for branch in schema["anyOf"].as_array().into_iter().flatten() {
            members(branch, at, found);
        }
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            let at = format!("{at}/{name}");
            members(member, &at, found);
            found.push(at);
        }
    }

    /// Whatever cannot be read is told with the member it is about, in the words of the API.
    #[test]
    fn a_body_that_cannot_be_read_never_names_a_type_of_ours() {
        let numbers =
            ["5", "-1", "1.5", "1e3", "300", "70000", "5000000000", "1e400", "99999999999999999999"];
        let others = ["null", "true", "\"text\"", "[]", "[1]", "{}", "{\"unknown\": 1}"];
        let contact = json!({"app_name": "a"});
        let login = json!({"username": "u", "password": "p"});
        for (schema, reads, base) in [
            (
                "Publish",
                reads::<publish::Publish> as fn(&Value) -> bool,
                json!({"queue": "q", "properties": {}}),
            ),
            (
                "Subscribe",
                reads::<subscriptions::Subscribe>,
                json!({"queue": "q", "callback": "c", "contact": contact, "basic_auth": login}),
            ),
            ("Patch", reads::<subscriptions::Patch>, json!({})),
            ("Exchange", reads::<resources::Exchange>, json!({"type": "topic"})),
        ] {
            let document = openapi::schema(schema);
            assert!(reads(&base) && misfits::misfits(&document, &base).is_empty(), "{schema}");
            let mut all = vec!["/unknown".to_owned(), String::new()];
            members(&document, "", &mut all);
            let mut refused = 0;
            for at in &all {
                for value in numbers.iter().chain(&others) {
                    let mut body = base.clone();
                    let value: Value = serde_json::from_str(value).unwrap();
                    match at.rsplit_once('/') {
                        None => body = value.clone(),
                        Some((parent, name)) => body.pointer_mut(parent).unwrap()[name] = value.clone(),
                    }
                    let found = misfits::misfits(&document, &body);
                    if !reads(&body) {
                        refused += 1;
                        let named = found.iter().any(|misfit| misfit.pointer.starts_with(at.as_str()));
                        assert!(named, "{schema} {at} {value}: {found:?}");
                    }
                    let plain = |misfit: &misfits::Misfit| {
                        !["struct", "u8", "u16", "u32", "u64", "expected", "variant"]
                            .iter()
                            .any(|word| misfit.detail.contains(word))
                    };
                    assert!(found.iter().all(plain), "{found:?}");
                }
            }
            assert!(refused > all.len(), "{schema}: {refused}");
        }
    }
}
