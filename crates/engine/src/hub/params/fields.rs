//! Pairs of a form or a query, and what of them asks for a subscription.

use percent_encoding::percent_decode;
use serde_json::Value;

use crate::hub::subscription::Contact;

/// What stands between pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separators {
    /// `&` (<https://url.spec.whatwg.org/#urlencoded-parsing>)
    Ampersand,
    /// `&` or `;`, as RabbitHub's server had it.
    AmpersandOrSemicolon,
}

/// The decoded pairs of a form or a query, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// Reads a form. Nothing is an error: an escape that is none stays, bytes that are not UTF-8 are replaced.
    pub fn read(bytes: &[u8], separators: Separators) -> Form {
        let pairs = bytes
            .split(|byte| *byte == b'&' || (*byte == b';' && separators == Separators::AmpersandOrSemicolon))
            .filter(|pair| !pair.is_empty())
            .map(|pair| match pair.iter().position(|byte| *byte == b'=') {
                Some(at) => (decoded(&pair[..at]), decoded(&pair[at + 1..])),
                None => (decoded(pair), String::new()),
            });
        Form(pairs.collect())
    }

    /// The value of a name: the first, where it stands more than once.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// All values of a name, in order.
    pub fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Whether there is a pair.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn decoded(text: &[u8]) -> String {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).decode_utf8_lossy().into_owned()
}

/// What asks for a subscription, as texts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields {
    /// `hub.mode`
    pub mode: Option<String>,
    /// `hub.callback`
    pub callback: Option<String>,
    /// `hub.topic`
    pub topic: Option<String>,
    /// `hub.verify`, each of them.
    pub verify: Vec<String>,
    /// `hub.verify_token`
    pub verify_token: Option<String>,
    /// `hub.lease_seconds`
    pub lease_seconds: Option<String>,
    /// `hub.max_tps`
    pub max_tps: Option<String>,
    /// `hub.max_in_flight`
    pub max_in_flight: Option<String>,
    /// `hub.final_statuses`: in a form a text with commas.
    pub final_statuses: Option<Value>,
    /// `hub.ha_mode`
    pub ha_mode: Option<String>,
    /// `hub.basic_auth`
    pub basic_auth: Option<String>,
    /// `hub.secret`
    pub secret: Option<String>,
    /// `hub.signing`
    pub signing: Option<String>,
    /// `hub.arguments`: in a form, JSON in text. Text that is no JSON is kept as text.
    pub arguments: Option<Value>,
    /// `hub.app_name` and the others.
    pub contact: Contact,
}

impl Fields {
    /// Of a form. Empty contact fields count as not given.
    pub fn of_form(form: &Form) -> Fields {
        let text = |name: &str| form.first(name).map(str::to_owned);
        let filled = |name: &str| text(name).filter(|text| !text.is_empty());
        Fields {
            mode: text("hub.mode"),
            callback: text("hub.callback"),
            topic: text("hub.topic"),
            verify: form.all("hub.verify").map(str::to_owned).collect(),
            verify_token: text("hub.verify_token"),
            lease_seconds: text("hub.lease_seconds"),
            max_tps: text("hub.max_tps"),
            max_in_flight: text("hub.max_in_flight"),
            final_statuses: filled("hub.final_statuses").map(Value::String),
            ha_mode: text("hub.ha_mode"),
            basic_auth: text("hub.basic_auth"),
            secret: text("hub.secret"),
            signing: text("hub.signing"),
            arguments: filled("hub.arguments")
                .map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))),
            contact: Contact {
                app_name: text("hub.app_name").unwrap_or_default(),
                contact_name: filled("hub.contact_name"),
                phone: filled("hub.phone"),
                email: filled("hub.email"),
                description: filled("hub.description"),
            },
        }
    }
}
