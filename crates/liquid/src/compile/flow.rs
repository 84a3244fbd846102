//! Loops, what leaves them, and partials.

use super::scope::Bound;
use super::{Compiler, Frame};
use crate::program::{Chain, Looped, Op, Slot};
use crate::source::Place;
use crate::syntax::{Loop, LoopKind, Mode, Offset, Partial};

/// The rounds of a loop, whatever tag makes them.
struct Rounds<'n> {
    head: Looped,
    variable: &'n str,
    /// What the loop's own object is called, if it has one.
    object: Option<&'static str>,
    table: Option<Mode>,
    place: Place,
}
impl Compiler<'_> {
    pub(super) fn looped(&mut self, looped: &Loop) {
        let (table, mode) = match &looped.kind {
            LoopKind::For => (None, None),
            LoopKind::TableRow { columns, mode } => {
                (Some((columns.as_ref().map(|columns| self.expr(columns)), *mode)), Some(*mode))
            }
        };
        self.mentions.reads.can_fail |= looped.limit.is_some() || looped.offset.is_some() || table.is_some();
        let items = self.expr(&looped.items);
        let limit = looped.limit.as_ref().map(|limit| self.expr(limit));
        let (offset, resumed) = match &looped.offset {
            Some(Offset::At(offset)) => (Some(self.expr(offset)), false),
            Some(Offset::Continue) => (None, true),
            None => (None, false),
        };
        let resumes = &mut self.program.resumes;
        let resume = *self.scope.resumes.entry(looped.name.clone()).or_insert_with(|| {
            *resumes += 1;
            *resumes - 1
        });
        let head = Looped {
            items,
            slot: self.slot(),
            reversed: looped.reversed,
            limit,
            offset,
            resume: Some(resume),
            resumed,
            table,
            single: false,
        };
        let rounds = Rounds {
            head,
            variable: &looped.variable,
            object: Some(if mode.is_some() { "tablerowloop" } else { "forloop" }),
            table: mode,
            place: looped.place,
        };
        let none = self.rounds(rounds, |compiler| compiler.optional(&looped.body));
        let Some(otherwise) = &looped.otherwise else {
            return self.land(none);
        };
        let over = self.push(Op::Jump { to: 0 }, looped.place);
        self.land(none);
        self.optional(otherwise);
        self.land(over);
    }

    /// A loop around what `body` compiles; returns the jump that is taken when there is nothing to go
    /// through.
    fn rounds(&mut self, rounds: Rounds<'_>, body: impl FnOnce(&mut Self)) -> usize {
        let Rounds { head, variable, object, table, place } = rounds;
        let level = self.frames.iter().filter(|frame| matches!(frame, Frame::Loop { .. })).count();
        let bound = self.scope.bound.len();
        self.scope.bound.extend(object.map(|name| Bound::Loop { name, level }));
        self.scope.bound.push(Bound::Variable(variable.to_owned(), head.slot));
        let begin = self.push(Op::LoopBegin { looped: Box::new(head), none: 0 }, place);
        if let Some(mode) = table {
            self.push(Op::TableBegin { mode }, place);
        }
        let start = self.here();
        if let Some(mode) = table {
            self.push(Op::CellBegin { mode }, place);
        }
        self.frames.push(Frame::Loop { breaks: Vec::new(), continues: Vec::new(), cell: table });
        body(self);
        let Some(Frame::Loop { breaks, continues, .. }) = self.frames.pop() else {
            unreachable!("frames are closed in order");
        };
        self.scope.bound.truncate(bound);
        self.land_all(continues);
        if let Some(mode) = table {
            self.push(Op::CellEnd { mode }, place);
        }
        self.push(Op::LoopNext { body: start }, place);
        self.land_all(breaks);
        if let Some(mode) = table {
            self.push(Op::TableEnd { mode }, place);
        }
        self.push(Op::LoopEnd, place);
        begin
    }

    /// `break` or `continue`: closes what is open up to the loop, and jumps.
    pub(super) fn leave(&mut self, place: Place, breaks_out: bool) {
        for i in (0..self.frames.len()).rev() {
            match &self.frames[i] {
                Frame::Capture(slot) => {
                    let slot = *slot;
                    self.push(Op::CaptureEnd { slot }, place);
                }
                Frame::Changed => {
                    self.push(Op::ChangedEnd, place);
                }
                Frame::Wall { .. } => {
                    let jump = self.push(Op::Jump { to: 0 }, place);
                    if let Frame::Wall { ends } = &mut self.frames[i] {
                        ends.push(jump);
                    }
                    return;
                }
                Frame::Loop { cell, .. } => {
                    if let (Some(mode), true) = (*cell, breaks_out) {
                        self.push(Op::CellBreak { mode }, place);
                    }
                    let jump = self.push(Op::Jump { to: 0 }, place);
                    if let Frame::Loop { breaks, continues, .. } = &mut self.frames[i] {
                        if breaks_out { breaks } else { continues }.push(jump);
                    }
                    return;
                }
            }
        }
    }

    pub(super) fn partial(&mut self, partial: &Partial) {
        let place = partial.place;
        // Arguments are worked out where the partial is used, before its own scope begins.
        let mut arguments = Vec::new();
        for (name, value) in &partial.arguments {
            let value = Chain { expr: self.expr(value), filters: Vec::new() };
            let slot = self.slot();
            self.push(Op::Assign { slot, value }, place);
            arguments.push((name.clone(), slot));
        }
        let names = partial.arguments.iter().map(|(name, _)| name);
        let names = names.chain(partial.bound.iter().map(|(name, _)| name));
        self.mentions.parameters.extend(names.cloned());
        let bound = partial.bound.as_ref().map(|(name, value)| (name, self.expr(value)));
        match bound {
            Some((name, items)) if partial.each => {
                let slot = self.slot();
                let head = Looped {
                    items,
                    slot,
                    reversed: false,
                    limit: None,
                    offset: None,
                    resume: None,
                    resumed: false,
                    table: None,
                    single: true,
                };
                let object = partial.isolated.then_some("forloop");
                let rounds = Rounds { head, variable: name, object, table: None, place };
                if partial.isolated {
                    arguments.push((name.clone(), slot));
                }
                let none = self.rounds(rounds, |compiler| {
                    compiler.partial_body(partial, arguments);
                });
                self.land(none);
            }
            Some((name, expr)) => {
                let slot = self.slot();
                self.push(Op::Assign { slot, value: Chain { expr, filters: Vec::new() } }, place);
                arguments.push((name.clone(), slot));
                self.partial_body(partial, arguments);
            }
            None => self.partial_body(partial, arguments),
        }
    }

    fn partial_body(&mut self, partial: &Partial, arguments: Vec<(String, Slot)>) {
        if !partial.isolated {
            let bound = self.scope.bound.len();
            let variables = arguments.into_iter().map(|(name, slot)| Bound::Variable(name, slot));
            self.scope.bound.extend(variables);
            self.block(&partial.body);
            self.scope.bound.truncate(bound);
            return;
        }
        let first = (self.program.slots, self.program.resumes, self.sites);
        let mut inner = self.scope_of(&partial.body);
        // The loop of `render … for` is the only one seen inside.
        let level = self.frames.iter().filter(|frame| matches!(frame, Frame::Loop { .. })).count();
        if partial.each {
            inner.bound.push(Bound::Loop { name: "forloop", level: level - 1 });
        }
        for (name, slot) in arguments {
            inner.definite.push(slot);
            inner.assigned.insert(name, slot);
        }
        let outer = std::mem::replace(&mut self.scope, inner);
        let clear = self.push(Op::Jump { to: 0 }, partial.place);
        if partial.each {
            self.block(&partial.body);
        } else {
            self.walled(&partial.body);
        }
        let inner = std::mem::replace(&mut self.scope, outer);
        self.mentions.own.extend(inner.assigned.into_keys());
        self.program.ops[clear] = Op::Clear {
            slots: first.0..self.program.slots,
            resumes: first.1..self.program.resumes,
            sites: first.2..self.sites,
        };
    }
}
