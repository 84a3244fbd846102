//! The state in one SQLite file, for one machine. Any number of processes may have it open.
//!
//! Writing is done by one thread, which takes what waits and commits it together; reading opens a connection of its
//! own, on the threads meant for blocking. Nothing of SQLite is seen outside this folder.

mod append;
mod connection;
mod fault;
mod prune;
mod runs;
mod search;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::task::spawn_blocking;
use warren_engine::failure::Failure;
use warren_engine::ports::{Clock, Holder, Lease, Leases, Records};
use warren_engine::run::{RowOutcome, RunId, RunKind, RunRecord};

use self::fault::Fault;
use self::search::Search;
use self::writer::Writer;
use super::lease::LeaseFolder;
use super::{OutcomeFilter, Outcomes, Pruned, Recorded, Retention, RunFilter, State, SystemClock, Tally};

/// The name of the file in the state folder.
const FILE: &str = "state.db";

/// How a [`SqliteState`] is to be.
#[derive(Clone)]
pub struct SqliteOptions {
    /// What is kept.
    pub retention: Retention,
    /// Past this size nothing more is written, as if the disk were full; for disks that others need too, and for
    /// tests. Not the bound of retention, which makes room instead.
    pub file_bytes_max: Option<u64>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        SqliteOptions { retention: Retention::default(), file_bytes_max: None, clock: Arc::new(SystemClock) }
    }
}

/// The state of one machine, in `state.db` of a folder, with its leases beside it in `leases/`.
///
/// What a call has recorded outlives the death of the process at any moment. It is handed to the operating system and
/// not forced to the disk each time, so when the *machine* loses power the last moments of the record may be lost (the
/// file stays whole). No row is lost by that: the baseline is kept apart, and forced.
///
/// Dropping it waits until what was asked for is written, and for at most a second or two of pruning.
pub struct SqliteState {
    path: PathBuf,
    leases: Arc<LeaseFolder>,
    writer: Writer,
}

impl SqliteState {
    /// Opens the state of a folder, and makes what is missing. A file of an older version is brought up to date.
    ///
    /// # Errors
    /// [`STATE_TOO_NEW`], [`STATE_DAMAGED`] or [`STATE_UNWRITABLE`], with the path and the way out.
    ///
    /// [`STATE_TOO_NEW`]: warren_engine::codes::STATE_TOO_NEW
    /// [`STATE_DAMAGED`]: warren_engine::codes::STATE_DAMAGED
    /// [`STATE_UNWRITABLE`]: warren_engine::codes::STATE_UNWRITABLE
    pub fn open(folder: &Path, retention: Retention) -> Result<SqliteState, Failure> {
        SqliteState::open_with(folder, SqliteOptions { retention, ..SqliteOptions::default() })
    }

    /// As [`SqliteState::open`], with more to choose.
    ///
    /// # Errors
    /// As [`SqliteState::open`].
    pub fn open_with(folder: &Path, options: SqliteOptions) -> Result<SqliteState, Failure> {
        connection::make_folder(folder)?;
        let leases = Arc::new(LeaseFolder::open(folder.join("leases"))?);
        let path = folder.join(FILE);
        let connection = {
            // Two processes that make the file at once would get into each other's way.
            let _gate = leases.gate()?;
            connection::open(&path, options.file_bytes_max)
                .map_err(|fault| fault.into_failure("open the state", &path))?
        };
        let writer = Writer::start(connection, path.clone(), leases.clone(), options)?;
        Ok(SqliteState { path, leases, writer })
    }

    /// Reads on a thread meant for that.
    async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        read: impl FnOnce(&mut Connection, &LeaseFolder) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Failure> {
        let (path, leases) = (self.path.clone(), self.leases.clone());
        let reading = spawn_blocking(move || {
            let mut connection = connection::open_to_read(&path)
                .map_err(|fault| fault.into_failure("open the state to read", &path))?;
            read(&mut connection, &leases).map_err(|fault| fault.into_failure(what, &path))
        });
        reading.await.unwrap_or_else(|error| Err(Failure::internal(what).because(error)))
    }
}

#[async_trait]
impl Records for SqliteState {
    async fn begin(&self, sync: &str, kind: RunKind) -> Result<RunId, Failure> {
        self.writer.begin(sync.to_owned(), kind).await
    }

    async fn update(&self, run: &RunRecord) -> Result<(), Failure> {
        self.writer.update(run.clone()).await
    }

    async fn append(&self, run: RunId, outcomes: Vec<RowOutcome>) -> Result<(), Failure> {
        if outcomes.is_empty() {
            return Ok(());
        }
        self.writer.append(run, outcomes).await
    }
}

#[async_trait]
impl Leases for SqliteState {
    async fn take(&self, name: &str) -> Result<Result<Box<dyn Lease>, Holder>, Failure> {
        let (leases, name) = (self.leases.clone(), name.to_owned());
        spawn_blocking(move || leases.take(&name))
            .await
            .unwrap_or_else(|error| Err(Failure::internal("take a lease").because(error)))
    }
}

#[async_trait]
impl State for SqliteState {
    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>, Failure> {
        let filter = filter.clone();
        self.read("list runs", move |connection, leases| runs::list(connection, leases, &filter)).await
    }

    async fn run(&self, run: RunId) -> Result<Option<RunRecord>, Failure> {
        self.read("read a run", move |connection, leases| runs::one(connection, leases, run)).await
    }

    async fn holder(&self, name: &str) -> Result<Option<Holder>, Failure> {
        let (leases, name) = (self.leases.clone(), name.to_owned());
        spawn_blocking(move || leases.holder_of(&name))
            .await
            .unwrap_or_else(|error| Err(Failure::internal("look at a lease").because(error)))
    }

    async fn tallies(&self, run: RunId) -> Result<Vec<Tally>, Failure> {
        self.read("count the rows of a run", move |connection, _| runs::tallies(connection, run)).await
    }

    fn find(&self, filter: OutcomeFilter) -> Box<dyn Outcomes> {
        let search = Search::new(filter);
        Box::new(SqliteOutcomes { path: self.path.clone(), search: Some(Box::new(search)) })
    }

    async fn prune(&self) -> Result<Pruned, Failure> {
        self.writer.prune().await
    }
}

/// A search, between two pieces; `None` while a piece is read and after it failed.
struct SqliteOutcomes {
    path: PathBuf,
    search: Option<Box<Search>>,
}

#[async_trait]
impl Outcomes for SqliteOutcomes {
    async fn next(&mut self) -> Result<Vec<Recorded>, Failure> {
        let Some(mut search) = self.search.take() else { return Ok(Vec::new()) };
        let path = self.path.clone();
        let reading = spawn_blocking(move || {
            let found =
                search.next(&path).map_err(|fault| fault.into_failure("read recorded rows", &path))?;
            Ok::<_, Failure>((found, search))
        });
        let (found, search) = reading
            .await
            .unwrap_or_else(|error| Err(Failure::internal("read recorded rows").because(error)))?;
        self.search = Some(search);
        Ok(found)
    }
}
