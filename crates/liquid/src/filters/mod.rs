//! The filters: one table, one function each.

mod array;
mod date;
mod encode;
mod html;
mod math;
mod text;

use crate::held::Held;
use crate::value::Globals;

/// What a filter is given besides its input.
pub(crate) struct Given<'r> {
    pub arguments: [Held<'r>; ARGUMENTS_MAX],
    pub count: usize,
    /// Of `default`.
    pub allow_false: bool,
}

impl<'r> Given<'r> {
    /// Argument `i`, unless it was left out.
    fn get(&self, i: usize) -> Option<&Held<'r>> {
        self.arguments[..self.count].get(i)
    }

    /// Argument `i`; nil is as good as none.
    fn some(&self, i: usize) -> Option<&Held<'r>> {
        self.get(i).filter(|held| !matches!(held, Held::Nil))
    }

    fn text(&self, i: usize) -> std::borrow::Cow<'_, str> {
        self.get(i).map_or("".into(), Held::text)
    }
}

/// The most positional arguments any filter takes.
pub(crate) const ARGUMENTS_MAX: usize = 2;

/// What is left of the bounds of a rendering.
pub(crate) struct Work<'r> {
    pub steps_left: u64,
    pub bytes_max: usize,
    /// Bytes of values that may be gone through before they count as steps.
    pub bytes_left: u64,
    pub lax: bool,
    pub globals: &'r dyn Globals,
}

/// Why a filter yields nothing.
#[derive(Debug)]
pub(crate) enum Refusal {
    Cannot(String),
    Arguments(String),
    TooMuch(String),
    NoJson(String),
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self::Cannot(message)
    }
}

impl Work<'_> {
    pub fn charge(&mut self, steps: usize) -> Result<(), Refusal> {
        match self.steps_left.checked_sub(steps as u64) {
            Some(left) => {
                self.steps_left = left;
                Ok(())
            }
            None => Err(Refusal::TooMuch("rendering takes too many steps".to_owned())),
        }
    }

    /// Counts going through a value: free while the values together are a few times what the result may be, steps beyond that.
    pub fn charge_bytes(&mut self, bytes: usize, bytes_per_step: usize) -> Result<(), Refusal> {
        match self.bytes_left.checked_sub(bytes as u64) {
            Some(left) => {
                self.bytes_left = left;
                Ok(())
            }
            None => self.charge(bytes / bytes_per_step),
        }
    }

    pub fn bytes(&self, bytes: usize) -> Result<(), Refusal> {
        if bytes <= self.bytes_max {
            return Ok(());
        }
        Err(Refusal::TooMuch(format!("a text gets longer than {} bytes", self.bytes_max)))
    }
}

/// A filter that always has an answer.
type Plain = for<'r> fn(&Held<'r>, &Given<'r>) -> Held<'r>;
/// A filter that may refuse, or that must count its work.
type Working = for<'r> fn(&Held<'r>, &Given<'r>, &mut Work<'_>) -> Result<Held<'r>, Refusal>;

#[derive(Clone, Copy)]
pub(crate) struct Filter(&'static Entry);

struct Entry {
    name: &'static str,
    least: usize,
    most: usize,
    can_fail: bool,
    apply: Apply,
}

enum Apply {
    Plain(Plain),
    Working(Working),
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name)
    }
}

impl Filter {
    pub fn named(name: &str) -> Option<Self> {
        TABLE.iter().find(|entry| entry.name == name).map(Self)
    }

    pub fn names() -> impl Iterator<Item = &'static str> {
        TABLE.iter().map(|entry| entry.name).chain(["raw"])
    }

    /// The least and the most positional arguments.
    pub fn arguments(self) -> (usize, usize) {
        (self.0.least, self.0.most)
    }

    pub fn named_arguments(self) -> &'static [&'static str] {
        if self.0.name == "default" { &["allow_false"] } else { &[] }
    }

    pub fn can_fail(self) -> bool {
        self.0.can_fail
    }

    pub fn apply<'r>(
        self,
        input: &Held<'r>,
        given: &Given<'r>,
        work: &mut Work<'_>,
    ) -> Result<Held<'r>, Refusal> {
        match self.0.apply {
            Apply::Plain(apply) => Ok(apply(input, given)),
            Apply::Working(apply) => apply(input, given, work),
        }
    }
}

const fn plain(name: &'static str, least: usize, most: usize, apply: Plain) -> Entry {
    Entry { name, least, most, can_fail: false, apply: Apply::Plain(apply) }
}

const fn sure(name: &'static str, least: usize, most: usize, apply: Working) -> Entry {
    Entry { name, least, most, can_fail: false, apply: Apply::Working(apply) }
}

const fn unsure(name: &'static str, least: usize, most: usize, apply: Working) -> Entry {
    Entry { name, least, most, can_fail: true, apply: Apply::Working(apply) }
}

static TABLE: &[Entry] = &[
    plain("abs", 0, 0, math::abs),
    plain("append", 1, 1, text::append),
    plain("at_least", 1, 1, math::at_least),
    plain("at_most", 1, 1, math::at_most),
    plain("base64", 0, 0, encode::base64),
    unsure("base64_decode", 0, 0, encode::base64_decode),
    plain("base64_encode", 0, 0, encode::base64),
    unsure("base64_url_safe_decode", 0, 0, encode::base64_url_safe_decode),
    plain("base64_url_safe_encode", 0, 0, encode::base64_url_safe),
    plain("capitalize", 0, 0, text::capitalize),
    unsure("ceil", 0, 0, math::ceil),
    unsure("compact", 0, 1, array::compact),
    unsure("concat", 1, 1, array::concat),
    unsure("date", 1, 1, date::date),
    plain("default", 0, 1, text::default),
    unsure("divided_by", 1, 1, math::divided_by),
    plain("downcase", 0, 0, text::downcase),
    plain("escape", 0, 0, html::escape),
    plain("escape_once", 0, 0, html::escape_once),
    unsure("find", 1, 2, array::find),
    unsure("find_index", 1, 2, array::find_index),
    plain("first", 0, 0, array::first),
    unsure("floor", 0, 0, math::floor),
    plain("h", 0, 0, html::escape),
    unsure("has", 1, 2, array::has),
    sure("hmac_sha256", 1, 1, encode::hmac_sha256),
    sure("join", 0, 1, array::join),
    unsure("json", 0, 0, encode::json),
    plain("last", 0, 0, array::last),
    plain("lstrip", 0, 0, text::lstrip),
    unsure("map", 1, 1, array::map),
    unsure("minus", 1, 1, math::minus),
    unsure("modulo", 1, 1, math::modulo),
    plain("newline_to_br", 0, 0, html::newline_to_br),
    unsure("plus", 1, 1, math::plus),
    plain("prepend", 1, 1, text::prepend),
    unsure("reject", 1, 2, array::reject),
    sure("remove", 1, 1, text::remove),
    plain("remove_first", 1, 1, text::remove_first),
    plain("remove_last", 1, 1, text::remove_last),
    sure("replace", 1, 2, text::replace),
    plain("replace_first", 1, 2, text::replace_first),
    plain("replace_last", 2, 2, text::replace_last),
    sure("reverse", 0, 0, array::reverse),
    unsure("round", 0, 1, math::round),
    plain("rstrip", 0, 0, text::rstrip),
    plain("sha256", 0, 0, encode::sha256),
    plain("size", 0, 0, array::size),
    unsure("slice", 1, 2, text::slice),
    unsure("sort", 0, 1, array::sort),
    unsure("sort_natural", 0, 1, array::sort_natural),
    sure("split", 1, 1, text::split),
    plain("squish", 0, 0, text::squish),
    plain("strip", 0, 0, text::strip),
    plain("strip_html", 0, 0, html::strip_html),
    plain("strip_newlines", 0, 0, html::strip_newlines),
    unsure("sum", 0, 1, array::sum),
    unsure("times", 1, 1, math::times),
    unsure("truncate", 0, 2, text::truncate),
    unsure("truncatewords", 0, 2, text::truncatewords),
    unsure("uniq", 0, 1, array::uniq),
    plain("upcase", 0, 0, text::upcase),
    unsure("url_decode", 0, 0, encode::url_decode),
    plain("url_encode", 0, 0, encode::url_encode),
    unsure("where", 1, 2, array::where_),
];

/// A whole number given as an argument: a number without fraction, or text that spells one.
pub(crate) fn integer(held: &Held<'_>) -> Result<i64, Refusal> {
    let int = match held {
        Held::Int(int) => i64::try_from(*int).ok(),
        Held::Str(text) => text.trim().parse().ok(),
        _ => None,
    };
    int.ok_or_else(|| {
        let text = held.text();
        let shown: String = text.chars().take(40).collect();
        Refusal::Arguments(format!("{shown:?} is no whole number"))
    })
}
