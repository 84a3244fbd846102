//! Models, and the partials that templates share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use warren_connectors::SourceConfig;
use warren_engine::codes;
use warren_engine::model::Model;

use super::de;
use super::faults::{Fault, listed, name_remedy};
use super::places::Places;
use super::project::ProjectModel;
use super::raw::section::RawModel;
use super::text::{FileId, Files, Span, Unreadable, read};
use super::tree::Node;

/// Folders within the folder of templates.
const FOLDER_DEPTH_MAX: usize = 8;
/// Templates in the folder; more are a folder that was not meant.
const PARTIALS_MAX: usize = 1000;

/// Makes models of what is written.
pub struct ModelReader<'a> {
    /// The texts; those of `file:` are added.
    pub files: &'a mut Files,
    /// What is wrong.
    pub faults: &'a mut Vec<Fault>,
    /// Where things stand.
    pub places: &'a mut Places,
    /// All sources that are written down.
    pub source_names: &'a [String],
    /// Those of them that are right.
    pub sources: &'a BTreeMap<String, SourceConfig>,
}

impl ModelReader<'_> {
    /// The model of an entry. `None`: something is wrong with it, and was told, here or at its source.
    pub fn model(&mut self, name: &str, path: &str, key: Span, node: &Node) -> Option<ProjectModel> {
        let raw: RawModel = match de::read(node, path) {
            Ok(raw) => raw,
            Err(fault) => {
                self.faults.push(fault);
                return None;
            }
        };
        let before = self.faults.len();
        let known = self.source_names.contains(&raw.source);
        if !known {
            self.faults.push(unknown_name("source", &raw.source, node, "source", self.source_names, key));
        }
        self.primary_key(&raw, node, key);
        let sql = self.sql(&raw, path, key, node);
        if self.faults.len() > before {
            return None;
        }
        let model = Model {
            name: name.to_owned(),
            sql: sql?,
            key: raw.primary_key.0,
            timeout: raw.timeout.map(|span| span.0),
        };
        Some(ProjectModel { source: raw.source, model: Arc::new(model) })
    }

    fn primary_key(&mut self, raw: &RawModel, node: &Node, key: Span) {
        let span = node.get("primary_key").map_or(key, |node| node.span);
        for (index, column) in raw.primary_key.0.iter().enumerate() {
            if raw.primary_key.0[..index].contains(column) {
                self.faults.push(
                    Fault::new(
                        codes::INVALID_VALUE,
                        span,
                        format!("the key names the column `{column}` twice"),
                    )
                    .remedy("name it once"),
                );
            }
            if column.is_empty() {
                self.faults.push(
                    Fault::new(codes::INVALID_VALUE, span, "the key names a column without a name")
                        .remedy("name a column"),
                );
            }
        }
    }

    /// The statement: written, in a file, or made for a table. `None`: a fault was told, or the source is broken.
    fn sql(&mut self, raw: &RawModel, path: &str, key: Span, node: &Node) -> Option<String> {
        let entry = |key: &str| node.entry(key);
        let given: Vec<_> = ["sql", "file", "table"].into_iter().filter_map(entry).collect();
        let [one] = given.as_slice() else {
            self.faults.push(match given.as_slice() {
                [first, second, ..] => Fault::new(
                    codes::CONFLICTING_KEYS,
                    second.span,
                    format!("`{}` and `{}` are both given: a model has one query", first.key, second.key),
                )
                .also(first.span, "the first one")
                .remedy("remove one of them"),
                _ => Fault::new(codes::MISSING_KEY, key, format!("`{path}` does not say what is read"))
                    .remedy("add `sql:`, `file:` or `table:`"),
            });
            return None;
        };
        if let Some(table) = &raw.table {
            return self.table(&raw.source, table, one.value.span);
        }
        let sql = match &raw.file {
            Some(file) => self.file(file, &format!("{path}.sql"), one.value.span)?,
            None => raw.sql.clone()?,
        };
        if sql.trim().is_empty() {
            self.faults.push(
                Fault::new(codes::INVALID_VALUE, one.span, "the query is empty").remedy("write a SELECT"),
            );
            return None;
        }
        Some(sql)
    }

    fn file(&mut self, file: &str, subject: &str, span: Span) -> Option<String> {
        match read(Path::new(file)) {
            Ok(text) => {
                let id = self.files.add(file, text.clone());
                self.places.note_file(subject, id);
                Some(text)
            }
            Err(unreadable) => {
                self.faults.push(unreadable_fault(file, unreadable, span));
                None
            }
        }
    }

    fn table(&mut self, source: &str, table: &str, span: Span) -> Option<String> {
        let parts: Vec<&str> = table.split('.').collect();
        if parts.iter().any(|part| part.trim().is_empty()) || parts.len() > 3 {
            self.faults.push(
                Fault::new(codes::INVALID_VALUE, span, "this is not the name of a table")
                    .remedy("write `table` or `schema.table`; for other names write `sql`"),
            );
            return None;
        }
        // A source that is broken was told of; its kind, and so the way of quoting, may be unknown.
        let source = self.sources.get(source)?;
        let quoted: Vec<String> = parts.iter().map(|part| source.quoted(part.trim())).collect();
        Some(format!("SELECT * FROM {}", quoted.join(".")))
    }
}

/// The fault of a name that nothing has; `key` is where the value stands in `node`.
pub fn unknown_name(
    what: &str,
    name: &str,
    node: &Node,
    key: &str,
    known: &[String],
    otherwise: Span,
) -> Fault {
    let value = node.get(key);
    let span = value.map_or(otherwise, |value| value.span);
    let names = || known.iter().map(String::as_str);
    if value.is_some_and(Node::is_filled) {
        let message = format!("a variable names a {what} that does not exist");
        return Fault::new(codes::UNKNOWN_NAME, span, message)
            .remedy(format!("the {what}s are: {}", listed(names(), "and")));
    }
    let remedy = if known.is_empty() {
        format!("there are no {what}s; add one under `{what}s:`")
    } else {
        name_remedy(name, names().collect::<Vec<_>>(), &format!("the {what}s are"))
    };
    Fault::new(codes::UNKNOWN_NAME, span, format!("there is no {what} `{name}`")).remedy(remedy)
}

/// The fault of a file that a value names and that gives no text.
pub fn unreadable_fault(file: &str, unreadable: Unreadable, span: Span) -> Fault {
    Fault::new(codes::CONFIG_UNREADABLE, span, format!("the file `{file}` {}", unreadable.why))
        .remedy(unreadable.remedy)
}

/// The templates that other templates may `render` or `include`.
#[derive(Debug, Clone, Default)]
pub struct Partials {
    /// For the template engine.
    pub texts: warren_liquid::Partials,
    /// Where each stands.
    pub files: BTreeMap<String, FileId>,
    /// The folder that was looked at, whether it is there or not.
    pub folder: PathBuf,
}

impl Partials {
    /// Reads the folder that `templates` names, or `templates` beside the configuration if there is one.
    pub fn read(tree: &Node, root: &Path, files: &mut Files, faults: &mut Vec<Fault>) -> Partials {
        let given = tree.entry("templates").and_then(|entry| Some((entry.value.text()?, entry.value.span)));
        let folder = given.map_or_else(|| root.join("templates"), |(folder, _)| PathBuf::from(folder));
        if !folder.is_dir() {
            if let Some((_, span)) = given {
                let message = format!("there is no folder `{}`", folder.display());
                faults.push(
                    Fault::new(codes::CONFIG_UNREADABLE, span, message).remedy("make it, or name another"),
                );
            }
            return Partials { folder, ..Partials::default() };
        }
        let mut found = Vec::new();
        let complete = list(&folder, "", 0, &mut found);
        if !complete || found.len() > PARTIALS_MAX {
            let message = format!(
                "the folder of templates `{}` holds more than {PARTIALS_MAX} templates, or cannot be listed",
                folder.display()
            );
            let remedy = "name a folder of its own: `templates: FOLDER`";
            faults.push(match given {
                Some((_, span)) => Fault::new(codes::CONFIG_UNREADABLE, span, message).remedy(remedy),
                None => Fault::nowhere(codes::CONFIG_UNREADABLE, message).remedy(remedy),
            });
            return Partials { folder, ..Partials::default() };
        }
        found.sort();
        let mut texts = BTreeMap::new();
        let mut ids = BTreeMap::new();
        for (name, path) in found {
            match read(&path) {
                Ok(text) => {
                    ids.insert(name.clone(), files.add(path, text.clone()));
                    texts.insert(name, text);
                }
                Err(unreadable) => faults.push(
                    Fault::nowhere(
                        codes::CONFIG_UNREADABLE,
                        format!("the template `{}` {}", path.display(), unreadable.why),
                    )
                    .remedy(unreadable.remedy),
                ),
            }
        }
        Partials { texts: texts.into(), files: ids, folder }
    }

    /// What to do where a partial is missing: where it was looked for.
    pub fn looked_for(&self) -> String {
        // Where there is no current folder, a relative path is all there is to say.
        let folder = std::path::absolute(&self.folder).unwrap_or_else(|_| self.folder.clone());
        if folder.is_dir() {
            format!("add it as `NAME.liquid` to the folder `{}`", folder.display())
        } else {
            format!("create the folder `{}`, and add it there as `NAME.liquid`", folder.display())
        }
    }
}

/// Lists `*.liquid` with their names; false where a folder cannot be read or is too deep.
fn list(folder: &Path, prefix: &str, depth: usize, found: &mut Vec<(String, PathBuf)>) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    if depth > FOLDER_DEPTH_MAX {
        return false;
    }
    entries.filter_map(Result::ok).all(|entry| {
        let path = entry.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return true };
        if path.is_dir() {
            return name.starts_with('.') || list(&path, &format!("{prefix}{name}/"), depth + 1, found);
        }
        if let Some(name) = name.strip_suffix(".liquid") {
            found.push((format!("{prefix}{name}"), path.clone()));
        }
        found.len() <= PARTIALS_MAX
    })
}
