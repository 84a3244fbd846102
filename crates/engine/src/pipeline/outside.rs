//! What steps ask of the outside, and what they are answered; the words of the ports
//! [`HttpCaller`](crate::ports::HttpCaller), [`CommandRunner`](crate::ports::CommandRunner) and
//! [`SqlExecutor`](crate::ports::SqlExecutor).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};
use warren_liquid::json;

use crate::row::Batch;
use crate::sync::view::with_val;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A text that is never shown, asked for each time it is used: a file may hold another one by then.
#[derive(Clone)]
pub struct HiddenSource(Arc<dyn Fn() -> Hidden + Send + Sync>);

impl HiddenSource {
    /// The text that `read` yields.
    pub fn new(read: impl Fn() -> Hidden + Send + Sync + 'static) -> HiddenSource {
        HiddenSource(Arc::new(read))
    }

    /// The text as it is now.
    pub fn now(&self) -> Hidden {
        (self.0)()
    }
}

impl fmt::Debug for HiddenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// Such as `POST`.
    pub method: String,
    /// An absolute `http` or `https` URL.
    pub url: String,
    /// Names and values, in order.
    pub headers: Vec<(String, String)>,
    /// The value of `Authorization`, which is told to nobody else.
    pub authorization: Option<Hidden>,
    /// The body.
    pub body: Bytes,
    /// Where the URL was made from message data: which addresses it may lead to besides public ones.
    pub guard: Option<AddressGuard>,
    /// The largest body of an answer that is read.
    pub answer_bytes_max: usize,
    /// How it is made; the default is how steps make theirs.
    pub options: CallOptions,
}

/// How a request is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallOptions {
    /// How long connecting may take, from the name's look-up to the end of the TLS handshake; `None`: the caller's own.
    pub connect_timeout: Option<Duration>,
    /// How long all of it may take, to the end of the answer; `None`: whoever calls sees to that.
    pub timeout: Option<Duration>,
    /// Of a successful answer that is larger than may be read, the rest is ignored; otherwise it is an error.
    pub cut_answer: bool,
    /// A connection that was used before and ends before a byte of the answer came is taken for one that the server had closed: the
    /// request is made once more, on a fresh one. For receivers that know a repetition by its id.
    pub again_if_stale: bool,
}

/// Keeps a URL that others had a hand in away from private addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressGuard {
    /// Hosts, addresses, networks in CIDR form, and beginnings of URLs, that are allowed all the same.
    pub allow: Vec<String>,
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpAnswer {
    /// Such as 201.
    pub status: u16,
    /// Names in lower case and values, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl HttpAnswer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// A command with what it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// The program: a path, or a name that is looked up in `PATH`. No shell is involved.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables of its environment beside the few that every command gets.
    pub environment: Vec<(String, Hidden)>,
    /// What it reads from stdin.
    pub stdin: Bytes,
    /// The most bytes of stdout that are read, and of stderr that are kept.
    pub output_bytes_max: usize,
}

/// How a command ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandEnd {
    /// The exit code.
    pub code: i32,
    /// What it wrote.
    pub stdout: Bytes,
    /// The beginning of what it wrote to stderr.
    pub stderr: Bytes,
}

/// A statement with its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlCall {
    /// The statement, with the database's own placeholders.
    pub statement: String,
    /// One set of parameters for each time it is executed.
    pub parameters: Vec<Vec<Value>>,
    /// How long the server may work on it.
    pub timeout: Duration,
    /// The most rows that are read.
    pub rows_max: usize,
}

/// What a statement gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SqlAnswer {
    /// The rows of all executions, each an object by the names of the columns.
    pub rows: Vec<Value>,
    /// The rows that were added, changed or removed.
    pub affected: u64,
}

/// Rows as JSON objects by the names of their columns. What JSON cannot hold (NaN, an infinity) is null.
pub fn json_rows(names: &[String], batch: &Batch) -> Vec<Value> {
    let mut text = Vec::new();
    let mut rows = Vec::with_capacity(batch.len());
    for row in batch.rows() {
        let mut object = Map::new();
        for (name, value) in names.iter().zip(row.values()) {
            text.clear();
            let written = with_val(value, true, |val| json::write_value(val, &mut text));
            let value = written.ok().and_then(|()| serde_json::from_slice(&text).ok());
            object.insert(name.clone(), value.unwrap_or_default());
        }
        rows.push(Value::Object(object));
    }
    rows
}
