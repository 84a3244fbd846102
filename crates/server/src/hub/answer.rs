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
    with_retry(problem_with(status, public_detail(failure), more), failure)
}

/// The answer of RabbitHub's routes to a failure.
pub(super) fn text_of(failure: &Failure) -> Response {
    with_retry(text(status_of(failure), public_detail(failure)), failure)
}

/// What the one who asks is told of a failure: what was tried and its code. Details may name hosts and logins of ours.
fn public_detail(failure: &Failure) -> String {
    tracing::warn!(failure = failure.line(), "a request was answered with a failure");
    match meaning(failure) {
        Meaning::Internal => "internal error; see the server log".to_owned(),
        Meaning::Operator => format!("{}: {OPERATOR_MUST_ACT}", tried(failure)),
        Meaning::Refused(_) if failure.kind == FailureKind::Invalid => failure.to_string(),
        Meaning::Refused(_) if failure.code == codes::NOT_ALLOWED => {
            format!("{}: the broker allows it to no user", tried(failure))
        }
        Meaning::Refused(_) | Meaning::Later(_) => tried(failure),
    }
}

/// What a caller reads where only an operator can help. What is missing, and the login that lacks it, is in the log.
pub(super) const OPERATOR_MUST_ACT: &str =
    "an operator of this hub must act; the server log says what is missing";

/// What was tried and the code, without what the other side said. A failure to connect names the broker's address, so it is left out.
pub(crate) fn tried(failure: &Failure) -> String {
    let what = match failure.code {
        codes::BROKER_UNREACHABLE
        | codes::BROKER_REFUSED_LOGIN
        | codes::TLS_FAILED
        | codes::UNKNOWN_VHOST
        | codes::PROTOCOL_ERROR
        | codes::MANAGEMENT_FAILED => "use the broker",
        _ => failure.what.as_str(),
    };
    format!("cannot {what} ({})", failure.code)
}

/// What a failure means to the one who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The same request may succeed later.
    Later(StatusCode),
    /// The same request is refused each time.
    Refused(StatusCode),
    /// Each request of this kind fails until an operator acts.
    Operator,
    /// A bug of ours, or a state that cannot be used.
    Internal,
}

/// The one table from failure to answer, of all routes.
pub(super) fn meaning(failure: &Failure) -> Meaning {
    match (failure.kind, failure.code) {
        // It is not we who are busy.
        (FailureKind::Throttled, codes::TOO_MANY_VERIFICATIONS | codes::TOO_MANY_LOGINS) => {
            Meaning::Later(StatusCode::TOO_MANY_REQUESTS)
        }
        // A disk that is full, or a folder that cannot be written for now.
        (_, codes::STATE_UNWRITABLE) => Meaning::Later(StatusCode::SERVICE_UNAVAILABLE),
        // The hub's own login or certificate, whatever the kind: a publisher that has no connection for that reason is disconnected.
        (_, codes::BROKER_REFUSED_LOGIN | codes::TLS_FAILED) => Meaning::Operator,
        (FailureKind::Refused | FailureKind::Disconnected, codes::UNKNOWN_VHOST) => Meaning::Operator,
        // The hub's own permission. Whether the user may was asked before.
        (FailureKind::Refused, codes::ACCESS_REFUSED | codes::MANAGEMENT_FAILED) => Meaning::Operator,
        (
            FailureKind::Disconnected
            | FailureKind::Timeout
            | FailureKind::Unavailable
            | FailureKind::Throttled,
            _,
        ) => Meaning::Later(StatusCode::SERVICE_UNAVAILABLE),
        (FailureKind::Refused, _) => Meaning::Refused(StatusCode::FORBIDDEN),
        (FailureKind::NotFound, _) => Meaning::Refused(StatusCode::NOT_FOUND),
        (FailureKind::Unroutable, _) => Meaning::Refused(StatusCode::UNPROCESSABLE_ENTITY),
        (FailureKind::Invalid, _) => Meaning::Refused(StatusCode::BAD_REQUEST),
        (FailureKind::Internal, _) => Meaning::Internal,
    }
}

/// The status of a failure.
pub(super) fn status_of(failure: &Failure) -> StatusCode {
    match meaning(failure) {
        Meaning::Later(status) | Meaning::Refused(status) => status,
        Meaning::Operator => StatusCode::BAD_GATEWAY,
        Meaning::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Only what may succeed later says when to come again.
pub(super) fn with_retry(mut answer: Response, failure: &Failure) -> Response {
    if let Meaning::Later(_) = meaning(failure) {
        // Whole seconds, and not earlier than asked.
        let asked = failure.retry_after.map(|after| after.as_secs_f64().ceil() as u64);
        answer.headers_mut().insert(RETRY_AFTER, asked.map_or(RETRY_AFTER_SECONDS, |s| s.max(1)).into());
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_failure_has_one_answer_and_only_what_may_succeed_later_has_retry_after() {
        for (kind, code, status) in [
            (FailureKind::Disconnected, codes::BROKER_UNREACHABLE, 503),
            (FailureKind::Disconnected, codes::CONNECTION_LOST, 503),
            (FailureKind::Timeout, codes::PUBLISH_TIMEOUT, 503),
            (FailureKind::Throttled, codes::BROKER_REFUSED_MESSAGE, 503),
            (FailureKind::Throttled, codes::BROKER_BLOCKED, 503),
            (FailureKind::Throttled, codes::HUB_BUSY, 503),
            (FailureKind::Unavailable, codes::MANAGEMENT_FAILED, 503),
            (FailureKind::Throttled, codes::STATE_UNWRITABLE, 503),
            (FailureKind::Refused, codes::STATE_UNWRITABLE, 503),
            (FailureKind::Internal, codes::STATE_UNWRITABLE, 503),
            (FailureKind::Throttled, codes::TOO_MANY_VERIFICATIONS, 429),
            (FailureKind::Throttled, codes::TOO_MANY_LOGINS, 429),
            (FailureKind::Refused, codes::ACCESS_REFUSED, 502),
            (FailureKind::Refused, codes::BROKER_REFUSED_LOGIN, 502),
            (FailureKind::Refused, codes::TLS_FAILED, 502),
            (FailureKind::Refused, codes::UNKNOWN_VHOST, 502),
            (FailureKind::Refused, codes::MANAGEMENT_FAILED, 502),
            // A publisher without a connection.
            (FailureKind::Disconnected, codes::BROKER_REFUSED_LOGIN, 502),
            (FailureKind::Disconnected, codes::TLS_FAILED, 502),
            (FailureKind::Disconnected, codes::UNKNOWN_VHOST, 502),
            (FailureKind::Refused, codes::NOT_ALLOWED, 403),
            (FailureKind::Refused, codes::TOO_MANY_SUBSCRIPTIONS, 403),
            (FailureKind::NotFound, codes::UNKNOWN_VHOST, 404),
            (FailureKind::NotFound, codes::NO_SUCH_QUEUE, 404),
            (FailureKind::Unroutable, codes::UNROUTABLE, 422),
            (FailureKind::Invalid, codes::MESSAGE_TOO_LARGE, 400),
            (FailureKind::Internal, codes::INTERNAL, 500),
            (FailureKind::Internal, codes::STATE_DAMAGED, 500),
        ] {
            let failure = Failure::new(kind, code, "connect to RabbitMQ at secret-host:5672")
                .detail("refused for user 'secret-login'")
                .remedy("Give `secret-login` the permission.");
            for answer in [problem_of(&failure), text_of(&failure)] {
                assert_eq!(answer.status().as_u16(), status, "{failure:?}");
                let retry = answer.headers().get(RETRY_AFTER).map(|after| after.to_str().unwrap());
                assert_eq!(retry, matches!(status, 429 | 503).then_some("5"), "{failure:?}");
            }
            let text = public_detail(&failure);
            assert!(kind == FailureKind::Invalid || !text.contains("secret-login"), "{text}");
            assert_eq!(text.contains("operator"), status == 502, "{text}");
        }
        let failure = Failure {
            retry_after: Some(Duration::from_millis(1200)),
            ..Failure::new(FailureKind::Throttled, codes::HUB_BUSY, "ask")
        };
        assert_eq!(text_of(&failure).headers()[RETRY_AFTER], "2");
    }

    #[test]
    fn what_cannot_be_connected_to_is_told_without_its_address() {
        for code in [codes::BROKER_UNREACHABLE, codes::BROKER_REFUSED_LOGIN, codes::TLS_FAILED] {
            let failure = Failure::new(FailureKind::Refused, code, "connect to RabbitMQ at host:5672");
            assert_eq!(tried(&failure), format!("cannot use the broker ({code})"));
        }
    }
}
