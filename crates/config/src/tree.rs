//! YAML as a tree of nodes that know their places.
//!
//! In: a text. Out: a [`Node`], or the faults that keep it from being one. Scalars keep the style they were written
//! in, since a quoted `"5"` is text and a plain `5` is a number. Anchors, aliases and merge keys (`<<`) are resolved
//! here, within bounds, so that no later stage meets them. Nothing is known here about what the keys mean.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span as YamlSpan, Tag};
use warren_engine::codes;

use super::faults::Fault;
pub use super::node::{Entry, Fill, Meaning, Node, NodeKind, Scalar, Style};
use super::text::{FileId, Files, Span};

/// Maps and lists within each other. A configuration needs about eight.
const DEPTH_MAX: usize = 64;
/// Nodes that may come about by aliases; a small file can ask for billions.
const COPIES_MAX: usize = 100_000;
/// Duplicate keys that are told of in one file; after that the file is not a configuration.
const DUPLICATES_MAX: usize = 20;

/// Reads the tree of a text. `None`: the text holds nothing but comments.
///
/// # Errors
/// The text is not YAML, or uses YAML in a way that is refused.
pub fn parse(files: &Files, file: FileId) -> Result<Option<Node>, Vec<Fault>> {
    let mut builder = Builder {
        files,
        file,
        frames: Vec::new(),
        anchors: HashMap::new(),
        copies: 0,
        cursor: Cell::new((0, 0)),
        root: None,
        documents: 0,
        faults: Vec::new(),
    };
    let mut parser = Parser::new_from_str(files.text(file));
    while let Some(next) = parser.next_event() {
        let step = match next {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => {
                let at = builder.byte(*error.marker());
                Err(syntax_fault(files, file, at, error.info()))
            }
        };
        if let Err(fault) = step {
            // Past a fault of syntax nothing can be trusted; what was found before still counts.
            builder.faults.push(fault);
            break;
        }
    }
    if builder.faults.is_empty() { Ok(builder.root) } else { Err(builder.faults) }
}

/// What the parser says, in words of a user rather than of a scanner.
fn syntax_fault(files: &Files, file: FileId, at: usize, info: &str) -> Fault {
    let span = Span { file, start: at, end: at + usize::from(at < files.text(file).len()) };
    let (line, _) = files.line_and_column(file, at);
    let text = files.line(file, line);
    let remedy = if variable_without_quotes(text) {
        "put the variable in quotes, as in `{key: \"${NAME}\"}`: within brackets `${` opens a map"
    } else if info.contains("tab") || text.starts_with('\t') {
        "indent with spaces; YAML refuses tabs"
    } else if info.contains("mapping values are not allowed") {
        "check the indentation; a value with `: ` in it needs quotes"
    } else if info.contains("recursion limit") {
        "write it with fewer brackets within brackets"
    } else if info.contains("did not find expected")
        || info.contains("simple key")
        || info.contains("expected ':'")
    {
        "check the indentation, quotes and brackets here and in the lines above"
    } else {
        "check quotes, brackets and indentation here and in the lines above"
    };
    Fault::new(codes::CONFIG_SYNTAX, span, format!("this is not YAML: {info}")).remedy(remedy)
}

/// Whether a line has `${` within brackets and without quotes, which YAML takes for the beginning of a map.
fn variable_without_quotes(line: &str) -> bool {
    line.match_indices("${").any(|(at, _)| {
        let before = &line[..at];
        let quotes = before.matches(['"', '\'']).count();
        quotes.is_multiple_of(2) && before.replace("${", "").contains(['{', '['])
    })
}

struct Builder<'f> {
    files: &'f Files,
    file: FileId,
    frames: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    copies: usize,
    /// The last marker asked for: its index in characters, and its byte.
    cursor: Cell<(usize, usize)>,
    root: Option<Node>,
    documents: usize,
    faults: Vec<Fault>,
}

struct Frame {
    start: usize,
    anchor: usize,
    holds: Holds,
}

enum Holds {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        index: HashMap<String, usize>,
        merges: Vec<Entry>,
        key: Option<(String, Span)>,
    },
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: YamlSpan) -> Result<(), Fault> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents == 1 {
                    return Ok(());
                }
                Err(Fault::new(codes::CONFIG_SYNTAX, self.span(span), "a second document begins here")
                    .remedy("remove the line `---`, or put the second part in a file of its own and use `-c FOLDER`"))
            }
            Event::Scalar(text, style, anchor, tag) => {
                let span = self.span(span);
                let mut style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
                    ScalarStyle::Literal => Style::Literal,
                    ScalarStyle::Folded => Style::Folded,
                };
                if text_wanted(tag.as_deref(), span)? && style == Style::Plain {
                    style = Style::Quoted;
                }
                let kind = NodeKind::Scalar(Scalar {
                    text: text.into_owned(),
                    style,
                    fills: Vec::new(),
                    broken: false,
                });
                self.finished(Node { span, kind }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                text_wanted(tag.as_deref(), self.span(span))?;
                self.begin(span, anchor, Holds::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                text_wanted(tag.as_deref(), self.span(span))?;
                let (entries, index, merges) = (Vec::new(), HashMap::new(), Vec::new());
                self.begin(span, anchor, Holds::Map { entries, index, merges, key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(frame) = self.frames.pop() else { return Ok(()) };
                let end = self.byte(span.end).max(frame.start);
                let span = Span { file: self.file, start: frame.start, end };
                let kind = match frame.holds {
                    Holds::List(items) => NodeKind::List(items),
                    Holds::Map { entries, index, merges, .. } => {
                        NodeKind::Map(merged(entries, &index, merges)?)
                    }
                };
                self.finished(Node { span, kind }, frame.anchor)
            }
            Event::Alias(anchor) => {
                let span = self.span(span);
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(Fault::new(
                        codes::CONFIG_SYNTAX,
                        span,
                        "this alias stands inside its own anchor",
                    )
                    .remedy("an anchor cannot contain itself; write the value out"));
                };
                let node = self.copy(&node.clone(), span)?;
                self.finished(node, 0)
            }
        }
    }

    /// A copy of an anchored node, if the bounds allow one more.
    fn copy(&mut self, node: &Node, span: Span) -> Result<Node, Fault> {
        self.copies += node.count();
        if self.copies > COPIES_MAX || node.depth() + self.frames.len() > DEPTH_MAX {
            return Err(Fault::new(
                codes::CONFIG_SYNTAX,
                span,
                format!(
                    "the aliases of this file stand for more than {COPIES_MAX} values, or nest too deeply"
                ),
            )
            .remedy("use fewer aliases of aliases"));
        }
        Ok(node.clone())
    }

    fn begin(&mut self, span: YamlSpan, anchor: usize, holds: Holds) -> Result<(), Fault> {
        let span = self.span(span);
        if self.frames.len() >= DEPTH_MAX {
            return Err(Fault::new(
                codes::CONFIG_SYNTAX,
                span,
                format!("maps and lists stand more than {DEPTH_MAX} deep in each other"),
            )
            .remedy("no key of a configuration needs that; check the brackets"));
        }
        if let Some(Frame { holds: Holds::Map { key: None, .. }, .. }) = self.frames.last() {
            return Err(Fault::new(codes::CONFIG_SYNTAX, span, "a key is a map or a list").remedy(
                "keys are texts; a value that begins with `{{` or `{` needs quotes, as in `queue: \"{{ row.queue }}\"`",
            ));
        }
        self.frames.push(Frame { start: span.start, anchor, holds });
        Ok(())
    }

    fn finished(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        if anchor > 0 {
            let kept = self.copy(&node, node.span)?;
            self.anchors.insert(anchor, kept);
        }
        let duplicates = self.faults.len();
        match self.frames.last_mut().map(|frame| &mut frame.holds) {
            None => self.root = Some(node),
            Some(Holds::List(items)) => items.push(node),
            Some(Holds::Map { entries, index, merges, key }) => match key.take() {
                None => match node.kind {
                    NodeKind::Scalar(scalar) => *key = Some((scalar.text, node.span)),
                    NodeKind::List(_) | NodeKind::Map(_) => {
                        return Err(Fault::new(codes::CONFIG_SYNTAX, node.span, "a key is a map or a list")
                            .remedy("keys are texts"));
                    }
                },
                Some((key, span)) if key == "<<" => merges.push(Entry { key, span, value: node }),
                Some((key, span)) => {
                    if let Some(first) = index.get(&key) {
                        self.faults.push(
                            Fault::new(codes::CONFLICTING_KEYS, span, format!("the key `{key}` stands here twice"))
                                .also(entries[*first].span, "the first one")
                                .remedy("remove one of them; which of two values would count, nobody should have to guess"),
                        );
                        if duplicates + 1 >= DUPLICATES_MAX {
                            return Err(Fault::new(codes::CONFIG_SYNTAX, span, "too many keys stand twice")
                                .remedy("check that this is the file that was meant"));
                        }
                        return Ok(());
                    }
                    index.insert(key.clone(), entries.len());
                    entries.push(Entry { key, span, value: node });
                }
            },
        }
        Ok(())
    }

    fn span(&self, span: YamlSpan) -> Span {
        let start = self.byte(span.start);
        Span { file: self.file, start, end: self.byte(span.end).max(start) }
    }

    /// The byte of a marker, whose index counts characters. Markers come nearly in order, so the way from the last one
    /// is short, also in a file that is one long line.
    fn byte(&self, marker: Marker) -> usize {
        let text = self.files.text(self.file);
        let (mut index, mut byte) = self.cursor.get();
        while index < marker.index() && byte < text.len() {
            byte += 1;
            while !text.is_char_boundary(byte) {
                byte += 1;
            }
            index += 1;
        }
        while index > marker.index() && byte > 0 {
            byte -= 1;
            while !text.is_char_boundary(byte) {
                byte -= 1;
            }
            index -= 1;
        }
        self.cursor.set((index, byte));
        byte
    }
}

/// Entries with those of merge keys behind them, where the map does not have the key itself.
fn merged(
    mut entries: Vec<Entry>,
    index: &HashMap<String, usize>,
    merges: Vec<Entry>,
) -> Result<Vec<Entry>, Fault> {
    let mut seen = HashSet::new();
    for merge in merges {
        let span = merge.value.span;
        let maps = match merge.value.kind {
            NodeKind::List(items) => items,
            NodeKind::Map(_) | NodeKind::Scalar(_) => vec![merge.value],
        };
        for map in maps {
            let NodeKind::Map(more) = map.kind else {
                return Err(Fault::new(codes::CONFIG_SYNTAX, span, "`<<` takes a map, or a list of maps")
                    .remedy("write `<<: *name` where `&name` marks a map"));
            };
            for entry in more {
                if !index.contains_key(&entry.key) && seen.insert(entry.key.clone()) {
                    entries.push(entry);
                }
            }
        }
    }
    Ok(entries)
}

/// Whether a tag asks for text; any other tag is refused, since the keys decide what their values are.
fn text_wanted(tag: Option<&Tag>, span: Span) -> Result<bool, Fault> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(true),
        Some(tag) if tag.is_yaml_core_schema() && (tag.suffix == "map" || tag.suffix == "seq") => Ok(false),
        Some(tag) => Err(Fault::new(codes::CONFIG_SYNTAX, span, format!("the tag `{tag}` is not supported"))
            .remedy("remove it; put a number in quotes to make it text")),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn tree(text: &str) -> Result<Option<Node>, Vec<Fault>> {
        let mut files = Files::default();
        let file = files.add("a.yaml", text);
        parse(&files, file)
    }

    fn one_fault(text: &str) -> String {
        let faults = tree(text).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults[0].message.clone()
    }

    #[test]
    fn quotes_make_text() {
        let node = tree("a: 5\nb: \"5\"\nc: !!str 5").unwrap().unwrap();
        let meaning = |key| node.get(key).unwrap().scalar().unwrap().meaning();
        assert_eq!(meaning("a"), Meaning::Int(5));
        assert_eq!(meaning("b"), Meaning::Text("5"));
        assert_eq!(meaning("c"), Meaning::Text("5"));
    }

    #[test]
    fn aliases_and_merges_are_resolved() {
        let node = tree("base: &base {x: 1, y: 2}\nuse: {<<: *base, y: 3}\nlist: {<<: [*base, {z: 4}]}")
            .unwrap()
            .unwrap();
        let text = |map: &str, key: &str| node.get(map)?.get(key)?.text().map(str::to_owned);
        assert_eq!(text("use", "x").as_deref(), Some("1"));
        assert_eq!(text("use", "y").as_deref(), Some("3"));
        assert_eq!(text("list", "z").as_deref(), Some("4"));
        assert_eq!(text("use", "<<"), None);
    }

    #[test]
    fn what_is_dangerous_or_unclear_is_refused() {
        assert!(one_fault("a: 1\na: 2").contains("twice"));
        assert!(one_fault("a: &x [*x]").contains("its own anchor"));
        assert!(one_fault("a: 1\n---\nb: 2").contains("second document"));
        assert!(one_fault("a: !env FOO").contains("tag"));
        assert!(one_fault("queue: {{ row.queue }}").contains("a key is a map"));
        assert!(one_fault("a: {<<: 5}").contains("takes a map"));
        assert!(one_fault(&"[".repeat(100)).contains("deep"));
        assert!(one_fault(&"- ".repeat(100)).contains("deep"));
        assert!(one_fault("a: [1, 2").contains("not YAML"));
        assert!(one_fault("a: 'open").contains("not YAML"));
    }

    #[test]
    fn an_alias_bomb_is_refused_before_it_bursts() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = level - 1;
            let aliases = vec![format!("*a{before}"); 10].join(", ");
            writeln!(text, "a{level}: &a{level} [{aliases}]").unwrap();
        }
        assert!(one_fault(&text).contains("aliases"));
    }

    #[test]
    fn nothing_is_nothing() {
        assert!(tree("").unwrap().is_none());
        assert!(tree("# only a comment\n").unwrap().is_none());
    }
}
