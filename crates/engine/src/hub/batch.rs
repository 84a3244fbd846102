//! Subscriptions as JSON, out and in: the export of RabbitHub, which ours extends, and the import of either.
//!
//! An import is read entry by entry. What is wrong with one is said in its own result and keeps no other from being imported; RabbitHub
//! dropped the connection with some of them applied.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::params::{self, Fault, Fields, JsonFault, Manner, Written, lenient};
use super::request::{ImportEntry, SubscribeRequest};
use super::resource::{Resource, ResourceKind};
use super::subscription::{Contact, HaMode, Protocol, Signing, Subscription, SubscriptionState, WhyInactive};
use super::typed;

/// What stands in the place of a secret.
pub const HIDDEN: &str = "***";
/// The state of an active subscription that is not delivered to at the moment.
const WAITING: &str = "waiting";
/// What RabbitHub wrote for nothing.
const UNDEFINED: &str = "undefined";

/// Whether an export shows secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// As `***`.
    Hidden,
    /// As they are.
    Revealed,
}

/// What an export says of an active subscription that is not delivered to at the moment.
#[derive(Debug, Clone, Copy)]
pub struct Waiting<'w> {
    /// Why.
    pub because: &'w str,
    /// Whether `status` is `waiting`; RabbitHub's clients know `active` and `inactive` only.
    pub in_status: bool,
}

/// One entry of an export. Members that RabbitHub had not stand there only where there is something to say.
pub fn entry(subscription: &Subscription, secrets: Secrets, waiting: Option<Waiting<'_>>) -> Value {
    let waiting = waiting.filter(|_| subscription.is_active());
    let status = match (subscription.is_active(), waiting) {
        (true, Some(Waiting { in_status: true, .. })) => WAITING,
        (true, _) => "active",
        (false, _) => "inactive",
    };
    let key = &subscription.key;
    let shown = |secret: &str| match secrets {
        Secrets::Hidden => HIDDEN.to_owned(),
        Secrets::Revealed => secret.to_owned(),
    };
    let mut entry = json!({
        "vhost": key.resource.vhost,
        "resource_type": key.resource.kind.as_str(),
        "resource_name": key.resource.name,
        "topic": key.topic,
        "callback": key.callback,
        "lease_expiry_time_microsec": subscription.expires_at_ms.saturating_mul(1000),
        "lease_seconds": subscription.lease_seconds,
        "ha_mode": ha_mode(subscription.ha_mode),
        "max_tps": subscription.max_tps,
        "status": status,
        "pseudo_queue": subscription.pseudo_queue.as_deref().unwrap_or("[undefined]"),
        "outbound_auth": match &subscription.basic_auth {
            Some(auth) => json!({ "auth_type": "basic_auth", "auth_config": shown(&auth.0) }),
            None => UNDEFINED.into(),
        },
        "contact": contact(subscription),
    });
    if let Value::Object(members) = &mut entry {
        extend(members, subscription, shown);
        if let Some(waiting) = waiting {
            members.insert("waiting_because".to_owned(), waiting.because.into());
        }
    }
    entry
}

fn extend(members: &mut Map<String, Value>, subscription: &Subscription, shown: impl Fn(&str) -> String) {
    let mut set = |name: &str, value: Value| members.insert(name.to_owned(), value);
    if let SubscriptionState::Inactive(why) = &subscription.state {
        set("inactive_because", json!(why));
    }
    if subscription.protocol == Protocol::Websub {
        set("protocol", json!(subscription.protocol));
    }
    if let Some(count) = subscription.max_in_flight {
        set("max_in_flight", count.into());
    }
    if let Some(statuses) = &subscription.final_statuses {
        set("final_statuses", json!(statuses));
    }
    if let Some(secret) = &subscription.secret {
        set("secret", shown(&secret.0).into());
        set("signing", json!(subscription.signing));
    } else if subscription.signing != Signing::Sha256 {
        set("signing", json!(subscription.signing));
    }
    if !subscription.arguments.is_empty() {
        set("arguments", typed::json(&subscription.arguments));
    }
    if let Some(user) = &subscription.user {
        set("user", user.as_str().into());
    }
}

fn ha_mode(mode: HaMode) -> Value {
    match mode {
        HaMode::None => "none".into(),
        HaMode::All => "all".into(),
        HaMode::Count(count) => count.into(),
    }
}

fn contact(subscription: &Subscription) -> Value {
    let Some(contact) = &subscription.contact else { return UNDEFINED.into() };
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| UNDEFINED.to_owned());
    json!({
        "app_name": contact.app_name,
        "contact_name": or(&contact.contact_name),
        "phone": or(&contact.phone),
        "email": or(&contact.email),
        "description": or(&contact.description),
    })
}

/// One entry of `/subscriptions/errors`. Names are RabbitHub's: `resource` is the virtual host, `queue` the resource.
pub fn error_entry(subscription: &Subscription) -> Value {
    let (key, errors) = (&subscription.key, &subscription.errors);
    json!({
        "resource": key.resource.vhost,
        "queue": key.resource.name,
        "topic": key.topic,
        "callback": key.callback,
        "error_count": errors.count,
        "first_error_time_microsec": errors.first_at_ms.saturating_mul(1000),
        "last_error_time_microsec": errors.last_at_ms.saturating_mul(1000),
        "last_error_msg": errors.last_message,
    })
}

/// An entry of an import.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its identity as it was given, for the result.
    pub identity: Value,
    /// What it asks, or what is wrong with it.
    pub entry: Result<ImportEntry, String>,
    /// Secrets that were exported as `***`: those of the subscription that is there are to stay.
    pub keeps: Keeps,
}

/// Which secrets are to stay as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keeps {
    /// `outbound_auth`
    pub basic_auth: bool,
    /// `secret`
    pub secret: bool,
}

/// Reads an import: an object whose first member is an array, whatever it is called, or the array alone. Of entries for the same
/// subscription the last one counts.
///
/// # Errors
/// It is no JSON, or of another shape.
pub fn rows(bytes: &[u8]) -> Result<Vec<Row>, JsonFault> {
    let entries = match lenient(bytes)? {
        Value::Array(entries) => entries,
        value => match params::first_member(value) {
            Some(Value::Array(entries)) => entries,
            _ => return Err(JsonFault),
        },
    };
    let mut rows: Vec<Row> = Vec::with_capacity(entries.len());
    let mut places = BTreeMap::new();
    for row in entries.iter().map(row) {
        let key = row.entry.as_ref().ok().map(|entry| entry.request.key.clone());
        if let Some(&place) = key.as_ref().and_then(|key| places.get(key)) {
            rows[place] = row;
        } else {
            key.map(|key| places.insert(key, rows.len()));
            rows.push(row);
        }
    }
    Ok(rows)
}

fn row(value: &Value) -> Row {
    let empty = Map::new();
    let members = value.as_object().unwrap_or(&empty);
    let text = |name: &str| members.get(name).and_then(params::scalar);
    let identity = ["vhost", "resource_type", "resource_name", "topic", "callback"]
        .map(|name| (name.to_owned(), text(name).map_or(Value::Null, Value::from)));
    let mut keeps = Keeps::default();
    let entry = read(members, &mut keeps);
    Row { identity: Value::Object(identity.into_iter().collect()), entry, keeps }
}

fn read(members: &Map<String, Value>, keeps: &mut Keeps) -> Result<ImportEntry, String> {
    let text = |name: &str| members.get(name).and_then(params::scalar);
    let needed = |name: &str| text(name).ok_or_else(|| format!("{name} is missing"));
    let kind = match needed("resource_type")?.as_str() {
        "queue" => ResourceKind::Queue,
        "exchange" => ResourceKind::Exchange,
        other => return Err(format!("resource_type `{other}` is neither queue nor exchange")),
    };
    let resource = Resource { vhost: needed("vhost")?, kind, name: needed("resource_name")? };
    let websub = text("protocol").as_deref() == Some("websub");
    let mut fields = Fields::of_members(members);
    fields.mode = Some("subscribe".to_owned());
    fields.verify = vec!["sync".to_owned()];
    fields.basic_auth = basic_auth(members.get("outbound_auth"))?;
    if fields.basic_auth.as_deref() == Some(HIDDEN) {
        fields.basic_auth = None;
        keeps.basic_auth = true;
    }
    if fields.secret.as_deref() == Some(HIDDEN) {
        fields.secret = None;
        keeps.secret = true;
    }
    // RabbitHub dropped a contact without a name.
    if fields.contact.app_name.is_empty() {
        fields.contact = Contact::default();
    }
    let manner = if websub { Manner::Websub } else { Manner::Own };
    let request = params::request(&resource, fields, manner, Written::Json).map_err(said)?;
    let request = SubscribeRequest { user: text("user"), ..request };
    let state = match text("status").as_deref() {
        None | Some("active" | WAITING) => SubscriptionState::Active,
        Some(_) => SubscriptionState::Inactive(WhyInactive::Imported),
    };
    Ok(ImportEntry { request, state })
}

fn basic_auth(value: Option<&Value>) -> Result<Option<String>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text == UNDEFINED => Ok(None),
        Some(Value::Object(auth)) if auth.get("auth_type").is_some_and(|kind| kind == "basic_auth") => auth
            .get("auth_config")
            .and_then(params::scalar)
            .map(Some)
            .ok_or("auth_config is missing".to_owned()),
        Some(_) => Err("outbound_auth is not of auth_type basic_auth".to_owned()),
    }
}

fn said(fault: Fault) -> String {
    match fault {
        Fault::Missing(name) => format!("{} is missing", name.trim_start_matches("hub.")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
