//! The settings of a client, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::kit::setting::{Secret, Span};
use crate::kit::tls::TlsSettings;

/// How HTTP requests are made.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "HttpClient")]
pub struct ClientConfig {
    /// The proxy for `http` URLs, such as `http://user:password@proxy:3128`. Default: none; environment
    /// variables such as `http_proxy` are ignored. A proxy resolves names itself, so the proxy decides which
    /// addresses can be reached.
    pub proxy: Option<Secret>,
    /// The proxy for `https` URLs. It forwards the encrypted connection (`CONNECT`) without reading it.
    /// Default: none.
    pub https_proxy: Option<Secret>,
    /// Hosts that are reached without a proxy: names, `.domain` or `*.domain` for all names below a domain,
    /// addresses, and networks in CIDR form. Default: none.
    pub no_proxy: Vec<String>,
    /// How servers' certificates are checked, and the client certificate.
    pub tls: Option<TlsSettings>,
    /// The maximum time for connecting. Default: `5s`.
    pub connect_timeout: Option<Span>,
    /// The maximum number of idle connections to one host that are kept. Default: 256. `0`: every request
    /// opens its own connection.
    pub max_sessions: Option<usize>,
    /// How long an idle connection is kept. Default: `30s`. If this is longer than the server keeps its side
    /// open, requests meet closed connections.
    pub keep_alive_timeout: Option<Span>,
}

/// Client settings for some callbacks.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "HttpClientFor")]
pub struct ClientFor {
    /// The URL prefixes that these settings apply to, such as `https://partner.example/hooks/`. The first
    /// matching entry applies.
    pub urls: Vec<String>,
    /// The settings. They replace the general ones completely: a key that is not given here has its default.
    pub client: ClientConfig,
}
