//! Sets of HTTP statuses, as settings name them: `404`, `4xx`, `400-417`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

/// The lowest status of HTTP.
const STATUS_MIN: u16 = 100;
/// The highest status of HTTP.
const STATUS_MAX: u16 = 599;
/// More ranges than there are classes of statuses are refused where they come from outside.
const RANGES_MAX: usize = 100;

/// A set of HTTP statuses. Written as a list such as `["404", "5xx"]`, as text `404, 5xx`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Statuses(Vec<Range>);

/// Statuses from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Range {
    first: u16,
    last: u16,
}

/// A text that is not a status, a class such as `4xx` or a range such as `400-417`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotStatuses(pub String);

impl Statuses {
    /// The set of what each text names.
    ///
    /// # Errors
    /// The first text that names no statuses, or there are more than anybody needs.
    pub fn of<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Statuses, NotStatuses> {
        let mut ranges = Vec::new();
        for text in texts {
            let text = text.as_ref().trim();
            let range = Range::parse(text).filter(|_| ranges.len() < RANGES_MAX);
            ranges.push(range.ok_or_else(|| NotStatuses(text.to_owned()))?);
        }
        ranges.sort_unstable();
        ranges.dedup();
        Ok(Statuses(ranges))
    }

    /// The set of a text with commas, such as `404, 5xx`. `none` is the empty set.
    ///
    /// # Errors
    /// The first item that names no statuses.
    pub fn parse(text: &str) -> Result<Statuses, NotStatuses> {
        if text.trim().eq_ignore_ascii_case("none") {
            return Ok(Statuses::default());
        }
        Statuses::of(text.split(','))
    }

    /// The set that JSON names: a status, a text with commas, or a list of statuses and texts.
    ///
    /// # Errors
    /// The first item that names no statuses.
    pub fn of_json(value: &Value) -> Result<Statuses, NotStatuses> {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match value {
            Value::Array(items) => Statuses::of(items.iter().map(text)),
            Value::String(text) => Statuses::parse(text),
            other => Statuses::of([text(other)]),
        }
    }

    /// Whether a status is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| (range.first..=range.last).contains(&status))
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The lowest status in the set.
    pub fn lowest(&self) -> Option<u16> {
        self.0.first().map(|range| range.first)
    }

    /// Each member as it is written.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(Range::to_string)
    }
}

impl Range {
    fn parse(text: &str) -> Option<Range> {
        let status = |text: &str| {
            let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            let status = text.parse::<u16>().ok().filter(|_| digits)?;
            (STATUS_MIN..=STATUS_MAX).contains(&status).then_some(status)
        };
        if let Some(class) = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
            let first = status(&format!("{class}00"))?;
            return Some(Range { first, last: first + 99 });
        }
        match text.split_once('-') {
            Some((first, last)) => {
                let (first, last) = (status(first.trim())?, status(last.trim())?);
                (first <= last).then_some(Range { first, last })
            }
            None => status(text).map(|status| Range { first: status, last: status }),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) if first % 100 == 0 && last == first + 99 => write!(f, "{}xx", first / 100),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        f.write_str(&self.texts().collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for NotStatuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a status from 100 to 599, `4xx` or `400-417`", self.0)
    }
}

impl std::error::Error for NotStatuses {}

/// A list; single statuses as numbers.
impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Member {
            Status(u16),
            Range(String),
        }
        serializer.collect_seq(self.0.iter().map(|range| {
            if range.first == range.last {
                Member::Status(range.first)
            } else {
                Member::Range(range.to_string())
            }
        }))
    }
}

/// A status, a text with commas, or a list of statuses and texts.
impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Statuses::of_json(&Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_classes_and_ranges_are_read_and_written() {
        let set = Statuses::parse("5xx, 404,400-403 ").unwrap();
        for (status, expected) in
            [(399, false), (400, true), (403, true), (404, true), (405, false), (503, true)]
        {
            assert_eq!(set.contains(status), expected, "{status}");
        }
        assert_eq!(set.to_string(), "400-403, 404, 5xx");
        assert_eq!(set.lowest(), Some(400));
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(json, r#"["400-403",404,"5xx"]"#);
        assert_eq!(serde_json::from_str::<Statuses>(&json).unwrap(), set);
        assert_eq!(serde_json::from_str::<Statuses>("404").unwrap(), Statuses::parse("404").unwrap());
        assert_eq!(serde_json::from_str::<Statuses>("[]").unwrap(), Statuses::parse("none").unwrap());
        assert_eq!(Statuses::default().to_string(), "none");
    }

    #[test]
    fn what_is_not_a_status_is_refused() {
        for text in [
            "", "99", "600", "4x", "xxx", "0xx", "6xx", "404-400", "404-", "+404", "4 04", "0404", "1e2",
            "404;", "44xx",
        ] {
            assert!(Statuses::parse(text).is_err(), "{text}");
        }
        for json in ["[99]", "[null]", "{}", "[-1]", "true", "70000", "[\"x\"]"] {
            assert!(serde_json::from_str::<Statuses>(json).is_err(), "{json}");
        }
        assert!(Statuses::of(vec!["404"; 1000]).is_err());
    }
}
