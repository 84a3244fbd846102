//! Templates and conditions: parse once, check against a model, render for each row.

use std::sync::Arc;

use crate::analysis::place_outputs;
use crate::compile::Compiler;
use crate::error::{Error, ErrorKind};
use crate::expression::{Cursor, Operands};
use crate::json;
use crate::machine::Machine;
use crate::options::{Format, Options};
use crate::parse::Parsing;
use crate::program::Program;
use crate::reads::{Mentions, Names, Reads};
use crate::source::{Place, Sources};
use crate::value::Globals;

/// A compiled template. Clones share the program; it can be used from several threads at once.
#[derive(Debug, Clone)]
pub struct Template(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    program: Program,
    mentions: Mentions,
    lax: bool,
}

impl Template {
    /// Parses a template. The error is the first fault; [`parse_all`](Self::parse_all) tells them all.
    pub fn parse(source: &str, options: &Options) -> Result<Self, Error> {
        Self::parse_all(source, options).map_err(first)
    }

    /// Parses a template and tells every fault that could be found: one when it is not Liquid at all,
    /// else all places that cannot be JSON and all unknown filters. Never an empty list.
    pub fn parse_all(source: &str, options: &Options) -> Result<Self, Vec<Error>> {
        let mut parsing = Parsing::new(options);
        let mut block = parsing.text(&options.name, source, None).map_err(|error| vec![error])?;
        let sources = parsing.sources;
        let mut faults = Vec::new();
        let mut checked = false;
        if options.format == Format::Json {
            match place_outputs(&mut block, &sources, end_of(source)) {
                Ok(proven) => checked = !proven,
                Err(found) => faults = found,
            }
        }
        match Compiler::new(options, sources).template(&block, checked) {
            Ok((program, mentions)) if faults.is_empty() => {
                Ok(Self(Arc::new(Compiled { program, mentions, lax: options.lax })))
            }
            Ok(_) => Err(sorted(faults)),
            Err(found) => {
                faults.extend(found);
                Err(sorted(faults))
            }
        }
    }

    /// Tells every name the template refers to and that does not exist. With `lax` there are none.
    pub fn check(&self, names: &Names<'_>) -> Vec<Error> {
        self.0.check(names)
    }

    pub fn reads(&self) -> &Reads {
        &self.0.mentions.reads
    }

    /// Whether parsing has shown that the result is JSON whatever the row. Otherwise each result is
    /// checked by [`render`](Self::render) itself.
    pub fn is_proven_json(&self) -> bool {
        !self.0.program.checked
    }

    /// Renders for one row, behind what `out` holds already. After an error `out` is as it was.
    pub fn render(&self, globals: &dyn Globals, out: &mut Vec<u8>) -> Result<(), Error> {
        self.render_within(globals, out, self.0.program.limits.output_bytes_max)
    }

    /// As [`render`](Self::render), with another bound for the bytes of the result and of any text made on the way.
    pub fn render_within(
        &self,
        globals: &dyn Globals,
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), Error> {
        let start = out.len();
        let result = self.render_from(globals, out, start, bytes_max);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    fn render_from(
        &self,
        globals: &dyn Globals,
        out: &mut Vec<u8>,
        start: usize,
        bytes_max: usize,
    ) -> Result<(), Error> {
        let program = &self.0.program;
        Machine::new(program, globals, start, bytes_max).run(out, None).map_err(|error| *error)?;
        if !program.checked {
            return Ok(());
        }
        match json::validate(&out[start..]) {
            Ok(()) => Ok(()),
            Err(fault) => {
                out.truncate(start);
                Err(self.fault_place(globals, out, start, &fault))
            }
        }
    }

    /// Renders once more, to learn which part of the template wrote the byte at fault.
    #[cold]
    fn fault_place(
        &self,
        globals: &dyn Globals,
        out: &mut Vec<u8>,
        start: usize,
        fault: &json::Fault,
    ) -> Error {
        let program = &self.0.program;
        let mut trace = Vec::new();
        let bytes_max = usize::MAX; // it was rendered within the bound a moment ago
        if let Err(error) = Machine::new(program, globals, start, bytes_max).run(out, Some(&mut trace)) {
            return *error;
        }
        // The last operation that began at or before the byte wrote it, or the end is what is missing.
        let wrote = trace.iter().rev().find(|(length, _)| *length - start <= fault.offset);
        let place = wrote.map_or_else(Place::default, |(_, place)| *place);
        let message = format!(
            "what this writes makes the result no JSON: {} (line {}, column {} of the result)",
            fault.message, fault.line, fault.column
        );
        program.sources.error(ErrorKind::InvalidJson, place, message)
    }
}

impl Compiled {
    fn check(&self, names: &Names<'_>) -> Vec<Error> {
        if self.lax { Vec::new() } else { self.mentions.check(names, &self.program.sources) }
    }
}

/// A compiled condition, such as `previous.region != row.region`: Liquid's operators, and filters on
/// either side of them.
#[derive(Debug, Clone)]
pub struct Condition(Arc<Compiled>);

impl Condition {
    pub fn parse(source: &str, options: &Options) -> Result<Self, Error> {
        let mut sources = Sources::default();
        let (text, place) = sources.add(&options.name, source);
        let bytes_max = options.limits.source_bytes_max.min(u32::MAX as usize);
        if source.len() > bytes_max {
            let message = format!("the condition has more than {bytes_max} bytes");
            return Err(sources.error(ErrorKind::Limit, place, message));
        }
        let nesting_max = options.limits.nesting_max.min(64);
        let mut cursor = Cursor::new(&text, place, &sources, options.lax, nesting_max)?;
        let conditions = cursor.conditions(Operands::Filtered)?;
        cursor.end()?;
        drop(cursor);
        let compiled = Compiler::new(options, sources).condition(&conditions, place);
        let (program, mentions) = compiled.map_err(first)?;
        Ok(Self(Arc::new(Compiled { program, mentions, lax: options.lax })))
    }

    /// Tells every name the condition refers to and that does not exist. With `lax` there are none.
    pub fn check(&self, names: &Names<'_>) -> Vec<Error> {
        self.0.check(names)
    }

    pub fn reads(&self) -> &Reads {
        &self.0.mentions.reads
    }

    /// Whether the condition holds for a row.
    pub fn test(&self, globals: &dyn Globals) -> Result<bool, Error> {
        let bytes_max = self.0.program.limits.output_bytes_max;
        Machine::new(&self.0.program, globals, 0, bytes_max).test_only().map_err(|error| *error)
    }
}

/// Every tag and every filter there is, for completion and documentation.
pub fn vocabulary() -> (Vec<&'static str>, Vec<&'static str>) {
    (crate::parse::TAGS.to_vec(), crate::filters::Filter::names().collect())
}

fn first(faults: Vec<Error>) -> Error {
    match faults.into_iter().next() {
        Some(fault) => fault,
        None => unreachable!("a failure has at least one fault"),
    }
}

fn sorted(mut faults: Vec<Error>) -> Vec<Error> {
    faults.sort_by(|a, b| (&a.name, a.line, a.column).cmp(&(&b.name, b.line, b.column)));
    faults.dedup();
    faults
}

fn end_of(source: &str) -> Place {
    Place { text: 0, at: source.trim_end().len() as u32 }
}
