//! The coordination: one user of the attachment that its process has.
#![allow(unsafe_code)] // Giving a lock up is unsafe to call.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use wal_core::index::serves_newest;
use wal_core::index::{IndexBlock, WritableBlock, forget_header};
use wal_core::storage::{OpenMode, OsFile, shm_bytes};
use wal_core::sync::{AtomicBool, AtomicU32, Ordering};
use wal_core::wait::WaitState;
use wal_core::{Error, Lock, LockMode, ReadSlot, Result, WalCoordination};

use crate::attachment::Attachment;
use crate::index::Index;
use crate::main_file::DatabaseOwner;
use crate::options::{Access, ShmOptions};
use crate::{attach, futex};

/// Coordination between processes, through SQLite's `-shm` file and its lock
/// bytes.
pub struct ShmWalCoordination {
    attachment: Arc<Attachment>,
    access: Access,
    /// The engine that has the database file open, if one has.
    owner: Option<Box<dyn DatabaseOwner>>,
    left: AtomicBool,
    /// Set when this user was the last one of all, and so owns the database.
    owns: AtomicBool,
}

impl fmt::Debug for ShmWalCoordination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShmWalCoordination")
            .field("path", &self.attachment.database.path())
            .field("access", &self.access)
            .field("has_engine", &self.owner.is_some())
            .finish_non_exhaustive()
    }
}

impl ShmWalCoordination {
    /// Attaches to the database at `path`. `look` is called with SHARED held
    /// on the database file, before any other file is touched, and can refuse
    /// the database. With [`OpenMode::Create`] it is called under EXCLUSIVE for a file that is
    /// shorter than a page, so that it can make it a database. While it runs, the threads of
    /// this process that open the same database wait, so `look` must not open it. `mode` is
    /// for an opener that may write.
    ///
    /// # Errors
    /// [`Error::Locked`] if another connection owns the database or is just
    /// opening it first, or if this process has it open otherwise, by classic locks;
    /// [`Error::CannotOpen`] for a network file system or
    /// if reading alone is not safe, [`Error::Io`], and what `look` gives.
    pub fn open<T>(
        path: &Path,
        mode: OpenMode<'_>,
        options: ShmOptions,
        look: impl FnOnce(&OsFile) -> Result<T>,
    ) -> Result<(Self, T)> {
        let (attachment, found) = attach::attach(path, mode, options, look)?;
        Ok((
            ShmWalCoordination {
                attachment,
                access: options.access,
                owner: None,
                left: AtomicBool::new(false),
                owns: AtomicBool::new(false),
            },
            found,
        ))
    }

    /// Attaches to the database at `path`, whose file `owner` has open, with
    /// SHARED held on it. Neither the file nor its locks are touched; whether
    /// pages are mapped is up to who opens the files.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process is just opening the database
    /// first, [`Error::CannotOpen`] for a network file system or if reading
    /// alone is not safe, [`Error::Io`].
    pub fn attach(path: &Path, options: ShmOptions, owner: impl DatabaseOwner) -> Result<Self> {
        Ok(ShmWalCoordination {
            attachment: attach::attach_engine(path, owner.held_path(), options)?,
            access: options.access,
            owner: Some(Box::new(owner)),
            left: AtomicBool::new(false),
            owns: AtomicBool::new(false),
        })
    }

    /// True if pages of the database and its log may be read from mappings under the
    /// locks of this attachment ([`wal_core::protocol::Wal::new_mapped`]): if that was
    /// asked for ([`ShmOptions::mapped`]), the locks belong to the open file and not to the
    /// process, the file system is no network file system, and the database is not
    /// [`Access::Immutable`]. If not, the database file is not mapped.
    pub fn maps(&self) -> bool {
        self.attachment.maps
    }

    /// The database file, unless an engine has opened it.
    pub fn database(&self) -> Option<&Arc<OsFile>> {
        self.attachment.database.own()
    }

    /// Block 0. Marks are used only after a header was loaded from it.
    fn marks(&self) -> Option<&IndexBlock> {
        self.attachment.index.block(0).ok().flatten()
    }

    /// True if what is in the index can be read by the caller, who holds a
    /// slot. A private index that is no longer that of the log is given up to
    /// recovery, by whoever comes first.
    fn is_current(&self) -> Result<bool> {
        let Index::Private(private) = &*self.attachment.index else {
            return Ok(true);
        };
        if private.is_current()? {
            return Ok(true);
        }
        if self.try_lock(Lock::Write, LockMode::Exclusive)? {
            if let Some(block) = private.block(0) {
                forget_header(block);
            }
            self.release(Lock::Write, LockMode::Exclusive);
        }
        Ok(false)
    }

    /// Releases `lock`, which is held in `mode` for the caller of this coordination.
    fn release(&self, lock: Lock, mode: LockMode) {
        let Attachment { table, index, .. } = &*self.attachment;
        // The system refuses to unlock only if it is out of memory for the
        // remaining ranges. The lock then stays until the process ends, which
        // is safe; the table has given it free for this process.
        let _ = table.unlock(&**index, lock, mode);
    }

    /// As `is_current`, for who has taken `slot` shared and keeps it only then.
    #[inline]
    fn is_current_or_unlocks(&self, slot: ReadSlot) -> Result<bool> {
        let current = self.is_current();
        if !matches!(current, Ok(true)) {
            self.release(Lock::Read(slot), LockMode::Shared);
        }
        current
    }
}

impl WalCoordination for ShmWalCoordination {
    const HAS_FOREIGN_PEERS: bool = true;

    #[inline]
    fn block(&self, index: u32) -> Result<Option<&IndexBlock>> {
        self.attachment.index.block(index)
    }

    fn grow(&self, index: u32) -> Result<&WritableBlock> {
        self.attachment.index.grow(index)
    }

    /// A reader of a private index that has its slot asks whether the index
    /// still is that of the log; one that is not counts as a slot that is
    /// busy.
    fn try_lock(&self, lock: Lock, mode: LockMode) -> Result<bool> {
        let Attachment { table, index, .. } = &*self.attachment;
        if let (Lock::Write, Index::Shared(shm)) = (lock, &**index) {
            shm.check_in_place()?;
        }
        if !table.try_lock(&**index, lock, mode)? {
            return Ok(false);
        }
        match (lock, mode) {
            (Lock::Read(slot), LockMode::Shared) => self.is_current_or_unlocks(slot),
            _ => Ok(true),
        }
    }

    /// The mark lies beside the lock here, so it is looked at once the lock
    /// is held, when nobody can change it any more.
    fn try_lock_mark(&self, slot: ReadSlot, mark: u32) -> Result<bool> {
        let lock = Lock::Read(slot);
        if !self.try_lock(lock, LockMode::Shared)? {
            return Ok(false);
        }
        let same = self.mark(slot) == mark;
        if !same {
            self.release(lock, LockMode::Shared);
        }
        Ok(same)
    }

    /// The system turns an exclusive lock into a shared one in one step.
    unsafe fn downgrade(&self, slot: ReadSlot) -> Result<bool> {
        let Attachment { table, index, .. } = &*self.attachment;
        Ok(table.downgrade(&**index, slot)? && self.is_current_or_unlocks(slot)?)
    }

    /// What the caller reads stays as it is, also in a private index that others have
    /// superseded, and beside a checkpoint for which new readers keep out of the slot.
    unsafe fn relock_shared(&self, slot: ReadSlot) -> Result<bool> {
        self.attachment.table.join_again(slot);
        Ok(true)
    }

    unsafe fn unlock(&self, lock: Lock, mode: LockMode) {
        self.release(lock, mode);
    }

    /// The sweeper keeps the slot while a reader of the newest state would take it again.
    #[inline]
    unsafe fn unlock_delayed(&self, slot: ReadSlot) {
        let serves_newest = |block| serves_newest(block, slot);
        let delayed = match &self.attachment.sweeper {
            Some(sweeper) if self.marks().is_some_and(serves_newest) => {
                sweeper.unlock_delayed(slot)
            }
            _ => false,
        };
        if !delayed {
            self.release(Lock::Read(slot), LockMode::Shared);
        }
    }

    fn holders(&self, lock: Lock) -> Vec<u32> {
        let attachment = &*self.attachment;
        let mut holders = match &*attachment.index {
            Index::Shared(shm) => shm.holders(shm_bytes::of(lock)),
            Index::Private(_) => Vec::new(),
        };
        if let Some(side) = &attachment.side {
            holders.extend(side.holders(lock));
        }
        if attachment.table.holds(lock) {
            holders.push(std::process::id());
        }
        holders.sort_unstable();
        holders.dedup();
        holders
    }

    fn mark(&self, slot: ReadSlot) -> u32 {
        self.marks().map_or(0, |block| block.mark(slot))
    }

    /// The slot is held exclusively, which nobody has that may not write.
    unsafe fn set_mark(&self, slot: ReadSlot, mark: u32) {
        // The protocol has loaded a header, and with it mapped the block.
        if let Some(block) = self.attachment.index.marks() {
            // SAFETY: the caller holds the slot exclusively.
            unsafe { block.set_mark(slot, mark) };
        }
    }

    fn wait_state(&self) -> Option<&WaitState> {
        self.attachment.side.as_ref()?.wait_state()
    }

    fn sleep(&self, word: &AtomicU32, seen: u32, deadline: Instant) {
        futex::wait_until(word, seen, deadline);
    }

    fn wake(&self, word: &AtomicU32) {
        futex::wake_all(word);
    }

    fn detach(&self) -> Result<bool> {
        if self.left.swap(true, Ordering::Relaxed) {
            return Ok(false);
        }
        match self.access {
            Access::ReadWrite => {
                let owns = attach::detach(&self.attachment) == 0
                    && self.attachment.try_own(self.owner.as_deref())?;
                self.owns.store(owns, Ordering::Relaxed);
                Ok(owns)
            }
            // Who may not write cleans nothing up, though it be the last.
            Access::ReadOnly | Access::Immutable => {
                attach::detach(&self.attachment);
                Ok(false)
            }
        }
    }

    fn remove(&self) -> Result<()> {
        if !self.owns.load(Ordering::Relaxed) {
            return Err(Error::Refused {
                path: self.attachment.database.path().to_owned(),
                operation: "removing the wal-index",
                reason: "the database may have other users; leave it as the last one".to_owned(),
            });
        }
        // What lies there instead of a side file may not be ours, or may not
        // let itself be removed; it is no reason to leave the log.
        let database = self.attachment.database.held_path();
        if self.attachment.side.is_some() {
            let _ = database.beside("-coord").remove();
        }
        database.beside("-shm").remove()
    }
}

impl Drop for ShmWalCoordination {
    fn drop(&mut self) {
        if !self.left.load(Ordering::Relaxed) {
            attach::detach(&self.attachment);
        }
    }
}
