//! Sets of HTTP statuses, as configuration writes them: `404`, `4xx`, `200-204`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

/// More ranges than there are classes of statuses are refused where they come from outside.
const RANGES_MAX: usize = 100;

/// Statuses from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StatusRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// A set of statuses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statuses(Vec<StatusRange>);

/// What is wrong with the text of a status range, and the correct form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an HTTP status, a class such as `4xx`, or a range such as `200-204`")]
pub struct NotAStatus(pub String);

impl NotAStatus {
    /// What to write instead.
    pub const REMEDY: &str = "write a status from 100 to 599, `2xx`, or `200-204`";
}

impl Statuses {
    /// The statuses of these ranges.
    pub fn new(ranges: impl IntoIterator<Item = StatusRange>) -> Statuses {
        Statuses(ranges.into_iter().collect())
    }

    /// From 200 to 299.
    pub fn success() -> Statuses {
        Statuses::new([StatusRange { first: 200, last: 299 }])
    }

    /// Statuses of which a retry seldom helps: all below 500 but 408, 425 and 429. Redirects are among them, because they are not followed.
    pub fn not_worth_a_retry() -> Statuses {
        let range = |first, last| StatusRange { first, last };
        Statuses::new([range(100, 407), range(409, 424), range(426, 428), range(430, 499)])
    }

    /// Reads a list of statuses, classes and ranges.
    ///
    /// # Errors
    /// The first that is not one.
    pub fn read<T: AsRef<str>>(texts: &[T]) -> Result<Statuses, NotAStatus> {
        texts.iter().map(|text| text.as_ref().parse()).collect::<Result<Vec<StatusRange>, _>>().map(Statuses)
    }

    /// Reads a text with commas, such as `404, 5xx`. `none` is the empty set.
    ///
    /// # Errors
    /// The first item that is not a status, a class or a range.
    pub fn parse(text: &str) -> Result<Statuses, NotAStatus> {
        if text.trim().eq_ignore_ascii_case("none") {
            return Ok(Statuses::default());
        }
        Statuses::listed(text.split(',').map(str::to_owned))
    }

    /// Reads JSON: a status, a text with commas, or a list of statuses and texts.
    ///
    /// # Errors
    /// The first item that is not a status, a class or a range.
    pub fn of_json(value: &Value) -> Result<Statuses, NotAStatus> {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match value {
            Value::Array(items) => Statuses::listed(items.iter().map(text)),
            Value::String(text) => Statuses::parse(text),
            other => Statuses::listed([text(other)]),
        }
    }

    /// The set of what comes from outside, in order and without repetitions.
    fn listed(texts: impl IntoIterator<Item = String>) -> Result<Statuses, NotAStatus> {
        let mut ranges: Vec<StatusRange> = Vec::new();
        for text in texts {
            if ranges.len() == RANGES_MAX {
                return Err(NotAStatus(text));
            }
            ranges.push(text.parse()?);
        }
        ranges.sort_unstable();
        ranges.dedup();
        Ok(Statuses(ranges))
    }

    /// The lowest status in the set.
    pub fn lowest(&self) -> Option<u16> {
        self.0.iter().map(|range| range.first).min()
    }

    /// Whether a status is one of them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| (range.first..=range.last).contains(&status))
    }

    /// A status that is in both sets.
    pub fn common(&self, other: &Statuses) -> Option<u16> {
        let starts = self.0.iter().chain(&other.0).map(|range| range.first);
        starts.filter(|status| self.contains(*status) && other.contains(*status)).min()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for StatusRange {
    type Err = NotAStatus;

    /// Reads `404`, `4xx` or `200-204`.
    fn from_str(text: &str) -> Result<StatusRange, NotAStatus> {
        let wrong = || NotAStatus(text.to_owned());
        let text = text.trim();
        let status = |text: &str| {
            let digits = text.trim();
            let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u16>().ok());
            number.flatten().filter(|status| (100..600).contains(status)).ok_or_else(wrong)
        };
        if let Some(class) = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
            let first = status(&format!("{class}00"))?;
            return Ok(StatusRange { first, last: first + 99 });
        }
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (status(first)?, status(last)?),
            None => (status(text)?, status(text)?),
        };
        if first <= last { Ok(StatusRange { first, last }) } else { Err(wrong()) }
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StatusRange { first, last } = self;
        if first == last {
            write!(f, "{first}")
        } else if first % 100 == 0 && *last == first + 99 {
            write!(f, "{}xx", first / 100)
        } else {
            write!(f, "{first}-{last}")
        }
    }
}

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

/// As [`Statuses::of_json`].
impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Statuses::of_json(&Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_classes_and_ranges_are_read() {
        for (text, first, last, shown) in [
            ("404", 404, 404, "404"),
            ("4xx", 400, 499, "4xx"),
            ("5XX", 500, 599, "5xx"),
            ("200-204", 200, 204, "200-204"),
            ("200 - 204", 200, 204, "200-204"),
            ("400-499", 400, 499, "4xx"),
        ] {
            let range: StatusRange = text.parse().unwrap();
            assert_eq!(range, StatusRange { first, last });
            assert_eq!(range.to_string(), shown);
        }
        for text in
            ["", "99", "600", "4x", "xx", "0xx", "6xx", "44xx", "4xx-5xx", "204-200", "-1", "+200", "ok"]
        {
            assert_eq!(text.parse::<StatusRange>(), Err(NotAStatus(text.to_owned())));
        }
    }

    #[test]
    fn a_set_has_what_its_ranges_have() {
        let set = Statuses::read(&["400", "410-412", "5xx"]).unwrap();
        for status in 100..700 {
            assert_eq!(set.contains(status), matches!(status, 400 | 410..=412 | 500..=599), "{status}");
            let worth = matches!(status, 408 | 425 | 429 | 500..);
            assert_eq!(Statuses::not_worth_a_retry().contains(status), !worth, "{status}");
        }
        assert_eq!(set.common(&Statuses::success()), None);
        assert_eq!(set.common(&Statuses::read(&["2xx", "412"]).unwrap()), Some(412));
        assert!(Statuses::read::<&str>(&[]).unwrap().is_empty());
    }

    #[test]
    fn sets_are_written_and_read_as_json_and_as_text() {
        let set = Statuses::parse("5xx, 404,400-403, 404 ").unwrap();
        assert_eq!(set.lowest(), Some(400));
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(json, r#"["400-403",404,"5xx"]"#);
        assert_eq!(serde_json::from_str::<Statuses>(&json).unwrap(), set);
        assert_eq!(serde_json::from_str::<Statuses>("404").unwrap(), Statuses::parse("404").unwrap());
        assert_eq!(serde_json::from_str::<Statuses>("[]").unwrap(), Statuses::parse("none").unwrap());
        for text in ["", "404,", "4 04", "1e2", "404;5xx"] {
            assert!(Statuses::parse(text).is_err(), "{text}");
        }
        for json in ["[99]", "[null]", "{}", "[-1]", "true", "70000", "[\"x\"]", "1e2", "[[404]]"] {
            assert!(serde_json::from_str::<Statuses>(json).is_err(), "{json}");
        }
        assert!(Statuses::of_json(&vec!["404"; 1000].into()).is_err());
    }
}
