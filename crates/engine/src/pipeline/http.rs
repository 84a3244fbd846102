//! `http`: one call. Statuses that were not expected are errors: 408, 425, 429 and 5xx of the kind that is tried again, all
//! others, redirects included, of the kind that is not.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::fmt::rfc2822;
use serde_json::{Map, Value, json};

use super::outside::{AddressGuard, CallOptions, HiddenSource, HttpAnswer, HttpRequest};
use super::plan::{Body, HttpStep};
use super::run::{Done, Runner, kind_of};
use super::scope::Scope;
use super::trouble::Trouble;
use crate::codes;
use crate::failure::{Failure, FailureKind, Said};

/// The longest pause that an answer may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// As much of an answer as is kept of one that was an error.
const TOLD_BYTES_MAX: usize = 2 << 10;

impl Runner<'_> {
    /// Calls, and makes the answer the value.
    pub async fn http(self, step: &HttpStep, scope: &Scope<'_>) -> Result<Done, Trouble> {
        let request = request(step, scope).await?;
        let what = format!("{} {}", request.method, shown(&request.url));
        let answer = self.outside.http.call(&request).await.map_err(|failure| {
            if failure.code == codes::ADDRESS_REFUSED { Trouble::reject(failure) } else { failure.into() }
        })?;
        let expected = step.expect.iter().any(|range| (range.first..=range.last).contains(&answer.status));
        if !expected {
            return Err(refused(&what, &answer));
        }
        let note = format!("{what}: {}", answer.status);
        Ok(Done::value(value(&answer)).note(note))
    }
}

async fn request(step: &HttpStep, scope: &Scope<'_>) -> Result<HttpRequest, Trouble> {
    let url = scope.text(&step.url)?;
    let fixed = step.origin.as_ref().is_some_and(|origin| {
        // What a template puts behind the origin can only be a path.
        url.strip_prefix(origin.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
    });
    let mut headers = Vec::new();
    for (name, value) in &step.headers {
        let value = scope.text(value)?;
        if value.contains(['\r', '\n', '\0']) {
            let what = format!("the header `{name}` holds a line break");
            return Err(Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, what).into());
        }
        headers.push((name.clone(), value));
    }
    let mut body = Bytes::new();
    if let Some(given) = &step.body {
        let (bytes, media_type) = bytes_of(given, scope).await?;
        body = bytes;
        if let Some(media_type) = media_type
            && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        {
            headers.push(("content-type".to_owned(), media_type.to_owned()));
        }
    }
    Ok(HttpRequest {
        method: step.method.clone(),
        url,
        headers,
        authorization: step.authorization.as_ref().map(HiddenSource::now),
        body,
        guard: (!fixed).then(|| AddressGuard { allow: step.allow.clone() }),
        answer_bytes_max: step.answer_bytes_max,
        options: CallOptions::default(),
    })
}

/// What is sent, and its media type where that is known: a text as it is, anything else as JSON.
pub async fn bytes_of(body: &Body, scope: &Scope<'_>) -> Result<(Bytes, Option<&'static str>), Trouble> {
    let value = scope.one(&body.expression).await?;
    let wrong = |detail: String| {
        let failure = Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, "decode the body from base64");
        Trouble::from(failure.detail(detail))
    };
    match value {
        Value::String(text) if body.binary => match STANDARD.decode(text.trim()) {
            Ok(bytes) => Ok((bytes.into(), None)),
            Err(error) => Err(wrong(error.to_string())),
        },
        other if body.binary => Err(wrong(format!("this is {}", kind_of(&other)))),
        Value::String(text) => Ok((text.into(), None)),
        other => Ok((other.to_string().into(), Some("application/json"))),
    }
}

/// The answer as a value.
fn value(answer: &HttpAnswer) -> Value {
    let mut headers = Map::new();
    for (name, value) in &answer.headers {
        match headers.get_mut(name) {
            Some(Value::String(held)) => {
                held.push_str(", ");
                held.push_str(value);
            }
            _ => {
                headers.insert(name.clone(), value.as_str().into());
            }
        }
    }
    json!({ "status": answer.status, "headers": headers, "body": body(answer) })
}

/// JSON where the answer says so, or says nothing and is; otherwise text; base64 where it is no text either.
fn body(answer: &HttpAnswer) -> Value {
    if answer.body.is_empty() {
        return Value::Null;
    }
    let media_type = answer
        .header("content-type")
        .map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let json = media_type.as_deref().is_none_or(|kind| kind.ends_with("/json") || kind.ends_with("+json"));
    if json && let Ok(value) = serde_json::from_slice(&answer.body) {
        return value;
    }
    match std::str::from_utf8(&answer.body) {
        Ok(text) => text.into(),
        Err(_) => STANDARD.encode(&answer.body).into(),
    }
}

/// The error that a status is.
fn refused(what: &str, answer: &HttpAnswer) -> Trouble {
    let status = answer.status;
    let told = &answer.body[..answer.body.len().min(TOLD_BYTES_MAX)];
    let mut detail = format!("the answer was {status}");
    if !told.is_empty() {
        detail.push_str(": ");
        detail.push_str(String::from_utf8_lossy(told).trim_end_matches('\u{fffd}'));
    }
    let answer_begins = (!answer.body.is_empty()).then(|| Said::beginning(&answer.body));
    let said = Said { status: Some(status), exit_code: None, answer: answer_begins };
    let failure =
        |kind| Failure::new(kind, codes::HTTP_STATUS, what).detail(detail.clone()).said(said.clone());
    match status {
        408 | 425 | 429 | 500..=599 => {
            let kind = if status == 429 { FailureKind::Throttled } else { FailureKind::Disconnected };
            let mut failure = failure(kind);
            failure.retry_after = retry_after(answer);
            failure.into()
        }
        300..=399 => Trouble::reject(
            failure(FailureKind::Refused).remedy("redirects are not followed: give the URL itself"),
        ),
        404 | 410 => Trouble::reject(failure(FailureKind::NotFound)),
        _ => Trouble::reject(failure(FailureKind::Refused)),
    }
}

/// `Retry-After`: seconds, or a date, which counts from the answer's own `Date`.
pub(crate) fn retry_after(answer: &HttpAnswer) -> Option<Duration> {
    let value = answer.header("retry-after")?.trim();
    let pause = if let Ok(seconds) = value.parse::<u64>() {
        Duration::from_secs(seconds)
    } else {
        let date = |text: &str| rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
        let (then, now) = (date(value)?, date(answer.header("date")?)?);
        Duration::try_from(then.duration_since(now)).unwrap_or_default()
    };
    Some(pause.min(RETRY_AFTER_MAX))
}

/// A URL without what may be secret: user, password and query.
pub fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let shown = match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    };
    super::run::short(&shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> HttpAnswer {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        HttpAnswer { status, headers, body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_by_date() {
        let after = |headers: &[(&str, &str)]| retry_after(&answer(503, headers, ""));
        assert_eq!(after(&[("retry-after", "120")]), Some(Duration::from_secs(120)));
        assert_eq!(after(&[("retry-after", "99999999999")]), Some(RETRY_AFTER_MAX));
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[("retry-after", "soon")]), None);
        let dated =
            [("date", "Wed, 21 Oct 2026 07:28:00 GMT"), ("retry-after", "Wed, 21 Oct 2026 07:30:00 GMT")];
        assert_eq!(after(&dated), Some(Duration::from_secs(120)));
        let past =
            [("date", "Wed, 21 Oct 2026 07:28:00 GMT"), ("retry-after", "Wed, 21 Oct 2020 07:30:00 GMT")];
        assert_eq!(after(&past), Some(Duration::ZERO));
    }

    #[test]
    fn bodies_are_parsed_where_they_are_json() {
        let body = |kind: Option<&str>, text: &str| {
            let headers: Vec<(&str, &str)> = kind.map(|kind| ("content-type", kind)).into_iter().collect();
            super::body(&answer(200, &headers, text))
        };
        assert_eq!(body(Some("application/json; charset=utf-8"), "{\"a\":1}"), json!({"a": 1}));
        assert_eq!(body(Some("application/problem+json"), "[]"), json!([]));
        assert_eq!(body(Some("text/plain"), "[]"), json!("[]"));
        assert_eq!(body(None, "7"), json!(7));
        assert_eq!(body(Some("application/json"), "not"), json!("not"));
        assert_eq!(body(None, ""), Value::Null);
    }

    #[test]
    fn what_is_shown_of_a_url_holds_no_secret() {
        assert_eq!(shown("https://u:swordfish@host:8/a/b?key=swordfish#x"), "https://host:8/a/b");
        assert_eq!(shown("https://host?x"), "https://host");
        assert_eq!(shown("nonsense"), "nonsense");
    }
}
