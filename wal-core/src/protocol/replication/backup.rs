//! Copies one snapshot into a file of its own, while others go on.
//!
//! # Protocol
//! A read transaction is all that is needed: what it sees stays, whoever
//! writes and checkpoints meanwhile. It holds checkpoints back for as long as
//! it lasts.
//!
//! # Crash
//! The copy is of no use before all of it is written and synced; the caller
//! gives it its name after that.

use std::io::IoSlice;
use std::ops::RangeInclusive;

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::protocol::free_space;
use crate::protocol::read::begin::ReadTx;
use crate::protocol::read::page_ref::PageRef;
use crate::storage::{File, FileSyncType};
use crate::types::{PageNo, PageSize, Salts};

/// The longest run of pages that one write takes, in bytes.
const RUN_LEN: usize = 1 << 20;

/// How far a backup has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BackupProgress {
    /// The pages that are copied.
    pub copied: u32,
    /// The pages of the snapshot.
    pub pages: u32,
    /// The generation of the log that the snapshot is of.
    pub salts: Salts,
    /// The last frame of that log which belongs to the snapshot.
    pub frame: u32,
}

impl<C: WalCoordination> ReadTx<C> {
    /// Writes all pages of this snapshot to `file`, which is empty, and syncs
    /// it. `progress` is called after each run of pages; an error of its ends
    /// the copy. The page of the lock bytes is left as a hole.
    ///
    /// # Errors
    /// As [`ReadTx::page`], what `progress` gives, and [`crate::Error::Io`]: at once,
    /// with nothing written, if the file system says that it has no room for all of it.
    pub fn copy_to(
        &self,
        file: &dyn File,
        mut progress: impl FnMut(BackupProgress) -> Result<()>,
    ) -> Result<()> {
        if self.snapshot.slot.is_none() {
            // A writer's, which is to be durable before its copy is.
            self.wal().publish_all()?;
        }
        let size = self.wal().config().page_size;
        let pages = self.page_count();
        let most = u32::try_from(RUN_LEN / size.len()).unwrap_or(1).max(1);
        let len = u64::from(pages) * u64::from(size.bytes());
        free_space::check(file, "backup", len)?;
        file.set_len(len)?;
        for run in runs(pages, most) {
            let copied = *run.end();
            self.copy_run(file, *run.start(), copied)?;
            progress(BackupProgress {
                copied,
                pages,
                salts: self.snapshot.salts(),
                frame: self.snapshot.max_frame(),
            })?;
        }
        file.sync(FileSyncType::Full)
    }

    /// Writes pages `first..=last`.
    fn copy_run(&self, file: &dyn File, first: u32, last: u32) -> Result<()> {
        let size = self.wal().config().page_size;
        for part in around_lock_bytes(first, last, size) {
            let first = *part.start();
            let run: Vec<PageRef<'_>> = part
                .map(|page| self.page(PageNo::new(page)?))
                .collect::<Result<_>>()?;
            if !run.is_empty() {
                let mut buffers: Vec<_> = run.iter().map(|page| IoSlice::new(page)).collect();
                file.write_all_at(&mut buffers, PageNo::new(first)?.offset(size))?;
            }
        }
        Ok(())
    }
}

/// The first `pages` pages in runs of at most `most`, which is not 0.
fn runs(pages: u32, most: u32) -> impl Iterator<Item = RangeInclusive<u32>> {
    let starts = (0..pages).step_by(usize::try_from(most).unwrap_or(usize::MAX));
    starts.map(move |before| before + 1..=pages.min(before.saturating_add(most)))
}

/// Pages `first..=last` before and behind the page of the lock bytes.
fn around_lock_bytes(first: u32, last: u32, size: PageSize) -> [RangeInclusive<u32>; 2] {
    let lock_bytes = size.lock_byte_page().get();
    [
        first..=last.min(lock_bytes - 1),
        first.max(lock_bytes + 1)..=last,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_end_with_the_last_page_of_any_database() {
        for (pages, most) in [
            (0, 1),
            (1, 1),
            (7, 3),
            (9, 3),
            (u32::MAX, 1 << 30),
            (u32::MAX, u32::MAX),
        ] {
            let mut next = 1;
            for run in runs(pages, most) {
                assert_eq!(u64::from(*run.start()), next);
                assert!(run.end() - run.start() < most);
                next = u64::from(*run.end()) + 1;
            }
            assert_eq!(next, u64::from(pages) + 1);
        }
    }

    #[test]
    fn a_run_around_the_lock_bytes_leaves_only_them_out() {
        let size = PageSize::DEFAULT;
        let lock_bytes = size.lock_byte_page().get();
        for (first, last) in [
            (1, 9),
            (lock_bytes - 2, lock_bytes + 2),
            (lock_bytes, lock_bytes),
            (lock_bytes + 1, lock_bytes + 3),
        ] {
            let parts = around_lock_bytes(first, last, size);
            let copied: Vec<u32> = parts.into_iter().flatten().collect();
            let expected: Vec<u32> = (first..=last).filter(|&page| page != lock_bytes).collect();
            assert_eq!(copied, expected);
        }
    }
}
