//! A template compiled: one flat list of operations, and tables they point into.

use std::sync::atomic::AtomicU32;

use crate::expression::{Literal, Logic, Operator};
use crate::filters::Filter;
use crate::options::Limits;
use crate::source::{Place, Sources};
use crate::syntax::Mode;

pub(crate) type Target = usize;
pub(crate) type Slot = usize;

#[derive(Debug)]
pub(crate) struct Program {
    pub ops: Vec<Op>,
    /// Where each operation was written.
    pub places: Vec<Place>,
    /// Every literal text of the template.
    pub text: String,
    pub slots: usize,
    /// Names looked up outside the template; looked up once a rendering at most.
    pub globals: Vec<String>,
    /// Counters of `offset: continue`.
    pub resumes: usize,
    pub sources: Sources,
    pub limits: Limits,
    pub lax: bool,
    /// JSON that was not proven to be JSON, and is checked after rendering.
    pub checked: bool,
}

#[derive(Debug)]
pub(crate) enum Op {
    Text {
        from: usize,
        to: usize,
    },
    Emit {
        value: Chain,
        mode: Mode,
    },
    /// The commonest output, a column as it is: what [`Op::Emit`] does, without values held in between.
    Member {
        global: usize,
        key: Key,
        mode: Mode,
    },
    Assign {
        slot: Slot,
        value: Chain,
    },
    CaptureBegin,
    CaptureEnd {
        slot: Slot,
    },
    Jump {
        to: Target,
    },
    /// Goes on with the next operation when the test yields `when`, to `to` otherwise.
    Test {
        test: Tests,
        when: bool,
        to: Target,
    },
    /// Goes to `to` unless the subject equals one of the values.
    TestCase {
        subject: Expr,
        values: Vec<Expr>,
        to: Target,
    },
    /// Goes to `to` when the slot holds `true`.
    TestSlot {
        slot: Slot,
        to: Target,
    },
    SetSlot {
        slot: Slot,
        on: bool,
    },
    LoopBegin {
        looped: Box<Looped>,
        none: Target,
    },
    LoopNext {
        body: Target,
    },
    LoopEnd,
    TableBegin {
        mode: Mode,
    },
    CellBegin {
        mode: Mode,
    },
    CellEnd {
        mode: Mode,
    },
    /// Closes the cell a `break` stands in.
    CellBreak {
        mode: Mode,
    },
    TableEnd {
        mode: Mode,
    },
    Cycle {
        group: Option<Chain>,
        site: usize,
        items: Vec<Expr>,
        mode: Mode,
    },
    Counter {
        slot: Slot,
        step: i8,
        mode: Mode,
    },
    ChangedBegin,
    ChangedEnd,
    /// Forgets everything of a scope that is entered anew.
    Clear {
        slots: std::ops::Range<Slot>,
        resumes: std::ops::Range<usize>,
        sites: std::ops::Range<usize>,
    },
}

#[derive(Debug)]
pub(crate) struct Looped {
    pub items: Expr,
    pub slot: Slot,
    pub reversed: bool,
    pub limit: Option<Expr>,
    pub offset: Option<Expr>,
    /// Where this loop notes how far it came.
    pub resume: Option<usize>,
    /// Begins where the last one of its name came to.
    pub resumed: bool,
    /// Of a `tablerow`: its columns, and how its HTML is written.
    pub table: Option<(Option<Expr>, Mode)>,
    /// A value that is no array is gone through as one item (`include … with`).
    pub single: bool,
}

#[derive(Debug)]
pub(crate) struct Chain {
    pub expr: Expr,
    pub filters: Vec<Applied>,
}

#[derive(Debug)]
pub(crate) struct Applied {
    pub filter: Filter,
    pub positional: Vec<Expr>,
    pub named: Vec<(String, Expr)>,
    pub place: Place,
}

#[derive(Debug)]
pub(crate) struct Tests {
    pub first: Test,
    pub rest: Vec<(Logic, Test)>,
}

#[derive(Debug)]
pub(crate) struct Test {
    pub left: Chain,
    pub right: Option<(Operator, Chain)>,
    pub place: Place,
}

#[derive(Debug)]
pub(crate) struct Expr {
    pub base: Base,
    pub keys: Vec<Key>,
    pub place: Place,
}

#[derive(Debug)]
pub(crate) enum Base {
    Literal(Literal),
    Global(usize),
    /// A variable of the template: if it was not set yet, a counter of that name, then a global.
    Local {
        slot: Slot,
        counter: Option<Slot>,
        global: Option<usize>,
    },
    /// A loop's or a partial's variable, which is always set.
    Bound(Slot),
    /// A `forloop` or `tablerowloop`: how many loops are open around it.
    Loop(usize),
    /// A name made at run time: the variables it may mean, then the globals.
    Named {
        name: Box<Expr>,
        known: Vec<(String, Base)>,
    },
    Range(Box<Expr>, Box<Expr>),
}

#[derive(Debug)]
pub(crate) enum Key {
    Name {
        name: String,
        /// Written with a dot, so that `size`, `first` and `last` have their meaning.
        dotted: bool,
        /// Where the name was found the last time, to look there first.
        hint: AtomicU32,
    },
    Index(i64),
    Expr(Box<Expr>),
}
