//! From a subject such as `syncs.customers.queue` to the place where it stands.

use std::collections::HashMap;

use super::fill::within;
use super::text::{FileId, Files, Span};
use super::tree::{Node, NodeKind};

/// Where everything stands, by its path.
#[derive(Debug, Clone, Default)]
pub struct Places {
    spots: HashMap<String, Spot>,
    /// The templates that others render, by their names.
    partials: HashMap<String, FileId>,
}

/// A place in a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TemplatePlace {
    /// The place in a file.
    pub span: Span,
    /// Whether it is the very character; otherwise it is the whole template.
    pub exact: bool,
    /// Whether variables were filled in, so that the template's text is not for showing.
    pub filled: bool,
}

/// One key with what it holds.
#[derive(Debug, Clone)]
struct Spot {
    /// The key, or the item of a list.
    key: Span,
    /// The value, if it is a scalar.
    value: Option<Node>,
    /// The text that the value names, if it is the path of a file that was read.
    file: Option<FileId>,
}

impl Places {
    /// Notes a node and all that is in it under a path.
    pub fn note(&mut self, path: &str, key: Span, node: &Node) {
        match &node.kind {
            NodeKind::Scalar(_) => {}
            NodeKind::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.note(&format!("{path}[{index}]"), item.span, item);
                }
            }
            NodeKind::Map(entries) => {
                for entry in entries {
                    let inner =
                        if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
                    self.note(&inner, entry.span, &entry.value);
                }
            }
        }
        let value = node.scalar().is_some().then(|| node.clone());
        self.spots.insert(path.to_owned(), Spot { key, value, file: None });
    }

    /// Notes what is in a node under a path, whose own place stays what it is.
    pub fn note_over(&mut self, path: &str, node: &Node) {
        for entry in node.entries().unwrap_or_default() {
            self.note(&format!("{path}.{}", entry.key), entry.span, &entry.value);
        }
    }

    /// Notes that the text of a subject stands in a file of its own.
    pub fn note_file(&mut self, path: &str, file: FileId) {
        let key = Span { file, start: 0, end: 0 };
        self.spots.insert(path.to_owned(), Spot { key, value: None, file: Some(file) });
    }

    /// The place of a subject, or of the nearest part of the configuration that it is in.
    pub fn find(&self, subject: &str) -> Option<Span> {
        let spot = self.spot(subject)?;
        Some(match &spot.value {
            Some(value) if !value.text().is_some_and(|text| text.is_empty() || text.contains('\n')) => {
                value.span
            }
            Some(_) | None => spot.key,
        })
    }

    /// Notes where the partials stand.
    pub fn note_partials(&mut self, partials: impl IntoIterator<Item = (String, FileId)>) {
        self.partials.extend(partials);
    }

    /// The place of a line and column (both from 1) of a template, which is named by its subject or is a partial.
    pub fn find_within(
        &self,
        files: &Files,
        template: &str,
        line: usize,
        column: usize,
    ) -> Option<TemplatePlace> {
        let in_file = |file: FileId| {
            let start = files.byte_at(file, line, column);
            let width =
                files.text(file).get(start..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
            TemplatePlace { span: Span { file, start, end: start + width }, exact: true, filled: false }
        };
        let Some(spot) = self.spots.get(template) else {
            return self.partials.get(template).copied().map(in_file);
        };
        if let Some(file) = spot.file {
            return Some(in_file(file));
        }
        let Some(node) = &spot.value else {
            return Some(TemplatePlace { span: spot.key, exact: false, filled: false });
        };
        let found = within(files, node, line, column);
        let span = if found.exact { found.span } else { spot.key };
        Some(TemplatePlace { span, exact: found.exact, filled: node.is_filled() })
    }

    fn spot(&self, subject: &str) -> Option<&Spot> {
        let mut path = subject;
        loop {
            if let Some(spot) = self.spots.get(path) {
                return Some(spot);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}
