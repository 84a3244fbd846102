//! How a request is written down that is granted later. The store encrypts it: this is the one place where its secrets are written, and
//! [`SubscribeRequest`] itself has no written form.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hub::request::{Mode, SubscribeRequest, Verify};
use crate::hub::subscription::{Contact, HaMode, Protocol, Signing, SubscriptionKey};
use crate::message::Headers;
use crate::pipeline::outside::Hidden;
use crate::statuses::Statuses;

pub(super) fn serialize<S: Serializer>(request: &SubscribeRequest, to: S) -> Result<S::Ok, S::Error> {
    StoredRequest::serialize(request, to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Box<SubscribeRequest>, D::Error> {
    StoredRequest::deserialize(from).map(Box::new)
}

/// The fields of a [`SubscribeRequest`]; the compiler sees to it that they are all here.
#[derive(Serialize, Deserialize)]
#[serde(remote = "SubscribeRequest")]
struct StoredRequest {
    key: SubscriptionKey,
    protocol: Protocol,
    #[serde(rename = "unsubscribe", with = "unsubscribe")]
    mode: Mode,
    #[serde(skip, default = "later")]
    verify: Verify,
    #[serde(default)]
    verify_token: Option<String>,
    #[serde(default)]
    lease_seconds: Option<u64>,
    #[serde(default)]
    max_tps: u32,
    #[serde(default)]
    max_in_flight: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    final_statuses: Option<Statuses>,
    #[serde(default)]
    ha_mode: Option<HaMode>,
    #[serde(default, with = "secret")]
    basic_auth: Option<Hidden>,
    #[serde(default, with = "secret")]
    secret: Option<Hidden>,
    signing: Signing,
    #[serde(default)]
    contact: Option<Contact>,
    #[serde(default)]
    arguments: Headers,
    #[serde(default)]
    user: Option<String>,
}

/// What is stored is done later.
fn later() -> Verify {
    Verify::Async
}

/// A mode, as whether it is to unsubscribe.
mod unsubscribe {
    use super::{Deserialize, Deserializer, Mode, Serialize, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(mode: &Mode, to: S) -> Result<S::Ok, S::Error> {
        (*mode == Mode::Unsubscribe).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Mode, D::Error> {
        let unsubscribe = bool::deserialize(from)?;
        Ok(if unsubscribe { Mode::Unsubscribe } else { Mode::Subscribe })
    }
}

/// A secret, as it is.
mod secret {
    use super::{Deserialize, Deserializer, Hidden, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(secret: &Option<Hidden>, to: S) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(|hidden| &hidden.0).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Hidden>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(Hidden))
    }
}
