//! Answers: RabbitHub's plain texts, problem documents (RFC 9457), and which status a failure has.

use axum::Json;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

/// When to come again, in seconds, where nobody said.
const RETRY_AFTER_SECONDS: u64 = 5;

/// An answer with a text.
pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))], text.into())
        .into_response()
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    status.into_response()
}

/// An answer with JSON.
pub(super) fn json(status: StatusCode, value: Value) -> Response {
    (status, Json(value)).into_response()
}

/// A problem document.
pub(super) fn problem(status: StatusCode, detail: impl Into<String>) -> Response {
    problem_with(status, detail, Map::new())
}

/// A problem document with members of its own.
pub(super) fn problem_with(
    status: StatusCode,
    detail: impl Into<String>,
    more: Map<String, Value>,
) -> Response {
    let mut problem = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail.into(),
    });
    if let Value::Object(members) = &mut problem {
        members.extend(more);
    }
    let mut answer = json(status, problem);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    answer
}

/// The problem document of a failure: what was tried and the code; what others said stays in the log.
pub(super) fn problem_of(failure: &Failure) -> Response {
    let status = status_of(failure);
    let more = [("kind", failure.name().as_str()), ("code", failure.code.as_str())]
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .into_iter()
        .collect();
    with_retry(problem_with(status, public_detail(failure), more), status, failure)
}

/// The answer of RabbitHub's routes to a failure.
pub(super) fn text_of(failure: &Failure) -> Response {
    let status = status_of(failure);
    with_retry(text(status, public_detail(failure)), status, failure)
}

/// What the one who asks is told of a failure: what was tried and its code. Details may name hosts and logins of ours.
fn public_detail(failure: &Failure) -> String {
    tracing::warn!(failure = failure.line(), "a request was answered with a failure");
    match failure.kind {
        FailureKind::Internal => "something of ours is broken; the log says what".to_owned(),
        FailureKind::Invalid => failure.to_string(),
        FailureKind::Disconnected
        | FailureKind::Timeout
        | FailureKind::Unavailable
        | FailureKind::Throttled
        | FailureKind::Refused
        | FailureKind::NotFound
        | FailureKind::Unroutable => format!("cannot {} ({})", failure.what, failure.code),
    }
}

/// The one table from kind of failure to status.
pub(super) fn status_of(failure: &Failure) -> StatusCode {
    match failure.kind {
        // It is not we who are busy.
        FailureKind::Throttled if failure.code == codes::TOO_MANY_VERIFICATIONS => {
            StatusCode::TOO_MANY_REQUESTS
        }
        FailureKind::Disconnected
        | FailureKind::Timeout
        | FailureKind::Unavailable
        | FailureKind::Throttled => StatusCode::SERVICE_UNAVAILABLE,
        FailureKind::Refused => StatusCode::FORBIDDEN,
        FailureKind::NotFound => StatusCode::NOT_FOUND,
        FailureKind::Unroutable => StatusCode::UNPROCESSABLE_ENTITY,
        FailureKind::Invalid => StatusCode::BAD_REQUEST,
        FailureKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn with_retry(mut answer: Response, status: StatusCode, failure: &Failure) -> Response {
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        let asked = failure.retry_after.map(|after| after.as_secs().max(1));
        answer.headers_mut().insert(RETRY_AFTER, asked.unwrap_or(RETRY_AFTER_SECONDS).into());
    }
    answer
}

/// 503 with the time to come again.
pub(super) fn unavailable(mut answer: Response) -> Response {
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer.headers_mut().entry(RETRY_AFTER).or_insert(RETRY_AFTER_SECONDS.into());
    answer
}

/// A failure that may be over later, as a problem document that says when to come again.
pub(super) fn unavailable_problem(failure: &Failure) -> Response {
    let asked = failure.retry_after.map_or(RETRY_AFTER_SECONDS, |after| after.as_secs().max(1));
    let more = [("kind", failure.name().as_str()), ("code", failure.code.as_str())]
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .into_iter()
        .collect();
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let mut answer = problem_with(status, public_detail(failure), more);
    answer.headers_mut().insert(RETRY_AFTER, asked.into());
    answer
}

/// With a header, where the value can stand in one.
pub(super) fn with(mut answer: Response, name: HeaderName, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
    answer
}

/// What every answer has: browsers guess no type, and nobody keeps it.
pub(super) fn guarded(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static("content-security-policy"),
        HeaderValue::from_static("default-src 'none'; style-src 'self'; frame-ancestors 'none'"),
    );
    answer
}

/// The value of a header as text; one that is none counts as not there.
pub(super) fn header(headers: &HeaderMap, name: impl axum::http::header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
