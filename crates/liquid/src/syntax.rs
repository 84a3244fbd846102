//! A template as it was written: blocks of nodes. Partials stand where they are used.

use crate::expression::{Call, Conditions, Expr, Filtered};
use crate::source::Place;

pub(crate) type Block = Vec<Node>;

#[derive(Debug)]
pub(crate) enum Node {
    Text { text: String, place: Place },
    Output { value: Filtered, raw: bool, mode: Mode, place: Place },
    Assign { name: String, value: Filtered, place: Place },
    Capture { name: String, body: Block, place: Place },
    If { branches: Vec<Branch>, place: Place },
    Case { subject: Expr, arms: Vec<Arm>, place: Place },
    Loop(Box<Loop>),
    Cycle { group: Option<Filtered>, items: Vec<Expr>, site: String, mode: Mode, place: Place },
    Counter { name: String, step: i8, mode: Mode, place: Place },
    IfChanged { body: Block, place: Place },
    Partial(Box<Partial>),
    Break { place: Place },
    Continue { place: Place },
}

/// How an output is written; decided by where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As the reference writes it.
    Text,
    /// Text, escaped for the inside of a JSON string.
    InString,
    /// One JSON value.
    Value,
    /// Text as a JSON string with its quotes: the name of a member.
    Key,
}

#[derive(Debug)]
pub(crate) struct Branch {
    /// `None` is `else`.
    pub test: Option<Conditions>,
    /// `unless`
    pub negated: bool,
    pub body: Block,
    pub place: Place,
}

#[derive(Debug)]
pub(crate) struct Arm {
    /// `None` is `else`.
    pub values: Option<Vec<Expr>>,
    pub body: Block,
    pub place: Place,
}

#[derive(Debug)]
pub(crate) struct Loop {
    pub kind: LoopKind,
    pub variable: String,
    pub items: Expr,
    pub reversed: bool,
    pub limit: Option<Expr>,
    pub offset: Option<Offset>,
    pub body: Block,
    pub otherwise: Option<Block>,
    /// What `offset: continue` goes by: variable and collection as written.
    pub name: String,
    pub place: Place,
}

#[derive(Debug)]
pub(crate) enum LoopKind {
    For,
    /// How the HTML of the table is written, and the number of columns.
    TableRow {
        columns: Option<Expr>,
        mode: Mode,
    },
}

#[derive(Debug)]
pub(crate) enum Offset {
    At(Expr),
    Continue,
}

#[derive(Debug)]
pub(crate) struct Partial {
    /// `render` has a scope of its own; `include` shares the one it stands in.
    pub isolated: bool,
    /// The variable of `with` or `for`, and its value.
    pub bound: Option<(String, Expr)>,
    /// `for` (and `include … with` an array): once for each item.
    pub each: bool,
    pub arguments: Vec<(String, Expr)>,
    pub body: Block,
    pub place: Place,
}

/// Whether a block leaves no trace but assignments; its white space is then not written either.
pub(crate) fn is_blank(block: &Block) -> bool {
    block.iter().all(|node| match node {
        Node::Text { text, .. } => text.chars().all(crate::scan::is_space),
        Node::Assign { .. } | Node::Capture { .. } => true,
        Node::If { branches, .. } => branches.iter().all(|branch| is_blank(&branch.body)),
        Node::Case { arms, .. } => arms.iter().all(|arm| is_blank(&arm.body)),
        Node::Loop(inner) => {
            matches!(inner.kind, LoopKind::For)
                && is_blank(&inner.body)
                && inner.otherwise.as_ref().is_none_or(is_blank)
        }
        Node::IfChanged { body, .. } => is_blank(body),
        Node::Output { .. }
        | Node::Cycle { .. }
        | Node::Counter { .. }
        | Node::Partial(_)
        | Node::Break { .. }
        | Node::Continue { .. } => false,
    })
}

pub(crate) fn drop_texts(block: &mut Block) {
    block.retain(|node| !matches!(node, Node::Text { .. }));
}

/// The last filter of an output may be `raw`, which is no filter but a way of writing.
pub(crate) fn take_raw(filters: &mut Vec<Call>) -> bool {
    let raw = filters.last().is_some_and(|call| call.name == "raw");
    if raw {
        filters.pop();
    }
    raw
}
