//! From blocks of nodes to a flat program: names become slots, blocks become jumps.

mod flow;
mod scope;
mod values;

use std::collections::HashMap;

use crate::analysis::exclusive;
use crate::error::Error;
use crate::expression as ast;
use crate::options::Options;
use crate::program::{Base, Chain, Key, Op, Program, Slot, Target};
use crate::reads::Mentions;
use crate::source::{Place, Sources};
use crate::syntax::{Arm, Block, Branch, Mode, Node};
use scope::{Assigned, Scope};

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
