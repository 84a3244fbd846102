//! Asking a callback whether it agrees: the verification of intent of PubSubHubbub and WebSub
//! (<https://www.w3.org/TR/websub/#hub-verifies-intent>).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use super::callback;
use super::registry::Random;
use super::request::{Mode, NotVerified};
use super::subscription::SubscriptionKey;
use crate::codes;
use crate::failure::{Failure, FailureKind};
use crate::pipeline::outside::{AddressGuard, CallOptions, Hidden, HttpRequest};
use crate::ports::HttpCaller;

/// How long connecting to a callback may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a callback has to answer, connecting included.
pub const TIMEOUT: Duration = Duration::from_secs(15);
/// The most that is read of an answer. A challenge is far shorter.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What a callback is asked.
#[derive(Debug)]
pub struct Question<'q> {
    /// The callback.
    pub callback: &'q str,
    /// What is to happen.
    pub mode: Mode,
    /// The topic.
    pub topic: &'q str,
    /// The lease that would be granted.
    pub lease_seconds: Option<u64>,
    /// What the subscriber wants to hear back.
    pub verify_token: Option<&'q str>,
    /// What stands behind `Basic `.
    pub basic_auth: Option<&'q Hidden>,
}

/// 32 random bytes as text that stays as it is in a URL.
pub fn challenge(random: &Random) -> String {
    let mut bytes = [0; 32];
    random(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Asks a callback, once. It agrees with any 2xx whose body is the challenge, byte for byte; redirects are no answer.
///
/// # Errors
/// It did not agree, or nothing was heard of it.
pub async fn ask(
    http: &dyn HttpCaller,
    guard: AddressGuard,
    question: &Question<'_>,
    challenge: &str,
) -> Result<(), NotVerified> {
    let request = HttpRequest {
        method: "GET".to_owned(),
        url: url(question, challenge),
        headers: Vec::new(),
        authorization: question.basic_auth.map(|basic| Hidden(format!("Basic {}", basic.0))),
        body: Bytes::new(),
        guard: Some(guard),
        answer_bytes_max: ANSWER_BYTES_MAX,
        options: options(),
    };
    let answer = match tokio::time::timeout(TIMEOUT, http.call(&request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(failure)) => return Err(NotVerified::Unreachable(failure)),
        Err(_) => return Err(NotVerified::Unreachable(late(question.callback))),
    };
    match answer.status {
        200..=299 if same(&answer.body, challenge.as_bytes()) => Ok(()),
        200..=299 => Err(NotVerified::ChallengeMismatch),
        status => Err(NotVerified::Status(status)),
    }
}

/// Tells a callback, once, that it will hear nothing of a topic; what it answers does not count.
///
/// # Errors
/// Nobody was reached.
pub async fn deny(
    http: &dyn HttpCaller,
    guard: AddressGuard,
    key: &SubscriptionKey,
    reason: &str,
) -> Result<(), Failure> {
    let parameters = [("hub.mode", "denied"), ("hub.topic", key.topic.as_str()), ("hub.reason", reason)];
    let request = HttpRequest {
        method: "GET".to_owned(),
        url: callback::with_parameters(&key.callback, parameters),
        headers: Vec::new(),
        authorization: None,
        body: Bytes::new(),
        guard: Some(guard),
        answer_bytes_max: ANSWER_BYTES_MAX,
        options: options(),
    };
    match tokio::time::timeout(TIMEOUT, http.call(&request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(late(&key.callback)),
    }
}

fn options() -> CallOptions {
    CallOptions {
        connect_timeout: Some(CONNECT_TIMEOUT),
        timeout: Some(TIMEOUT),
        cut_answer: true,
        again_if_stale: true,
    }
}

fn late(callback: &str) -> Failure {
    let what = format!("ask {}", callback::shown(callback));
    let late = Failure::new(FailureKind::Timeout, codes::DEADLINE_PASSED, what);
    late.detail(format!("no answer within {TIMEOUT:?}"))
}

/// The parameters in RabbitHub's order.
fn url(question: &Question<'_>, challenge: &str) -> String {
    let lease = question.lease_seconds.map(|seconds| seconds.to_string());
    let parameters = [
        ("hub.verify_token", question.verify_token),
        ("hub.mode", Some(question.mode.as_str())),
        ("hub.topic", Some(question.topic)),
        ("hub.challenge", Some(challenge)),
        ("hub.lease_seconds", lease.as_deref()),
    ];
    let given = parameters.iter().filter_map(|(name, value)| value.map(|value| (*name, value)));
    callback::with_parameters(question.callback, given)
}

/// Whether two texts are one, in a time that does not tell where they differ.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0u8, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && std::hint::black_box(differences) == 0
}

impl NotVerified {
    /// Whether asking again may help: nobody was reached, or somebody who was not well. One who says no has answered.
    pub fn may_pass(&self) -> bool {
        match self {
            NotVerified::ChallengeMismatch => false,
            NotVerified::Status(status) => matches!(status, 408 | 425 | 429 | 500..=599),
            NotVerified::Unreachable(failure) => failure.code != codes::ADDRESS_REFUSED,
        }
    }
}

impl std::fmt::Display for NotVerified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NotVerified::ChallengeMismatch => {
                f.write_str("it answered with something else than the challenge")
            }
            NotVerified::Status(status) => write!(f, "it answered {status}"),
            NotVerified::Unreachable(failure) => write!(f, "{failure}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_has_rabbithubs_parameters_in_its_order() {
        let question = Question {
            callback: "http://h/p?own=1",
            mode: Mode::Subscribe,
            topic: "a b#c",
            lease_seconds: Some(60),
            verify_token: Some("t"),
            basic_auth: None,
        };
        assert_eq!(
            url(&question, "CH"),
            "http://h/p?own=1&hub.verify_token=t&hub.mode=subscribe&hub.topic=a+b%23c&hub.challenge=CH&hub.lease_seconds=60"
        );
        let bare = Question { lease_seconds: None, verify_token: None, mode: Mode::Unsubscribe, ..question };
        assert_eq!(
            url(&bare, "CH"),
            "http://h/p?own=1&hub.mode=unsubscribe&hub.topic=a+b%23c&hub.challenge=CH"
        );
    }

    #[test]
    fn texts_are_the_same_byte_for_byte() {
        assert!(same(b"abc", b"abc") && same(b"", b""));
        for (one, other) in [("abc", "abd"), ("abc", "ab"), ("abc\n", "abc"), ("", "a")] {
            assert!(!same(one.as_bytes(), other.as_bytes()));
        }
    }

    #[test]
    fn each_challenge_is_another() {
        let next = std::sync::atomic::AtomicU8::new(0);
        let random =
            move |bytes: &mut [u8]| bytes.fill(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let (one, other) = (challenge(&random), challenge(&random));
        assert!(one != other && one.len() == 43);
    }

    #[test]
    fn a_no_is_an_answer_and_silence_is_none() {
        for (status, again) in
            [(404, false), (301, false), (400, false), (500, true), (503, true), (429, true)]
        {
            assert_eq!(NotVerified::Status(status).may_pass(), again, "{status}");
        }
        assert!(!NotVerified::ChallengeMismatch.may_pass());
        let failure = |code| Failure::new(FailureKind::Disconnected, code, "call");
        assert!(NotVerified::Unreachable(failure(codes::CONNECTION_LOST)).may_pass());
        assert!(!NotVerified::Unreachable(failure(codes::ADDRESS_REFUSED)).may_pass());
    }
}
