//! Messages that wait here for their next try, because no broker can hold them for us: `parking.db` in the state folder.
//!
//! The original is acked once a message is parked, so every commit is forced to the disk: what was parked outlives the
//! machine.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};
use tokio::task::spawn_blocking;
use warren_engine::consume::policy::{Class, DeadLettered};
use warren_engine::delivery::Job;
use warren_engine::failure::Failure;
use warren_engine::message::{Message, Properties};
use warren_engine::ports::{NewParked, Parked, ParkedId, ParkedSum, Parking};

use crate::database::{self, Fault, Kind};

const KIND: Kind = Kind {
    what: "what is parked in it, messages that were to be tried again,",
    application_id: 0x5741_5250, // WARP
    migrations: &[
        include_str!("parking/001.sql"),
        include_str!("parking/002.sql"),
        include_str!("parking/003.sql"),
    ],
    forced: true,
};

/// The parking lot of a state folder.
pub struct FileParking {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
}

/// What waits in the parking lot for one consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// How many messages.
    pub messages: u64,
    /// When the one that came here first was first received, in milliseconds since the epoch.
    pub oldest_ms: Option<i64>,
    /// When the next is due.
    pub next_due_ms: Option<i64>,
}

/// Looks at the parking lot of a state folder, and makes nothing. Disturbs nobody who uses it.
///
/// # Errors
/// It cannot be read, is damaged, or belongs to a newer version.
pub async fn look(folder: &Path, consumer: &str) -> Result<Waiting, Failure> {
    let what = "look at the parking lot";
    let (path, consumer) = (folder.join("parking.db"), consumer.to_owned());
    let looking = spawn_blocking(move || {
        let looked = database::open_to_read(&path, KIND).and_then(|connection| match connection {
            None => Ok(Waiting::default()),
            Some(connection) => Ok(connection.query_row(
                "SELECT count(*), min(first_at_ms), min(due_ms) FROM parked WHERE consumer = ?1",
                [consumer],
                |row| {
                    let messages = row.get::<_, i64>(0)? as u64;
                    Ok(Waiting { messages, oldest_ms: row.get(1)?, next_due_ms: row.get(2)? })
                },
            )?),
        });
        looked.map_err(|fault| fault.into_failure(what, &path, KIND))
    });
    looking.await.unwrap_or_else(|error| Err(Failure::internal(what).because(error)))
}

impl FileParking {
    /// Opens the parking lot of a state folder, and makes what is missing.
    ///
    /// # Errors
    /// It cannot be written, is damaged, or belongs to a newer version.
    pub fn open(folder: &Path) -> Result<FileParking, Failure> {
        let path = folder.join("parking.db");
        let connection = database::open(&path, KIND)?;
        Ok(FileParking { path, connection: Arc::new(Mutex::new(connection)) })
    }

    /// Does something with the file, on a thread meant for that.
    async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        ask: impl FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Failure> {
        let (connection, path) = (self.connection.clone(), self.path.clone());
        let asking = spawn_blocking(move || {
            // A panic under the lock has rolled its transaction back.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            ask(&mut connection).map_err(|fault| fault.into_failure(what, &path, KIND))
        });
        asking.await.unwrap_or_else(|error| Err(Failure::internal(what).because(error)))
    }
}

#[async_trait]
impl Parking for FileParking {
    async fn park_all(&self, consumer: &str, parked: &[NewParked]) -> Result<Vec<ParkedId>, Failure> {
        let (consumer, parked) = (consumer.to_owned(), parked.to_vec());
        let park = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut ids = Vec::with_capacity(parked.len());
            for parked in &parked {
                insert(&transaction, &consumer, parked)?;
                ids.push(ParkedId(transaction.last_insert_rowid()));
            }
            transaction.commit()?;
            Ok(ids)
        };
        self.ask("park a message", park).await
    }

    async fn due(&self, consumer: &str, now_ms: i64, max: usize) -> Result<Vec<Parked>, Failure> {
        let consumer = consumer.to_owned();
        let due = move |connection: &mut Connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, lane, due_ms, spent, first_at_ms, properties, envelope, body, dead_letter_class, \
                 dead_letter_reason FROM parked \
                 WHERE consumer = ?1 AND head = 1 AND due_ms <= ?2 ORDER BY due_ms, id LIMIT ?3",
            )?;
            let mut rows = statement.query(params![consumer, now_ms, max as i64])?;
            let mut due = Vec::new();
            while let Some(row) = rows.next()? {
                due.push(read(row)?);
            }
            Ok(due)
        };
        self.ask("look for parked messages", due).await
    }

    async fn next_due_ms(&self, consumer: &str) -> Result<Option<i64>, Failure> {
        let consumer = consumer.to_owned();
        let next = move |connection: &mut Connection| {
            let mut statement = connection
                .prepare_cached("SELECT min(due_ms) FROM parked WHERE consumer = ?1 AND head = 1")?;
            Ok(statement.query_row([consumer], |row| row.get(0))?)
        };
        self.ask("look for parked messages", next).await
    }

    async fn lanes(&self, consumer: &str) -> Result<Vec<(Option<String>, ParkedSum)>, Failure> {
        let consumer = consumer.to_owned();
        let lanes = move |connection: &mut Connection| {
            let mut statement = connection.prepare(
                "SELECT lane, count(*), sum(length(body) + ?2) FROM parked WHERE consumer = ?1 GROUP BY lane",
            )?;
            let lanes = statement.query_map(params![consumer, Job::PARKED_BYTES as i64], |row| {
                let (messages, bytes) = (row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as u64);
                Ok((row.get(0)?, ParkedSum { messages, bytes }))
            })?;
            Ok(lanes.collect::<Result<_, _>>()?)
        };
        self.ask("count parked messages", lanes).await
    }

    async fn delay(&self, id: ParkedId, spent: u32, due_ms: i64) -> Result<(), Failure> {
        let delay = move |connection: &mut Connection| {
            connection
                .prepare_cached("UPDATE parked SET spent = ?2, due_ms = ?3 WHERE id = ?1")?
                .execute(params![id.0, spent, due_ms])?;
            Ok(())
        };
        self.ask("park a message for longer", delay).await
    }

    async fn remove(&self, id: ParkedId) -> Result<(), Failure> {
        let remove = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let removed = transaction
                .prepare_cached("DELETE FROM parked WHERE id = ?1 RETURNING consumer, lane, head")?
                .query_row([id.0], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, bool>(2)?))
                })
                .optional()?;
            if let Some((consumer, Some(lane), true)) = removed {
                transaction
                    .prepare_cached(
                        "UPDATE parked SET head = 1 WHERE id = \
                         (SELECT min(id) FROM parked WHERE consumer = ?1 AND lane = ?2)",
                    )?
                    .execute(params![consumer, lane])?;
            }
            transaction.commit()?;
            Ok(())
        };
        self.ask("forget a parked message", remove).await
    }
}

/// Adds a message; the first of its lane is its head.
fn insert(transaction: &Transaction<'_>, consumer: &str, parked: &NewParked) -> Result<(), Fault> {
    let message = &parked.job.message;
    transaction
        .prepare_cached(
            "INSERT INTO parked (consumer, lane, due_ms, spent, first_at_ms, properties, envelope, body, \
               dead_letter_class, dead_letter_reason, head) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, \
               ?2 IS NULL OR NOT EXISTS (SELECT 1 FROM parked WHERE consumer = ?1 AND lane = ?2))",
        )?
        .execute(params![
            consumer,
            parked.lane.as_deref(),
            parked.due_ms,
            parked.spent,
            parked.first_at_ms,
            serde_json::to_string(&message.properties)?,
            serde_json::to_string(&parked.job.envelope)?,
            &message.body[..],
            parked.dead_lettered.as_ref().map(|reason| reason.class.as_str()),
            parked.dead_lettered.as_ref().map(|reason| &reason.text),
        ])?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<Parked, Fault> {
    let properties: Properties =
        serde_json::from_str(row.get_ref(5)?.as_str().map_err(rusqlite::Error::from)?)?;
    let envelope = serde_json::from_str(row.get_ref(6)?.as_str().map_err(rusqlite::Error::from)?)?;
    let body: Vec<u8> = row.get(7)?;
    let lane: Option<String> = row.get(1)?;
    let class: Option<String> = row.get(8)?;
    let dead_lettered = match class {
        // A class of a later version is still a dead letter.
        Some(class) => Some(DeadLettered {
            class: Class::of(&class).unwrap_or(Class::Exhausted),
            text: row.get::<_, Option<String>>(9)?.unwrap_or_default(),
        }),
        None => None,
    };
    Ok(Parked {
        id: ParkedId(row.get(0)?),
        parked: NewParked {
            job: Arc::new(Job { message: Message { body: body.into(), properties }, envelope }),
            due_ms: row.get(2)?,
            spent: row.get(3)?,
            first_at_ms: row.get(4)?,
            lane: lane.map(Into::into),
            dead_lettered,
        },
    })
}
