//! Reads the source's rows into the spill: prints keys and rows, sets NULL keys aside.
//!
//! Printing runs on a thread of its own, fed by a short channel, so that the source's connection and the hashing
//! each have a core.

use warren_engine::codes;
use warren_engine::failure::Failure;
use warren_engine::fingerprint::{KeyPrint, Picker, Printer};
use warren_engine::key::key_text_at;
use warren_engine::ports::{Progress, RowFault, RowStream};
use warren_engine::row::{Batch, RowRef};

use super::columns::Columns;
use super::spill::Spill;

/// Batches that wait to be printed.
const BATCHES_WAITING: usize = 4;
/// Rows that are printed before their prints are put away. What is put away goes to many places in memory; were the two mixed,
/// each print would wait until the places of the one before it have come from memory.
const GROUP_ROWS: usize = 128;
/// Faults of one code that are kept as samples.
pub(crate) const SAMPLES_MAX: usize = 100;

/// What was read.
pub(crate) struct ReadRows {
    pub(crate) spill: Spill,
    pub(crate) rows: u64,
    pub(crate) null_keys: u64,
    pub(crate) faults: Vec<RowFault>,
    /// Whether all keys have the same print by value as the one that was taken.
    pub(crate) keys_by_value: bool,
}

/// Reads all rows. An error of the stream is returned as it is, and nothing is left behind.
pub(crate) async fn read_all(
    rows: &mut dyn RowStream,
    columns: &Columns,
    spill: Spill,
    progress: &Progress,
) -> Result<ReadRows, Failure> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Batch>(BATCHES_WAITING);
    let mut reader = Reader::new(columns, spill);
    let printing = tokio::task::spawn_blocking(move || {
        while let Some(batch) = receiver.blocking_recv() {
            reader.take(batch)?;
        }
        Ok::<_, Failure>(reader.read)
    });
    let (mut count, mut bytes) = (0, 0);
    let streamed = loop {
        match rows.next().await {
            Ok(Some(batch)) => {
                count += batch.len() as u64;
                bytes += batch.size() as u64;
                progress(count, bytes);
                if sender.send(batch).await.is_err() {
                    // The printing thread has ended, with an error that is fetched below.
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    drop(sender);
    let printed = printing.await.map_err(|error| Failure::internal("print rows").because(error))?;
    streamed?;
    printed
}

struct Reader {
    key: Picker,
    /// As in [`Columns`].
    key_by_value: Option<Picker>,
    pickers: Vec<Picker>,
    printer: Printer,
    /// The prints of a group of rows.
    prints: Vec<u128>,
    read: ReadRows,
}

impl Reader {
    fn new(columns: &Columns, spill: Spill) -> Reader {
        let read = ReadRows { spill, rows: 0, null_keys: 0, faults: Vec::new(), keys_by_value: true };
        Reader {
            key: columns.key_picker.clone(),
            key_by_value: columns.key_by_value.clone(),
            pickers: columns.pickers.clone(),
            prints: Vec::new(),
            printer: Printer::default(),
            read,
        }
    }

    fn take(&mut self, batch: Batch) -> Result<(), Failure> {
        let mut group = Vec::with_capacity(GROUP_ROWS);
        for (number, row) in (self.read.spill.rows()..).zip(batch.rows()) {
            let Some(key) = self.printer.key(row, &self.key) else {
                self.read.null_keys += 1;
                if self.read.faults.len() < SAMPLES_MAX {
                    let key = key_text_at(row, self.key.indexes());
                    self.read.faults.push(RowFault { code: codes::NULL_KEY, key });
                }
                continue;
            };
            if let Some(by_value) = &self.key_by_value {
                self.read.keys_by_value &= self.printer.key(row, by_value) == Some(key);
            }
            for picker in &self.pickers {
                self.prints.push(self.printer.row(row, picker).bits());
            }
            group.push((number, key, row));
            if group.len() == GROUP_ROWS {
                self.put_away(&mut group)?;
            }
        }
        self.put_away(&mut group)?;
        drop(group);
        self.read.spill.end_batch(batch)?;
        self.read.rows = self.read.spill.rows();
        Ok(())
    }

    fn put_away(&mut self, group: &mut Vec<(u64, KeyPrint, RowRef<'_>)>) -> Result<(), Failure> {
        for ((number, key, row), prints) in group.drain(..).zip(self.prints.chunks(self.pickers.len())) {
            self.read.spill.push(number, key.0, prints, row.as_bytes())?;
        }
        self.prints.clear();
        Ok(())
    }
}
