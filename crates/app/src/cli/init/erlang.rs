//! Erlang terms as they stand in an old `rabbitmq.config`: atoms, texts, numbers, binaries, tuples and lists. No functions, no records.

use std::iter::Peekable;
use std::str::Chars;

/// Lists within lists; a configuration has a handful.
const DEPTH_MAX: usize = 64;

/// A term.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Term {
    /// `atom` or `'an atom'`
    Atom(String),
    /// `"text"` or `<<"text">>`
    Text(String),
    /// `42`, `16#ff`, `-1`
    Number(i64),
    /// `1.5`
    Fraction(f64),
    /// `{a, b}`
    Tuple(Vec<Term>),
    /// `[a, b]`
    List(Vec<Term>),
}

/// What is wrong, and in which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) line: usize,
    pub(super) why: String,
}

/// Reads the one term of a configuration, with the full stop behind it.
pub(super) fn parse(text: &str) -> Result<Term, Unreadable> {
    let mut reader = Reader { chars: text.chars().peekable(), line: 1 };
    let term = reader.term(0)?;
    reader.skip();
    match reader.next() {
        Some('.') => {}
        _ => return Err(reader.wrong("a full stop is missing at the end")),
    }
    reader.skip();
    match reader.peek() {
        None => Ok(term),
        Some(_) => Err(reader.wrong("something stands behind the full stop")),
    }
}

struct Reader<'t> {
    chars: Peekable<Chars<'t>>,
    line: usize,
}

impl Reader<'_> {
    fn peek(&mut self) -> Option<char> {
        self.chars.peek().copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.chars.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    fn wrong(&self, why: impl Into<String>) -> Unreadable {
        Unreadable { line: self.line, why: why.into() }
    }

    /// White space and comments.
    fn skip(&mut self) {
        while let Some(next) = self.peek() {
            if next == '%' {
                while self.peek().is_some_and(|next| next != '\n') {
                    self.next();
                }
            } else if next.is_whitespace() {
                self.next();
            } else {
                return;
            }
        }
    }

    fn term(&mut self, depth: usize) -> Result<Term, Unreadable> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("lists and tuples are nested too deeply"));
        }
        self.skip();
        match self.peek() {
            Some('[') => self.items(']', depth).map(Term::List),
            Some('{') => self.items('}', depth).map(Term::Tuple),
            Some('"') => self.text(),
            Some('<') => self.binary(),
            Some('\'') => self.quoted('\'').map(Term::Atom),
            Some('-' | '+' | '$' | '0'..='9') => self.number(),
            Some(first) if first.is_lowercase() => Ok(Term::Atom(self.word())),
            Some(other) => Err(self.wrong(format!("`{other}` begins no term"))),
            None => Err(self.wrong("a term is missing")),
        }
    }

    fn items(&mut self, end: char, depth: usize) -> Result<Vec<Term>, Unreadable> {
        self.next();
        let mut items = Vec::new();
        self.skip();
        if self.peek() == Some(end) {
            self.next();
            return Ok(items);
        }
        loop {
            items.push(self.term(depth + 1)?);
            self.skip();
            match self.next() {
                Some(',') => {}
                Some(next) if next == end => return Ok(items),
                Some(other) => {
                    return Err(self.wrong(format!("a comma or `{end}` is missing before `{other}`")));
                }
                None => return Err(self.wrong(format!("`{end}` is missing"))),
            }
        }
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(next) = self.peek().filter(|next| next.is_alphanumeric() || matches!(next, '_' | '@'))
        {
            word.push(next);
            self.next();
        }
        word
    }

    /// Texts side by side are one.
    fn text(&mut self) -> Result<Term, Unreadable> {
        let mut text = String::new();
        while self.peek() == Some('"') {
            text.push_str(&self.quoted('"')?);
            self.skip();
        }
        Ok(Term::Text(text))
    }

    fn binary(&mut self) -> Result<Term, Unreadable> {
        self.next();
        if self.next() != Some('<') {
            return Err(self.wrong("`<` begins no term"));
        }
        self.skip();
        let mut bytes = Vec::new();
        while let Some(next) = self.peek().filter(|next| *next != '>') {
            if next == '"' {
                bytes.extend(self.quoted('"')?.into_bytes());
            } else {
                match self.number()? {
                    Term::Number(byte @ 0..=255) => bytes.push(byte as u8),
                    _ => return Err(self.wrong("a binary holds bytes")),
                }
            }
            self.skip();
            if self.peek() == Some('/') {
                while self.peek().is_some_and(|next| !matches!(next, ',' | '>' | '\n')) {
                    self.next(); // a type such as `/utf8`
                }
            }
            if self.peek() == Some(',') {
                self.next();
            }
            self.skip();
        }
        match (self.next(), self.next()) {
            (Some('>'), Some('>')) => String::from_utf8(bytes)
                .map(Term::Text)
                .map_err(|_| self.wrong("a binary is no text in UTF-8")),
            _ => Err(self.wrong("`>>` is missing")),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, Unreadable> {
        self.next();
        let begun = self.line;
        let mut text = String::new();
        loop {
            match self.next() {
                Some(next) if next == quote => return Ok(text),
                Some('\\') => text.push(self.escaped()?),
                Some(next) => text.push(next),
                None => {
                    return Err(Unreadable { line: begun, why: format!("the closing `{quote}` is missing") });
                }
            }
        }
    }

    fn escaped(&mut self) -> Result<char, Unreadable> {
        Ok(match self.next() {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('s') => ' ',
            Some('b') => '\u{8}',
            Some('d') => '\u{7f}',
            Some('e') => '\u{1b}',
            Some('f') => '\u{c}',
            Some('v') => '\u{b}',
            Some('x') => return self.hexadecimal(),
            Some(first @ '0'..='7') => {
                let mut code = first.to_digit(8).unwrap_or_default();
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|next| next.to_digit(8)) else { break };
                    code = code * 8 + digit;
                    self.next();
                }
                char::from_u32(code).ok_or_else(|| self.wrong("an escape names no character"))?
            }
            Some(other) => other,
            None => return Err(self.wrong("an escape has no end")),
        })
    }

    fn hexadecimal(&mut self) -> Result<char, Unreadable> {
        let braced = self.peek() == Some('{');
        if braced {
            self.next();
        }
        let mut code = 0_u32;
        let mut digits = 0;
        while let Some(digit) = self.peek().and_then(|next| next.to_digit(16)) {
            if digits == if braced { 6 } else { 2 } {
                break;
            }
            code = code * 16 + digit;
            digits += 1;
            self.next();
        }
        if braced && self.next() != Some('}') {
            return Err(self.wrong("an escape has no end"));
        }
        char::from_u32(code).filter(|_| digits > 0).ok_or_else(|| self.wrong("an escape names no character"))
    }

    fn number(&mut self) -> Result<Term, Unreadable> {
        if self.peek() == Some('$') {
            self.next();
            let character = match self.next() {
                Some('\\') => self.escaped()?,
                Some(character) => character,
                None => return Err(self.wrong("a character is missing behind `$`")),
            };
            return Ok(Term::Number(i64::from(u32::from(character))));
        }
        let mut text = String::new();
        if let Some(sign @ ('-' | '+')) = self.peek() {
            self.next();
            if sign == '-' {
                text.push('-');
            }
        }
        self.digits(&mut text, 10);
        if self.peek() == Some('#') {
            return self.based(&text);
        }
        // A full stop that no digit follows ends the configuration.
        let mut ahead = self.chars.clone();
        if ahead.next() == Some('.') && ahead.next().is_some_and(|next| next.is_ascii_digit()) {
            text.push('.');
            self.next();
            self.digits(&mut text, 10);
            if let Some('e' | 'E') = self.peek() {
                text.push('e');
                self.next();
                if let Some(sign @ ('-' | '+')) = self.peek() {
                    text.push(sign);
                    self.next();
                }
                self.digits(&mut text, 10);
            }
            return match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Term::Fraction(number)),
                _ => Err(self.wrong(format!("`{text}` is no number"))),
            };
        }
        text.parse()
            .map(Term::Number)
            .map_err(|_| self.wrong(format!("`{text}` is no number that is read here")))
    }

    fn based(&mut self, base: &str) -> Result<Term, Unreadable> {
        self.next();
        let (sign, base) = base.strip_prefix('-').map_or(("", base), |base| ("-", base));
        let base = base.parse().ok().filter(|base| (2..=36).contains(base));
        let Some(base) = base else { return Err(self.wrong("a base is 2 to 36")) };
        let mut text = sign.to_owned();
        self.digits(&mut text, base);
        i64::from_str_radix(&text, base)
            .map(Term::Number)
            .map_err(|_| self.wrong(format!("`{text}` is no number of base {base}")))
    }

    fn digits(&mut self, text: &mut String, base: u32) {
        while let Some(next) = self.peek().filter(|next| next.is_digit(base) || *next == '_') {
            if next != '_' {
                text.push(next);
            }
            self.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn atom(name: &str) -> Term {
        Term::Atom(name.to_owned())
    }

    fn text(text: &str) -> Term {
        Term::Text(text.to_owned())
    }

    #[test]
    fn the_terms_of_a_configuration_are_read() {
        let config = "%% a comment\n[{rabbithub, [ {a_b@c, \"x\\\"y\" \"z\"}, % more\n {'an atom', <<\"bytes\">>}, \
             {n, -5}, {h, 16#fF}, {c, $a}, {f, 1.5e-1}, {l, []}, {t, {}}, {b, <<65, 66>>}, {u, \"\\x{e9}\\101\"},\n\
             {big, 1_000}]}].  % end\n";
        let pair = |name: &str, value: Term| Term::Tuple(vec![atom(name), value]);
        let wanted = Term::List(vec![pair(
            "rabbithub",
            Term::List(vec![
                pair("a_b@c", text("x\"yz")),
                pair("an atom", text("bytes")),
                pair("n", Term::Number(-5)),
                pair("h", Term::Number(255)),
                pair("c", Term::Number(97)),
                pair("f", Term::Fraction(0.15)),
                pair("l", Term::List(Vec::new())),
                pair("t", Term::Tuple(Vec::new())),
                pair("b", text("AB")),
                pair("u", text("éA")),
                pair("big", Term::Number(1000)),
            ]),
        )]);
        assert_eq!(parse(config).unwrap(), wanted);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        for (config, line) in [
            ("", 1),
            ("[a]", 1),
            ("[a,\n b\n c].", 3),
            ("[a,\n \"b\n\n].", 2),
            ("[a,].", 1),
            ("[a]. b", 1),
            ("Variable.", 1),
            ("[fun() -> ok end].", 1),
            ("<<1.", 1),
            ("99999999999999999999.", 1),
            ("40#1.", 1),
            ("#{a => b}.", 1),
        ] {
            assert_eq!(parse(config).map_err(|unreadable| unreadable.line), Err(line), "{config}");
        }
        let deep = format!("{}{}.", "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse(&deep).unwrap_err().why.contains("deeply"));
    }

    fn write(term: &Term, out: &mut String) {
        use std::fmt::Write as _;
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\'', "\\'");
        let (begin, items, end) = match term {
            Term::Atom(name) => return write!(out, "'{}'", quoted(name)).unwrap(),
            Term::Text(text) => return write!(out, "\"{}\"", quoted(text)).unwrap(),
            Term::Number(number) => return write!(out, "{number}").unwrap(),
            Term::Fraction(number) => return write!(out, "{number:?}").unwrap(),
            Term::Tuple(items) => ('{', items, '}'),
            Term::List(items) => ('[', items, ']'),
        };
        out.push(begin);
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                out.push_str(" , ");
            }
            write(item, out);
        }
        out.push(end);
    }

    fn terms() -> impl Strategy<Value = Term> {
        let leaf = prop_oneof![
            any::<String>().prop_map(Term::Atom),
            any::<String>().prop_map(Term::Text),
            any::<i64>().prop_map(Term::Number),
            any::<i32>().prop_map(|number| Term::Fraction(f64::from(number) / 8.0)),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Term::Tuple),
                prop::collection::vec(inner, 0..6).prop_map(Term::List),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_panics(config in any::<String>(), likely in "[\\[\\]{}<>\"'\\\\$#a-c0-9.,%\\-x \n]{0,60}") {
            parse(&config).ok();
            parse(&likely).ok();
        }

        #[test]
        fn what_is_written_is_read(term in terms()) {
            let mut text = String::new();
            write(&term, &mut text);
            text.push('.');
            prop_assert_eq!(parse(&text), Ok(term));
        }
    }
}
