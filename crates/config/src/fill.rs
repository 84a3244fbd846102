//! Variables and files in values: `${VAR}`, `${VAR:-default}`, `${file:PATH}`.
//!
//! They are filled in after the YAML was read, so a value can never change the shape of the configuration. `$${`
//! stands for `${`. Keys are left as they are. Where text was filled in is kept, for two reasons: a
//! place in the text now can be found in the text as written, and what came from outside may be a secret and is never
//! shown.

use std::collections::BTreeMap;
use std::ffi::OsString;

use warren_engine::codes;

use super::faults::{Fault, nearest};
use super::text::{Files, Span, read};
use super::tree::{Fill, Node, NodeKind, Scalar, Style};

/// The variables that `${…}` can name.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// Those of the process.
    pub fn of_process() -> Environment {
        // A name that is not Unicode cannot be written in a configuration.
        Environment(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect(),
        )
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Environment(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Fills in every scalar of a tree, and tells of each variable that cannot be.
pub fn fill(node: &mut Node, files: &Files, environment: &Environment, faults: &mut Vec<Fault>) {
    let span = node.span;
    match &mut node.kind {
        NodeKind::List(items) => {
            for item in items {
                fill(item, files, environment, faults);
            }
        }
        NodeKind::Map(entries) => {
            for entry in entries {
                fill(&mut entry.value, files, environment, faults);
            }
        }
        NodeKind::Scalar(scalar) => {
            if scalar.text.contains("${") {
                let before = faults.len();
                Filling { span, files, environment, faults }.scalar(scalar);
                scalar.broken = faults.len() > before;
            }
        }
    }
}

struct Filling<'a> {
    span: Span,
    files: &'a Files,
    environment: &'a Environment,
    faults: &'a mut Vec<Fault>,
}

impl Filling<'_> {
    fn scalar(&mut self, scalar: &mut Scalar) {
        let written = std::mem::take(&mut scalar.text);
        let mut now = String::with_capacity(written.len());
        let mut at = 0;
        let mut nth = 0;
        while let Some(found) = written[at..].find("${") {
            let open = at + found;
            let place = self.place(&written, nth);
            nth += 1;
            if written[at..open].ends_with('$') {
                // `$${`: the first of the two is the escape.
                now.push_str(&written[at..open - 1]);
                let start = now.len();
                now.push_str("${");
                scalar.fills.push(Fill {
                    now: start..now.len(),
                    written: open - 1..open + 2,
                    secret: false,
                    file: None,
                });
                at = open + 2;
                continue;
            }
            now.push_str(&written[at..open]);
            let Some(length) = written[open..].find('}') else {
                self.faults.push(
                    Fault::new(codes::MISSING_VARIABLE, self.sized(place, 2), "this `${` has no `}`")
                        .remedy("close it, or write `$${` for the characters themselves"),
                );
                now.push_str(&written[open..]);
                at = written.len();
                break;
            };
            let end = open + length + 1;
            let start = now.len();
            let inner = &written[open + 2..end - 1];
            let (text, secret) = self.value(inner, self.sized(place, end - open));
            now.push_str(&text);
            let file = inner.strip_prefix("file:").map(|path| self.files.beside(place.file, path.trim()));
            scalar.fills.push(Fill { now: start..now.len(), written: open..end, secret, file });
            at = end;
        }
        now.push_str(&written[at..]);
        scalar.text = now;
    }

    /// The text of what stands between the braces, and whether it came from outside. Empty after a fault, which
    /// nothing later sees, since a file with faults goes no further.
    fn value(&mut self, inner: &str, place: Span) -> (String, bool) {
        if let Some(path) = inner.strip_prefix("file:") {
            let full = self.files.beside(place.file, path.trim());
            return match read(&full) {
                Ok(text) => (without_line_break(text), true),
                Err(unreadable) => {
                    let message = format!("the file `{}` {}", full.display(), unreadable.why);
                    self.fault(place, message, unreadable.remedy);
                    (String::new(), true)
                }
            };
        }
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        if !is_name(name) {
            let remedy =
                "write `${NAME}`, `${NAME:-default}` or `${file:PATH}`; `$${` stands for the characters `${`";
            self.fault(place, "this does not name a variable".to_owned(), remedy.to_owned());
            return (String::new(), true);
        }
        if default.is_some_and(|default| default.contains("${")) {
            let remedy = "give the inner variable a value of its own outside";
            self.fault(place, "a default cannot hold another variable".to_owned(), remedy.to_owned());
            return (String::new(), true);
        }
        match (self.environment.0.get(name), default) {
            (Some(value), Some(default)) if value.is_empty() => (default.to_owned(), false),
            (Some(value), _) => {
                if let Some(value) = value.to_str() {
                    (value.to_owned(), true)
                } else {
                    self.fault(
                        place,
                        format!("the variable `{name}` is not UTF-8 text"),
                        "set it to text".to_owned(),
                    );
                    (String::new(), true)
                }
            }
            (None, Some(default)) => (default.to_owned(), false),
            (None, None) => {
                let set = format!("set it (`export {name}=…`), or give a default: `${{{name}:-…}}`");
                let remedy = match nearest(name, self.environment.0.keys().map(String::as_str)) {
                    Some(near) => format!("{set}; `{near}` is set, did you mean that?"),
                    None => set,
                };
                self.fault(place, format!("the variable `{name}` is not set"), remedy);
                (String::new(), true)
            }
        }
    }

    fn fault(&mut self, place: Span, message: String, remedy: String) {
        self.faults.push(Fault::new(codes::MISSING_VARIABLE, place, message).remedy(remedy));
    }

    /// Where the nth `${` of the scalar stands in the file; the scalar itself where an escape in quotes hides one.
    fn place(&self, written: &str, nth: usize) -> Span {
        let raw = self.files.slice(self.span);
        if raw.matches("${").count() != written.matches("${").count() {
            return self.span;
        }
        match raw.match_indices("${").nth(nth) {
            Some((at, _)) => Span { start: self.span.start + at, end: self.span.start + at + 2, ..self.span },
            None => self.span,
        }
    }

    fn sized(&self, place: Span, length: usize) -> Span {
        if place == self.span {
            return place;
        }
        Span { end: (place.start + length).min(self.span.end), ..place }
    }
}

/// A file's text, whose last line most editors end.
fn without_line_break(mut text: String) -> String {
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    text
}

/// The text of a scalar with the files in it as they are now; `None`: one cannot be read.
pub fn read_again(scalar: &Scalar) -> Option<String> {
    let mut text = String::with_capacity(scalar.text.len());
    let mut at = 0;
    for fill in &scalar.fills {
        text.push_str(scalar.text.get(at..fill.now.start)?);
        match &fill.file {
            Some(path) => text.push_str(&without_line_break(read(path).ok()?)),
            None => text.push_str(scalar.text.get(fill.now.clone())?),
        }
        at = fill.now.end;
    }
    text.push_str(scalar.text.get(at..)?);
    Some(text)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A place inside of a text that a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within {
    /// The stretch of the file.
    pub span: Span,
    /// Whether it is the very character; otherwise it is the whole value, because the text as the file has it and as
    /// it is meant differ by escapes or folded lines.
    pub exact: bool,
}

/// Where line and column (both from 1, in characters) of a node's text stand in the file.
pub fn within(files: &Files, node: &Node, line: usize, column: usize) -> Within {
    let whole = Within { span: node.span, exact: false };
    let Some(scalar) = node.scalar() else { return whole };
    let Some(offset) = offset_of(&scalar.text, line, column) else { return whole };
    let offset = written_offset(scalar, offset);
    let raw = files.slice(node.span);
    match scalar.style {
        Style::Literal => literal(files, node.span, scalar, offset).unwrap_or(whole),
        Style::Plain | Style::Quoted => {
            let inner = raw.trim_start_matches(['"', '\'']);
            let start = node.span.start + (raw.len() - inner.len());
            let escaped =
                inner.contains(['\\', '\n', '\r']) || (raw.starts_with('\'') && inner.contains("''"));
            if escaped { whole } else { exactly(files, node.span, start + offset) }
        }
        Style::Folded => whole,
    }
}

fn exactly(files: &Files, whole: Span, start: usize) -> Within {
    let text = files.text(whole.file);
    let start = start.min(text.len());
    let width = text.get(start..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    Within { span: Span { file: whole.file, start, end: start + width }, exact: true }
}

/// In a literal block each line of the text is a line of the file, behind the same indentation.
fn literal(files: &Files, span: Span, scalar: &Scalar, offset: usize) -> Option<Within> {
    let raw = files.slice(span);
    // The parser's span begins at the first line that says something, behind its indentation.
    let (begins, _) = files.line_and_column(span.file, span.start);
    let written = written_text(scalar, raw);
    let before = written.get(..offset.min(written.len()))?;
    let line = before.matches('\n').count();
    let column = before.rsplit('\n').next().map_or(0, str::len);
    // The indentation: what the file has in front of the first line that says something.
    let (index, sample) = written.split('\n').enumerate().find(|(_, line)| !line.trim().is_empty())?;
    let indent = files.line(span.file, begins).len().checked_sub(sample.len())?;
    let line = (begins + line).checked_sub(index)?;
    let start = files.line_start(span.file, line);
    let width = files.line(span.file, line).len();
    Some(exactly(files, span, start + (indent + column).min(width)))
}

/// The text before variables were filled in: stretches that were not filled come from the text now, the others are
/// as long as they were and without line breaks, which `${…}` cannot hold.
fn written_text(scalar: &Scalar, raw: &str) -> String {
    if scalar.fills.is_empty() {
        return scalar.text.clone();
    }
    let mut text = String::with_capacity(raw.len());
    let mut at = 0;
    for fill in &scalar.fills {
        text.push_str(scalar.text.get(at..fill.now.start).unwrap_or(""));
        text.extend(std::iter::repeat_n('$', fill.written.len()));
        at = fill.now.end;
    }
    text.push_str(scalar.text.get(at..).unwrap_or(""));
    text
}

/// The byte in the text as written of a byte in the text now.
fn written_offset(scalar: &Scalar, now: usize) -> usize {
    let mut shift = 0_isize;
    for fill in &scalar.fills {
        if now < fill.now.start {
            break;
        }
        if now < fill.now.end {
            return fill.written.start;
        }
        shift = fill.written.end as isize - fill.now.end as isize;
    }
    now.saturating_add_signed(shift)
}

fn offset_of(text: &str, line: usize, column: usize) -> Option<usize> {
    let start = match line {
        0 | 1 => 0,
        _ => text.match_indices('\n').nth(line - 2)?.0 + 1,
    };
    let rest = text[start..].split('\n').next().unwrap_or("");
    Some(start + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::parse;

    fn filled(text: &str) -> (Files, Node, Vec<Fault>) {
        let mut files = Files::default();
        let file = files.add("a.yaml", text);
        let mut node = parse(&files, file).unwrap().unwrap();
        let mut faults = Vec::new();
        let environment = [("USER_NAME", "ann"), ("EMPTY", ""), ("LINES", "a\nb")].into_iter().collect();
        fill(&mut node, &files, &environment, &mut faults);
        (files, node, faults)
    }

    fn value(text: &str) -> String {
        let (_, node, faults) = filled(&format!("a: {text}"));
        assert!(faults.is_empty(), "{faults:?}");
        node.get("a").unwrap().text().unwrap().to_owned()
    }

    #[test]
    fn variables_are_filled_in() {
        assert_eq!(value("${USER_NAME}"), "ann");
        assert_eq!(value("\"x ${USER_NAME} y ${USER_NAME}\""), "x ann y ann");
        assert_eq!(value("${NOBODY:-some one}"), "some one");
        assert_eq!(value("${EMPTY:-full}"), "full");
        assert_eq!(value("a${EMPTY}b"), "ab");
        assert_eq!(value("$${USER_NAME} $5 $"), "${USER_NAME} $5 $");
        assert_eq!(value("\"{{ row.x }} ${USER_NAME}\""), "{{ row.x }} ann");
    }

    #[test]
    fn a_text_is_read_again_with_its_files_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "one\n").unwrap();
        let text = format!("a: \"x ${{file:{}}} ${{USER_NAME}} y\"", path.display());
        let (_, node, faults) = filled(&text);
        assert!(faults.is_empty(), "{faults:?}");
        let scalar = node.get("a").unwrap().scalar().unwrap();
        assert_eq!(
            (scalar.text.as_str(), read_again(scalar).unwrap().as_str()),
            ("x one ann y", "x one ann y")
        );
        std::fs::write(&path, "longer than before\r\n").unwrap();
        assert_eq!(read_again(scalar).unwrap(), "x longer than before ann y");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read_again(scalar), None);
    }

    #[test]
    fn a_missing_variable_has_its_place() {
        let (files, _, faults) =
            filled("a: x\nb: \"é ${USER_NAME} ${USER_NAM}\"\nc: |\n  x\n    ${GONE}\nd: ${ }");
        let places: Vec<_> = faults
            .iter()
            .map(|fault| (files.place(fault.span.unwrap()).to_string(), files.slice(fault.span.unwrap())))
            .collect();
        assert_eq!(
            places,
            [
                ("a.yaml:2:20".to_owned(), "${USER_NAM}"),
                ("a.yaml:5:5".to_owned(), "${GONE}"),
                ("a.yaml:6:4".to_owned(), "${ }")
            ]
        );
        assert!(faults[0].remedy.as_ref().unwrap().contains("`USER_NAME` is set"));
    }

    #[test]
    fn a_place_in_a_text_is_a_place_in_the_file() {
        let source =
            "a: |-\n\n    one ${LINES} é!\n    two ! three\nb: \"x ! y\"\nc: 'it''s !'\nd: >\n  x\n  !";
        let (files, node, _) = filled(source);
        let at = |key: &str, line, column| {
            let found = within(&files, node.get(key).unwrap(), line, column);
            let place = files.place(found.span);
            (place.line, place.column, found.exact, files.slice(found.span).to_owned())
        };
        // The text of `a` is "\none a", "b é!", "two ! three".
        assert_eq!(at("a", 3, 4), (3, 19, true, "!".to_owned()));
        assert_eq!(at("a", 4, 5), (4, 9, true, "!".to_owned()));
        assert_eq!(at("b", 1, 3), (5, 7, true, "!".to_owned()));
        assert!(!at("c", 1, 6).2);
        assert!(!at("d", 1, 3).2);
    }
}
