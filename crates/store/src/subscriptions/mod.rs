//! The subscriptions of a hub and what it keeps beside them: `hub.db` in the state folder, its secrets sealed with `hub.key`.
//!
//! Every commit is forced to the disk: a subscriber was told that it is subscribed.

mod seal;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use warren_engine::failure::Failure;
use warren_engine::hub::ports::Subscriptions;
use warren_engine::hub::subscription::{Subscription, SubscriptionId};
use warren_engine::pipeline::outside::Hidden;

use self::seal::Seal;
use crate::database::{self, Fault, Kind};

const KIND: Kind = Kind {
    what: "every subscription of the hub",
    application_id: 0x5741_5248, // WARH
    migrations: &[include_str!("001.sql")],
    forced: true,
};

/// The subscriptions of a state folder.
pub struct FileSubscriptions {
    path: PathBuf,
    file: Arc<File>,
}

struct File {
    connection: Mutex<Connection>,
    seal: Seal,
}

/// What is sealed.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Secrets {
    #[serde(skip_serializing_if = "Option::is_none")]
    basic_auth: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// Looks whether the subscriptions of a state folder, what is kept beside them and their key can be read, and makes nothing. Disturbs
/// nobody who uses them.
///
/// # Errors
/// They are damaged, belong to a newer version, or their key is missing or another one.
pub async fn look(folder: &Path) -> Result<(), Failure> {
    let what = "look at the subscriptions";
    let (path, key) = (folder.join("hub.db"), folder.join("hub.key"));
    let looking = spawn_blocking(move || {
        let looked = database::open_to_read(&path, KIND)
            .and_then(|connection| connection.map_or(Ok(()), |connection| look_at(&connection, &key)));
        looked.map_err(|fault| fault.into_failure(what, &path, KIND))
    });
    looking.await.unwrap_or_else(|error| Err(Failure::internal(what).because(error)))
}

fn look_at(connection: &Connection, key: &Path) -> Result<(), Fault> {
    let Some(seal) = Seal::read(key)? else {
        return if sealed(connection)? { Err(seal::missing()) } else { Ok(()) };
    };
    for_each_subscription(connection, &seal, |_| {})?;
    let mut statement = connection.prepare("SELECT name, value FROM kept")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (name, sealed): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
        seal.unseal(&bound_to_name(&name), &sealed)?;
    }
    Ok(())
}

impl FileSubscriptions {
    /// Opens the subscriptions of a state folder, and makes what is missing. Whoever calls holds the lease of the hub.
    ///
    /// # Errors
    /// They cannot be written, are damaged, belong to a newer version, or their key is missing.
    pub fn open(folder: &Path) -> Result<FileSubscriptions, Failure> {
        let path = folder.join("hub.db");
        let connection = database::open(&path, KIND)?;
        let seal = seal(&connection, &folder.join("hub.key"));
        let seal = seal.map_err(|fault| fault.into_failure("open the subscriptions", &path, KIND))?;
        Ok(FileSubscriptions { path, file: Arc::new(File { connection: Mutex::new(connection), seal }) })
    }

    /// Does something with the file, on a thread meant for that.
    async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        ask: impl FnOnce(&Connection, &Seal) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Failure> {
        let (file, path) = (self.file.clone(), self.path.clone());
        let asking = spawn_blocking(move || {
            // A panic under the lock has left no transaction open: each statement is its own.
            let connection = file.connection.lock().unwrap_or_else(PoisonError::into_inner);
            ask(&connection, &file.seal).map_err(|fault| fault.into_failure(what, &path, KIND))
        });
        asking.await.unwrap_or_else(|error| Err(Failure::internal(what).because(error)))
    }
}

/// A new key only where nothing is sealed with another.
fn seal(connection: &Connection, path: &Path) -> Result<Seal, Fault> {
    Seal::open(path, !sealed(connection)?)
}

/// Whether anything is sealed.
fn sealed(connection: &Connection) -> Result<bool, Fault> {
    let sealed = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM kept) OR EXISTS (SELECT 1 FROM subscriptions WHERE secrets IS NOT NULL)",
        [],
        |row| row.get(0),
    )?;
    Ok(sealed)
}

/// Reads all subscriptions, one after another.
fn for_each_subscription(
    connection: &Connection,
    seal: &Seal,
    mut take: impl FnMut(Subscription),
) -> Result<(), Fault> {
    let mut statement = connection.prepare("SELECT subscription, secrets FROM subscriptions")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        let sealed: Option<Vec<u8>> = row.get(1)?;
        take(read(text, sealed.as_deref(), seal)?);
    }
    Ok(())
}

fn bound_to_name(name: &str) -> Vec<u8> {
    format!("value {name}").into_bytes()
}

fn bound_to_id(id: SubscriptionId) -> Vec<u8> {
    format!("subscription {id}").into_bytes()
}

#[async_trait]
impl Subscriptions for FileSubscriptions {
    async fn all(&self) -> Result<Vec<Subscription>, Failure> {
        let all = |connection: &Connection, seal: &Seal| {
            let mut all = Vec::new();
            for_each_subscription(connection, seal, |subscription| all.push(subscription))?;
            Ok(all)
        };
        self.ask("read the subscriptions", all).await
    }

    async fn put(&self, subscription: &Subscription) -> Result<(), Failure> {
        let subscription = subscription.clone();
        let put = move |connection: &Connection, seal: &Seal| {
            let id = subscription.id();
            let Subscription { basic_auth, secret, .. } = &subscription;
            let sealed = match (basic_auth, secret) {
                (None, None) => None,
                (basic_auth, secret) => {
                    let text = |hidden: &Option<Hidden>| hidden.as_ref().map(|hidden| hidden.0.clone());
                    let secrets = Secrets { basic_auth: text(basic_auth), secret: text(secret) };
                    Some(seal.seal(&bound_to_id(id), &serde_json::to_vec(&secrets)?)?)
                }
            };
            connection
                .prepare_cached(
                    "INSERT INTO subscriptions (id, subscription, secrets) VALUES (?1, ?2, ?3) \
                     ON CONFLICT (id) DO UPDATE SET subscription = ?2, secrets = ?3",
                )?
                .execute(params![id.0.to_be_bytes(), serde_json::to_string(&subscription)?, sealed])?;
            Ok(())
        };
        self.ask("store a subscription", put).await
    }

    async fn remove(&self, id: SubscriptionId) -> Result<bool, Failure> {
        let remove = move |connection: &Connection, _: &Seal| {
            let mut statement = connection.prepare_cached("DELETE FROM subscriptions WHERE id = ?1")?;
            Ok(statement.execute([id.0.to_be_bytes()])? > 0)
        };
        self.ask("forget a subscription", remove).await
    }

    async fn value(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let name = name.to_owned();
        let value = move |connection: &Connection, seal: &Seal| {
            let mut statement = connection.prepare_cached("SELECT value FROM kept WHERE name = ?1")?;
            let sealed: Option<Vec<u8>> = statement.query_row([&name], |row| row.get(0)).optional()?;
            sealed.map(|sealed| seal.unseal(&bound_to_name(&name), &sealed)).transpose()
        };
        self.ask("read a value of the hub", value).await
    }

    async fn keep(&self, name: &str, value: &[u8]) -> Result<(), Failure> {
        let (name, value) = (name.to_owned(), value.to_vec());
        let keep = move |connection: &Connection, seal: &Seal| {
            let sealed = seal.seal(&bound_to_name(&name), &value)?;
            connection
                .prepare_cached(
                    "INSERT INTO kept (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
                )?
                .execute(params![name, sealed])?;
            Ok(())
        };
        self.ask("keep a value of the hub", keep).await
    }

    async fn names(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        let prefix = prefix.to_owned();
        let names = move |connection: &Connection, _: &Seal| {
            let mut statement =
                connection.prepare_cached("SELECT name FROM kept WHERE name >= ?1 ORDER BY name")?;
            let mut rows = statement.query([&prefix])?;
            let mut names = Vec::new();
            // In SQLite's order of bytes all that begin so stand together.
            while let Some(row) = rows.next()? {
                let name: String = row.get(0)?;
                if !name.starts_with(&prefix) {
                    break;
                }
                names.push(name);
            }
            Ok(names)
        };
        self.ask("look for values of the hub", names).await
    }

    async fn forget(&self, name: &str) -> Result<(), Failure> {
        let name = name.to_owned();
        let forget = move |connection: &Connection, _: &Seal| {
            connection.prepare_cached("DELETE FROM kept WHERE name = ?1")?.execute([name])?;
            Ok(())
        };
        self.ask("forget a value of the hub", forget).await
    }
}

fn read(text: &str, sealed: Option<&[u8]>, seal: &Seal) -> Result<Subscription, Fault> {
    let subscription: Subscription = serde_json::from_str(text)?;
    let secrets = match sealed {
        None => Secrets::default(),
        Some(sealed) => serde_json::from_slice(&seal.unseal(&bound_to_id(subscription.id()), sealed)?)?,
    };
    Ok(Subscription {
        basic_auth: secrets.basic_auth.map(Hidden),
        secret: secrets.secret.map(Hidden),
        ..subscription
    })
}
