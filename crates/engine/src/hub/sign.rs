//! Signatures of deliveries: `X-Hub-Signature` (<https://www.w3.org/TR/websub/#authenticated-content-distribution>) and the headers
//! of Standard Webhooks (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use super::subscription::Signing;
use crate::pipeline::outside::Hidden;

/// The prefix of a secret of Standard Webhooks.
const STANDARD_PREFIX: &str = "whsec_";
/// What a secret for [`Signing::Standard`] is.
const STANDARD_RULE: &str = "with signing `standard` it is `whsec_` followed by the base64 (standard alphabet, with padding) of at least one byte";

/// Whether deliveries can be signed in a way with a secret.
///
/// # Errors
/// They cannot: what the secret has to be.
pub fn check(signing: Signing, secret: Option<&Hidden>) -> Result<(), String> {
    match signing {
        Signing::Sha1 | Signing::Sha256 | Signing::Sha384 | Signing::Sha512 => Ok(()),
        Signing::Standard => match secret {
            Some(secret) if standard_key(&secret.0).is_some() => Ok(()),
            Some(_) | None => Err(STANDARD_RULE.to_owned()),
        },
    }
}

/// The key in a secret of Standard Webhooks.
fn standard_key(secret: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(secret.strip_prefix(STANDARD_PREFIX)?).ok()?;
    (!key.is_empty()).then_some(key)
}

/// The headers that sign a body. `id` and `at_s` (seconds since the epoch) are signed with it by Standard Webhooks alone.
pub fn headers(signing: Signing, secret: &str, id: &str, at_s: i64, body: &[u8]) -> Vec<(String, String)> {
    let key = secret.as_bytes();
    let value = match signing {
        Signing::Sha1 => format!("sha1={}", hex(&hmac::<Hmac<Sha1>>(key, &[body]))),
        Signing::Sha256 => format!("sha256={}", hex(&hmac::<Hmac<Sha256>>(key, &[body]))),
        Signing::Sha384 => format!("sha384={}", hex(&hmac::<Hmac<Sha384>>(key, &[body]))),
        Signing::Sha512 => format!("sha512={}", hex(&hmac::<Hmac<Sha512>>(key, &[body]))),
        Signing::Standard => {
            // Subscriptions of earlier versions may have another secret; its text is the key, as it was then.
            let decoded = standard_key(secret);
            let (key, at) = (decoded.as_deref().unwrap_or(key), at_s.to_string());
            let code = hmac::<Hmac<Sha256>>(key, &[id.as_bytes(), b".", at.as_bytes(), b".", body]);
            let named = [
                ("webhook-id", id.to_owned()),
                ("webhook-timestamp", at),
                ("webhook-signature", format!("v1,{}", STANDARD.encode(code))),
            ];
            return named.map(|(name, value)| (name.to_owned(), value)).into();
        }
    };
    vec![("x-hub-signature".to_owned(), value)]
}

fn hmac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("an HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").ok(); // writing to a String does not fail
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2202 (sha1) and RFC 4231 (the others), test case 2.
    #[test]
    fn x_hub_signature_is_the_hmac_of_the_body() {
        let table = [
            (Signing::Sha1, "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (Signing::Sha256, "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            (
                Signing::Sha384,
                "sha384=af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            ),
            (
                Signing::Sha512,
                "sha512=164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
        ];
        for (signing, expected) in table {
            let headers = headers(signing, "Jefe", "id", 0, b"what do ya want for nothing?");
            assert_eq!(headers, [("x-hub-signature".to_owned(), expected.to_owned())]);
        }
    }

    /// The example of the Standard Webhooks reference libraries.
    #[test]
    fn standard_webhooks_sign_id_time_and_body() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let headers = headers(
            Signing::Standard,
            secret,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            b"{\"test\": 2432232314}",
        );
        let value = |name| headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        assert_eq!(value("webhook-id"), Some("msg_p5jXN8AQM9LWM0D4loKWxJek"));
        assert_eq!(value("webhook-timestamp"), Some("1614265330"));
        assert_eq!(value("webhook-signature"), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    #[test]
    fn a_secret_for_standard_webhooks_is_strict_base64_behind_its_prefix() {
        let check = |secret: &str| check(Signing::Standard, Some(&Hidden(secret.to_owned())));
        for good in ["whsec_YWJj", "whsec_YQ==", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_+/+/"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "whsec_",
            "whsec_!!!",
            "whsec_YWJj\n",
            "whsec_YWJj ",
            " whsec_YWJj",
            "whsec_ YWJj",
            "whsec_YW Jj",
            "whsec_YQ",
            "whsec_YQ=",
            "whsec_YQ===",
            "whsec_-_-_",
            "whsec_====",
            "whsec_YR==",
            "WHSEC_YWJj",
            "Whsec_YWJj",
            "v1,whsec_YWJj",
            "whsk_YWJj",
            "YWJj",
            "whsec_YWJj,whsec_YWJj",
            "whsec_ＹＷＪｊ",
        ] {
            let rule = check(bad).unwrap_err();
            assert!(
                rule.contains("whsec_") && (bad.is_empty() || !rule.contains(bad) || bad == "whsec_"),
                "{bad}"
            );
        }
        assert!(super::check(Signing::Standard, None).is_err(), "without a secret nothing is signed");
        assert_eq!(super::check(Signing::Sha256, None), Ok(()));
        assert_eq!(super::check(Signing::Sha1, Some(&Hidden("whsec_!!!".to_owned()))), Ok(()));
    }

    #[test]
    fn any_stored_secret_signs_with_a_key_that_is_not_empty() {
        let unsigned = hmac::<Hmac<Sha256>>(b"", &[b"id", b".", b"0", b".", b""]);
        for secret in ["whsec_", "whsec_not base64", &"x".repeat(500)] {
            let headers = headers(Signing::Standard, secret, "id", 0, b"");
            assert_eq!(headers.len(), 3);
            assert_ne!(headers[2].1, format!("v1,{}", STANDARD.encode(&unsigned)), "{secret}");
        }
    }
}
