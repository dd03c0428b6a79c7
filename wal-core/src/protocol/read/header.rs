//! Loads the published header, and mends it when its writer died half-way.
//!
//! # Protocol
//! The header is loaded without a lock. One that is not whole is either being
//! written at this moment or was left by a dead writer. Whoever gets Write
//! knows which: nobody is writing then. If it is still not whole, it is
//! rebuilt from the log; nobody ever waits for a writer that may be dead
//! (`walIndexReadHdr`).

use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::index::{HeaderCell, IndexHeader};
use crate::protocol::handle::Wal;
use crate::protocol::locking::guard::LocksHeld;
use crate::protocol::locking::pause::pause_before;

use crate::types::{Lock, LockMode, PageSize};

/// How often a checkpoint looks again at a header that is being written, for
/// which a few looks are enough. Its writer may have been stopped, and others
/// are not to wait for a checkpoint that waits for that.
const MAX_ATTEMPTS: u32 = 12;

impl<C: WalCoordination> Wal<C> {
    /// The published header; `None` if it is worth trying again at once.
    ///
    /// # Errors
    /// [`Error::Busy`] while another process recovers, or, for a caller that
    /// holds Write, while a checkpoint keeps it from recovering; and whatever
    /// recovery gives.
    #[inline(always)]
    pub(in crate::protocol) fn load_snapshot(
        self: &Arc<Self>,
        held: &LocksHeld<'_, C>,
    ) -> Result<Option<IndexHeader>> {
        // Once more if it was mended; the callers try again, with pauses.
        for mended in [false, true] {
            if let Some(header) = load_header(self)? {
                check_page_size(self, &header)?;
                return Ok(Some(header));
            }
            if mended || !recover_or_wait(self, held)? {
                break;
            }
        }
        Ok(None)
    }

    /// The published header, for who writes or checkpoints, and is not held up
    /// for long by somebody who is just publishing one.
    pub(in crate::protocol) fn settled_header(
        self: &Arc<Self>,
        held: &LocksHeld<'_, C>,
    ) -> Result<IndexHeader> {
        for attempt in 1..=MAX_ATTEMPTS {
            pause_before(attempt);
            if let Some(header) = self.load_snapshot(held)? {
                return Ok(header);
            }
        }
        Err(self.busy(Lock::Write))
    }
}

/// Called with a header that is not whole; true if it is by now, false if it is
/// being written. The header is not handed on from here, so that one which is whole
/// at once stays in registers.
#[cold]
fn recover_or_wait<C: WalCoordination>(wal: &Arc<Wal<C>>, held: &LocksHeld<'_, C>) -> Result<bool> {
    if held.write.is_some() {
        let recovered = recover_if_still_bad(wal, held)?;
        return match recovered {
            Some(_) => Ok(true),
            None => Err(wal.busy(Lock::CheckpointAndRecover)),
        };
    }
    let header = match wal.try_lock(Lock::Write, LockMode::Exclusive)? {
        Some(write) => {
            let held = LocksHeld {
                write: Some(&write),
                checkpoint: held.checkpoint,
            };
            recover_if_still_bad(wal, &held)?
        }
        None => wait_for_recovery(wal)?,
    };
    Ok(header.is_some())
}

/// The header if it is whole.
#[inline(always)]
fn load_header<C: WalCoordination>(wal: &Wal<C>) -> Result<Option<IndexHeader>> {
    let Some(block) = wal.block_zero()? else {
        return Ok(None);
    };
    match HeaderCell::of(block).load() {
        Ok(header) => Ok(Some(header)),
        Err(crate::index::BadHeader::Damaged) => Ok(None),
        Err(crate::index::BadHeader::UnknownVersion(version)) => Err(Error::cannot_open(
            wal.path(),
            format!("wal-index version {version} is not known; a newer program wrote it"),
        )),
    }
}

/// With Write held nobody else is storing the header, so one that is not
/// whole now has no writer any more.
fn recover_if_still_bad<C: WalCoordination>(
    wal: &Arc<Wal<C>>,
    held: &LocksHeld<'_, C>,
) -> Result<Option<IndexHeader>> {
    match load_header(wal)? {
        Some(header) => Ok(Some(header)),
        None => wal.recover(held),
    }
}

/// Somebody holds Write and the header is not whole: a commit is being
/// published, which takes no time, or a recovery is running, which may
/// take long. Who may not write gets no exclusive lock, though nobody
/// holds Write; a shared one then shows that nobody will finish the
/// header (`SQLITE_READONLY_RECOVERY`).
fn wait_for_recovery<C: WalCoordination>(wal: &Arc<Wal<C>>) -> Result<Option<IndexHeader>> {
    if wal.config().read_only
        && let Some(_nobody_writes) = wal.try_lock(Lock::Write, LockMode::Shared)?
    {
        let needs_recovery = || Error::NeedsRecovery {
            path: wal.path().to_owned(),
        };
        return load_header(wal)?.ok_or_else(needs_recovery).map(Some);
    }
    match wal.try_lock(Lock::Recover, LockMode::Shared)? {
        Some(_recovery_is_over) => Ok(None),
        None => Err(wal.busy(Lock::Recover)),
    }
}

#[inline]
fn check_page_size<C: WalCoordination>(wal: &Wal<C>, header: &IndexHeader) -> Result<()> {
    match header.page_size() {
        Some(found) if found == wal.config().page_size => Ok(()),
        None if header.max_frame() == 0 => Ok(()),
        other => Err(refuse_page_size(wal, other)),
    }
}

#[cold]
fn refuse_page_size<C: WalCoordination>(wal: &Wal<C>, found: Option<PageSize>) -> Error {
    match found {
        Some(found) => Error::PageSizeMismatch {
            path: wal.path().to_owned(),
            expected: wal.config().page_size.bytes(),
            found: found.bytes(),
        },
        None => Error::corrupt(wal.path(), "the wal-index holds no legal page size"),
    }
}
