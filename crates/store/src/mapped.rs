//! A file that is written to as memory: what is copied there is with the operating system at once, and outlives the process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use memmap2::{Advice, MmapMut, MmapOptions};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// A file of ours that nobody else writes to or makes shorter: its lock, or a lease, sees to that.
pub(crate) struct Mapped {
    file: File,
    pub(crate) map: MmapMut,
}

impl Mapped {
    /// Maps the first so many bytes. They are there before it is mapped, so that a full disk is an error and not a signal.
    pub(crate) fn map(file: File, bytes: usize) -> io::Result<Mapped> {
        match fallocate(&file, FallocateFlags::empty(), 0, bytes as u64) {
            // A file system that cannot: what is written is there as well.
            Err(Errno::OPNOTSUPP) => {
                let end = file.metadata()?.len().min(bytes as u64);
                file.write_all_at(&vec![0; bytes - end as usize], end)?;
            }
            allocated => allocated?,
        }
        #[expect(unsafe_code, reason = "the only way to a file without a system call")]
        // SAFETY: the file is open for writing and as long as what is mapped. Nobody makes it shorter while it is mapped, as whoever makes
        // a `Mapped` holds what keeps others from it. Others may read the file; what they see is checked by its sums.
        let map = unsafe { MmapOptions::new().len(bytes).map_mut(&file)? };
        // Here, all at once, rather than page by page where a message waits for it. Kernels before 5.14 cannot.
        map.advise(Advice::PopulateWrite).ok();
        Ok(Mapped { file, map })
    }

    /// Maps more of it.
    pub(crate) fn grow(&mut self, bytes: usize) -> io::Result<()> {
        *self = Mapped::map(self.file.try_clone()?, bytes)?;
        Ok(())
    }
}
