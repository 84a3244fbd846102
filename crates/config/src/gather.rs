//! One file, or all files of a folder, as one tree.

use std::path::{Path, PathBuf};

use warren_engine::codes;

use super::faults::Fault;
use super::text::{FileId, Files, Span, read, reason};
use super::tree::{Entry, Node, NodeKind, parse};

/// The sections whose entries have names and may be spread over the files of a folder.
const NAMED_SECTIONS: [&str; 6] = ["sources", "models", "brokers", "syncs", "pipelines", "triggers"];
/// Files of one folder; more are a folder that was not meant.
const FILES_MAX: usize = 500;

/// The tree of a configuration. What cannot be read or merged is told in `faults` and left out.
pub fn gather(path: &Path, files: &mut Files, faults: &mut Vec<Fault>) -> Option<Node> {
    let paths = match files_of(path) {
        Ok(paths) => paths,
        Err(fault) => {
            faults.push(*fault);
            return None;
        }
    };
    let mut roots = Vec::new();
    for path in paths {
        match read(&path) {
            Ok(text) => {
                let file = files.add(path, text);
                roots.extend(root_of(files, file, faults));
            }
            Err(unreadable) => faults.push(
                Fault::nowhere(codes::CONFIG_UNREADABLE, format!("`{}` {}", path.display(), unreadable.why))
                    .remedy(unreadable.remedy),
            ),
        }
    }
    merge(roots, faults)
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, Box<Fault>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |why: String, remedy: &str| {
        Box::new(
            Fault::nowhere(codes::CONFIG_UNREADABLE, format!("the folder `{}` {why}", path.display()))
                .remedy(remedy),
        )
    };
    let listing = std::fs::read_dir(path).map_err(|error| {
        unreadable(format!("cannot be listed: {}", reason(&error)), "check the rights of the folder")
    })?;
    let mut paths: Vec<PathBuf> = listing
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| matches!(path.extension().and_then(|ending| ending.to_str()), Some("yaml" | "yml")))
        .filter(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")))
        .collect();
    // The order of a folder is the system's whim; faults come in the order of names.
    paths.sort();
    match paths.len() {
        0 => Err(unreadable(
            "holds no file that ends in .yaml or .yml".to_owned(),
            "put the configuration there, or name another folder with -c",
        )),
        1..=FILES_MAX => Ok(paths),
        many => Err(unreadable(
            format!("holds {many} YAML files; at most {FILES_MAX} are read"),
            "name the folder that holds the configuration alone",
        )),
    }
}

fn root_of(files: &Files, file: FileId, faults: &mut Vec<Fault>) -> Option<Node> {
    let start = Span { file, start: 0, end: 0 };
    match parse(files, file) {
        Ok(Some(node)) if node.entries().is_some() => Some(node),
        Ok(Some(node)) => {
            let message = format!("a configuration is a map of sections, and this is {}", node.describe());
            faults.push(Fault::new(codes::CONFIG_SYNTAX, node.span, message).remedy(SECTIONS));
            None
        }
        Ok(None) => {
            faults.push(
                Fault::new(codes::CONFIG_SYNTAX, start, "the file holds no configuration")
                    .remedy("`warren init` writes one to begin with"),
            );
            None
        }
        Err(found) => {
            faults.extend(found);
            None
        }
    }
}

const SECTIONS: &str = "begin with the sections `sources:`, `models:`, `brokers:` and `syncs:`";

/// Merges the maps of several files: named sections entry by entry, anything else may stand in one file only.
fn merge(roots: Vec<Node>, faults: &mut Vec<Fault>) -> Option<Node> {
    let mut roots = roots.into_iter();
    let mut merged = roots.next()?;
    let NodeKind::Map(sections) = &mut merged.kind else { return None };
    for root in roots {
        let NodeKind::Map(more) = root.kind else { continue };
        for section in more {
            match sections.iter_mut().find(|known| known.key == section.key) {
                None => sections.push(section),
                Some(_) if section.key.starts_with("x-") => {}
                Some(known) if NAMED_SECTIONS.contains(&&*section.key) => merge_named(known, section, faults),
                Some(known) => faults.push(
                    Fault::new(
                        codes::CONFLICTING_KEYS,
                        section.span,
                        format!("`{}` stands in two files", section.key),
                    )
                    .also(known.span, "the first one")
                    .remedy("keep it in one of them"),
                ),
            }
        }
    }
    Some(merged)
}

fn merge_named(known: &mut Entry, more: Entry, faults: &mut Vec<Fault>) {
    match (&mut known.value.kind, more.value.kind) {
        (NodeKind::Map(known), NodeKind::Map(more)) => {
            for entry in more {
                match known.iter().find(|other| other.key == entry.key) {
                    Some(first) => faults.push(
                        Fault::new(
                            codes::CONFLICTING_KEYS,
                            entry.span,
                            format!("the name `{}` is given twice", entry.key),
                        )
                        .also(first.span, "the first one")
                        .remedy("rename or remove one of them"),
                    ),
                    None => known.push(entry),
                }
            }
        }
        // A section that is no map: what is right of it is checked, what is wrong is told, once.
        (NodeKind::Map(_), kind) => {
            let value = Node { span: more.value.span, kind };
            faults.push(
                Fault::new(
                    codes::INVALID_VALUE,
                    more.span,
                    format!("`{}` takes a map, and this is {}", more.key, value.describe()),
                )
                .remedy("write names with what belongs to them"),
            );
        }
        (NodeKind::Scalar(_) | NodeKind::List(_), kind) => {
            let value = std::mem::replace(&mut known.value, Node { span: more.value.span, kind });
            faults.push(
                Fault::new(
                    codes::INVALID_VALUE,
                    known.span,
                    format!("`{}` takes a map, and this is {}", known.key, value.describe()),
                )
                .remedy("write names with what belongs to them"),
            );
        }
    }
}
