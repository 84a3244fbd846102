//! The rows of a query on their way from the task or thread that reads them to the one that wants them.
//!
//! Between the two stands a bounded channel of batches: reading, parsing and what is done with the rows overlap, and a slow
//! taker holds up the reader. The end of a result is a word of its own ([`Feeder::finish`]), never just a closed
//! channel: a reader that dies cannot look like a query with fewer rows. When the [`Feed`] is dropped the reader sees
//! [`Feeder::closed`] and gives the query up.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::model::Schema;
use warren_engine::ports::RowStream;
use warren_engine::row::Batch;

/// Packed bytes after which a batch is handed on.
pub(crate) const BATCH_BYTES: usize = 256 * 1024;

/// Batches that may wait. With the one being filled and the one being worked on: 1 MiB of rows in flight.
const BATCHES_WAITING_MAX: usize = 2;

/// The taker's end: the rows as a stream.
#[derive(Debug)]
pub(crate) struct Feed {
    schema: Arc<Schema>,
    receiver: mpsc::Receiver<Part>,
    ended: bool,
}

/// The reader's end.
#[derive(Debug)]
pub(crate) struct Feeder {
    sender: mpsc::Sender<Part>,
}

/// Sees whether the rows are still wanted. It does not outlive the [`Feeder`]'s reader.
#[derive(Debug)]
pub(crate) struct Watch {
    sender: mpsc::Sender<Part>,
}

/// Nobody wants the rows any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

#[derive(Debug)]
enum Part {
    Rows(Batch),
    End,
    Failed(Box<Failure>),
}

/// Both ends of a new feed.
pub(crate) fn feed(schema: Arc<Schema>) -> (Feeder, Feed) {
    let (sender, receiver) = mpsc::channel(BATCHES_WAITING_MAX);
    (Feeder { sender }, Feed { schema, receiver, ended: false })
}

impl Feeder {
    /// Hands rows on, once there is room for them. An empty batch is not handed on.
    pub(crate) async fn rows(&self, batch: Batch) -> Result<(), Gone> {
        if batch.is_empty() {
            return Ok(());
        }
        self.sender.send(Part::Rows(batch)).await.map_err(|_| Gone)
    }

    /// The same, from a thread that may block.
    pub(crate) fn rows_blocking(&self, batch: Batch) -> Result<(), Gone> {
        if batch.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(Part::Rows(batch)).map_err(|_| Gone)
    }

    /// The result is complete, or failed.
    pub(crate) async fn finish(self, result: Result<(), Failure>) {
        // A taker that is gone wants no word either.
        self.sender.send(Part::last(result)).await.ok();
    }

    /// The same, from a thread that may block.
    pub(crate) fn finish_blocking(self, result: Result<(), Failure>) {
        // A taker that is gone wants no word either.
        self.sender.blocking_send(Part::last(result)).ok();
    }

    /// Returns once nobody wants the rows any more.
    pub(crate) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Tells the same whenever it is asked, for a reader that cannot wait.
    pub(crate) fn watch(&self) -> Watch {
        Watch { sender: self.sender.clone() }
    }
}

impl Watch {
    /// Whether nobody wants the rows any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Part {
    fn last(result: Result<(), Failure>) -> Part {
        match result {
            Ok(()) => Part::End,
            Err(failure) => Part::Failed(Box::new(failure)),
        }
    }
}

#[async_trait]
impl RowStream for Feed {
    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    async fn next(&mut self) -> Result<Option<Batch>, Failure> {
        if self.ended {
            return Ok(None);
        }
        match self.receiver.recv().await {
            Some(Part::Rows(batch)) => Ok(Some(batch)),
            Some(Part::End) => {
                self.ended = true;
                Ok(None)
            }
            Some(Part::Failed(failure)) => Err(*failure),
            None => Err(Failure::new(
                FailureKind::Internal,
                codes::QUERY_INTERRUPTED,
                "read the rows of the query",
            )
            .detail("the reader stopped before it said that the result is complete")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Batch {
        let mut batch = Batch::default();
        batch.cells().int(1);
        batch.end_row();
        batch
    }

    #[tokio::test]
    async fn a_reader_that_dies_is_not_an_end() {
        let (feeder, mut feed) = feed(Schema::new(Vec::new()).unwrap());
        feeder.rows(row()).await.unwrap();
        drop(feeder);
        assert_eq!(feed.next().await.unwrap().map(|batch| batch.len()), Some(1));
        assert_eq!(feed.next().await.unwrap_err().code, codes::QUERY_INTERRUPTED);
    }

    #[tokio::test]
    async fn an_end_stays_an_end() {
        let (feeder, mut feed) = feed(Schema::new(Vec::new()).unwrap());
        feeder.rows(Batch::default()).await.unwrap();
        feeder.finish(Ok(())).await;
        assert!(feed.next().await.unwrap().is_none());
        assert!(feed.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_taker_that_goes_is_seen() {
        let (feeder, feed) = feed(Schema::new(Vec::new()).unwrap());
        drop(feed);
        feeder.closed().await;
        assert!(feeder.watch().is_closed());
        assert_eq!(feeder.rows(row()).await, Err(Gone));
    }
}
