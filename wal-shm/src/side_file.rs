//! The side file `<db>-coord`: what SQLite's format has no room for.
//!
//! It is ours alone, and optional: losing it costs speed, and the news of a sync
//! that failed. It is opened only with SHARED held on the database file and
//! removed only with EXCLUSIVE, so the two cannot race; a stock SQLite that
//! closes last leaves it behind, and the next first opener resets it.
//!
//! # Layout (32-bit words, host byte order)
//!
//! | word | content |
//! |---|---|
//! | 0 | magic |
//! | 1 | version |
//! | 16 … | [`WaitState`] |
//! | behind it | [`ProcessTable`] |
//!
//! The first opener is found by a lock on byte 2^20, behind the contents.

use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use wal_core::storage::{ByteLocks, File, HeldPath, LockKind, OsFile};
use wal_core::sync::{AtomicU32, Ordering};
use wal_core::wait::{POLL_INTERVAL, WaitState};
use wal_core::{Error, Lock, Result};

use crate::main_file::MainFile;
use crate::mapping::Shared;
use crate::namespaces::Namespaces;
use crate::process_table::{Entry, ProcessTable};
use crate::{allocate, first_opener, futex, process_table};

const MAGIC: u32 = 0x4c41_5743;
const VERSION: u32 = 8;
/// The length of the table of processes, which has 256 entries.
const PROCESS_WORDS: usize = 256 * process_table::ENTRY;
const LEN: u64 = size_of::<SideMemory>() as u64;
pub(crate) const FIRST_OPENER: Range<u64> = (1 << 20)..(1 << 20) + 1;

/// A first opener is done in no time, unless it was stopped.
const FIRST_OPENER_PATIENCE: Duration = Duration::from_millis(500);

/// What is in the file.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct SideMemory {
    magic: AtomicU32,
    version: AtomicU32,
    unused: [AtomicU32; 14],
    wait_state: WaitState,
    processes: [AtomicU32; PROCESS_WORDS],
}

wal_core::shared_memory!(SideMemory {
    magic,
    version,
    unused,
    wait_state,
    processes,
});

/// The side file of a database: the memory in which the writers of all processes queue, and
/// notify each other of commits.
///
/// An attachment of this library has one. A program whose database is opened by another
/// engine, as stock SQLite, attaches with [`SideFile::of_engine`].
#[derive(Debug)]
pub struct SideFile {
    /// Keeps the lock of those who use the file.
    file: OsFile,
    memory: Shared<SideMemory>,
    here: Namespaces,
    /// This process's entry in the table; `None` if that was full.
    entry: Option<Entry>,
}

impl SideFile {
    /// Opens the side file of `database`. `None` if there cannot be one, or
    /// its first opener was stopped, or it is of another version: then
    /// this attachment does without.
    pub(crate) fn open(database: &MainFile, locks: ByteLocks) -> Option<Self> {
        Self::try_open(database, locks).ok().flatten()
    }

    /// Attaches to the side file of the database at `place`, which an engine of this process
    /// has open, and makes it if there is none. `None` if there cannot be one, or its first
    /// opener was stopped, or it is of another version.
    ///
    /// The engine holds SHARED on the database file until the result is dropped: whichever
    /// process has EXCLUSIVE removes the side file.
    pub fn of_engine(place: HeldPath) -> Option<Self> {
        let database = MainFile::of_engine(place).ok()?;
        Self::open(&database, ByteLocks::new(LockKind::default()))
    }

    /// Removes the side file. The engine holds EXCLUSIVE on the database file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be removed.
    pub fn remove(&self) -> Result<()> {
        self.file.held_path().remove()
    }

    fn try_open(database: &MainFile, locks: ByteLocks) -> Result<Option<Self>> {
        let place = database.held_path().beside("-coord");
        let file = OsFile::open_for_locks_at(place, database.create_like())?;
        // No SQLite knows the file, so no lock of one is lost by closing it.
        file.set_close_on_drop(true);
        // Without the file the writers of this process do not queue with those of its peers.
        let deadline = Instant::now() + FIRST_OPENER_PATIENCE;
        while first_opener::attach(&file, locks, FIRST_OPENER, || reset(&file))?.is_none() {
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        if file.len()? < LEN {
            return Ok(None);
        }
        let memory: Shared<SideMemory> = Shared::map(&file, 0)?;
        memory.make_room(&file, size_of::<SideMemory>())?;
        let here = Namespaces::here();
        let entry = match memory.get() {
            Some(memory) if memory.is_ours() => ProcessTable::of(&memory.processes, here).claim(),
            _ => return Ok(None),
        };
        Ok(Some(SideFile {
            file,
            memory,
            here,
            entry,
        }))
    }

    /// The memory in which the users wait for each other; `None` in a forked child.
    pub fn wait_state(&self) -> Option<&WaitState> {
        Some(&self.memory.get()?.wait_state)
    }

    /// Sleeps until `word` of the wait state is not `seen`, or until `deadline`, or less.
    pub fn sleep(&self, word: &AtomicU32, seen: u32, deadline: Instant) {
        futex::wait_until(word, seen, deadline);
    }

    /// Wakes the sleepers of `word` of the wait state, which the caller has changed.
    pub fn wake(&self, word: &AtomicU32) {
        futex::wake_all(word);
    }

    fn processes(&self) -> Option<ProcessTable<'_>> {
        Some(ProcessTable::of(&self.memory.get()?.processes, self.here))
    }

    /// Publishes which locks this process holds, bit *i* for lock byte
    /// 120 + *i*.
    pub(crate) fn note(&self, held: u8) {
        if let (Some(table), Some(entry)) = (self.processes(), self.entry) {
            table.note(entry, held);
        }
    }

    /// The processes of ours that hold a byte of `lock`.
    pub(crate) fn holders(&self, lock: Lock) -> Vec<u32> {
        self.processes()
            .map_or_else(Vec::new, |table| table.holders(lock).collect())
    }
}

impl SideMemory {
    pub(crate) fn wait_state(&self) -> &WaitState {
        &self.wait_state
    }

    /// The words of the [`ProcessTable`].
    pub(crate) fn processes(&self) -> &[AtomicU32] {
        &self.processes
    }

    pub(crate) fn is_ours(&self) -> bool {
        let load = |word: &AtomicU32| word.load(Ordering::Relaxed);
        load(&self.magic) == MAGIC && load(&self.version) == VERSION
    }
}

impl Drop for SideFile {
    fn drop(&mut self) {
        // In a forked child there is no mapping, so the parent's entry stays.
        if let (Some(table), Some(entry)) = (self.processes(), self.entry) {
            table.release(entry);
        }
    }
}

/// Empties a side file that no process uses. A file of this name that is another program's, or
/// has another name too, stays as it is.
fn reset(file: &OsFile) -> Result<()> {
    let mut magic = [0; 4];
    let is_new = file.read_at(&mut magic, 0)? == 0;
    // Zeros are left by a first opener that died.
    let is_ours = is_new || [0, MAGIC].contains(&u32::from_ne_bytes(magic));
    let metadata = file.as_file()?.metadata();
    let names = metadata
        .map_err(|e| Error::io(file.path(), "fstat", e))?
        .nlink();
    if !is_ours || names > 1 {
        return Err(Error::cannot_open(file.path(), "it is no side file"));
    }
    allocate::empty(file)?;
    allocate::allocate(file, 0, LEN)?;
    let words: Vec<u8> = [MAGIC, VERSION]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    file.write_all_at(&mut [io::IoSlice::new(&words)], 0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wal_core::storage::{OpenMode, beside};

    use super::*;
    use wal_core::LockMode;

    const LOCKS: ByteLocks = ByteLocks::new(LockKind::OpenFileDescription);

    fn database() -> (tempfile::TempDir, MainFile) {
        let dir = tempfile::tempdir().unwrap();
        let database = OsFile::open(&dir.path().join("db"), OpenMode::Create).unwrap();
        (dir, MainFile::Own(Arc::new(database)))
    }

    #[test]
    fn a_sleeper_is_woken_through_another_mapping() {
        let (_dir, database) = database();
        let sleeper = SideFile::open(&database, LOCKS).unwrap();
        let waker = SideFile::open(&database, LOCKS).unwrap();
        let place = sleeper
            .wait_state()
            .unwrap()
            .writer_queue()
            .enter(0)
            .unwrap();
        let word = sleeper.wait_state().unwrap().writer_queue().word(place);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let queue = waker.wait_state().unwrap().writer_queue();
                waker.wake(queue.next_to_wake(1, || 0).unwrap());
            });
            let deadline = Instant::now() + Duration::from_secs(20);
            while word.load(Ordering::SeqCst) == 0 {
                assert!(Instant::now() < deadline, "no wake-up");
                sleeper.sleep(word, 0, deadline);
            }
        });
    }

    #[test]
    fn an_opener_waits_for_the_first_one() {
        let (_dir, database) = database();
        let first = SideFile::open(&database, LOCKS).unwrap();
        let stranger = std::fs::File::options()
            .write(true)
            .open(beside(database.path(), "-coord"))
            .unwrap();
        drop(first);
        // An opener that was left without a processor for so long has given up.
        let was_in_time = (0..100).any(|_| {
            let since = Instant::now();
            let alone = LOCKS.try_lock(&stranger, FIRST_OPENER, LockMode::Exclusive);
            assert!(alone.unwrap());
            let opened = std::thread::scope(|scope| {
                let opener = scope.spawn(|| SideFile::open(&database, LOCKS));
                // Whether it has looked by now or not, it must come to the end.
                std::thread::sleep(POLL_INTERVAL);
                LOCKS.unlock(&stranger, FIRST_OPENER).unwrap();
                opener.join().unwrap()
            });
            let in_time = since.elapsed() < FIRST_OPENER_PATIENCE;
            assert!(!in_time || opened.is_some(), "it did not wait");
            in_time
        });
        assert!(was_in_time, "the first opener was never done in time");
    }

    #[test]
    fn a_side_file_of_another_version_is_done_without_while_it_is_in_use() {
        let (_dir, database) = database();
        let first = SideFile::open(&database, LOCKS).unwrap();
        let memory = first.memory.get().unwrap();
        memory.version.store(VERSION + 1, Ordering::SeqCst);
        assert!(SideFile::open(&database, LOCKS).is_none());
        drop(first);
        assert!(
            SideFile::open(&database, LOCKS).is_some(),
            "reset by the next first opener"
        );
    }
}
