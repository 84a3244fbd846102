//! The broker's own users, for a hub: RabbitMQ says whose password is right, and its management API what a user may.
//!
//! A password is checked by opening an AMQP connection with it, so that whatever backend the broker asks (its own database, LDAP,
//! HTTP) decides. Tags and permissions come from the management API, with the hub's login, and count for some seconds.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use warren_engine::codes;
use warren_engine::failure::Failure;
use warren_engine::finding::{Finding, Severity};
use warren_engine::hub::ports::{Right, User, Users};
use warren_engine::hub::resource::Resource;
use warren_engine::pipeline::outside::Hidden;

use super::config::{Config, Login, Protocol, Target};
use super::connection::Connection;
use super::management::{Api, Permission};
use crate::UserIds;
use crate::kit::asked::{Answer, Asked};
use crate::kit::logins::Logins;
use crate::kit::permission::{Pattern, Rights};
use crate::kit::setting::Secret;
use crate::kit::tls::{self, TlsSettings};
use crate::kit::users::{DEFAULT_EXCHANGE, permission_name};

/// How long what a user may do counts.
const RIGHTS_FOR: Duration = Duration::from_secs(10);
/// From this age on it is asked again, by one request of those who go on.
const RENEWED_AFTER: Duration = Duration::from_secs(5);

/// The users of a broker. Nothing is asked yet.
///
/// # Errors
/// A setting is wrong, or there is no management API.
pub fn users(name: &str, config: &Config) -> Result<Arc<dyn Users>, Failure> {
    let target = config.target()?;
    let tls = config.tls.clone().unwrap_or_default();
    if target.management.is_none() {
        return Err(Failure::new(
            warren_engine::failure::FailureKind::Invalid,
            codes::MISSING_KEY,
            format!("use the users of broker `{name}`"),
        )
        .detail("it has no `management_url`, and only the management API tells what a user may do")
        .remedy(
            "give the broker a `management_url` with the login of an administrator, such as \
             http://user:password@host:15672, or name the hub's own users under `hub.users`",
        ));
    }
    Ok(Arc::new(OfBroker {
        name: name.to_owned(),
        target,
        tls,
        logins: Logins::new()?,
        rights: Asked::default(),
    }))
}

/// Looks for what a hub would miss later: the broker, the management API, and rights of the hub's own login in its vhost. Changes
/// nothing.
pub async fn check_hub(name: &str, config: &Config, own_users: bool) -> Vec<Finding> {
    let target = match config.target() {
        Ok(target) => target,
        Err(failure) => return vec![Finding::from_failure(name, &failure)],
    };
    let tls = config.tls.clone().unwrap_or_default();
    let Login::Plain { username, .. } = &target.login else { return Vec::new() };
    let Ok(api) = Api::new(&target, &tls) else { return Vec::new() };
    let mut findings = match api.permission(username).await {
        Ok(Some(permission)) => may_not(name, &target, username, &permission),
        Ok(None) => Vec::from([no_right(name, &target, username, "anything", "")]),
        // Its own rights are all that is to be known, and the broker says so itself when one is missing.
        Err(failure) if own_users => {
            let finding = Finding::from_failure(name, &failure);
            vec![Finding { severity: Severity::Warning, ..finding }]
        }
        Err(failure) => {
            let remedy = "give `management_url` the login of a user with the tag `administrator`, or name the hub's users under \
                          `hub.users`";
            vec![Finding { remedy: Some(remedy.to_owned()), ..Finding::from_failure(name, &failure) }]
        }
    };
    if let UserIds::Own(login) = user_ids(config).await {
        let what = format!("the hub's login `{login}` does not have the tag `{IMPERSONATOR}`");
        let note = Finding::warning(codes::INVALID_PROPERTY, name, what)
            .detail("the broker refuses what users publish with their own `user_id`")
            .remedy(format!("if they are to use it: `rabbitmqctl set_user_tags {login} … {IMPERSONATOR}`"));
        findings.push(Finding { severity: Severity::Note, ..note });
    }
    findings
}

/// The tag of a login that may publish with any `user_id`.
const IMPERSONATOR: &str = "impersonator";

/// Which `user_id` a broker takes from the login of these settings, as far as its management API tells.
pub async fn user_ids(config: &Config) -> UserIds {
    let Ok(target) = config.target() else { return UserIds::Unknown };
    let tls = config.tls.clone().unwrap_or_default();
    let Login::Plain { username, .. } = &target.login else { return UserIds::Unknown };
    let Ok(api) = Api::new(&target, &tls) else { return UserIds::Unknown };
    let tags = match api.own_tags(username).await {
        Ok(Some(tags)) => Ok(Some(tags)),
        Ok(None) | Err(_) => api.tags(username).await,
    };
    match tags {
        Ok(Some(tags)) if tags.iter().any(|tag| tag == IMPERSONATOR) => UserIds::Any,
        Ok(Some(_)) => UserIds::Own(username.clone()),
        Ok(None) | Err(_) => UserIds::Unknown,
    }
}

/// What the hub does with its own queues, and may not.
fn may_not(name: &str, target: &Target, username: &str, permission: &Permission) -> Vec<Finding> {
    // A queue for each subscription to an exchange, and what is given up.
    const OURS: &str = "warren.hub.dead";
    [
        ("configure", &permission.configure, OURS),
        ("read", &permission.read, OURS),
        ("write", &permission.write, OURS),
        ("write", &permission.write, DEFAULT_EXCHANGE),
    ]
    .into_iter()
    .filter(|(_, pattern, of)| !Pattern::new(pattern).matches(of).unwrap_or(true))
    .map(|(right, pattern, of)| no_right(name, target, username, &format!("{right} `{of}`"), pattern))
    .collect()
}

fn no_right(name: &str, target: &Target, username: &str, what: &str, pattern: &str) -> Finding {
    let vhost = &target.vhost;
    Finding::warning(codes::ACCESS_REFUSED, name, format!("the hub's login `{username}` may not {what}"))
        .detail(format!("its permission in vhost `{vhost}` is `{pattern}`"))
        .remedy(format!(
            "give it the permission in each vhost that is used, such as `rabbitmqctl set_permissions -p {vhost} {username} '.*' '.*' '.*'`"
        ))
}

struct OfBroker {
    name: String,
    target: Target,
    tls: TlsSettings,
    logins: Logins,
    rights: Asked<String, Arc<OfUser>>,
}

/// What a user may do, in all vhosts.
struct OfUser {
    vhosts: HashMap<String, Rights>,
    /// By vhost and exchange.
    keys: HashMap<(String, String), Rights>,
}

impl OfBroker {
    /// Whether a password is right, as the broker says.
    async fn authenticates(&self, name: &str, password: &Hidden) -> Result<bool, Failure> {
        let login = Login::Plain { username: name.to_owned(), password: Secret::new(password.0.clone()) };
        let (target, settings) = self.target.now(&self.tls);
        let target = Target { login, ..target };
        let tls = match target.protocol {
            Protocol::Amqp => None,
            Protocol::Amqps => {
                let server = settings.server_name.clone().unwrap_or_else(|| target.host.clone());
                Some((tls::client_config(&settings)?, server))
            }
        };
        let purpose = format!("warren {} checking a login", self.name);
        match Connection::open(&target, tls.as_ref(), &purpose).await {
            Ok(connection) => {
                connection.close().await;
                Ok(true)
            }
            // It logged in, and may not enter this vhost, or there is none of that name: that is another question.
            Err(failure) if failure.code == codes::UNKNOWN_VHOST => Ok(true),
            Err(failure) if failure.code == codes::BROKER_REFUSED_LOGIN => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn user(&self, name: &str) -> Result<Option<User>, Failure> {
        let tags = Api::new(&self.target, &self.tls)?.tags(name).await?;
        Ok(tags.map(|tags| User { name: name.to_owned(), tags }))
    }

    async fn rights(&self, name: &str) -> Result<Arc<OfUser>, Failure> {
        let ask = async |_again| {
            let value = Arc::new(self.asked(name).await?);
            Ok(Answer { value, counts_for: RIGHTS_FOR, renewed_after: Some(RENEWED_AFTER) })
        };
        self.rights.get(&name.to_owned(), ask).await
    }

    async fn asked(&self, name: &str) -> Result<OfUser, Failure> {
        let api = Api::new(&self.target, &self.tls)?;
        let vhosts = api.permissions(name).await?.into_iter().map(|permission| {
            let [configure, write, read] =
                [&permission.configure, &permission.write, &permission.read].map(|text| Pattern::new(text));
            (permission.vhost, Rights { configure, write, read })
        });
        let keys = api.topic_permissions(name).await?.into_iter().map(|permission| {
            // RabbitMQ puts these in as they are.
            let of = |text: &str| {
                Pattern::new(&text.replace("{username}", name).replace("{vhost}", &permission.vhost))
            };
            let [write, read] = [&permission.write, &permission.read].map(|text| of(text));
            ((permission.vhost, permission.exchange), Rights { configure: Pattern::new(".*"), write, read })
        });
        Ok(OfUser { vhosts: vhosts.collect(), keys: keys.collect() })
    }
}

#[async_trait]
impl Users for OfBroker {
    async fn login(&self, from: IpAddr, name: &str, password: &Hidden) -> Result<Option<User>, Failure> {
        self.logins
            .login(from, name, password, || async {
                if !self.authenticates(name, password).await? {
                    return Ok(None);
                }
                // A user of another backend has no tags here.
                let user = self.user(name).await?;
                Ok(Some(user.unwrap_or_else(|| User { name: name.to_owned(), tags: Vec::new() })))
            })
            .await
    }

    async fn named(&self, name: &str) -> Result<Option<User>, Failure> {
        self.user(name).await
    }

    async fn may(&self, user: &User, right: Right, resource: &Resource) -> Result<bool, Failure> {
        let rights = self.rights(&user.name).await?;
        let vhost = rights.vhosts.get(&resource.vhost);
        vhost.map_or(Ok(false), |rights| rights.of(right).matches(permission_name(resource)))
    }

    async fn may_key(
        &self,
        user: &User,
        right: Right,
        exchange: &Resource,
        key: &str,
    ) -> Result<bool, Failure> {
        let rights = self.rights(&user.name).await?;
        let exchange = (exchange.vhost.clone(), exchange.name.clone());
        // The API names the default exchange by nothing; it is no topic exchange in any case.
        if exchange.1.is_empty() || exchange.1 == DEFAULT_EXCHANGE {
            return Ok(true);
        }
        // An exchange without topic permissions is not limited.
        rights.keys.get(&exchange).map_or(Ok(true), |rights| rights.of(right).matches(key))
    }
}
