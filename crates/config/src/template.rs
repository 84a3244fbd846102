//! Templates and conditions of a configuration, with their faults at the place in the file.

use warren_engine::codes;
use warren_engine::pipeline::scope;
use warren_engine::sync::view::GLOBALS;
use warren_liquid::{Columns, Condition, Error, Format, Names, Options, Reads, Template};

use super::faults::Fault;
use super::fill::within;
use super::model::Partials;
use super::text::{FileId, Files, Span};
use super::tree::Node;

/// Where the text of a template stands.
#[derive(Clone, Copy)]
pub enum Origin<'t> {
    /// In a value of the configuration.
    Value(&'t Node),
    /// In a file of its own.
    File(FileId),
}

/// Parses templates and gathers their faults.
pub struct Templates<'a> {
    /// The texts.
    pub files: &'a Files,
    /// What is wrong.
    pub faults: &'a mut Vec<Fault>,
    /// The partials.
    pub partials: &'a Partials,
    /// Whether templates are read in the reference's lenient ways.
    pub lax: bool,
}

impl Templates<'_> {
    /// A template; `subject` is its name in errors of a run, by which its place is found again.
    pub fn template(
        &mut self,
        text: &str,
        format: Format,
        subject: &str,
        origin: Origin<'_>,
    ) -> Option<Template> {
        match Template::parse_all(text, &self.options(format, subject)) {
            Ok(template) => {
                let known = own_names(template.reads());
                let unknown = known.map(|columns| template.check(&names(&columns))).unwrap_or_default();
                self.tell(unknown, subject, origin).then_some(template)
            }
            Err(errors) => {
                self.tell(errors, subject, origin);
                None
            }
        }
    }

    /// A text of a step of a pipeline.
    pub fn step_text(&mut self, text: &str, subject: &str, origin: Origin<'_>) -> Option<Template> {
        match Template::parse_all(text, &self.options(Format::Text, subject)) {
            Ok(template) => {
                let unknown = template.check(&Names { tops: &scope::GLOBALS, columns: &[] });
                self.tell(unknown, subject, origin).then_some(template)
            }
            Err(errors) => {
                self.tell(errors, subject, origin);
                None
            }
        }
    }

    /// A condition.
    pub fn condition(&mut self, text: &str, subject: &str, origin: Origin<'_>) -> Option<Condition> {
        match Condition::parse(text, &self.options(Format::Text, subject)) {
            Ok(condition) => {
                let known = own_names(condition.reads());
                let unknown = known.map(|columns| condition.check(&names(&columns))).unwrap_or_default();
                self.tell(unknown, subject, origin).then_some(condition)
            }
            Err(error) => {
                self.tell(vec![error], subject, origin);
                None
            }
        }
    }

    fn options(&self, format: Format, subject: &str) -> Options {
        Options {
            format,
            lax: self.lax,
            partials: self.partials.texts.clone(),
            name: subject.to_owned(),
            ..Options::default()
        }
    }

    /// Tells faults; true if there were none.
    fn tell(&mut self, errors: Vec<Error>, subject: &str, origin: Origin<'_>) -> bool {
        let fine = errors.is_empty();
        for error in errors {
            let fault = self.fault(&error, subject, origin);
            self.faults.push(fault);
        }
        fine
    }

    fn fault(&self, error: &Error, subject: &str, origin: Origin<'_>) -> Fault {
        let in_file = |file: FileId| {
            let start = self.files.byte_at(file, error.line, error.column);
            let width = self
                .files
                .text(file)
                .get(start..)
                .and_then(|rest| rest.chars().next())
                .map_or(0, char::len_utf8);
            Span { file, start, end: start + width }
        };
        let partial = (&*error.name != subject).then(|| self.partials.files.get(&*error.name)).flatten();
        let (span, exact, filled) = match (partial, origin) {
            (Some(file), _) => (in_file(*file), true, false),
            (None, Origin::File(file)) => (in_file(file), true, false),
            (None, Origin::Value(node)) => {
                let found = within(self.files, node, error.line, error.column);
                (found.span, found.exact, node.is_filled())
            }
        };
        let place = if exact {
            String::new()
        } else {
            format!("line {}, column {} of the template: ", error.line, error.column)
        };
        // The message may quote the template, and what a variable gave may be a secret.
        let message = if filled {
            format!("{place}the template has a fault here, as it is after its variables are filled in")
        } else {
            format!("{place}{}", error.message)
        };
        let mut fault = Fault::new(codes::TEMPLATE_SYNTAX, span, message);
        fault.remedy = error.hint.clone().filter(|_| !filled);
        fault
    }
}

/// The columns a template reads, as if the model had them all: what is left to be unknown are the names that stand
/// first. `None` where it may read any.
fn own_names(reads: &Reads) -> Option<Vec<&str>> {
    match &reads.columns {
        Columns::Set(columns) => Some(columns.iter().map(String::as_str).collect()),
        Columns::All => None,
    }
}

fn names<'n>(columns: &'n [&'n str]) -> Names<'n> {
    Names { tops: &GLOBALS, columns }
}
