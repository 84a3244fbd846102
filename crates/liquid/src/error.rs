//! Errors with their place: what, where, and the way out.

use std::sync::Arc;

/// What kind of fault an [`Error`] tells of. The set is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The template is not Liquid.
    Syntax,
    UnknownTag,
    UnknownFilter,
    /// A column, a global name or a variable that does not exist.
    UnknownName,
    UnknownPartial,
    /// A filter or a tag was given too many, too few or the wrong arguments.
    Arguments,
    /// It cannot be told, or the branches disagree, whether text stands inside a JSON string.
    JsonPlace,
    /// What the template writes is not JSON.
    InvalidJson,
    /// A value has no JSON form (NaN, text that claims to be JSON).
    Value,
    /// A filter or an operator cannot work on the values it was given.
    Compute,
    /// Steps, bytes, nesting or partials went past a limit.
    Limit,
}

/// A fault of a template, found when it was parsed, checked or rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub kind: ErrorKind,
    /// One sentence without its place.
    pub message: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub source_line: String,
    /// The way out, or the nearest known name.
    pub hint: Option<String>,
    /// The template: a file, a partial or a place in the configuration. May be empty.
    pub name: Arc<str>,
}

impl Error {
    /// The same fault with a way out.
    pub(crate) fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.name.is_empty() {
            write!(f, "line {}, column {}: {}", self.line, self.column, self.message)?;
        } else {
            write!(f, "{}:{}:{}: {}", self.name, self.line, self.column, self.message)?;
        }
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// The nearest of `known` to `name`, when it is near enough to be what was meant.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let lower = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (name.len().max(candidate.len()) / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(nearest("emial", ["email", "name"]), Some("email"));
        assert_eq!(nearest("EMAIL", ["id", "email"]), Some("email"));
        assert_eq!(nearest("zzz", ["email", "name"]), None);
    }
}
