//! Expressions, filters and conditions as they are written, and the parser for them.

use crate::error::{Error, ErrorKind};
use crate::lexer::{Token, lex};
use crate::source::{Place, Sources};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Blank,
    Empty,
}

#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub place: Place,
    pub base: Base,
    pub keys: Vec<Key>,
}

#[derive(Debug, Clone)]
pub(crate) enum Base {
    Literal(Literal),
    Name(String),
    /// `[expression]`: the variable whose name the expression yields.
    Named(Box<Expr>),
    Range(Box<Expr>, Box<Expr>),
}

#[derive(Debug, Clone)]
pub(crate) enum Key {
    /// `.name`, where `size`, `first` and `last` mean more than a key.
    Dot(String, Place),
    /// `["name"]`
    Text(String, Place),
    Index(i64),
    Expr(Box<Expr>),
}

impl Expr {
    /// The expression as plain literal, if it is one.
    pub fn literal(&self) -> Option<&Literal> {
        match (&self.base, self.keys.is_empty()) {
            (Base::Literal(literal), true) => Some(literal),
            _ => None,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Filtered {
    pub expr: Expr,
    pub filters: Vec<Call>,
}

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub name: String,
    pub place: Place,
    pub positional: Vec<Expr>,
    pub named: Vec<(String, Expr)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Contains,
}

#[derive(Debug, Clone)]
pub(crate) struct Comparison {
    pub left: Filtered,
    pub right: Option<(Operator, Filtered)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logic {
    And,
    Or,
}

/// `a and b or c`, which Liquid reads as `a and (b or c)`: each link joins what stands left of it with
/// everything right of it.
#[derive(Debug, Clone)]
pub(crate) struct Conditions {
    pub first: Comparison,
    pub rest: Vec<(Logic, Comparison)>,
}

/// Whether filters may follow the operands of a condition.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operands {
    Plain,
    Filtered,
}

/// A reader of the tokens of one output or tag.
pub(crate) struct Cursor<'t, 's> {
    tokens: Vec<(Token<'t>, Place)>,
    at: usize,
    pub sources: &'s Sources,
    pub lax: bool,
    nesting_left: usize,
}

impl<'t, 's> Cursor<'t, 's> {
    pub fn new(
        markup: &'t str,
        place: Place,
        sources: &'s Sources,
        lax: bool,
        nesting_max: usize,
    ) -> Result<Self, Error> {
        let tokens = lex(markup, place, sources)?;
        Ok(Self { tokens, at: 0, sources, lax, nesting_left: nesting_max })
    }

    pub fn peek(&self) -> Token<'t> {
        self.tokens[self.at].0
    }

    pub fn place(&self) -> Place {
        self.tokens[self.at].1
    }

    fn peek_second(&self) -> Token<'t> {
        self.tokens.get(self.at + 1).map_or(Token::End, |(token, _)| *token)
    }

    pub fn next(&mut self) -> Token<'t> {
        let token = self.peek();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    pub fn take(&mut self, token: Token<'_>) -> bool {
        let found = self.peek() == token;
        if found {
            self.next();
        }
        found
    }

    /// Takes `word` when it comes next and is no key of an argument (`word:`).
    pub fn take_word(&mut self, word: &str) -> bool {
        self.peek() == Token::Name(word) && self.peek_second() != Token::Colon && {
            self.next();
            true
        }
    }

    pub fn fail<T>(&self, message: impl Into<String>) -> Result<T, Error> {
        Err(self.sources.error(ErrorKind::Syntax, self.place(), message))
    }

    pub fn expect(&mut self, token: Token<'_>, after: &str) -> Result<(), Error> {
        if self.take(token) {
            return Ok(());
        }
        self.fail(format!("expected {token} {after}, found {}", self.peek()))
    }

    /// Nothing may follow. The reference's lenient parser ignores what does.
    pub fn end(&self) -> Result<(), Error> {
        match self.peek() {
            Token::End => Ok(()),
            _ if self.lax => Ok(()),
            token => self.fail(format!("{token} was not expected here")),
        }
    }

    pub fn name(&mut self, what: &str) -> Result<&'t str, Error> {
        match self.peek() {
            Token::Name(name) => {
                self.next();
                Ok(name)
            }
            Token::Contains => {
                self.next();
                Ok("contains")
            }
            token => self.fail(format!("expected {what}, found {token}")),
        }
    }

    /// `key:` of an argument, when one comes next.
    pub fn argument_name(&mut self) -> Option<&'t str> {
        match (self.peek(), self.peek_second()) {
            (Token::Name(name), Token::Colon) => {
                self.next();
                self.next();
                Some(name)
            }
            _ => None,
        }
    }

    pub fn filtered(&mut self) -> Result<Filtered, Error> {
        let expr = self.expr()?;
        let mut filters = Vec::new();
        while self.take(Token::Pipe) {
            filters.push(self.call()?);
        }
        Ok(Filtered { expr, filters })
    }

    fn call(&mut self) -> Result<Call, Error> {
        let place = self.place();
        let name = self.name("the name of a filter after `|`")?.to_owned();
        let mut call = Call { name, place, positional: Vec::new(), named: Vec::new() };
        if !self.take(Token::Colon) {
            return Ok(call);
        }
        loop {
            match self.argument_name() {
                Some(name) => call.named.push((name.to_owned(), self.expr()?)),
                None => call.positional.push(self.expr()?),
            }
            if !self.take(Token::Comma) || matches!(self.peek(), Token::End | Token::Pipe) {
                return Ok(call);
            }
        }
    }

    pub fn conditions(&mut self, operands: Operands) -> Result<Conditions, Error> {
        let first = self.comparison(operands)?;
        let mut rest = Vec::new();
        loop {
            let logic = match self.peek() {
                Token::Name("and") => Logic::And,
                Token::Name("or") => Logic::Or,
                _ => return Ok(Conditions { first, rest }),
            };
            self.next();
            rest.push((logic, self.comparison(operands)?));
        }
    }

    fn comparison(&mut self, operands: Operands) -> Result<Comparison, Error> {
        let left = self.operand(operands)?;
        let operator = match self.peek() {
            Token::Equal => Operator::Equal,
            Token::NotEqual => Operator::NotEqual,
            Token::Less => Operator::Less,
            Token::LessEqual => Operator::LessEqual,
            Token::Greater => Operator::Greater,
            Token::GreaterEqual => Operator::GreaterEqual,
            Token::Contains => Operator::Contains,
            Token::Assign => {
                return self.fail("`=` assigns; to compare write `==`");
            }
            _ => return Ok(Comparison { left, right: None }),
        };
        self.next();
        let right = self.operand(operands)?;
        Ok(Comparison { left, right: Some((operator, right)) })
    }

    fn operand(&mut self, operands: Operands) -> Result<Filtered, Error> {
        match operands {
            Operands::Filtered => self.filtered(),
            Operands::Plain => Ok(Filtered { expr: self.expr()?, filters: Vec::new() }),
        }
    }

    pub fn expr(&mut self) -> Result<Expr, Error> {
        if self.nesting_left == 0 {
            let message = "brackets are nested too deeply";
            return Err(self.sources.error(ErrorKind::Limit, self.place(), message));
        }
        self.nesting_left -= 1;
        let expr = self.expr_within();
        self.nesting_left += 1;
        expr
    }

    fn expr_within(&mut self) -> Result<Expr, Error> {
        let place = self.place();
        let base = match self.peek() {
            Token::Int(int) => Base::Literal(Literal::Int(int)),
            Token::Float(float) => Base::Literal(Literal::Float(float)),
            Token::Str(text) => Base::Literal(Literal::Str(text.to_owned())),
            Token::Name(name) => {
                let literal = !matches!(self.peek_second(), Token::Dot | Token::OpenSquare);
                keyword(name).filter(|_| literal).map_or_else(|| Base::Name(name.to_owned()), Base::Literal)
            }
            Token::OpenRound => return self.range(place),
            Token::OpenSquare => {
                self.next();
                let name = self.expr()?;
                self.expect(Token::CloseSquare, "to close `[`")?;
                let base = match name.literal() {
                    Some(Literal::Str(name)) => Base::Name(name.clone()),
                    _ => Base::Named(Box::new(name)),
                };
                return Ok(Expr { place, base, keys: self.keys()? });
            }
            Token::End => return self.fail("expected a value, found nothing"),
            token => return self.fail(format!("expected a value, found {token}")),
        };
        self.next();
        let keys = self.keys()?;
        Ok(Expr { place, base, keys })
    }

    fn range(&mut self, place: Place) -> Result<Expr, Error> {
        self.next();
        let from = self.expr()?;
        if self.peek() != Token::DotDot {
            return Err(self
                .sources
                .error(ErrorKind::Syntax, self.place(), "expected `..` of a range such as `(1..5)`")
                .hinted("round brackets do not group conditions in Liquid"));
        }
        self.next();
        let to = self.expr()?;
        self.expect(Token::CloseRound, "to close the range")?;
        Ok(Expr { place, base: Base::Range(Box::new(from), Box::new(to)), keys: self.keys()? })
    }

    fn keys(&mut self) -> Result<Vec<Key>, Error> {
        let mut keys = Vec::new();
        loop {
            match self.peek() {
                Token::Dot => {
                    self.next();
                    let place = self.place();
                    keys.push(Key::Dot(self.name("a name after `.`")?.to_owned(), place));
                }
                Token::OpenSquare => {
                    self.next();
                    let key = self.expr()?;
                    self.expect(Token::CloseSquare, "to close `[`")?;
                    keys.push(match key.literal() {
                        Some(Literal::Str(text)) => Key::Text(text.clone(), key.place),
                        Some(Literal::Int(index)) => Key::Index(*index),
                        _ => Key::Expr(Box::new(key)),
                    });
                }
                _ => return Ok(keys),
            }
        }
    }
}

fn keyword(name: &str) -> Option<Literal> {
    Some(match name {
        "nil" | "null" => Literal::Nil,
        "true" => Literal::Bool(true),
        "false" => Literal::Bool(false),
        "blank" => Literal::Blank,
        "empty" => Literal::Empty,
        _ => return None,
    })
}
