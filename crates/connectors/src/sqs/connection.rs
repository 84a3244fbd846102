//! The client of SQS: who we are, where to ask, how long to wait. Made when it is first used.

use std::time::{Duration, SystemTime};

use aws_config::sts::AssumeRoleProvider;
use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, IdentityCache, StalledStreamProtectionConfig};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use tokio::sync::OnceCell;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use super::config::{AccessKey, Config, Target};
use super::failures::with_causes;
use crate::kit::renew::Renew;

/// How long before they run out credentials are made anew.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// How long a key that files hold is used before they are read again.
const READ_AGAIN: Duration = Duration::from_secs(10);
/// The region that signs requests to a server of one's own, where none is named.
const REGION_OF_ANY: &str = "us-east-1";

/// The client, once there is one.
pub(crate) struct Link {
    pub(crate) target: Target,
    made: OnceCell<Connected>,
}

/// A client with what it was made of.
#[derive(Debug, Clone)]
pub(crate) struct Connected {
    pub(crate) client: Client,
    pub(crate) region: String,
    credentials: SharedCredentialsProvider,
}

impl Link {
    pub(crate) fn new(target: Target) -> Link {
        Link { target, made: OnceCell::new() }
    }

    /// The client. Nothing is asked of AWS yet.
    ///
    /// # Errors
    /// There is no region.
    pub(crate) async fn get(&self) -> Result<&Connected, Failure> {
        self.made.get_or_try_init(|| connect(&self.target)).await
    }
}

impl Connected {
    /// Finds credentials, or takes on the role.
    ///
    /// # Errors
    /// There are none, or the role is refused.
    pub(crate) async fn identify(&self) -> Result<(), Failure> {
        match self.credentials.provide_credentials().await {
            Ok(_) => Ok(()),
            Err(error) => Err(no_credentials(&error)),
        }
    }
}

/// The failure of credentials that could not be had.
pub(crate) fn no_credentials(error: &aws_credential_types::provider::error::CredentialsError) -> Failure {
    use aws_credential_types::provider::error::CredentialsError;
    let said = with_causes(error);
    // A provider that could not be reached may be back soon; everything else stays as it is.
    let unreachable = match error {
        CredentialsError::ProviderTimedOut(_) => true,
        CredentialsError::ProviderError(_) => {
            said.contains("dispatch failure") || said.contains("timeout") || said.contains("io error")
        }
        _ => false,
    };
    if unreachable {
        return Failure::new(FailureKind::Disconnected, codes::BROKER_UNREACHABLE, "get credentials for SQS")
            .detail(said);
    }
    Failure::new(FailureKind::Refused, codes::BROKER_REFUSED_LOGIN, "get credentials for SQS")
        .detail(said)
        .remedy("give `access_key`, or set up AWS's own chain (environment, profile, role of the machine); for `assume_role` \
            see that its trust policy names us and the `external_id`")
}

/// The key of the configuration, as its files have it now.
#[derive(Debug)]
struct Key {
    first: AccessKey,
    renew: Renew<Config>,
}

impl ProvideCredentials for Key {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let first = Config { access_key: Some(self.first.clone()), ..Config::default() };
        let key = self.renew.now(&first).access_key.unwrap_or_else(|| self.first.clone());
        let token = key.session_token.as_ref().map(|token| token.reveal().to_owned());
        let expiry = self.renew.is_set().then(|| SystemTime::now() + RENEW_BEFORE + READ_AGAIN);
        let credentials = Credentials::new(&key.id, key.secret.reveal(), token, expiry, "configuration");
        future::ProvideCredentials::ready(Ok(credentials))
    }
}

async fn connect(target: &Target) -> Result<Connected, Failure> {
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(target.connect_timeout)
        .operation_attempt_timeout(target.publish_timeout)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .timeout_config(timeouts)
        // The engine tries again, with an eye on order, records and rates.
        .retry_config(RetryConfig::disabled())
        // Answers are small; the time they take is bounded as a whole.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .identity_cache(IdentityCache::lazy().buffer_time(RENEW_BEFORE).build());
    if let Some(region) = &target.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(key) = &target.access_key {
        loader = loader.credentials_provider(Key { first: key.clone(), renew: target.renew.clone() });
    }
    let mut config = loader.load().await;
    let region = match (config.region(), &target.endpoint) {
        (Some(region), _) => region.clone(),
        (None, Some(_)) => Region::from_static(REGION_OF_ANY),
        (None, None) => return Err(no_region()),
    };
    config = config.into_builder().region(region.clone()).build();
    let mine = config.credentials_provider().ok_or_else(|| Failure::internal("AWS's chain is missing"))?;
    let credentials = match &target.assume_role {
        None => mine,
        Some(role) => {
            let sts = with_endpoint(&config, target.sts_endpoint.as_deref());
            let mut provider = AssumeRoleProvider::builder(&role.role_arn)
                .session_name(role.session_name.as_deref().unwrap_or("warren"))
                .configure(&sts);
            if let Some(external_id) = &role.external_id {
                provider = provider.external_id(external_id);
            }
            SharedCredentialsProvider::new(provider.build().await)
        }
    };
    let config = with_endpoint(&config, target.endpoint.as_deref())
        .into_builder()
        .credentials_provider(credentials.clone())
        .build();
    Ok(Connected { client: Client::new(&config), region: region.as_ref().to_owned(), credentials })
}

fn with_endpoint(config: &SdkConfig, endpoint: Option<&str>) -> SdkConfig {
    match endpoint {
        Some(endpoint) => config.clone().into_builder().endpoint_url(endpoint).build(),
        None => config.clone(),
    }
}

fn no_region() -> Failure {
    Failure::new(FailureKind::Invalid, codes::MISSING_KEY, "connect to SQS")
        .detail("no region is named, neither in the configuration nor in the environment or profile")
        .remedy("give the broker a `region`, such as `eu-west-1`")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::kit::setting::Secret;

    #[tokio::test]
    async fn a_key_that_files_hold_is_read_again() {
        let key =
            |secret: &str| AccessKey { id: "id".into(), secret: Secret::new(secret), session_token: None };
        let config = move |secret: &str| Config { access_key: Some(key(secret)), ..Config::default() };
        let at = AtomicUsize::new(0);
        let read = move || {
            [Some(config("two")), None, Some(config("three"))][at.fetch_add(1, Ordering::Relaxed)].clone()
        };
        let provider = Key { first: key("one"), renew: Renew::by(read) };
        for secret in ["two", "two", "three"] {
            let credentials = provider.provide_credentials().await.unwrap();
            assert_eq!(credentials.secret_access_key(), secret);
            assert!(credentials.expiry().is_some(), "so that it is asked for again");
        }
        let fixed = Key { first: key("one"), renew: Renew::default() };
        let credentials = fixed.provide_credentials().await.unwrap();
        assert_eq!((credentials.secret_access_key(), credentials.expiry()), ("one", None));
    }
}
