//! Whether a URL lies under a URL prefix that a setting allows, however its path is encoded.
//!
//! A URL is parsed before it is compared, so `..` and `%2e%2e` are resolved by then. What the parser leaves alone, many servers decode
//! all the same: `..%2f`, `..%5c`, `%252e%252e/`, `..;/`, overlong UTF-8, full-width characters. A path that has a parent segment (`..`) in any
//! of these forms is under no prefix other than a whole host.

use url::Url;

/// How often a path is decoded. A path that still changes afterwards is under no prefix.
const DECODINGS_MAX: usize = 8;

/// Whether a URL has the scheme, host and port of a prefix, and a path that begins with its path, at the end of a segment, and does not
/// leave it when it is decoded.
pub fn holds(prefix: &Url, url: &Url) -> bool {
    let same = url.scheme() == prefix.scheme()
        && url.host() == prefix.host()
        && url.port_or_known_default() == prefix.port_or_known_default();
    let start = prefix.path();
    let Some(rest) = url.path().strip_prefix(start).filter(|_| same) else { return false };
    let at_boundary = rest.is_empty() || start.ends_with('/') || rest.starts_with('/');
    // Nothing is above the root.
    at_boundary && (matches!(start, "" | "/") || !may_ascend(rest))
}

/// Whether a server may read a path, or a part of one that begins at a segment, as leading to a parent of where it begins.
pub fn may_ascend(path: &str) -> bool {
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..DECODINGS_MAX {
        if has_overlong(&bytes) {
            return true;
        }
        let folded: String = String::from_utf8_lossy(&bytes).chars().map(folded).collect();
        let folded = folded.replace('‥', "..");
        // A server may end the path at a NUL, and white space or a line break is removed by some.
        if folded.chars().any(char::is_control) || folded.split('/').any(is_parent) {
            return true;
        }
        let decoded = decoded(&bytes);
        if decoded == bytes {
            return false;
        }
        bytes = decoded;
    }
    true
}

/// Whether a segment is `..`: parameters (`..;x=1`) and white space at its ends do not count, as servers remove them.
fn is_parent(segment: &str) -> bool {
    segment.split(';').next().unwrap_or_default().trim() == ".."
}

/// Characters that stand for a dot, a slash or a semicolon: the backslash, and look-alikes that compatibility normalisation (NFKC) or a
/// "best fit" conversion makes one of them.
fn folded(char: char) -> char {
    match char {
        '\\' | '／' | '＼' | '﹨' | '⁄' | '∕' | '∖' | '⧵' | '⧸' | '⧹' => '/',
        '．' | '․' | '﹒' | '。' | '｡' => '.',
        '；' => ';',
        other => other,
    }
}

/// Whether bytes have a character in more bytes than it needs, which UTF-8 forbids and lenient servers read: `%c0%ae` as `.`.
fn has_overlong(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| match pair[0] {
        0xC0 | 0xC1 => matches!(pair[1], 0x80..=0xBF),
        0xE0 => matches!(pair[1], 0x80..=0x9F),
        0xF0 => matches!(pair[1], 0x80..=0x8F),
        _ => false,
    })
}

/// Percent-decodes once: `%2e`, and `%u002e`, which some servers know. What is not such an escape stays.
fn decoded(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            if let Some(byte) = hex(after, 2).and_then(|value| u8::try_from(value).ok()) {
                decoded.push(byte);
                rest = &after[2..];
                continue;
            }
            if let Some(b'u' | b'U') = after.first()
                && let Some(char) = hex(&after[1..], 4).and_then(char::from_u32)
            {
                let mut buffer = [0; 4];
                decoded.extend_from_slice(char.encode_utf8(&mut buffer).as_bytes());
                rest = &after[5..];
                continue;
            }
        }
        decoded.push(first);
        rest = after;
    }
    decoded
}

/// The number that so many hexadecimal digits make.
fn hex(bytes: &[u8], digits: usize) -> Option<u32> {
    let text = bytes.get(..digits)?;
    if !text.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_under(url: &str, prefix: &str) -> bool {
        holds(&Url::parse(prefix).unwrap(), &Url::parse(url).unwrap())
    }

    #[test]
    fn a_url_is_under_a_prefix_at_the_end_of_a_segment() {
        let prefix = "http://in.example:8080/hooks";
        for url in [
            "http://in.example:8080/hooks/1",
            "http://in.example:8080/hooks?x",
            "HTTP://IN.EXAMPLE:8080/hooks",
        ] {
            assert!(is_under(url, prefix), "{url}");
        }
        for url in [
            "http://in.example:8080/hooksx",
            "http://in.example/hooks/1",
            "https://in.example:8080/hooks/1",
            "http://in.example:8080/hooks/../admin",
            "http://in.example.evil:8080/hooks/1",
        ] {
            assert!(!is_under(url, prefix), "{url}");
        }
        assert!(is_under("https://h/any", "https://h") && is_under("https://h:443/a/b", "https://h/a/"));
    }

    #[test]
    fn a_parent_segment_in_any_encoding_leaves_the_prefix() {
        for rest in [
            "../admin",
            "%2e%2e/admin",
            ".%2e/admin",
            "%2E./admin",
            "..%2fadmin",
            "..%2Fadmin",
            "%2e%2e%2fadmin",
            "..%5cadmin",
            "..%5Cadmin",
            "..\\admin",
            "..%252fadmin",
            "%252e%252e/admin",
            "%25252e%25252e%25252fadmin",
            "a%2f..%2f..%2fadmin",
            "a//..%2f..%2fadmin",
            "%2f..%2fadmin",
            "..;/admin",
            "..;a=b%2fadmin",
            "..%3b/admin",
            "%2e%2e%3Bx/admin",
            "..%20/admin",
            "..%00/admin",
            "ok%00",
            "..%0d%0a/admin",
            "%c0%ae%c0%ae/admin",
            "..%c0%afadmin",
            "..%e0%80%afadmin",
            "..%f0%80%80%afadmin",
            "%ef%bc%8e%ef%bc%8e/admin",
            "．．/admin",
            "‥/admin",
            "..／admin",
            "..＼admin",
            "..∕admin",
            "%u002e%u002e%u2215admin",
            "..%u002fadmin",
            "..%25u002fadmin",
            "x/..%2f",
            "x/..%2f..",
            "..%2f",
            "a/%2e%2e%2fb",
        ] {
            for prefix in ["http://h/hooks/", "http://h/hooks"] {
                assert!(!is_under(&format!("http://h/hooks/{rest}"), prefix), "{rest} under {prefix}");
            }
        }
        let nested = format!("http://h/hooks/%{}2e%{}2e/x", "25".repeat(500), "25".repeat(500));
        assert!(!is_under(&nested, "http://h/hooks/"), "decoded more often than anybody needs");
    }

    #[test]
    fn other_escapes_stay_under_the_prefix() {
        for rest in [
            "",
            "a",
            "a%2fb",
            "a%2Fb%5cc",
            "a//b",
            "...",
            "..a",
            "a..",
            "a..b/c",
            ".hidden",
            "%2ehidden",
            "a;x=..",
            "100%",
            "100%25",
            "%e9t%e9",
            "%c3%a9",
            "%zz",
            "a%20b",
            "？",
            "..%41",
        ] {
            assert!(is_under(&format!("http://h/hooks/{rest}"), "http://h/hooks/"), "{rest}");
        }
        assert!(is_under("http://h/..%2fadmin", "http://h/"), "nothing is above the root");
    }

    proptest! {
        #[test]
        fn any_path_is_judged(path in ".*") {
            may_ascend(&path);
        }

        /// As a server would: decoded some times, split, resolved.
        #[test]
        fn what_is_under_a_prefix_stays_there_when_it_is_decoded(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("."), Just(".."), Just("/"), Just("%2e"), Just("%2f"), Just("%5c"), Just("%25"), Just("2e"),
                    Just("2f"), Just("a"), Just(";"), Just("%3b"), Just("\\"), Just("%00"),
                ],
                0..12,
            ),
            times in 0usize..4,
        ) {
            let url = Url::parse(&format!("http://h/hooks/{}", parts.concat())).unwrap();
            if holds(&Url::parse("http://h/hooks/").unwrap(), &url) {
                let mut path = url.path().as_bytes().to_vec();
                for _ in 0..times {
                    path = decoded(&path);
                }
                let path = String::from_utf8_lossy(&path).replace('\\', "/");
                let mut resolved = Vec::new();
                for segment in path.split('/').filter(|segment| !segment.is_empty()) {
                    match segment.split(';').next().unwrap() {
                        ".." => drop(resolved.pop()),
                        "." => {}
                        _ => resolved.push(segment),
                    }
                }
                prop_assert_eq!(resolved.first(), Some(&"hooks"), "{}", url);
            }
        }
    }
}
