//! `http`: one call. A status that is not expected is an error. `final_statuses` rejects the message, any other status is retried.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use encoding_rs::{Encoding, UTF_8};
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

impl Runner<'_> {
    /// Calls, and makes the answer the value.
    pub async fn http(self, step: &HttpStep, scope: &Scope<'_>) -> Result<Done, Trouble> {
        let request = request(step, scope).await?;
        let what = format!("{} {}", request.method, shown(&request.url));
        let answer = self.outside.http.call(&request).await.map_err(|failure| {
            if failure.code == codes::ADDRESS_REFUSED {
                Trouble::reject(failure)
            } else if failure.code == codes::INVALID_VALUE {
                // The URL or a header cannot be sent.
                let headers = || step.headers.iter().all(|(_, value)| scope.repeats_text(value));
                Trouble::of_input(failure, scope.repeats_text(&step.url) && headers())
            } else {
                failure.into()
            }
        })?;
        if !step.expect.contains(answer.status) {
            return Err(refused(step, &what, &answer));
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
    for (name, text) in &step.headers {
        let value = scope.text(text)?;
        if value.contains(['\r', '\n', '\0']) {
            let what = format!("the header `{name}` holds a line break");
            let failure = Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, what);
            return Err(Trouble::of_input(failure, scope.repeats_text(text)));
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
        Trouble::of_input(failure.detail(detail), scope.repeats(&body.expression))
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
    let Some(text) = text(answer) else { return STANDARD.encode(&answer.body).into() };
    let media_type = answer
        .header("content-type")
        .map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let json = media_type.as_deref().is_none_or(|kind| kind.ends_with("/json") || kind.ends_with("+json"));
    if json && let Ok(value) = serde_json::from_str(&text) {
        return value;
    }
    text.into_owned().into()
}

/// The body as text: by its byte order mark, otherwise by the charset that its media type names, otherwise as UTF-8. `None`: it is not text
/// of that charset, or has a coding that was not decoded.
fn text(answer: &HttpAnswer) -> Option<Cow<'_, str>> {
    if answer.header("content-encoding").is_some() {
        return None;
    }
    let named = || Encoding::for_label(charset(answer.header("content-type")?)?.as_bytes());
    let (encoding, mark) = match Encoding::for_bom(&answer.body) {
        Some((encoding, bytes)) => (encoding, bytes),
        None => (named().unwrap_or(UTF_8), 0),
    };
    encoding.decode_without_bom_handling_and_without_replacement(&answer.body[mark..])
}

/// The charset that a media type names.
fn charset(content_type: &str) -> Option<&str> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches(['"', '\'']))
    })
}

/// The error that a status is.
fn refused(step: &HttpStep, what: &str, answer: &HttpAnswer) -> Trouble {
    let status = answer.status;
    let mut failure = of_status(what, answer);
    if let Some(told) = failure.said.as_ref().and_then(|said| said.answer.as_ref()) {
        let detail = format!("the answer was {status}: {}", told.trim_end_matches('\u{fffd}'));
        failure = failure.detail(detail);
    }
    if (300..=399).contains(&status) {
        failure = failure.remedy("redirects are not followed: give the URL itself");
    }
    if step.final_statuses.contains(status) {
        return Trouble::reject(failure);
    }
    failure.retry_after = retry_after(answer);
    failure.into()
}

/// The failure that a status is, with the answer as [`Said`].
pub(crate) fn of_status(what: &str, answer: &HttpAnswer) -> Failure {
    let kind = match answer.status {
        429 => FailureKind::Throttled,
        408 | 425 | 500..=599 => FailureKind::Unavailable,
        404 | 410 => FailureKind::NotFound,
        _ => FailureKind::Refused,
    };
    let answer_begins = (!answer.body.is_empty()).then(|| match text(answer) {
        Some(text) => Said::beginning(text.as_bytes()),
        None => Said::beginning(&answer.body),
    });
    let said = Said { status: Some(answer.status), exit_code: None, answer: answer_begins };
    Failure::new(kind, codes::HTTP_STATUS, what)
        .detail(format!("the answer was {}", answer.status))
        .said(said)
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
    fn bodies_are_decoded_by_their_charset() {
        let body = |kind: &str, bytes: &[u8]| {
            let headers = [("content-type".to_owned(), kind.to_owned())].into();
            super::body(&HttpAnswer { status: 200, headers, body: Bytes::copy_from_slice(bytes) })
        };
        let utf_16 = |text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            text.encode_utf16().flat_map(bytes).collect()
        };
        assert_eq!(body("text/plain; charset=iso-8859-1", b"caf\xe9"), json!("caf\u{e9}"));
        assert_eq!(body("text/plain;Charset=\"Latin1\"", b"caf\xe9"), json!("caf\u{e9}"));
        assert_eq!(body("text/plain; format=flowed; charset=windows-1252", b"\x80"), json!("\u{20ac}"));
        assert_eq!(body("application/json; charset=iso-8859-1", b"[\"\xe9\"]"), json!(["\u{e9}"]));
        let little = utf_16("[\"\u{e9}\"]", u16::to_le_bytes);
        let big = utf_16("\u{feff}[\"\u{e9}\"]", u16::to_be_bytes);
        assert_eq!(body("application/json; charset=utf-16le", &little), json!(["\u{e9}"]));
        assert_eq!(body("application/json", &big), json!(["\u{e9}"]));
        assert_eq!(body("application/json", b"\xef\xbb\xbf[1]"), json!([1]));
        assert_eq!(body("text/plain; charset=shift_jis", b"\x93\xfa"), json!("\u{65e5}"));
        // Not what the charset says, or a charset nobody knows: nothing is lost.
        assert_eq!(body("text/plain; charset=utf-8", b"caf\xe9"), json!("Y2Fm6Q=="));
        assert_eq!(body("text/plain; charset=x-unknown", b"caf\xe9"), json!("Y2Fm6Q=="));
        assert_eq!(body("text/plain", b"caf\xe9"), json!("Y2Fm6Q=="));
    }

    #[test]
    fn a_coding_that_was_not_decoded_is_no_text() {
        let coded = answer(200, &[("content-encoding", "br"), ("content-type", "text/plain")], "abc");
        assert_eq!(super::body(&coded), json!("YWJj"));
    }

    #[test]
    fn what_is_shown_of_a_url_holds_no_secret() {
        assert_eq!(shown("https://u:swordfish@host:8/a/b?key=swordfish#x"), "https://host:8/a/b");
        assert_eq!(shown("https://host?x"), "https://host");
        assert_eq!(shown("nonsense"), "nonsense");
    }
}
