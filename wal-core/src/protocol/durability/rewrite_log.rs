//! Writes the log again after a sync of it has failed.
//!
//! # Protocol
//! A system that cannot write pages of a file may count them as written all the
//! same, and tells of it once: the next sync succeeds, and frames are missing
//! from the disk below those that it has made durable. Who hears of a failure is
//! poisoned, and tells the others by a word in the wait state. So before
//! somebody at [`Synchronous::Full`] commits to such a log, or somebody moves it
//! to the database file, it is read, compared with its checksums, and written
//! again to where it is, byte for byte, and synced. Readers see the same bytes
//! before and after.
//!
//! The caller holds Write: nobody adds frames or begins the log anew meanwhile.
//!
//! # Crash
//! Until the log is synced the word says that it is not, and whoever comes next
//! does it over. Each descriptor that was open when it happened is told once, so
//! other handles may be poisoned by what is mended already. A process that dies between its failed sync and the word takes
//! the news with it, and so does the last one that uses the side file.

use std::io::IoSlice;
use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::format::{self, LogScan, frame_end};
use crate::index::IndexHeader;
use crate::protocol::config::Synchronous;
use crate::protocol::handle::Wal;
use crate::testing::{Point, rule, step};
use crate::types::{FrameNo, Lock, LockMode, Salts};
use crate::wait::SyncedLog;

/// How much is read and written at a time.
const RUN_LEN: u64 = 1 << 20;

impl<C: WalCoordination> Wal<C> {
    /// Tells the others that a sync of the log has failed.
    pub(in crate::protocol) fn tell_failed_log_sync(&self) {
        let Some(wait_state) = self.coordination().wait_state() else {
            return;
        };
        let published = self.header_cell().ok().and_then(|cell| cell.load().ok());
        record_failed_sync(wait_state.synced(), published.as_ref());
    }

    /// Mends the log, if it needs that, before the first frame of a transaction
    /// whose commit is to be durable. The caller holds Write.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the system has lost what it could not write,
    /// [`Error::Io`].
    pub(in crate::protocol) fn mend_log_for_frames(self: &Arc<Self>, salts: Salts) -> Result<()> {
        if self.tuning().synchronous() < Synchronous::Full || no_log_sync_failed(self, salts) {
            return Ok(());
        }
        // Frames of other threads that are not published may be those that are
        // lost, and their own sync is to tell.
        rule!(PublishBeforeRewrite, {
            self.publish_all()?;
        });
        mend_log(self)
    }

    /// Mends the log, if it needs that, before a commit that is to be durable.
    /// The caller holds Write, and has frames of its own in this generation of the
    /// log or not.
    ///
    /// # Errors
    /// [`Error::Refused`] if a sync has failed since the transaction wrote to the
    /// log, so that what it wrote may be lost; those of mending.
    pub(in crate::protocol) fn mend_log_for_commit(
        self: &Arc<Self>,
        generation: Salts,
        has_frames: bool,
    ) -> Result<()> {
        if !has_frames {
            rule!(CommitRewritesLog, {
                self.mend_log_for_frames(generation)?;
            });
            return Ok(());
        }
        if self.tuning().synchronous() < Synchronous::Full || no_log_sync_failed(self, generation) {
            return Ok(());
        }
        let reason = "a sync of the log failed while it was under way; run it again".to_owned();
        Err(Error::refused(self.path(), "a commit", reason))
    }

    /// Mends the log, if it needs that, before it is moved to the database file.
    /// `has_write` says whether the caller holds Write.
    ///
    /// # Errors
    /// [`Error::Busy`] if somebody else has Write, and those of mending.
    pub(in crate::protocol) fn mend_log_for_checkpoint(
        self: &Arc<Self>,
        header: &IndexHeader,
        has_write: bool,
    ) -> Result<()> {
        if self.tuning().synchronous() == Synchronous::Off
            || no_log_sync_failed(self, header.salts())
        {
            return Ok(());
        }
        let _write = match has_write {
            true => None,
            false => {
                let write = self.try_lock(Lock::Write, LockMode::Exclusive)?;
                Some(write.ok_or_else(|| self.busy(Lock::Write))?)
            }
        };
        mend_log(self)
    }
}

/// Records that a sync of the log has failed. `published` is the header at this moment, if it
/// can be read.
#[doc(hidden)]
pub fn record_failed_sync(log: &SyncedLog, published: Option<&IndexHeader>) {
    match published {
        Some(header) => log.fail(header.salts()),
        // It is being published, so its generation is unknown.
        None => rule!(UnknownFailureCountsForAll, {
            log.fail_all();
        }),
    }
}

fn covers(scan: &LogScan, published: &IndexHeader) -> bool {
    scan.header.salts == published.salts() && scan.max_frame() >= published.max_frame()
}

/// True if no sync has failed in generation `salts`.
fn no_log_sync_failed<C: WalCoordination>(wal: &Wal<C>, salts: Salts) -> bool {
    let wait_state = wal.coordination().wait_state();
    rule!(
        UnsyncedLogIsRewritten,
        !wait_state.is_some_and(|wait_state| wait_state.synced().has_failed(salts))
    )
}

/// Writes the log again, durably. The caller holds Write.
fn mend_log<C: WalCoordination>(wal: &Wal<C>) -> Result<()> {
    let Some(wait_state) = wal.coordination().wait_state() else {
        return Ok(());
    };
    let failure = wait_state.synced().failure();
    let log = wal.storage().log();
    if let Some(last) = scan_published(wal)? {
        rule!(RewriteForgetsFailures, {
            log.forget_failures();
        });
        write_again(wal, frame_end(last, wal.config().page_size))?;
        step(Point::CommitSync);
        wal.sync_log()?;
        // What was written may have been read from the disk by then.
        rule!(RewriteCheck, {
            scan_published(wal)?;
        });
    }
    wait_state.synced().forget_failure(failure);
    Ok(())
}

/// The last frame of the log as it is in the file, by its checksums; it must
/// have all that is published.
fn scan_published<C: WalCoordination>(wal: &Wal<C>) -> Result<Option<FrameNo>> {
    let log = wal.storage().log();
    let scan = format::scan(log)?;
    let published = wal.header_cell()?.load().ok();
    if let Some(published) = published
        && published.max_frame() > 0
        && !rule!(
            RewriteCoversPublished,
            scan.as_ref().is_some_and(|scan| covers(scan, &published))
        )
    {
        let reason = "a sync failed, and the system has lost what it could not write";
        return Err(Error::corrupt(log.path(), reason));
    }
    Ok(scan.and_then(|scan| FrameNo::new(scan.max_frame())))
}

/// Writes the first `len` bytes of the log to where they are.
fn write_again<C: WalCoordination>(wal: &Wal<C>, len: u64) -> Result<()> {
    let log = wal.storage().log();
    let mut offset = 0;
    let mut run = Vec::new();
    while offset < len {
        let rest = usize::try_from(RUN_LEN.min(len - offset)).unwrap_or(0);
        run.resize(rest, 0);
        if log.read_at(&mut run, offset)? < rest {
            return Err(Error::corrupt(log.path(), "it was cut while it was read"));
        }
        step(Point::FramesWrite);
        log.write_all_at(&mut [IoSlice::new(&run)], offset)?;
        offset += rest as u64;
    }
    Ok(())
}
