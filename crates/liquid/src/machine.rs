//! Running a program: one loop over its operations, writing into the caller's buffer.

use std::rc::Rc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use crate::compare::compare;
use crate::error::{Error, ErrorKind};
use crate::expression::Logic;
use crate::filters::{ARGUMENTS_MAX, Given, Refusal, Work};
use crate::held::{Held, Text};
use crate::json;
use crate::list;
use crate::number::Number;
use crate::program::{Applied, Base, Chain, Expr, Key, Looped, Op, Program, Test, Tests};
use crate::source::Place;
use crate::syntax::Mode;
use crate::value::{Globals, Object, Val};

/// Global names whose value is kept for a rendering; further ones are asked for each time.
const GLOBALS_KEPT: usize = 8;
/// Bytes of text that count as one step.
const BYTES_PER_STEP: usize = 64;

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

struct Rounds<'r> {
    items: Items<'r>,
    /// Where the item of the round is put.
    slot: usize,
    /// Of the first item gone through.
    from: usize,
    len: usize,
    round: usize,
    reversed: bool,
    /// Columns of a `tablerow`; 0 otherwise.
    columns: usize,
}

enum Items<'r> {
    Of(Held<'r>),
    Pairs(Vec<(Rc<str>, Held<'r>)>),
}

impl<'r> Rounds<'r> {
    fn item(&self) -> Held<'r> {
        let i = self.from + if self.reversed { self.len - 1 - self.round } else { self.round };
        match &self.items {
            Items::Of(held) => list::at(held, i),
            Items::Pairs(pairs) => {
                pairs.get(i).map_or(Held::Nil, |(name, value)| list::pair(name.clone(), value.clone()))
            }
        }
    }

    fn member(&self, name: &str) -> Held<'r> {
        let (round, len) = (self.round as i128, self.len as i128);
        let columns = self.columns as i128;
        match name {
            "index" => Held::Int(round + 1),
            "index0" => Held::Int(round),
            "rindex" => Held::Int(len - round),
            "rindex0" => Held::Int(len - round - 1),
            "first" => Held::Bool(round == 0),
            "last" => Held::Bool(round + 1 == len),
            "length" => Held::Int(len),
            "col" if columns > 0 => Held::Int(round % columns + 1),
            "col0" if columns > 0 => Held::Int(round % columns),
            "col_first" if columns > 0 => Held::Bool(round % columns == 0),
            "col_last" if columns > 0 => Held::Bool(round % columns + 1 == columns),
            "row" if columns > 0 => Held::Int(round / columns + 1),
            _ => Held::Nil,
        }
    }
}

impl<'r> Machine<'r> {
    pub fn new(program: &'r Program, globals: &'r dyn Globals, start: usize) -> Self {
        let work = Work {
            steps_left: program.limits.steps_max,
            bytes_max: program.limits.output_bytes_max,
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
            if out.len() - self.start > program.limits.output_bytes_max {
                let message = format!("the result has more than {} bytes", program.limits.output_bytes_max);
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

    /// Counts what going through a value costs.
    fn charge_for(&mut self, held: &Held<'r>, place: Place) -> Outcome<()> {
        match held {
            Held::Str(text) | Held::Written(text) if text.len() < BYTES_PER_STEP => Ok(()),
            Held::Str(text) | Held::Written(text) | Held::Decimal(text) => {
                self.charge(text.len() / BYTES_PER_STEP, place)
            }
            Held::Json(text) => self.charge(text.len() / 8, place),
            Held::Bytes(bytes) => self.charge(bytes.len() / BYTES_PER_STEP, place),
            Held::OwnBytes(bytes) => self.charge(bytes.len() / BYTES_PER_STEP, place),
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
                self.charge(text.len() / BYTES_PER_STEP, place)?;
                self.slots[*slot] = Some(Held::Str(Text::Own(text)));
            }
            Op::ChangedEnd => {
                let mark = self.marks.pop().unwrap_or(out.len());
                self.charge((out.len() - mark) / BYTES_PER_STEP, place)?;
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

    fn group(&mut self, group: &'r Chain) -> Outcome<String> {
        let held = self.chain(group)?;
        self.charge_for(&held, group.expr.place)?;
        Ok(format!("{}{}", crate::compare::kind_of(&held), held.text()))
    }

    /// Sets a loop up; false when there is nothing to go through.
    fn begin(&mut self, looped: &'r Looped, place: Place, out: &mut Vec<u8>) -> Outcome<bool> {
        let held = self.expr(&looped.items)?;
        self.charge_for(&held, place).or_else(|error| match held {
            // A range is gone through one by one, and may be left early.
            Held::Range(..) => Ok(()),
            _ => Err(error),
        })?;
        let nil = matches!(held, Held::Nil);
        let items = match held {
            _ if looped.single && !held.is_array() => Items::Of(Held::list(vec![held])),
            Held::Json(_) if held.is_array() => Items::Of(Held::list(list::items(&held))),
            Held::List(_) | Held::Array(_) | Held::Range(..) => Items::Of(held),
            _ if held.is_object() => Items::Pairs(list::entries(&held)),
            // Text is gone through as one item, unless there is none.
            Held::Str(text) if !text.is_empty() => Items::Of(Held::list(vec![Held::Str(text)])),
            _ => Items::Of(Held::Nil),
        };
        let all = match &items {
            Items::Of(held) => list::len(held),
            Items::Pairs(pairs) => pairs.len(),
        };
        let resume = looped.resume.unwrap_or(0);
        let from = match &looped.offset {
            Some(offset) => self.count(offset)?.unwrap_or(0),
            None if looped.resumed => self.resumes[resume],
            None => 0,
        };
        let from = from.min(all);
        let limit = match &looped.limit {
            Some(limit) => self.count(limit)?.unwrap_or(usize::MAX),
            None => usize::MAX,
        };
        let len = (all - from).min(limit);
        if looped.resume.is_some() {
            self.resumes[resume] = from + len;
        }
        let columns = match &looped.table {
            None => 0,
            Some((columns, mode)) => {
                if len == 0 && !nil {
                    html("<tr class=\"row1\">\n</tr>\n", *mode, out);
                }
                match columns {
                    Some(columns) => self.columns(columns)?.unwrap_or(len).max(1),
                    None => len.max(1),
                }
            }
        };
        if len == 0 {
            return Ok(false);
        }
        let slot = looped.slot;
        let reversed = looped.reversed;
        self.loops.push(Rounds { items, slot, from, len, round: 0, reversed, columns });
        self.turn(place)?;
        Ok(true)
    }

    /// Puts the item of the current round where the loop's variable is.
    fn turn(&mut self, place: Place) -> Outcome<()> {
        self.charge(1, place)?;
        if let Some(rounds) = self.loops.last() {
            self.slots[rounds.slot] = Some(rounds.item());
        }
        Ok(())
    }

    /// A loop's limit or offset: nil is none, and nothing is below 0.
    fn count(&mut self, expr: &'r Expr) -> Outcome<Option<usize>> {
        match self.expr(expr)? {
            Held::Nil => Ok(None),
            held => match crate::filters::integer(&held) {
                Ok(int) => Ok(Some(usize::try_from(int.max(0)).unwrap_or(usize::MAX))),
                Err(refusal) => self.refused(refusal, expr.place),
            },
        }
    }

    /// The columns of a `tablerow`; a fraction is cut off.
    fn columns(&mut self, expr: &'r Expr) -> Outcome<Option<usize>> {
        match self.expr(expr)? {
            held @ (Held::Float(_) | Held::Decimal(_)) => {
                Ok(Some(Number::of(&held).to_float().clamp(0.0, 1e9) as usize))
            }
            _ => self.count(expr),
        }
    }

    fn tests(&mut self, tests: &'r Tests) -> Outcome<bool> {
        let mut answer = self.test(&tests.first)?;
        // `a and (b or c)`: an `and` after false and an `or` after true settle it.
        for (logic, test) in &tests.rest {
            if answer == (*logic == Logic::Or) {
                return Ok(answer);
            }
            answer = self.test(test)?;
        }
        Ok(answer)
    }

    fn test(&mut self, test: &'r Test) -> Outcome<bool> {
        let left = self.chain(&test.left)?;
        let Some((operator, right)) = &test.right else {
            return Ok(left.is_truthy());
        };
        let right = self.chain(right)?;
        self.charge_for(&left, test.place)?;
        self.charge_for(&right, test.place)?;
        match compare(&left, *operator, &right) {
            Ok(answer) => Ok(answer),
            Err(_) if self.program.lax => Ok(false),
            Err(message) => self.fail(ErrorKind::Compute, test.place, message),
        }
    }

    fn chain(&mut self, chain: &'r Chain) -> Outcome<Held<'r>> {
        let mut held = self.expr(&chain.expr)?;
        for applied in &chain.filters {
            held = self.apply(&held, applied)?;
        }
        Ok(held)
    }

    fn apply(&mut self, input: &Held<'r>, applied: &'r Applied) -> Outcome<Held<'r>> {
        let place = applied.place;
        let mut given =
            Given { arguments: [const { Held::Nil }; ARGUMENTS_MAX], count: 0, allow_false: false };
        for argument in applied.positional.iter().take(ARGUMENTS_MAX) {
            let held = self.expr(argument)?;
            self.charge_for(&held, place)?;
            given.arguments[given.count] = held;
            given.count += 1;
        }
        for (name, argument) in &applied.named {
            let held = self.expr(argument)?;
            given.allow_false |= name == "allow_false" && held.is_truthy();
        }
        self.charge(1, place)?;
        self.charge_for(input, place)?;
        let output = match applied.filter.apply(input, &given, &mut self.work) {
            Ok(output) => output,
            // The reference would write its complaint into the message; nil does less harm.
            Err(Refusal::Cannot(_) | Refusal::Arguments(_)) if self.program.lax => Held::Nil,
            Err(refusal) => return self.refused(refusal, place),
        };
        self.charge_for(&output, place)?;
        if let Held::Str(text) | Held::Written(text) = &output {
            self.work.bytes(text.len()).or_else(|refusal| self.refused(refusal, place))?;
        }
        Ok(output)
    }

    fn expr(&mut self, expr: &'r Expr) -> Outcome<Held<'r>> {
        let mut keys = &expr.keys[..];
        let mut held = match &expr.base {
            Base::Literal(literal) => Held::literal(literal),
            Base::Range(from, to) => {
                let (from, to) = (self.expr(from)?, self.expr(to)?);
                self.range(&from, &to, expr.place)?
            }
            Base::Named { name, known } => {
                let name = self.expr(name)?;
                let name = name.text();
                self.charge(known.len() / 16, expr.place)?;
                let found = known.iter().find(|(held, _)| **held == *name);
                match found.and_then(|(_, base)| self.variable(base)) {
                    Some(held) => held,
                    None => self.work.globals.get(&name).map_or(Held::Nil, Held::from),
                }
            }
            Base::Loop(level) => {
                let held = match (self.loops.get(*level), keys.first()) {
                    (Some(rounds), Some(Key::Name { name, .. })) => rounds.member(name),
                    (Some(rounds), None) => loop_object(rounds),
                    _ => Held::Nil,
                };
                keys = keys.get(1..).unwrap_or(&[]);
                held
            }
            base => self.variable(base).unwrap_or(Held::Nil),
        };
        for key in keys {
            held = self.key(&held, key, expr.place)?;
        }
        Ok(held)
    }

    /// The value of a variable or a global, `None` where there is none.
    fn variable(&mut self, base: &'r Base) -> Option<Held<'r>> {
        match base {
            Base::Global(global) => Some(Held::from(self.global(*global))),
            Base::Bound(slot) => self.slots[*slot].clone(),
            Base::Local { slot, counter, global } => {
                let counted = || counter.and_then(|counter| self.slots[counter].clone());
                match self.slots[*slot].clone().or_else(counted) {
                    None => global.map(|global| Held::from(self.global(global))),
                    set => set,
                }
            }
            Base::Literal(_) | Base::Loop(_) | Base::Named { .. } | Base::Range(..) => None,
        }
    }

    fn global(&mut self, global: usize) -> Val<'r> {
        if let Some(Some(val)) = self.globals.get(global) {
            return *val;
        }
        let val = self.work.globals.get(&self.program.globals[global]).unwrap_or(Val::Nil);
        if let Some(kept) = self.globals.get_mut(global) {
            *kept = Some(val);
        }
        val
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
                self.charge(text.len() / BYTES_PER_STEP, place)?;
                json::write_string(text, out);
                Ok(())
            }
            (Some(Val::Str(text)), Mode::InString) => {
                self.charge(text.len() / BYTES_PER_STEP, place)?;
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

    fn range(&mut self, from: &Held<'r>, to: &Held<'r>, place: Place) -> Outcome<Held<'r>> {
        let mut ends = [0; 2];
        for (end, held) in ends.iter_mut().zip([from, to]) {
            let whole = Number::of(held).floor().map(super::number::Number::held);
            *end = match whole {
                Ok(Held::Int(int)) => i64::try_from(int).unwrap_or(if int < 0 { i64::MIN } else { i64::MAX }),
                _ => {
                    return self.fail(ErrorKind::Compute, place, "a range needs whole numbers");
                }
            };
        }
        Ok(Held::Range(ends[0], ends[1]))
    }

    fn key(&mut self, held: &Held<'r>, key: &'r Key, place: Place) -> Outcome<Held<'r>> {
        if let Held::Json(text) = held {
            self.charge(text.len() / BYTES_PER_STEP, place)?;
        }
        Ok(match key {
            Key::Name { name, dotted, hint } => {
                let found = match held {
                    Held::Object(object) => column(*object, name, hint).map(Held::from),
                    other => list::member(other, name),
                };
                match found {
                    Some(found) => found,
                    None if *dotted => list::special(held, name),
                    None => Held::Nil,
                }
            }
            Key::Index(index) => list::index(held, (*index).into()),
            Key::Expr(expr) => match self.expr(expr)? {
                Held::Int(index) => list::index(held, index),
                Held::Str(name) => list::member(held, &name).unwrap_or(Held::Nil),
                _ => Held::Nil,
            },
        })
    }
}

/// The member of an object, looked for first where it was the last time.
fn column<'r>(object: &'r dyn Object, name: &str, hint: &AtomicU32) -> Option<Val<'r>> {
    if let Some((held, val)) = object.entry(hint.load(Relaxed) as usize)
        && held == name
    {
        return Some(val);
    }
    let i = object.index_of(name)?;
    hint.store(u32::try_from(i).unwrap_or(u32::MAX), Relaxed);
    object.entry(i).map(|(_, val)| val)
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

/// `forloop` as a whole.
fn loop_object<'r>(rounds: &Rounds<'r>) -> Held<'r> {
    let names = ["length", "index", "index0", "rindex", "rindex0", "first", "last"];
    let entries = names.iter().map(|name| (Rc::from(*name), rounds.member(name)));
    Held::Map(Rc::new(entries.collect()))
}
