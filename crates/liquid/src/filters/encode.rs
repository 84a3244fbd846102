//! Encodings and digests. Bytes are taken as they are, everything else as the text it prints.

use std::borrow::Cow;

use ::base64::Engine as _;
use ::base64::engine::general_purpose::{STANDARD, URL_SAFE};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::{Given, Refusal, Work};
use crate::held::{Held, Text};

type Result<'r> = std::result::Result<Held<'r>, Refusal>;

fn bytes<'h>(held: &'h Held<'_>) -> Cow<'h, [u8]> {
    match held {
        Held::Bytes(bytes) => Cow::Borrowed(bytes),
        Held::OwnBytes(bytes) => Cow::Borrowed(bytes),
        other => match other.text() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        },
    }
}

fn hex<'r>(digest: &[u8]) -> Held<'r> {
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    Held::own_str(digits.map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')).collect::<String>())
}

fn utf8<'r>(bytes: Vec<u8>, what: &str) -> Result<'r> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Held::own_str(text)),
        Err(_) => Err(Refusal::Cannot(format!("the decoded {what} is not UTF-8 text"))),
    }
}

/// JSON text of a value; where a value stands it is embedded, not quoted again.
pub(super) fn json<'r>(input: &Held<'r>, _: &Given<'r>, _: &mut Work<'_>) -> Result<'r> {
    let mut out = Vec::new();
    input.write_json(&mut out).map_err(|error| Refusal::NoJson(error.to_string()))?;
    Ok(Held::Written(Text::Own(String::from_utf8_lossy(&out).into())))
}

pub(super) fn base64<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    Held::own_str(STANDARD.encode(bytes(input)))
}

pub(super) fn base64_url_safe<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    Held::own_str(URL_SAFE.encode(bytes(input)))
}

pub(super) fn base64_decode<'r>(input: &Held<'r>, _: &Given<'r>, _: &mut Work<'_>) -> Result<'r> {
    let decoded = STANDARD.decode(input.text().as_bytes());
    utf8(decoded.map_err(|_| Refusal::Cannot("the text is not base64".to_owned()))?, "base64")
}

pub(super) fn base64_url_safe_decode<'r>(input: &Held<'r>, _: &Given<'r>, _: &mut Work<'_>) -> Result<'r> {
    let decoded = URL_SAFE.decode(input.text().as_bytes());
    utf8(decoded.map_err(|_| Refusal::Cannot("the text is not URL-safe base64".to_owned()))?, "base64")
}

pub(super) fn sha256<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    hex(&Sha256::digest(bytes(input)))
}

pub(super) fn hmac_sha256<'r>(input: &Held<'r>, given: &Given<'r>, _: &mut Work<'_>) -> Result<'r> {
    let key = given.get(0).map_or(Cow::Borrowed(&b""[..]), bytes);
    let mut mac = Hmac::<Sha256>::new_from_slice(&key)
        .map_err(|_| Refusal::Arguments("the key cannot be used".to_owned()))?;
    mac.update(&bytes(input));
    Ok(hex(&mac.finalize().into_bytes()))
}

pub(super) fn url_encode<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    if matches!(input, Held::Nil) {
        return Held::Nil;
    }
    let mut out = String::new();
    for byte in input.text().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'*' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            other => {
                out.push('%');
                for digit in [other >> 4, other & 15] {
                    out.push(char::from_digit(digit.into(), 16).unwrap_or('0').to_ascii_uppercase());
                }
            }
        }
    }
    Held::own_str(out)
}

pub(super) fn url_decode<'r>(input: &Held<'r>, _: &Given<'r>, _: &mut Work<'_>) -> Result<'r> {
    if matches!(input, Held::Nil) {
        return Ok(Held::Nil);
    }
    let text = input.text();
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            (other, ..) => out.push(*other),
        }
        at += 1;
    }
    utf8(out, "URL text")
}
