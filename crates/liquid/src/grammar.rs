//! JSON's grammar as a machine that is fed a template's text, one configuration for each way the
//! template may have come to a place.
//!
//! Two things are followed. The *lexical* state (inside a string or not) must be one and the same on
//! every way, because it decides how an output is written. The *configurations* (which containers are
//! open, what may come next) may differ from way to way; they tell a name from a value, find text that
//! cannot be JSON on any way, and prove that the result is JSON on every way. When there get to be
//! too many they are given up, and the result is checked when it has been rendered.

/// More ways than this to come to one place, and we stop telling them apart.
const CONFIGURATIONS_MAX: usize = 64;
/// Open containers in the template's own text.
const DEPTH_MAX: usize = 256;

/// Inside a string, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lexical {
    Outside,
    String,
    /// Behind a backslash.
    Escape,
    /// Within the four digits of `\u`; how many are still to come.
    Hex(u8),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Configuration {
    /// Open containers, `true` for an object.
    open: Vec<bool>,
    at: At,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    /// A value must come.
    Value,
    /// After `[`: a value or `]`.
    FirstItem,
    /// After `{`: a name or `}`.
    FirstName,
    /// After `,` in an object.
    Name,
    Colon,
    /// After a value: `,` or the end of the container.
    After,
    Text {
        name: bool,
    },
    Escape {
        name: bool,
    },
    Hex {
        name: bool,
        left: u8,
    },
    Number(Number),
    /// Inside `true`, `false` or `null`: what is still to come.
    Word(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Number {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl Number {
    fn complete(self) -> bool {
        matches!(self, Self::Zero | Self::Whole | Self::Fraction | Self::ExponentDigits)
    }

    fn step(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Whole, b'0'..=b'9') => Self::Whole,
            (Self::Zero | Self::Whole, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Self::Exponent,
            (Self::Exponent, b'+' | b'-') => Self::ExponentSign,
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => Self::ExponentDigits,
            _ => return None,
        })
    }
}

/// What an output's place makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    InString,
    Value,
    Name,
    /// A name on some ways and a value on others.
    Unclear,
    /// Behind a backslash, or within `\u`.
    InEscape,
    /// Neither may stand here, on no way.
    Misplaced,
}

/// All that is known about a place in the template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub lexical: Lexical,
    /// `None` when it is not known what came before, or not worth telling apart.
    /// Sorted, each once.
    configurations: Option<Vec<Configuration>>,
    /// Some way was found that is not JSON, or given up: the result must be checked.
    pub proven: bool,
}

impl State {
    pub fn start() -> Self {
        let start = Configuration { open: Vec::new(), at: At::Value };
        let configurations = Some(vec![start]);
        Self { lexical: Lexical::Outside, configurations, proven: true }
    }

    /// Nothing is known any more but whether this is inside a string.
    pub fn give_up(&mut self) {
        self.configurations = None;
        self.proven = false;
    }

    /// Both ways lead here. They must agree lexically, which the caller has seen to.
    pub fn join(&mut self, other: &Self) {
        self.proven &= other.proven;
        match (&mut self.configurations, &other.configurations) {
            (Some(held), Some(more)) => {
                held.extend(more.iter().cloned());
                held.sort_unstable();
                held.dedup();
                if held.len() > CONFIGURATIONS_MAX {
                    self.give_up();
                }
            }
            _ => self.give_up(),
        }
    }

    /// Feeds text. On a byte that no way allows, its offset comes back with what was expected there.
    pub fn text(&mut self, text: &str) -> Result<(), (usize, &'static str)> {
        let mut fault = None;
        for (offset, byte) in text.bytes().enumerate() {
            if let Err(expected) = self.byte(byte) {
                // The text goes on being followed lexically, so that one fault is reported, not a tail.
                fault = fault.or(Some((offset, expected)));
                self.give_up();
            }
        }
        fault.map_or(Ok(()), Err)
    }

    fn byte(&mut self, byte: u8) -> Result<(), &'static str> {
        self.lexical = match (self.lexical, byte) {
            (Lexical::Outside, b'"') => Lexical::String,
            (Lexical::String, b'"') => Lexical::Outside,
            (Lexical::String, b'\\') => Lexical::Escape,
            (Lexical::Escape, b'u') => Lexical::Hex(4),
            (Lexical::Escape | Lexical::Hex(1), _) => Lexical::String,
            (Lexical::Hex(left), _) => Lexical::Hex(left - 1),
            (same, _) => same,
        };
        let Some(held) = &mut self.configurations else {
            return Ok(());
        };
        // Most bytes stand within strings and change nothing.
        if self.lexical == Lexical::String
            && byte != b'"'
            && byte >= 0x20
            && held.iter().all(|held| matches!(held.at, At::Text { .. }))
        {
            return Ok(());
        }
        let wanted = held.first().map_or("something else", expected);
        let before = held.len();
        let mut next: Vec<_> = held.drain(..).filter_map(|held| step(held, byte)).collect();
        self.proven &= next.len() == before;
        if next.is_empty() {
            return Err(wanted);
        }
        if next.len() > 1 {
            next.sort_unstable();
            next.dedup();
        }
        *held = next;
        Ok(())
    }

    /// How many ways are told apart here.
    pub fn ways(&self) -> usize {
        self.configurations.as_ref().map_or(1, Vec::len)
    }

    /// What an output that stands here is.
    pub fn role(&self) -> Role {
        match self.lexical {
            Lexical::String => return Role::InString,
            Lexical::Escape | Lexical::Hex(_) => return Role::InEscape,
            Lexical::Outside => {}
        }
        let Some(held) = &self.configurations else {
            return Role::Value;
        };
        let name = held.iter().any(|held| matches!(held.at, At::Name | At::FirstName));
        let value = held.iter().any(|held| matches!(held.at, At::Value | At::FirstItem));
        match (name, value) {
            (true, true) => Role::Unclear,
            (true, false) => Role::Name,
            (false, true) => Role::Value,
            (false, false) => Role::Misplaced,
        }
    }

    /// What would have to come here instead of an output.
    pub fn wanted(&self) -> &'static str {
        self.configurations.as_ref().and_then(|held| held.first()).map_or("something else", expected)
    }

    /// Goes past an output of the role [`role`](Self::role) told.
    pub fn output(&mut self) {
        if self.lexical != Lexical::Outside {
            return;
        }
        let Some(held) = self.configurations.take() else {
            return;
        };
        let mut next = Vec::with_capacity(held.len());
        for mut configuration in held {
            configuration.at = match configuration.at {
                At::Value | At::FirstItem => At::After,
                At::Name | At::FirstName => At::Colon,
                _ => {
                    self.proven = false;
                    continue;
                }
            };
            next.push(configuration);
        }
        if next.is_empty() {
            self.give_up();
            return;
        }
        next.sort_unstable();
        next.dedup();
        self.configurations = Some(next);
    }

    /// Ends the document. `Err` tells what is missing when it is not whole on any way.
    pub fn finish(&mut self) -> Result<(), &'static str> {
        if self.lexical != Lexical::Outside {
            self.proven = false;
            return Err("a closing quote");
        }
        let Some(held) = &self.configurations else {
            return Ok(());
        };
        let whole = |held: &Configuration| {
            held.open.is_empty()
                && match held.at {
                    At::After => true,
                    At::Number(number) => number.complete(),
                    _ => false,
                }
        };
        let count = held.iter().filter(|held| whole(held)).count();
        self.proven &= count == held.len();
        match held.iter().find(|held| !whole(held)) {
            Some(unfinished) if count == 0 => Err(match unfinished.open.last() {
                Some(true) if matches!(unfinished.at, At::After) => "`}`",
                Some(false) if matches!(unfinished.at, At::After) => "`]`",
                _ => expected(unfinished),
            }),
            _ => Ok(()),
        }
    }
}

fn expected(configuration: &Configuration) -> &'static str {
    match (configuration.at, configuration.open.last()) {
        (At::Value, _) => "a value",
        (At::FirstItem, _) => "a value or `]`",
        (At::FirstName, _) => "a name in quotes or `}`",
        (At::Name, _) => "a name in quotes",
        (At::Colon, _) => "`:`",
        (At::After, Some(true)) => "`,` or `}`",
        (At::After, Some(false)) => "`,` or `]`",
        (At::After, None) => "the end of the document",
        (At::Text { .. }, _) => "no control character in a string (write `\\n`)",
        (At::Escape { .. }, _) => "one of \" \\ / b f n r t u behind the backslash",
        (At::Hex { .. }, _) => "a hexadecimal digit",
        (At::Number(Number::Zero), _) => "no digit behind a leading `0`",
        (At::Number(number), _) if !number.complete() => "a digit",
        (At::Number(_), _) => "the end of the number",
        (At::Word(_), _) => "`true`, `false` or `null`",
    }
}

fn step(mut configuration: Configuration, byte: u8) -> Option<Configuration> {
    let space = matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    if let At::Number(number) = configuration.at {
        if let Some(next) = number.step(byte) {
            configuration.at = At::Number(next);
            return Some(configuration);
        }
        if !number.complete() {
            return None;
        }
        configuration.at = At::After;
    }
    configuration.at = match configuration.at {
        At::Text { name } => match byte {
            b'"' if name => At::Colon,
            b'"' => At::After,
            b'\\' => At::Escape { name },
            0..0x20 => return None,
            _ => At::Text { name },
        },
        At::Escape { name } => match byte {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => At::Text { name },
            b'u' => At::Hex { name, left: 4 },
            _ => return None,
        },
        At::Hex { name, left } if byte.is_ascii_hexdigit() => match left {
            1 => At::Text { name },
            _ => At::Hex { name, left: left - 1 },
        },
        At::Hex { .. } => return None,
        At::Word(rest) => match rest.as_bytes().first() {
            Some(first) if *first == byte && rest.len() == 1 => At::After,
            Some(first) if *first == byte => At::Word(&rest[1..]),
            _ => return None,
        },
        same if space => same,
        At::Value => value(&mut configuration, byte)?,
        At::FirstItem if byte == b']' => close(&mut configuration, false)?,
        At::FirstItem => value(&mut configuration, byte)?,
        At::FirstName if byte == b'}' => close(&mut configuration, true)?,
        At::FirstName | At::Name if byte == b'"' => At::Text { name: true },
        At::Colon if byte == b':' => At::Value,
        At::After => match (byte, configuration.open.last()) {
            (b',', Some(true)) => At::Name,
            (b',', Some(false)) => At::Value,
            (b'}', _) => close(&mut configuration, true)?,
            (b']', _) => close(&mut configuration, false)?,
            _ => return None,
        },
        At::FirstName | At::Name | At::Colon | At::Number(_) => return None,
    };
    Some(configuration)
}

fn value(configuration: &mut Configuration, byte: u8) -> Option<At> {
    Some(match byte {
        b'"' => At::Text { name: false },
        b'{' | b'[' => {
            if configuration.open.len() >= DEPTH_MAX {
                return None;
            }
            configuration.open.push(byte == b'{');
            if byte == b'{' { At::FirstName } else { At::FirstItem }
        }
        b'-' => At::Number(Number::Minus),
        b'0' => At::Number(Number::Zero),
        b'1'..=b'9' => At::Number(Number::Whole),
        b't' => At::Word("rue"),
        b'f' => At::Word("alse"),
        b'n' => At::Word("ull"),
        _ => return None,
    })
}

fn close(configuration: &mut Configuration, object: bool) -> Option<At> {
    (configuration.open.pop()? == object).then_some(At::After)
}
