//! One write transaction on the broker's file. Everything that changes messages goes through it.
//!
//! Invariant: a message id is in `ready` or in `taken`, never in both, and `depth` says how many a queue has in each.

use std::collections::{HashMap, VecDeque};

use rusqlite::{Connection, params};

use super::deposit::DeadLetter;
use super::fault::{Fault, damaged};
use super::topology::{QueueId, Topology};

/// How many messages of a queue wait and are held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Depth {
    pub ready: i64,
    pub taken: i64,
}

/// An open write transaction. Dropped without [`Ledger::commit`], it is rolled back.
pub(super) struct Ledger<'c> {
    pub(super) conn: &'c Connection,
    pub(super) topology: &'c mut Topology,
    /// Who we are among the processes that use the file.
    pub(super) holder: i64,
    /// The wall clock when the transaction began, in milliseconds since the epoch.
    pub(super) now_ms: i64,
    /// Messages on their way to dead-letter exchanges.
    pub(super) dead: VecDeque<DeadLetter>,
    next_id: i64,
    first_id: i64,
    depths: HashMap<QueueId, (Depth, Depth)>,
    open: bool,
}

impl<'c> Ledger<'c> {
    /// Takes the file's write lock; reads the topology again if anyone changed it.
    pub(super) fn begin(
        conn: &'c Connection,
        topology: &'c mut Topology,
        holder: i64,
        now_ms: i64,
    ) -> Result<Ledger<'c>, Fault> {
        conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut ledger = Ledger {
            conn,
            topology,
            holder,
            now_ms,
            dead: VecDeque::new(),
            next_id: 0,
            first_id: 0,
            depths: HashMap::new(),
            open: true,
        };
        let (version, next_id): (i64, i64) = conn
            .prepare_cached("SELECT topology, next_id FROM state")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        (ledger.next_id, ledger.first_id) = (next_id, next_id);
        if version != ledger.topology.version {
            *ledger.topology = Topology::load(conn, version)?;
        }
        Ok(ledger)
    }

    /// The next message's id.
    pub(super) fn new_id(&mut self) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Notes that declarations changed, and reads them again.
    pub(super) fn redeclared(&mut self) -> Result<(), Fault> {
        let version = self.topology.version + 1;
        self.conn.execute("UPDATE state SET topology = ?1", [version])?;
        *self.topology = Topology::load(self.conn, version)?;
        Ok(())
    }

    /// How many messages a queue has, as this transaction sees it.
    pub(super) fn depth(&mut self, queue: QueueId) -> Result<&mut Depth, Fault> {
        if !self.depths.contains_key(&queue) {
            let mut statement =
                self.conn.prepare_cached("SELECT ready, taken FROM depth WHERE queue = ?1")?;
            let mut rows = statement.query([queue])?;
            let Some(row) = rows.next()? else {
                return Err(damaged("count a queue's messages", format!("queue {queue} has no count")).into());
            };
            let depth = Depth { ready: row.get(0)?, taken: row.get(1)? };
            self.depths.insert(queue, (depth, depth));
        }
        let (depth, _) = self.depths.get_mut(&queue).expect("inserted above");
        Ok(depth)
    }

    /// Forgets the count of a queue that is deleted.
    pub(super) fn forget_depth(&mut self, queue: QueueId) {
        self.depths.remove(&queue);
    }

    /// Writes the counts; what is left is the commit itself.
    pub(super) fn settle_accounts(&mut self) -> Result<(), Fault> {
        for (queue, (depth, before)) in &self.depths {
            if depth != before {
                self.conn
                    .prepare_cached("UPDATE depth SET ready = ?2, taken = ?3 WHERE queue = ?1")?
                    .execute(params![queue, depth.ready, depth.taken])?;
            }
        }
        if self.next_id != self.first_id {
            self.conn.prepare_cached("UPDATE state SET next_id = ?1")?.execute([self.next_id])?;
        }
        Ok(())
    }

    /// Makes it lasting. After an error it may or may not be.
    pub(super) fn commit(mut self) -> Result<(), Fault> {
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        self.open = false;
        Ok(())
    }
}

impl Drop for Ledger<'_> {
    fn drop(&mut self) {
        if self.open {
            // What was read of uncommitted declarations must not outlive them.
            self.topology.version = 0;
            // Fails only where SQLite has rolled back by itself.
            self.conn.execute_batch("ROLLBACK").ok();
        }
    }
}
