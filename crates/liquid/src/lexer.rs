//! The tokens inside an output or a tag.

use crate::error::{Error, ErrorKind};
use crate::source::{Place, Sources};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Token<'t> {
    Name(&'t str),
    Int(i64),
    Float(f64),
    Str(&'t str),
    Dot,
    DotDot,
    Comma,
    Colon,
    Pipe,
    Assign,
    OpenRound,
    CloseRound,
    OpenSquare,
    CloseSquare,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Contains,
    End,
}

impl std::fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self {
            Self::Name(name) => name,
            Self::Int(int) => return write!(f, "`{int}`"),
            Self::Float(float) => return write!(f, "`{float}`"),
            Self::Str(text) => return write!(f, "the text {text:?}"),
            Self::Dot => ".",
            Self::DotDot => "..",
            Self::Comma => ",",
            Self::Colon => ":",
            Self::Pipe => "|",
            Self::Assign => "=",
            Self::OpenRound => "(",
            Self::CloseRound => ")",
            Self::OpenSquare => "[",
            Self::CloseSquare => "]",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::Contains => "contains",
            Self::End => return f.write_str("the end"),
        };
        write!(f, "`{text}`")
    }
}

pub(crate) fn lex<'t>(
    markup: &'t str,
    base: Place,
    sources: &Sources,
) -> Result<Vec<(Token<'t>, Place)>, Error> {
    let bytes = markup.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = markup[at..].chars().next() {
        let start = at;
        let next = bytes.get(at + 1);
        let fail = |message: String| Err(sources.error(ErrorKind::Syntax, base.plus(start), message));
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let (token, length) = match (c, next) {
            ('.', Some(b'.')) => (Token::DotDot, 2),
            ('=', Some(b'=')) => (Token::Equal, 2),
            ('!', Some(b'=')) | ('<', Some(b'>')) => (Token::NotEqual, 2),
            ('<', Some(b'=')) => (Token::LessEqual, 2),
            ('>', Some(b'=')) => (Token::GreaterEqual, 2),
            ('.', _) => (Token::Dot, 1),
            (',', _) => (Token::Comma, 1),
            (':', _) => (Token::Colon, 1),
            ('|', _) => (Token::Pipe, 1),
            ('=', _) => (Token::Assign, 1),
            ('(', _) => (Token::OpenRound, 1),
            (')', _) => (Token::CloseRound, 1),
            ('[', _) => (Token::OpenSquare, 1),
            (']', _) => (Token::CloseSquare, 1),
            ('<', _) => (Token::Less, 1),
            ('>', _) => (Token::Greater, 1),
            ('\'' | '"', _) => {
                let Some(end) = markup[at + 1..].find(c) else {
                    return fail(format!("the text that begins with {c} is never closed"));
                };
                (Token::Str(&markup[at + 1..at + 1 + end]), end + 2)
            }
            ('-', Some(b'0'..=b'9')) | ('0'..='9', _) => number(&markup[at..]),
            _ if c.is_alphabetic() || c == '_' => {
                let word = name(&markup[at..]);
                (if word == "contains" { Token::Contains } else { Token::Name(word) }, word.len())
            }
            _ => return fail(format!("`{c}` has no meaning here")),
        };
        tokens.push((token, base.plus(start)));
        at += length;
    }
    tokens.push((Token::End, base.plus(markup.len())));
    Ok(tokens)
}

/// Digits, and a fraction when a digit follows the point (`1..5` is a range, not `1.`).
fn number(text: &str) -> (Token<'_>, usize) {
    let bytes = text.as_bytes();
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let whole = digits(usize::from(bytes[0] == b'-'));
    if bytes.get(whole) == Some(&b'.') && bytes.get(whole + 1).is_some_and(u8::is_ascii_digit) {
        let end = digits(whole + 1);
        return (Token::Float(text[..end].parse().unwrap_or(0.0)), end);
    }
    match text[..whole].parse() {
        Ok(int) => (Token::Int(int), whole),
        Err(_) => (Token::Float(text[..whole].parse().unwrap_or(0.0)), whole),
    }
}

/// Letters, digits, `_` and `-`, and a `?` at the end.
fn name(text: &str) -> &str {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let end = text.find(|c| !part(c)).unwrap_or(text.len());
    let end = end + usize::from(text[end..].starts_with('?'));
    &text[..end]
}
