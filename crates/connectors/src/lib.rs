//! The outside world, a folder a system; and the registry: which systems there are.
//!
//! A new system is one folder, one `mod`, one variant and one arm in each `match` here. Nothing else names it. The enums are
//! closed, so that the compiler lists what is missing; `type:` is read by the one who reads the configuration and comes
//! here as `kind`, because serde would have to buffer a tagged enum, and what is buffered has lost its place in the
//! file.

pub mod embedded;
pub mod exec;
pub mod http;
pub mod kit;
pub mod mysql;
pub mod postgres;
pub mod rabbitmq;
pub mod sqlite;
#[cfg(feature = "sqs")]
pub mod sqs;

use std::path::Path;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::finding::Finding;
use warren_engine::hub::ports::{Estate, Users};
use warren_engine::ports::{Broker, Source, SqlExecutor};

use self::kit::renew::Renew;
use crate::kit::setting::Misfit;

/// The settings of a source, of one of the kinds there are.
#[derive(Debug, Clone)]
pub enum SourceConfig {
    /// `type: postgres`
    Postgres(postgres::Config),
    /// `type: mysql`
    Mysql(mysql::Config),
    /// `type: sqlite`
    Sqlite(sqlite::Config),
}

/// The kinds of sources, as `type:` names them.
pub const SOURCE_KINDS: [&str; 3] = ["postgres", "mysql", "sqlite"];

impl SourceConfig {
    /// Reads the settings of a kind; `None` if there is no such kind.
    pub fn read<'de, D: Deserializer<'de>>(kind: &str, from: D) -> Option<Result<SourceConfig, D::Error>> {
        Some(match kind {
            "postgres" => postgres::Config::deserialize(from).map(SourceConfig::Postgres),
            "mysql" => mysql::Config::deserialize(from).map(SourceConfig::Mysql),
            "sqlite" => sqlite::Config::deserialize(from).map(SourceConfig::Sqlite),
            _ => return None,
        })
    }

    /// The schema of a kind's settings, without `type`; `None` if there is no such kind.
    pub fn schema(kind: &str, generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(match kind {
            "postgres" => postgres::Config::json_schema(generator),
            "mysql" => mysql::Config::json_schema(generator),
            "sqlite" => sqlite::Config::json_schema(generator),
            _ => return None,
        })
    }

    /// The kind, as `type:` names it.
    pub fn kind(&self) -> &'static str {
        match self {
            SourceConfig::Postgres(_) => "postgres",
            SourceConfig::Mysql(_) => "mysql",
            SourceConfig::Sqlite(_) => "sqlite",
        }
    }

    /// With a way to read them again before each login, because files hold parts of them.
    #[must_use]
    pub fn renewed_by(self, read: impl Fn() -> Option<SourceConfig> + Send + Sync + 'static) -> SourceConfig {
        match self {
            SourceConfig::Postgres(config) => {
                let renew = Renew::by(move || match read() {
                    Some(SourceConfig::Postgres(config)) => Some(config),
                    _ => None,
                });
                SourceConfig::Postgres(postgres::Config { renew, ..config })
            }
            SourceConfig::Mysql(config) => {
                let renew = Renew::by(move || match read() {
                    Some(SourceConfig::Mysql(config)) => Some(config),
                    _ => None,
                });
                SourceConfig::Mysql(mysql::Config { renew, ..config })
            }
            SourceConfig::Sqlite(config) => SourceConfig::Sqlite(config), // nobody logs in
        }
    }

    /// All settings that cannot be used, whatever is connected to later: addresses that are none, files that cannot be read, keys that
    /// exclude each other. Connects to nothing.
    pub fn faults(&self) -> Vec<Misfit> {
        match self {
            SourceConfig::Postgres(config) => config.faults(),
            SourceConfig::Mysql(config) => config.faults(),
            SourceConfig::Sqlite(config) => config.faults(),
        }
    }

    /// A name as the kind's SQL quotes it, whatever is in it.
    pub fn quoted(&self, name: &str) -> String {
        match self {
            SourceConfig::Postgres(_) | SourceConfig::Sqlite(_) => {
                format!("\"{}\"", name.replace('"', "\"\""))
            }
            SourceConfig::Mysql(_) => format!("`{}`", name.replace('`', "``")),
        }
    }

    /// Makes the source. Nothing is connected yet.
    ///
    /// # Errors
    /// Settings contradict each other, or a file they name (a certificate) cannot be read.
    pub fn open(&self, name: &str) -> Result<Arc<dyn Source>, Failure> {
        match self {
            SourceConfig::Postgres(config) => postgres::source(name, config),
            SourceConfig::Mysql(config) => mysql::source(name, config),
            SourceConfig::Sqlite(config) => sqlite::source(name, config),
        }
    }

    /// Makes what executes statements on it. Nothing is connected yet.
    ///
    /// # Errors
    /// As [`SourceConfig::open`].
    pub fn executor(&self, name: &str) -> Result<Arc<dyn SqlExecutor>, Failure> {
        match self {
            SourceConfig::Postgres(config) => postgres::executor(name, config),
            SourceConfig::Mysql(config) => mysql::executor(name, config),
            SourceConfig::Sqlite(config) => sqlite::executor(name, config),
        }
    }
}

/// The settings of a broker, of one of the kinds there are.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(feature = "sqs"),
    expect(clippy::large_enum_variant, reason = "a configuration has a handful of them, made once")
)]
pub enum BrokerConfig {
    /// `type: rabbitmq`
    Rabbitmq(rabbitmq::Config),
    /// `type: embedded`
    Embedded(embedded::Config),
    /// `type: sqs`
    #[cfg(feature = "sqs")]
    Sqs(sqs::Config),
}

/// The kinds of brokers, as `type:` names them.
#[cfg(feature = "sqs")]
pub const BROKER_KINDS: &[&str] = &["rabbitmq", "embedded", "sqs"];
/// The kinds of brokers, as `type:` names them.
#[cfg(not(feature = "sqs"))]
pub const BROKER_KINDS: &[&str] = &["rabbitmq", "embedded"];

impl BrokerConfig {
    /// Reads the settings of a kind; `None` if there is no such kind.
    pub fn read<'de, D: Deserializer<'de>>(kind: &str, from: D) -> Option<Result<BrokerConfig, D::Error>> {
        Some(match kind {
            "rabbitmq" => rabbitmq::Config::deserialize(from).map(BrokerConfig::Rabbitmq),
            "embedded" => embedded::Config::deserialize(from).map(BrokerConfig::Embedded),
            #[cfg(feature = "sqs")]
            "sqs" => sqs::Config::deserialize(from).map(BrokerConfig::Sqs),
            _ => return None,
        })
    }

    /// The schema of a kind's settings, without `type`; `None` if there is no such kind.
    pub fn schema(kind: &str, generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(match kind {
            "rabbitmq" => rabbitmq::Config::json_schema(generator),
            "embedded" => embedded::Config::json_schema(generator),
            #[cfg(feature = "sqs")]
            "sqs" => sqs::Config::json_schema(generator),
            _ => return None,
        })
    }

    /// The kind, as `type:` names it.
    pub fn kind(&self) -> &'static str {
        match self {
            BrokerConfig::Rabbitmq(_) => "rabbitmq",
            BrokerConfig::Embedded(_) => "embedded",
            #[cfg(feature = "sqs")]
            BrokerConfig::Sqs(_) => "sqs",
        }
    }

    /// With a way to read them again before each login, because files hold parts of them.
    #[must_use]
    pub fn renewed_by(self, read: impl Fn() -> Option<BrokerConfig> + Send + Sync + 'static) -> BrokerConfig {
        match self {
            BrokerConfig::Rabbitmq(config) => {
                let renew = Renew::by(move || match read() {
                    Some(BrokerConfig::Rabbitmq(config)) => Some(config),
                    _ => None,
                });
                BrokerConfig::Rabbitmq(rabbitmq::Config { renew, ..config })
            }
            BrokerConfig::Embedded(config) => BrokerConfig::Embedded(config), // nobody logs in
            #[cfg(feature = "sqs")]
            BrokerConfig::Sqs(config) => {
                let renew = Renew::by(move || match read() {
                    Some(BrokerConfig::Sqs(config)) => Some(config),
                    _ => None,
                });
                BrokerConfig::Sqs(sqs::Config { renew, ..config })
            }
        }
    }

    /// All settings that cannot be used. Connects to nothing and opens no file of a broker.
    pub fn faults(&self) -> Vec<Misfit> {
        match self {
            BrokerConfig::Rabbitmq(config) => config.faults(),
            BrokerConfig::Embedded(config) => config.faults(),
            #[cfg(feature = "sqs")]
            BrokerConfig::Sqs(config) => config.faults(),
        }
    }

    /// Makes the broker; one that lives in a file keeps it in `folder`, unless its settings say where. A remote one is not
    /// connected yet.
    ///
    /// # Errors
    /// Settings contradict each other, or a file they name cannot be read or written.
    pub fn open(&self, name: &str, folder: &Path) -> Result<Arc<dyn Broker>, Failure> {
        match self {
            BrokerConfig::Rabbitmq(config) => rabbitmq::broker(name, config),
            BrokerConfig::Embedded(config) => embedded::broker(name, config, folder),
            #[cfg(feature = "sqs")]
            BrokerConfig::Sqs(config) => sqs::broker(name, config),
        }
    }

    /// Makes the broker with all of its virtual hosts, for a hub; where files are, as [`BrokerConfig::open`]. A remote one is not
    /// connected yet.
    ///
    /// # Errors
    /// As [`BrokerConfig::open`]; the kind has no exchanges.
    pub fn estate(&self, name: &str, folder: &Path) -> Result<Arc<dyn Estate>, Failure> {
        match self {
            BrokerConfig::Rabbitmq(config) => rabbitmq::estate(name, config),
            BrokerConfig::Embedded(config) => embedded::estate(name, config, folder),
            #[cfg(feature = "sqs")]
            BrokerConfig::Sqs(_) => Err(no_hub(name, self.kind())),
        }
    }

    /// The broker's own users, for a hub.
    ///
    /// # Errors
    /// It has none, or nobody who would tell what they may.
    pub fn users(&self, name: &str) -> Result<Arc<dyn Users>, Failure> {
        match self {
            BrokerConfig::Rabbitmq(config) => rabbitmq::users(name, config),
            BrokerConfig::Embedded(_) => Err(Failure::new(
                FailureKind::Invalid,
                codes::MISSING_KEY,
                format!("use the users of broker `{name}`"),
            )
            .detail("the embedded broker has no users of its own")
            .remedy("name the hub's users under `hub.users`; `warren hub hash-password` makes their hashes")),
            #[cfg(feature = "sqs")]
            BrokerConfig::Sqs(_) => Err(no_hub(name, self.kind())),
        }
    }

    /// Which `user_id` messages may have. Changes nothing.
    pub async fn user_ids(&self) -> UserIds {
        match self {
            BrokerConfig::Rabbitmq(config) => rabbitmq::user_ids(config).await,
            BrokerConfig::Embedded(_) => UserIds::Any,
            #[cfg(feature = "sqs")]
            BrokerConfig::Sqs(_) => UserIds::Any, // it has none
        }
    }

    /// Looks for what a hub in front of the broker would miss later, beside what [`Broker::check`] finds; `own_users`: who may do what
    /// is not the broker's to say. Changes nothing.
    pub async fn check_hub(&self, name: &str, own_users: bool) -> Vec<Finding> {
        match self {
            BrokerConfig::Rabbitmq(config) => rabbitmq::check_hub(name, config, own_users).await,
            BrokerConfig::Embedded(_) => Vec::new(),
            #[cfg(feature = "sqs")]
            BrokerConfig::Sqs(_) => vec![Finding::from_failure(name, &no_hub(name, self.kind()))],
        }
    }
}

/// Which `user_id` a broker takes from our login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserIds {
    /// Any.
    Any,
    /// Only the login's own name, which is this.
    Own(String),
    /// It does not tell.
    Unknown,
}

#[cfg(feature = "sqs")]
fn no_hub(name: &str, kind: &str) -> Failure {
    Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, format!("make a hub of broker `{name}`"))
        .detail(format!("a broker of the type `{kind}` has no exchanges"))
        .remedy("use a broker of the type rabbitmq or embedded")
}
