//! Expressions, filters and conditions: what each name means where it stands.

use super::Compiler;
use super::scope::Bound;
use crate::error::{Error, ErrorKind, nearest};
use crate::expression as ast;
use crate::filters::Filter;
use crate::program::{Applied, Base, Chain, Expr, Key, Slot, Test, Tests};

impl Compiler<'_> {
    pub(super) fn chain(&mut self, filtered: &ast::Filtered) -> Chain {
        let expr = self.expr(&filtered.expr);
        let filters = filtered.filters.iter().filter_map(|call| self.call(call)).collect();
        Chain { expr, filters }
    }

    fn call(&mut self, call: &ast::Call) -> Option<Applied> {
        let Some(filter) = Filter::named(&call.name) else {
            if !self.options.lax || call.name == "raw" {
                let error = self.unknown_filter(call);
                self.faults.push(error);
            }
            return None;
        };
        let (least, most) = filter.arguments();
        let given = call.positional.len();
        if given < least || given > most {
            let count = if least == most { least.to_string() } else { format!("{least} to {most}") };
            let noun = if most == 1 { "argument" } else { "arguments" };
            let message = format!("`{}` takes {count} {noun}, here it has {given}", call.name);
            self.faults.push(self.program.sources.error(ErrorKind::Arguments, call.place, message));
        }
        for (name, expr) in &call.named {
            if !filter.named_arguments().contains(&name.as_str()) && !self.options.lax {
                let message = format!("`{}` takes no argument `{name}:`", call.name);
                self.faults.push(self.program.sources.error(ErrorKind::Arguments, expr.place, message));
            }
        }
        self.mentions.reads.can_fail |= filter.can_fail();
        self.mentions.reads.clock |= call.name == "date";
        Some(Applied {
            filter,
            positional: call.positional.iter().map(|argument| self.expr(argument)).collect(),
            named: call.named.iter().map(|(name, argument)| (name.clone(), self.expr(argument))).collect(),
            place: call.place,
        })
    }

    fn unknown_filter(&self, call: &ast::Call) -> Error {
        if call.name == "raw" {
            let message = "`raw` must be the last filter of an output";
            return self.program.sources.error(ErrorKind::Arguments, call.place, message);
        }
        let message = format!("there is no filter `{}`", call.name);
        let error = self.program.sources.error(ErrorKind::UnknownFilter, call.place, message);
        match nearest(&call.name, Filter::names()) {
            Some(known) => error.hinted(format!("did you mean `{known}`?")),
            None => error,
        }
    }

    pub(super) fn tests(&mut self, conditions: &ast::Conditions) -> Tests {
        Tests {
            first: self.test(&conditions.first),
            rest: conditions.rest.iter().map(|(logic, comparison)| (*logic, self.test(comparison))).collect(),
        }
    }

    fn test(&mut self, comparison: &ast::Comparison) -> Test {
        let place = comparison.left.expr.place;
        let presence = match &comparison.right {
            None => true,
            Some((_, right)) => matches!(
                right.expr.literal(),
                Some(ast::Literal::Nil | ast::Literal::Blank | ast::Literal::Empty)
            ),
        };
        // To ask whether there is a `previous` reads no column of it.
        let columns = self.mentions.reads.columns.clone();
        let left = self.chain(&comparison.left);
        let whole = matches!(&left.expr.base, Base::Global(_)) && left.expr.keys.is_empty();
        if presence && whole && left.filters.is_empty() {
            self.mentions.reads.columns = columns;
        }
        let right = comparison.right.as_ref().map(|(operator, right)| {
            use ast::Operator::{Greater, GreaterEqual, Less, LessEqual};
            let ordered = matches!(operator, Less | LessEqual | Greater | GreaterEqual);
            self.mentions.reads.can_fail |= ordered && !self.options.lax;
            (*operator, self.chain(right))
        });
        Test { left, right, place }
    }

    pub(super) fn expr(&mut self, expr: &ast::Expr) -> Expr {
        let mut keys = &expr.keys[..];
        let base = match &expr.base {
            ast::Base::Literal(literal) => Base::Literal(literal.clone()),
            ast::Base::Range(from, to) => Base::Range(Box::new(self.expr(from)), Box::new(self.expr(to))),
            ast::Base::Named(name) => {
                self.mentions.note_any();
                Base::Named { name: Box::new(self.expr(name)), known: self.known() }
            }
            ast::Base::Name(name) => {
                let (base, passed) = self.resolve(name, expr);
                keys = &keys[passed..];
                base
            }
        };
        let keys = keys
            .iter()
            .map(|key| match key {
                ast::Key::Dot(name, _) => named_key(name, true),
                ast::Key::Text(name, _) => named_key(name, false),
                ast::Key::Index(index) => Key::Index(*index),
                ast::Key::Expr(expr) => Key::Expr(Box::new(self.expr(expr))),
            })
            .collect();
        Expr { base, keys, place: expr.place }
    }

    /// What a name means here, and how many of its keys that answers already (`parentloop`).
    fn resolve(&mut self, name: &str, expr: &ast::Expr) -> (Base, usize) {
        for (i, bound) in self.scope.bound.iter().enumerate().rev() {
            match bound {
                Bound::Variable(held, slot) if held == name => return (Base::Bound(*slot), 0),
                Bound::Loop { name: held, level } if *held == name => {
                    return parent_loop(*level, &self.scope.bound[..i], &expr.keys);
                }
                Bound::Variable(..) | Bound::Loop { .. } => {}
            }
        }
        if matches!(name, "forloop" | "tablerowloop") {
            // Outside of loops it is nil, so that a partial can serve in loops and without.
            return (Base::Literal(ast::Literal::Nil), 0);
        }
        let counter = self.scope.counters.get(name).copied();
        let slot = self.scope.assigned.get(name).copied();
        if let Some(slot) = slot.filter(|slot| self.scope.definite.contains(slot)) {
            return (Base::Local { slot, counter: None, global: None }, 0);
        }
        self.mentions.note(name, expr, slot.or(counter).is_some());
        let global = self.global(name);
        let base = match (slot, counter) {
            (Some(slot), counter) => Base::Local { slot, counter, global: Some(global) },
            (None, Some(slot)) => Base::Local { slot, counter: None, global: Some(global) },
            (None, None) => Base::Global(global),
        };
        (base, 0)
    }

    fn global(&mut self, name: &str) -> usize {
        if let Some(global) = self.global_slots.get(name) {
            return *global;
        }
        let global = self.program.globals.len();
        self.program.globals.push(name.to_owned());
        self.global_slots.insert(name.to_owned(), global);
        global
    }

    /// Every variable in sight, for names made at run time.
    fn known(&self) -> Vec<(String, Base)> {
        let scope = &self.scope;
        let bound = scope.bound.iter().rev().filter_map(|bound| match bound {
            Bound::Variable(name, slot) => Some((name.clone(), Base::Bound(*slot))),
            Bound::Loop { .. } => None,
        });
        let local = |(name, slot): (&String, &Slot)| {
            (name.clone(), Base::Local { slot: *slot, counter: None, global: None })
        };
        bound.chain(scope.assigned.iter().map(local)).chain(scope.counters.iter().map(local)).collect()
    }
}

fn named_key(name: &str, dotted: bool) -> Key {
    Key::Name { name: name.to_owned(), dotted, hint: u32::MAX.into() }
}

/// Follows `.parentloop` outwards, as far as it is written.
fn parent_loop(level: usize, outer: &[Bound], keys: &[ast::Key]) -> (Base, usize) {
    let mut level = level;
    let mut outer = outer;
    let mut passed = 0;
    while let Some(ast::Key::Dot(key, _) | ast::Key::Text(key, _)) = keys.get(passed) {
        if key != "parentloop" {
            break;
        }
        passed += 1;
        let parent = outer.iter().enumerate().rev().find_map(|(i, bound)| match bound {
            Bound::Loop { name: "forloop", level } => Some((i, *level)),
            Bound::Loop { .. } | Bound::Variable(..) => None,
        });
        let Some((i, found)) = parent else {
            return (Base::Literal(ast::Literal::Nil), passed);
        };
        level = found;
        outer = &outer[..i];
    }
    (Base::Loop(level), passed)
}
