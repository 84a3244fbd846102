//! The functions that expressions may call: jq's, as far as they need nothing but their input.
//!
//! Left out on purpose, each with the way out told when it is called: what reads the environment (`env`, `$ENV`, which may hold
//! secrets), other inputs (`input`, `inputs`), the machine's time zone (`localtime`, `strflocaltime`), modules, and what writes or
//! ends the program (`debug`, `stderr`, `halt`). `now` is the moment the message was received, so that a run that is repeated finds
//! what it found before.

use std::sync::LazyLock;

use jaq_core::box_iter::{BoxIter, box_once};
use jaq_core::load::parse::Def;
use jaq_core::native::{Fun, bome, run, unary, v};
use jaq_core::{DataT, Error, Exn, RunPtr, ValR, ValX};

use super::meter;
use super::number::Number;
use super::operators::positions;
use super::value::Val;
use super::{Data, Evaluation};

/// Functions of the libraries that are not taken, or that are replaced here.
const WITHOUT: [&str; 14] = [
    "env",
    "now",
    "halt",
    "halt_error",
    "debug",
    "stderr",
    "debug_empty",
    "stderr_empty",
    "localtime",
    "strflocaltime",
    "range",
    "isnan",
    "join",
    "input_line_number",
];

/// What a person may have meant by a name that does not exist: the name, and the way out.
const HINTS: [(&str, &str); 12] = [
    ("env", "expressions do not see the environment; write `${NAME}` in the configuration instead"),
    ("$ENV", "expressions do not see the environment; write `${NAME}` in the configuration instead"),
    ("input", "a step has one input, which is `.`"),
    ("inputs", "a step has one input, which is `.`"),
    ("debug", "use a `log` step"),
    ("stderr", "use a `log` step"),
    ("halt", "use a `fail` or a `filter` step"),
    ("halt_error", "use a `fail` step"),
    ("localtime", "times are UTC: use `gmtime`"),
    ("strflocaltime", "times are UTC: use `strftime`"),
    ("$steps", "`$steps` holds the results of earlier steps by their `id`"),
    ("$__prog_args", "expressions have no arguments"),
];

/// jq's functions that the libraries lack, and those that are made of replaced ones.
const OWN: &str = r#"
def range(from; to): range(from; to; 1);
def totype(p; e): if p then . else fromjson | if p then . else e end end;
def tonumber: totype(isnumber; error("cannot parse as number"));
def toboolean: totype(isboolean; error("cannot parse as boolean"));
def toarray: if isarray then . else [.] end;
def transpose: [range(0; [.[] | length] | max // 0; 1) as $i | [.[][$i]]];
def in(xs): . as $x | xs | has($x);
def inside(xs): . as $x | xs | contains($x);
def index($i): indices($i)[0];
def rindex($i): indices($i)[-1];
def trimstr($x): ltrimstr($x) | rtrimstr($x);
def ascii: [.] | implode;
def @json: tojson;
def @csv: [.[] | if isstring then "\"" + (. / "\"" | join("\"\"")) + "\"" elif . == null then "" elif isarray or isobject then error("\(tojson) is not valid in a csv row") else tostring end] | join(",");
def @tsv: [.[] | if isstring then (. / "\\" | join("\\\\")) / "\t" | join("\\t") | . / "\n" | join("\\n") | . / "\r" | join("\\r") elif . == null then "" elif isarray or isobject then error("\(tojson) is not valid in a tsv row") else tostring end] | join("\t");
"#;

/// The definitions of the prelude.
pub fn definitions() -> impl Iterator<Item = Def<&'static str>> {
    let own = jaq_core::load::parse(OWN, |parser| parser.defs()).unwrap_or_default();
    jaq_core::defs()
        .chain(jaq_std::defs())
        .filter(|def| !WITHOUT.contains(&def.name) || is_general(def))
        .chain(own)
}

/// `range` with one and two arguments is made of the one with three.
fn is_general(def: &Def<&'static str>) -> bool {
    def.name == "range" && def.args.len() < 3
}

/// The native functions.
pub fn functions() -> impl Iterator<Item = Fun<Evaluation>> {
    let library = jaq_core::funs().chain(jaq_std::funs());
    library.filter(|(name, ..)| !WITHOUT.contains(name)).chain(own().into_iter().map(run::<Evaluation>))
}

/// The way out for a name that does not exist.
pub fn hint(name: &str) -> Option<&'static str> {
    HINTS.iter().find(|(known, _)| *known == name).map(|(_, hint)| *hint)
}

/// The names of all functions.
pub fn names() -> &'static [String] {
    static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
        let mut names: Vec<String> = definitions()
            .map(|def| def.name.to_owned())
            .chain(functions().map(|(name, ..)| name.to_owned()))
            .filter(|name| !name.ends_with('_') && !name.ends_with("_empty") && !name.starts_with('!'))
            .collect();
        names.sort();
        names.dedup();
        names
    });
    &NAMES
}

fn own() -> Vec<jaq_core::native::Filter<RunPtr<Evaluation>>> {
    vec![
        ("now", v(0), |cv| {
            let data: &Data<'_> = cv.0.data();
            let now = data.now_ms;
            bome(Ok(if now % 1000 == 0 { Val::int(now / 1000) } else { Val::from(now as f64 / 1000.0) }))
        }),
        ("isnan", v(0), |cv| match &cv.1 {
            Val::Num(number) => bome(Ok(Val::Bool(number.as_f64().is_nan()))),
            other => bome(Err(Error::typ(other.clone(), "number"))),
        }),
        ("range", v(3), |mut cv| {
            let by = cv.0.pop_var();
            let to = cv.0.pop_var();
            let from = cv.0.pop_var();
            range(&from, &to, &by)
        }),
        ("join", v(1), |cv| unary(cv, |list, separator| join(&list, &separator))),
        ("fromjson", v(0), |cv| bome(from_json(&cv.1))),
        ("tojson", v(0), |cv| bome(Ok(Val::text(cv.1.json_text())))),
        ("length", v(0), |cv| bome(length(&cv.1))),
        ("contains", v(1), |cv| unary(cv, |value, part| Ok(Val::Bool(holds(&value, &part))))),
        ("has", v(1), |cv| unary(cv, |value, key| has(&value, &key))),
        ("indices", v(1), |cv| unary(cv, |value, part| indices(&value, &part))),
        ("bsearch", v(1), |cv| unary(cv, |value, item| bsearch(&value, &item))),
    ]
}

/// As jq's, but each number is a step: endless ones end with the meter.
fn range<'a>(from: &Val, to: &Val, by: &Val) -> BoxIter<'a, ValX<'a, Val>> {
    let number = |value: &Val| match value {
        Val::Num(number) => Ok(number.clone()),
        other => Err(Error::typ(other.clone(), "number")),
    };
    let (mut next, to, by) = match (number(from), number(to), number(by)) {
        (Ok(from), Ok(to), Ok(by)) => (from, to, by),
        (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => {
            return box_once(Err(Exn::from(error)));
        }
    };
    let zero = Number::Int(0);
    Box::new(std::iter::from_fn(move || {
        meter::step();
        let within = match by.cmp(&zero) {
            std::cmp::Ordering::Greater => next < to,
            std::cmp::Ordering::Less => next > to,
            std::cmp::Ordering::Equal => next != to,
        };
        within.then(|| {
            let after = next.compute(&by, i64::checked_add, |one, two| one + two);
            Ok(Val::Num(std::mem::replace(&mut next, after)))
        })
    }))
}

fn join(list: &Val, separator: &Val) -> ValR<Val> {
    let Val::Arr(list) = list else { return Err(Error::typ(list.clone(), "array")) };
    let separator = match separator {
        Val::Str(text) => text.as_str(),
        Val::Null => "",
        other => return Err(Error::typ(other.clone(), "string")),
    };
    let mut joined = String::new();
    for (index, item) in list.items.iter().enumerate() {
        if index > 0 {
            joined.push_str(separator);
        }
        match item {
            Val::Null => {}
            Val::Str(text) => joined.push_str(text),
            Val::Bool(_) | Val::Num(_) => item.write(&mut joined, usize::MAX),
            Val::Arr(_) | Val::Obj(_) => return Err(Error::typ(item.clone(), "part of a text")),
        }
        meter::charge(separator.len() + 16);
    }
    Ok(Val::text(joined))
}

fn from_json(value: &Val) -> ValR<Val> {
    let Val::Str(text) = value else { return Err(Error::typ(value.clone(), "string")) };
    match serde_json::from_str(text) {
        Ok(json) => Ok(Val::of_json(&json)),
        Err(error) => Err(Error::str(format!("{value} cannot be parsed as JSON: {error}"))),
    }
}

fn length(value: &Val) -> ValR<Val> {
    Ok(match value {
        Val::Null => Val::int(0),
        Val::Bool(_) => return Err(Error::str(format!("{value} has no length"))),
        Val::Num(Number::Int(number)) => {
            number.checked_abs().map_or_else(|| Val::from((*number as f64).abs()), Val::int)
        }
        Val::Num(number) => Val::from(number.as_f64().abs()),
        Val::Str(text) => Val::from(text.chars().count()),
        Val::Arr(list) => Val::from(list.items.len()),
        Val::Obj(object) => Val::from(object.entries.len()),
    })
}

/// Whether a value holds another in each of its parts.
fn holds(value: &Val, part: &Val) -> bool {
    meter::step();
    match (value, part) {
        (Val::Str(text), Val::Str(part)) => text.contains(part.as_str()),
        (Val::Arr(list), Val::Arr(parts)) => {
            parts.items.iter().all(|part| list.items.iter().any(|item| holds(item, part)))
        }
        (Val::Obj(object), Val::Obj(parts)) => parts
            .entries
            .iter()
            .all(|(name, part)| object.entries.get(name).is_some_and(|value| holds(value, part))),
        (value, part) => value == part,
    }
}

fn has(value: &Val, key: &Val) -> ValR<Val> {
    match (value, key) {
        (Val::Obj(_), Val::Str(_)) | (Val::Arr(_), Val::Num(_)) => {
            let negative = matches!(key, Val::Num(number) if number.as_f64() < 0.0);
            Ok(Val::Bool(!negative && value.clone().at(key)?.is_some()))
        }
        _ => Err(Error::index(value.clone(), key.clone())),
    }
}

fn indices(value: &Val, part: &Val) -> ValR<Val> {
    match (value, part) {
        (Val::Null, _) => Ok(Val::Null),
        (Val::Str(_), Val::Str(part)) if part.is_empty() => Ok(Val::Null),
        (Val::Str(text), Val::Str(part)) => {
            let mut found = Vec::new();
            for (nth, (at, _)) in text.char_indices().enumerate() {
                meter::step();
                if text[at..].starts_with(part.as_str()) {
                    found.push(Val::from(nth));
                }
            }
            Ok(Val::list(found))
        }
        (Val::Arr(list), Val::Arr(part)) => Ok(positions(list, part)),
        (Val::Arr(list), item) => {
            let found = list.items.iter().enumerate().filter(|(_, other)| *other == item);
            Ok(found.map(|(index, _)| Val::from(index)).collect())
        }
        _ => Err(Error::index(value.clone(), part.clone())),
    }
}

fn bsearch(value: &Val, item: &Val) -> ValR<Val> {
    let Val::Arr(list) = value else { return Err(Error::typ(value.clone(), "array")) };
    Ok(match list.items.binary_search(item) {
        Ok(at) => Val::from(at),
        Err(at) => Val::int(-1 - at as i64),
    })
}

/// The interpreter's word for what evaluations are made of.
const _: fn() = || {
    fn is_data<D: DataT>() {}
    is_data::<Evaluation>();
};
