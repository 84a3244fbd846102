//! The settings of SQS, as written and as checked.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use crate::kit::address::no_controls;
use crate::kit::renew::Renew;
use crate::kit::setting::{Misfit, Secret, Span};

/// Amazon SQS, in one region, or a server that speaks its JSON protocol.
///
/// The credentials come from `access_key`, or else from AWS's own chain: environment, profile, web identity,
/// container, instance. With `assume_role`, these credentials are used only to assume the role.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The region, such as `eu-west-1`. Default: the region of the environment or profile (`AWS_REGION`).
    #[schemars(extend("x-public" = true))]
    pub region: Option<String>,
    /// An access key. Default: AWS's chain, which needs no secret in the configuration.
    pub access_key: Option<AccessKey>,
    /// A role to assume, which may belong to another account. Its credentials are renewed before they expire.
    pub assume_role: Option<AssumeRole>,
    /// The URL of SQS, for a VPC endpoint or your own server: `http://localhost:4566`. Default: Amazon's URL
    /// for the region.
    #[schemars(extend("x-public" = true))]
    pub endpoint_url: Option<String>,
    /// The maximum number of concurrent requests, each with up to ten messages. Default: 64. While SQS
    /// throttles, fewer are used. More requests make a distant region faster, and use one connection each.
    #[schemars(range(min = 1, max = 1000))]
    pub concurrency: Option<u16>,
    /// The maximum time for connecting. Default: 5s.
    #[schemars(extend("x-least" = "1ms"))]
    pub connect_timeout: Option<Span>,
    /// How long a request waits for its answer. After that its outcome is unknown, and its messages are sent
    /// again. Default: 30s. If it is too short, a slow SQS causes duplicates.
    #[schemars(extend("x-least" = "1ms"))]
    pub publish_timeout: Option<Span>,
    /// How many messages of one FIFO group one request contains. Default: 1, which keeps the order of a group
    /// whatever fails. More messages make a group faster, but **if one message of a request is refused, the
    /// messages behind it may overtake it**.
    #[schemars(range(min = 1, max = 10))]
    pub group_batch: Option<u16>,
    /// How long a received message is hidden from other consumers. Warren extends this time automatically
    /// while it handles the message. Default: 60s. If the process is killed, a message that it was handling
    /// waits for this time.
    #[schemars(extend("x-least" = "2s", "x-most" = "12h"))]
    pub visibility_timeout: Option<Span>,
    /// How long a receive request waits for a message. Default: 10s. A longer time makes fewer requests; a
    /// shutdown may take as long as this.
    #[schemars(extend("x-least" = "0s", "x-most" = "20s"))]
    pub wait_time: Option<Span>,
    /// How the settings are read again before each login.
    #[serde(skip)]
    #[schemars(skip)]
    pub renew: Renew<Config>,
}

/// An access key of a user.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    /// The id of the key, such as `AKIA…`.
    pub id: String,
    /// The secret of the key.
    pub secret: Secret,
    /// The session token of a temporary key. Default: none.
    pub session_token: Option<Secret>,
}

/// A role to assume.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssumeRole {
    /// The ARN of the role: `arn:aws:iam::123456789012:role/warren`.
    pub role_arn: String,
    /// The external id that the role's trust policy requires, so that no third party can make Warren use the
    /// role. Default: none.
    pub external_id: Option<String>,
    /// The name of the session in AWS's logs. Default: `warren`.
    pub session_name: Option<String>,
    /// The URL of STS. Default: Amazon's URL for the region; if `endpoint_url` is not Amazon's, that URL.
    pub sts_endpoint_url: Option<String>,
}

/// Where to connect, and with which settings. Made from a checked [`Config`].
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) region: Option<String>,
    pub(crate) access_key: Option<AccessKey>,
    pub(crate) assume_role: Option<AssumeRole>,
    pub(crate) endpoint: Option<String>,
    pub(crate) sts_endpoint: Option<String>,
    pub(crate) concurrency: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) publish_timeout: Duration,
    pub(crate) group_batch: usize,
    pub(crate) visibility_timeout: Duration,
    pub(crate) wait_time: Duration,
    /// How the access key is read again.
    pub(crate) renew: Renew<Config>,
}

const CONCURRENCY: u16 = 64;
const CONCURRENCY_MAX: u16 = 1000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(60);
/// The limit of SQS.
const VISIBILITY_TIMEOUT_MAX: Duration = Duration::from_secs(12 * 60 * 60);
const WAIT_TIME: Duration = Duration::from_secs(10);
const WAIT_TIME_MAX: Duration = Duration::from_secs(20);
/// With a shorter time, an extension comes too late on a busy machine.
const VISIBILITY_TIMEOUT_MIN: Duration = Duration::from_secs(2);

impl Config {
    /// The first setting that cannot be used.
    pub(crate) fn faults(&self) -> Vec<Misfit> {
        self.target().err().map(Misfit::from).into_iter().collect()
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// A setting that is wrong.
    pub(crate) fn target(&self) -> Result<Target, Failure> {
        self.no_controls()?;
        let concurrency = within("concurrency", self.concurrency.unwrap_or(CONCURRENCY), CONCURRENCY_MAX)?;
        let group_batch = within("group_batch", self.group_batch.unwrap_or(1), 10)?;
        if self.region.as_deref().is_some_and(|region| region.trim().is_empty()) {
            return Err(wrong("region", "it is empty", "Name a region, such as `eu-west-1`."));
        }
        let endpoint = self.endpoint_url.as_deref().map(|url| address("endpoint_url", url)).transpose()?;
        let role = self.assume_role.as_ref();
        let sts = role.and_then(|role| role.sts_endpoint_url.as_deref());
        let sts = sts.map(|url| address("assume_role.sts_endpoint_url", url)).transpose()?;
        if let Some(role) = role {
            let parts: Vec<&str> = role.role_arn.split(':').collect();
            let is_role =
                parts.len() >= 6 && parts[0] == "arn" && parts[2] == "iam" && parts[5].starts_with("role/");
            if !is_role {
                let remedy = "Write it as `arn:aws:iam::123456789012:role/NAME`.";
                return Err(wrong("assume_role.role_arn", "it is not the ARN of a role", remedy));
            }
        }
        let sts = sts.or_else(|| endpoint.clone().filter(|url| !is_amazons(url)));
        let visibility_timeout = self.visibility_timeout.map_or(VISIBILITY_TIMEOUT, |span| span.0);
        if !(VISIBILITY_TIMEOUT_MIN..=VISIBILITY_TIMEOUT_MAX).contains(&visibility_timeout) {
            return Err(wrong("visibility_timeout", "it is out of range", "Give 2s to 12h."));
        }
        let wait_time = self.wait_time.map_or(WAIT_TIME, |span| span.0);
        if wait_time > WAIT_TIME_MAX {
            return Err(wrong("wait_time", "it is longer than SQS waits", "Give at most 20s."));
        }
        Ok(Target {
            region: self.region.clone(),
            access_key: self.access_key.clone(),
            assume_role: self.assume_role.clone(),
            endpoint: endpoint.map(|url| url.as_str().trim_end_matches('/').to_owned()),
            sts_endpoint: sts.map(String::from),
            concurrency,
            connect_timeout: positive("connect_timeout", self.connect_timeout, CONNECT_TIMEOUT)?,
            publish_timeout: positive("publish_timeout", self.publish_timeout, PUBLISH_TIMEOUT)?,
            group_batch,
            visibility_timeout,
            wait_time,
            renew: self.renew.clone(),
        })
    }
}

impl Config {
    /// Requests with control characters in one of these are refused, some as if the key were wrong.
    fn no_controls(&self) -> Result<(), Failure> {
        let (key, role) = (self.access_key.as_ref(), self.assume_role.as_ref());
        let texts = [
            ("region", self.region.as_deref()),
            ("endpoint_url", self.endpoint_url.as_deref()),
            ("access_key.id", key.map(|key| &*key.id)),
            ("access_key.secret", key.map(|key| key.secret.reveal())),
            ("access_key.session_token", key.and_then(|key| key.session_token.as_ref()).map(Secret::reveal)),
            ("assume_role.role_arn", role.map(|role| &*role.role_arn)),
            ("assume_role.external_id", role.and_then(|role| role.external_id.as_deref())),
            ("assume_role.session_name", role.and_then(|role| role.session_name.as_deref())),
            ("assume_role.sts_endpoint_url", role.and_then(|role| role.sts_endpoint_url.as_deref())),
        ];
        for (name, text) in texts {
            no_controls(&format!("`{name}`"), text.unwrap_or_default())
                .map_err(|unusable| wrong(name, &unusable.detail, &unusable.remedy))?;
        }
        Ok(())
    }
}

fn within(name: &str, value: u16, max: u16) -> Result<usize, Failure> {
    if (1..=max).contains(&value) {
        return Ok(value.into());
    }
    Err(wrong(name, &format!("it is {value}"), &format!("Give a number from 1 to {max}.")))
}

fn positive(name: &str, span: Option<Span>, default: Duration) -> Result<Duration, Failure> {
    match span {
        Some(Span(Duration::ZERO)) => Err(wrong(name, "it is zero", "Give a time such as `5s`.")),
        Some(Span(span)) => Ok(span),
        None => Ok(default),
    }
}

fn address(name: &str, text: &str) -> Result<Url, Failure> {
    let remedy = "Write it as `https://host` or `http://host:port`.";
    let url = Url::parse(text).map_err(|error| wrong(name, &error.to_string(), remedy))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong(name, "it is not the address of a web server", remedy));
    }
    Ok(url)
}

fn is_amazons(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn") || host.ends_with(".api.aws")
}

fn wrong(name: &str, detail: &str, remedy: &str) -> Failure {
    Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, format!("the setting `{name}`"))
        .at(name)
        .detail(detail)
        .remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_setting_is_named() {
        let role = |arn: &str| Config {
            assume_role: Some(AssumeRole { role_arn: arn.into(), ..AssumeRole::default() }),
            ..Config::default()
        };
        assert!(role("arn:aws:iam::123456789012:role/x").target().is_ok());
        for (config, name) in [
            (Config { concurrency: Some(0), ..Config::default() }, "concurrency"),
            (Config { group_batch: Some(11), ..Config::default() }, "group_batch"),
            (Config { region: Some(" ".into()), ..Config::default() }, "region"),
            (Config { endpoint_url: Some("localhost".into()), ..Config::default() }, "endpoint_url"),
            (
                Config { visibility_timeout: Some(Span(Duration::from_secs(1))), ..Config::default() },
                "visibility_timeout",
            ),
            (Config { publish_timeout: Some(Span(Duration::ZERO)), ..Config::default() }, "publish_timeout"),
            (role("warren"), "role_arn"),
        ] {
            let failure = config.target().expect_err(name);
            assert!(failure.what.contains(name) && failure.remedy.is_some(), "{failure:?}");
        }
    }

    #[test]
    fn a_line_break_in_a_setting_names_the_setting() {
        let some = |text: &str| Some(text.to_owned());
        let key = |id: &str, secret: &str, token: &str| Config {
            access_key: Some(AccessKey {
                id: id.into(),
                secret: Secret::new(secret),
                session_token: Some(Secret::new(token)),
            }),
            ..Config::default()
        };
        let role = |role: AssumeRole| Config { assume_role: Some(role), ..Config::default() };
        for (config, name) in [
            (Config { region: some("eu-west-1\n"), ..Config::default() }, "region"),
            (Config { endpoint_url: some("http://h\n"), ..Config::default() }, "endpoint_url"),
            (key("AKIA\n", "swordfish", "t"), "access_key.id"),
            (key("AKIA", "swordfish\n", "t"), "access_key.secret"),
            (key("AKIA", "s", "swordfish\n"), "access_key.session_token"),
            (
                role(AssumeRole { role_arn: "arn:aws:iam::1:role/x\n".into(), ..AssumeRole::default() }),
                "assume_role.role_arn",
            ),
        ] {
            let failure = config.target().expect_err(name);
            assert_eq!(failure.place.as_deref(), Some(name));
            assert!(failure.to_string().contains("ends in a line break"), "{failure:?}");
            assert!(!format!("{failure:?}").contains("swordfish"), "{failure:?}");
        }
    }

    #[test]
    fn a_server_of_ones_own_gives_out_roles_too() {
        let with = |url: &str| {
            Config { endpoint_url: Some(url.into()), ..Config::default() }
                .target()
                .expect("it is right")
                .sts_endpoint
        };
        assert_eq!(with("http://127.0.0.1:5000").as_deref(), Some("http://127.0.0.1:5000/"));
        assert_eq!(with("https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com"), None);
    }

    #[test]
    fn secrets_are_not_shown() {
        let key = AccessKey {
            id: "AKIA1".into(),
            secret: Secret::new("swordfish"),
            session_token: Some(Secret::new("swordfish too")),
        };
        let config = Config { access_key: Some(key), ..Config::default() };
        assert!(!format!("{config:?}").contains("swordfish"));
    }
}
