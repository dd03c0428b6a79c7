//! What a process has open for one database, shared by all its users there.
//!
//! # Protocol
//! A process has one attachment per database file: one set of descriptors,
//! one lock table. It is found by device and inode (`registry`). A user that may only read
//! joins any that there is, and makes one of its own otherwise, which a user that may write
//! cannot join. Attaching goes in this order: the claim of the file for this process;
//! SHARED on the database file; then it is looked at, and refused with
//! nothing touched if it is not to be used; then `-shm`, with its lock; then
//! the side file. Detaching goes the other way, SHARED and the claim last.
//!
//! Descriptors are parked and not closed (see `wal_core::storage::OsFile`). Classic locks are the
//! process's own: two attachments by them would not exclude each other, and the release of
//! one would be that of the other too. So an attachment with classic locks is the only one of
//! its file in the process, whatever opened it, until its last lock is released
//! ([`Claim`]).
//!
//! # Crash
//! The system frees all locks of a dead process. Its files stay, and are
//! reset by the next first opener.

use std::path::Path;
use std::sync::Arc;

use wal_core::fork::ProcessGeneration;
use wal_core::storage::{ByteLocks, Claim, File, FileId, OsFile, database_bytes, shm_bytes};
use wal_core::{Error, PageSize, Result};

use crate::database_lock;
use crate::index::Index;
use crate::lock_table::LockTable;
use crate::main_file::{DatabaseOwner, MainFile};
use crate::options::{Access, ShmOptions};
use crate::private_index::PrivateIndex;
use crate::read_rate::Delay;
use crate::side_file::SideFile;
use crate::sweeper::Sweeper;

/// One database, as this process has it open.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) database: MainFile,
    /// Whether pages may be read from mappings under these locks.
    pub(crate) maps: bool,
    /// Whether whoever opened it asked for that.
    wants_mapping: bool,
    /// Dropped before what it sweeps.
    pub(crate) sweeper: Option<Sweeper>,
    pub(crate) index: Arc<Index>,
    pub(crate) side: Option<Arc<SideFile>>,
    pub(crate) table: Arc<LockTable>,
    pub(crate) id: FileId,
    pub(crate) locks: ByteLocks,
    pub(crate) access: Access,
    process: ProcessGeneration,
    /// Dropped last: no lock is left then, and no descriptor whose close could drop one of the
    /// next attachment. `None` for an immutable database, of which nothing is locked.
    pub(crate) claim: Option<Claim>,
}

/// The wal-index and the side file of an attachment.
pub(crate) type Opened = (Index, Option<Arc<SideFile>>);

impl Attachment {
    /// Opens `database`. With `makes` set, `look` may make an empty file a database.
    pub(crate) fn open<T>(
        database: Arc<OsFile>,
        makes: bool,
        options: ShmOptions,
        look: impl FnOnce(&OsFile) -> Result<T>,
    ) -> Result<(Self, T)> {
        let locks = ByteLocks::new(options.lock_kind);
        let id = database.id()?;
        let claim = Claim::acquire(database.held_path(), id, locks)?;
        database_lock::lock_shared(&database, locks)?;
        let main = MainFile::Own(database.clone());
        let opened = Self::look_at_locked(&database, locks, makes, look)
            .and_then(|found| Ok((Self::open_index(&main, locks, options)?, found)));
        match opened {
            Ok((opened, found)) => {
                let maps = database.mapped().is_some();
                let attachment = Self::new(main, maps, id, opened, Some(claim), options);
                Ok((attachment, found))
            }
            Err(e) => {
                // The descriptor is parked, and must not keep the lock. The claim is dropped
                // behind this.
                unlock_database(&database, locks);
                Err(e)
            }
        }
    }

    pub(crate) fn immutable(database: Arc<OsFile>, options: ShmOptions) -> Result<Self> {
        let id = database.id()?;
        let index = Index::Private(PrivateIndex::immutable());
        let main = MainFile::Own(database);
        Ok(Self::new(main, false, id, (index, None), None, options))
    }

    /// Calls `look` with SHARED held, or EXCLUSIVE if it may make the file a database.
    fn look_at_locked<T>(
        database: &OsFile,
        locks: ByteLocks,
        makes: bool,
        look: impl FnOnce(&OsFile) -> Result<T>,
    ) -> Result<T> {
        // No database is shorter than a page.
        if makes && database.len()? < u64::from(PageSize::MIN.bytes()) {
            database_lock::while_exclusive(database, locks, || look(database))
        } else {
            look(database)
        }
    }

    /// Opens `-shm` and the side file, with SHARED held on the database file.
    pub(crate) fn open_index(
        database: &MainFile,
        locks: ByteLocks,
        options: ShmOptions,
    ) -> Result<Opened> {
        let read_only = options.access == Access::ReadOnly;
        let index = match read_only {
            true => Index::open_read_only(database, locks)?,
            false => Index::open(database, locks)?,
        };
        let busy = || Error::Locked {
            path: database.path().to_owned(),
        };
        let index = index.ok_or_else(busy)?;
        let side = (options.side_file && !read_only)
            .then(|| SideFile::open(database, locks))
            .flatten()
            .map(Arc::new);
        Ok((index, side))
    }

    pub(crate) fn new(
        database: MainFile,
        maps: bool,
        id: FileId,
        (index, side): Opened,
        claim: Option<Claim>,
        options: ShmOptions,
    ) -> Self {
        // The locks of a private index are not only those of its slots.
        let delay = Delay::new(options.read_lock_delay).filter(|_| index.is_shared());
        let table = Arc::new(LockTable::new(delay, side.clone()));
        let index = Arc::new(index);
        let sweeper =
            delay.map(|delay| Sweeper::new(table.clone(), index.clone(), side.clone(), delay));
        let attachment = Attachment {
            database,
            sweeper,
            maps,
            wants_mapping: options.mapped,
            index,
            table,
            side,
            id,
            locks: ByteLocks::new(options.lock_kind),
            access: options.access,
            process: ProcessGeneration::current(),
            claim,
        };
        attachment.set_close_on_drop(options.close_descriptors);
        attachment
    }

    /// Lets `look` look at the database for a user that joins, if it can share this
    /// attachment.
    pub(crate) fn look_to_join<T>(
        &self,
        path: &Path,
        options: ShmOptions,
        look: impl FnOnce(&OsFile) -> Result<T>,
    ) -> Result<T> {
        self.refuse_other_kind(path, options)?;
        let Some(database) = self.database.own() else {
            return Err(Error::cannot_open(path, "an engine has it open"));
        };
        // The users of an attachment share the database file and its mapping.
        if self.wants_mapping != options.mapped {
            let reason = "this process has it open with another read strategy; use the same one";
            return Err(Error::cannot_open(path, reason));
        }
        let found = look(database)?;
        self.agree_on_close(options);
        Ok(found)
    }

    pub(crate) fn refuse_other_kind(&self, path: &Path, options: ShmOptions) -> Result<()> {
        if self.locks == ByteLocks::new(options.lock_kind) {
            return Ok(());
        }
        let reason = "this process has it open with locks of the other kind; use the same kind";
        Err(Error::cannot_open(path, reason))
    }

    /// The descriptors are closed only if all who ever shared them said that they may be.
    pub(crate) fn agree_on_close(&self, options: ShmOptions) {
        if !options.close_descriptors {
            self.set_close_on_drop(false);
        }
    }

    fn set_close_on_drop(&self, close: bool) {
        let files = [self.database.own().map(|file| &**file), self.index.file()];
        let files = files.into_iter().flatten();
        files.for_each(|file| file.set_close_on_drop(close));
    }

    /// Stops to delay the release of locks: no user of this process is left that would read
    /// again.
    pub(crate) fn stop_delaying(&self) {
        if self.sweeper.is_some() && !self.process.is_over() {
            self.table.stop_delaying(&*self.index);
        }
    }

    /// True if there is no other user of any process: this process then holds EXCLUSIVE.
    /// The last user of this process has detached. `owner` is the engine that has the
    /// database file open, if it is not opened here.
    ///
    /// A user that comes meanwhile makes another attachment, which the system's locks keep
    /// apart from this one; with classic locks it is refused until this one is dropped.
    pub(crate) fn try_own(&self, owner: Option<&dyn DatabaseOwner>) -> Result<bool> {
        if !self.database.is_still_at_its_path()? || self.others_attached()? {
            return Ok(false);
        }
        match (self.database.own(), owner) {
            (Some(file), _) => database_lock::try_lock_exclusive(file, self.locks),
            (None, Some(owner)) => owner.try_lock_exclusive(),
            (None, None) => Ok(false),
        }
    }

    /// True if somebody else is attached to `-shm`, whatever it holds on the
    /// database file (`unixIsSharingShmNode`).
    fn others_attached(&self) -> Result<bool> {
        let Some(file) = self.index.file() else {
            return Ok(false);
        };
        let conflict = self
            .locks
            .conflict(file.as_file()?, shm_bytes::DMS)
            .map_err(|e| Error::io(file.path(), "query the lock of", e))?;
        Ok(conflict.is_some())
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // In a child the locks are the parent's. Of an immutable database nothing was locked,
        // and classic locks may be another attachment's.
        if !self.process.is_over() && self.access != Access::Immutable {
            if let Some(Ok(file)) = self.index.file().map(OsFile::as_file) {
                // An unlock that fails leaves a lock that goes when the process
                // does; there is nobody to tell here.
                let _ = self.locks.unlock(file, 0..shm_bytes::DMS.end);
            }
            if let Some(file) = self.database.own() {
                unlock_database(file, self.locks);
            }
        }
    }
}

fn unlock_database(database: &OsFile, locks: ByteLocks) {
    if let Ok(file) = database.as_file() {
        let _ = locks.unlock(file, database_bytes::ALL);
    }
}
