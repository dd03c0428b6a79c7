//! A file seen as memory, in segments that never move.
//!
//! # Layout
//! Segment *k* begins at `FIRST · (2^k − 1)` and is `FIRST · 2^k` long, so a
//! handful of segments covers any file. Each mapping goes on a little beyond
//! its segment ([`OVERLAP`]), so that any page that begins in a segment can be
//! read from that segment's mapping, whether or not pages are aligned to it.
//! Mappings reach beyond the end of the file; only bytes within the length
//! last seen by `fstat` are ever touched.
//!
//! # Protocol
//! A file is mapped by safe code: nothing of it is seen by that. To see its
//! bytes as a slice is unsafe, because others may write the file; what keeps
//! them still is the business of the protocol (`protocol/read/kept.rs`).
#![allow(unsafe_code)] // Mapping a file, and seeing mapped bytes as a slice, is unsafe in Rust.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use super::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::fork::ParentOnly;
use crate::once_table::OnceTable;

/// The length of the first segment.
const FIRST: u64 = 64 << 20;
/// How far a mapping goes beyond its segment: the largest frame.
const OVERLAP: u64 = 128 << 10;

/// A read-only mapping of a file that may grow.
pub struct MappedFile {
    path: PathBuf,
    /// Shared with the [`super::OsFile`].
    descriptor: Arc<Descriptor>,
    segments: OnceTable<ParentOnly<MmapRaw>>,
    /// The length of the file when it was last looked at, in the low bits,
    /// and how often it was forgotten, in the high ones.
    seen: AtomicU64,
}

impl fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// The bits of [`MappedFile::seen`] that hold the length.
const LEN_BITS: u32 = 48;

impl MappedFile {
    /// Maps the file of `descriptor`, which is called `path` in messages.
    pub(super) fn new(path: PathBuf, descriptor: Arc<Descriptor>) -> Self {
        MappedFile {
            path,
            descriptor,
            segments: OnceTable::new(),
            seen: AtomicU64::new(0),
        }
    }

    /// The `len` bytes at `offset`, without a copy. The slice lives as long as
    /// the file's mapping, which is never undone before.
    ///
    /// ```compile_fail,E0133
    /// fn first(file: &wal_core::storage::MappedFile) -> wal_core::Result<&[u8]> {
    ///     file.slice(0, 16)
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the file ends before, [`Error::Io`] if it cannot
    /// be mapped, [`Error::UsedAfterFork`] in a child.
    ///
    /// # Safety
    /// As long as the slice is in use nobody changes these bytes, or cuts the file before
    /// their end: not this process, and no other one.
    #[inline]
    pub unsafe fn slice(&self, offset: u64, len: usize) -> Result<&[u8]> {
        let end = offset.saturating_add(len as u64);
        if end > len_of(self.seen.load(Ordering::Acquire)) && end > self.look_again()? {
            return Err(Error::corrupt(
                &self.path,
                format!("it ends before byte {end}, where a snapshot has a page"),
            ));
        }
        let (index, start) = segment_of(offset);
        let segment = self
            .segment(index, start)?
            .get()
            .ok_or(Error::UsedAfterFork)?;
        let Ok(within) = usize::try_from(offset - start) else {
            return Err(Error::corrupt(
                &self.path,
                "an offset is beyond the address space",
            ));
        };
        if within + len > segment.len() {
            return Err(Error::corrupt(
                &self.path,
                format!("{len} bytes are more than a frame"),
            ));
        }
        // SAFETY: `within + len` is inside the mapping, whose length was
        // checked on the line before.
        let first = unsafe { segment.as_ptr().add(within) };
        // SAFETY: the bytes are mapped (line above) and within the file's
        // length as last seen; the mapping is kept by `self.segments`, which
        // never drops an entry, so they stay mapped as long as `self`. That nobody
        // changes them is the caller's promise.
        Ok(unsafe { std::slice::from_raw_parts(first, len) })
    }

    /// The length of the file, as it was last seen.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be looked at.
    pub(crate) fn len(&self) -> Result<u64> {
        match len_of(self.seen.load(Ordering::Acquire)) {
            0 => self.look_again(),
            seen => Ok(seen),
        }
    }

    /// The caller has written up to `len`, and nobody can have cut the file
    /// since: then it need not be looked at for that much.
    pub(crate) fn grown_to(&self, len: u64) {
        let seen = self.seen.load(Ordering::Acquire);
        if len > len_of(seen) && len <= len_of(u64::MAX) {
            let longer = (seen & !len_of(u64::MAX)) | len;
            // Who changes it at the same time looks at the file.
            let _ = self
                .seen
                .compare_exchange(seen, longer, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Forgets the length that was seen: a peer may have cut the file since.
    pub fn forget_len(&self) {
        let mut seen = self.seen.load(Ordering::Relaxed);
        loop {
            let forgotten = ((seen >> LEN_BITS) + 1) << LEN_BITS;
            match self
                .seen
                .compare_exchange(seen, forgotten, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// A length that was forgotten while it was looked at is looked at again,
    /// so that none from before the cut is kept.
    fn look_again(&self) -> Result<u64> {
        loop {
            let before = self.seen.load(Ordering::Acquire);
            let metadata = self
                .descriptor
                .file()?
                .metadata()
                .map_err(|e| Error::io(&self.path, "fstat", e))?;
            let len = metadata.len().min(len_of(u64::MAX));
            let after = (before & !len_of(u64::MAX)) | len;
            let kept =
                self.seen
                    .compare_exchange(before, after, Ordering::AcqRel, Ordering::Relaxed);
            if kept.is_ok() {
                return Ok(len);
            }
        }
    }

    fn segment(&self, index: u32, start: u64) -> Result<&ParentOnly<MmapRaw>> {
        // Asked first: in a child the table may wait for a thread which is not there.
        let file = self.descriptor.file()?;
        self.segments.get_or_try_make(index, || {
            let len = (FIRST << index) + OVERLAP;
            let io = |e| Error::io(&self.path, "mmap", e);
            let map = MmapOptions::new()
                .offset(start)
                .len(usize::try_from(len).unwrap_or(usize::MAX))
                .map_raw_read_only(file)
                .map_err(io)?;
            // A mapping keeps the open file alive, and with it the locks of a
            // parent that is dead.
            #[cfg(target_os = "linux")]
            map.advise(memmap2::Advice::DontFork).map_err(io)?;
            Ok(ParentOnly::new(map))
        })
    }
}

fn len_of(seen: u64) -> u64 {
    seen & ((1 << LEN_BITS) - 1)
}

/// The segment in which `offset` lies, and where it starts.
fn segment_of(offset: u64) -> (u32, u64) {
    let index = (offset / FIRST + 1).ilog2();
    (index, FIRST * ((1 << index) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn plain(file: std::fs::File) -> Arc<Descriptor> {
        Arc::new(Descriptor::plain(file))
    }

    #[test]
    fn segments_follow_each_other_without_a_gap() {
        let mut next = 0;
        for index in 0..20 {
            let len = FIRST << index;
            assert_eq!(segment_of(next), (index, next));
            assert_eq!(segment_of(next + len - 1), (index, next));
            next += len;
        }
    }

    /// A slice of a file that the test has for itself.
    fn slice(mapped: &MappedFile, offset: u64, len: usize) -> Result<&[u8]> {
        // SAFETY: the tests only add to their files.
        unsafe { mapped.slice(offset, len) }
    }

    #[test]
    fn slices_follow_a_growing_file_and_never_pass_its_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 1000]).unwrap();
        let mapped = MappedFile::new("mapped".into(), plain(file.try_clone().unwrap()));
        let early = slice(&mapped, 990, 10).unwrap();
        assert!(matches!(
            slice(&mapped, 991, 10),
            Err(Error::Corrupt { .. })
        ));
        file.write_all(&[2; 1000]).unwrap();
        assert_eq!(
            slice(&mapped, 995, 10).unwrap(),
            [1, 1, 1, 1, 1, 2, 2, 2, 2, 2]
        );
        assert_eq!(early, [1; 10]);
    }

    #[test]
    fn a_page_across_a_segment_boundary_is_one_slice() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(FIRST + 4096).unwrap();
        let mapped = MappedFile::new("mapped".into(), plain(file));
        assert_eq!(slice(&mapped, FIRST - 100, 4096).unwrap().len(), 4096);
    }
}
