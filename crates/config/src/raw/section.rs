//! The sections that are small: models and state.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use warren_connectors::kit::setting::{Secret, Size, Span};

/// A query with its key over a source. Exactly one of `sql`, `file` and `table` says what is read.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Model")]
pub struct RawModel {
    /// The source that is queried: a name under `sources`.
    pub source: String,
    /// The column, or the list of columns, that tells one row from another. A row whose key is NULL or occurs twice is
    /// rejected and reported; the others go on. A key that changes for the same thing makes a removal and an addition of
    /// every change.
    pub primary_key: Names,
    /// The query, run in full for each run, in a transaction that cannot write. `${…}` is filled in here as everywhere; write
    /// `$${` for the characters themselves.
    pub sql: Option<String>,
    /// A file that holds the query, relative to the file this stands in. It is taken as it is: nothing is filled in.
    #[schemars(extend("format" = "path"))]
    pub file: Option<String>,
    /// A table or view, read whole: `customers`, or `public.customers` with its schema. Names are quoted, so upper and lower case
    /// must be as in the database; for names with a dot in them write `sql`.
    pub table: Option<String>,
    /// The longest the query may take, its reading included. Default: what the source's settings say, usually no limit.
    /// Too short, and a run over a large table never finishes; without any, a query that hangs holds the sync.
    pub timeout: Option<Span>,
}

/// What Warren remembers, and where.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "State")]
pub struct RawState {
    /// The folder for baselines, runs and embedded brokers. Default: `.warren` beside the configuration. It must be on a
    /// local disk with room for 32 bytes a row, and the rows themselves unless `keep_rows: false`. Losing it means that
    /// the next run begins as a first run.
    #[schemars(extend("format" = "path"))]
    pub folder: Option<String>,
    /// The record of what was sent and answered, row by row, and of what became of each message.
    pub record: RawRecord,
    /// How long `warren serve` waits, when it is told to stop, for messages that are being handled; the others go back to their
    /// queues at once, and these after it. Default: `30s`. Shorter, and slow messages run again after each restart; a service manager
    /// must wait a little longer than this.
    pub shutdown_grace: Option<Span>,
}

/// Where Warren listens.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Listener")]
pub struct RawListener {
    /// The address and port of the hub, its API, and of `/metrics`, `/healthz` and `/readyz`, which ask for no login. Default:
    /// `127.0.0.1:15670`, reached from this machine only.
    #[schemars(extend("x-public" = true))]
    pub listen: Option<String>,
    /// HTTPS instead of HTTP. Default: HTTP, for this machine or a proxy in front; logins go over it.
    pub tls: Option<RawServerTls>,
    /// Proxies in front that tell the address of the client in `X-Forwarded-For`: addresses, or networks such as `10.0.0.0/8`. Failed
    /// logins are limited by client address. Default: none; the address of the connection counts, and without this setting all
    /// clients of a proxy share one limit. Name no address that clients connect from: they could claim any address.
    pub trusted_proxies: Vec<String>,
}

/// Our certificate as a server. Each is the path of a PEM file, or the PEM text itself.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "ServerTls")]
pub struct RawServerTls {
    /// The certificate, with the chain up to the authority after it.
    #[schemars(extend("format" = "path"))]
    pub cert: String,
    /// Its private key, unencrypted.
    #[schemars(extend("format" = "path"))]
    pub key: Secret,
}

/// How long the record of what was sent is kept. Whatever comes first removes the oldest rows; the runs themselves stay.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Record")]
pub struct RawRecord {
    /// How long a row's outcome is kept. Default: `7d`. Longer costs disk; shorter, and `warren explain` cannot say what
    /// happened last week.
    pub keep: Option<Span>,
    /// The most disk it takes. Default: `1GiB`. Messages are kept as sent, so a million of 500 bytes are about half of that.
    pub size: Option<Size>,
    /// Whether the bodies of consumed messages are kept in the record. Default: true. Without them a message cannot be replayed.
    pub bodies: Option<bool>,
}

/// One name or a list of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name or a list of names")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Names, E> {
        Ok(Names(vec![name.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Names, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = items.next_element()? {
            names.push(name);
        }
        Ok(Names(names))
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamesVisitor)
    }
}

impl JsonSchema for Names {
    fn schema_name() -> Cow<'static, str> {
        "Names".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
        ] })
    }
}
