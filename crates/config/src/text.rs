//! The texts of the configuration and places in them.
//!
//! In: paths. Out: [`Files`], which hold every text that was read, and [`Span`]s that point into them. A span is all
//! that later stages carry; line, column and the line itself are looked up when a fault is shown.

use std::fs::File as Opened;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest file that is read as configuration, SQL or template. One that is larger is a mistake (a dump, a log),
/// and reading it would only make the fault come later.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// Which of the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(u32);

/// A stretch of one text, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Which text.
    pub file: FileId,
    /// Its first byte.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
}

/// A place for people: lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Place {
    /// The file, as the user named it.
    pub file: String,
    /// Its line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// Every text that was read.
#[derive(Debug, Clone, Default)]
pub struct Files(Vec<Arc<TextFile>>);

/// One text, with the places where its lines begin.
#[derive(Debug)]
struct TextFile {
    path: PathBuf,
    text: String,
    lines: Vec<usize>,
}

/// Why a file gives no text, as the second half of a sentence that begins with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Such as "is a folder".
    pub why: String,
    /// The way out.
    pub remedy: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Span {
    /// The empty stretch where this one begins.
    #[must_use]
    pub fn at_start(self) -> Span {
        Span { end: self.start, ..self }
    }
}

impl Files {
    /// Adds a text under the path that is shown to people.
    pub fn add(&mut self, path: impl Into<PathBuf>, text: impl Into<String>) -> FileId {
        let text = text.into();
        let lines = line_starts(&text);
        self.0.push(Arc::new(TextFile { path: path.into(), text, lines }));
        FileId(self.0.len() as u32 - 1)
    }

    /// How many texts there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The texts that were added after there were `count`.
    pub fn added_since(&self, count: usize) -> impl Iterator<Item = &str> {
        self.0.iter().skip(count).map(|file| file.text.as_str())
    }

    /// The text.
    pub fn text(&self, file: FileId) -> &str {
        self.0.get(file.0 as usize).map_or("", |file| &file.text)
    }

    /// The path, as it was named.
    pub fn path(&self, file: FileId) -> &Path {
        self.0.get(file.0 as usize).map_or(Path::new(""), |file| &file.path)
    }

    /// A path that a text names, which is relative to the folder of that text.
    pub fn beside(&self, file: FileId, path: &str) -> PathBuf {
        match self.path(file).parent() {
            Some(folder) => folder.join(path),
            None => PathBuf::from(path),
        }
    }

    /// The characters of a span.
    pub fn slice(&self, span: Span) -> &str {
        self.text(span.file).get(span.start..span.end).unwrap_or("")
    }

    /// Where a span begins.
    pub fn place(&self, span: Span) -> Place {
        let (line, column) = self.line_and_column(span.file, span.start);
        Place { file: self.path(span.file).display().to_string(), line, column }
    }

    /// Line and column of a byte, from 1.
    pub fn line_and_column(&self, file: FileId, byte: usize) -> (usize, usize) {
        let Some(file) = self.0.get(file.0 as usize) else { return (1, 1) };
        let line = file.lines.partition_point(|start| *start <= byte).max(1);
        let start = file.lines[line - 1];
        let column = file.text.get(start..byte).map_or(0, |before| before.chars().count());
        (line, column + 1)
    }

    /// The byte of a line and column, both from 1; the end of the line where the column is past it.
    pub fn byte_at(&self, file: FileId, line: usize, column: usize) -> usize {
        let text = self.line(file, line);
        let start = self.line_start(file, line);
        start + text.char_indices().nth(column.saturating_sub(1)).map_or(text.len(), |(byte, _)| byte)
    }

    /// The byte where a line (from 1) begins; the end of the text where there is no such line.
    pub fn line_start(&self, file: FileId, line: usize) -> usize {
        let Some(file) = self.0.get(file.0 as usize) else { return 0 };
        file.lines.get(line.saturating_sub(1)).copied().unwrap_or(file.text.len())
    }

    /// A line (from 1) without its end.
    pub fn line(&self, file: FileId, line: usize) -> &str {
        let (start, end) = (self.line_start(file, line), self.line_start(file, line + 1));
        self.text(file).get(start..end).unwrap_or("").trim_end_matches(['\n', '\r'])
    }
}

/// Reads a text of bounded size.
///
/// # Errors
/// The file cannot be read, is too large, or is no UTF-8 text.
pub fn read(path: &Path) -> Result<String, Unreadable> {
    let unreadable = |why: String, remedy: &str| Unreadable { why, remedy: remedy.to_owned() };
    let opened = Opened::open(path).map_err(|error| {
        unreadable(format!("cannot be read: {}", reason(&error)), "check the path and the rights of the file")
    })?;
    let mut bytes = Vec::new();
    opened
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(format!("cannot be read: {}", reason(&error)), "name a text file"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let why = format!("is larger than {} MiB, the most that is read", FILE_BYTES_MAX >> 20);
        return Err(unreadable(why, "check that this is the file that was meant"));
    }
    text_of(bytes)
}

/// What the system said, without its number.
pub fn reason(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or(&text).to_lowercase()
        }
    }
}

fn text_of(bytes: Vec<u8>) -> Result<String, Unreadable> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Unreadable { why: "is UTF-16".to_owned(), remedy: "save it as UTF-8".to_owned() });
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].split(|byte| *byte == b'\n').count();
        let byte = error.as_bytes()[good];
        Unreadable {
            why: format!("is not UTF-8 text: byte {byte:#04x} in line {line}"),
            remedy: "save it as UTF-8, or check that this is the file that was meant".to_owned(),
        }
    })?;
    if let Some(at) = text.find('\0') {
        let line = text[..at].matches('\n').count() + 1;
        return Err(Unreadable {
            why: format!("is not text: line {line} holds a zero byte"),
            remedy: "check that this is the file that was meant".to_owned(),
        });
    }
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// Lines end as YAML says: with CR LF, LF or CR.
fn line_starts(text: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let ends = (0..bytes.len()).filter(|&at| match bytes[at] {
        b'\n' => true,
        b'\r' => bytes.get(at + 1) != Some(&b'\n'),
        _ => false,
    });
    std::iter::once(0).chain(ends.map(|at| at + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters() {
        let mut files = Files::default();
        let file = files.add("a.yaml", "é: ü\r\nb: c\rd");
        assert_eq!(files.line_and_column(file, 4), (1, 4));
        assert_eq!(files.line(file, 1), "é: ü");
        assert_eq!(files.line(file, 2), "b: c");
        assert_eq!(files.line_and_column(file, files.text(file).len() - 1), (3, 1));
        assert_eq!(files.byte_at(file, 1, 4), 4);
        assert_eq!(files.byte_at(file, 1, 99), 6);
        assert_eq!(files.line(file, 9), "");
    }

    #[test]
    fn what_is_not_text_is_said_to_be() {
        assert!(text_of(vec![0xff, 0xfe, 0x41, 0]).unwrap_err().why.contains("UTF-16"));
        assert_eq!(text_of(b"a\nb\xffc".to_vec()).unwrap_err().why, "is not UTF-8 text: byte 0xff in line 2");
        assert_eq!(text_of(b"a\0b".to_vec()).unwrap_err().why, "is not text: line 1 holds a zero byte");
        assert_eq!(text_of(b"\xef\xbb\xbfa".to_vec()).unwrap(), "a");
    }
}
