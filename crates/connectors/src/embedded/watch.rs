//! What the writer looks for because nobody tells it: other processes' commits and deaths, and messages that expire.

use std::time::{Duration, Instant};

use super::fault::Fault;
use super::holder::Gone;
use super::ledger::Ledger;
use super::topology::Topology;
use super::writer::{AFTER_FAILURE, DUE_EVERY, Writer};

/// How often it is asked whether other processes have died.
const GONE_EVERY: Duration = Duration::from_millis(200);

impl Writer {
    /// Looks for what nobody told us: other processes' commits and deaths, and expiries.
    pub(super) fn look(&mut self) {
        if self.resting_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        self.resting_until = None;
        if let Err(fault) = self.try_to_look() {
            // The next caller meets the same fault and is told of it; here it only means that we look again later.
            tracing::debug!(failure = %fault.failure("look at the embedded broker", &self.path), "broker look failed");
            self.rest();
        }
    }

    pub(super) fn rest(&mut self) {
        self.resting_until = Some(Instant::now() + AFTER_FAILURE);
    }

    fn try_to_look(&mut self) -> Result<(), Fault> {
        let leaving = std::mem::take(&mut self.leaving);
        if !leaving.is_empty() {
            self.transact(leaving);
        }
        let data_version: i64 =
            self.conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if data_version != self.data_version {
            self.data_version = data_version;
            self.stirred = true;
            self.due_known = false;
            let version: i64 =
                self.conn.prepare_cached("SELECT topology FROM state")?.query_row([], |row| row.get(0))?;
            if version != self.topology.version {
                self.topology = Topology::load(&self.conn, version)?;
                self.drop_takers_of_deleted_queues();
            }
        }
        if self.gone_looked.elapsed() >= GONE_EVERY {
            self.gone_looked = Instant::now();
            let gone = self.presence.find_gone(&self.conn, self.holder)?;
            if !gone.is_empty() {
                self.put_back_for(gone)?;
                self.stirred = true;
            }
        }
        if !self.due_known && self.due_looked.elapsed() >= DUE_EVERY {
            self.due_looked = Instant::now();
            self.due_ms = self
                .conn
                .prepare_cached(
                    "SELECT min((SELECT expires_ms FROM ready WHERE ready.queue = queue.id ORDER BY ready.id LIMIT 1))
                     FROM queue",
                )?
                .query_row([], |row| row.get(0))?;
            self.due_known = true;
        }
        if self.due_ms.is_some_and(|due_ms| due_ms <= super::now_ms()) {
            let mut ledger = Ledger::begin(&self.conn, &mut self.topology, self.holder, super::now_ms())?;
            ledger.expire()?;
            ledger.settle_accounts()?;
            ledger.commit()?;
            self.due_known = false;
            self.stirred = true;
        }
        if std::mem::take(&mut self.stirred) && self.somebody_can_take()? {
            self.transact(Vec::new());
        }
        Ok(())
    }

    /// Whether a message waits for a consumer that has room; asked without the write lock.
    fn somebody_can_take(&self) -> Result<bool, Fault> {
        for taker in self.takers.values() {
            if taker.room(0) > 0 {
                let ready: Option<i64> = self
                    .conn
                    .prepare_cached("SELECT (SELECT ready FROM depth WHERE queue = ?1)")?
                    .query_row([taker.queue], |row| row.get(0))?;
                if ready.is_some_and(|ready| ready > 0) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn put_back_for(&mut self, gone: Vec<Gone>) -> Result<(), Fault> {
        let mut ledger = Ledger::begin(&self.conn, &mut self.topology, self.holder, super::now_ms())?;
        for gone in &gone {
            // Another process may have been faster.
            if ledger.lock_of(gone.holder)?.is_some() {
                ledger.release_all(gone.holder)?;
            }
        }
        ledger.settle_accounts()?;
        ledger.commit()?;
        gone.into_iter().for_each(Gone::bury);
        Ok(())
    }
}
