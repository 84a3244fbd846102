//! Faults of a configuration, as people and programs see them.
//!
//! A fault is a code, a place, a sentence and a way out. All of them are shown at once, in the order of their places.
//! What is shown never holds a value that came from a variable, and what looks like a secret in a line that is
//! quoted is covered.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};
use warren_engine::codes::{self, Code};
use warren_engine::finding::Severity;
use warren_engine::redact::scrub;

use super::text::{Files, Span};

/// Faults shown in full; a broken file can have thousands, and nobody reads past these.
const SHOWN_MAX: usize = 100;
/// Characters of a quoted line; longer ones are cut around the place.
const LINE_CHARS_MAX: usize = 120;
/// How far the cut begins before the place.
const LINE_CHARS_BEFORE: usize = 60;

/// One thing that is wrong in a configuration.
#[derive(Debug, Clone)]
pub struct Fault {
    /// How bad it is.
    pub severity: Severity,
    /// Which fault it is.
    pub code: Code,
    /// Where; `None` where no text is to blame, such as a file that cannot be read.
    pub span: Option<Span>,
    /// What is wrong, in one sentence without full stop.
    pub message: String,
    /// What another side said about it, such as a database.
    pub detail: Option<String>,
    /// The way out, as an instruction.
    pub remedy: Option<String>,
    /// Other places that belong to it, each with what stands there.
    pub also: Vec<(Span, String)>,
}

impl Fault {
    /// An error at a place.
    pub fn new(code: Code, span: Span, message: impl Into<String>) -> Fault {
        Fault { span: Some(span), ..Fault::nowhere(code, message) }
    }

    /// An error that no text is to blame for.
    pub fn nowhere(code: Code, message: impl Into<String>) -> Fault {
        Fault {
            severity: Severity::Error,
            code,
            span: None,
            message: message.into(),
            detail: None,
            remedy: None,
            also: Vec::new(),
        }
    }

    /// With the way out.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Fault {
        self.remedy = Some(remedy.into());
        self
    }

    /// With another place that belongs to it.
    #[must_use]
    pub fn also(mut self, span: Span, what: impl Into<String>) -> Fault {
        self.also.push((span, what.into()));
        self
    }

    /// Takes out what came from variables.
    fn clean(&mut self) {
        let texts = [Some(&mut self.message), self.detail.as_mut(), self.remedy.as_mut()];
        for text in texts.into_iter().flatten().chain(self.also.iter_mut().map(|(_, what)| what)) {
            if let Cow::Owned(clean) = scrub(text.as_str()) {
                *text = clean;
            }
        }
    }

    /// As something that works and may hurt.
    #[must_use]
    pub fn warning(mut self) -> Fault {
        self.severity = Severity::Warning;
        self
    }
}

/// Faults with the texts they are about.
#[derive(Debug, Clone)]
pub struct Faults {
    found: Vec<Fault>,
    files: Files,
    /// Stretches of the texts that hold secrets.
    secrets: Vec<Span>,
    /// Whether the end says how many there are.
    tally: bool,
}

/// Whether what is written may hold colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// A terminal that wants them.
    On,
    /// A file, a pipe, a test.
    Off,
}

impl Faults {
    /// Faults in the order of their places, each once.
    pub fn new(mut faults: Vec<Fault>, files: Files, secrets: Vec<Span>) -> Faults {
        // Those without a place come first: a file that cannot be read explains what is missing elsewhere.
        faults.sort_by_key(|fault| fault.span.map(|span| (span.file, span.start)));
        for fault in &mut faults {
            fault.clean();
        }
        let mut seen = HashSet::new();
        // An anchor that is used ten times has its faults once, although the paths in their messages differ.
        faults.retain(|fault| {
            let by_place = fault.code == codes::UNKNOWN_KEY || fault.code == codes::INVALID_VALUE;
            let said = if by_place { fault.remedy.clone() } else { Some(fault.message.clone()) };
            seen.insert((fault.span, fault.code, said))
        });
        Faults { found: faults, files, secrets, tally: true }
    }

    /// Without the count at the end: not all of them are faults of the configuration.
    #[must_use]
    pub fn uncounted(mut self) -> Faults {
        self.tally = false;
        self
    }

    /// The faults, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.found.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The faults for people: with the line, a caret and the way out. The same faults give the same text.
    pub fn render(&self, colours: Colours) -> String {
        let paint = Paint(colours);
        let mut out = String::new();
        for fault in self.found.iter().take(SHOWN_MAX) {
            self.render_one(fault, paint, &mut out);
            out.push('\n');
        }
        if self.found.len() > SHOWN_MAX {
            // Writing to a string cannot fail.
            writeln!(out, "and {} more\n", self.found.len() - SHOWN_MAX).ok();
        }
        let count = |severity| self.found.iter().filter(|fault| fault.severity == severity).count();
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        let counted =
            |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let tally = [(errors, "error"), (warnings, "warning")]
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(number, what)| counted(number, what))
            .collect::<Vec<_>>();
        if self.tally && !tally.is_empty() {
            writeln!(out, "{} in the configuration", tally.join(" and ")).ok();
        }
        out
    }

    fn render_one(&self, fault: &Fault, paint: Paint, out: &mut String) {
        let (word, colour) = match fault.severity {
            Severity::Error => ("error", AnsiColor::Red),
            Severity::Warning => ("warning", AnsiColor::Yellow),
            Severity::Note => ("note", AnsiColor::Cyan),
        };
        let head = paint.bold(colour, &format!("{word}[{}]", fault.code));
        writeln!(out, "{head}: {}", printable(&fault.message)).ok();
        let shown = fault.span.into_iter().map(|span| (span, None));
        let also = fault.also.iter().map(|(span, what)| (*span, Some(what.as_str())));
        let places: Vec<(Span, Option<&str>)> = shown.chain(also).collect();
        let margin = places
            .iter()
            .map(|(span, _)| self.files.line_and_column(span.file, span.start).0.to_string().len())
            .max()
            .unwrap_or(1);
        let bar = paint.dim("|");
        for (span, what) in &places {
            let place = self.files.place(*span);
            let arrow = paint.dim(if what.is_some() { "::>" } else { "-->" });
            writeln!(
                out,
                "{:margin$}{arrow} {place}{}",
                "",
                what.map(|what| format!(": {what}")).unwrap_or_default()
            )
            .ok();
            let quoted = self.quote(*span);
            writeln!(out, "{:margin$} {bar}", "").ok();
            writeln!(out, "{} {bar} {}", paint.dim(&format!("{:>margin$}", place.line)), quoted.line).ok();
            let caret = format!("{}{}", " ".repeat(quoted.before), "^".repeat(quoted.width.max(1)));
            writeln!(out, "{:margin$} {bar} {}", "", paint.bold(colour, &caret)).ok();
        }
        for (label, text) in [("said", &fault.detail), ("help", &fault.remedy)] {
            if let Some(text) = text {
                writeln!(out, "{:margin$} {} {label}: {}", "", paint.dim("="), printable(text)).ok();
            }
        }
    }

    /// The faults for programs, an object each; its event is its severity.
    pub fn events(&self) -> Vec<Value> {
        let one = |fault: &Fault| {
            let place = fault.span.map(|span| self.files.place(span));
            let also = fault
                .also
                .iter()
                .map(|(span, what)| json!({"place": self.files.place(*span).to_string(), "what": what}));
            json!({
                "event": fault.severity, "severity": fault.severity, "code": fault.code.as_str(),
                "place": place.as_ref().map(ToString::to_string), "file": place.as_ref().map(|place| &place.file),
                "line": place.as_ref().map(|place| place.line), "column": place.as_ref().map(|place| place.column),
                "message": fault.message, "detail": fault.detail, "help": fault.remedy,
                "also": also.collect::<Vec<_>>(),
            })
        };
        self.found.iter().map(one).collect()
    }

    /// The line of a span: secrets covered, tabs and what a terminal would obey replaced, cut if long.
    fn quote(&self, span: Span) -> Quoted {
        let (line, column) = self.files.line_and_column(span.file, span.start);
        let text = self.files.line(span.file, line);
        let start = self.files.line_start(span.file, line);
        let covered = self.covered(span, text, start);
        let characters: Vec<char> = text
            .char_indices()
            .map(|(at, character)| match character {
                _ if covered.iter().any(|(from, to)| (*from..*to).contains(&(start + at))) => '*',
                '\t' => ' ',
                character if character.is_control() || is_bidirectional(character) => '\u{fffd}',
                character => character,
            })
            .collect();
        let before = (column - 1).min(characters.len());
        let end = span.end.min(start + text.len()).max(span.start);
        let width = self.files.slice(Span { end, ..span }).chars().count();
        let first = if before > LINE_CHARS_MAX - 20 { before - LINE_CHARS_BEFORE } else { 0 };
        let last = characters.len().min(first + LINE_CHARS_MAX);
        let mut line: String = characters[first..last].iter().collect();
        let mut before = before - first;
        if first > 0 {
            line.insert_str(0, "... ");
            before += 4;
        }
        if last < characters.len() {
            line.push_str(" ...");
        }
        let room = line.chars().count().saturating_sub(before);
        Quoted { line: line.trim_end().to_owned(), before, width: width.min(room) }
    }

    /// The stretches of a line that are not shown, in bytes of the text.
    fn covered(&self, span: Span, text: &str, start: usize) -> Vec<(usize, usize)> {
        let mut covered: Vec<(usize, usize)> = self
            .secrets
            .iter()
            .filter(|secret| {
                secret.file == span.file && secret.start < start + text.len() && secret.end > start
            })
            .map(|secret| (secret.start, secret.end))
            .collect();
        covered.extend(secret_looking(text).into_iter().map(|(from, to)| (start + from, start + to)));
        covered
    }
}

struct Quoted {
    line: String,
    before: usize,
    width: usize,
}

/// What in a line looks like a secret, for lines that were never understood: the value of a key whose name says
/// so, and the password of a URL. A value that is a variable's name is none.
fn secret_looking(line: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let lower = line.to_ascii_lowercase();
    for (at, _) in lower.match_indices(':') {
        let key = lower[..at].trim_end_matches(['"', '\'', ' ']);
        let key =
            key.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').next().unwrap_or(key);
        if ["password", "passwd", "pasword", "passwort", "secret", "token", "api_key", "access_key"]
            .iter()
            .any(|word| key.contains(word))
        {
            let value = &line[at + 1..];
            let from = at + 1 + (value.len() - value.trim_start_matches([' ', '"', '\'']).len());
            let to = line[from..].find([',', '}', '"', '\'']).map_or(line.trim_end().len(), |end| from + end);
            if from < to && !line[from..].starts_with(['$', '{']) {
                found.push((from, to));
            }
        }
    }
    for (at, _) in line.match_indices("://") {
        let authority = &line[at + 3..];
        let authority = &authority[..authority.find(['/', '?', ' ', '"', '\'']).unwrap_or(authority.len())];
        if let (Some(colon), Some(host)) = (authority.find(':'), authority.rfind('@'))
            && colon + 1 < host
            && !authority[colon + 1..].starts_with("${")
        {
            found.push((at + 3 + colon + 1, at + 3 + host));
        }
    }
    found
}

/// A text without what a terminal would obey.
fn printable(text: &str) -> String {
    let shown = |c: char| if (c.is_control() && c != '\n') || is_bidirectional(c) { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// Characters that turn the direction of a line, and so can make it read as something else.
fn is_bidirectional(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[derive(Clone, Copy)]
struct Paint(Colours);

impl Paint {
    fn with(self, style: Style, text: &str) -> String {
        match self.0 {
            Colours::On => format!("{style}{text}{style:#}"),
            Colours::Off => text.to_owned(),
        }
    }

    fn bold(self, colour: AnsiColor, text: &str) -> String {
        self.with(colour.on_default().bold(), text)
    }

    fn dim(self, text: &str) -> String {
        self.with(AnsiColor::Blue.on_default(), text)
    }
}

/// The known name nearest to one that is not known, if it is near enough to be what was meant.
pub fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // `routingKey` and `routing-key` are `routing_key`.
    let bare = |name: &str| name.replace(['_', '-'], "").to_lowercase();
    let known: Vec<&str> = known.into_iter().collect();
    let same = known.iter().copied().find(|known| bare(known) == bare(name));
    same.or_else(|| warren_engine::near::nearest(name, known))
}

/// Names for a sentence: "`a`, `b` or `c`".
pub fn listed<'n>(names: impl IntoIterator<Item = &'n str>, before_last: &str) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} {before_last} {last}", first.join(", ")),
    }
}

/// The way out for a name that is not known.
pub fn name_remedy<'n>(name: &str, known: impl IntoIterator<Item = &'n str> + Clone, what: &str) -> String {
    match nearest(name, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("{what}: {}", listed(known, "and")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_lines_are_covered() {
        let covered = |line: &str| {
            let ranges = secret_looking(line);
            line.char_indices()
                .map(
                    |(at, c)| {
                        if ranges.iter().any(|(from, to)| (*from..*to).contains(&at)) { '*' } else { c }
                    },
                )
                .collect::<String>()
        };
        assert_eq!(covered("  password: hunter2"), "  password: *******");
        assert_eq!(covered("a: {pasword: \"hunter2\", b: 1}"), "a: {pasword: \"*******\", b: 1}");
        assert_eq!(covered("url: amqp://u:pw@host/v"), "url: amqp://u:**@host/v");
        assert_eq!(covered("url: amqp://u:p@w@host/v"), "url: amqp://u:***@host/v");
        assert_eq!(covered("password: ${PASSWORD}"), "password: ${PASSWORD}");
        assert_eq!(covered("url: http://host:80/"), "url: http://host:80/");
    }

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(nearest("colunm", ["column", "fields"]), Some("column"));
        assert_eq!(nearest("routingKey", ["routing_key", "queue"]), Some("routing_key"));
        assert_eq!(nearest("zebra", ["column", "fields"]), None);
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let mut files = Files::default();
        let text = format!("{}HERE{}", "a".repeat(500), "b".repeat(500));
        let file = files.add("a.yaml", text);
        let span = Span { file, start: 500, end: 504 };
        let fault = Fault::new(warren_engine::codes::UNKNOWN_KEY, span, "no");
        let shown = Faults::new(vec![fault], files, Vec::new()).render(Colours::Off);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() < 150));
        let (line, caret) = (lines[3], lines[4]);
        assert_eq!(line.find("HERE"), caret.find("^^^^"));
    }
}
