//! What a login may do, name by name: its rights are three patterns, for making, writing and reading.

use warren_engine::codes;
use warren_engine::finding::{Finding, Severity};
use warren_engine::hub::ports::Right;
use warren_engine::ports::Wanted;

use super::management::Permission;
use crate::kit::permission::Pattern;
use crate::kit::users::DEFAULT_EXCHANGE;

/// The word for a right in `rabbitmqctl set_permissions`.
fn word(right: Right) -> &'static str {
    match right {
        Right::Configure => "configure",
        Right::Write => "write",
        Right::Read => "read",
    }
}

impl Permission {
    fn pattern(&self, right: Right) -> &str {
        match right {
            Right::Configure => &self.configure,
            Right::Write => &self.write,
            Right::Read => &self.read,
        }
    }

    /// Whether a pattern allows a name. A pattern that only Erlang understands is taken to allow it: the broker will tell.
    pub(super) fn allows(&self, right: Right, name: &str) -> bool {
        Pattern::new(self.pattern(right)).matches(name).unwrap_or(true)
    }

    /// A right that is missing, as a finding about `subject`.
    pub(super) fn missing(&self, right: Right, of: &str, name: &str, subject: &str) -> Option<Finding> {
        if self.allows(right, name) {
            return None;
        }
        let verb = match right {
            Right::Configure => "make",
            Right::Write => "write to",
            Right::Read => "read from",
        };
        let what = format!("the user `{}` may not {verb} {of} `{name}`", self.user);
        let detail =
            format!("its {} permission in vhost `{}` is `{}`", word(right), self.vhost, self.pattern(right));
        let remedy = "Give the user the permission with `rabbitmqctl set_permissions`.";
        Some(Finding::error(codes::ACCESS_REFUSED, subject, what).detail(detail).remedy(remedy))
    }
}

/// What a consumer will not be allowed to do.
pub(super) fn of_consumer(
    permission: &Permission,
    wanted: &Wanted,
    dead_letters_are_there: bool,
) -> Vec<Finding> {
    let subject = format!("queue `{}`", wanted.queue);
    let mut findings = Vec::new();
    findings.extend(permission.missing(Right::Read, "queue", &wanted.queue, &subject));
    if let Some(queue) = &wanted.dead_letter_queue {
        // Only this: nothing else is published where messages wait in the parking lot.
        findings.extend(permission.missing(Right::Write, "exchange", DEFAULT_EXCHANGE, &subject).map(
            |finding| {
                finding.detail(format!(
                    "dead letters go through it to queue `{queue}`, and messages cannot be given up"
                ))
            },
        ));
        if !dead_letters_are_there {
            findings.extend(permission.missing(Right::Configure, "queue", queue, &subject));
        }
    }
    findings.extend(delay_queues(permission, wanted, &subject));
    findings
}

/// A delay queue is made by whoever may make it, read what it leads back to, and write to the exchange it leads back by.
fn delay_queues(permission: &Permission, wanted: &Wanted, subject: &str) -> Option<Finding> {
    let not_made = wanted.delay_queues.iter().find(|name| !permission.allows(Right::Configure, name));
    let what = match not_made {
        Some(_) if permission.configure.is_empty() => "the user may make no queues".to_owned(),
        Some(name) => format!("the user may not make queue `{name}`"),
        None if wanted.delay_queues.is_empty() => return None,
        None if !permission.allows(Right::Write, DEFAULT_EXCHANGE) => {
            format!("the user may not write to exchange `{DEFAULT_EXCHANGE}`")
        }
        None => return None,
    };
    let what = format!("{what}: messages wait for their next try in the local parking lot");
    Some(Finding { severity: Severity::Note, ..Finding::warning(codes::ACCESS_REFUSED, subject, what) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(configure: &str, write: &str, read: &str) -> Permission {
        Permission {
            user: "u".into(),
            vhost: "v".into(),
            configure: configure.into(),
            write: write.into(),
            read: read.into(),
        }
    }

    #[test]
    fn patterns_match_anywhere_and_an_empty_one_nowhere() {
        let rights = permission("", "^amq\\.default$", "in");
        assert!(rights.allows(Right::Read, "in") && rights.allows(Right::Read, "begin.x"));
        assert!(!rights.allows(Right::Read, "orders"));
        assert!(rights.allows(Right::Write, "amq.default") && !rights.allows(Right::Write, "amq_default"));
        assert!(!rights.allows(Right::Configure, "x"));
        let erlang = permission("", "", "^(?!secret)");
        assert!(erlang.allows(Right::Read, "orders"), "nobody here can tell");
    }
}
