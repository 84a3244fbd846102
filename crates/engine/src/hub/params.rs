//! The parameters of a request to subscribe: from a form, a query or JSON to a [`SubscribeRequest`].
//!
//! Each form becomes the same [`Fields`], so no text is ever glued into another and read again: what RabbitHub did with JSON, where an
//! `&` in a callback became a parameter.

mod fields;
mod json;

pub use fields::{Fields, Form, Separators};
pub use json::{JsonFault, lenient};
pub(super) use json::{first_member, scalar};

use std::fmt;

use serde_json::Value;

use super::request::{Mode, SubscribeRequest, Verify};
use super::resource::Resource;
use super::subscription::{Contact, HaMode, Protocol, Signing, SubscriptionKey};
use super::typed;
use crate::message::Headers;
use crate::pipeline::outside::Hidden;
use crate::statuses::Statuses;

/// A secret is shorter than this, in bytes (WebSub, 5.1).
pub const SECRET_BYTES_LIMIT: usize = 200;
/// The longest routing key of AMQP 0-9-1, in bytes.
pub const TOPIC_BYTES_MAX: usize = 255;
/// The longest callback, and the longest URL of a topic, in bytes.
pub const URL_BYTES_MAX: usize = 8192;
/// The longest of the other texts, in bytes.
pub const TEXT_BYTES_MAX: usize = 4096;
/// The most requests at once that a subscription may ask for.
pub const IN_FLIGHT_MAX: u16 = 1000;

/// The lowest status that `final_statuses` takes: 2xx are successes.
pub const FINAL_STATUS_MIN: u16 = 300;

/// How a request is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// RabbitHub's routes as they were: `hub.verify` must be given.
    Compat,
    /// RabbitHub's routes: without `hub.verify` the callback is asked later, as in WebSub.
    Own,
    /// `/hub`: callback, mode and topic are enough; all that the standard does not name is ignored.
    Websub,
}

/// Which form a request had; some answers differ by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// A form or a query.
    Form,
    /// JSON.
    Json,
}

/// What is wrong with a request. `Display` is RabbitHub's text where it had one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A mode that nobody knows.
    InvalidOperation,
    /// Something required is missing or empty.
    Missing(&'static str),
    /// None of the ways to verify is known.
    NoVerify,
    /// A body that is neither a form nor JSON.
    ContentType,
    /// JSON that is none.
    InvalidJson,
    /// A contact without `app_name`.
    NoAppName(Written),
    /// A value that its parameter does not take: which, and the rule.
    Bad(&'static str, String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::InvalidOperation => f.write_str("Invalid operation"),
            Fault::Missing(_) => f.write_str("Missing required parameter"),
            Fault::NoVerify => f.write_str("No supported hub.verify modes listed"),
            Fault::ContentType => f.write_str("Bad content-type; expected application/x-www-form-urlencoded"),
            Fault::InvalidJson => f.write_str("invalid json"),
            Fault::NoAppName(Written::Form) => f.write_str("app_name required to create a contact"),
            Fault::NoAppName(Written::Json) => f.write_str("Contact requires app_name parameter"),
            Fault::Bad(parameter, rule) => write!(f, "Bad {parameter}: {rule}"),
        }
    }
}

/// What a `Content-Type` says, parameters aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// `application/x-www-form-urlencoded`, or nothing said.
    Form,
    /// `application/json`
    Json,
    /// Something else.
    Other,
}

impl Media {
    /// Of the header's value. RabbitHub compared the whole text, so that a `charset` made it strange.
    pub fn of(content_type: Option<&str>) -> Media {
        let Some(text) = content_type else { return Media::Form };
        let essence = text.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            Media::Form
        } else if essence.eq_ignore_ascii_case("application/json") {
            Media::Json
        } else {
            Media::Other
        }
    }
}

/// The mode that is asked for.
///
/// # Errors
/// There is none, or nobody knows it.
pub fn mode(fields: &Fields) -> Result<Mode, Fault> {
    match fields.mode.as_deref() {
        None | Some("") => Err(Fault::Missing("hub.mode")),
        Some("subscribe") => Ok(Mode::Subscribe),
        Some("unsubscribe") => Ok(Mode::Unsubscribe),
        Some(_) => Err(Fault::InvalidOperation),
    }
}

/// The request that the fields make.
///
/// # Errors
/// Something is missing or wrong. Nothing was done yet.
pub fn request(
    resource: &Resource,
    fields: Fields,
    manner: Manner,
    written: Written,
) -> Result<SubscribeRequest, Fault> {
    let mode = mode(&fields)?;
    let key = key(resource, fields.callback.as_deref(), fields.topic.as_deref(), manner)?;
    let verify = verify(&fields.verify, manner)?;
    let secret = secret(fields.secret)?;
    let mut request = SubscribeRequest {
        key,
        protocol: Protocol::Rabbithub,
        mode,
        verify,
        verify_token: fields.verify_token.map(|text| within("hub.verify_token", text)).transpose()?,
        lease_seconds: lease_seconds(fields.lease_seconds.as_deref()),
        max_tps: 0,
        max_in_flight: None,
        final_statuses: None,
        ha_mode: None,
        basic_auth: None,
        secret,
        signing: Signing::Sha256,
        contact: None,
        arguments: Headers::default(),
        user: None,
    };
    let finals = fields.final_statuses.as_ref().map(final_statuses).transpose();
    if manner == Manner::Websub {
        request.protocol = Protocol::Websub;
        request.final_statuses = finals.unwrap_or_default();
        // The header stays the standard's, whatever is asked.
        request.signing = signing(fields.signing.as_deref()).unwrap_or(Signing::Sha256);
        if request.signing == Signing::Standard {
            request.signing = Signing::Sha256;
        }
        return Ok(request);
    }
    request.final_statuses = finals?;
    request.max_tps = max_tps(fields.max_tps.as_deref());
    request.max_in_flight = max_in_flight(fields.max_in_flight.as_deref())?;
    request.ha_mode = fields.ha_mode.as_deref().map(ha_mode);
    request.basic_auth = fields.basic_auth.filter(|text| !text.is_empty()).map(basic_auth).transpose()?;
    request.signing = signing(fields.signing.as_deref())?;
    request.contact = contact(fields.contact, written)?;
    request.arguments = match fields.arguments {
        Some(value) => typed::headers(&value).map_err(|rule| Fault::Bad("hub.arguments", rule))?,
        None => Headers::default(),
    };
    Ok(request)
}

/// The key of a subscription, its parts looked at for what no subscription has.
///
/// # Errors
/// A part is missing, empty or too long.
pub fn key(
    resource: &Resource,
    callback: Option<&str>,
    topic: Option<&str>,
    manner: Manner,
) -> Result<SubscriptionKey, Fault> {
    let given = |text: Option<&str>, name| match text {
        None | Some("") => Err(Fault::Missing(name)),
        Some(text) => Ok(text.to_owned()),
    };
    let (callback, topic) = (given(callback, "hub.callback")?, given(topic, "hub.topic")?);
    let topic_bytes_max = if manner == Manner::Websub { URL_BYTES_MAX } else { TOPIC_BYTES_MAX };
    for (name, text, bytes_max) in
        [("hub.callback", &callback, URL_BYTES_MAX), ("hub.topic", &topic, topic_bytes_max)]
    {
        if text.len() > bytes_max {
            return Err(Fault::Bad(name, format!("it is longer than {bytes_max} bytes")));
        }
        if text.chars().any(char::is_control) {
            return Err(Fault::Bad(name, "it has control characters".to_owned()));
        }
    }
    Ok(SubscriptionKey { resource: resource.clone(), topic, callback })
}

/// The first of the ways that is known: they stand in order of preference, one by one or with commas between them.
fn verify(ways: &[String], manner: Manner) -> Result<Verify, Fault> {
    let mut words = ways.iter().flat_map(|way| way.split(',')).map(str::trim).filter(|word| !word.is_empty());
    let known = words.clone().find_map(|word| match word {
        "sync" => Some(Verify::Sync),
        "async" => Some(Verify::Async),
        _ => None,
    });
    match (known, words.next(), manner) {
        (Some(verify), ..) => Ok(verify),
        (None, None, Manner::Compat) => Err(Fault::Missing("hub.verify")),
        (None, Some(_), Manner::Compat | Manner::Own) => Err(Fault::NoVerify),
        (None, None, Manner::Own) | (None, _, Manner::Websub) => Ok(Verify::Async),
    }
}

/// The lease that is asked for. One that is no number, or not more than 0, counts as none.
pub fn lease_seconds(text: Option<&str>) -> Option<u64> {
    let text = text?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds ask for more than anybody grants.
        return Some(text.parse().unwrap_or(u64::MAX)).filter(|seconds| *seconds > 0);
    }
    None
}

/// Requests a second; what is no number is 0, no limit.
pub fn max_tps(text: Option<&str>) -> u32 {
    let whole = text.and_then(|text| text.trim().parse::<i64>().ok()).unwrap_or(0);
    u32::try_from(whole.max(0)).unwrap_or(u32::MAX)
}

fn max_in_flight(text: Option<&str>) -> Result<Option<u16>, Fault> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.parse() {
        Ok(count @ 1..=IN_FLIGHT_MAX) => Ok(Some(count)),
        _ => Err(Fault::Bad("hub.max_in_flight", format!("it is not a number from 1 to {IN_FLIGHT_MAX}"))),
    }
}

/// The answers after which a message is dead-lettered at once.
///
/// # Errors
/// One of them is not a status, or is a success.
pub fn final_statuses(value: &Value) -> Result<Statuses, Fault> {
    let bad = |rule: String| Fault::Bad("hub.final_statuses", rule);
    let statuses = Statuses::of_json(value).map_err(|not| bad(not.to_string()))?;
    match statuses.lowest() {
        Some(status) if status < FINAL_STATUS_MIN => {
            Err(bad(format!("{status} is below {FINAL_STATUS_MIN}: only 3xx, 4xx and 5xx are failures")))
        }
        Some(_) | None => Ok(statuses),
    }
}

/// RabbitHub's reading: `all`, or the digits it begins with, or none. A negative number, which RabbitHub fell over, is none.
pub fn ha_mode(text: &str) -> HaMode {
    let text = text.trim();
    if text == "all" {
        return HaMode::All;
    }
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    match text[..end].parse() {
        Ok(0) | Err(_) => HaMode::None,
        Ok(count) => HaMode::Count(count),
    }
}

/// What stands behind `Basic `, kept from bringing lines of its own into a request.
fn basic_auth(text: String) -> Result<Hidden, Fault> {
    if text.len() > TEXT_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Fault::Bad("hub.basic_auth", "it is not base64".to_owned()));
    }
    Ok(Hidden(text))
}

/// The key of signatures; an empty text is none.
///
/// # Errors
/// It is too long.
pub fn secret(text: Option<String>) -> Result<Option<Hidden>, Fault> {
    match text {
        Some(text) if text.len() >= SECRET_BYTES_LIMIT => {
            Err(Fault::Bad("hub.secret", format!("it has {SECRET_BYTES_LIMIT} bytes or more")))
        }
        Some(text) if !text.is_empty() => Ok(Some(Hidden(text))),
        Some(_) | None => Ok(None),
    }
}

/// How deliveries are signed.
///
/// # Errors
/// There is no such way.
pub fn signing(text: Option<&str>) -> Result<Signing, Fault> {
    match text.map(|text| text.trim().to_ascii_lowercase()).as_deref() {
        None | Some("" | "sha256") => Ok(Signing::Sha256),
        Some("sha1") => Ok(Signing::Sha1),
        Some("sha384") => Ok(Signing::Sha384),
        Some("sha512") => Ok(Signing::Sha512),
        Some("standard") => Ok(Signing::Standard),
        Some(_) => {
            Err(Fault::Bad("hub.signing", "it is none of sha1, sha256, sha384, sha512, standard".to_owned()))
        }
    }
}

fn contact(contact: Contact, written: Written) -> Result<Option<Contact>, Fault> {
    let Contact { app_name, contact_name, phone, email, description } = &contact;
    let others = [contact_name, phone, email, description];
    if [Some(app_name), contact_name.as_ref(), phone.as_ref(), email.as_ref(), description.as_ref()]
        .into_iter()
        .flatten()
        .any(|text| text.len() > TEXT_BYTES_MAX)
    {
        return Err(Fault::Bad("contact", format!("a part is longer than {TEXT_BYTES_MAX} bytes")));
    }
    if !app_name.is_empty() {
        return Ok(Some(contact));
    }
    if others.iter().any(|text| text.is_some()) {
        return Err(Fault::NoAppName(written));
    }
    Ok(None)
}

fn within(name: &'static str, text: String) -> Result<String, Fault> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Fault::Bad(name, format!("it is longer than {TEXT_BYTES_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
