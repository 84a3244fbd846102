//! A tree against the schema of the types it will become.
//!
//! Serde stops at the first fault; a person wants all of them. So the tree is walked first with the JSON
//! Schema that the raw types themselves make, and each unknown key, missing key and wrong kind of value becomes a fault with
//! its place. What passes here is read by serde without complaint, but for rules no schema can say.
//!
//! The walk also settles what the text alone could not: a value that a variable filled in becomes a number or
//! text as its key wants, and a path (`format: path`) becomes one from the folder of its file.

use std::collections::BTreeSet;

use serde_json::Value;
use warren_engine::codes;
use warren_engine::size::ByteSize;
use warren_engine::span::{SpanError, parse_span};

use super::faults::{Fault, listed, name_remedy, nearest};
use super::hidden::{self, Public};
use super::raw::forms::{SHARE_PATTERN, share_of};
use super::text::{Files, Span};
use super::tree::{Meaning, Node, NodeKind, Style};
use super::wants::{self, SIZE, SPAN, bounds, branches, choices, keys};

/// Keys and kinds that the documentation of the product has and this version does not, by their path.
const LATER: [&str; 3] = ["syncs.*.schedule", "sources.*.type=duckdb", "sources.*.type=adbc"];

/// Walks trees with a schema and gathers what is wrong.
pub struct Walk<'s> {
    schema: &'s Value,
    files: &'s Files,
    /// What was found.
    pub faults: Vec<Fault>,
    /// Where values stand that must not be shown.
    pub secrets: Vec<Span>,
    /// Which scalars with filled values hold no secret.
    pub public: Public,
    /// The paths of all keys in which something is wrong.
    pub bad: BTreeSet<String>,
    /// How many values lack a variable; that was told when they were filled in.
    broken: usize,
}

/// A place in the tree.
#[derive(Clone, Copy)]
struct At<'a> {
    /// The keys down to here, with dots.
    path: &'a str,
    /// What a fault about the whole value points at: its key.
    key: Span,
}

impl<'s> Walk<'s> {
    /// A walk with a schema that has its definitions in `$defs`.
    pub fn new(schema: &'s Value, files: &'s Files) -> Walk<'s> {
        Walk {
            schema,
            files,
            faults: Vec::new(),
            secrets: Vec::new(),
            public: Public::new(),
            bad: BTreeSet::new(),
            broken: 0,
        }
    }

    /// Walks one tree. `path` names its root in messages, and `key` is where that name stands.
    pub fn check(&mut self, schema: &'s Value, node: &mut Node, path: &str, key: Span) {
        self.node(schema, node, At { path, key });
    }

    fn node(&mut self, schema: &'s Value, node: &mut Node, at: At<'_>) {
        if schema == &Value::Bool(true) {
            return;
        }
        if node.scalar().is_some_and(|scalar| scalar.broken) {
            // What the variable would have given, nobody knows.
            self.broken += 1;
            return;
        }
        self.text_of_variable(schema, node);
        let is_path = schema["format"] == "path";
        if is_path {
            self.place_in_folder(node);
        }
        let (written, schema) = (schema, self.resolved(schema));
        // Where a variable stands, its name is shown and not its value.
        if wants::is_secret(schema) && !node.is_filled() {
            self.secrets.push(node.span);
        }
        if node.is_filled() {
            let public = (is_path && !wants::is_secret(schema)) || hidden::is_public(schema);
            self.public.entry(node.span).and_modify(|all| *all &= public).or_insert(public);
        }
        match schema["format"].as_str() {
            Some("span") => return self.duration(written, node, at),
            Some("size") => return self.size(node, at),
            _ => {}
        }
        if let Some(names) = choices(schema) {
            return self.choice(schema, &names, node, at);
        }
        if let Some(branches) = branches(schema) {
            return self.branch(schema, branches, node, at);
        }
        if !self.fits(schema, node) {
            return self.wrong_kind(schema, node, at);
        }
        let span = node.span;
        match &mut node.kind {
            NodeKind::Scalar(_) => self.scalar(schema, node, at),
            NodeKind::List(items) => {
                let fewest = schema["minItems"].as_u64().unwrap_or(0);
                if (items.len() as u64) < fewest {
                    self.faults.push(
                        Fault::new(codes::INVALID_VALUE, span, format!("`{}` is an empty list", at.path))
                            .remedy("name at least one, or remove the key"),
                    );
                }
                for (index, item) in items.iter_mut().enumerate() {
                    let path = format!("{}[{index}]", at.path);
                    let key = item.span;
                    self.node(&schema["items"], item, At { path: &path, key });
                }
            }
            NodeKind::Map(_) => self.map(schema, node, at),
        }
    }

    /// A schema behind its references.
    fn resolved(&self, schema: &'s Value) -> &'s Value {
        wants::resolved(self.schema, schema)
    }

    fn map(&mut self, schema: &'s Value, node: &mut Node, at: At<'_>) {
        let NodeKind::Map(entries) = &mut node.kind else { return };
        let properties = &schema["properties"];
        let others = match &schema["additionalProperties"] {
            Value::Bool(false) => None,
            Value::Null if properties.is_object() => None,
            Value::Null | Value::Bool(true) => Some(&Value::Bool(true)),
            others => Some(others),
        };
        let free =
            schema["patternProperties"].as_object().is_some_and(|patterns| patterns.contains_key("^x-"));
        let mut meant = Vec::new();
        for entry in entries.iter_mut() {
            let path = join(at.path, &entry.key);
            let at_key = At { path: &path, key: entry.span };
            let before = self.faults.len() + self.broken;
            match (properties.get(&*entry.key), others) {
                (Some(property), _) => self.node(property, &mut entry.value, at_key),
                (None, Some(_)) if entry.key.is_empty() => {
                    let fault = Fault::new(codes::INVALID_VALUE, entry.span, "a name is empty");
                    self.faults.push(fault.remedy("give it a name"));
                }
                (None, Some(_))
                    if schema["propertyNames"]["pattern"].is_string() && !is_plain_name(&entry.key) =>
                {
                    self.faults.push(
                        Fault::new(
                            codes::INVALID_VALUE,
                            entry.span,
                            format!("`{}` cannot be a name", entry.key),
                        )
                        .remedy(
                            "use letters, digits, `_` and `-`, at most 64: names become files and metrics",
                        ),
                    );
                }
                (None, Some(others)) => self.node(others, &mut entry.value, at_key),
                (None, None) if free && entry.key.starts_with("x-") => {}
                (None, None) => {
                    let near = nearest(&entry.key, keys(properties));
                    meant.extend(near);
                    self.unknown_key(&entry.key, entry.span, &path, at.path, properties);
                    // What was meant for a secret may hold one.
                    if near.is_some_and(|near| wants::is_secret(self.resolved(&properties[near]))) {
                        self.secrets.push(entry.value.span);
                    }
                }
            }
            if self.faults.len() + self.broken > before {
                self.bad.insert(path);
            }
        }
        let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
        let missing: Vec<&str> = required
            .iter()
            .filter_map(Value::as_str)
            .filter(|key| !entries.iter().any(|entry| entry.key == *key) && !meant.contains(key))
            .collect();
        for key in missing {
            let expects = self.expects(&properties[key]);
            self.faults.push(
                Fault::new(codes::MISSING_KEY, at.key, format!("{} needs the key `{key}`", named(at.path)))
                    .remedy(format!("add `{key}:` with {expects}")),
            );
        }
        if schema["minProperties"].as_u64().is_some_and(|fewest| (entries.len() as u64) < fewest) {
            let keys = listed(keys(properties), "or");
            self.faults.push(
                Fault::new(
                    codes::MISSING_KEY,
                    at.key,
                    format!("{} needs one of the keys {keys}", named(at.path)),
                )
                .remedy("add one of them"),
            );
        }
    }

    fn unknown_key(&mut self, key: &str, span: Span, path: &str, parent: &str, properties: &Value) {
        if is_later(path) {
            self.faults.push(
                Fault::new(codes::UNKNOWN_KEY, span, format!("`{key}` is not supported yet by this version"))
                    .remedy("remove the key, or use a version that has it"),
            );
            return;
        }
        let inside =
            if parent.is_empty() { "of a configuration".to_owned() } else { format!("of `{parent}`") };
        self.faults.push(
            Fault::new(codes::UNKNOWN_KEY, span, format!("`{key}` is not a key {inside}"))
                .remedy(name_remedy(key, keys(properties).collect::<Vec<_>>(), "its keys are")),
        );
    }

    /// One of several forms: chosen by `type` where the forms have one, otherwise by the kind of value.
    fn branch(&mut self, schema: &'s Value, branches: &'s [Value], node: &mut Node, at: At<'_>) {
        let kinds: Vec<(&str, &'s Value)> = branches
            .iter()
            .map(|branch| self.resolved(branch))
            .filter_map(|branch| Some((branch["properties"]["type"]["const"].as_str()?, branch)))
            .collect();
        if kinds.len() == branches.len() && node.entries().is_some() {
            return self.kind(&kinds, node, at);
        }
        let fitting = branches
            .iter()
            .find(|branch| self.fits_exactly(branch, node) && self.has_form(branch, node))
            .or_else(|| branches.iter().find(|branch| self.fits_without_quotes(branch, node)))
            .or_else(|| branches.iter().find(|branch| self.fits_exactly(branch, node)))
            .or_else(|| branches.iter().find(|branch| self.fits(branch, node)))
            .or_else(|| {
                // A number in place of a duration lacks its unit.
                branches.iter().find(|branch| node.is_number() && self.resolved(branch)["format"] == "span")
            });
        match fitting {
            Some(branch) => match choices(self.resolved(branch)) {
                // Told with all forms, since one of the others may have been meant.
                Some(names) => self.choice(schema, &names, node, at),
                None => self.node(branch, node, at),
            },
            None => self.wrong_kind(schema, node, at),
        }
    }

    fn kind(&mut self, kinds: &[(&str, &'s Value)], node: &mut Node, at: At<'_>) {
        let names = || kinds.iter().map(|(name, _)| *name);
        let Some(entry) = node.entry("type") else {
            self.faults.push(
                Fault::new(codes::MISSING_KEY, at.key, format!("{} needs the key `type`", named(at.path)))
                    .remedy(format!("add `type:` with {}", listed(names(), "or"))),
            );
            return;
        };
        let wanted = entry.value.text().unwrap_or("");
        if let Some((_, branch)) = kinds.iter().find(|(name, _)| *name == wanted) {
            return self.node(branch, node, at);
        }
        let span = entry.value.span;
        let fault = if entry.value.is_filled() {
            Fault::new(codes::INVALID_VALUE, span, format!("`{}.type` is not a known kind", at.path))
                .remedy(format!("the kinds are: {}", listed(names(), "and")))
        } else if is_later(&format!("{}.type={wanted}", at.path)) {
            Fault::new(
                codes::INVALID_VALUE,
                span,
                format!("the kind `{wanted}` is not supported yet by this version"),
            )
            .remedy(format!("the kinds are: {}", listed(names(), "and")))
        } else {
            Fault::new(codes::INVALID_VALUE, span, format!("`{wanted}` is not a known kind"))
                .remedy(name_remedy(wanted, names().collect::<Vec<_>>(), "the kinds are"))
        };
        self.faults.push(fault);
    }

    fn choice(&mut self, schema: &'s Value, names: &[&Value], node: &mut Node, at: At<'_>) {
        let is_chosen = match node.scalar() {
            Some(scalar) => {
                let null = scalar.meaning() == Meaning::Null;
                names.iter().any(|name| name.as_str() == Some(&*scalar.text) || (name.is_null() && null))
            }
            None => false,
        };
        if is_chosen {
            return;
        }
        let texts = names.iter().map(|name| name.as_str().unwrap_or("null"));
        let expects = self.expects(schema);
        let near = node.text().filter(|_| !node.is_filled()).and_then(|text| nearest(text, texts));
        let remedy = near.map_or_else(|| give(node, &expects), |near| format!("did you mean `{near}`?"));
        let message = format!("`{}` takes {expects}, and {}", at.path, shown(node));
        self.faults.push(Fault::new(codes::INVALID_VALUE, pointed(node, at), message).remedy(remedy));
    }

    fn scalar(&mut self, schema: &'s Value, node: &mut Node, at: At<'_>) {
        self.settle(schema, node);
        let span = node.span;
        let NodeKind::Scalar(scalar) = &mut node.kind else { return };
        if schema["pattern"] == SHARE_PATTERN && share_of(&scalar.text).is_none() {
            let expects = self.expects(schema);
            let fault = Fault::new(
                codes::INVALID_VALUE,
                span,
                format!("`{}` takes a number of rows or {expects}, and {}", at.path, shown(node)),
            );
            return self.faults.push(fault.remedy(give(node, "a number, or a share from 0% to 100%")));
        }
        let number = match scalar.meaning() {
            Meaning::Int(number) => number as f64,
            Meaning::Float(number) => number,
            Meaning::Null | Meaning::Bool(_) | Meaning::Text(_) => return,
        };
        let (least, most) = bounds(schema);
        if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
            let expects = self.expects(schema);
            self.faults.push(
                Fault::new(codes::INVALID_VALUE, span, format!("`{}` takes {expects}", at.path))
                    .remedy(give(node, "a number within these bounds")),
            );
        }
    }

    /// Makes a path one from the folder of the file it stands in. A text in PEM form stands for a file's content.
    fn place_in_folder(&self, node: &mut Node) {
        let file = node.span.file;
        let NodeKind::Scalar(scalar) = &mut node.kind else { return };
        let is_text = scalar.meaning_unquoted() == Meaning::Text(&scalar.text) && !scalar.text.is_empty();
        if is_text && !scalar.text.starts_with("-----BEGIN") && scalar.text != ":memory:" {
            scalar.text = self.files.beside(file, &scalar.text).display().to_string();
        }
    }

    /// Makes what a variable filled in a number or text, as wanted.
    fn settle(&self, schema: &Value, node: &mut Node) {
        let exact = self.fits_exactly(schema, node);
        let NodeKind::Scalar(scalar) = &mut node.kind else { return };
        if exact || scalar.fills.is_empty() {
            return;
        }
        scalar.style = match scalar.style {
            Style::Plain => Style::Quoted,
            Style::Quoted | Style::Literal | Style::Folded => Style::Plain,
        };
    }

    /// A duration: a number with its unit, within the bounds of its key.
    fn duration(&mut self, schema: &Value, node: &Node, at: At<'_>) {
        let read = node.scalar().map(|scalar| match scalar.meaning_unquoted() {
            Meaning::Null | Meaning::Bool(_) => Err(SpanError::Malformed),
            Meaning::Int(_) | Meaning::Float(_) | Meaning::Text(_) => parse_span(&scalar.text),
        });
        let expects = format!("`{}` takes {SPAN}", at.path);
        let (message, remedy) = match (read, node.text()) {
            (Some(Ok(span)), _) => match wants::misses(schema, span) {
                None => return,
                Some(bounds) if node.is_filled() => {
                    (format!("`{}` takes {bounds}, and a variable gives it a different one", at.path), give(node, &bounds))
                }
                Some(bounds) => (format!("`{}` takes {bounds}, and {}", at.path, shown(node)), format!("write {bounds}")),
            },
            (Some(Err(SpanError::NoUnit)), _) if node.is_filled() => (
                format!("{expects}, and a variable gives it a number without a unit"),
                "give the variable a value with its unit, such as `60s`, or write the unit behind it: `${NAME}s`".to_owned(),
            ),
            (Some(Err(SpanError::NoUnit)), Some(text)) => {
                let (message, number) = (format!("{expects}, and `{text}` has no unit"), text.trim());
                if number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
                    (message, format!("write `{number}s` for seconds, or `{number}ms` for milliseconds"))
                } else {
                    (message, "write a number with its unit, such as `60s`".to_owned())
                }
            }
            (Some(Err(fault @ (SpanError::Negative | SpanError::TooLong))), _) if !node.is_filled() => (
                format!("{expects}, and {} is {fault}", shown(node).trim_start_matches("this is ")),
                format!("write {SPAN}"),
            ),
            _ => (format!("{expects}, and {}", shown(node)), give(node, &format!("{SPAN}: a number with its unit"))),
        };
        self.faults.push(Fault::new(codes::INVALID_VALUE, pointed(node, at), message).remedy(remedy));
    }

    /// A size in bytes.
    fn size(&mut self, node: &Node, at: At<'_>) {
        let fine = node.scalar().is_some_and(|scalar| match scalar.meaning_unquoted() {
            Meaning::Null | Meaning::Bool(_) | Meaning::Float(_) => false,
            Meaning::Int(_) | Meaning::Text(_) => scalar.text.parse::<ByteSize>().is_ok(),
        });
        if !fine {
            let message = format!("`{}` takes {SIZE}, and {}", at.path, shown(node));
            self.faults.push(
                Fault::new(codes::INVALID_VALUE, pointed(node, at), message)
                    .remedy(give(node, &format!("{SIZE}: a number with its unit"))),
            );
        }
    }

    fn wrong_kind(&mut self, schema: &'s Value, node: &Node, at: At<'_>) {
        let expects = self.expects(schema);
        let path = named(at.path);
        if node.is_null() {
            self.faults.push(
                Fault::new(codes::INVALID_VALUE, at.key, format!("{path} has no value"))
                    .remedy(format!("give it {expects}, or remove the key")),
            );
            return;
        }
        let wants = |kind: &str| self.allows(schema, kind);
        let remedy = match node.scalar().map(|scalar| (scalar.style, scalar.meaning())) {
            Some((_, Meaning::Int(_) | Meaning::Float(_) | Meaning::Bool(_))) if expects.contains("text") => {
                "put it in quotes to make it text".to_owned()
            }
            Some((_, Meaning::Text("yes" | "no" | "on" | "off" | "y" | "n"))) if wants("boolean") => {
                "write `true` or `false`".to_owned()
            }
            Some((Style::Quoted, Meaning::Text(text))) if self.would_fit(schema, text) => {
                "remove the quotes".to_owned()
            }
            _ => give(node, &expects),
        };
        let found = if node.is_filled() { shown(node) } else { format!("this is {}", node.describe()) };
        let message = format!("{path} takes {expects}, and {found}");
        self.faults.push(Fault::new(codes::INVALID_VALUE, pointed(node, at), message).remedy(remedy));
    }

    fn would_fit(&self, schema: &Value, text: &str) -> bool {
        let plain = super::tree::Scalar {
            text: text.to_owned(),
            style: Style::Plain,
            fills: Vec::new(),
            broken: false,
        };
        self.meaning_fits(schema, plain.meaning())
    }

    /// Makes what a variable filled in a text where the key takes text: `null` is then the text, as it is in quotes.
    fn text_of_variable(&self, schema: &Value, node: &mut Node) {
        let is_null = node.is_null();
        if let NodeKind::Scalar(scalar) = &mut node.kind
            && scalar.is_filled()
            && is_null
            && self.allows(schema, "string")
        {
            scalar.style = Style::Quoted;
        }
    }

    /// Whether a text has the form that a schema wants of it.
    fn has_form(&self, schema: &'s Value, node: &Node) -> bool {
        self.resolved(schema)["pattern"] != SHARE_PATTERN
            || node.text().is_none_or(|text| share_of(text).is_some())
    }

    /// Whether a variable filled in what a schema takes, if the quotes are only there because the map stands in one line.
    fn fits_without_quotes(&self, schema: &Value, node: &Node) -> bool {
        node.scalar().is_some_and(|scalar| {
            !scalar.fills.is_empty()
                && !matches!(scalar.meaning_unquoted(), Meaning::Text(_))
                && self.meaning_fits(schema, scalar.meaning_unquoted())
        })
    }

    /// Whether a node is of a kind that a schema takes, or would be if its quotes were otherwise and a variable
    /// made them necessary.
    fn fits(&self, schema: &'s Value, node: &Node) -> bool {
        self.fits_exactly(schema, node)
            || node.scalar().is_some_and(|scalar| {
                !scalar.fills.is_empty()
                    && (self.meaning_fits(schema, scalar.meaning_unquoted())
                        || self.meaning_fits(schema, Meaning::Text(&scalar.text)))
            })
    }

    fn fits_exactly(&self, schema: &Value, node: &Node) -> bool {
        match &node.kind {
            NodeKind::Map(_) => self.allows(schema, "object"),
            NodeKind::List(_) => self.allows(schema, "array"),
            NodeKind::Scalar(scalar) => self.meaning_fits(schema, scalar.meaning()),
        }
    }

    fn meaning_fits(&self, schema: &Value, meaning: Meaning<'_>) -> bool {
        match meaning {
            Meaning::Null => self.allows(schema, "null"),
            Meaning::Bool(_) => self.allows(schema, "boolean"),
            Meaning::Int(_) => self.allows(schema, "integer") || self.allows(schema, "number"),
            Meaning::Float(_) => self.allows(schema, "number"),
            Meaning::Text(_) => self.allows(schema, "string"),
        }
    }

    fn allows(&self, schema: &Value, kind: &str) -> bool {
        if let Some(reference) =
            schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/"))
        {
            return self.allows(&self.schema["$defs"][reference], kind);
        }
        if let Some(branches) = branches(schema) {
            return branches.iter().any(|branch| self.allows(branch, kind));
        }
        if let Some(names) = choices(schema) {
            return names.iter().any(|name| match name {
                Value::Null => kind == "null",
                _ => kind == "string",
            });
        }
        match &schema["type"] {
            Value::String(one) => one == kind,
            Value::Array(several) => several.iter().any(|one| one == kind),
            _ => schema == &Value::Bool(true),
        }
    }

    /// What a schema takes, for people.
    pub fn expects(&self, schema: &Value) -> String {
        wants::expects(self.schema, schema)
    }
}

/// What a fault about a value points at: the value, or the key where the value is long.
fn pointed(node: &Node, at: At<'_>) -> Span {
    match &node.kind {
        NodeKind::Scalar(scalar) if !scalar.text.is_empty() => node.span,
        NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Map(_) => at.key,
    }
}

/// What a value is, as the end of a sentence; what came from outside is not quoted.
fn shown(node: &Node) -> String {
    match node.text() {
        Some(_) if node.is_filled() => format!("a variable gives it {}", filled_kind(node)),
        Some(text) if text.chars().count() <= 40 && !text.contains('\n') && !text.is_empty() => {
            format!("this is `{text}`")
        }
        Some(_) | None => format!("this is {}", node.describe()),
    }
}

/// The kind of what a variable gave; the value may be a secret.
fn filled_kind(node: &Node) -> &'static str {
    match node.scalar().map(super::tree::Scalar::meaning_unquoted) {
        Some(Meaning::Text("")) => "an empty text",
        Some(Meaning::Text(_)) => "a different text",
        Some(Meaning::Null) => "`null`",
        Some(Meaning::Bool(_)) => "a truth value",
        Some(Meaning::Int(_)) => "a whole number",
        Some(Meaning::Float(_)) => "a fraction",
        None => node.describe(),
    }
}

/// What to do for a value that its key does not take.
fn give(node: &Node, expects: &str) -> String {
    if node.is_filled() { format!("give the variable {expects}") } else { format!("write {expects}") }
}

fn named(path: &str) -> String {
    if path.is_empty() { "the configuration".to_owned() } else { format!("`{path}`") }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Names stand in subjects with dots, in files and in metrics.
fn is_plain_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn is_later(path: &str) -> bool {
    LATER.iter().any(|pattern| {
        let (pattern, path): (Vec<&str>, Vec<&str>) =
            (pattern.split('.').collect(), path.split('.').collect());
        pattern.len() == path.len()
            && pattern.iter().zip(&path).all(|(wanted, part)| *wanted == "*" || wanted == part)
    })
}
