//! The names of a scope, and where their values are.

use std::collections::{BTreeSet, HashMap};

use crate::program::Slot;
use crate::syntax::{Block, Node};

/// The variables of the template, or of a partial with a scope of its own.
#[derive(Default)]
pub(super) struct Scope {
    /// Names assigned somewhere in the scope.
    pub assigned: HashMap<String, Slot>,
    pub counters: HashMap<String, Slot>,
    pub resumes: HashMap<String, usize>,
    pub sites: HashMap<String, usize>,
    /// Variables of loops and partials, and loops, innermost last.
    pub bound: Vec<Bound>,
    /// Variables that are set whenever the current place is reached.
    pub definite: Vec<Slot>,
}

pub(super) enum Bound {
    Variable(String, Slot),
    /// `forloop` or `tablerowloop`, and the number of loops open around it.
    Loop {
        name: &'static str,
        level: usize,
    },
}
/// The names a scope gives values to; `render` has its own scope and is not looked into.
#[derive(Default)]
pub(super) struct Assigned {
    pub variables: BTreeSet<String>,
    pub counters: BTreeSet<String>,
}

impl Assigned {
    pub fn block(&mut self, block: &Block) {
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
