//! Where each output of a JSON template stands: inside a string, as a value, or as a name.
//!
//! The template's blocks are walked as a program would run them, with [`State`] for memory. Branches
//! are walked one by one and joined; a loop's body until nothing new comes of it. While a loop is
//! still growing, faults are not yet faults, so they are only noted on the last walk.

use crate::error::{Error, ErrorKind};
use crate::expression::Literal;
use crate::grammar::{Lexical, Role, State};
use crate::source::{Place, Sources};
use crate::syntax::{Arm, Block, Loop, LoopKind, Mode, Node, Partial};

/// Bytes of text and nodes walked, each for every way that leads to it, until loops are walked once
/// only. Without it loops within loops would take exponential time.
const WORK_MAX: usize = 4 << 20;
/// Walks of a loop's body until the configurations are given up.
const WALKS_MAX: usize = 8;

/// Sets the mode of every output of `block`, and tells whether the result is proven to be JSON, so
/// that it need not be checked.
pub(crate) fn place_outputs(block: &mut Block, sources: &Sources, end: Place) -> Result<bool, Vec<Error>> {
    let mut walk =
        Walk { sources, faults: Vec::new(), loops: Vec::new(), quiet: 0, texts: 0, ended: None, work: 0 };
    let mut flow = Some(State::start());
    walk.block(block, &mut flow);
    let ended = walk.ended.take();
    walk.join(&mut flow, ended, end, end);
    let mut proven = false;
    if let Some(mut state) = flow {
        if let Err(missing) = state.finish() {
            let message = format!("the message is not whole at its end: {missing} is missing");
            walk.fault(ErrorKind::InvalidJson, end, message);
        }
        proven = state.proven;
    }
    if walk.faults.is_empty() { Ok(proven) } else { Err(walk.faults) }
}

/// The state at the current place, or `None` where the template never comes.
type Flow = Option<State>;

struct Walk<'s> {
    sources: &'s Sources,
    faults: Vec<Error>,
    loops: Vec<Exits>,
    /// Above zero while a loop's body is walked for its states only.
    quiet: usize,
    /// Open `capture`s, whose bodies are plain text.
    texts: usize,
    /// The states of `break`s outside of loops, which end the template or the partial.
    ended: Flow,
    work: usize,
}

#[derive(Default)]
struct Exits {
    broken: Flow,
    continued: Flow,
}

impl Walk<'_> {
    fn fault(&mut self, kind: ErrorKind, place: Place, message: impl Into<String>) {
        self.fault_hinted(kind, place, message, None);
    }

    fn fault_hinted(
        &mut self,
        kind: ErrorKind,
        place: Place,
        message: impl Into<String>,
        hint: Option<&str>,
    ) {
        if self.quiet > 0 {
            return;
        }
        let error = self.sources.error(kind, place, message);
        self.faults.push(match hint {
            Some(hint) => error.hinted(hint),
            None => error,
        });
    }

    fn block(&mut self, block: &mut Block, flow: &mut Flow) {
        for node in block {
            self.work = self.work.saturating_add(1);
            self.node(node, flow);
        }
    }

    fn node(&mut self, node: &mut Node, flow: &mut Flow) {
        match node {
            Node::Text { text, place } => self.text(text, *place, flow),
            Node::Output { raw, mode, place, .. } => {
                if *raw && self.texts == 0 {
                    // Nobody knows what it will be; by agreement it leaves strings as they are.
                    *mode = Mode::Text;
                    flow.iter_mut().for_each(State::give_up);
                } else {
                    *mode = if *raw { Mode::Text } else { self.output(*place, flow) };
                }
            }
            Node::Assign { .. } => {}
            Node::Capture { body, .. } => {
                self.texts += 1;
                self.block(body, flow);
                self.texts -= 1;
            }
            Node::If { branches, place } => {
                let mut after = None;
                let mut first = None;
                let mut complete = false;
                for branch in branches {
                    let mut way = flow.clone();
                    self.block(&mut branch.body, &mut way);
                    complete |= branch.test.is_none();
                    let seen = *first.get_or_insert(branch.place);
                    self.join(&mut after, way, branch.place, seen);
                }
                if !complete {
                    let seen = first.unwrap_or(*place);
                    let taken = after.take();
                    after = flow.take();
                    self.join(&mut after, taken, seen, seen);
                }
                *flow = after;
            }
            Node::Case { arms, place, .. } => self.case(arms, *place, flow),
            Node::Loop(looped) => self.looped(looped, flow),
            Node::Cycle { mode, place, .. } | Node::Counter { mode, place, .. } => {
                *mode = self.output(*place, flow);
            }
            Node::IfChanged { body, place } => {
                let mut way = flow.clone();
                self.block(body, &mut way);
                self.join(flow, way, *place, *place);
            }
            Node::Partial(partial) => self.partial(partial, flow),
            Node::Break { place } => {
                let state = flow.take();
                let mut target = match self.loops.last_mut() {
                    Some(exits) => exits.broken.take(),
                    None => self.ended.take(),
                };
                self.join(&mut target, state, *place, *place);
                match self.loops.last_mut() {
                    Some(exits) => exits.broken = target,
                    None => self.ended = target,
                }
            }
            Node::Continue { place } => {
                let state = flow.take();
                let mut target = match self.loops.last_mut() {
                    Some(exits) => exits.continued.take(),
                    None => self.ended.take(),
                };
                self.join(&mut target, state, *place, *place);
                match self.loops.last_mut() {
                    Some(exits) => exits.continued = target,
                    None => self.ended = target,
                }
            }
        }
    }

    fn text(&mut self, text: &str, place: Place, flow: &mut Flow) {
        let Some(state) = flow.as_mut().filter(|_| self.texts == 0) else {
            return;
        };
        self.work = self.work.saturating_add(text.len().saturating_mul(state.ways()));
        if self.work > WORK_MAX {
            state.give_up();
        }
        if let Err((offset, expected)) = state.text(text) {
            let found = text[offset..].chars().next().unwrap_or(' ');
            let message = format!("{found:?} makes this no JSON: expected {expected}");
            let hint = match found {
                '\'' => Some("JSON quotes with \""),
                ',' => None,
                c if c.is_alphabetic() => Some("text needs quotes; set `format: text` when this is no JSON"),
                _ => None,
            };
            self.fault_hinted(ErrorKind::InvalidJson, place.plus(offset), message, hint);
        }
    }

    /// The mode of something that writes one value here.
    fn output(&mut self, place: Place, flow: &mut Flow) -> Mode {
        if self.texts > 0 {
            return Mode::Text;
        }
        let Some(state) = flow else {
            return Mode::Value;
        };
        let role = state.role();
        let wanted = state.wanted();
        state.output();
        match role {
            Role::InString => Mode::InString,
            Role::Value => Mode::Value,
            Role::Name => Mode::Key,
            Role::Unclear => {
                let message = "this output is the name of a member on some ways and a value on others";
                self.fault(ErrorKind::JsonPlace, place, message);
                Mode::Value
            }
            Role::InEscape => {
                let message = "an output cannot stand behind a backslash";
                self.fault(ErrorKind::JsonPlace, place, message);
                Mode::InString
            }
            Role::Misplaced => {
                let message = format!("an output cannot stand here: expected {wanted}");
                let hint =
                    "an output outside quotes writes one whole JSON value; to join texts put them in quotes";
                self.fault_hinted(ErrorKind::InvalidJson, place, message, Some(hint));
                Mode::Value
            }
        }
    }

    /// Joins `way` into `flow`. `here` began the way, `there` the ones before.
    fn join(&mut self, flow: &mut Flow, way: Flow, here: Place, there: Place) {
        let Some(way) = way else { return };
        let Some(state) = flow else {
            *flow = Some(way);
            return;
        };
        if state.lexical == way.lexical {
            state.join(&way);
            return;
        }
        state.give_up();
        let here_inside = way.lexical != Lexical::Outside;
        let there_inside = state.lexical != Lexical::Outside;
        // One way may be that the tag at `here` is passed over: there is nothing else to name then.
        let other = if here == there {
            "without it".to_owned()
        } else {
            format!("after {}", self.sources.spell(there, here))
        };
        let message = format!(
            "the branches disagree whether what follows stands inside a JSON string: it stands {} after {}, \
             and {} {other}",
            if here_inside { "inside" } else { "outside" },
            self.sources.spell(here, here),
            if there_inside { "inside" } else { "outside" },
        );
        self.fault_hinted(
            ErrorKind::JsonPlace,
            here,
            message,
            Some("open and close each quote in the same branch"),
        );
    }

    fn case(&mut self, arms: &mut [Arm], place: Place, flow: &mut Flow) {
        if exclusive(arms) {
            let mut after = None;
            let mut complete = false;
            for arm in arms {
                let mut way = flow.clone();
                self.block(&mut arm.body, &mut way);
                complete |= arm.values.is_none();
                self.join(&mut after, way, arm.place, place);
            }
            if !complete {
                let without = flow.take();
                self.join(&mut after, without, place, place);
            }
            *flow = after;
            return;
        }
        // Every arm that matches is run, in order.
        for arm in arms {
            let mut way = flow.clone();
            self.block(&mut arm.body, &mut way);
            self.join(flow, way, arm.place, place);
        }
    }

    fn looped(&mut self, looped: &mut Loop, flow: &mut Flow) {
        let place = looped.place;
        if let LoopKind::TableRow { mode, .. } = &mut looped.kind {
            *mode = Mode::Text;
            if let Some(state) = flow.as_mut().filter(|_| self.texts == 0) {
                if state.lexical == Lexical::String {
                    *mode = Mode::InString;
                } else {
                    let message = "`tablerow` writes HTML, which is no JSON";
                    let hint = "put it inside a JSON string, or capture it and output the variable";
                    self.fault_hinted(ErrorKind::InvalidJson, place, message, Some(hint));
                }
            }
        }
        let entry = flow.clone();
        let after = self.repeat(&mut looped.body, entry, place);
        match &mut looped.otherwise {
            // With `else`, an empty loop goes there; a loop that ran comes out of its body.
            Some(otherwise) => {
                self.block(otherwise, flow);
                self.join(flow, after, place, place);
            }
            None => self.join(flow, after, place, place),
        }
    }

    /// Walks a body as often as it may be run, from `entry`; returns the state after it has run.
    fn repeat(&mut self, body: &mut Block, entry: Flow, place: Place) -> Flow {
        let mut head = entry;
        let mut walks = 0;
        self.quiet += 1;
        loop {
            if walks == WALKS_MAX || self.work > WORK_MAX {
                // It opens a container each time round, or the like.
                head.iter_mut().for_each(State::give_up);
                break;
            }
            let (end, _) = self.once(body, head.clone(), place);
            let mut next = head.clone();
            self.join(&mut next, end, place, place);
            walks += 1;
            if next == head {
                break;
            }
            head = next;
        }
        self.quiet -= 1;
        // Once more, with faults: every state that can come about is in `head` now.
        let before = head.as_ref().map(|state| state.lexical);
        let (mut end, broken) = self.once(body, head, place);
        if let (Some(before), Some(state)) = (before, &end)
            && before != state.lexical
        {
            let (was, is) =
                if before == Lexical::Outside { ("outside", "inside") } else { ("inside", "outside") };
            let message = format!("the body of this loop begins {was} a JSON string and ends {is} one");
            let hint = Some("open and close each quote in the same round");
            self.fault_hinted(ErrorKind::JsonPlace, place, message, hint);
            return end;
        }
        self.join(&mut end, broken, place, place);
        end
    }

    /// The states at the end of one round, and those that broke out of it.
    fn once(&mut self, body: &mut Block, head: Flow, place: Place) -> (Flow, Flow) {
        self.loops.push(Exits::default());
        let mut flow = head;
        self.block(body, &mut flow);
        let exits = self.loops.pop().unwrap_or_default();
        self.join(&mut flow, exits.continued, place, place);
        (flow, exits.broken)
    }

    fn partial(&mut self, partial: &mut Partial, flow: &mut Flow) {
        let place = partial.place;
        if partial.each {
            let entry = flow.clone();
            let after = self.repeat(&mut partial.body, entry, place);
            self.join(flow, after, place, place);
            return;
        }
        if !partial.isolated {
            self.block(&mut partial.body, flow);
            return;
        }
        // A `break` in a partial of `render` ends that partial.
        let ended = self.ended.take();
        let loops = std::mem::take(&mut self.loops);
        self.block(&mut partial.body, flow);
        self.loops = loops;
        let inner = std::mem::replace(&mut self.ended, ended);
        self.join(flow, inner, place, place);
    }
}

/// Whether at most one arm can match: all values are different literals, and `else` comes last.
pub(crate) fn exclusive(arms: &[Arm]) -> bool {
    let mut seen: Vec<&Literal> = Vec::new();
    for (i, arm) in arms.iter().enumerate() {
        let Some(values) = &arm.values else {
            if i + 1 < arms.len() {
                return false;
            }
            continue;
        };
        for value in values {
            match value.literal() {
                Some(literal @ (Literal::Str(_) | Literal::Int(_) | Literal::Bool(_) | Literal::Nil))
                    if !seen.contains(&literal) =>
                {
                    seen.push(literal);
                }
                _ => return false,
            }
        }
    }
    true
}
