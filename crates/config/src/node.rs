//! The nodes of a tree: what was written, where, and what it means.

use std::path::PathBuf;

use super::text::Span;

/// A value with its place.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub kind: NodeKind,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// A text, number, truth value or nothing.
    Scalar(Scalar),
    /// Values in order.
    List(Vec<Node>),
    /// Values by key, in order, no key twice.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub span: Span,
    /// The value.
    pub value: Node,
}

/// A scalar as written, and as variables filled it in.
#[derive(Debug, Clone)]
pub struct Scalar {
    /// The text.
    pub text: String,
    /// How it was written.
    pub style: Style,
    /// What was filled in, in order.
    pub fills: Vec<Fill>,
    /// Whether a variable could not be filled in, so that the text is not what was meant.
    pub broken: bool,
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Without quotes: may be a number, a truth value or nothing.
    Plain,
    /// In quotes: text.
    Quoted,
    /// A block that keeps its line breaks (`|`).
    Literal,
    /// A block whose lines are joined (`>`).
    Folded,
}

/// A stretch of a scalar that stands for another text than what was written.
#[derive(Debug, Clone)]
pub struct Fill {
    /// Where it stands in the text now, in bytes.
    pub now: std::ops::Range<usize>,
    /// Where it stood in the text as written.
    pub written: std::ops::Range<usize>,
    /// Whether the text came from a variable or file, and may be a secret.
    pub secret: bool,
    /// The file that holds it.
    pub file: Option<PathBuf>,
}

/// What a scalar means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Meaning<'n> {
    /// No value.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(&'n str),
}

impl Node {
    /// The scalar, if it is one.
    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.kind {
            NodeKind::Scalar(scalar) => Some(scalar),
            NodeKind::List(_) | NodeKind::Map(_) => None,
        }
    }

    /// The entries, if it is a map.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.kind {
            NodeKind::Map(entries) => Some(entries),
            NodeKind::List(_) | NodeKind::Scalar(_) => None,
        }
    }

    /// The entry of a key, if it is a map that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| entry.key == key)
    }

    /// The value of a key, if it is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The text of a scalar, whatever it means.
    pub fn text(&self) -> Option<&str> {
        self.scalar().map(|scalar| scalar.text.as_str())
    }

    /// The items, if it is a list; none otherwise.
    pub fn items(&self) -> &[Node] {
        match &self.kind {
            NodeKind::List(items) => items,
            NodeKind::Map(_) | NodeKind::Scalar(_) => &[],
        }
    }

    /// An item, if it is a list that has it.
    pub fn item(&self, index: usize) -> Option<&Node> {
        self.items().get(index)
    }

    /// As JSON, with numbers as they are written.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.kind {
            NodeKind::List(items) => items.iter().map(Node::to_json).collect(),
            NodeKind::Map(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect(),
            ),
            NodeKind::Scalar(scalar) => match scalar.meaning() {
                Meaning::Null => Value::Null,
                Meaning::Bool(value) => value.into(),
                Meaning::Text(text) => text.into(),
                Meaning::Int(number) => {
                    serde_json::from_str(&number.to_string()).map_or(Value::Null, Value::Number)
                }
                // What JSON does not have (`.inf`) is a text.
                Meaning::Float(number) => match serde_json::from_str(&scalar.text) {
                    Ok(digits) => Value::Number(digits),
                    Err(_) if number.is_finite() => number.into(),
                    Err(_) => scalar.text.as_str().into(),
                },
            },
        }
    }

    /// Whether it is a scalar of which some text came from a variable or a file.
    pub fn is_filled(&self) -> bool {
        self.scalar().is_some_and(Scalar::is_filled)
    }

    /// Whether it is a plain scalar that says nothing.
    pub fn is_null(&self) -> bool {
        self.scalar().is_some_and(|scalar| scalar.meaning() == Meaning::Null)
    }

    /// Whether it is a plain number.
    pub fn is_number(&self) -> bool {
        self.scalar().is_some_and(|scalar| matches!(scalar.meaning(), Meaning::Int(_) | Meaning::Float(_)))
    }

    /// What it is, for people.
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            NodeKind::List(_) => "a list",
            NodeKind::Map(_) => "a map",
            NodeKind::Scalar(scalar) => match scalar.meaning() {
                Meaning::Null => "nothing",
                Meaning::Bool(_) => "a truth value",
                Meaning::Int(_) => "a whole number",
                Meaning::Float(_) => "a number",
                Meaning::Text(_) => "text",
            },
        }
    }

    /// How many nodes it is, with all that are in it.
    pub(super) fn count(&self) -> usize {
        1 + match &self.kind {
            NodeKind::Scalar(_) => 0,
            NodeKind::List(items) => items.iter().map(Node::count).sum(),
            NodeKind::Map(entries) => entries.iter().map(|entry| entry.value.count()).sum(),
        }
    }

    /// How many levels it is, itself included.
    pub(super) fn depth(&self) -> usize {
        1 + match &self.kind {
            NodeKind::Scalar(_) => 0,
            NodeKind::List(items) => items.iter().map(Node::depth).max().unwrap_or(0),
            NodeKind::Map(entries) => entries.iter().map(|entry| entry.value.depth()).max().unwrap_or(0),
        }
    }
}

impl Scalar {
    /// Whether some of its text came from a variable or a file.
    pub fn is_filled(&self) -> bool {
        self.fills.iter().any(|fill| fill.secret)
    }

    /// What it means by YAML's core schema: only plain scalars are anything but text.
    pub fn meaning(&self) -> Meaning<'_> {
        match self.style {
            Style::Plain => plain_meaning(&self.text, !self.fills.is_empty()),
            Style::Quoted | Style::Literal | Style::Folded => Meaning::Text(&self.text),
        }
    }

    /// What it would mean without quotes; for values that a variable filled in, where quotes may have been
    /// needed to write `"${PORT}"` in a map of one line.
    pub fn meaning_unquoted(&self) -> Meaning<'_> {
        plain_meaning(&self.text, true)
    }
}

fn plain_meaning(text: &str, filled: bool) -> Meaning<'_> {
    match text {
        // A variable that is set to nothing is an empty text, not a missing value.
        "" if filled => return Meaning::Text(""),
        "" | "~" | "null" | "Null" | "NULL" => return Meaning::Null,
        "true" | "True" | "TRUE" => return Meaning::Bool(true),
        "false" | "False" | "FALSE" => return Meaning::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Meaning::Float(f64::NAN),
        _ => {}
    }
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    if let ".inf" | ".Inf" | ".INF" = digits {
        return Meaning::Float(f64::from(sign) * f64::INFINITY);
    }
    let radix = |prefix: &str, radix| {
        let digits = text.strip_prefix(prefix).filter(|digits| !digits.starts_with(['+', '-']))?;
        i128::from_str_radix(digits, radix).ok()
    };
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Meaning::Int(number);
    }
    if !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(number) = digits.parse::<i128>()
    {
        return Meaning::Int(i128::from(sign) * number);
    }
    let float = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.bytes().any(|byte| byte.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    match text.parse() {
        Ok(number) if float => Meaning::Float(number),
        _ => Meaning::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_mean_what_the_core_schema_says() {
        for (text, meaning) in [
            ("", Meaning::Null),
            ("~", Meaning::Null),
            ("true", Meaning::Bool(true)),
            ("yes", Meaning::Text("yes")),
            ("12", Meaning::Int(12)),
            ("-12", Meaning::Int(-12)),
            ("0x1F", Meaning::Int(31)),
            ("0o17", Meaning::Int(15)),
            ("1.5", Meaning::Float(1.5)),
            ("1e3", Meaning::Float(1e3)),
            (".5", Meaning::Float(0.5)),
            ("-.inf", Meaning::Float(f64::NEG_INFINITY)),
            ("1.2.3", Meaning::Text("1.2.3")),
            ("e5", Meaning::Text("e5")),
            ("infinity", Meaning::Text("infinity")),
            ("30s", Meaning::Text("30s")),
            ("-", Meaning::Text("-")),
            ("0x-1", Meaning::Text("0x-1")),
        ] {
            assert_eq!(plain_meaning(text, false), meaning, "{text}");
        }
        assert_eq!(plain_meaning("", true), Meaning::Text(""));
    }
}
