//! Copies frames from the log to the database file.
//!
//! # Protocol
//! The caller holds Checkpoint. A reader at mark *m* may take from the
//! database file any page that has no newer frame up to *m*, so nothing
//! beyond the smallest held mark is copied. While the database file is
//! written Read 0 is held exclusively, because readers at slot 0 look at
//! nothing else. Under that lock the salts of the live header are compared
//! with those of the header at the beginning: a restart needs Read 0 shared
//! or Checkpoint, so from here on the generation stands still; if it moved
//! before, there is nothing to do, and going on would publish a count of the
//! old generation for the new one (the WAL-reset bug).
//!
//! # Ordering
//! The log is synced before the database file is written, so that no page
//! reaches the disk before the commit that it belongs to. *Attempted* is
//! stored before the first page, *backfilled* after the last one. A complete
//! count is published only with a [`BackfillProof`], for which the database
//! file was synced; a partial count needs none, because the log stays.
//!
//! # Crash
//! Pages that were written without a published count are written again by
//! the next checkpoint; readers find the same pages in the log.
#![allow(unsafe_code)] // A lock is said to keep what is read under it.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::index::{self, IndexHeader, MARK_NOT_USED};
use crate::protocol::checkpoint::backfill_proof::BackfillProof;
use crate::protocol::checkpoint::options::{CheckpointProgress, CheckpointReport, HeldBack};
use crate::protocol::config::Synchronous;
use crate::protocol::free_space;
use crate::protocol::handle::Wal;
use crate::protocol::locking::busy::Waiter;
use crate::protocol::locking::delayed_release::Reclaim;
use crate::protocol::locking::guard::LockGuard;
use crate::protocol::read::page_ref::PageRef;
use crate::sync::{Ordering, fence};
use crate::testing::{Point, rule, step};
use crate::types::{FrameNo, Lock, PageNo, ReadSlot};

/// The longest run of pages that one write takes.
const RUN_LEN: usize = 1 << 20;

/// A count of frames in the database file, with what it takes to publish it.
enum Backfilled<'p> {
    /// Some frames: the log stays, so they need not be durable.
    Partial(u32),
    /// All of them.
    Complete(&'p BackfillProof),
}

/// What becomes of a log that is all in the database file, and that nobody reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum ThenLog {
    /// The next commit begins it anew, if there is still nobody.
    Stays,
    /// It is begun anew at once.
    BeginsAnew,
    /// It is begun anew, and cut to nothing.
    IsCut,
    /// It is restarted, and cut by so many bytes at most.
    IsShortened(u64),
}

/// While this lives nobody reads at a slot.
struct NobodyReads<C: WalCoordination> {
    /// `None` if the caller of the checkpoint holds the lock.
    _guard: Option<LockGuard<C>>,
}

/// One checkpoint at work.
pub(in crate::protocol) struct Backfill<'a, C: WalCoordination> {
    wal: &'a Arc<Wal<C>>,
    header: IndexHeader,
    progress: Option<&'a mut dyn FnMut(CheckpointProgress)>,
    waiter: &'a mut Waiter,
    reclaim: Reclaim,
    /// Whether readers that are in the way are waited for.
    patient: bool,
    /// Whether the caller holds Read 0–4 already.
    nobody_reads: bool,
    /// Whether readers that are in the way are named.
    pub(in crate::protocol) names_holders: bool,
    database_bytes_cut: u64,
}

impl<'a, C: WalCoordination> Backfill<'a, C> {
    /// Copies from the log that `header` publishes. Who is `patient`, for which
    /// the caller holds Write, waits for readers as `waiter` says.
    pub(in crate::protocol) fn new(
        wal: &'a Arc<Wal<C>>,
        header: IndexHeader,
        progress: Option<&'a mut dyn FnMut(CheckpointProgress)>,
        waiter: &'a mut Waiter,
        patient: bool,
    ) -> Self {
        Backfill {
            wal,
            header,
            progress,
            waiter,
            reclaim: Reclaim::default(),
            patient,
            nobody_reads: false,
            names_holders: true,
            database_bytes_cut: 0,
        }
    }

    /// The caller holds Read 0–4 exclusively all the time.
    pub(in crate::protocol) fn nobody_reads(&mut self) {
        self.nobody_reads = true;
    }

    /// Copies what may be copied up to frame `up_to`.
    pub(in crate::protocol) fn run(&mut self, up_to: u32) -> Result<CheckpointReport> {
        let (safe, held_back) = self.safe_frame()?;
        let (backfilled, busy) = self.copy_up_to(safe.min(up_to))?;
        let held_back_by = busy
            .or(held_back)
            .filter(|_| backfilled < self.header.max_frame().min(up_to));
        Ok(self.report(backfilled, held_back_by))
    }

    /// What is reported where nothing is copied.
    pub(in crate::protocol) fn untouched(&self) -> Result<CheckpointReport> {
        Ok(self.report(self.backfilled()?, None))
    }

    fn report(&self, backfilled: u32, held_back_by: Option<HeldBack>) -> CheckpointReport {
        CheckpointReport {
            log_frames: self.header.max_frame(),
            backfilled,
            log_bytes_cut: 0,
            database_bytes_cut: self.database_bytes_cut,
            held_back_by,
            writers_held_up: Duration::ZERO,
        }
    }

    /// Acquires a lock of readers exclusively. Waits for peers that delay its release a
    /// bounded moment, and for readers if that is wanted; `None` if it is busy.
    fn lock(&mut self, lock: Lock) -> Result<Option<NobodyReads<C>>> {
        if self.nobody_reads {
            return Ok(Some(NobodyReads { _guard: None }));
        }
        let guard = match self.patient {
            true => self.wal.wait_for_lock(lock, self.waiter)?,
            false => self.wal.try_lock_or_reclaim(lock, &mut self.reclaim)?,
        };
        Ok(guard.map(|guard| NobodyReads {
            _guard: Some(guard),
        }))
    }

    fn held_back(&self, lock: Lock, mark: Option<u32>) -> HeldBack {
        match self.names_holders {
            true => self.wal.held_back(lock, mark),
            false => HeldBack {
                mark,
                ..HeldBack::unnamed(lock)
            },
        }
    }

    /// How many frames of this log are in the database file. Only the holder of `CKPT`
    /// raises the count.
    fn backfilled(&self) -> Result<u32> {
        Ok(self.wal.checkpoint_info()?.backfilled_of(&self.header))
    }

    /// The last frame that may be copied, and what allows no more. Marks of
    /// slots that nobody reads at are moved out of the way. Once a reader was
    /// waited for in vain, nobody is waited for any more.
    fn safe_frame(&mut self) -> Result<(u32, Option<HeldBack>)> {
        let wal = self.wal;
        let mut safe = self.header.max_frame();
        let mut held_back = None;
        if self.backfilled()? >= safe {
            return Ok((safe, None));
        }
        // The header, and the commits up to it, before the marks: a reader that sets one
        // which is not seen here sees a newer header. Pairs with the fence in
        // `Wal::lock_some_mark`.
        fence(Ordering::SeqCst);
        for slot in ReadSlot::MARKED {
            let mark = wal.coordination().mark(slot);
            if rule!(BackfillStopsAtMarks, mark >= safe) {
                continue;
            }
            let lock = Lock::Read(slot);
            match self.lock(lock)? {
                Some(_nobody_reads) => {
                    let first = slot == ReadSlot::MARKED[0];
                    wal.set_mark(slot, if first { safe } else { MARK_NOT_USED });
                }
                None => {
                    rule!(OneWaitPerCheckpoint, {
                        self.patient = false;
                    });
                    safe = mark;
                    held_back = Some(self.held_back(lock, Some(mark)));
                }
            }
        }
        Ok((safe, held_back))
    }

    /// Gives the count that is published then, and slot 0 if its readers are
    /// in the way.
    fn copy_up_to(&mut self, safe: u32) -> Result<(u32, Option<HeldBack>)> {
        let wal = self.wal;
        let max_frame = self.header.max_frame();
        let block_zero = wal.writable_block_zero()?;
        let backfilled = self.backfilled()?;
        if backfilled >= safe {
            return Ok((backfilled, None));
        }
        let database = Lock::Read(ReadSlot::DATABASE);
        let exclusive = self.lock(database)?;
        // Sampled with the lock held; only its holder may raise the count.
        let backfilled = self.backfilled()?;
        if !rule!(BackfillHoldsReadZero, exclusive.is_some()) {
            let busy = self.held_back(database, None);
            return Ok((backfilled, Some(busy)));
        }
        let Ok(live) = wal.header_cell()?.load() else {
            // A commit is being published, or its writer died at it: which
            // generation this is cannot be told, and nothing was copied.
            return Ok((backfilled, None));
        };
        if !rule!(BackfillSaltCheck, live.salts() == self.header.salts()) {
            return Ok((max_frame, None));
        }
        let frames = self.newest_frames(backfilled, safe)?;
        // They are in the order of their pages.
        if let Some(&(1, frame)) = frames.first() {
            wal.check_page_one_in_log(frame)?;
        }
        // Before anything is said or synced: on a full disk each commit may try again.
        let grown_len = self.check_room()?;
        rule!(AttemptedBeforePages, {
            block_zero.set_attempted(safe);
        });
        if wal.tuning().synchronous() != Synchronous::Off {
            rule!(LogSyncBeforeBackfill, {
                step(Point::CheckpointLogSync);
                wal.sync_log()?;
            });
        }
        if let Some(len) = grown_len {
            wal.storage().database().hint_len(len);
        }
        self.copy_pages(&frames)?;
        match self.finish(safe)? {
            Some(proof) => publish_backfill(wal, Backfilled::Complete(&proof))?,
            None => publish_backfill(wal, Backfilled::Partial(safe))?,
        }
        Ok((safe, None))
    }

    /// Writes the pages of `frames`, in the order of the file.
    fn copy_pages(&mut self, frames: &[(u32, FrameNo)]) -> Result<()> {
        let wal = self.wal;
        let most = (RUN_LEN / wal.config().page_size.len()).max(1);
        let mut rest = frames;
        while let Some(&(first, _)) = rest.first() {
            self.waiter.check_cancelled()?;
            let consecutive = rest
                .iter()
                .zip(u64::from(first)..)
                .take(most)
                .take_while(|&(&(page, _), n)| u64::from(page) == n);
            let (run, behind) = rest.split_at(consecutive.count());
            self.copy_run(run)?;
            rest = behind;
            if let Some(progress) = &mut self.progress {
                progress(CheckpointProgress {
                    copied: frames.len() - rest.len(),
                    pages: frames.len(),
                });
            }
        }
        Ok(())
    }

    /// A complete backfill gives the database file its size, and makes it
    /// durable before the count says that the log can go. `None` if the log
    /// has grown, and the backfill is not complete any more.
    fn finish(&mut self, safe: u32) -> Result<Option<BackfillProof>> {
        let live = self.wal.header_cell()?.load();
        if !live.is_ok_and(|live| live.max_frame() == safe) {
            return Ok(None);
        }
        let file = self.wal.storage().database();
        let page = u64::from(self.wal.config().page_size.bytes());
        let (before, len) = (file.len()?, u64::from(self.header.page_count()) * page);
        if before != len {
            step(Point::CheckpointTruncate);
            file.set_len(len)?;
            self.database_bytes_cut = before.saturating_sub(len);
        }
        step(Point::CheckpointDatabaseSync);
        self.wal
            .install_durable_backfill_proof(&self.header)
            .map(Some)
    }

    /// Refuses a log that would make the database larger than the file and
    /// the log together can be, and a disk without room. `Some` is the length that the
    /// file is going to grow to.
    fn check_room(&self) -> Result<Option<u64>> {
        let (wal, header) = (self.wal, &self.header);
        let file = wal.storage().database();
        let page = u64::from(wal.config().page_size.bytes());
        let (len, needed) = (file.len()?, u64::from(header.page_count()) * page);
        if needed <= len {
            return Ok(None);
        }
        let is_possible = rule!(
            DatabaseSizeCheck,
            !wal.lacks_pages(len, header.max_frame(), header.page_count())
        );
        if !is_possible {
            let reason = format!(
                "a commit of {} pages, which are not in it",
                header.page_count()
            );
            return Err(Error::corrupt(wal.storage().log().path(), reason));
        }
        free_space::check(file, "checkpoint", needed - len)?;
        Ok(Some(needed))
    }

    /// Each page whose newest frame is in `(backfilled, safe]`, with that
    /// frame, by page. A page with a frame beyond `safe` is left out: whoever
    /// needs its older version finds it in the log.
    fn newest_frames(&self, backfilled: u32, safe: u32) -> Result<Vec<(u32, FrameNo)>> {
        let (wal, header) = (self.wal, &self.header);
        let mut frames = Vec::new();
        for number in backfilled.saturating_add(1)..=header.max_frame() {
            if let Some(frame) = FrameNo::new(number) {
                frames.push((index::page_of_frame(&**wal, number)?, frame));
            }
        }
        frames.sort_unstable_by_key(|&(page, frame)| (page, std::cmp::Reverse(frame)));
        frames.dedup_by_key(|&mut (page, _)| page);
        let is_there = |page| rule!(BackfillWithinDatabase, page <= header.page_count());
        frames.retain(|&(page, frame)| frame.get() <= safe && page > 0 && is_there(page));
        Ok(frames)
    }

    fn copy_run(&self, run: &[(u32, FrameNo)]) -> Result<()> {
        let newest = run.iter().map(|&(_, frame)| frame).max();
        let (Some(&(first, _)), Some(last)) = (run.first(), newest) else {
            return Ok(());
        };
        // SAFETY: the caller holds `CKPT`, so nobody restarts the log until the pages are
        // written; the salts were compared under exclusive `READ(0)`.
        let kept = unsafe { self.wal.kept(1, last.get()) };
        let pages: Vec<PageRef<'_>> = run
            .iter()
            .map(|&(_, frame)| kept.page_of_frame(frame))
            .collect::<Result<_>>()?;
        let mut buffers: Vec<IoSlice<'_>> = pages.iter().map(|page| IoSlice::new(page)).collect();
        step(Point::CheckpointWrite);
        let offset = PageNo::new(first)?.offset(self.wal.config().page_size);
        self.wal
            .storage()
            .database()
            .write_all_at(&mut buffers, offset)
    }

    /// Waits until nobody reads the log, all of which is in the database
    /// file, and does with it what `then` says. The caller holds Checkpoint and
    /// Write.
    pub(in crate::protocol) fn shut_readers_out(
        &mut self,
        then: ThenLog,
        report: &mut CheckpointReport,
    ) -> Result<()> {
        let wal = self.wal;
        let readers = self.lock(Lock::ReadMarks)?;
        let Some(_nobody_reads) = readers else {
            report.held_back_by = Some(self.held_back(Lock::ReadMarks, None));
            return Ok(());
        };
        if then == ThenLog::Stays {
            return Ok(());
        }
        let proof = wal.backfill_proof(&self.header)?;
        if let ThenLog::IsShortened(most) = then {
            let (cut, left) = wal.shorten_log_held(&self.header, &proof, most)?;
            report.log_bytes_cut = cut;
            report.held_back_by = (left > 0).then(|| HeldBack::unnamed(Lock::Write));
        } else if then == ThenLog::IsCut {
            report.log_bytes_cut = wal.truncate_log_held(&self.header, &proof)?;
        } else if self.header.max_frame() > 0 {
            wal.publish_restart(&self.header, &proof, self.header.salts().next())?;
        }
        (report.log_frames, report.backfilled) = (0, 0);
        Ok(())
    }
}

impl<C: WalCoordination> Wal<C> {
    /// True if a database file of `len` bytes and `max_frame` frames cannot have
    /// `page_count` pages. Only the page of the lock bytes may be missing from both.
    pub(in crate::protocol) fn lacks_pages(
        &self,
        len: u64,
        max_frame: u32,
        page_count: u32,
    ) -> bool {
        let bytes = |pages: u32| u64::from(pages) * u64::from(self.config().page_size.bytes());
        len.saturating_add(65536 + bytes(max_frame)) < bytes(page_count)
    }
}

/// Says how many frames are in the database file. The caller holds
/// Checkpoint and exclusive Read 0.
fn publish_backfill<C: WalCoordination>(wal: &Wal<C>, backfilled: Backfilled<'_>) -> Result<()> {
    let frames = match backfilled {
        Backfilled::Partial(frames) => frames,
        Backfilled::Complete(proof) => proof.max_frame(),
    };
    wal.writable_block_zero()?.set_backfilled(frames);
    Ok(())
}
