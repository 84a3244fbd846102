//! Running a program: one loop over its operations, writing into the caller's buffer.

mod rounds;
mod values;

use std::rc::Rc;

use crate::error::{Error, ErrorKind};
use crate::filters::{Refusal, Work};
use crate::held::{Held, Text};
use crate::json;
use crate::list;
use crate::program::{Key, Op, Program};
use crate::source::Place;
use crate::syntax::Mode;
use crate::value::{Globals, Val};
use rounds::Rounds;
use values::column;

/// Global names whose value is kept for a rendering; further ones are asked for each time.
const GLOBALS_KEPT: usize = 8;
/// Bytes of text that count as one step.
const BYTES_PER_STEP: usize = 64;
/// How many times the largest result the values may be that are gone through without being counted as steps.
const VALUES_PER_RESULT: u64 = 4;

type Outcome<T> = Result<T, Box<Error>>;

pub(crate) struct Machine<'r> {
    program: &'r Program,
    globals: [Option<Val<'r>>; GLOBALS_KEPT],
    slots: Vec<Option<Held<'r>>>,
    loops: Vec<Rounds<'r>>,
    resumes: Vec<usize>,
    /// Where captures and `ifchanged` bodies begin in the buffer.
    marks: Vec<usize>,
    cycles: Vec<(Turn, usize)>,
    changed: Option<Vec<u8>>,
    work: Work<'r>,
    /// Where the result begins in the buffer.
    start: usize,
}

/// Whose turn a `cycle` is.
#[derive(PartialEq)]
enum Turn {
    Site(usize),
    Group(String),
}
impl<'r> Machine<'r> {
    /// `bytes_max`: the most bytes of the result, and of any text made on the way.
    pub fn new(program: &'r Program, globals: &'r dyn Globals, start: usize, bytes_max: usize) -> Self {
        let work = Work {
            steps_left: program.limits.steps_max,
            bytes_max,
            bytes_left: (bytes_max as u64).saturating_mul(VALUES_PER_RESULT),
            lax: program.lax,
            globals,
        };
        Self {
            program,
            globals: [None; GLOBALS_KEPT],
            slots: vec![None; program.slots],
            loops: Vec::new(),
            resumes: vec![0; program.resumes],
            marks: Vec::new(),
            cycles: Vec::new(),
            changed: None,
            work,
            start,
        }
    }

    /// Runs the program to its end. `trace` is told how long the buffer was before each operation.
    pub fn run(&mut self, out: &mut Vec<u8>, mut trace: Option<&mut Vec<(usize, Place)>>) -> Outcome<()> {
        let program = self.program;
        let mut at = 0;
        while let Some(op) = program.ops.get(at) {
            let place = program.places[at];
            if let Some(trace) = &mut trace {
                trace.push((out.len(), place));
            }
            if self.work.steps_left == 0 {
                return self.fail(ErrorKind::Limit, place, "rendering takes too many steps");
            }
            self.work.steps_left -= 1;
            at = self.step(op, place, at + 1, out)?;
            if out.len() - self.start > self.work.bytes_max {
                let message = format!("the result has more than {} bytes", self.work.bytes_max);
                return self.fail(ErrorKind::Limit, place, message);
            }
        }
        Ok(())
    }

    /// The answer of a program that is one test.
    pub fn test_only(&mut self) -> Outcome<bool> {
        match self.program.ops.first() {
            Some(Op::Test { test, .. }) => self.tests(test),
            _ => unreachable!("a condition is compiled to one test"),
        }
    }

    #[cold]
    fn fail<T>(&self, kind: ErrorKind, place: Place, message: impl Into<String>) -> Outcome<T> {
        Err(Box::new(self.program.sources.error(kind, place, message)))
    }

    #[cold]
    fn refused<T>(&self, refusal: Refusal, place: Place) -> Outcome<T> {
        let (kind, message) = match refusal {
            Refusal::Cannot(message) => (ErrorKind::Compute, message),
            Refusal::Arguments(message) => (ErrorKind::Arguments, message),
            Refusal::TooMuch(message) => (ErrorKind::Limit, message),
            Refusal::NoJson(message) => (ErrorKind::Value, message),
        };
        self.fail(kind, place, message)
    }

    fn charge(&mut self, steps: usize, place: Place) -> Outcome<()> {
        self.work.charge(steps).or_else(|refusal| self.refused(refusal, place))
    }

    fn charge_bytes(&mut self, bytes: usize, bytes_per_step: usize, place: Place) -> Outcome<()> {
        let charged = self.work.charge_bytes(bytes, bytes_per_step);
        charged.or_else(|refusal| self.refused(refusal, place))
    }

    /// Counts what going through a value costs.
    fn charge_for(&mut self, held: &Held<'r>, place: Place) -> Outcome<()> {
        match held {
            Held::Str(text) | Held::Written(text) if text.len() < BYTES_PER_STEP => Ok(()),
            Held::Str(text) | Held::Written(text) | Held::Decimal(text) => {
                self.charge_bytes(text.len(), BYTES_PER_STEP, place)
            }
            Held::Json(text) => self.charge_bytes(text.len(), 8, place),
            Held::Bytes(bytes) => self.charge_bytes(bytes.len(), BYTES_PER_STEP, place),
            Held::OwnBytes(bytes) => self.charge_bytes(bytes.len(), BYTES_PER_STEP, place),
            Held::List(_) | Held::Array(_) | Held::Range(..) | Held::Map(_) | Held::Object(_) => {
                self.charge(list::len(held), place)
            }
            _ => Ok(()),
        }
    }

    /// Runs one operation and tells which comes next.
    fn step(&mut self, op: &'r Op, place: Place, next: usize, out: &mut Vec<u8>) -> Outcome<usize> {
        match op {
            Op::Text { from, to } => {
                out.extend_from_slice(&self.program.text.as_bytes()[*from..*to]);
            }
            Op::Emit { value, mode } => {
                let held = self.chain(value)?;
                self.emit(&held, *mode, place, out)?;
            }
            Op::Member { global, key, mode } => self.member(*global, key, *mode, place, out)?,
            Op::Assign { slot, value } => {
                let held = self.chain(value)?;
                self.slots[*slot] = Some(held);
            }
            Op::CaptureBegin | Op::ChangedBegin => self.marks.push(out.len()),
            Op::CaptureEnd { slot } => {
                let mark = self.marks.pop().unwrap_or(out.len());
                let text: Rc<str> = String::from_utf8_lossy(&out[mark..]).into();
                out.truncate(mark);
                self.charge_bytes(text.len(), BYTES_PER_STEP, place)?;
                self.slots[*slot] = Some(Held::Str(Text::Own(text)));
            }
            Op::ChangedEnd => {
                let mark = self.marks.pop().unwrap_or(out.len());
                self.charge_bytes(out.len() - mark, BYTES_PER_STEP, place)?;
                if self.changed.as_deref() == Some(&out[mark..]) {
                    out.truncate(mark);
                } else {
                    self.changed = Some(out[mark..].to_vec());
                }
            }
            Op::Jump { to } => return Ok(*to),
            Op::Test { test, when, to } => {
                if self.tests(test)? != *when {
                    return Ok(*to);
                }
            }
            Op::TestCase { subject, values, to } => {
                let subject = self.expr(subject)?;
                self.charge_for(&subject, place)?;
                let mut found = false;
                for value in values {
                    let value = self.expr(value)?;
                    found |= crate::compare::equal(&subject, &value);
                }
                if !found {
                    return Ok(*to);
                }
            }
            Op::TestSlot { slot, to } => {
                if matches!(self.slots[*slot], Some(Held::Bool(true))) {
                    return Ok(*to);
                }
            }
            Op::SetSlot { slot, on } => self.slots[*slot] = Some(Held::Bool(*on)),
            Op::LoopBegin { looped, none } => {
                if !self.begin(looped, place, out)? {
                    return Ok(*none);
                }
            }
            Op::LoopNext { body } => {
                if let Some(rounds) = self.loops.last_mut() {
                    rounds.round += 1;
                    if rounds.round < rounds.len {
                        self.turn(place)?;
                        return Ok(*body);
                    }
                }
            }
            Op::LoopEnd => {
                self.loops.pop();
            }
            Op::TableBegin { mode } => html("<tr class=\"row1\">\n", *mode, out),
            Op::CellBegin { mode } => {
                let column = self.loops.last().map_or(0, |rounds| rounds.round % rounds.columns.max(1));
                html(&format!("<td class=\"col{}\">", column + 1), *mode, out);
            }
            Op::CellEnd { mode } => {
                html("</td>", *mode, out);
                if let Some(rounds) = self.loops.last() {
                    let done = rounds.round + 1;
                    if done < rounds.len && done % rounds.columns.max(1) == 0 {
                        let row = done / rounds.columns.max(1) + 1;
                        html(&format!("</tr>\n<tr class=\"row{row}\">"), *mode, out);
                    }
                }
            }
            Op::CellBreak { mode } => html("</td>", *mode, out),
            Op::TableEnd { mode } => html("</tr>\n", *mode, out),
            Op::Cycle { group, site, items, mode } => {
                let turn = match group {
                    Some(group) => Turn::Group(self.group(group)?),
                    None => Turn::Site(*site),
                };
                let i = self.cycles.iter().position(|(held, _)| *held == turn).unwrap_or_else(|| {
                    self.cycles.push((turn, 0));
                    self.cycles.len() - 1
                });
                self.charge(i / 16, place)?;
                let at = self.cycles[i].1;
                self.cycles[i].1 = if at + 1 >= items.len() { 0 } else { at + 1 };
                let held = items.get(at).map_or(Ok(Held::Nil), |item| self.expr(item))?;
                self.emit(&held, *mode, place, out)?;
            }
            Op::Counter { slot, step, mode } => {
                let count = match self.slots[*slot] {
                    Some(Held::Int(count)) => count,
                    _ => 0,
                };
                let next = count + i128::from(*step);
                self.slots[*slot] = Some(Held::Int(next));
                // `increment` writes what was, `decrement` what is.
                let shown = if *step > 0 { count } else { next };
                self.emit(&Held::Int(shown), *mode, place, out)?;
            }
            Op::Clear { slots, resumes, sites } => {
                self.charge((slots.len() + resumes.len() + self.cycles.len()) / 16, place)?;
                self.slots[slots.clone()].fill(None);
                self.resumes[resumes.clone()].fill(0);
                self.cycles.retain(|(turn, _)| !matches!(turn, Turn::Site(site) if sites.contains(site)));
            }
        }
        Ok(next)
    }

    fn emit(&mut self, held: &Held<'r>, mode: Mode, place: Place, out: &mut Vec<u8>) -> Outcome<()> {
        self.charge_for(held, place)?;
        match mode {
            Mode::Value => {
                let written = match held {
                    Held::Str(text) => {
                        json::write_string(text, out);
                        Ok(())
                    }
                    other => other.write_json(out),
                };
                written.or_else(|error| self.fail(ErrorKind::Value, place, error.to_string()))
            }
            Mode::Text => {
                held.write_text(out, 0);
                Ok(())
            }
            Mode::InString => {
                escaped(held, out);
                Ok(())
            }
            Mode::Key => {
                out.push(b'"');
                escaped(held, out);
                out.push(b'"');
                Ok(())
            }
        }
    }
    /// Writes a member of a global; plain values go from the row to the buffer directly.
    fn member(
        &mut self,
        global: usize,
        key: &'r Key,
        mode: Mode,
        place: Place,
        out: &mut Vec<u8>,
    ) -> Outcome<()> {
        let val = self.global(global);
        let (Val::Object(object), Key::Name { name, hint, .. }) = (val, key) else {
            let held = self.key(&Held::from(val), key, place)?;
            return self.emit(&held, mode, place, out);
        };
        match (column(object, name, hint), mode) {
            (Some(Val::Str(text)), Mode::Value) => {
                self.charge_bytes(text.len(), BYTES_PER_STEP, place)?;
                json::write_string(text, out);
                Ok(())
            }
            (Some(Val::Str(text)), Mode::InString) => {
                self.charge_bytes(text.len(), BYTES_PER_STEP, place)?;
                json::escape_into(text, out);
                Ok(())
            }
            (Some(Val::Int(int)), Mode::Value | Mode::InString | Mode::Text) => {
                json::write_int(int, out);
                Ok(())
            }
            (Some(val), _) => self.emit(&Held::from(val), mode, place, out),
            (None, _) => {
                let held = self.key(&Held::from(val), key, place)?;
                self.emit(&held, mode, place, out)
            }
        }
    }
}

/// Writes a value as text for the inside of a JSON string.
fn escaped(held: &Held<'_>, out: &mut Vec<u8>) {
    match held {
        // What these print needs no escape.
        Held::Nil
        | Held::Bool(_)
        | Held::Int(_)
        | Held::Float(_)
        | Held::Date(_)
        | Held::Time(_)
        | Held::DateTime(_)
        | Held::Timestamp(..)
        | Held::Uuid(_) => held.write_text(out, 0),
        other => json::escape_into(&other.text(), out),
    }
}

fn html(text: &str, mode: Mode, out: &mut Vec<u8>) {
    match mode {
        Mode::InString => json::escape_into(text, out),
        Mode::Text | Mode::Value | Mode::Key => out.extend_from_slice(text.as_bytes()),
    }
}
