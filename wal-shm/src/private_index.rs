//! A wal-index on the heap, for a process that may not write `-shm` while
//! nobody else is attached to it.
//!
//! # Protocol
//! All locks are decided within the process, and the index is recovered from
//! the log as ever. What is left is to keep other processes from changing what
//! is read. While there is any reader, Read 0 of the real `-shm` is held
//! shared: who comes now resets `-shm`, recovers, and may append to the log,
//! but cannot move a frame to the database file, which takes Read 0 alone,
//! hence can never begin the log anew. So the committed log and the database
//! file stay.
//!
//! Only what was true once Read 0 was held counts, so each reader asks then,
//! in this order (`walBeginShmUnreliable`):
//! 1. Is anybody attached? It may have moved frames before, and begin the log
//!    anew under the reader. The index is *superseded*: the shared one has to
//!    be used, by another attachment. Readers that began before go on.
//! 2. Does the log hold more than the index, or something else? Somebody came
//!    and left. The header is forgotten, and recovered by the next attempt.
//!    Recovery changes nothing for readers that are there: their log was only
//!    added to. Where there is no log nothing tells, so there the database file is asked
//!    whether it was written since this index was first read. By its clock: if it was
//!    written only just before that, it may have been once more without that being
//!    seen, and counts as written (SQLite takes it for written each time).
//!
//! # Crash
//! The index goes with the process, and Read 0 with it.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use wal_core::index::{IndexOf, WritableBlock, index_of};
use wal_core::once_table::OnceTable;
use wal_core::storage::{ByteLocks, File, OsFile, ReadOnlyLog, shm_bytes};
use wal_core::sync::{AtomicU64, Mutex, Ordering, Unpoison};
use wal_core::{Error, Lock, LockMode, ReadSlot, Result, Salts};

use crate::lock_table::Beyond;
use crate::main_file::MainFile;

/// What keeps everybody from writing the database file.
const READ_0: Lock = Lock::Read(ReadSlot::DATABASE);

/// An index that no other process sees.
#[derive(Debug)]
pub(crate) struct PrivateIndex {
    blocks: OnceTable<Box<WritableBlock>>,
    /// `None` for an immutable database, which needs no protection.
    outside: Option<Outside>,
}

/// What other processes see and do.
#[derive(Debug)]
struct Outside {
    shm: OsFile,
    locks: ByteLocks,
    log: ReadOnlyLog,
    database: MainFile,
    /// What the database file was like when the index was first read that has these salts.
    seen: Mutex<Option<(Salts, Written)>>,
    /// Bit *i* for a slot that is held shared in byte *i*. Changed under the mutex of
    /// the lock table.
    shared_slots: AtomicU64,
}

impl PrivateIndex {
    /// The index of `database`, which is read under protection of locks on
    /// `shm`.
    pub(crate) fn new(database: MainFile, shm: OsFile, locks: ByteLocks) -> Self {
        PrivateIndex {
            blocks: OnceTable::new(),
            outside: Some(Outside {
                shm,
                locks,
                log: ReadOnlyLog::beside(database.held_path(), false),
                database,
                seen: Mutex::new(None),
                shared_slots: AtomicU64::new(0),
            }),
        }
    }

    /// The index of a database that nobody writes.
    pub(crate) fn immutable() -> Self {
        PrivateIndex {
            blocks: OnceTable::new(),
            outside: None,
        }
    }

    pub(crate) fn file(&self) -> Option<&OsFile> {
        self.outside.as_ref().map(|outside| &outside.shm)
    }

    pub(crate) fn block(&self, index: u32) -> Option<&WritableBlock> {
        self.blocks.get(index).map(|block| &**block)
    }

    pub(crate) fn grow(&self, index: u32) -> &WritableBlock {
        self.blocks.get_or_make(index, WritableBlock::zeroed)
    }

    /// True if others are attached to `-shm`, or it is another file now.
    pub(crate) fn is_superseded(&self) -> Result<bool> {
        match &self.outside {
            Some(outside) => Ok(outside.others_attached()? || !outside.shm.is_still_at_its_path()?),
            None => Ok(false),
        }
    }

    /// True if the index is that of the log. The caller reads at a slot.
    ///
    /// # Errors
    /// [`Error::Superseded`] if the shared index has to be used,
    /// [`Error::Replaced`], [`Error::Io`].
    pub(crate) fn is_current(&self) -> Result<bool> {
        let Some(outside) = &self.outside else {
            return Ok(true);
        };
        outside.shm.check_in_place()?;
        if outside.others_attached()? {
            return Err(outside.superseded());
        }
        let Some(block) = self.block(0) else {
            return Ok(false);
        };
        // Locked before the header is loaded: else one who has loaded an older header could
        // come behind one who has loaded this.
        let mut seen = outside.seen.lock().unpoison();
        match index_of(block, &outside.log)? {
            IndexOf::AnotherLog => Ok(false),
            IndexOf::ThisLog => Ok(true),
            IndexOf::NoLog(salts) => outside.database_is_that_of(salts, &mut seen),
        }
    }
}

/// When a file was written, and how long it was, when it was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Written {
    len: u64,
    modified: SystemTime,
    /// It was written only just before, so it may be once more at what passes for the
    /// same time.
    is_fresh: bool,
}

/// The clocks of file systems tick less often than files can be written.
const TICK: Duration = Duration::from_millis(20);
/// Those of old ones, which know no parts of a second.
const LONG_TICK: Duration = Duration::from_secs(2);

impl Written {
    fn of(database: &MainFile) -> Result<Self> {
        let (len, modified) = database.written()?;
        let tick = match modified.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) if since.subsec_nanos() == 0 => LONG_TICK,
            _ => TICK,
        };
        let is_fresh = match SystemTime::now().duration_since(modified) {
            Ok(age) => age < tick,
            Err(ahead) => ahead.duration() < tick,
        };
        Ok(Written {
            len,
            modified,
            is_fresh,
        })
    }

    /// True if nothing can have been written until `now`.
    fn still_is(self, now: Written) -> bool {
        !self.is_fresh && (self.len, self.modified) == (now.len, now.modified)
    }
}

impl Outside {
    fn others_attached(&self) -> Result<bool> {
        let conflict = self
            .locks
            .conflict(self.shm.as_file()?, shm_bytes::DMS)
            .map_err(|e| Error::io(self.shm.path(), "query the lock of", e))?;
        Ok(conflict.is_some())
    }

    /// True if the database file is what it was when an index with `salts`, which is of
    /// no log, was first read. While the caller reads, it stays so.
    fn database_is_that_of(
        &self,
        salts: Salts,
        seen: &mut Option<(Salts, Written)>,
    ) -> Result<bool> {
        let now = Written::of(&self.database)?;
        match *seen {
            Some((of, before)) if of == salts => Ok(before.still_is(now)),
            _ => {
                *seen = Some((salts, now));
                Ok(true)
            }
        }
    }

    fn superseded(&self) -> Error {
        Error::Superseded {
            path: self.shm.path().to_owned(),
        }
    }

    /// Slots get their first readers, unless they had some.
    fn slots_taken(&self, slots: u64) -> Result<()> {
        let shared = self.shared_slots.load(Ordering::Relaxed);
        if shared == 0 && slots != 0 {
            let held = self
                .locks
                .try_lock(self.shm.as_file()?, shm_bytes::of(READ_0), LockMode::Shared)
                .map_err(|e| Error::io(self.shm.path(), "lock", e))?;
            if !held {
                // A checkpoint is running, so somebody is attached.
                return Err(self.superseded());
            }
        }
        self.shared_slots.store(shared | slots, Ordering::Relaxed);
        Ok(())
    }

    /// Slots are free. They may never have been shared.
    fn slots_left(&self, slots: u64) -> Result<()> {
        let shared = self.shared_slots.load(Ordering::Relaxed);
        self.shared_slots.store(shared & !slots, Ordering::Relaxed);
        if shared == 0 || shared & !slots != 0 {
            return Ok(());
        }
        self.locks
            .unlock(self.shm.as_file()?, shm_bytes::of(READ_0))
            .map_err(|e| Error::io(self.shm.path(), "unlock", e))
    }
}

/// Bit *i* for each read slot in `bytes` whose lock byte is *i*.
fn slots_of(bytes: &Range<u64>) -> u64 {
    let slots = shm_bytes::of(Lock::Readers);
    let bit = |byte: u64| u64::from(slots.contains(&byte)) << (byte % 64);
    bytes.clone().map(bit).sum()
}

/// Nobody outside has a say in the locks, and readers are what others must be
/// told of.
impl Beyond for PrivateIndex {
    fn try_lock(&self, bytes: Range<u64>, mode: LockMode) -> Result<bool> {
        if let Some(outside) = &self.outside
            && mode == LockMode::Shared
        {
            outside.slots_taken(slots_of(&bytes))?;
        }
        Ok(true)
    }

    fn unlock(&self, bytes: Range<u64>, _mode: LockMode) -> Result<()> {
        match &self.outside {
            // Whoever had a slot alone may have taken it over our own shared lock.
            Some(outside) => outside.slots_left(slots_of(&bytes)),
            None => Ok(()),
        }
    }

    /// Nobody else has this index.
    fn is_held_by_others(&self, _: Range<u64>) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File as StdFile;

    use crate::lock_table::LockTable;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Instant;
    use wal_core::ReadSlot;
    use wal_core::storage::{LockKind, OpenMode};

    const LOCKS: ByteLocks = ByteLocks::new(LockKind::OpenFileDescription);

    fn own(path: &Path) -> MainFile {
        MainFile::Own(Arc::new(OsFile::open(path, OpenMode::Create).unwrap()))
    }

    #[test]
    fn a_database_that_was_written_is_not_that_of_the_same_index_however_often_it_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let write = |content: &str, age: Duration| {
            std::fs::write(&path, content).unwrap();
            let file = StdFile::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        let shm = OsFile::open(&dir.path().join("db-shm"), OpenMode::Create).unwrap();
        let index = PrivateIndex::new(own(&path), shm, LOCKS);
        let is_that_of = |salts: u8| {
            let outside = index.outside.as_ref().unwrap();
            let mut seen = outside.seen.lock().unwrap();
            let salts = Salts([salts; 8]);
            outside.database_is_that_of(salts, &mut seen).unwrap()
        };
        write("one", Duration::from_millis(9_500));
        assert!(is_that_of(1) && is_that_of(1));
        write("two", Duration::from_millis(8_500));
        assert!(!is_that_of(1) && !is_that_of(1));
        assert!(is_that_of(2) && is_that_of(2));
        // One that was written just before it was looked at may be written again. A
        // thread that had no processor in between looks once more.
        let looked_at_once = (3..200).any(|salts| {
            let since = Instant::now();
            write("six", Duration::ZERO);
            let seen = [salts - 1, salts, salts].map(is_that_of);
            let at_once = since.elapsed() < TICK;
            assert!(!at_once || seen == [false, true, false], "{seen:?}");
            at_once
        });
        assert!(looked_at_once, "it was never looked at within a tick");
    }

    /// Another thread may take a slot alone in the moment between the leave of its last
    /// reader and the call that gives it back.
    #[test]
    fn others_are_told_of_readers_until_the_last_has_left_whoever_had_a_slot_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db-shm");
        let shm = OsFile::open(&path, OpenMode::Create).unwrap();
        let stranger = std::fs::File::options().read(true).write(true).open(&path);
        let stranger = stranger.unwrap();
        let told = || LOCKS.conflict(&stranger, shm_bytes::of(READ_0)).unwrap();
        let index = PrivateIndex::new(own(&dir.path().join("db")), shm, LOCKS);
        let table = LockTable::new(None, None);
        let [one, two, ..] = ReadSlot::MARKED;
        let try_lock = |slot, mode| table.try_lock(&index, Lock::Read(slot), mode).unwrap();
        for lowered in [false, true] {
            assert!(try_lock(one, LockMode::Shared) && try_lock(two, LockMode::Shared));
            table.start_delaying();
            assert!(table.unlock_delayed(&index, one, || false));
            assert!(try_lock(one, LockMode::Exclusive));
            match lowered {
                false => table.unlock(&index, Lock::Read(one), LockMode::Exclusive),
                true => {
                    assert!(table.downgrade(&index, one).unwrap());
                    table.unlock(&index, Lock::Read(one), LockMode::Shared)
                }
            }
            .unwrap();
            assert!(told().is_some(), "slot 2 is in use");
            table
                .unlock(&index, Lock::Read(two), LockMode::Shared)
                .unwrap();
            assert!(told().is_none(), "nobody reads");
        }
    }
}
