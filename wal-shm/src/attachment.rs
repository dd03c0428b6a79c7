//! What a process has open for one database, shared by all its users there.
//!
//! # Protocol
//! A process has one attachment per database file: one set of descriptors,
//! one lock table. It is found by device and inode. Who may only read joins
//! whichever there is, and makes one of its own otherwise, which who may write
//! cannot join. Attaching goes in this
//! order: SHARED on the database file; then it is looked at, and refused with
//! nothing touched if it is not to be used; then `-shm`, with its lock; then
//! the side file. Detaching goes the other way, SHARED last.
//!
//! Descriptors are closed only if nobody else in the process has the file open (see
//! `wal_core::io::OsFile`). Classic locks are the process's own: releasing those of an
//! attachment that ends would release those of the next one too. So with them an
//! attachment stays in the registry, and the database locked, until its last lock is
//! given back.
//!
//! # Crash
//! The system frees all locks of a dead process. Its files stay, and are
//! reset by the next first opener.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use wal_core::fork::ProcessGeneration;
use wal_core::io::{ByteLocks, File, LockKind, OpenMode, OsFile, database_bytes, shm_bytes};
use wal_core::once_table::OnceTable;
use wal_core::{Error, Result};

use crate::coordination::{Access, ShmOptions};
use crate::database_lock;
use crate::file_system;
use crate::index::Index;
use crate::keeper::Keeper;
use crate::lock_table::LockTable;
use crate::main_file::{DatabaseOwner, MainFile};
use crate::private_index::PrivateIndex;
use crate::side_file::SideFile;

/// One database, as this process has it open.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) database: MainFile,
    /// Dropped before what it sweeps.
    pub(crate) keeper: Option<Keeper>,
    pub(crate) index: Arc<Index>,
    pub(crate) side: Option<Arc<SideFile>>,
    pub(crate) table: Arc<LockTable>,
    locks: ByteLocks,
    kind: LockKind,
    access: Access,
    process: ProcessGeneration,
    /// Dropped last.
    gone: Gone,
}

/// Tells, when it is dropped, that no lock of an attachment is left, and no descriptor
/// whose close could drop one of its successor.
#[derive(Debug, Default)]
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        // Release: see `attach`.
        self.0.store(true, Ordering::Release);
    }
}

/// An attachment in the registry.
struct Entry {
    device_and_inode: (u64, u64),
    /// Whether an engine opens and locks the database file.
    of_engine: bool,
    attachment: Weak<Attachment>,
    /// How many users have opened it and not left.
    users: usize,
    /// Whether its locks are the process's, so that a successor has to wait
    /// until they are given back.
    locks_of_process: bool,
    gone: Arc<AtomicBool>,
}

/// The attachments of this process, one list for each generation of forks: a
/// parent's mutex may have been held at the fork, and its attachments are of
/// no use to the child.
static REGISTRY: OnceTable<Mutex<Vec<Entry>>> = OnceTable::new();

fn registry() -> MutexGuard<'static, Vec<Entry>> {
    let generation = ProcessGeneration::current().number();
    REGISTRY
        .get_or_make(generation, Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Attaches to the database at `path`, or joins the attachment that this
/// process has. `look` is called with SHARED held and nothing else touched;
/// if it refuses, so does this.
pub(crate) fn attach<T>(
    path: &Path,
    mode: OpenMode<'_>,
    options: ShmOptions,
    look: impl FnOnce(&OsFile) -> Result<T>,
) -> Result<(Arc<Attachment>, T)> {
    let mut registry = registry();
    // Acquire: pairs with the release in `Gone`, behind the last unlock and close.
    registry.retain(|entry| !entry.gone.load(Ordering::Acquire));
    if let Some((entry, attachment)) = find(&mut registry, path, options, false)? {
        if attachment.kind != options.lock_kind {
            let reason = "this process has it open with locks of the other kind; use the same kind";
            return Err(Error::cannot_open(path, reason));
        }
        let Some(database) = attachment.database.own() else {
            return Err(Error::cannot_open(path, "an engine has it open"));
        };
        // The users of an attachment share the database file and its mapping.
        if database.mapped().is_some() != options.mapped {
            let reason = "this process has it open with another read strategy; use the same one";
            return Err(Error::cannot_open(path, reason));
        }
        let found = look(database)?;
        entry.users += 1;
        return Ok((attachment, found));
    }
    let (attachment, found) = Attachment::open(path, mode, options, look)?;
    let attachment = Arc::new(attachment);
    registry.push(attachment.entry()?);
    Ok((attachment, found))
}

/// Attaches to the database at `path`, whose file an engine has open with
/// SHARED held, or joins the attachment that engines of this process have.
pub(crate) fn attach_engine(path: &Path, options: ShmOptions) -> Result<Arc<Attachment>> {
    let mut registry = registry();
    registry.retain(|entry| !entry.gone.load(Ordering::Acquire));
    if let Some((entry, attachment)) = find(&mut registry, path, options, true)? {
        entry.users += 1;
        return Ok(attachment);
    }
    let database = MainFile::of_engine(path)?;
    if !options.allow_network_file_system {
        file_system::refuse_network(&database)?;
    }
    let locks = ByteLocks::new(options.lock_kind);
    let attachment = Arc::new(Attachment::open_locked(database, locks, options)?);
    registry.push(attachment.entry()?);
    Ok(attachment)
}

/// The attachment to join. An immutable database has no locks to share.
fn find<'r>(
    registry: &'r mut [Entry],
    path: &Path,
    options: ShmOptions,
    of_engine: bool,
) -> Result<Option<(&'r mut Entry, Arc<Attachment>)>> {
    let there = match std::fs::metadata(path) {
        _ if options.access == Access::Immutable => return Ok(None),
        Ok(there) => (there.dev(), there.ino()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, "stat", e)),
    };
    let mut chosen = None;
    for (place, entry) in registry.iter().enumerate() {
        if entry.device_and_inode != there || entry.of_engine != of_engine {
            continue;
        }
        let in_use = entry.attachment.upgrade().filter(|_| entry.users > 0);
        let Some(attachment) = in_use else {
            if entry.locks_of_process {
                let path = path.to_owned();
                return Err(Error::Locked { path });
            }
            continue;
        };
        if attachment.access == Access::Immutable {
            continue;
        }
        let preference = attachment.preference(options.access)?;
        if preference.is_none() && !attachment.locks.belong_to_description() {
            let reason = "this process has it open for reading alone; with classic locks, close \
                that first";
            return Err(Error::cannot_open(path, reason));
        }
        let better = |(best, ..): &(Preference, usize, _)| preference > Some(*best);
        if let Some(preference) = preference
            && chosen.as_ref().is_none_or(better)
        {
            chosen = Some((preference, place, attachment));
        }
    }
    Ok(chosen.and_then(|(_, place, attachment)| Some((registry.get_mut(place)?, attachment))))
}

/// Which of the attachments that can be joined is joined: the last one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Preference {
    Private,
    Shared,
    Writable,
}

impl Attachment {
    fn open<T>(
        path: &Path,
        mode: OpenMode<'_>,
        options: ShmOptions,
        look: impl FnOnce(&OsFile) -> Result<T>,
    ) -> Result<(Self, T)> {
        let mode = match options.access {
            Access::ReadWrite => mode,
            Access::ReadOnly | Access::Immutable => OpenMode::ReadOnly,
        };
        let database = OsFile::open_for_locks(path, mode)?.with_mapping(options.mapped);
        let database = Arc::new(database);
        if options.access == Access::Immutable {
            let found = look(&database)?;
            let index = Index::Private(PrivateIndex::immutable());
            let database = MainFile::Own(database);
            return Ok((Self::new(database, index, None, options), found));
        }
        if !options.allow_network_file_system {
            file_system::refuse_network(&MainFile::Own(database.clone()))?;
        }
        let locks = ByteLocks::new(options.lock_kind);
        database_lock::lock_shared(&database, locks)?;
        let opened = Self::look_at_locked(&database, locks, options, look).and_then(|found| {
            let main = MainFile::Own(database.clone());
            Ok((Self::open_locked(main, locks, options)?, found))
        });
        if opened.is_err() {
            // The descriptor is parked, and must not keep the lock.
            unlock_database(&database, locks);
        }
        opened
    }

    /// Calls `look` with SHARED held.
    fn look_at_locked<T>(
        database: &OsFile,
        locks: ByteLocks,
        options: ShmOptions,
        look: impl FnOnce(&OsFile) -> Result<T>,
    ) -> Result<T> {
        if options.access != Access::ReadOnly && database.is_empty()? {
            database_lock::while_reserved(database, locks, || look(database))
        } else {
            look(database)
        }
    }

    /// Goes on with SHARED held.
    fn open_locked(database: MainFile, locks: ByteLocks, options: ShmOptions) -> Result<Self> {
        let read_only = options.access == Access::ReadOnly;
        let index = match read_only {
            true => Index::open_read_only(&database, locks)?,
            false => Index::open(&database, locks)?,
        };
        let busy = || Error::Locked {
            path: database.path().to_owned(),
        };
        let index = index.ok_or_else(busy)?;
        let side = (options.side_file && !read_only)
            .then(|| SideFile::open(&database, locks))
            .flatten()
            .map(Arc::new);
        Ok(Self::new(database, index, side, options))
    }

    fn new(
        database: MainFile,
        index: Index,
        side: Option<Arc<SideFile>>,
        options: ShmOptions,
    ) -> Self {
        let table = Arc::new(LockTable::new(side.clone()));
        let index = Arc::new(index);
        // The locks of a private index are not only those of its slots.
        let lingers = !options.linger.is_zero() && matches!(*index, Index::Shared(_));
        let keeper = lingers
            .then(|| Keeper::new(table.clone(), index.clone(), side.clone(), options.linger));
        Attachment {
            database,
            keeper,
            index,
            table,
            side,
            locks: ByteLocks::new(options.lock_kind),
            kind: options.lock_kind,
            access: options.access,
            process: ProcessGeneration::current(),
            gone: Gone::default(),
        }
    }

    /// This attachment with one user, for the registry.
    fn entry(self: &Arc<Self>) -> Result<Entry> {
        Ok(Entry {
            device_and_inode: self.database.device_and_inode()?,
            of_engine: self.database.own().is_none(),
            attachment: Arc::downgrade(self),
            users: 1,
            locks_of_process: self.access != Access::Immutable
                && !self.locks.belong_to_description(),
            gone: self.gone.0.clone(),
        })
    }

    /// How well who asks for `access` is served here; `None` if not at all.
    fn preference(&self, access: Access) -> Result<Option<Preference>> {
        Ok(match (access, self.access, &*self.index) {
            (_, Access::ReadWrite, _) => Some(Preference::Writable),
            (Access::ReadOnly, Access::ReadOnly, Index::Shared(_)) => Some(Preference::Shared),
            (Access::ReadOnly, Access::ReadOnly, Index::Private(private)) => {
                (!private.is_superseded()?).then_some(Preference::Private)
            }
            _ => None,
        })
    }

    /// One user leaves without cleaning up.
    pub(crate) fn detach(self: &Arc<Self>) {
        self.count_out(&mut registry());
    }

    /// One user leaves. True if it was the last one of all processes: this
    /// process then holds EXCLUSIVE. `owner` is the engine that has the
    /// database file open, if it is not opened here.
    pub(crate) fn leave(self: &Arc<Self>, owner: Option<&dyn DatabaseOwner>) -> Result<bool> {
        // Held to the end, so that nobody joins an attachment that is going.
        let mut registry = registry();
        if self.count_out(&mut registry) > 0
            || !self.database.is_still_at_its_path()?
            || self.others_attached()?
        {
            return Ok(false);
        }
        let alone = match (self.database.own(), owner) {
            (Some(file), _) => database_lock::try_lock_exclusive(file, self.locks)?,
            (None, Some(owner)) => owner.try_lock_exclusive()?,
            (None, None) => false,
        };
        Ok(alone)
    }

    /// How many users of this process are left.
    fn count_out(self: &Arc<Self>, registry: &mut [Entry]) -> usize {
        let this = Arc::downgrade(self);
        let entry = registry
            .iter_mut()
            .find(|entry| entry.attachment.ptr_eq(&this));
        let left = entry.map_or(0, |entry| {
            entry.users = entry.users.saturating_sub(1);
            entry.users
        });
        if left == 0 && self.keeper.is_some() && !self.process.is_over() {
            // Nobody is left who would read again.
            self.table.sweep_all(&*self.index);
        }
        left
    }

    /// True if somebody else is attached to `-shm`, whatever it holds on the
    /// database file (`unixIsSharingShmNode`).
    fn others_attached(&self) -> Result<bool> {
        let Some(file) = self.index.file() else {
            return Ok(false);
        };
        let conflict = self
            .locks
            .conflict(file.as_file(), shm_bytes::DMS)
            .map_err(|e| Error::io(file.path(), "query the lock of", e))?;
        Ok(conflict.is_some())
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // In a child the locks are the parent's. Of an immutable database
        // nothing was locked, and the descriptors may be another's too.
        if !self.process.is_over() && self.access != Access::Immutable {
            // An unlock that fails leaves a lock that goes when the process
            // does; there is nobody to tell here.
            if let Some(file) = self.index.file() {
                let _ = self.locks.unlock(file.as_file(), 0..shm_bytes::DMS.end);
            }
            if let Some(file) = self.database.own() {
                unlock_database(file, self.locks);
            }
        }
    }
}

fn unlock_database(database: &OsFile, locks: ByteLocks) {
    let _ = locks.unlock(database.as_file(), database_bytes::ALL);
}
