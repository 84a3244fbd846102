//! How the settings of a queue lose messages: what is lost, and when.

use std::time::Duration;

use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::finding::Finding;

use super::Rabbit;
use super::management::QueueNature;

/// Where a queue sends what it rejects, expires or has no room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DeadLetters {
    /// It has no dead-letter exchange.
    Nowhere,
    /// What it names does not exist.
    Missing(String),
    Somewhere,
}

impl DeadLetters {
    /// Where a queue dead-letters to. What cannot be asked for counts as existing.
    pub(super) async fn of(rabbit: &Rabbit, nature: &QueueNature) -> DeadLetters {
        let missing = |failure: &Failure| failure.kind == FailureKind::NotFound;
        match (nature.text("dead-letter-exchange"), nature.text("dead-letter-routing-key")) {
            (None, _) => DeadLetters::Nowhere,
            (Some(""), Some(queue)) => match rabbit.queue_state(queue).await {
                Err(failure) if missing(&failure) => {
                    DeadLetters::Missing(format!("its dead-letter queue `{queue}` does not exist"))
                }
                _ => DeadLetters::Somewhere,
            },
            (Some(""), None) => DeadLetters::Somewhere, // each message has its own routing key
            (Some(exchange), _) => match rabbit.find_exchange(exchange).await {
                Err(failure) if missing(&failure) => {
                    DeadLetters::Missing(format!("its dead-letter exchange `{exchange}` does not exist"))
                }
                _ => DeadLetters::Somewhere,
            },
        }
    }

    /// Why dead letters are dropped; `None`: they are not.
    pub(super) fn dropped(&self) -> Option<&str> {
        match self {
            DeadLetters::Nowhere => Some("it has no dead-letter exchange"),
            DeadLetters::Missing(what) => Some(what),
            DeadLetters::Somewhere => None,
        }
    }
}

/// What a queue loses by its settings, about `subject`.
pub(super) fn losses(
    subject: &str,
    queue: &str,
    nature: &QueueNature,
    dead_letters: &DeadLetters,
) -> Vec<Finding> {
    if nature.kind == "stream" {
        return Vec::new(); // what it keeps, and for how long, is what a stream is for
    }
    let lost = |what: String, detail: String, remedy: &str| {
        Finding::warning(codes::QUEUE_MISFIT, subject, what).detail(detail).remedy(remedy)
    };
    let mut findings = Vec::new();
    if nature.auto_delete {
        findings.push(lost(
            format!("queue `{queue}` is deleted with its messages when its last consumer ends"),
            "it was declared `auto-delete`: a consumer that restarts or loses its connection is enough"
                .into(),
            "Declare the queue without `auto-delete`.",
        ));
    }
    if let Some(expires) = nature.number("expires") {
        let unused = milliseconds(expires);
        findings.push(lost(
            format!("queue `{queue}` is deleted with its messages after {unused} without a consumer"),
            format!("its `expires` is {expires} ms"),
            "Remove `expires` from the queue or its policy.",
        ));
    }
    if !nature.durable {
        findings.push(lost(
            format!("queue `{queue}` is lost with its messages when the broker restarts"),
            "it is not durable".into(),
            "Declare the queue durable.",
        ));
    }
    let Some(why) = dead_letters.dropped() else { return findings };
    if let Some(ttl) = nature.number("message-ttl") {
        findings.push(lost(
            format!("queue `{queue}` drops messages that wait in it for {}", milliseconds(ttl)),
            format!("its `message-ttl` is {ttl} ms, and {why}"),
            "Give the queue a `dead-letter-exchange` that exists, or remove `message-ttl`.",
        ));
    }
    // With another overflow the publisher is refused, and knows.
    let overflow = nature.text("overflow").unwrap_or("drop-head");
    let limits = ["max-length", "max-length-bytes"];
    let limit = limits.into_iter().find_map(|name| Some((name, nature.number(name)?)));
    if let Some((name, limit)) = limit.filter(|_| overflow == "drop-head") {
        findings.push(lost(
            format!("queue `{queue}` drops its oldest message when it is full"),
            format!("its `{name}` is {limit}, its `overflow` is {overflow}, and {why}"),
            "Set `overflow: reject-publish` by a policy, or give the queue a `dead-letter-exchange` that exists.",
        ));
    }
    findings
}

fn milliseconds(number: i64) -> String {
    format!("{:?}", Duration::from_millis(u64::try_from(number).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn said(queue: &Value, dead_letters: &DeadLetters) -> Vec<String> {
        let nature: QueueNature = serde_json::from_value(queue.clone()).unwrap();
        let findings = losses("q", "q", &nature, dead_letters);
        findings.into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn each_setting_that_loses_messages_is_named() {
        let cases = [
            (json!({}), vec![]),
            (
                json!({"auto_delete": true}),
                vec!["queue `q` is deleted with its messages when its last consumer ends"],
            ),
            (json!({"durable": false}), vec!["queue `q` is lost with its messages when the broker restarts"]),
            (
                json!({"arguments": {"x-expires": 90000}}),
                vec!["queue `q` is deleted with its messages after 90s without a consumer"],
            ),
            (
                json!({"arguments": {"x-message-ttl": 1500}}),
                vec!["queue `q` drops messages that wait in it for 1.5s"],
            ),
            (
                json!({"effective_policy_definition": {"max-length-bytes": 10}}),
                vec!["queue `q` drops its oldest message when it is full"],
            ),
            (json!({"arguments": {"x-max-length": 10, "x-overflow": "reject-publish"}}), vec![]),
            (json!({"type": "stream", "arguments": {"x-max-length-bytes": 10}}), vec![]),
        ];
        for (queue, expected) in cases {
            assert_eq!(said(&queue, &DeadLetters::Nowhere), expected, "{queue}");
        }
    }

    #[test]
    fn a_dead_letter_exchange_keeps_what_expires_or_has_no_room_if_it_exists() {
        let queue = json!({"arguments": {"x-message-ttl": 1, "x-max-length": 1}, "auto_delete": true});
        assert_eq!(said(&queue, &DeadLetters::Somewhere).len(), 1, "the queue can still be deleted");
        assert_eq!(said(&queue, &DeadLetters::Missing("gone".into())).len(), 3);
    }
}
