//! The keys in doubt: what the destination may have been told, as far as later runs have not settled it.
//!
//! They are few, as many as messages were under way when answers were lost, and are kept beside the key file:
//!
//! ```text
//! doubts-N   magic 8 | version u32 | count u32 | records as in an announced block, sorted by key | xxh3-64 of all before
//! ```

use warren_engine::change::Op;
use warren_engine::failure::Failure;
use warren_engine::fingerprint::{KeyPrint, RowPrint};
use xxhash_rust::xxh3::xxh3_64;

use super::folder::{Folder, too_new};
use super::manifest::{Manifest, doubts_name};
use super::merge::{Difference, Rules, Verdict, judge};
use super::partition::{Entry, PARTITION_BITS, le32, le64};
use super::segment::{ANNOUNCED, Record};
use super::spill::Fresh;

const MAGIC: &[u8; 8] = b"WarrenD\n";
const VERSION: u32 = 1;
const HEADER: usize = 16;

/// The keys in doubt, sorted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doubts(Vec<Record>);

impl Doubts {
    /// Those of a baseline.
    ///
    /// # Errors
    /// The file is missing, newer or damaged.
    pub(crate) fn open(folder: &Folder, manifest: &Manifest) -> Result<Doubts, Failure> {
        if manifest.doubts == 0 {
            return Ok(Doubts::default());
        }
        let file = folder.open(&doubts_name(manifest.generation))?;
        let mut bytes = vec![0; HEADER];
        file.read_at(&mut bytes, 0)?;
        if &bytes[..8] != MAGIC {
            return Err(file.damaged(0, "this is not a file of doubts"));
        }
        let version = le32(&bytes, 8);
        if version > VERSION {
            return Err(too_new(file.path(), u64::from(version), u64::from(VERSION)));
        }
        let count = le32(&bytes, 12) as usize;
        let length = HEADER + count * ANNOUNCED;
        if count as u64 != manifest.doubts || file.length() != (length + 8) as u64 {
            return Err(file.damaged(12, "the file has another length than the manifest says"));
        }
        bytes.resize(length + 8, 0);
        file.read_at(&mut bytes, 0)?;
        let (content, sum) = bytes.split_at(length);
        if xxh3_64(content) != le64(sum, 0) && !cfg!(fuzzing) {
            return Err(file.damaged(0, "the checksum does not match"));
        }
        Ok(Doubts(content[HEADER..].chunks_exact(ANNOUNCED).map(Record::read).collect()))
    }

    /// Writes them beside a key file; nothing if there are none.
    pub(crate) fn store(&self, folder: &Folder, generation: u64) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let count = u32::try_from(self.0.len())
            .map_err(|_| Failure::internal("more keys are in doubt than can be numbered"))?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        self.0.iter().for_each(|record| record.write_announced(&mut bytes));
        let sum = xxh3_64(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        let name = doubts_name(generation);
        let mut file = folder.create(&format!("{name}.tmp"))?;
        file.write_at(&bytes, 0)?;
        file.publish_as(&name)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Those of one partition.
    pub(crate) fn of(&self, partition: usize) -> &[Record] {
        let first = |partition: usize| {
            self.0
                .partition_point(|record| (record.entry.key() >> (128 - PARTITION_BITS)) < partition as u128)
        };
        &self.0[first(partition)..first(partition + 1)]
    }

    /// Takes in what comes next, in the order of partitions.
    pub(crate) fn extend(&mut self, mut records: Vec<Record>) {
        records.sort_unstable_by_key(|record| record.entry.key());
        self.0.append(&mut records);
    }

    /// The entries whose rows must be kept for them in a partition: of the rows perhaps told, and of those before.
    pub(crate) fn rows_of(&self, partition: usize) -> [Vec<Entry>; 2] {
        let put = self.of(partition).iter().filter(|record| !record.removed()).map(|record| record.entry);
        let before = self.of(partition).iter().filter_map(|record| {
            let before = record.before?;
            Some(Entry::new(KeyPrint(record.entry.key()), before, record.doubt().version))
        });
        [put.collect(), before.collect()]
    }
}

/// As [`judge`], where some of the keys are in doubt: each of these is said to differ, unless it occurs more than once.
pub(crate) fn judge_in_doubt(
    base: &[Entry],
    fresh: &Fresh,
    doubts: &[Record],
    rules: Rules,
    mut say: impl FnMut(Verdict),
) {
    if doubts.is_empty() {
        return judge(base, fresh, rules, say);
    }
    let in_doubt = |key: u128| doubts.binary_search_by_key(&key, |record| record.entry.key()).is_ok();
    // The walk relies on the order of keys.
    let mut differences = Vec::new();
    judge(base, fresh, rules, |verdict| match verdict {
        Verdict::Differs(difference) if in_doubt(difference.key.0) => {}
        Verdict::Differs(difference) => differences.push(difference),
        Verdict::Reprint(entry) if in_doubt(entry.key()) => {}
        verdict => say(verdict),
    });
    differences.extend(doubts.iter().filter_map(|record| settling(record, fresh, rules)));
    differences.sort_unstable_by_key(|difference| difference.key);
    for difference in differences {
        say(Verdict::Differs(difference));
    }
}

/// What is to be said of a key in doubt.
fn settling(record: &Record, fresh: &Fresh, rules: Rules) -> Option<Difference> {
    let key = record.entry.key();
    let from = fresh.keys.partition_point(|(other, _)| *other < key);
    let here: Vec<u32> =
        fresh.keys[from..].iter().take_while(|(other, _)| *other == key).map(|(_, at)| *at).collect();
    let doubt = record.doubt();
    match here[..] {
        [] if rules.full => None,
        [] => {
            let (op, before, version) = doubt.next(None);
            Some(Difference::of(key, op, before, None, 0, version))
        }
        [ordinal] if rules.full => {
            // A doubt is never behind the entry of its key.
            let version = doubt.version_after().wrapping_add(1);
            Some(Difference::of(
                key,
                Op::Added,
                None,
                Some(now(fresh, ordinal)),
                fresh.number(ordinal),
                version,
            ))
        }
        [ordinal] => {
            let after = Some(now(fresh, ordinal));
            let (op, before, version) = doubt.next(after);
            Some(Difference::of(key, op, before, after, fresh.number(ordinal), version))
        }
        // Which of the rows is meant cannot be told; the doubt stays.
        _ => None,
    }
}

fn now(fresh: &Fresh, ordinal: u32) -> RowPrint {
    RowPrint::new(fresh.prints(ordinal)[0])
}
