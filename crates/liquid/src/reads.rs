//! What a template reads, and whether all of that exists.

use std::collections::BTreeSet;

use crate::error::{Error, ErrorKind, nearest};
use crate::expression::{Expr, Key};
use crate::source::{Place, Sources};

/// The columns a template reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Columns {
    /// These and no others.
    Set(BTreeSet<String>),
    /// Any: the row is used as a whole, or by a name only known at run time.
    All,
}

/// What a template reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reads {
    /// Of `row` and of `previous`.
    pub columns: Columns,
    pub previous: bool,
    pub changed: bool,
    /// The names that stand first, such as `row` and `op`.
    pub globals: BTreeSet<String>,
    /// The global names with their first key where that is known, such as `message.body`. A name alone: more of it may be read. `*`: any.
    pub paths: BTreeSet<String>,
    /// Whether the current time may be read, by the filter `date`.
    pub clock: bool,
    /// Whether rendering can fail for some row, values without a JSON form and the limits on steps
    /// and size aside.
    pub can_fail: bool,
}

impl Reads {
    pub(crate) fn nothing() -> Self {
        Self {
            columns: Columns::Set(BTreeSet::new()),
            previous: false,
            changed: false,
            globals: BTreeSet::new(),
            paths: BTreeSet::new(),
            clock: false,
            can_fail: false,
        }
    }
}

/// The names that exist, for [`Template::check`](crate::Template::check).
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// The global names. If one of them has entries with a dot (`sync.name`), only these members of it
    /// exist; otherwise its members are not checked.
    pub tops: &'a [&'a str],
    /// The columns of `row` and of `previous`.
    pub columns: &'a [&'a str],
}

/// One mention of a global name.
#[derive(Debug, Clone)]
pub(crate) struct Mention {
    pub name: String,
    pub place: Place,
    /// The first key, when it is known.
    pub member: Option<(String, Place, bool)>,
    /// A variable of the template may have that name too.
    pub shadowed: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Mentions {
    pub all: Vec<Mention>,
    pub reads: Reads,
    /// Names the template gives itself, for hints.
    pub own: BTreeSet<String>,
    /// Arguments of partials; one that is not given at another use is nil there.
    pub parameters: BTreeSet<String>,
}

impl Mentions {
    pub fn new() -> Self {
        Self { all: Vec::new(), reads: Reads::nothing(), own: BTreeSet::new(), parameters: BTreeSet::new() }
    }

    pub fn note(&mut self, name: &str, expr: &Expr, shadowed: bool) {
        let member = match expr.keys.first() {
            Some(Key::Dot(member, place)) => Some((member.clone(), *place, true)),
            Some(Key::Text(member, place)) => Some((member.clone(), *place, false)),
            _ => None,
        };
        self.reads.globals.insert(name.to_owned());
        self.reads.paths.insert(match &member {
            Some((member, ..)) => format!("{name}.{member}"),
            None => name.to_owned(),
        });
        match name {
            "row" | "previous" => {
                self.reads.previous |= name == "previous";
                // `row.first` is a column or the first entry; only the columns tell.
                let own = |member: &str, dotted| dotted && matches!(member, "first" | "last" | "size");
                match (&mut self.reads.columns, &member) {
                    (Columns::Set(set), Some((member, _, dotted))) if !own(member, *dotted) => {
                        set.insert(member.clone());
                    }
                    // `if previous` and the like ask only whether there is one, but it costs little
                    // to call that everything.
                    (columns, _) => *columns = Columns::All,
                }
            }
            "changed" => self.reads.changed = true,
            _ => {}
        }
        self.all.push(Mention { name: name.to_owned(), place: expr.place, member, shadowed });
    }

    /// A name made at run time may be any.
    pub fn note_any(&mut self) {
        self.reads.columns = Columns::All;
        self.reads.previous = true;
        self.reads.changed = true;
        self.reads.paths.insert("*".to_owned());
    }

    pub fn check(&self, names: &Names<'_>, sources: &Sources) -> Vec<Error> {
        let mut faults = Vec::new();
        for mention in &self.all {
            if !names.tops.contains(&mention.name.as_str()) {
                if !mention.shadowed && !self.parameters.contains(&mention.name) {
                    faults.push(self.unknown(mention, names, sources));
                }
                continue;
            }
            let Some((member, place, dotted)) = &mention.member else {
                continue;
            };
            let own = *dotted && matches!(member.as_str(), "first" | "last" | "size");
            if matches!(mention.name.as_str(), "row" | "previous") {
                if own || names.columns.contains(&member.as_str()) {
                    continue;
                }
                let message = format!("the model has no column `{member}`");
                let error = sources.error(ErrorKind::UnknownName, *place, message);
                faults.push(hint(error, nearest(member, names.columns.iter().copied())));
                continue;
            }
            let prefix = format!("{}.", mention.name);
            let known: Vec<&str> =
                names.tops.iter().filter_map(|top| top.strip_prefix(prefix.as_str())).collect();
            if !own && !known.is_empty() && !known.contains(&member.as_str()) {
                let message = format!("`{}` has no `{member}`", mention.name);
                let error = sources.error(ErrorKind::UnknownName, *place, message);
                faults.push(hint(error, nearest(member, known)));
            }
        }
        faults
    }

    fn unknown(&self, mention: &Mention, names: &Names<'_>, sources: &Sources) -> Error {
        let name = &mention.name;
        let error =
            sources.error(ErrorKind::UnknownName, mention.place, format!("nothing is named `{name}`"));
        if names.columns.contains(&name.as_str()) {
            return error.hinted(format!("the column is `row.{name}`"));
        }
        if self.own.contains(name) {
            return error.hinted("what `render` writes sees no variables but its arguments");
        }
        let tops = names.tops.iter().copied().filter(|top| !top.contains('.'));
        let found = nearest(name, tops.chain(self.own.iter().map(String::as_str)));
        match (found, nearest(name, names.columns.iter().copied())) {
            (None, Some(column)) => error.hinted(format!("did you mean `row.{column}`?")),
            (found, _) => hint(error, found),
        }
    }
}

fn hint(error: Error, known: Option<&str>) -> Error {
    match known {
        Some(known) => error.hinted(format!("did you mean `{known}`?")),
        None => error,
    }
}
