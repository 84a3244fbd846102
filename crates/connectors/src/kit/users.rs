//! Users that are defined in the configuration, for brokers that have no users.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use argon2::{Argon2, Params, PasswordHash, PasswordVerifier};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::hub::ports::{Right, User, Users};
use warren_engine::hub::resource::{Resource, ResourceKind};
use warren_engine::pipeline::outside::Hidden;

use super::logins::Logins;
use super::permission::{Pattern, Rights};
use super::random;
use super::setting::Secret;

/// RabbitMQ's name for the default exchange in permissions.
pub(crate) const DEFAULT_EXCHANGE: &str = "amq.default";
/// The maximum cost of a hash: KiB of memory, and rounds. With a higher cost, anyone who tries passwords could
/// exhaust the machine.
const MEMORY_KIB_MAX: u32 = 256 << 10;
const ROUNDS_MAX: u32 = 16;

/// A user of the hub.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "HubUser")]
pub struct UserConfig {
    /// The argon2 hash of the password, as `warren hub hash-password` prints it. Without a hash, this user
    /// cannot log in, but can still be the `default_username`.
    pub password_hash: Option<Secret>,
    /// Tags. Exports and imports require both `administrator` and `rabbithub_admin`. Default: none.
    pub tags: Vec<String>,
    /// The permissions of the user, by virtual host. The embedded broker has one virtual host, `/`. Default:
    /// none.
    pub permissions: BTreeMap<String, PermissionConfig>,
}

/// The permissions of a user in a virtual host, as in RabbitMQ. Each is a regular expression that may match
/// anywhere in a name. The name of the default exchange is `amq.default`. An empty expression matches no
/// name.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "HubPermission")]
pub struct PermissionConfig {
    /// The names that the user may create and delete. Default: none.
    pub configure: String,
    /// The names that the user may publish to. Default: none.
    pub write: String,
    /// The names that the user may subscribe to. Default: none.
    pub read: String,
}

/// Users of the configuration.
///
/// # Errors
/// A hash is not one of argon2, or costs too much; a permission cannot be matched.
pub fn configured(users: &BTreeMap<String, UserConfig>) -> Result<Arc<dyn Users>, Failure> {
    let mut known = BTreeMap::new();
    for (name, config) in users {
        known.insert(name.clone(), Known::new(name, config)?);
    }
    Ok(Arc::new(Configured { known, logins: Logins::new()? }))
}

struct Configured {
    known: BTreeMap<String, Known>,
    logins: Logins,
}

struct Known {
    user: User,
    hash: Option<String>,
    rights: BTreeMap<String, Rights>,
}

impl Known {
    fn new(name: &str, config: &UserConfig) -> Result<Known, Failure> {
        let wrong = |detail: String, remedy: &str| {
            Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, format!("read the user `{name}`"))
                .detail(detail)
                .remedy(remedy)
        };
        if let Some(hash) = &config.password_hash {
            check_hash(hash.reveal())
                .map_err(|why| wrong(why, "make a hash with `warren hub hash-password`"))?;
        }
        let mut rights = BTreeMap::new();
        for (vhost, permission) in &config.permissions {
            let PermissionConfig { configure, write, read } = permission;
            for pattern in [configure, write, read] {
                if let Some(why) = Pattern::new(pattern).fault() {
                    let detail =
                        format!("the permission `{pattern}` of vhost `{vhost}` cannot be matched: {why}");
                    return Err(wrong(
                        detail,
                        "write a regular expression without look-around and back references",
                    ));
                }
            }
            let [configure, write, read] = [configure, write, read].map(|pattern| Pattern::new(pattern));
            rights.insert(vhost.clone(), Rights { configure, write, read });
        }
        let user = User { name: name.to_owned(), tags: config.tags.clone() };
        let hash = config.password_hash.as_ref().map(|hash| hash.reveal().to_owned());
        Ok(Known { user, hash, rights })
    }
}

/// Checks that a text is an argon2 hash within the maximum cost.
fn check_hash(text: &str) -> Result<(), String> {
    let hash = PasswordHash::new(text).map_err(|error| format!("`password_hash` is no hash: {error}"))?;
    let params =
        Params::try_from(&hash).map_err(|error| format!("`password_hash` is no argon2 hash: {error}"))?;
    if !hash.algorithm.as_str().starts_with("argon2") || hash.hash.is_none() {
        return Err("`password_hash` is no argon2 hash".to_owned());
    }
    if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > ROUNDS_MAX {
        return Err(format!(
            "`password_hash` takes {} KiB and {} rounds; at most {MEMORY_KIB_MAX} KiB and {ROUNDS_MAX} are checked",
            params.m_cost(),
            params.t_cost()
        ));
    }
    Ok(())
}

/// Whether a password matches a hash. Takes tens of milliseconds of a core.
fn is_right(hash: &str, password: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// The argon2id hash of a password with a random salt, for `password_hash`.
///
/// # Errors
/// The system has no random numbers.
pub fn hash_password(password: &str) -> Result<String, Failure> {
    use argon2::PasswordHasher;
    use argon2::password_hash::SaltString;
    let mut salt = [0; 16];
    random::fill(&mut salt)?;
    let salt = SaltString::encode_b64(&salt).map_err(|_| Failure::internal("encode a salt of 16 bytes"))?;
    let hash = Argon2::default()
        .hash_password(password.as_bytes(), &salt)
        .map_err(|error| Failure::internal("hash a password").detail(error.to_string()))?;
    Ok(hash.to_string())
}

/// The hash that is checked for an unknown user, so that the response time does not reveal which users exist.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[async_trait]
impl Users for Configured {
    async fn login(&self, from: IpAddr, name: &str, password: &Hidden) -> Result<Option<User>, Failure> {
        self.logins
            .login(from, name, password, || async {
                let known = self.known.get(name);
                let hash = known.and_then(|known| known.hash.clone());
                let there = hash.is_some();
                let (hash, password) = (hash.unwrap_or_else(|| NOBODY.to_owned()), password.clone());
                let right = tokio::task::spawn_blocking(move || is_right(&hash, &password.0))
                    .await
                    .map_err(|error| Failure::internal("check a password").because(error))?;
                Ok(known.filter(|_| right && there).map(|known| known.user.clone()))
            })
            .await
    }

    async fn named(&self, name: &str) -> Result<Option<User>, Failure> {
        Ok(self.known.get(name).map(|known| known.user.clone()))
    }

    async fn may(&self, user: &User, right: Right, resource: &Resource) -> Result<bool, Failure> {
        let rights = self.known.get(&user.name).and_then(|known| known.rights.get(&resource.vhost));
        rights.map_or(Ok(false), |rights| rights.of(right).matches(permission_name(resource)))
    }
}

/// The name that permissions are matched with.
pub(crate) fn permission_name(resource: &Resource) -> &str {
    match resource.kind {
        ResourceKind::Exchange if resource.name.is_empty() => DEFAULT_EXCHANGE,
        ResourceKind::Exchange | ResourceKind::Queue => &resource.name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn users(hash: Option<String>, permission: &str) -> Result<Arc<dyn Users>, Failure> {
        let permission = PermissionConfig {
            write: permission.to_owned(),
            read: ".*".to_owned(),
            ..PermissionConfig::default()
        };
        let config = UserConfig {
            password_hash: hash.map(Secret::new),
            tags: vec!["administrator".to_owned()],
            permissions: BTreeMap::from([("/".to_owned(), permission)]),
        };
        configured(&BTreeMap::from([("ann".to_owned(), config)]))
    }

    fn hidden(text: &str) -> Hidden {
        Hidden(text.to_owned())
    }

    #[tokio::test]
    async fn a_configured_user_logs_in_and_may_what_is_written() {
        let users = users(Some(hash_password("swordfish").unwrap()), "^(orders|amq\\.default)$").unwrap();
        let user = users.login(HERE, "ann", &hidden("swordfish")).await.unwrap().unwrap();
        assert!(user.has_tags(&["administrator"]) && !user.has_tags(&["administrator", "rabbithub_admin"]));
        for (name, password) in [("ann", "swordfis"), ("ann", ""), ("bob", "swordfish"), ("", "swordfish")] {
            assert_eq!(users.login(HERE, name, &hidden(password)).await.unwrap(), None, "{name} {password}");
        }
        for (right, resource, wanted) in [
            (Right::Write, Resource::queue("/", "orders"), true),
            (Right::Write, Resource::exchange("/", ""), true),
            (Right::Write, Resource::queue("/", "other"), false),
            (Right::Write, Resource::queue("other", "orders"), false),
            (Right::Read, Resource::queue("/", "any"), true),
            (Right::Configure, Resource::queue("/", "orders"), false),
        ] {
            assert_eq!(users.may(&user, right, &resource).await.unwrap(), wanted, "{right:?} {resource}");
        }
    }

    #[tokio::test]
    async fn without_a_hash_nobody_logs_in() {
        let users = users(None, "").unwrap();
        for password in ["", "AAAA", "x"] {
            assert_eq!(users.login(HERE, "ann", &hidden(password)).await.unwrap(), None);
        }
        assert_eq!(users.named("ann").await.unwrap().unwrap().name, "ann");
        assert_eq!(users.named("bob").await.unwrap(), None);
    }

    #[test]
    fn what_is_no_argon2_hash_costs_too_much_or_cannot_be_matched_is_told() {
        for hash in [
            "swordfish",
            "$2b$12$abcdefghijklmnopqrstuv",
            "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=9999999,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=1024,t=9999,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ] {
            let failure = users(Some(hash.to_owned()), "").err().unwrap();
            assert_eq!(failure.code, codes::INVALID_VALUE, "{hash}");
            assert!(!format!("{failure:?}").contains("swordfish"));
        }
        assert_eq!(users(None, "^(?!x)").err().unwrap().code, codes::INVALID_VALUE);
    }
}
