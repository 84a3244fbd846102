//! What the destination of a sync has been told, row by row: the baseline as files in a folder.
//!
//! In: the rows of a query, in any order. Out: what was added, changed and removed since the destination was last told.
//! What was told is written down as it is accepted and becomes the baseline at the end of the run.
//!
//! | step | module |
//! |---|---|
//! | open, take up what a run that died had written | [`generation`], [`manifest`], [`folder`] |
//! | which columns count, now and before | [`columns`] |
//! | print rows, divide prints by key and rows where they are wanted | [`read`], [`spill`], [`prints`], [`arrived`], [`dealt`], [`scratch`], [`partition`] |
//! | compare, partition by partition | [`count`], [`merge`], [`keys`] |
//! | keys whose last answer nobody knows | [`doubts`] |
//! | hand out changes with their rows | [`changes`], [`walk`], [`previous`], [`segment`] |
//! | write down what is about to be told, and what was | [`journal`] |
//! | replace the baseline, keep it small | [`generation`], [`compact`] |
//!
//! Memory grows slowly with the number of rows, by about one byte a row in all: a bit for whether it is wanted; 32 bytes for 12 KiB of
//! prints; the index of the row files; and the partitions that are compared at a time, one for each thread, of which each holds a
//! 1,024th of the keys and prints of both sides (160 bytes a row). All file work runs on threads that may block.

mod arrived;
mod changes;
mod columns;
mod compact;
mod count;
mod dealt;
mod doubts;
mod folder;
mod generation;
mod journal;
mod keys;
mod manifest;
mod merge;
mod partition;
mod previous;
mod prints;
mod read;
mod scratch;
mod segment;
mod spill;
mod walk;

use std::path::PathBuf;

use async_trait::async_trait;
use warren_engine::failure::Failure;
use warren_engine::ports::{Baseline, ChangeSet, DiffSpec, DiffSummary, Progress, RowStream};
use warren_engine::run::RunCounts;

use self::changes::{Changes, Found, blocking};
use self::columns::Columns;
use self::count::{Comparing, count};
pub use self::folder::Faults;
use self::folder::Folder;
use self::generation::Generation;
use self::merge::Rules;
use self::read::read_all;
use self::spill::{Dealing, Spill, SpillSizes};

/// How a baseline uses the machine. The defaults are right outside of tests.
#[derive(Clone, Default)]
pub struct BaselineOptions {
    /// Where rows are spilled that do not fit memory; the baseline's own folder unless set. It must exist.
    pub temp: Option<PathBuf>,
    /// How large buffers are.
    pub sizes: Sizes,
    /// Asked before each step that changes a file; for tests.
    pub faults: Option<Faults>,
}

/// How large buffers are.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Bytes of packed rows a partition collects before they are spilled. There are 1,024 partitions.
    pub rows_chunk_bytes: usize,
    /// Bytes of packed rows that stay in memory until it is known which of them differ.
    pub rows_memory_bytes: usize,
    /// Bytes of prints (32 a row) a partition collects before they are spilled.
    pub prints_chunk_bytes: usize,
    /// Bytes of spilled data after which spilled rows are compressed.
    pub compress_after_bytes: u64,
    /// Bytes of previous rows that are fetched at once.
    pub previous_bytes: usize,
    /// Differences (64 bytes each) that are kept from the comparison to the sending; the others are found again.
    pub differences_kept: usize,
    /// Overtaken rows that are no reason to compact row files.
    pub garbage_rows_min: u64,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes {
            rows_chunk_bytes: 32 << 10,
            rows_memory_bytes: 16 << 20,
            prints_chunk_bytes: 12 << 10,
            compress_after_bytes: 1 << 30,
            previous_bytes: 8 << 20,
            differences_kept: 128 << 10,
            garbage_rows_min: 10_000,
        }
    }
}

/// What a baseline is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaselineInfo {
    /// Keys it has.
    pub rows: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// How often its key file was replaced.
    pub generation: u64,
    /// The names of the key's columns, in their order; none before the first run came to anything.
    pub key: Vec<String>,
}

/// The baseline of one sync, in a folder of its own.
pub struct FileBaseline {
    folder: Folder,
    temp: Option<PathBuf>,
    sizes: Sizes,
}

impl FileBaseline {
    /// The baseline in `folder`, which is made when something is first written. Nothing is read before it is used;
    /// what a run that died left behind is taken up by the next [`diff`](Baseline::diff).
    pub fn open(folder: PathBuf, options: BaselineOptions) -> FileBaseline {
        FileBaseline { folder: Folder::new(folder, options.faults), temp: options.temp, sizes: options.sizes }
    }

    /// What it has; `None` before the first run wrote something. Changes nothing.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub async fn info(&self) -> Result<Option<BaselineInfo>, Failure> {
        let folder = self.folder.clone();
        blocking(move || {
            let Some(manifest) = Generation::manifest_only(&folder)? else { return Ok(None) };
            let mut bytes = 0;
            for name in folder.names()? {
                bytes += folder.open_if_there(&name)?.map_or(0, |file| file.length());
            }
            let key = manifest.key.into_iter().map(|column| column.name).collect();
            Ok(Some(BaselineInfo { rows: manifest.rows, bytes, generation: manifest.generation, key }))
        })
        .await
    }
}

impl FileBaseline {
    /// Looks whether its files are damaged, missing or of a newer version, as far as this is cheap: the checksums of rows are not
    /// compared, those of keys up to 64 MiB. Changes nothing, and may be called while a run goes on.
    ///
    /// # Errors
    /// A file is damaged, missing, newer or cannot be read.
    pub async fn look(&self) -> Result<(), Failure> {
        let folder = self.folder.clone();
        blocking(move || Generation::look(&folder)).await
    }
}

#[async_trait]
impl Baseline for FileBaseline {
    async fn diff(
        &self,
        rows: &mut dyn RowStream,
        spec: &DiffSpec,
        progress: &Progress,
    ) -> Result<Box<dyn ChangeSet>, Failure> {
        let schema = rows.schema().clone();
        let (folder, asked, now) = (self.folder.clone(), spec.clone(), schema.clone());
        let (generation, columns) = blocking(move || {
            let mut generation = Generation::open(&folder)?;
            let mut columns = Columns::resolve(&now, &asked, &generation.manifest)?;
            if columns.reprint {
                generation.reprint(&folder, &mut columns)?;
            }
            Ok((generation, columns))
        })
        .await?;

        if self.temp.is_none() {
            let folder = self.folder.clone();
            blocking(move || folder.make()).await?;
        }
        let temp = self.temp.clone().unwrap_or_else(|| self.folder.path().to_owned());
        let sizes = SpillSizes {
            rows_bytes: self.sizes.rows_chunk_bytes,
            memory_bytes: self.sizes.rows_memory_bytes,
            prints_bytes: self.sizes.prints_chunk_bytes,
            compress_from: self.sizes.compress_after_bytes,
        };
        let all_differ = spec.full || generation.manifest.rows == 0;
        let dealing = if all_differ { Dealing::AtOnce } else { Dealing::Later };
        let spill = Spill::new(&temp, columns.pickers.len(), sizes, dealing);
        let mut read = read_all(rows, &columns, spill, progress).await?;

        let rules = Rules { full: spec.full, epoch: generation.manifest.epoch16() };
        let (folder, spec, sizes) = (self.folder.clone(), spec.clone(), self.sizes);
        blocking(move || {
            read.spill.seal()?;
            let wanted = read.spill.want();
            let compare = Comparing {
                keys: generation.keys.as_ref(),
                spill: &read.spill,
                doubts: &generation.doubts,
                rules,
                wanted: &wanted,
                kept_max: sizes.differences_kept,
            };
            let counted = count(&compare)?;
            tracing::debug!(
                rows = read.rows,
                spilled_bytes = read.spill.file_bytes(),
                "compared with the baseline"
            );
            read.spill.deal(&wanted, &columns.key_picker)?;
            let mut faults = read.faults;
            faults.extend(counted.samples(&read.spill, &columns.key_picker)?);
            let summary = DiffSummary {
                counts: RunCounts {
                    rows: read.rows,
                    baseline_rows: generation.manifest.rows,
                    planned: counted.planned,
                    null_keys: read.null_keys,
                    duplicate_keys: counted.duplicate_rows,
                    ..RunCounts::default()
                },
                first_run: !generation.manifest.complete,
                faults,
                columns_changed: columns.sentence().or_else(|| {
                    let none_left = !spec.full
                        && generation.manifest.rows > 0
                        && counted.planned.removed == generation.manifest.rows
                        && counted.planned.added > 0;
                    columns.other_scale().filter(|_| none_left)
                }),
                digest: counted.digest,
            };
            let found = Found {
                folder,
                manifest: generation.manifest,
                stored: generation.stored,
                keys: generation.keys,
                doubts: generation.doubts,
                spill: read.spill,
                rules,
                schema,
                key: columns.key,
                compare: columns.compare,
                key_names: spec.key,
                keep_rows: spec.keep_rows,
                previous: spec.previous,
                reprints: counted.reprints,
                partitions: counted.partitions,
                written_keys: columns.key_by_value.is_some() && !read.keys_by_value,
                sizes,
            };
            Ok(Box::new(Changes::new(found, summary)) as Box<dyn ChangeSet>)
        })
        .await
    }
}

/// Reads bytes as each file of a baseline, as far as a run reads them: the entry point of the fuzz target `baseline`.
///
/// # Panics
/// No folder for them can be made.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    use segment::{Segment, Trust, Unpacking};

    thread_local! {
        static FOLDER: PathBuf = {
            let shared = PathBuf::from("/dev/shm");
            let parent = if shared.is_dir() { shared } else { std::env::temp_dir() };
            let path = parent.join(format!("warren-fuzz-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a folder can be made");
            path
        };
    }
    FOLDER.with(|path| {
        let write = |name: &str| std::fs::write(path.join(name), bytes).expect("a file can be written");
        let folder = Folder::new(path.clone(), None);
        write("manifest.json");
        if let Ok(Some(manifest)) = manifest::Manifest::load(&folder) {
            write(&manifest::doubts_name(manifest.generation));
            doubts::Doubts::open(&folder, &manifest).ok();
            std::fs::remove_file(path.join(manifest::doubts_name(manifest.generation))).ok();
        }
        std::fs::remove_file(path.join("manifest.json")).ok();
        write(&manifest::keys_name(2));
        for count in [0, 1, 512, 600] {
            if let Ok(keys) = keys::KeysFile::open(&folder, 2, count) {
                let (mut entries, mut scratch) = (Vec::new(), Vec::new());
                for partition in 0..partition::PARTITIONS {
                    keys.partition(partition, &mut entries, &mut scratch).ok();
                }
            }
        }
        for number in [1, 2, 3] {
            write(&manifest::rows_name(number));
            for trust in [Trust::Journal, Trust::Named(bytes.len() as u64)] {
                let Ok(segment) = Segment::open(&folder, number, trust) else { continue };
                let Ok(mut unpacking) = Unpacking::new() else { continue };
                let (mut scratch, mut rows) = (Vec::new(), Vec::new());
                for partition in 0..partition::PARTITIONS {
                    for block in segment.blocks_of(partition) {
                        if let Ok(records) = segment.records(*block, &mut scratch) {
                            for (turn, _) in records.enumerate() {
                                segment.fate(*block, turn);
                            }
                        }
                        segment.rows(*block, &mut rows, &mut unpacking).ok();
                    }
                }
            }
        }
    });
}
