//! The texts a template was parsed from, and places in them.

use std::sync::Arc;

use crate::error::{Error, ErrorKind};

/// A place: which of the texts, and the byte in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Place {
    pub text: u32,
    pub at: u32,
}

impl Place {
    pub fn plus(self, bytes: usize) -> Self {
        Self { text: self.text, at: self.at + bytes as u32 }
    }
}

/// The template and the partials it was built with, kept for the sake of errors.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources(Vec<(Arc<str>, Arc<str>)>);

impl Sources {
    /// The text of that name, and the place of its first byte.
    pub fn add(&mut self, name: &str, text: &str) -> (Arc<str>, Place) {
        if let Some(i) = self.0.iter().position(|(held, kept)| **held == *name && **kept == *text) {
            return (self.0[i].1.clone(), Place { text: i as u32, at: 0 });
        }
        self.0.push((Arc::from(name), Arc::from(text)));
        (self.0[self.0.len() - 1].1.clone(), Place { text: self.0.len() as u32 - 1, at: 0 })
    }

    /// Line and column of a place, both from 1.
    pub fn locate(&self, place: Place) -> (usize, usize) {
        let Some((_, text)) = self.0.get(place.text as usize) else {
            return (1, 1);
        };
        let before = text.get(..place.at as usize).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        (line, column)
    }

    /// A place for people: `line 3`, and the partial when it is another text than `seen_from`.
    pub fn spell(&self, place: Place, seen_from: Place) -> String {
        let (line, column) = self.locate(place);
        match self.0.get(place.text as usize) {
            Some((name, _)) if place.text != seen_from.text => {
                format!("line {line}, column {column} of `{name}`")
            }
            _ => format!("line {line}, column {column}"),
        }
    }

    #[cold]
    pub fn error(&self, kind: ErrorKind, place: Place, message: impl Into<String>) -> Error {
        let (line, column) = self.locate(place);
        let (name, text) = match self.0.get(place.text as usize) {
            Some((name, text)) => (name.clone(), &**text),
            None => (Arc::from(""), ""),
        };
        let source_line = text.split('\n').nth(line - 1).unwrap_or("").trim_end().to_owned();
        Error { kind, message: message.into(), line, column, source_line, hint: None, name }
    }
}
