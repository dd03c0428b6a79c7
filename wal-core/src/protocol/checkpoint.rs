//! Moves frames from the log to the database file.
//!
//! # Protocol
//! A checkpointer holds Checkpoint throughout. It copies up to the smallest
//! mark that a reader holds, because a reader at mark *m* may take from the
//! database file any page that has no newer frame up to *m*. While it writes
//! the database file it holds Read 0 exclusively, because readers at slot 0
//! look at nothing else. Under that lock it compares the salts of the live
//! header with those of the header it began with: a restart needs Read 0
//! shared, so from here on the generation stands still; if it moved before,
//! there is nothing to do, and going on would publish a count of the old
//! generation for the new one (the WAL-reset bug).
//!
//! # Ordering
//! The log is synced before the database file is written, so that no page
//! reaches the disk before the commit that it belongs to. *Attempted* is
//! stored before the first page, *backfilled* after the last one and, if it
//! is complete, after the database file was synced.
//!
//! # Crash
//! Pages that were written without a published count are written again by
//! the next checkpoint; readers find the same pages in the log.

use std::io::IoSlice;
use std::sync::Arc;

use super::read::pause_before;
use super::snapshot::Held;
use super::{LockGuard, PageRef, Synchronous, Wal};
use crate::coordination::{Lock, LockMode, ReadSlot, WalCoordination};
use crate::error::{Error, Result};
use crate::index::{self, IndexHeader, MARK_NOT_USED};
use crate::testing::{Mutation, Point, mutated, step};
use crate::types::{FrameNo, PageNo};

/// The longest run of pages that one write takes.
const RUN_LEN: usize = 1 << 20;
/// How often a checkpoint looks again at a header that is being written.
const MAX_ATTEMPTS: u32 = 100;

/// How far a checkpoint goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[non_exhaustive]
pub enum CheckpointMode {
    /// Copies what can be copied without waiting for anybody.
    #[default]
    Passive,
}

/// What a checkpoint found and did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// The committed frames in the log.
    pub log_frames: u32,
    /// Those of them that are in the database file now.
    pub backfilled: u32,
    /// The slot whose readers kept the rest from being copied.
    pub held_back_by: Option<ReadSlot>,
}

impl CheckpointReport {
    /// True if the database file holds all that was committed.
    pub fn is_complete(&self) -> bool {
        self.backfilled == self.log_frames
    }
}

impl<C: WalCoordination> Wal<C> {
    /// Copies frames to the database file, and tells how far that got.
    ///
    /// # Errors
    /// [`Error::Busy`] if another checkpoint is running, [`Error::Poisoned`]
    /// after a failed sync, [`Error::Corrupt`] if the log speaks of more pages
    /// than there can be, [`Error::Io`].
    pub fn checkpoint(self: &Arc<Self>, mode: CheckpointMode) -> Result<CheckpointReport> {
        match mode {
            CheckpointMode::Passive => self.checkpoint_passive(),
        }
    }

    fn checkpoint_passive(self: &Arc<Self>) -> Result<CheckpointReport> {
        self.check_writable()?;
        let checkpoint = self
            .try_lock(Lock::Checkpoint, LockMode::Exclusive)?
            .ok_or_else(|| self.busy(Lock::Checkpoint))?;
        let header = self.header_for_checkpoint(&checkpoint)?;
        let (safe, held_back_by) = self.safe_frame(&header)?;
        let (backfilled, busy) = self.backfill(&header, safe)?;
        let held_back_by = busy
            .or(held_back_by)
            .filter(|_| backfilled < header.max_frame());
        Ok(CheckpointReport {
            log_frames: header.max_frame(),
            backfilled,
            held_back_by,
        })
    }

    fn header_for_checkpoint(self: &Arc<Self>, checkpoint: &LockGuard<C>) -> Result<IndexHeader> {
        let held = Held {
            write: None,
            checkpoint: Some(checkpoint),
        };
        for attempt in 1..=MAX_ATTEMPTS {
            pause_before(attempt);
            if let Some(header) = self.load_snapshot(&held)? {
                return Ok(header);
            }
        }
        Err(Error::Protocol {
            path: self.path().to_owned(),
            attempts: MAX_ATTEMPTS,
        })
    }

    /// The last frame that may be copied, and the slot that allows no more.
    /// Marks of slots that nobody reads at are moved out of the way.
    fn safe_frame(self: &Arc<Self>, header: &IndexHeader) -> Result<(u32, Option<ReadSlot>)> {
        let mut safe = header.max_frame();
        let mut held_back_by = None;
        if self.checkpoint_info()?.backfilled() >= safe || mutated(Mutation::IgnoreReadMarks) {
            return Ok((safe, None));
        }
        for slot in ReadSlot::MARKED {
            let mark = self.coordination.mark(slot);
            if mark >= safe {
                continue;
            }
            match self.try_lock(Lock::Read(slot), LockMode::Exclusive)? {
                Some(_nobody_reads) => {
                    let first = slot == ReadSlot::MARKED[0];
                    self.set_mark(slot, if first { safe } else { MARK_NOT_USED });
                }
                None => (safe, held_back_by) = (mark, Some(slot)),
            }
        }
        Ok((safe, held_back_by))
    }

    /// Copies frames up to `safe`, and gives the count that is published then,
    /// and slot 0 if its readers are in the way.
    fn backfill(
        self: &Arc<Self>,
        header: &IndexHeader,
        safe: u32,
    ) -> Result<(u32, Option<ReadSlot>)> {
        let info = self.checkpoint_info()?;
        if info.backfilled() >= safe {
            return Ok((info.backfilled().min(header.max_frame()), None));
        }
        let database = Lock::Read(ReadSlot::DATABASE);
        let exclusive = self.try_lock(database, LockMode::Exclusive)?;
        // Sampled with the lock held; only its holder may raise the count.
        let backfilled = info.backfilled();
        if exclusive.is_none() && !mutated(Mutation::SkipReadZero) {
            return Ok((backfilled.min(header.max_frame()), Some(ReadSlot::DATABASE)));
        }
        let Ok(live) = self.header_cell()?.load() else {
            // A commit is being published, or its writer died at it: which
            // generation this is cannot be told, and nothing was copied.
            return Ok((backfilled.min(header.max_frame()), None));
        };
        if live.salts() != header.salts() && !mutated(Mutation::SkipSaltCheck) {
            return Ok((header.max_frame(), None));
        }
        info.set_attempted(safe);
        if self.config.synchronous != Synchronous::Off
            && !mutated(Mutation::SkipLogSyncBeforeBackfill)
        {
            step(Point::CheckpointLogSync);
            self.sync_log()?;
        }
        self.check_room(header)?;
        if mutated(Mutation::BackfilledBeforePages) {
            info.set_backfilled(safe);
        }
        self.copy_pages(header, backfilled, safe)?;
        self.finish_backfill(header, safe)?;
        info.set_backfilled(safe);
        Ok((safe, None))
    }

    /// Refuses a log that would make the database larger than the file and
    /// the log together can be, and a disk without room.
    fn check_room(&self, header: &IndexHeader) -> Result<()> {
        let file = self.storage.database();
        let page = u64::from(self.config.page_size.bytes());
        let (len, needed) = (file.len()?, u64::from(header.page_count()) * page);
        if needed <= len {
            return Ok(());
        }
        // Only the page of the lock bytes may be missing from both.
        if len + 65536 + u64::from(header.max_frame()) * page < needed {
            let reason = format!(
                "a commit of {} pages, which are not in it",
                header.page_count()
            );
            return Err(Error::corrupt(self.storage.log().path(), reason));
        }
        match file.free_space() {
            Some(free) if free < needed - len => {
                let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
                Err(Error::io(file.path(), "checkpoint", full))
            }
            _ => Ok(()),
        }
    }

    /// Writes the newest version of each page that is in
    /// `(backfilled, safe]`, in the order of the file.
    fn copy_pages(&self, header: &IndexHeader, backfilled: u32, safe: u32) -> Result<()> {
        let frames = self.newest_frames(header, backfilled, safe)?;
        let most = (RUN_LEN / self.config.page_size.len()).max(1);
        let mut rest = frames.as_slice();
        while let Some(&(first, _)) = rest.first() {
            let consecutive = rest
                .iter()
                .zip(first..)
                .take(most)
                .take_while(|((page, _), n)| page == n);
            let (run, behind) = rest.split_at(consecutive.count());
            self.copy_run(run)?;
            rest = behind;
        }
        Ok(())
    }

    /// Each page whose newest frame is in `(backfilled, safe]`, with that
    /// frame, by page. A page with a frame beyond `safe` is left out: whoever
    /// needs its older version finds it in the log.
    fn newest_frames(
        &self,
        header: &IndexHeader,
        backfilled: u32,
        safe: u32,
    ) -> Result<Vec<(u32, FrameNo)>> {
        let mut frames = Vec::new();
        for number in backfilled.saturating_add(1)..=header.max_frame() {
            if let Some(frame) = FrameNo::new(number) {
                frames.push((index::page_of_frame(self, number)?, frame));
            }
        }
        frames.sort_unstable_by_key(|&(page, frame)| (page, std::cmp::Reverse(frame)));
        frames.dedup_by_key(|&mut (page, _)| page);
        frames.retain(|&(page, frame)| {
            frame.get() <= safe && (1..=header.page_count()).contains(&page)
        });
        Ok(frames)
    }

    fn copy_run(&self, run: &[(u32, FrameNo)]) -> Result<()> {
        let Some(&(first, _)) = run.first() else {
            return Ok(());
        };
        let pages: Vec<PageRef<'_>> = run
            .iter()
            .map(|&(_, frame)| self.page_of_frame(frame))
            .collect::<Result<_>>()?;
        let mut buffers: Vec<IoSlice<'_>> = pages.iter().map(|page| IoSlice::new(page)).collect();
        step(Point::CheckpointWrite);
        let offset = PageNo::new(first)?.offset(self.config.page_size);
        self.storage.database().write_all_at(&mut buffers, offset)
    }

    /// A complete backfill gives the database file its size, and makes it
    /// durable before the count says that the log can go.
    fn finish_backfill(&self, header: &IndexHeader, safe: u32) -> Result<()> {
        let live = self.header_cell()?.load();
        if !live.is_ok_and(|live| live.max_frame() == safe) {
            return Ok(());
        }
        let file = self.storage.database();
        let len = u64::from(header.page_count()) * u64::from(self.config.page_size.bytes());
        if file.len()? != len {
            step(Point::CheckpointTruncate);
            file.set_len(len)?;
        }
        step(Point::CheckpointDatabaseSync);
        self.prove_backfill(header).map(drop)
    }
}
