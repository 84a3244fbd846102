//! Templates and conditions of a configuration, with their faults at the place in the file.

use warren_engine::codes;
use warren_engine::pipeline::scope;
use warren_engine::sync::view::GLOBALS;
use warren_liquid::{Columns, Condition, Error, ErrorKind, Format, Names, Options, Reads, Template};

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
        let (message, hint) = if filled {
            (kind_of_fault(error.kind), Some(FILLED_REMEDY.to_owned()))
        } else if error.kind == ErrorKind::UnknownPartial {
            (&*error.message, error.hint.clone().or_else(|| Some(self.partials.looked_for())))
        } else {
            (&*error.message, error.hint.clone())
        };
        let mut fault = Fault::new(codes::TEMPLATE_SYNTAX, span, format!("{place}{message}"));
        fault.remedy = hint;
        fault
    }
}

/// The way out of a fault of a template into which variables were filled.
pub const FILLED_REMEDY: &str = "check the template with the values that its variables give it; it is not quoted because they may be secret";

/// Which fault it is, without anything that the template holds.
fn kind_of_fault(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Syntax => "the template is not valid Liquid here",
        ErrorKind::UnknownTag => "the template has an unknown tag here",
        ErrorKind::UnknownFilter => "the template has an unknown filter here",
        ErrorKind::UnknownName => "the template has an unknown name here",
        ErrorKind::UnknownPartial => "the template names a partial that does not exist here",
        ErrorKind::Arguments => "the template gives a filter or tag the wrong arguments here",
        ErrorKind::JsonPlace => "the template does not say whether this stands inside a JSON string",
        ErrorKind::InvalidJson => "the template does not write JSON here",
        ErrorKind::Value => "the template writes a value here that has no JSON form",
        ErrorKind::Compute => {
            "the template computes with a value here that the filter or operator does not take"
        }
        ErrorKind::Limit => "the template exceeds a limit here",
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
