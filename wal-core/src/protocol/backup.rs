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

use super::page::PageRef;
use super::read::ReadTx;
use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::io::{File, FileSyncType};
use crate::types::{PageNo, PageSize};

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
}

impl<C: WalCoordination> ReadTx<C> {
    /// Writes all pages of this snapshot to `file`, which is empty, and syncs
    /// it. `progress` is called after each run of pages; an error of its ends
    /// the copy. The page of the lock bytes is left as a hole.
    ///
    /// # Errors
    /// As [`ReadTx::page`], what `progress` gives, and [`crate::Error::Io`].
    pub fn copy_to(
        &self,
        file: &dyn File,
        mut progress: impl FnMut(BackupProgress) -> Result<()>,
    ) -> Result<()> {
        if self.snapshot.slot.is_none() {
            // A writer's, which is to be durable before its copy is.
            self.wal().publish_all()?;
        }
        let size = self.wal().config.page_size;
        let pages = self.page_count();
        let most = u32::try_from(RUN_LEN / size.len()).unwrap_or(1).max(1);
        file.set_len(u64::from(pages) * u64::from(size.bytes()))?;
        let mut first = PageNo::ONE.get();
        while first <= pages {
            let end = pages.min(first.saturating_add(most - 1));
            self.copy_run(file, first, end)?;
            progress(BackupProgress { copied: end, pages })?;
            first = end + 1;
        }
        file.sync(FileSyncType::Full)
    }

    /// Writes pages `first..=last`.
    fn copy_run(&self, file: &dyn File, first: u32, last: u32) -> Result<()> {
        let size = self.wal().config.page_size;
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
