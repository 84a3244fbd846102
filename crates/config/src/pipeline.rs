//! Pipelines: from lists of steps as written to plans, every expression, text and schema compiled.

use std::collections::BTreeSet;
use std::sync::Arc;

use warren_engine::codes;
use warren_engine::pipeline::jq;
use warren_engine::pipeline::plan::{PipelinePlan, Step};
use warren_engine::pipeline::scope::Text;
use warren_liquid::Template;

use super::de;
use super::faults::{Fault, listed, name_remedy};
use super::fill::within;
use super::model::{Partials, unknown_name};
use super::places::Places;
use super::raw::pipeline::RawStep;
use super::template::{Origin, Templates};
use super::text::{Files, Span};
use super::tree::{Entry, Node, NodeKind};

mod steps;

/// The keys that name what a step does.
const STEPS: [&str; 14] = [
    "map", "filter", "validate", "http", "publish", "sql", "exec", "choose", "for_each", "retry", "on_error",
    "reply", "log", "fail",
];

/// Compiles pipelines.
pub struct PipelineReader<'a> {
    /// The texts; those of files are added.
    pub files: &'a mut Files,
    /// Where things stand.
    pub places: &'a mut Places,
    /// What is wrong.
    pub faults: &'a mut Vec<Fault>,
    /// The partials of texts.
    pub partials: &'a Partials,
    /// The names under `brokers`, also of what is broken.
    pub brokers: &'a [String],
    /// The names under `sources`, also of what is broken.
    pub sources: &'a [String],
    /// The paths of keys in which something is wrong, and was told; steps that hold one are not read.
    pub bad: &'a BTreeSet<String>,
}

impl PipelineReader<'_> {
    /// The pipeline of a list of steps, wherever it stands: under `pipelines`, or within a trigger. `None`: something is wrong with it, and
    /// was told.
    pub fn pipeline(&mut self, node: &Node, path: &str) -> Option<Arc<PipelinePlan>> {
        let mut ids = Vec::new();
        ids_of(node, &mut ids);
        let steps = List { reader: self, ids: &ids }.steps(node, path)?;
        Some(Arc::new(PipelinePlan { steps }))
    }
}

/// Compiles the steps of one pipeline.
struct List<'r, 'a> {
    reader: &'r mut PipelineReader<'a>,
    /// The ids of all its steps, for `$steps`.
    ids: &'r [String],
}

impl List<'_, '_> {
    /// A list of steps.
    fn steps(&mut self, node: &Node, path: &str) -> Option<Vec<Step>> {
        let NodeKind::List(items) = &node.kind else {
            let message = format!("`{path}` takes a list of steps, and this is {}", node.describe());
            self.tell(
                Fault::new(codes::INVALID_VALUE, node.span, message).remedy("begin each step with `- `"),
            );
            return None;
        };
        let mut ids: Vec<(&str, Span)> = Vec::new();
        for id in items.iter().filter_map(|item| item.get("id")) {
            let Some(text) = id.text() else { continue };
            match ids.iter().find(|(other, _)| *other == text) {
                Some((_, first)) => {
                    let fault = Fault::new(
                        codes::CONFLICTING_KEYS,
                        id.span,
                        format!("two steps have the id `{text}`"),
                    );
                    self.tell(fault.also(*first, "the first one").remedy("rename one of them"));
                }
                None => ids.push((text, id.span)),
            }
        }
        let mut steps = Vec::with_capacity(items.len());
        let mut sound = true;
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            match if item.entries().is_none() || self.is_bad(&path) {
                None
            } else {
                self.step(item, &path, index)
            } {
                Some(step) => steps.push(step),
                None => sound = false,
            }
        }
        sound.then_some(steps)
    }

    /// Whether something is wrong in the part of the configuration at a path.
    fn is_bad(&self, path: &str) -> bool {
        let mut after = self.reader.bad.range(path.to_owned()..);
        after.next().is_some_and(|bad| {
            bad.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    fn step(&mut self, node: &Node, path: &str, index: usize) -> Option<Step> {
        let raw: RawStep = match de::read(node, path) {
            Ok(raw) => raw,
            Err(fault) => {
                self.tell(fault);
                return None;
            }
        };
        let before = self.reader.faults.len();
        let given: Vec<&Entry> = STEPS.iter().filter_map(|key| node.entry(key)).collect();
        let (one, handler) = match given.as_slice() {
            [one] => (*one, None),
            // `on_error` beside another key.
            [one, other] | [other, one] if other.key == "on_error" && one.key != "on_error" => {
                (*one, Some(*other))
            }
            [first, second, ..] => {
                let message =
                    format!("`{}` and `{}` are both given: a step does one thing", first.key, second.key);
                let fault = Fault::new(codes::CONFLICTING_KEYS, second.span, message);
                self.tell(
                    fault
                        .also(first.span, "the first one")
                        .remedy("make two steps of them: begin the second with `- `"),
                );
                return None;
            }
            [] => {
                let fault = Fault::new(
                    codes::MISSING_KEY,
                    node.span.at_start(),
                    format!("`{path}` does not say what the step does"),
                );
                self.tell(fault.remedy(format!("add one of {}", listed(STEPS, "or"))));
                return None;
            }
        };
        if one.key == "on_error" && index == 0 {
            let fault =
                Fault::new(codes::CONFLICTING_KEYS, one.span, "no step stands before this `on_error`");
            self.tell(fault.remedy("put it behind the steps whose errors it is for"));
        }
        if let Some(id) = node.get("id") {
            self.check_id(id);
        }
        let at = At { node: &one.value, key: one.span, path: format!("{path}.{}", one.key) };
        let kind = self.kind(&raw, one, &at);
        let on_error = handler.map(|entry| self.steps(&entry.value, &format!("{path}.on_error")));
        if self.reader.faults.len() > before {
            return None;
        }
        let on_error = match on_error {
            Some(steps) => Some(steps?),
            None => None,
        };
        Some(Step { id: raw.id, kind: kind?, on_error })
    }

    /// An id is a name that jq can read behind `$steps.`.
    fn check_id(&mut self, node: &Node) {
        let text = node.text().unwrap_or_default();
        let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name {
            let fault = Fault::new(
                codes::INVALID_VALUE,
                node.span,
                "this cannot be an id: it is read as `$steps.<id>`",
            );
            self.tell(fault.remedy("use letters, digits and `_`, beginning with a letter"));
        }
    }

    /// A jq expression.
    fn jq(&mut self, text: &str, node: &Node) -> Option<jq::Expression> {
        match jq::Expression::compile(text) {
            Ok(expression) => {
                self.check_steps(text, node);
                Some(expression)
            }
            Err(errors) => {
                for error in errors {
                    let fault = self.jq_fault(text, &error, node);
                    self.tell(fault);
                }
                None
            }
        }
    }

    fn jq_fault(&self, text: &str, error: &jq::SyntaxError, node: &Node) -> Fault {
        let (span, exact) = self.place(text, error.at, node);
        // The message may quote the expression, and what a variable gave may be a secret.
        if node.is_filled() {
            let message = format!("the expression {} (variables are filled in)", error.fault.sentence());
            return Fault::new(codes::EXPRESSION_SYNTAX, span, message).remedy(
                "give a jq expression; a variable is filled in as text, and needs quotes within it to be one",
            );
        }
        let message = if exact {
            error.message.clone()
        } else {
            format!("{} of the expression: {}", line(text, error.at), error.message)
        };
        let mut fault = Fault::new(codes::EXPRESSION_SYNTAX, span, message);
        fault.remedy.clone_from(&error.hint);
        fault
    }

    /// Whether `$steps.<id>` names steps that are there.
    fn check_steps(&mut self, text: &str, node: &Node) {
        for (at, found) in text.match_indices("$steps.") {
            let rest = &text[at + found.len()..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let id = &rest[..end];
            if id.is_empty() || self.ids.iter().any(|known| known == id) {
                continue;
            }
            let (span, _) = self.place(text, at + found.len(), node);
            let remedy = if self.ids.is_empty() {
                "no step of the pipeline has an `id`; add `id:` to the one that is meant".to_owned()
            } else {
                name_remedy(id, self.ids.iter().map(String::as_str).collect::<Vec<_>>(), "the ids are")
            };
            let fault = Fault::new(codes::UNKNOWN_NAME, span, format!("no step has the id `{id}`"));
            self.tell(fault.remedy(remedy));
        }
    }

    /// Where a byte of a text stands in its file, and whether that is the very place.
    fn place(&self, text: &str, at: usize, node: &Node) -> (Span, bool) {
        let before = text.get(..at.min(text.len())).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let found = within(self.reader.files, node, line, column);
        (found.span, found.exact)
    }

    /// A text, in Liquid where it has any.
    fn text(&mut self, text: &str, node: &Node, subject: &str) -> Option<Text> {
        if !text.contains("{{") && !text.contains("{%") {
            return Some(Text::Literal(text.to_owned()));
        }
        let template = self.template(text, node, subject)?;
        Some(Text::Template(Box::new(template)))
    }

    fn template(&mut self, text: &str, node: &Node, subject: &str) -> Option<Template> {
        let mut templates = Templates {
            files: self.reader.files,
            faults: self.reader.faults,
            partials: self.reader.partials,
            lax: false,
        };
        templates.step_text(text, subject, Origin::Value(node))
    }

    /// Checks the name of a broker or a source.
    fn named(&mut self, what: &str, key: &str, name: &str, at: &At<'_>) {
        let known = if what == "broker" { self.reader.brokers } else { self.reader.sources };
        if !known.iter().any(|other| other == name) {
            self.tell(unknown_name(what, name, at.node, key, known, at.key));
        }
    }

    fn tell(&mut self, fault: Fault) {
        self.reader.faults.push(fault);
    }
}

/// What a step holds, and where.
struct At<'n> {
    node: &'n Node,
    key: Span,
    path: String,
}

impl At<'_> {
    /// The value of a key; the step itself where it has none, for values that are defaults.
    fn of(&self, key: &str) -> &Node {
        self.node.get(key).unwrap_or(self.node)
    }

    /// The subject of a key.
    fn subject(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }
}

/// The ids of all steps in a list, also those inside of others.
fn ids_of(node: &Node, ids: &mut Vec<String>) {
    match &node.kind {
        NodeKind::Scalar(_) => {}
        NodeKind::List(items) => items.iter().for_each(|item| ids_of(item, ids)),
        NodeKind::Map(entries) => {
            for entry in entries {
                match (entry.key.as_str(), entry.value.text()) {
                    ("id", Some(id)) => ids.push(id.to_owned()),
                    ("on_error" | "choose" | "for_each" | "retry" | "steps" | "otherwise", None) => {
                        ids_of(&entry.value, ids);
                    }
                    _ => {}
                }
            }
        }
    }
}

fn line(text: &str, at: usize) -> String {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {}, column {column}", before.matches('\n').count() + 1)
}
