//! RabbitMQ's patterns of names: which queues, exchanges and keys a user may use.
//!
//! RabbitMQ matches with Erlang's `re`, which is PCRE without UTF mode: byte by byte, unanchored, and an empty pattern stands for
//! `^$`. Here they run in time that grows with the text alone. What cannot be matched so (look-around, back references), or would mean
//! something else here, is not guessed: it is a failure.

use regex::bytes::{Regex, RegexBuilder};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::hub::ports::Right;

/// A compiled pattern is at most so large.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// What a user may do in a vhost.
#[derive(Debug, Clone)]
pub(crate) struct Rights {
    pub(crate) configure: Pattern,
    pub(crate) write: Pattern,
    pub(crate) read: Pattern,
}

impl Rights {
    /// The pattern for a right.
    pub(crate) fn of(&self, right: Right) -> &Pattern {
        match right {
            Right::Configure => &self.configure,
            Right::Write => &self.write,
            Right::Read => &self.read,
        }
    }
}

/// A pattern of names.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    text: String,
    compiled: Result<Regex, String>,
}

impl Pattern {
    /// Reads a pattern. One that cannot be used says so when it is asked.
    pub(crate) fn new(text: &str) -> Pattern {
        let compiled = match strange(text) {
            Some(what) => Err(format!("`{what}` means something else in it than to RabbitMQ")),
            None => RegexBuilder::new(if text.is_empty() { "^$" } else { text })
                .unicode(false)
                .size_limit(COMPILED_BYTES_MAX)
                .build()
                .map_err(|error| error.to_string().lines().last().unwrap_or_default().trim().to_owned()),
        };
        Pattern { text: text.to_owned(), compiled }
    }

    /// Whether a name is of the pattern.
    ///
    /// # Errors
    /// The pattern cannot be used.
    pub(crate) fn matches(&self, name: &str) -> Result<bool, Failure> {
        match &self.compiled {
            Ok(regex) => Ok(regex.is_match(name.as_bytes())),
            Err(why) => {
                let what = format!("match the permission `{}`", self.text);
                Err(Failure::new(FailureKind::Refused, codes::ACCESS_REFUSED, what)
                    .detail(why.clone())
                    .remedy("write the permission without look-around, back references and set operations"))
            }
        }
    }

    /// What is wrong with the pattern, if it cannot be used.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.compiled.as_ref().err().map(String::as_str)
    }
}

/// What is valid in both and means something else: in classes set operations and classes within classes, and a few escapes.
fn strange(text: &str) -> Option<&'static str> {
    let bytes = text.as_bytes();
    let mut class = false;
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let begins = |with: &str| rest.starts_with(with.as_bytes());
        if begins("\\") {
            match rest.get(1) {
                Some(b'<') => return Some("\\<"),
                Some(b'>') => return Some("\\>"),
                Some(b'b') if rest.get(2) == Some(&b'{') => return Some("\\b{"),
                _ => {}
            }
            at += 2;
            continue;
        }
        if class {
            for operation in ["&&", "--", "~~"] {
                if begins(operation) {
                    return Some(match operation {
                        "&&" => "&&",
                        "--" => "--",
                        _ => "~~",
                    });
                }
            }
            if begins("[:") {
                at += 2;
                while at < bytes.len() && bytes[at] != b']' {
                    at += 1;
                }
            } else if begins("[") {
                return Some("[");
            } else if begins("]") {
                class = false;
            }
        } else if begins("[") {
            class = true;
            // A bracket that comes first is one of the class.
            at += usize::from(rest.get(1) == Some(&b'^'));
            at += usize::from(bytes.get(at + 1) == Some(&b']'));
        } else if begins("(?R") {
            return Some("(?R");
        } else if begins("{,") {
            return Some("{,");
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_as_rabbitmq_does() {
        for (pattern, name, wanted) in [
            (".*", "anything", true),
            (".*", "", true),
            ("", "", true),
            ("", "q", false),
            ("^$", "q", false),
            ("orders", "my-orders-2", true), // not anchored
            ("^orders$", "my-orders", false),
            ("^(amq\\.default|x)$", "amq.default", true),
            ("^[a-z]+\\d$", "ab7", true),
            ("^[]a]$", "]", true),
            ("^[^]]+$", "abc", true),
            ("^[[:alpha:]]+$", "abc", true),
            ("^[[:alpha:]-]+$", "a-c", true),
            ("^a--b$", "a--b", true),
            ("^.$", "é", false), // two bytes
            ("(?i)^ORDERS$", "orders", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name).unwrap(), wanted, "{pattern} {name}");
        }
    }

    #[test]
    fn what_cannot_be_matched_safely_is_refused() {
        for pattern in [
            "^(?!secret)",
            "(a)\\1",
            "[^a&&b]",
            "[a--b]",
            "[a[b]c]",
            "\\<a",
            "(?R)",
            "a{,3}",
            "[",
            "\\Qa\\E",
            "\\b{start}",
            "(?>a)",
            "a++b(?<=c)",
        ] {
            let failure = Pattern::new(pattern).matches("a").unwrap_err();
            assert_eq!(
                (failure.kind, failure.code),
                (FailureKind::Refused, codes::ACCESS_REFUSED),
                "{pattern}"
            );
            assert!(Pattern::new(pattern).fault().is_some());
        }
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in "\\PC{0,40}", name in "\\PC{0,40}") {
            Pattern::new(&pattern).matches(&name).ok();
        }
    }
}
