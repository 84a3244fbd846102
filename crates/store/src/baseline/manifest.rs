//! The manifest: which files are the baseline, and how its prints were made.
//!
//! `manifest.json` holds one line of JSON and one line with the checksum of the first. It is replaced as a whole,
//! so there is always one that is right, and it is written before any file it does not name: a folder with key
//! or row files and no manifest has lost it, and is not taken for an empty baseline.

use serde::{Deserialize, Serialize};
use warren_engine::failure::Failure;
use warren_engine::model::Column;
use xxhash_rust::xxh3::xxh3_64;

use super::folder::{Folder, damaged, too_new};

/// The format this code writes, and the newest it reads. Format 1 knew no doubts; formats 1 and 2 printed decimals as they
/// were written, with the zeros behind the point.
pub(crate) const FORMAT: u64 = 3;

const NAME: &str = "manifest.json";
const NAME_TMP: &str = "manifest.json.tmp";

/// Which files are the baseline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u64,
    /// Counts the key files; 0 has none.
    pub(crate) generation: u64,
    /// The version that an added key begins with: past that of every key that was removed.
    pub(crate) epoch: u64,
    /// Keys in the baseline.
    pub(crate) rows: u64,
    /// Keys in doubt; their file is there only where there are some.
    #[serde(default)]
    pub(crate) doubts: u64,
    /// Whether a first run came to its end.
    pub(crate) complete: bool,
    /// The row files, oldest first.
    pub(crate) segments: Vec<SegmentInfo>,
    /// The number of the next row file; a file of that number that is there already is the journal of
    /// a run that died.
    pub(crate) next_segment: u64,
    /// The key's columns, in their order. Empty before the first run came to anything.
    pub(crate) key: Vec<Column>,
    /// The sets of columns that prints of the baseline were made of, the usual one first, each sorted by name.
    /// There are several while some entries may have prints of columns that counted before.
    pub(crate) compare: Vec<Vec<Column>>,
    /// Whether some entries may have prints of rows whose decimals are as they were written.
    #[serde(default = "yes")]
    pub(crate) written_rows: bool,
    /// Whether keys are printed with decimals as they are written. Keys are not printed anew, so this stays until a run finds
    /// that all keys are the same in both ways.
    #[serde(default = "yes")]
    pub(crate) written_keys: bool,
}

/// What older formats have.
fn yes() -> bool {
    true
}

/// One row file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentInfo {
    pub(crate) number: u64,
    /// Its length.
    pub(crate) bytes: u64,
    /// Rows in it, whether they still are the last of their key or not.
    pub(crate) rows: u64,
}

impl Manifest {
    /// The manifest of a baseline that has nothing.
    pub(crate) fn empty() -> Manifest {
        Manifest {
            format: FORMAT,
            generation: 0,
            epoch: 0,
            rows: 0,
            doubts: 0,
            complete: false,
            segments: Vec::new(),
            next_segment: 1,
            key: Vec::new(),
            compare: Vec::new(),
            written_rows: false,
            written_keys: false,
        }
    }

    /// Reads the manifest; `None` where there is no baseline.
    pub(crate) fn load(folder: &Folder) -> Result<Option<Manifest>, Failure> {
        let Some(file) = folder.open_if_there(NAME)? else {
            let orphan = folder.names()?.into_iter().find(|name| is_data(name));
            return match orphan {
                Some(name) => Err(damaged(
                    &folder.at(NAME),
                    0,
                    &format!("the file is missing although `{name}` is there"),
                )),
                None => Ok(None),
            };
        };
        let mut bytes = vec![0; usize::try_from(file.length()).unwrap_or(usize::MAX).min(1 << 24)];
        file.read_at(&mut bytes, 0)?;
        // The format comes first: a newer one may have another shape, and another checksum.
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        let line_end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
        let (line, rest) = bytes.split_at(line_end);
        if let Ok(Format { format }) = serde_json::from_slice(line)
            && format > FORMAT
        {
            return Err(too_new(file.path(), format, FORMAT));
        }
        if rest != checksum_line(line).as_bytes() && !cfg!(fuzzing) {
            return Err(file.damaged(line_end as u64, "the checksum does not match"));
        }
        let manifest: Manifest = serde_json::from_slice(line).map_err(|error| {
            file.damaged(error.column() as u64, "the content is not a manifest").because(error)
        })?;
        // What is written next may have what only this format knows.
        Ok(Some(Manifest { format: FORMAT, ..manifest }))
    }

    /// Makes this the manifest, all at once.
    pub(crate) fn store(&self, folder: &Folder) -> Result<(), Failure> {
        let mut bytes = serde_json::to_vec(self)
            .map_err(|error| Failure::internal("write the baseline's manifest").because(error))?;
        let checksum = checksum_line(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        let mut file = folder.create(NAME_TMP)?;
        file.write_at(&bytes, 0)?;
        file.publish_as(NAME)
    }

    /// Whether it names a file.
    fn names(&self, name: &str) -> bool {
        (self.generation > 0 && keys_name(self.generation) == name)
            || (self.doubts > 0 && doubts_name(self.generation) == name)
            || self.segments.iter().any(|segment| rows_name(segment.number) == name)
    }

    /// The epoch as it stands in entries.
    pub(crate) fn epoch16(&self) -> u16 {
        self.epoch as u16
    }

    /// Removes every file of ours that this manifest does not name.
    pub(crate) fn remove_others(&self, folder: &Folder) -> Result<(), Failure> {
        for name in folder.names()? {
            let ours = is_data(&name) || name == NAME_TMP || is_spill(&name);
            if ours && !self.names(&name) {
                folder.remove(&name)?;
            }
        }
        Ok(())
    }
}

/// The name of a key file.
pub(crate) fn keys_name(generation: u64) -> String {
    format!("keys-{generation}")
}

/// The name of the file of keys in doubt that goes with a key file.
pub(crate) fn doubts_name(generation: u64) -> String {
    format!("doubts-{generation}")
}

/// The name of a row file.
pub(crate) fn rows_name(number: u64) -> String {
    format!("rows-{number}")
}

/// Whether a name is that of a file a manifest may name, whole or not.
fn is_data(name: &str) -> bool {
    let name = name.strip_suffix(".tmp").unwrap_or(name);
    ["keys-", "rows-", "doubts-"].iter().any(|prefix| {
        name.strip_prefix(prefix)
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// Whether a name is that of a spill file (see [`super::spill`]).
pub(crate) fn is_spill(name: &str) -> bool {
    name.starts_with("spill-")
        && std::path::Path::new(name).extension().is_some_and(|extension| extension == "tmp")
}

fn checksum_line(line: &[u8]) -> String {
    format!("\nxxh3 {:016x}\n", xxh3_64(line))
}
