//! The settings of a client, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::kit::setting::{Secret, Span};
use crate::kit::tls::TlsSettings;

/// How requests are made.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "HttpClient")]
pub struct ClientConfig {
    /// The proxy for `http` URLs, such as `http://user:password@proxy:3128`. Default: none; variables of the environment such as
    /// `http_proxy` do not count. Behind a proxy it is the proxy that looks names up: which addresses it may reach is its own business.
    pub proxy: Option<Secret>,
    /// The proxy for `https` URLs, which it passes through (`CONNECT`) without reading them. Default: none.
    pub https_proxy: Option<Secret>,
    /// Hosts that are reached without a proxy: names, `.domain` or `*.domain` for all below one, addresses, networks in CIDR form.
    /// Default: none.
    pub no_proxy: Vec<String>,
    /// How servers are recognised, and our certificate.
    pub tls: Option<TlsSettings>,
    /// How long connecting may take. Default: `5s`.
    pub connect_timeout: Option<Span>,
    /// How many unused connections to one host are kept. Default: 256. `0`: every request gets its own.
    pub max_sessions: Option<usize>,
    /// How long an unused connection is kept. Default: `30s`. Longer than the servers keep theirs, and requests find closed ones.
    pub keep_alive_timeout: Option<Span>,
}

/// Settings for some callbacks.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "HttpClientFor")]
pub struct ClientFor {
    /// Beginnings of the URLs that these settings are for, such as `https://partner.example/hooks/`. The first entry that fits counts.
    pub urls: Vec<String>,
    /// The settings, in the place of the others: what is not given here has its default.
    pub client: ClientConfig,
}
