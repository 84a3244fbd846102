//! Tokens by which one hub lets another one subscribe (RabbitHub's `hub.verify_token`): who holds one may, for some minutes, have this
//! resource subscribed or unsubscribed.
//!
//! A token is nonce (16 bytes), sealed claim, mark (32 bytes), in base64url. The claim is encrypted with HMAC-SHA256 in counter mode
//! and the whole is marked with HMAC-SHA256 under another key, so nobody reads the name of a resource from it, and none can be made
//! without the key. RabbitHub's named the resource for all to read.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::request::Mode;
use super::resource::Resource;

const NONCE: usize = 16;
const MARK: usize = 32;
/// The longest token that is looked at, in characters.
const TOKEN_MAX: usize = 8192;
/// The longest extra data, in bytes.
pub const DATA_BYTES_MAX: usize = 1024;

/// The key of a hub's tokens.
pub struct TokenKey {
    seal: [u8; 32],
    mark: [u8; 32],
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// What may be done.
    #[serde(rename = "u")]
    unsubscribe: bool,
    /// With what.
    #[serde(rename = "r")]
    pub resource: Resource,
    /// When it was made, in milliseconds since the epoch.
    #[serde(rename = "t")]
    pub made_at_ms: i64,
    /// What the one who asked for it added (`rabbithub.data`).
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

impl Claim {
    /// A claim.
    pub fn new(mode: Mode, resource: Resource, made_at_ms: i64, data: Option<String>) -> Claim {
        Claim { unsubscribe: mode == Mode::Unsubscribe, resource, made_at_ms, data }
    }

    /// What may be done.
    pub fn mode(&self) -> Mode {
        if self.unsubscribe { Mode::Unsubscribe } else { Mode::Subscribe }
    }
}

impl TokenKey {
    /// The key made of a secret of any length.
    pub fn new(secret: &[u8]) -> TokenKey {
        TokenKey { seal: mac(secret, &[b"warren token seal"]), mark: mac(secret, &[b"warren token mark"]) }
    }

    /// A token that says this. The nonce is random and used once.
    pub fn token(&self, claim: &Claim, nonce: [u8; NONCE]) -> String {
        // A claim is texts and numbers: it has JSON.
        let mut body = serde_json::to_vec(claim).unwrap_or_default();
        self.seal(&nonce, &mut body);
        let mark = mac(&self.mark, &[&nonce, &body]);
        URL_SAFE_NO_PAD.encode([&nonce[..], &body, &mark].concat())
    }

    /// What a token says; `None`: it is none of ours, or older than `age_ms_max`.
    pub fn read(&self, token: &str, now_ms: i64, age_ms_max: i64) -> Option<Claim> {
        if token.len() > TOKEN_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (nonce, rest) = bytes.split_first_chunk::<NONCE>()?;
        let (body, mark) = rest.split_last_chunk::<MARK>()?;
        let mut check = keyed(&self.mark);
        check.update(nonce);
        check.update(body);
        // Compares in constant time.
        check.verify_slice(mark).ok()?;
        let mut body = body.to_vec();
        self.seal(nonce, &mut body);
        let claim: Claim = serde_json::from_slice(&body).ok()?;
        let age_ms = now_ms.checked_sub(claim.made_at_ms)?;
        // A clock that was set back makes no token older than it is.
        (age_ms.abs() <= age_ms_max).then_some(claim)
    }

    fn seal(&self, nonce: &[u8; NONCE], body: &mut [u8]) {
        for (number, block) in body.chunks_mut(32).enumerate() {
            let pad = mac(&self.seal, &[nonce, &(number as u64).to_be_bytes()]);
            block.iter_mut().zip(pad).for_each(|(byte, pad)| *byte ^= pad);
        }
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = keyed(key);
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim() -> Claim {
        Claim::new(Mode::Subscribe, Resource::queue("/", "secret-name"), 1_000, Some("extra".to_owned()))
    }

    #[test]
    fn a_token_says_what_was_claimed_for_its_time() {
        let key = TokenKey::new(b"key");
        let token = key.token(&claim(), [9; 16]);
        assert_eq!(key.read(&token, 1_000, 300_000), Some(claim()));
        assert_eq!(key.read(&token, 301_000, 300_000), Some(claim()));
        assert_eq!(key.read(&token, 301_001, 300_000), None);
        assert_eq!(TokenKey::new(b"other").read(&token, 1_000, 300_000), None);
        assert_eq!(key.read(&token, i64::MIN, 300_000), None);
    }

    #[test]
    fn a_token_does_not_tell_the_name_and_cannot_be_changed() {
        let key = TokenKey::new(b"key");
        let token = key.token(&claim(), [9; 16]);
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(key.read(&URL_SAFE_NO_PAD.encode(changed), 1_000, 300_000), None);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_no_token(text in "\\PC*") {
            prop_assert_eq!(TokenKey::new(b"key").read(&text, 0, i64::MAX), None);
        }
    }
}
