//! The record of what became of messages: each attempt at each message, in the state folder.
//!
//! The newest attempts are in a [journal], a mapped file; when there are some hundreds, a thread packs them into a [block] of `messages.db`,
//! where a filter of each block says which messages it may hold, so that a search opens few of them. What was recorded outlives the death of
//! the process; of the machine, but for its last moments.
//!
//! | idea | module |
//! |---|---|
//! | an attempt as bytes | [`attempt`] |
//! | the newest | [`journal`] |
//! | all others | [`block`] |
//! | recording, packing, dropping what is old | [`writer`] |
//! | finding | [`query`] |
//! | what versions 1 and 2 wrote | [`old`] |

mod attempt;
mod block;
mod journal;
mod old;
mod query;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::spawn_blocking;
use warren_engine::consume::record::{MessageRun, MessageRunId};
use warren_engine::failure::Failure;
use warren_engine::ports::{Clock, MessageRecords};

pub use self::query::{MessageFilter, RecordedMessage};
use self::writer::Writer;
use crate::database::{self, Kind};
use crate::state::Retention;

pub(crate) const KIND: Kind = Kind {
    what: "the record of past messages",
    application_id: 0x5741_524d, // WARM
    migrations: &[
        include_str!("001.sql"),
        include_str!("002.sql"),
        include_str!("003.sql"),
        include_str!("004.sql"),
    ],
    forced: false,
};
const FILE: &str = "messages.db";

/// The record of a state folder, to write and to read. Dropping it waits until what was asked for is written.
pub struct FileMessages {
    path: PathBuf,
    writer: Writer,
}

impl FileMessages {
    /// Opens the record of a folder, and makes what is missing. `retention` is how long and how much is kept of it.
    ///
    /// # Errors
    /// It cannot be written, is damaged, or belongs to a newer version.
    pub fn open(folder: &Path, retention: Retention, clock: Arc<dyn Clock>) -> Result<FileMessages, Failure> {
        let path = folder.join(FILE);
        let connection = database::open(&path, KIND)?;
        let writer = Writer::start(connection, path.clone(), retention, clock)?;
        Ok(FileMessages { path, writer })
    }

    /// As [`find`], in the folder of this record.
    ///
    /// # Errors
    /// As [`find`].
    pub async fn find(&self, filter: MessageFilter) -> Result<Vec<RecordedMessage>, Failure> {
        find(self.path.parent().unwrap_or(Path::new("")), filter).await
    }
}

#[async_trait]
impl MessageRecords for FileMessages {
    async fn append(&self, run: &MessageRun) -> Result<MessageRunId, Failure> {
        self.writer.append(run).await
    }

    async fn late(&self, run: MessageRunId) -> Result<(), Failure> {
        self.writer.late(run).await
    }
}

/// The attempts a filter asks for, in a state folder. None where nothing was recorded yet. Disturbs nobody who writes.
///
/// # Errors
/// The record cannot be read.
pub async fn find(folder: &Path, filter: MessageFilter) -> Result<Vec<RecordedMessage>, Failure> {
    let what = "read the record of messages";
    let (folder, path) = (folder.to_owned(), folder.join(FILE));
    let reading = spawn_blocking(move || {
        query::find(&folder, &path, &filter).map_err(|fault| fault.into_failure(what, &path, KIND))
    });
    reading.await.unwrap_or_else(|error| Err(Failure::internal(what).because(error)))
}

/// Reads bytes as a journal and as a packed block: the entry point of the fuzz target `record`.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let filter = query::MessageFilter::default();
    if let Some(gathered) = journal::fuzz(bytes) {
        gathered.find(&filter).ok();
        gathered.pack().ok();
    }
    let (attempts, bodies) = bytes.split_at(bytes.len() / 2);
    block::find(1, attempts, || Ok(bodies), &filter).ok();
}
