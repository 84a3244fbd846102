//! Loops while they run.

use std::rc::Rc;

use super::{Machine, Outcome, html};
use crate::held::Held;
use crate::list;
use crate::number::Number;
use crate::program::{Expr, Looped};
use crate::source::Place;

pub(super) struct Rounds<'r> {
    items: Items<'r>,
    /// Where the item of the round is put.
    pub slot: usize,
    /// Of the first item gone through.
    pub from: usize,
    pub len: usize,
    pub round: usize,
    reversed: bool,
    /// Columns of a `tablerow`; 0 otherwise.
    pub columns: usize,
}

enum Items<'r> {
    Of(Held<'r>),
    Pairs(Vec<(Rc<str>, Held<'r>)>),
}

impl<'r> Rounds<'r> {
    pub(super) fn item(&self) -> Held<'r> {
        let i = self.from + if self.reversed { self.len - 1 - self.round } else { self.round };
        match &self.items {
            Items::Of(held) => list::at(held, i),
            Items::Pairs(pairs) => {
                pairs.get(i).map_or(Held::Nil, |(name, value)| list::pair(name.clone(), value.clone()))
            }
        }
    }

    pub(super) fn member(&self, name: &str) -> Held<'r> {
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
    /// Sets a loop up; false when there is nothing to go through.
    pub(super) fn begin(&mut self, looped: &'r Looped, place: Place, out: &mut Vec<u8>) -> Outcome<bool> {
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
    pub(super) fn turn(&mut self, place: Place) -> Outcome<()> {
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
}

/// `forloop` as a whole.
pub(super) fn loop_object<'r>(rounds: &Rounds<'r>) -> Held<'r> {
    let names = ["length", "index", "index0", "rindex", "rindex0", "first", "last"];
    let entries = names.iter().map(|name| (Rc::from(*name), rounds.member(name)));
    Held::Map(Rc::new(entries.collect()))
}
