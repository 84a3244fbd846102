//! The settings of SQS, as written, and what they come to.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use crate::kit::renew::Renew;
use crate::kit::setting::{Misfit, Secret, Span};

/// Amazon SQS, in one region, or a server that speaks its JSON protocol.
///
/// Who we are comes from `access_key`, or else from AWS's own chain: environment, profile, web identity, container, instance.
/// With `assume_role` that identity only takes on the role.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The region, such as `eu-west-1`. Default: that of the environment or profile (`AWS_REGION`).
    #[schemars(extend("x-public" = true))]
    pub region: Option<String>,
    /// A key of one's own. Default: AWS's chain, which needs no secret in the configuration.
    pub access_key: Option<AccessKey>,
    /// A role that is taken on, perhaps of another account. Its credentials are made anew before they run out.
    pub assume_role: Option<AssumeRole>,
    /// The address of SQS, for a VPC endpoint or a server of one's own: `http://localhost:4566`. Default: Amazon's for the region.
    #[schemars(extend("x-public" = true))]
    pub endpoint_url: Option<String>,
    /// How many requests are under way at once. Each holds up to ten messages. Default: 64. When SQS throttles, it is
    /// fewer for a while. More make a far region faster, and cost a connection each.
    #[schemars(range(min = 1, max = 1000))]
    pub concurrency: Option<u16>,
    /// How long connecting may take. Default: 5s.
    #[schemars(extend("x-least" = "1ms"))]
    pub connect_timeout: Option<Span>,
    /// How long a request waits for its answer. After that its outcome is unknown, and its messages are sent again.
    /// Default: 30s. Too short makes duplicates when SQS is slow.
    #[schemars(extend("x-least" = "1ms"))]
    pub publish_timeout: Option<Span>,
    /// How many messages of one FIFO group travel in one request. Default: 1, which keeps the order of a group whatever
    /// fails. With more a group is faster, and **where one message of a request is refused, those behind it may overtake it**.
    #[schemars(range(min = 1, max = 10))]
    pub group_batch: Option<u16>,
    /// For how long a received message is hidden from others before it must be extended, which happens by itself while it is worked on.
    /// Default: 60s. It is how long a message waits that was being worked on when the process was killed.
    #[schemars(extend("x-least" = "2s", "x-most" = "12h"))]
    pub visibility_timeout: Option<Span>,
    /// How long a question for messages waits until there is one. Default: 10s. Longer asks less often; it is also how long
    /// stopping may take.
    #[schemars(extend("x-least" = "0s", "x-most" = "20s"))]
    pub wait_time: Option<Span>,
    /// How the settings are read again before each login.
    #[serde(skip)]
    #[schemars(skip)]
    pub renew: Renew<Config>,
}

/// A key that stands for a user.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    /// Its id, such as `AKIA…`.
    pub id: String,
    /// Its secret.
    pub secret: Secret,
    /// The token that goes with a temporary key. Default: none.
    pub session_token: Option<Secret>,
}

/// A role that is taken on.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssumeRole {
    /// Its name: `arn:aws:iam::123456789012:role/warren`.
    pub role_arn: String,
    /// What the role's trust policy asks for, so that nobody is talked into using it for another. Default: none.
    pub external_id: Option<String>,
    /// The name that AWS's logs have for us. Default: `warren`.
    pub session_name: Option<String>,
    /// The address of STS. Default: Amazon's for the region; with an `endpoint_url` that is not Amazon's, that one.
    pub sts_endpoint_url: Option<String>,
}

/// Where to ask, and how to behave there. Made of a [`Config`] that is right.
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
/// What SQS takes.
const VISIBILITY_TIMEOUT_MAX: Duration = Duration::from_secs(12 * 60 * 60);
const WAIT_TIME: Duration = Duration::from_secs(10);
const WAIT_TIME_MAX: Duration = Duration::from_secs(20);
/// Shorter, and an extension comes too late as soon as the machine is busy.
const VISIBILITY_TIMEOUT_MIN: Duration = Duration::from_secs(2);

impl Config {
    /// The first setting that cannot be used.
    pub(crate) fn faults(&self) -> Vec<Misfit> {
        self.target().err().map(Misfit::from).into_iter().collect()
    }

    /// What the settings come to.
    ///
    /// # Errors
    /// A setting that is wrong.
    pub(crate) fn target(&self) -> Result<Target, Failure> {
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
