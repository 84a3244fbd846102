//! The tags with a syntax of their own: assignments, loops, counters and partials.

use crate::error::{Error, ErrorKind, nearest};
use crate::expression::{Base, Cursor, Filtered, Literal};
use crate::lexer::Token;
use crate::parse::Parser;
use crate::scan::is_space;
use crate::source::Place;
use crate::syntax::{Loop, LoopKind, Mode, Node, Offset, Partial, drop_texts, is_blank};

impl<'t> Parser<'t, '_, '_> {
    pub(crate) fn assign(&self, markup: &'t str, inside: Place, open: Place) -> Result<Node, Error> {
        let mut cursor = self.cursor(markup, inside)?;
        let name = cursor.name("the name of a variable")?.to_owned();
        cursor.expect(Token::Assign, "after the name of the variable")?;
        let value = cursor.filtered()?;
        cursor.end()?;
        if let Some(call) = value.filters.iter().find(|call| call.name == "raw") {
            let message = "`raw` is a way of writing an output, it cannot be assigned";
            return Err(cursor.sources.error(ErrorKind::Arguments, call.place, message));
        }
        Ok(Node::Assign { name, value, place: open })
    }

    pub(crate) fn capture(&mut self, markup: &'t str, inside: Place, open: Place) -> Result<Node, Error> {
        let name = {
            let mut cursor = self.cursor(markup, inside)?;
            let name = match cursor.peek() {
                // The reference also takes a quoted name.
                Token::Str(name) => {
                    cursor.next();
                    name
                }
                _ => cursor.name("the name of a variable")?,
            };
            cursor.end()?;
            name.to_owned()
        };
        let (body, _) = self.closed(&["endcapture"], "capture", open)?;
        Ok(Node::Capture { name, body, place: open })
    }

    pub(crate) fn for_tag(&mut self, markup: &'t str, inside: Place, open: Place) -> Result<Node, Error> {
        let mut looped = self.loop_head(markup, inside, open, LoopKind::For)?;
        let (body, end) = self.closed(&["else", "endfor"], "for", open)?;
        looped.body = body;
        if end.name == "else" {
            looped.otherwise = Some(self.closed(&["endfor"], "for", open)?.0);
        }
        if is_blank(&looped.body) && looped.otherwise.as_ref().is_none_or(is_blank) {
            drop_texts(&mut looped.body);
            looped.otherwise.iter_mut().for_each(drop_texts);
        }
        Ok(Node::Loop(Box::new(looped)))
    }

    pub(crate) fn table_row(&mut self, markup: &'t str, inside: Place, open: Place) -> Result<Node, Error> {
        let kind = LoopKind::TableRow { columns: None, mode: Mode::Text };
        let mut looped = self.loop_head(markup, inside, open, kind)?;
        looped.body = self.closed(&["endtablerow"], "tablerow", open)?.0;
        Ok(Node::Loop(Box::new(looped)))
    }

    fn loop_head(&self, markup: &'t str, inside: Place, open: Place, kind: LoopKind) -> Result<Loop, Error> {
        let mut cursor = self.cursor(markup, inside)?;
        let variable = cursor.name("the name of the loop's variable")?.to_owned();
        cursor.expect(Token::Name("in"), "after the loop's variable")?;
        let start = cursor.place().at;
        let items = cursor.expr()?;
        let written = written(markup, inside, start, cursor.place().at);
        let name = format!("{variable}-{written}");
        let mut looped = Loop {
            kind,
            variable,
            items,
            reversed: false,
            limit: None,
            offset: None,
            body: Vec::new(),
            otherwise: None,
            name,
            place: open,
        };
        loop {
            cursor.take(Token::Comma);
            if cursor.take_word("reversed") {
                looped.reversed = true;
                continue;
            }
            let place = cursor.place();
            let Some(name) = cursor.argument_name() else {
                break;
            };
            match (name, &mut looped.kind) {
                ("limit", _) => looped.limit = Some(cursor.expr()?),
                ("offset", _) if cursor.take_word("continue") => {
                    looped.offset = Some(Offset::Continue);
                }
                ("offset", _) => looped.offset = Some(Offset::At(cursor.expr()?)),
                ("cols", LoopKind::TableRow { columns, .. }) => *columns = Some(cursor.expr()?),
                _ if cursor.lax => {
                    cursor.expr()?;
                }
                _ => {
                    let message = format!("a loop takes no argument `{name}`");
                    return Err(cursor.sources.error(ErrorKind::Arguments, place, message));
                }
            }
        }
        cursor.end()?;
        Ok(looped)
    }

    pub(crate) fn cycle(&self, markup: &'t str, inside: Place, open: Place) -> Result<Node, Error> {
        let mut cursor = self.cursor(markup, inside)?;
        let first = cursor.expr()?;
        let mut group = None;
        let mut items = vec![first];
        if cursor.take(Token::Colon) {
            group = items.pop().map(|expr| Filtered { expr, filters: Vec::new() });
            items.push(cursor.expr()?);
        }
        while cursor.take(Token::Comma) {
            if cursor.peek() == Token::End {
                break;
            }
            items.push(cursor.expr()?);
        }
        cursor.end()?;
        // Two tags without a name share their turn when they list the same literals.
        let literal = items.iter().all(|item| item.literal().is_some());
        let site = if literal {
            markup.trim_matches(is_space).to_owned()
        } else {
            format!("{}:{}", open.text, open.at)
        };
        Ok(Node::Cycle { group, items, site, mode: Mode::Text, place: open })
    }

    pub(crate) fn counter(
        &self,
        markup: &'t str,
        inside: Place,
        open: Place,
        step: i8,
    ) -> Result<Node, Error> {
        let mut cursor = self.cursor(markup, inside)?;
        let name = cursor.name("the name of a counter")?.to_owned();
        cursor.end()?;
        Ok(Node::Counter { name, step, mode: Mode::Text, place: open })
    }

    pub(crate) fn partial(
        &mut self,
        markup: &'t str,
        inside: Place,
        open: Place,
        isolated: bool,
    ) -> Result<Node, Error> {
        let (name, place, mut partial) = {
            let mut cursor = self.cursor(markup, inside)?;
            let place = cursor.place();
            let named = cursor.expr()?;
            let Some(Literal::Str(name)) = named.literal() else {
                return Err(cursor
                    .sources
                    .error(ErrorKind::Syntax, place, "the name of a partial must be quoted")
                    .hinted("which partial is used must be known before any row is"));
            };
            let partial = partial_head(&mut cursor, name, isolated, open)?;
            (name.clone(), place, partial)
        };
        partial.body = self.partial_body(&name, place)?;
        Ok(Node::Partial(Box::new(partial)))
    }

    fn partial_body(&mut self, name: &str, place: Place) -> Result<Vec<Node>, Error> {
        let parsing = &mut *self.parsing;
        let partials = &parsing.options.partials;
        let Some(text) = partials.get(name) else {
            let error = parsing.sources.error(
                ErrorKind::UnknownPartial,
                place,
                format!("there is no partial `{name}`"),
            );
            return Err(match nearest(name, partials.names()) {
                Some(known) => error.hinted(format!("did you mean `{known}`?")),
                None => error,
            });
        };
        if parsing.partials.iter().any(|open| open == name) {
            let message = format!("the partial `{name}` uses itself");
            return Err(parsing.sources.error(ErrorKind::Limit, place, message));
        }
        let partials_max = parsing.options.limits.partials_max;
        if parsing.partials.len() >= partials_max {
            let message = format!("partials are nested more than {partials_max} deep");
            return Err(parsing.sources.error(ErrorKind::Limit, place, message));
        }
        parsing.partials.push(name.to_owned());
        let body = parsing.text(name, text, Some(place))?;
        parsing.partials.pop();
        Ok(body)
    }
}

/// What was written between two bytes of a text, `inside` being where `markup` begins.
fn written(markup: &str, inside: Place, from: u32, to: u32) -> &str {
    let range = (from - inside.at) as usize..(to - inside.at) as usize;
    let text = markup.get(range).unwrap_or(markup).trim_end_matches(is_space);
    text.strip_suffix(',').unwrap_or(text).trim_end_matches(is_space)
}

fn partial_head(
    cursor: &mut Cursor<'_, '_>,
    name: &str,
    isolated: bool,
    place: Place,
) -> Result<Partial, Error> {
    let mut partial =
        Partial { isolated, bound: None, each: false, arguments: Vec::new(), body: Vec::new(), place };
    let with = cursor.take_word("with");
    let each = !with && cursor.take_word("for");
    if with || each {
        let value = cursor.expr()?;
        // Named after the partial, without its folder.
        let mut variable = name.rsplit('/').next().unwrap_or(name).to_owned();
        if cursor.take_word("as") {
            cursor.name("a name after `as`")?.clone_into(&mut variable);
        }
        // `include` goes through an array either way, `render` only with `for`.
        partial.each = each || !isolated;
        if each && isolated && matches!(&value.base, Base::Literal(_)) {
            return cursor.fail("`for` needs something to go through");
        }
        partial.bound = Some((variable, value));
    }
    loop {
        cursor.take(Token::Comma);
        let Some(name) = cursor.argument_name() else {
            break;
        };
        partial.arguments.push((name.to_owned(), cursor.expr()?));
    }
    cursor.end()?;
    Ok(partial)
}
