//! Conditions, filters and expressions while they run.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::rounds::loop_object;
use super::{BYTES_PER_STEP, Machine, Outcome};
use crate::compare::{compare, kind_of};
use crate::error::ErrorKind;
use crate::expression::Logic;
use crate::filters::{ARGUMENTS_MAX, Given, Refusal};
use crate::held::Held;
use crate::list;
use crate::number::Number;
use crate::program::{Applied, Base, Chain, Expr, Key, Test, Tests};
use crate::source::Place;
use crate::value::{Object, Val};

impl<'r> Machine<'r> {
    pub(super) fn group(&mut self, group: &'r Chain) -> Outcome<String> {
        let held = self.chain(group)?;
        self.charge_for(&held, group.expr.place)?;
        Ok(format!("{}{}", kind_of(&held), held.text()))
    }
    pub(super) fn tests(&mut self, tests: &'r Tests) -> Outcome<bool> {
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

    pub(super) fn chain(&mut self, chain: &'r Chain) -> Outcome<Held<'r>> {
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

    pub(super) fn expr(&mut self, expr: &'r Expr) -> Outcome<Held<'r>> {
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

    pub(super) fn global(&mut self, global: usize) -> Val<'r> {
        if let Some(Some(val)) = self.globals.get(global) {
            return *val;
        }
        let val = self.work.globals.get(&self.program.globals[global]).unwrap_or(Val::Nil);
        if let Some(kept) = self.globals.get_mut(global) {
            *kept = Some(val);
        }
        val
    }
    fn range(&mut self, from: &Held<'r>, to: &Held<'r>, place: Place) -> Outcome<Held<'r>> {
        let mut ends = [0; 2];
        for (end, held) in ends.iter_mut().zip([from, to]) {
            let whole = Number::of(held).floor().map(Number::held);
            *end = match whole {
                Ok(Held::Int(int)) => i64::try_from(int).unwrap_or(if int < 0 { i64::MIN } else { i64::MAX }),
                _ => {
                    return self.fail(ErrorKind::Compute, place, "a range needs whole numbers");
                }
            };
        }
        Ok(Held::Range(ends[0], ends[1]))
    }

    pub(super) fn key(&mut self, held: &Held<'r>, key: &'r Key, place: Place) -> Outcome<Held<'r>> {
        if let Held::Json(text) = held {
            self.charge_bytes(text.len(), BYTES_PER_STEP, place)?;
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
pub(super) fn column<'r>(object: &'r dyn Object, name: &str, hint: &AtomicU32) -> Option<Val<'r>> {
    if let Some((held, val)) = object.entry(hint.load(Relaxed) as usize)
        && held == name
    {
        return Some(val);
    }
    let i = object.index_of(name)?;
    hint.store(u32::try_from(i).unwrap_or(u32::MAX), Relaxed);
    object.entry(i).map(|(_, val)| val)
}
