//! From pieces to blocks of nodes: the tags that hold other nodes, and the table of all tags.

use crate::error::{Error, ErrorKind, nearest};
use crate::expression::{Cursor, Operands};
use crate::lexer::Token;
use crate::options::Options;
use crate::scan::{Piece, is_space, scan};
use crate::source::{Place, Sources};
use crate::syntax::{Arm, Block, Branch, Mode, Node, drop_texts, is_blank, take_raw};

/// Every tag, those that end or divide blocks included.
pub(crate) const TAGS: &[&str] = &[
    "assign",
    "break",
    "capture",
    "case",
    "comment",
    "continue",
    "cycle",
    "decrement",
    "doc",
    "echo",
    "else",
    "elsif",
    "endcapture",
    "endcase",
    "endcomment",
    "enddoc",
    "endfor",
    "endif",
    "endifchanged",
    "endraw",
    "endtablerow",
    "endunless",
    "for",
    "if",
    "ifchanged",
    "include",
    "increment",
    "liquid",
    "raw",
    "render",
    "tablerow",
    "unless",
    "when",
];

/// What is shared while a template and its partials are parsed.
pub(crate) struct Parsing<'o> {
    pub options: &'o Options,
    pub sources: Sources,
    /// Bytes of source read so far, a partial counted each time it is used.
    pub source_bytes: usize,
    /// The partials that are open, outermost first.
    pub partials: Vec<String>,
    pub blocks_open: usize,
}

impl<'o> Parsing<'o> {
    pub fn new(options: &'o Options) -> Self {
        let sources = Sources::default();
        Self { options, sources, source_bytes: 0, partials: Vec::new(), blocks_open: 0 }
    }

    /// Parses a whole text: the template, or a partial.
    pub fn text(&mut self, name: &str, source: &str, used_at: Option<Place>) -> Result<Block, Error> {
        let (text, base) = self.sources.add(name, source);
        self.source_bytes = self.source_bytes.saturating_add(source.len());
        let bytes_max = self.options.limits.source_bytes_max.min(u32::MAX as usize);
        if self.source_bytes > bytes_max {
            let message = format!("the template with its partials has more than {bytes_max} bytes");
            return Err(self.sources.error(ErrorKind::Limit, used_at.unwrap_or(base), message));
        }
        let pieces = scan(&text, base, &self.sources)?;
        let pieces = self.unfold_liquid(pieces)?;
        let mut parser = Parser { parsing: self, pieces, at: 0 };
        let (block, end) = parser.block(&[])?;
        assert!(end.is_none(), "a text has no closing tag");
        Ok(block)
    }

    /// Replaces each `{% liquid %}` by the tags on its lines.
    fn unfold_liquid<'t>(&self, pieces: Vec<Piece<'t>>) -> Result<Vec<Piece<'t>>, Error> {
        let mut unfolded = Vec::with_capacity(pieces.len());
        for piece in pieces {
            match piece {
                Piece::Tag { markup, place, open } if tag_name(markup).0 == "liquid" => {
                    let (_, rest, skipped) = tag_name(markup);
                    self.liquid_lines(rest, place.plus(skipped), open, &mut unfolded)?;
                }
                other => unfolded.push(other),
            }
        }
        Ok(unfolded)
    }

    fn liquid_lines<'t>(
        &self,
        lines: &'t str,
        base: Place,
        open: Place,
        pieces: &mut Vec<Piece<'t>>,
    ) -> Result<(), Error> {
        let mut at = 0;
        let mut hidden: Vec<&str> = Vec::new();
        for line in lines.split('\n') {
            let mut markup = line;
            let mut place = base.plus(at);
            at += line.len() + 1;
            // `liquid` within `liquid`: what follows on the line is a tag.
            while tag_name(markup).0 == "liquid" {
                let (_, rest, skipped) = tag_name(markup);
                (markup, place) = (rest, place.plus(skipped));
            }
            let name = tag_name(markup).0;
            match (name, hidden.last().copied()) {
                ("comment", None | Some("comment")) => hidden.push("comment"),
                ("doc" | "raw", None) => hidden.push(name),
                ("endcomment", Some("comment")) | ("enddoc", Some("doc")) | ("endraw", Some("raw")) => {
                    hidden.pop();
                }
                (_, Some(_)) => {}
                (_, None) if markup.trim_matches(is_space).is_empty() => {}
                (_, None) => pieces.push(Piece::Tag { markup, place, open: place }),
            }
        }
        match hidden.pop() {
            None => Ok(()),
            Some(name) => {
                let message = format!("`{name}` is never closed inside `liquid`");
                Err(self.sources.error(ErrorKind::Syntax, open, message))
            }
        }
    }
}

/// The name of a tag, what follows it, and how many bytes were skipped to get there.
fn tag_name(markup: &str) -> (&str, &str, usize) {
    let trimmed = markup.trim_start_matches(is_space);
    let before = markup.len() - trimmed.len();
    if let Some(rest) = trimmed.strip_prefix('#') {
        return ("#", rest, before + 1);
    }
    let end = trimmed.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(trimmed.len());
    (&trimmed[..end], &trimmed[end..], before + end)
}

pub(crate) struct Parser<'t, 'p, 'o> {
    pub parsing: &'p mut Parsing<'o>,
    pieces: Vec<Piece<'t>>,
    at: usize,
}

/// The tag that ended a block: its name, what stood behind it, and where.
pub(crate) struct End<'t> {
    pub name: &'t str,
    pub markup: &'t str,
    pub inside: Place,
    pub open: Place,
}

impl<'t> Parser<'t, '_, '_> {
    /// Parses nodes until one of the tags in `ends`, or to the end of the text when there are none.
    pub fn block(&mut self, ends: &[&str]) -> Result<(Block, Option<End<'t>>), Error> {
        let mut block = Block::new();
        while let Some(piece) = self.pieces.get(self.at).copied() {
            self.at += 1;
            match piece {
                Piece::Text { text, place } => block.push(Node::Text { text: text.to_owned(), place }),
                Piece::Output { markup, place, open } => {
                    if let Some(node) = self.output(markup, place, open)? {
                        block.push(node);
                    }
                }
                Piece::Tag { markup, place, open } => {
                    let (name, rest, skipped) = tag_name(markup);
                    let inside = place.plus(skipped);
                    if ends.contains(&name) {
                        return Ok((block, Some(End { name, markup: rest, inside, open })));
                    }
                    if let Some(node) = self.tag(name, rest, inside, open, ends)? {
                        block.push(node);
                    }
                }
            }
        }
        Ok((block, None))
    }

    /// A block that must be closed by one of `ends`; `opened` and `place` are for the error.
    pub fn closed(&mut self, ends: &[&str], opened: &str, place: Place) -> Result<(Block, End<'t>), Error> {
        self.parsing.blocks_open += 1;
        let nesting_max = self.parsing.options.limits.nesting_max;
        if self.parsing.blocks_open > nesting_max {
            let message = format!("blocks are nested more than {nesting_max} deep");
            return Err(self.parsing.sources.error(ErrorKind::Limit, place, message));
        }
        let (block, end) = self.block(ends)?;
        self.parsing.blocks_open -= 1;
        match end {
            Some(end) => Ok((block, end)),
            None => Err(self
                .parsing
                .sources
                .error(ErrorKind::Syntax, place, format!("`{opened}` is never closed"))
                .hinted(format!("add `{{% end{opened} %}}`"))),
        }
    }

    pub fn cursor(&self, markup: &'t str, place: Place) -> Result<Cursor<'t, '_>, Error> {
        let options = self.parsing.options;
        Cursor::new(markup, place, &self.parsing.sources, options.lax, options.limits.nesting_max.min(64))
    }

    fn output(&self, markup: &'t str, place: Place, open: Place) -> Result<Option<Node>, Error> {
        let mut cursor = self.cursor(markup, place)?;
        if cursor.peek() == Token::End {
            // `{{ }}` writes nothing in the reference.
            return if self.parsing.options.lax { Ok(None) } else { cursor.fail("this output is empty") };
        }
        let mut value = cursor.filtered()?;
        cursor.end()?;
        let raw = take_raw(&mut value.filters);
        Ok(Some(Node::Output { value, raw, mode: Mode::Text, place: open }))
    }

    fn tag(
        &mut self,
        name: &'t str,
        markup: &'t str,
        inside: Place,
        open: Place,
        ends: &[&str],
    ) -> Result<Option<Node>, Error> {
        let node = match name {
            "#" => {
                self.inline_comment(markup, inside)?;
                return Ok(None);
            }
            "echo" => return self.output(markup, inside, open),
            "if" | "unless" => self.if_tag(name, markup, inside, open)?,
            "case" => self.case_tag(markup, inside, open)?,
            "assign" => self.assign(markup, inside, open)?,
            "capture" => self.capture(markup, inside, open)?,
            "for" => self.for_tag(markup, inside, open)?,
            "tablerow" => self.table_row(markup, inside, open)?,
            "cycle" => self.cycle(markup, inside, open)?,
            "increment" => self.counter(markup, inside, open, 1)?,
            "decrement" => self.counter(markup, inside, open, -1)?,
            "ifchanged" => {
                let (body, _) = self.closed(&["endifchanged"], name, open)?;
                Node::IfChanged { body, place: open }
            }
            "render" => self.partial(markup, inside, open, true)?,
            "include" => self.partial(markup, inside, open, false)?,
            "break" => Node::Break { place: open },
            "continue" => Node::Continue { place: open },
            _ => return Err(self.unknown_tag(name, inside, open, ends)),
        };
        Ok(Some(node))
    }

    fn inline_comment(&self, markup: &str, inside: Place) -> Result<(), Error> {
        for (i, line) in markup.split('\n').enumerate().skip(1) {
            let line = line.trim_matches(is_space);
            if !line.is_empty() && !line.starts_with('#') {
                let at = markup.split('\n').take(i).map(|line| line.len() + 1).sum();
                let message = "each line of a `#` comment must begin with `#`";
                return Err(self.parsing.sources.error(ErrorKind::Syntax, inside.plus(at), message));
            }
        }
        Ok(())
    }

    fn unknown_tag(&self, name: &str, inside: Place, open: Place, ends: &[&str]) -> Error {
        let sources = &self.parsing.sources;
        if name.is_empty() {
            return sources.error(ErrorKind::Syntax, inside, "a tag without a name");
        }
        if TAGS.contains(&name) {
            let message = format!("`{name}` has nothing to belong to here");
            let error = sources.error(ErrorKind::Syntax, open, message);
            return match ends.iter().find(|end| end.starts_with("end")) {
                Some(end) => error.hinted(format!("the open block ends with `{end}`")),
                None => error,
            };
        }
        let error = sources.error(ErrorKind::UnknownTag, open, format!("there is no tag `{name}`"));
        match nearest(name, TAGS.iter().copied()) {
            Some(known) => error.hinted(format!("did you mean `{known}`?")),
            None => error,
        }
    }

    fn if_tag(&mut self, name: &'t str, markup: &'t str, inside: Place, open: Place) -> Result<Node, Error> {
        let end_name = if name == "if" { "endif" } else { "endunless" };
        let mut branches: Vec<Branch> = Vec::new();
        let mut test = Some(self.conditions(markup, inside)?);
        let mut negated = name == "unless";
        let mut place = open;
        loop {
            let (body, end) = self.closed(&["elsif", "else", end_name], name, open)?;
            let after_else = branches.last().is_some_and(|branch| branch.test.is_none());
            let closed_by_else = test.is_none() && end.name != end_name;
            if closed_by_else && !self.parsing.options.lax {
                let message = format!("`{}` after `else` can never run", end.name);
                return Err(self.parsing.sources.error(ErrorKind::Syntax, end.open, message));
            }
            if !after_else {
                branches.push(Branch { test, negated, body, place });
            }
            negated = false;
            place = end.open;
            test = match end.name {
                "elsif" => Some(self.conditions(end.markup, end.inside)?),
                "else" => None,
                _ => break,
            };
        }
        if branches.iter().all(|branch| is_blank(&branch.body)) {
            for branch in &mut branches {
                drop_texts(&mut branch.body);
            }
        }
        Ok(Node::If { branches, place: open })
    }

    fn conditions(&self, markup: &'t str, inside: Place) -> Result<crate::expression::Conditions, Error> {
        let mut cursor = self.cursor(markup, inside)?;
        let conditions = cursor.conditions(Operands::Plain)?;
        cursor.end()?;
        Ok(conditions)
    }

    fn case_tag(&mut self, markup: &'t str, inside: Place, open: Place) -> Result<Node, Error> {
        let subject = {
            let mut cursor = self.cursor(markup, inside)?;
            let subject = cursor.expr()?;
            cursor.end()?;
            subject
        };
        // What stands before the first `when` is not written.
        let ends = ["when", "else", "endcase"];
        let (_, mut end) = self.closed(&ends, "case", open)?;
        let mut arms: Vec<Arm> = Vec::new();
        while end.name != "endcase" {
            let place = end.open;
            let values = match end.name {
                "when" => Some(self.when_values(end.markup, end.inside)?),
                _ => None,
            };
            let (body, next) = self.closed(&ends, "case", open)?;
            arms.push(Arm { values, body, place });
            end = next;
        }
        if arms.iter().all(|arm| is_blank(&arm.body)) {
            for arm in &mut arms {
                drop_texts(&mut arm.body);
            }
        }
        Ok(Node::Case { subject, arms, place: open })
    }

    fn when_values(&self, markup: &'t str, inside: Place) -> Result<Vec<crate::expression::Expr>, Error> {
        let mut cursor = self.cursor(markup, inside)?;
        let mut values = vec![cursor.expr()?];
        while cursor.take(Token::Comma) || cursor.take_word("or") {
            values.push(cursor.expr()?);
        }
        cursor.end()?;
        Ok(values)
    }
}
