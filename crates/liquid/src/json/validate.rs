//! Checking that bytes are one JSON document, in one pass and without allocation.

use super::plain_end;

/// How deep arrays and objects may be nested. Common readers stop between 100 and 1000.
pub(crate) const DEPTH_MAX: usize = 512;

/// Where and why bytes are not one JSON document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// From 0, in bytes.
    pub offset: usize,
    pub message: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at line {} column {}", self.message, self.line, self.column)
    }
}

impl std::error::Error for Fault {}

/// Checks that `bytes` are exactly one JSON document (RFC 8259, UTF-8), nested at most 512 deep.
pub fn validate(bytes: &[u8]) -> Result<(), Fault> {
    if accepts(bytes) {
        return Ok(());
    }
    if let Err(error) = std::str::from_utf8(bytes) {
        return Err(fault(bytes, error.valid_up_to(), "invalid UTF-8"));
    }
    document(bytes).map_err(|(offset, message)| fault(bytes, offset, message))
}

#[cold]
fn fault(bytes: &[u8], offset: usize, message: &str) -> Fault {
    let before = String::from_utf8_lossy(&bytes[..offset.min(bytes.len())]);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    Fault { line, column, offset, message: message.to_owned() }
}

/// Whether this is JSON, told as fast as it can be: answers are numbers that stay in registers, and
/// containers are bits of one word. What is refused here, or nested deeper than a word has bits, is
/// looked at again by [`document`], which tells why or knows better.
fn accepts(bytes: &[u8]) -> bool {
    if !bytes.is_ascii() && std::str::from_utf8(bytes).is_err() {
        return false;
    }
    let (mut open, mut depth) = (0_u64, 0_u32);
    let mut at = space(bytes, 0);
    'value: loop {
        let Some(byte) = bytes.get(at) else {
            return false;
        };
        match byte {
            b'"' => {
                let Some(end) = quick_string(bytes, at + 1) else {
                    return false;
                };
                at = end;
            }
            b'{' | b'[' => {
                let object = *byte == b'{';
                if depth == 63 {
                    return false;
                }
                at = space(bytes, at + 1);
                if bytes.get(at) == Some(if object { &b'}' } else { &b']' }) {
                    at += 1;
                } else {
                    depth += 1;
                    open = open << 1 | u64::from(object);
                    if object {
                        let Some(value) = quick_name(bytes, at) else {
                            return false;
                        };
                        at = value;
                    }
                    continue 'value;
                }
            }
            b'-' | b'0'..=b'9' => {
                let Ok(end) = number(bytes, at) else {
                    return false;
                };
                at = end;
            }
            b't' if bytes[at..].starts_with(b"true") => at += 4,
            b'f' if bytes[at..].starts_with(b"false") => at += 5,
            b'n' if bytes[at..].starts_with(b"null") => at += 4,
            _ => return false,
        }
        loop {
            at = space(bytes, at);
            if depth == 0 {
                return at == bytes.len();
            }
            let object = open & 1 == 1;
            match bytes.get(at) {
                Some(b',') => {
                    at = space(bytes, at + 1);
                    if object {
                        let Some(value) = quick_name(bytes, at) else {
                            return false;
                        };
                        at = value;
                    }
                    continue 'value;
                }
                Some(close) if *close == if object { b'}' } else { b']' } => {
                    open >>= 1;
                    depth -= 1;
                    at += 1;
                }
                _ => return false,
            }
        }
    }
}

#[inline]
fn quick_name(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let at = space(bytes, quick_string(bytes, at + 1)?);
    (bytes.get(at) == Some(&b':')).then(|| space(bytes, at + 1))
}

#[inline]
fn quick_string(bytes: &[u8], from: usize) -> Option<usize> {
    let at = plain_end(bytes, from);
    match bytes.get(at) {
        Some(b'"') => Some(at + 1),
        // Escapes are rare; they are gone through by the slower way.
        Some(b'\\') => string(bytes, at).ok(),
        _ => None,
    }
}

type Place = (usize, &'static str);

/// One bit per open container, set for an object: 512 levels in eight words.
struct Open {
    words: [u64; DEPTH_MAX / 64],
    depth: usize,
}

impl Open {
    #[inline]
    fn push(&mut self, object: bool) -> bool {
        if self.depth == DEPTH_MAX {
            return false;
        }
        let bit = 1 << (self.depth % 64);
        let word = &mut self.words[self.depth / 64];
        *word = if object { *word | bit } else { *word & !bit };
        self.depth += 1;
        true
    }

    #[inline]
    fn in_object(&self) -> bool {
        let last = self.depth - 1;
        self.words[last / 64] >> (last % 64) & 1 == 1
    }
}

fn document(bytes: &[u8]) -> Result<(), Place> {
    let mut open = Open { words: [0; DEPTH_MAX / 64], depth: 0 };
    let mut at = space(bytes, 0);
    'value: loop {
        // A value must stand here.
        match bytes.get(at) {
            Some(b'"') => at = string(bytes, at + 1)?,
            Some(b'{') => {
                if !open.push(true) {
                    return Err((at, "nested deeper than 512 levels"));
                }
                at = space(bytes, at + 1);
                if bytes.get(at) == Some(&b'}') {
                    open.depth -= 1;
                    at += 1;
                } else {
                    at = name(bytes, at, "expected a name in quotes or `}`")?;
                    continue 'value;
                }
            }
            Some(b'[') => {
                if !open.push(false) {
                    return Err((at, "nested deeper than 512 levels"));
                }
                at = space(bytes, at + 1);
                if bytes.get(at) == Some(&b']') {
                    open.depth -= 1;
                    at += 1;
                } else {
                    continue 'value;
                }
            }
            Some(b'-' | b'0'..=b'9') => at = number(bytes, at)?,
            Some(b't') => at = word(bytes, at, b"true")?,
            Some(b'f') => at = word(bytes, at, b"false")?,
            Some(b'n') => at = word(bytes, at, b"null")?,
            Some(_) => return Err((at, "expected a value")),
            None => return Err((at, "the document ends where a value is expected")),
        }
        // A value has ended: close containers until one goes on.
        loop {
            at = space(bytes, at);
            if open.depth == 0 {
                return if at == bytes.len() {
                    Ok(())
                } else {
                    Err((at, "something follows the end of the document"))
                };
            }
            match (bytes.get(at), open.in_object()) {
                (Some(b','), true) => {
                    at = name(bytes, space(bytes, at + 1), "expected a name in quotes")?;
                    continue 'value;
                }
                (Some(b','), false) => {
                    at = space(bytes, at + 1);
                    continue 'value;
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    open.depth -= 1;
                    at += 1;
                }
                (Some(_), true) => return Err((at, "expected `,` or `}`")),
                (Some(_), false) => return Err((at, "expected `,` or `]`")),
                (None, true) => return Err((at, "the document ends inside an object")),
                (None, false) => return Err((at, "the document ends inside an array")),
            }
        }
    }
}

#[inline]
fn space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

/// A name, its colon, and the space around; returns where the value must begin.
#[inline]
fn name(bytes: &[u8], at: usize, expected: &'static str) -> Result<usize, Place> {
    if bytes.get(at) != Some(&b'"') {
        return Err((at, expected));
    }
    let at = space(bytes, string(bytes, at + 1)?);
    if bytes.get(at) != Some(&b':') {
        return Err((at, "expected `:` after the name"));
    }
    Ok(space(bytes, at + 1))
}

/// The rest of a string after its opening quote; returns the place after the closing one.
#[inline]
fn string(bytes: &[u8], from: usize) -> Result<usize, Place> {
    let mut at = from;
    loop {
        at = plain_end(bytes, at);
        match bytes.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => match bytes.get(at + 1) {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => at += 2,
                Some(b'u') => {
                    let hex = bytes.get(at + 2..at + 6);
                    if !hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) {
                        return Err((at, "`\\u` needs four hexadecimal digits"));
                    }
                    at += 6;
                }
                Some(_) => return Err((at, "unknown escape in a string")),
                None => return Err((at, "the document ends inside a string")),
            },
            Some(_) => return Err((at, "a control character in a string must be escaped")),
            None => return Err((at, "the document ends inside a string")),
        }
    }
}

#[inline]
fn number(bytes: &[u8], from: usize) -> Result<usize, Place> {
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let mut at = from + usize::from(bytes[from] == b'-');
    match bytes.get(at) {
        Some(b'0') => at += 1,
        Some(b'1'..=b'9') => at = digits(at + 1),
        _ => return Err((at, "expected a digit")),
    }
    if bytes.get(at) == Some(&b'.') {
        let end = digits(at + 1);
        if end == at + 1 {
            return Err((end, "expected a digit after the decimal point"));
        }
        at = end;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        let start = at + 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let end = digits(start);
        if end == start {
            return Err((end, "expected a digit in the exponent"));
        }
        at = end;
    }
    match bytes.get(at) {
        Some(b'0'..=b'9') => Err((at, "a number must not begin with `0`")),
        _ => Ok(at),
    }
}

#[inline]
fn word(bytes: &[u8], at: usize, expected: &'static [u8]) -> Result<usize, Place> {
    if bytes[at..].starts_with(expected) {
        Ok(at + expected.len())
    } else {
        Err((at, "expected a value (`true`, `false` and `null` are the only bare words)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_told_from_others() {
        let good = [
            "{}",
            "[]",
            " [ ] ",
            "0",
            "-0.5e+10",
            "\"\"",
            "\"\\u00e9\\n\"",
            "null",
            "[1,[2,{\"a\":[]}],3]",
            "{\"a\":1,\"b\":{\"c\":null}}",
            "\"\u{2028}\"",
            "1E5",
        ];
        for text in good {
            assert_eq!(validate(text.as_bytes()), Ok(()), "{text}");
        }
        let bad = [
            ("", 0),
            ("{", 1),
            ("[1,]", 3),
            ("{\"a\":1,}", 7),
            ("{a:1}", 1),
            ("01", 1),
            ("1 2", 2),
            ("\"a", 2),
            ("\"\t\"", 1),
            ("\"\\x\"", 1),
            ("\"\\u12\"", 1),
            ("nul", 0),
            ("[1 2]", 3),
            ("{\"a\" 1}", 5),
            ("1.", 2),
            ("1e", 2),
            ("-", 1),
            ("]", 0),
            ("{]", 1),
            ("[}", 1),
            ("+1", 0),
            (".5", 0),
            ("NaN", 0),
            ("'a'", 0),
            ("[1}", 2),
            ("tru e", 0),
        ];
        for (text, offset) in bad {
            assert_eq!(validate(text.as_bytes()).map_err(|f| f.offset), Err(offset), "{text}");
        }
    }

    #[test]
    fn faults_carry_line_and_column_in_characters() {
        let fault = validate("{\n  \"é\": x\n}".as_bytes()).expect_err("it is refused");
        assert_eq!((fault.line, fault.column, fault.offset), (2, 8, 10));
        assert_eq!(validate(b"\"\xff\"").expect_err("it is refused").message, "invalid UTF-8");
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert_eq!(validate(deep(512).as_bytes()), Ok(()));
        assert_eq!(validate(deep(513).as_bytes()).expect_err("it is refused").offset, 512);
    }
}
