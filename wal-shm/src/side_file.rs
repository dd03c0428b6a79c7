//! The side file `<db>-coord`: what SQLite's format has no room for.
//!
//! It is ours alone, and optional: losing or corrupting it costs speed, never
//! correctness. It is opened only with SHARED held on the database file and
//! removed only with EXCLUSIVE, so the two cannot race; a stock SQLite that
//! closes last leaves it behind, and the next first opener resets it.
//!
//! # Layout (32-bit words, host byte order)
//!
//! | word | content |
//! |---|---|
//! | 0 | magic |
//! | 1 | version |
//! | 2, 3 | commits: sequence, and whether anybody sleeps on it |
//! | 4, 5 | releases of locks: likewise |
//! | 64 … | [`ProcessTable`] |
//!
//! The first opener is found by a lock on byte 2^20, behind the contents.
//!
//! # Ordering
//! A sleeper says that it sleeps and then looks at the sequence; the waker
//! counts the sequence up and then looks for sleepers, and takes the flag
//! back. All of it is sequentially consistent, so at least one of the two sees
//! the other. A sleeper that is killed leaves a flag that the next waker takes
//! back, at the price of one needless system call.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use wal_core::io::{ByteLocks, File, OpenMode, OsFile, beside};
use wal_core::{Error, Event, Lock, Result};

use crate::mapping::Shared;
use crate::process_table::{Place, ProcessTable};
use crate::{first_opener, futex, shm_file};

const MAGIC: u32 = 0x4c41_5743;
const VERSION: u32 = 2;
const WORDS: usize = 1024;
/// Where the table of processes begins; it goes on to the end.
const PROCESSES: usize = 64;
const FIRST_OPENER: Range<u64> = (1 << 20)..(1 << 20) + 1;

/// Stock SQLite and the dead wake nobody, so whoever waits looks again after
/// this long.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The side file of an attachment.
#[derive(Debug)]
pub(crate) struct SideFile {
    /// Keeps the lock of those who use the file.
    _file: OsFile,
    words: Shared<[AtomicU32; WORDS]>,
    /// This process's entry in the table; `None` if that was full.
    place: Option<Place>,
}

impl SideFile {
    /// Opens the side file of `database`. `None` if there cannot be one, or
    /// another first opener is at work, or it is of another version: then
    /// this attachment does without.
    pub(crate) fn open(database: &OsFile, locks: ByteLocks) -> Option<Self> {
        Self::try_open(database, locks).ok().flatten()
    }

    fn try_open(database: &OsFile, locks: ByteLocks) -> Result<Option<Self>> {
        let path = beside(database.path(), "-coord");
        let file = OsFile::open_for_locks(&path, OpenMode::CreateLike(database))?;
        // No SQLite knows the file, so no lock of one is lost by closing it.
        file.close_for_real();
        let attached = first_opener::attach(&file, locks, FIRST_OPENER, || reset(&file))?;
        if attached.is_none() || file.len()? < size_of::<[AtomicU32; WORDS]>() as u64 {
            return Ok(None);
        }
        let words: Shared<[AtomicU32; WORDS]> = Shared::map(&file, 0)?;
        let ours = words.get().is_some_and(|words| {
            words[0].load(Ordering::Relaxed) == MAGIC && words[1].load(Ordering::Relaxed) == VERSION
        });
        let place = match words.get() {
            Some(words) if ours => ProcessTable::of(&words[PROCESSES..]).claim(),
            _ => return Ok(None),
        };
        Ok(Some(SideFile {
            _file: file,
            words,
            place,
        }))
    }

    fn processes(&self) -> Option<ProcessTable<'_>> {
        Some(ProcessTable::of(&self.words.get()?[PROCESSES..]))
    }

    /// Tells others which locks this process holds, bit *i* for lock byte
    /// 120 + *i*.
    pub(crate) fn note(&self, held: u8) {
        if let (Some(table), Some(place)) = (self.processes(), self.place) {
            table.note(place, held);
        }
    }

    /// The processes of ours that hold a byte of `lock`.
    pub(crate) fn holders(&self, lock: Lock) -> Vec<u32> {
        self.processes()
            .map_or_else(Vec::new, |table| table.holders(lock).collect())
    }

    /// The sequence of `event`, and the flag of its sleepers.
    fn words(&self, event: Event) -> Option<(&AtomicU32, &AtomicU32)> {
        let words = self.words.get()?;
        let first = match event {
            Event::Commit => 2,
            Event::Release => 4,
        };
        Some((&words[first], &words[first + 1]))
    }

    pub(crate) fn ticket(&self, event: Event) -> u32 {
        self.words(event)
            .map_or(0, |(sequence, _)| sequence.load(Ordering::SeqCst))
    }

    pub(crate) fn wait(&self, event: Event, ticket: u32, deadline: Instant) {
        let Some((sequence, sleepers)) = self.words(event) else {
            return;
        };
        sleepers.store(1, Ordering::SeqCst);
        if sequence.load(Ordering::SeqCst) == ticket {
            futex::wait(sequence, ticket, look_again_after(deadline));
        }
    }

    pub(crate) fn notify(&self, event: Event) {
        let Some((sequence, sleepers)) = self.words(event) else {
            return;
        };
        sequence.fetch_add(1, Ordering::SeqCst);
        if sleepers.load(Ordering::SeqCst) != 0 && sleepers.swap(0, Ordering::SeqCst) != 0 {
            futex::wake_all(sequence);
        }
    }
}

impl Drop for SideFile {
    fn drop(&mut self) {
        // In a forked child there is no mapping, so the parent's entry stays.
        if let (Some(table), Some(place)) = (self.processes(), self.place) {
            table.release(place);
        }
    }
}

/// How long to sleep at most before looking again.
pub(crate) fn look_again_after(deadline: Instant) -> Duration {
    deadline
        .saturating_duration_since(Instant::now())
        .min(LOOK_AGAIN)
}

fn reset(file: &OsFile) -> Result<()> {
    let len = size_of::<[AtomicU32; WORDS]>() as u64;
    file.set_len(0)?;
    shm_file::allocate(file, 0, len).map_err(|e| Error::io(file.path(), "grow", e))?;
    let words: Vec<u8> = [MAGIC, VERSION]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    file.write_all_at(&mut [io::IoSlice::new(&words)], 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wal_core::io::LockKind;

    const LOCKS: ByteLocks = ByteLocks::new(LockKind::OpenFileDescription);

    fn database() -> (tempfile::TempDir, OsFile) {
        let dir = tempfile::tempdir().unwrap();
        let database = OsFile::open(&dir.path().join("db"), OpenMode::Create).unwrap();
        (dir, database)
    }

    #[test]
    fn a_sleeper_is_woken_through_another_mapping() {
        let (_dir, database) = database();
        let sleeper = SideFile::open(&database, LOCKS).unwrap();
        let waker = SideFile::open(&database, LOCKS).unwrap();
        for event in [Event::Commit, Event::Release] {
            let ticket = sleeper.ticket(event);
            std::thread::scope(|scope| {
                scope.spawn(|| waker.notify(event));
                let deadline = Instant::now() + Duration::from_secs(20);
                while sleeper.ticket(event) == ticket {
                    assert!(Instant::now() < deadline, "no wake-up for {event:?}");
                    sleeper.wait(event, ticket, deadline);
                }
            });
        }
    }

    #[test]
    fn a_side_file_of_another_version_is_done_without_while_it_is_in_use() {
        let (_dir, database) = database();
        let first = SideFile::open(&database, LOCKS).unwrap();
        first.words.get().unwrap()[1].store(VERSION + 1, Ordering::SeqCst);
        assert!(SideFile::open(&database, LOCKS).is_none());
        drop(first);
        assert!(
            SideFile::open(&database, LOCKS).is_some(),
            "reset by the next first opener"
        );
    }
}
