//! Checks of the texts that say where to connect and with which login: parameters of a URL, and control characters.
//!
//! No check ever shows a value. The name of a parameter is shown only where it cannot be a part of a password.

use std::path::Path;

use percent_encoding::percent_decode_str;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use super::setting::Misfit;

/// The parameters that a URL may have.
pub(crate) struct Parameters {
    /// What the URL leads to, such as `PostgreSQL`.
    pub(crate) system: &'static str,
    /// All that are accepted.
    pub(crate) accepted: &'static [&'static str],
    /// What to do instead of writing one of these names. Names are compared without regard to case, `-` and `_`.
    pub(crate) instead: &'static [(&'static [&'static str], &'static str)],
    /// What to do about any other name.
    pub(crate) otherwise: &'static str,
}

/// A part of a URL or a setting that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unusable {
    pub(crate) detail: String,
    pub(crate) remedy: String,
}

/// Longer names are not parameters of anything.
const NAME_CHARS_MAX: usize = 40;

impl Parameters {
    /// The first parameter of a query (all of the URL after its `?`) that is not accepted, or that has no value.
    pub(crate) fn check(&self, query: &str) -> Result<(), Unusable> {
        // A password with a `?` that is not encoded lies in front of an `@`.
        let mut may_be_secret = query.contains('@');
        for pair in query.split('#').next().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) =
                pair.split_once('=').map_or((pair, None), |(name, value)| (name, Some(value)));
            let name = percent_decode_str(name).decode_utf8_lossy();
            if self.accepted.contains(&&*name) {
                if value.is_none() {
                    return Err(Unusable {
                        detail: format!("the parameter `{name}` has no value"),
                        remedy: format!("Write `{name}=VALUE`, or remove it."),
                    });
                }
                // It may go on behind an `&` that is not encoded.
                may_be_secret |= name == "password";
                continue;
            }
            return Err(if may_be_secret || !is_name(&name) { self.unnamed() } else { self.unknown(&name) });
        }
        Ok(())
    }

    fn unknown(&self, name: &str) -> Unusable {
        let plain = plain(name);
        let instead = self.instead.iter().find(|(names, _)| names.contains(&&*plain));
        Unusable {
            detail: format!("`{name}` is not a parameter of {}", self.listed()),
            remedy: instead.map_or(self.otherwise, |(_, remedy)| remedy).to_owned(),
        }
    }

    fn unnamed(&self) -> Unusable {
        Unusable {
            detail: format!("the text after its `?` is not a parameter of {}", self.listed()),
            remedy: "Write `?` as %3F if it belongs to the password, and `@` as %40, `&` as %26; otherwise remove the parameter."
                .to_owned(),
        }
    }

    /// What a URL is, and its parameters.
    fn listed(&self) -> String {
        match self.accepted {
            [] => format!("a {} URL, which has none", self.system),
            accepted => format!("a {} URL, which takes `{}`", self.system, accepted.join("`, `")),
        }
    }
}

fn is_name(name: &str) -> bool {
    name.chars().count() <= NAME_CHARS_MAX
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.'))
}

/// As names in `instead` are written.
fn plain(name: &str) -> String {
    name.chars().filter(|char| !matches!(char, '_' | '-')).map(|char| char.to_ascii_lowercase()).collect()
}

/// Refuses control characters, which no host, user, database or URL has. `part` names the text, such as "the user in `url`".
pub(crate) fn no_controls(part: &str, text: &str) -> Result<(), Unusable> {
    const LINE_BREAKS: [char; 2] = ['\n', '\r'];
    if text.ends_with(LINE_BREAKS) {
        return Err(ends_in_line_break(part));
    }
    if !text.contains(char::is_control) {
        return Ok(());
    }
    let what = if text.contains(LINE_BREAKS) { "a line break" } else { "a control character" };
    Err(Unusable {
        detail: format!("{part} contains {what}"),
        remedy: format!("Remove {what} from the value."),
    })
}

/// Refuses what a password that was given as a key cannot have: a line break at its end, which a file or a command added, and zero bytes,
/// which end it on the wire.
pub(crate) fn no_line_break(part: &str, text: &str) -> Result<(), Unusable> {
    if text.ends_with(['\n', '\r']) {
        return Err(ends_in_line_break(part));
    }
    no_zero_byte(part, text.as_bytes())
}

/// Refuses zero bytes in a password.
pub(crate) fn no_zero_byte(part: &str, bytes: &[u8]) -> Result<(), Unusable> {
    if !bytes.contains(&0) {
        return Ok(());
    }
    Err(Unusable {
        detail: format!("{part} contains a zero byte"),
        remedy: "Remove the zero byte from the value.".to_owned(),
    })
}

/// The path of a file that ends in a line break: it came from a variable, and there is no such file.
pub(crate) fn path_fault(key: &str, path: &Path) -> Option<Misfit> {
    if !path.as_os_str().as_encoded_bytes().ends_with(b"\n") {
        return None;
    }
    let Unusable { detail, remedy } = ends_in_line_break(&format!("`{key}`"));
    let failure = Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, format!("use `{key}`"));
    Some(Misfit::new(key, failure.detail(detail).remedy(remedy)))
}

fn ends_in_line_break(part: &str) -> Unusable {
    Unusable {
        detail: format!("{part} ends in a line break"),
        remedy: "Remove the line break where the value is set; `${file:PATH}` reads a file without it."
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMETERS: Parameters = Parameters {
        system: "Test",
        accepted: &["mode", "password"],
        instead: &[(&["connectionlimit"], "Use `limit`.")],
        otherwise: "Remove it.",
    };

    fn refused(query: &str) -> Unusable {
        PARAMETERS.check(query).unwrap_err()
    }

    #[test]
    fn accepted_parameters_with_a_value_pass() {
        for query in ["", "mode=1", "mode=", "mode=1&password=x", "&mode=a%20b&", "m%6fde=1", "mode=a@b"] {
            assert_eq!(PARAMETERS.check(query), Ok(()), "{query}");
        }
    }

    #[test]
    fn an_unknown_parameter_is_named_with_those_that_exist() {
        let Unusable { detail, remedy } = refused("mode=1&Connection-Limit=swordfish");
        assert_eq!(
            detail,
            "`Connection-Limit` is not a parameter of a Test URL, which takes `mode`, `password`"
        );
        assert_eq!(remedy, "Use `limit`.");
        assert_eq!(refused("other=1").remedy, "Remove it.");
        assert!(refused("other").detail.starts_with("`other` is not a parameter"));
        assert_eq!(refused("mode").detail, "the parameter `mode` has no value");
    }

    #[test]
    fn what_may_be_a_part_of_a_password_is_not_shown() {
        for query in [
            "swordfish@h/d",
            "swordfish=1@h/d",
            "mode=1&swordfish@h",
            "swordfish#x@h",
            "password=a&swordfish",
            "sword fish",
            "-swordfish",
            "swordfish-swordfish-swordfish-swordfish-swordfish",
        ] {
            let refused = refused(query);
            assert!(!format!("{refused:?}").contains("fish"), "{query}: {refused:?}");
            assert!(refused.remedy.contains("%3F"), "{refused:?}");
        }
    }

    #[test]
    fn a_control_character_is_refused_without_the_value() {
        for (text, end) in [
            ("swordfish\n", "ends in a line break"),
            ("swordfish\r\n", "ends in a line break"),
            ("swordfish\r", "ends in a line break"),
            ("sword\nfish", "contains a line break"),
            ("sword\tfish", "contains a control character"),
            ("sword\0fish", "contains a control character"),
            ("swordfish\u{85}", "contains a control character"),
        ] {
            let refused = no_controls("the host", text).unwrap_err();
            assert_eq!(refused.detail, format!("the host {end}"), "{text:?}");
            assert!(!format!("{refused:?}").contains("fish"), "{refused:?}");
        }
        assert_eq!(no_controls("the host", "bücher.example"), Ok(()));
    }

    #[test]
    fn a_password_may_have_control_characters_within() {
        assert_eq!(no_line_break("`password`", "a\tb\nc"), Ok(()));
        assert!(no_line_break("`password`", "a\n").is_err());
        assert!(no_line_break("`password`", "a\0b").is_err());
    }
}
