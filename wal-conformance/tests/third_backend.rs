//! A backend that is neither of ours, as small as one can be, and the whole
//! conformance suite on it. docs/backends.md goes through it step by step.
//!
//! Its users are the handles of one process; they meet in a table by path, and
//! everything they share is behind one mutex.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]
#![allow(unsafe_code)] // Giving a lock up is unsafe to call.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard};
use std::time::Instant;

use wal_conformance::{Attachment, Subject};
use wal_core::index::{IndexBlock, MARK_NOT_USED, WritableBlock};
use wal_core::once_table::OnceTable;
use wal_core::storage::{OpenMode, OsFile, OsStorage};
use wal_core::sync::Unpoison;
use wal_core::wait::WaitState;
use wal_core::{Error, Lock, LockMode, ReadSlot, Result, WalCoordination};

/// What the users of one database share.
#[derive(Default)]
struct Meeting {
    blocks: OnceTable<Box<WritableBlock>>,
    /// How each lock is held: −1 for exclusively, else by how many.
    locks: Mutex<[i32; Lock::COUNT]>,
    marks: [AtomicU32; 5],
    wait_state: WaitState,
    sleepers: Mutex<()>,
    woken: Condvar,
}

/// One user.
struct Table {
    path: PathBuf,
    meeting: Arc<Meeting>,
    left: AtomicBool,
}

/// Who meets where, and how many of them have not left.
type Meetings = HashMap<PathBuf, (Arc<Meeting>, usize)>;

static MEETINGS: LazyLock<Mutex<Meetings>> = LazyLock::new(Mutex::default);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unpoison()
}

impl Table {
    fn open(path: &Path) -> Result<Self> {
        let mut meetings = lock(&MEETINGS);
        let (meeting, users) = meetings.entry(path.to_owned()).or_insert_with(|| {
            let meeting = Meeting::default();
            for mark in &meeting.marks[1..] {
                mark.store(MARK_NOT_USED, Ordering::Relaxed);
            }
            (Arc::new(meeting), 0)
        });
        // The last one owns the database until it is gone.
        if *users == 0 && Arc::strong_count(meeting) > 1 {
            let path = path.to_owned();
            return Err(Error::Locked { path });
        }
        *users += 1;
        Ok(Table {
            path: path.to_owned(),
            meeting: meeting.clone(),
            left: AtomicBool::new(false),
        })
    }

    /// True for the last user.
    fn leaves(&self) -> bool {
        if self.left.swap(true, Ordering::Relaxed) {
            return false;
        }
        let mut meetings = lock(&MEETINGS);
        let Some((_, users)) = meetings.get_mut(&self.path) else {
            return false;
        };
        *users -= 1;
        *users == 0
    }

    /// Takes `wanted` if that conflicts with nobody. The caller has the mutex.
    fn take(locks: &mut [i32; Lock::COUNT], wanted: Lock, mode: LockMode) -> bool {
        let (first, count) = wanted.span();
        let span = &mut locks[first..first + count];
        let free = match mode {
            LockMode::Shared => span.iter().all(|&held| held >= 0),
            LockMode::Exclusive => span.iter().all(|&held| held == 0),
        };
        if free {
            span.iter_mut().for_each(|held| match mode {
                LockMode::Shared => *held += 1,
                LockMode::Exclusive => *held = -1,
            });
        }
        free
    }
}

impl WalCoordination for Table {
    const HAS_FOREIGN_PEERS: bool = false;

    fn block(&self, index: u32) -> Result<Option<&IndexBlock>> {
        Ok(self.meeting.blocks.get(index).map(|block| &***block))
    }

    fn grow(&self, index: u32) -> Result<&WritableBlock> {
        let made = || Ok(WritableBlock::zeroed());
        let block = self.meeting.blocks.get_or_try_make(index, made);
        block.map(|block| &**block)
    }

    fn try_lock(&self, wanted: Lock, mode: LockMode) -> Result<bool> {
        Ok(Self::take(&mut lock(&self.meeting.locks), wanted, mode))
    }

    fn try_lock_mark(&self, slot: ReadSlot, mark: u32) -> Result<bool> {
        let mut locks = lock(&self.meeting.locks);
        let same = self.mark(slot) == mark;
        Ok(same && Self::take(&mut locks, Lock::Read(slot), LockMode::Shared))
    }

    unsafe fn unlock(&self, held: Lock, mode: LockMode) {
        let (first, count) = held.span();
        for lock in &mut lock(&self.meeting.locks)[first..first + count] {
            *lock = match mode {
                LockMode::Shared => *lock - 1,
                LockMode::Exclusive => 0,
            };
        }
    }

    unsafe fn downgrade(&self, slot: ReadSlot) -> Result<bool> {
        let (at, _) = Lock::Read(slot).span();
        lock(&self.meeting.locks)[at] = 1;
        Ok(true)
    }

    unsafe fn raise_mark(&self, slot: ReadSlot, mark: u32) -> Result<bool> {
        let locks = lock(&self.meeting.locks);
        let (at, _) = Lock::Read(slot).span();
        let is_alone = locks[at] == 1;
        if is_alone {
            self.meeting.marks[slot.index()].store(mark, Ordering::Relaxed);
        }
        Ok(is_alone)
    }

    fn holders(&self, _lock: Lock) -> Vec<u32> {
        vec![std::process::id()]
    }

    fn mark(&self, slot: ReadSlot) -> u32 {
        self.meeting.marks[slot.index()].load(Ordering::Relaxed)
    }

    unsafe fn set_mark(&self, slot: ReadSlot, mark: u32) {
        self.meeting.marks[slot.index()].store(mark, Ordering::Relaxed);
    }

    fn wait_state(&self) -> Option<&WaitState> {
        Some(&self.meeting.wait_state)
    }

    fn sleep(&self, word: &AtomicU32, seen: u32, deadline: Instant) {
        let mut held = lock(&self.meeting.sleepers);
        while word.load(Ordering::SeqCst) == seen {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return;
            };
            let woken = self.meeting.woken.wait_timeout(held, left);
            held = woken.unpoison().0;
        }
    }

    fn wake(&self, _word: &AtomicU32) {
        // Who has looked and does not sleep yet holds the mutex.
        drop(lock(&self.meeting.sleepers));
        self.meeting.woken.notify_all();
    }

    fn detach(&self) -> Result<bool> {
        Ok(self.leaves())
    }

    /// There is no index in the file system.
    fn remove(&self) -> Result<()> {
        Ok(())
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.leaves();
        let mut meetings = lock(&MEETINGS);
        // The table itself holds one, and so does this user.
        if Arc::strong_count(&self.meeting) == 2 {
            meetings.remove(&self.path);
        }
    }
}

impl Subject for Table {
    type Coordination = Table;
    const MANY_ATTACHMENTS: bool = true;

    fn attach(path: &Path) -> Result<Attachment<Table>> {
        let database = OsFile::open(path, OpenMode::Existing)?;
        let storage = OsStorage::open(Arc::new(database), false)?;
        Ok(Attachment::new(Table::open(path)?, Box::new(storage)))
    }
}

wal_conformance::conformance_suite!(Table);

/// The same, with a mapping for each attachment, as processes have.
struct MappedTable;

impl Subject for MappedTable {
    type Coordination = Table;
    const MANY_ATTACHMENTS: bool = true;

    fn attach(path: &Path) -> Result<Attachment<Table>> {
        let database = OsFile::open(path, OpenMode::Existing)?.with_mapping(true);
        let storage = Box::new(OsStorage::open(Arc::new(database), true)?);
        // SAFETY: the coordination passes the suite without mappings, and the files are
        // those of the suite's own directory.
        Ok(unsafe { Attachment::mapped(Table::open(path)?, storage) })
    }
}

/// The other attachments look at the length of the file by themselves, so this one has to.
#[test]
fn attachment_with_its_own_mapping_notices_a_cut() {
    let case = "page_behind_a_dead_checkpoints_cut_reads_as_zeros";
    wal_conformance::run::<MappedTable>(case);
}
