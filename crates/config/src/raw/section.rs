//! The small sections: models, state and the HTTP listener.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use warren_connectors::kit::setting::{Secret, Size, Span};

/// A query over a source, with its key. Exactly one of `sql`, `file` and `table` states what to read.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Model")]
pub struct RawModel {
    /// The source to query: a name under `sources`.
    pub source: String,
    /// The column, or the list of columns, that identifies a row. A row whose key is NULL or occurs twice is
    /// rejected and reported; the other rows are processed. If the key of a thing can change, each such
    /// change becomes a removal and an addition.
    pub primary_key: Names,
    /// The query. Each run executes it in full, in a read-only transaction. `${…}` is filled in; write `$${`
    /// for a literal `${`.
    pub sql: Option<String>,
    /// A file that contains the query, relative to this configuration file. It is used as it is: `${…}` is
    /// not filled in.
    #[schemars(extend("format" = "path"))]
    pub file: Option<String>,
    /// A table or view that is read as a whole: `customers`, or `public.customers` with its schema. Names are
    /// quoted, so upper and lower case must match the database. For a name that contains a dot, use `sql`.
    pub table: Option<String>,
    /// The maximum duration of the query, including reading its rows. Default: the source's setting, usually
    /// no limit. If it is too short, a run over a large table never finishes. Without a limit, a query that
    /// hangs blocks the sync.
    pub timeout: Option<Span>,
}

/// What Warren stores, and where.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "State")]
pub struct RawState {
    /// The folder for baselines, runs and embedded brokers. Default: `.warren` next to the configuration. It
    /// must be on a local disk, with room for 32 bytes per row, plus the rows themselves unless
    /// `keep_rows: false`. If the folder is lost, the next run is a first run.
    #[schemars(extend("format" = "path"))]
    pub folder: Option<String>,
    /// The record of what was sent and answered, row by row, and of the outcome of each message.
    pub record: RawRecord,
    /// How long `warren serve` waits at shutdown for messages that are being handled. All other messages
    /// return to their queues at once; messages that are still being handled after this time return then.
    /// Default: `30s`. If it is shorter, slow messages run again after each restart. The service manager must
    /// wait a little longer than this.
    pub shutdown_grace: Option<Span>,
}

/// The HTTP server of Warren.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Listener")]
pub struct RawListener {
    /// The address and port of the hub, its API, and `/metrics`, `/healthz` and `/readyz`. The last three
    /// require no login. Default: `127.0.0.1:15670`, reachable from this machine only.
    #[schemars(extend("x-public" = true))]
    pub listen: Option<String>,
    /// Serves HTTPS instead of HTTP. Default: HTTP. Logins are then sent unencrypted, so use HTTP only on
    /// this machine or behind a proxy.
    pub tls: Option<RawServerTls>,
    /// Proxies that report the client's address in `X-Forwarded-For`: addresses, or networks such as
    /// `10.0.0.0/8`. Failed logins are limited by client address. Default: none: the address of the
    /// connection is used, so all clients of a proxy share one limit. Do not list an address that clients
    /// connect from: they could claim any address.
    pub trusted_proxies: Vec<String>,
}

/// The server's certificate. Each key is the path of a PEM file, or the PEM text itself.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "ServerTls")]
pub struct RawServerTls {
    /// The certificate, followed by its chain up to the CA.
    #[schemars(extend("format" = "path"))]
    pub cert: String,
    /// The private key of `cert`, unencrypted.
    #[schemars(extend("format" = "path"))]
    pub key: Secret,
}

/// How long the record of what was sent is kept. The bound that is reached first removes the oldest rows. The
/// runs themselves are kept.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Record")]
pub struct RawRecord {
    /// How long a row's outcome is kept. Default: `7d`. A longer time uses more disk. With a shorter time,
    /// `warren explain` cannot show what happened last week.
    pub keep: Option<Span>,
    /// The maximum size of the record on disk. Default: `1GiB`. Messages are stored as sent: a million
    /// messages of 500 bytes use about half of that.
    pub size: Option<Size>,
    /// Whether the record contains the bodies of consumed messages. Default: true. A message without its body
    /// in the record cannot be replayed.
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
