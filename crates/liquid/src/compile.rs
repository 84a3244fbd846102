//! From blocks of nodes to a flat program: names become slots, blocks become jumps.

use std::collections::{BTreeSet, HashMap};

use crate::analysis::exclusive;
use crate::error::{Error, ErrorKind, nearest};
use crate::expression as ast;
use crate::filters::Filter;
use crate::options::Options;
use crate::program::{Applied, Base, Chain, Expr, Key, Looped, Op, Program, Slot, Target, Test, Tests};
use crate::reads::Mentions;
use crate::source::{Place, Sources};
use crate::syntax::{Arm, Block, Branch, Loop, LoopKind, Mode, Node, Offset, Partial};

pub(crate) struct Compiler<'o> {
    options: &'o Options,
    program: Program,
    pub mentions: Mentions,
    global_slots: HashMap<String, usize>,
    scope: Scope,
    /// What is open around the current place, innermost last.
    frames: Vec<Frame>,
    sites: usize,
    faults: Vec<Error>,
}

/// The variables of the template, or of a partial with a scope of its own.
#[derive(Default)]
struct Scope {
    /// Names assigned somewhere in the scope.
    assigned: HashMap<String, Slot>,
    counters: HashMap<String, Slot>,
    resumes: HashMap<String, usize>,
    sites: HashMap<String, usize>,
    /// Variables of loops and partials, and loops, innermost last.
    bound: Vec<Bound>,
    /// Variables that are set whenever the current place is reached.
    definite: Vec<Slot>,
}

enum Bound {
    Variable(String, Slot),
    /// `forloop` or `tablerowloop`, and the number of loops open around it.
    Loop {
        name: &'static str,
        level: usize,
    },
}

enum Frame {
    Loop {
        breaks: Vec<usize>,
        continues: Vec<usize>,
        cell: Option<Mode>,
    },
    /// The template, or the body of a `render`: a `break` outside loops ends it.
    Wall {
        ends: Vec<usize>,
    },
    Capture(Slot),
    Changed,
}

/// The rounds of a loop, whatever tag makes them.
struct Rounds<'n> {
    head: Looped,
    variable: &'n str,
    /// What the loop's own object is called, if it has one.
    object: Option<&'static str>,
    table: Option<Mode>,
    place: Place,
}

impl<'o> Compiler<'o> {
    pub fn new(options: &'o Options, sources: Sources) -> Self {
        let program = Program {
            ops: Vec::new(),
            places: Vec::new(),
            text: String::new(),
            slots: 0,
            globals: Vec::new(),
            resumes: 0,
            sources,
            limits: options.limits.clone(),
            lax: options.lax,
            checked: false,
        };
        Self {
            options,
            program,
            mentions: Mentions::new(),
            global_slots: HashMap::new(),
            scope: Scope::default(),
            frames: Vec::new(),
            sites: 0,
            faults: Vec::new(),
        }
    }

    pub fn template(mut self, block: &Block, checked: bool) -> Result<(Program, Mentions), Vec<Error>> {
        self.program.checked = checked;
        self.mentions.reads.can_fail |= checked;
        self.scope = self.scope_of(block);
        self.walled(block);
        self.finish()
    }

    pub fn condition(
        mut self,
        conditions: &ast::Conditions,
        place: Place,
    ) -> Result<(Program, Mentions), Vec<Error>> {
        let test = self.tests(conditions);
        self.push(Op::Test { test, when: true, to: 0 }, place);
        self.finish()
    }

    fn finish(mut self) -> Result<(Program, Mentions), Vec<Error>> {
        if self.faults.is_empty() {
            self.mentions.own.extend(self.scope.assigned.keys().cloned());
            return Ok((self.program, self.mentions));
        }
        Err(self.faults)
    }

    /// A fresh scope: every name that is assigned anywhere in `block` gets its slot beforehand, because
    /// an assignment further down may have run in an earlier round of a loop.
    fn scope_of(&mut self, block: &Block) -> Scope {
        let mut names = Assigned::default();
        names.block(block);
        let mut scope = Scope::default();
        for name in names.variables {
            let slot = self.slot();
            scope.assigned.insert(name, slot);
        }
        for name in names.counters {
            let slot = self.slot();
            scope.counters.insert(name, slot);
        }
        scope
    }

    fn slot(&mut self) -> Slot {
        self.program.slots += 1;
        self.program.slots - 1
    }

    fn push(&mut self, op: Op, place: Place) -> usize {
        self.program.ops.push(op);
        self.program.places.push(place);
        self.program.ops.len() - 1
    }

    fn here(&self) -> Target {
        self.program.ops.len()
    }

    /// Makes the jump at `at` go to the current place.
    fn land(&mut self, at: usize) {
        let here = self.here();
        match &mut self.program.ops[at] {
            Op::Jump { to }
            | Op::Test { to, .. }
            | Op::TestCase { to, .. }
            | Op::TestSlot { to, .. }
            | Op::LoopBegin { none: to, .. } => *to = here,
            other => unreachable!("{other:?} does not jump"),
        }
    }

    fn land_all(&mut self, jumps: Vec<usize>) {
        for at in jumps {
            self.land(at);
        }
    }

    fn block(&mut self, block: &Block) {
        for node in block {
            self.node(node);
        }
    }

    /// A block that may not be run: what it sets may not be set afterwards.
    fn optional(&mut self, block: &Block) {
        let definite = self.scope.definite.len();
        self.block(block);
        self.scope.definite.truncate(definite);
    }

    fn walled(&mut self, block: &Block) {
        self.frames.push(Frame::Wall { ends: Vec::new() });
        self.block(block);
        if let Some(Frame::Wall { ends }) = self.frames.pop() {
            self.land_all(ends);
        }
    }

    fn node(&mut self, node: &Node) {
        match node {
            Node::Text { text, place } => {
                let from = self.program.text.len();
                self.program.text.push_str(text);
                let to = self.program.text.len();
                self.push(Op::Text { from, to }, *place);
            }
            Node::Output { value, mode, place, .. } => {
                let value = self.chain(value);
                self.push(emission(value, *mode), *place);
            }
            Node::Assign { name, value, place } => {
                let value = self.chain(value);
                let slot = self.assigned(name);
                self.push(Op::Assign { slot, value }, *place);
                self.scope.definite.push(slot);
            }
            Node::Capture { name, body, place } => {
                let slot = self.assigned(name);
                self.push(Op::CaptureBegin, *place);
                self.frames.push(Frame::Capture(slot));
                self.block(body);
                self.frames.pop();
                self.push(Op::CaptureEnd { slot }, *place);
                self.scope.definite.push(slot);
            }
            Node::If { branches, place } => self.branches(branches, *place),
            Node::Case { subject, arms, place } => self.case(subject, arms, *place),
            Node::Loop(looped) => self.looped(looped),
            Node::Cycle { group, items, site, mode, place } => {
                let sites = &mut self.sites;
                let site = *self.scope.sites.entry(site.clone()).or_insert_with(|| {
                    *sites += 1;
                    *sites - 1
                });
                let group = group.as_ref().map(|group| self.chain(group));
                let items = items.iter().map(|item| self.expr(item)).collect();
                self.push(Op::Cycle { group, site, items, mode: *mode }, *place);
            }
            Node::Counter { name, step, mode, place } => {
                let slot = match self.scope.counters.get(name) {
                    Some(slot) => *slot,
                    None => unreachable!("`{name}` was collected with its scope"),
                };
                self.push(Op::Counter { slot, step: *step, mode: *mode }, *place);
            }
            Node::IfChanged { body, place } => {
                self.push(Op::ChangedBegin, *place);
                self.frames.push(Frame::Changed);
                self.optional(body);
                self.frames.pop();
                self.push(Op::ChangedEnd, *place);
            }
            Node::Partial(partial) => self.partial(partial),
            Node::Break { place } => self.leave(*place, true),
            Node::Continue { place } => self.leave(*place, false),
        }
    }

    fn assigned(&self, name: &str) -> Slot {
        match self.scope.assigned.get(name) {
            Some(slot) => *slot,
            None => unreachable!("`{name}` was collected with its scope"),
        }
    }

    fn branches(&mut self, branches: &[Branch], place: Place) {
        let mut ends = Vec::new();
        for branch in branches {
            let skip = branch.test.as_ref().map(|test| {
                let test = self.tests(test);
                self.push(Op::Test { test, when: !branch.negated, to: 0 }, branch.place)
            });
            self.optional(&branch.body);
            if let Some(skip) = skip {
                ends.push(self.push(Op::Jump { to: 0 }, place));
                self.land(skip);
            }
        }
        self.land_all(ends);
    }

    /// Every arm that matches is run. When only one can match, the others are jumped over.
    fn case(&mut self, subject: &ast::Expr, arms: &[Arm], place: Place) {
        let single = exclusive(arms);
        let matched = (!single).then(|| self.slot());
        if let Some(slot) = matched {
            self.push(Op::SetSlot { slot, on: false }, place);
        }
        let mut ends = Vec::new();
        for arm in arms {
            let skip = match (&arm.values, matched) {
                (Some(values), _) => {
                    let subject = self.expr(subject);
                    let values = values.iter().map(|value| self.expr(value)).collect();
                    Some(self.push(Op::TestCase { subject, values, to: 0 }, arm.place))
                }
                (None, Some(slot)) => Some(self.push(Op::TestSlot { slot, to: 0 }, arm.place)),
                (None, None) => None,
            };
            if let (Some(slot), Some(_)) = (matched, &arm.values) {
                self.push(Op::SetSlot { slot, on: true }, arm.place);
            }
            self.optional(&arm.body);
            if single {
                ends.push(self.push(Op::Jump { to: 0 }, place));
            }
            if let Some(skip) = skip {
                self.land(skip);
            }
        }
        self.land_all(ends);
    }

    fn looped(&mut self, looped: &Loop) {
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
    fn leave(&mut self, place: Place, breaks_out: bool) {
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

    fn partial(&mut self, partial: &Partial) {
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

    fn chain(&mut self, filtered: &ast::Filtered) -> Chain {
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

    fn tests(&mut self, conditions: &ast::Conditions) -> Tests {
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

    fn expr(&mut self, expr: &ast::Expr) -> Expr {
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

/// The operation that writes a value.
fn emission(mut value: Chain, mode: Mode) -> Op {
    if let Base::Global(global) = value.expr.base
        && let [Key::Name { .. }] = value.expr.keys[..]
        && value.filters.is_empty()
        && let Some(key) = value.expr.keys.pop()
    {
        return Op::Member { global, key, mode };
    }
    Op::Emit { value, mode }
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

/// The names a scope gives values to; `render` has its own scope and is not looked into.
#[derive(Default)]
struct Assigned {
    variables: BTreeSet<String>,
    counters: BTreeSet<String>,
}

impl Assigned {
    fn block(&mut self, block: &Block) {
        for node in block {
            match node {
                Node::Assign { name, .. } => {
                    self.variables.insert(name.clone());
                }
                Node::Capture { name, body, .. } => {
                    self.variables.insert(name.clone());
                    self.block(body);
                }
                Node::Counter { name, .. } => {
                    self.counters.insert(name.clone());
                }
                Node::If { branches, .. } => {
                    for branch in branches {
                        self.block(&branch.body);
                    }
                }
                Node::Case { arms, .. } => arms.iter().for_each(|arm| self.block(&arm.body)),
                Node::Loop(looped) => {
                    self.block(&looped.body);
                    looped.otherwise.iter().for_each(|otherwise| self.block(otherwise));
                }
                Node::IfChanged { body, .. } => self.block(body),
                Node::Partial(partial) if !partial.isolated => self.block(&partial.body),
                Node::Partial(_)
                | Node::Text { .. }
                | Node::Output { .. }
                | Node::Cycle { .. }
                | Node::Break { .. }
                | Node::Continue { .. } => {}
            }
        }
    }
}
