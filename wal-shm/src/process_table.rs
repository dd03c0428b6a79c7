//! Which processes are attached and which locks each of them holds, so that
//! who waits can say for whom. It is for messages alone: the locks themselves
//! are the system's, which does not tell who holds one that belongs to an open
//! file.
//!
//! # Layout
//! Entries of four words: process number (0: free), when it started, which
//! locks it holds (bit *i* for lock byte 120 + *i*), and one that is not used.
//!
//! # Protocol
//! An entry is claimed by changing its process number from 0, or from that of
//! a process that is dead, to [`CLAIMED`], and belongs to the claimant from
//! there on. A process number is believed only if a process of that number is
//! there and started when the entry says: numbers are used again.

use std::sync::atomic::{AtomicU32, Ordering};

use wal_core::Lock;

/// The length of an entry in words.
const ENTRY: usize = 4;
/// No process has this number.
const CLAIMED: u32 = u32::MAX;

/// The table, in the words of the side file that it has.
#[derive(Clone, Copy)]
pub(crate) struct ProcessTable<'a>(&'a [AtomicU32]);

/// The place of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place(usize);

impl<'a> ProcessTable<'a> {
    pub(crate) fn of(words: &'a [AtomicU32]) -> Self {
        ProcessTable(words)
    }

    /// An entry for this process; `None` if the table is full.
    pub(crate) fn claim(self) -> Option<Place> {
        let claims = |old: u32, entry: &[AtomicU32]| {
            let pid = &entry[0];
            let claimed = pid.compare_exchange(old, CLAIMED, Ordering::AcqRel, Ordering::Relaxed);
            claimed.is_ok()
        };
        let free = |entry: &[AtomicU32]| claims(0, entry);
        let left = |entry: &[AtomicU32]| {
            let pid = entry[0].load(Ordering::Acquire);
            pid != CLAIMED && !is_alive(pid, entry[1].load(Ordering::Relaxed)) && claims(pid, entry)
        };
        let (place, entry) = self
            .entries()
            .find(|(_, entry)| free(entry))
            .or_else(|| self.entries().find(|(_, entry)| left(entry)))?;
        let pid = std::process::id();
        entry[1].store(start_time(pid).unwrap_or(0), Ordering::Relaxed);
        entry[2].store(0, Ordering::Relaxed);
        // Release: who reads the number reads the start that goes with it.
        entry[0].store(pid, Ordering::Release);
        Some(place)
    }

    /// Says which locks the process of `place` holds now.
    pub(crate) fn note(self, place: Place, held: u8) {
        if let Some(word) = self.0.get(place.0 * ENTRY + 2) {
            word.store(u32::from(held), Ordering::Relaxed);
        }
    }

    /// Gives `place` back.
    pub(crate) fn release(self, place: Place) {
        if let Some(word) = self.0.get(place.0 * ENTRY) {
            word.store(0, Ordering::Release);
        }
    }

    /// The processes that hold a byte of `lock`.
    pub(crate) fn holders(self, lock: Lock) -> impl Iterator<Item = u32> + 'a {
        let wanted = bits(lock);
        self.entries().filter_map(move |(_, entry)| {
            let pid = entry[0].load(Ordering::Acquire);
            let holds = entry[2].load(Ordering::Relaxed) & u32::from(wanted) != 0;
            let named = holds && is_alive(pid, entry[1].load(Ordering::Relaxed));
            named.then_some(pid)
        })
    }

    fn entries(self) -> impl Iterator<Item = (Place, &'a [AtomicU32])> {
        let entries = self.0.chunks_exact(ENTRY).enumerate();
        entries.map(|(at, entry)| (Place(at), entry))
    }
}

/// The bits that stand for the bytes of `lock`.
fn bits(lock: Lock) -> u8 {
    let (first, count) = lock.span();
    (first..first + count).fold(0, |bits, byte| bits | 1 << byte)
}

/// True if the process `pid` is there and is the one that began at `start`.
fn is_alive(pid: u32, start: u32) -> bool {
    match pid {
        0 | CLAIMED => false,
        _ => start_time(pid).is_some_and(|began| began == start),
    }
}

/// When the process began, in a unit of the system's; `None` if there is no
/// such process. Field 22 of `/proc/PID/stat`, behind the name, which may hold
/// anything.
#[cfg(target_os = "linux")]
fn start_time(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind_name) = stat.rsplit_once(')')?;
    let ticks: u64 = behind_name.split_whitespace().nth(19)?.parse().ok()?;
    // The low bits tell processes of one number apart well enough.
    Some(u32::try_from(ticks & 0xffff_ffff).unwrap_or(0))
}

#[cfg(not(target_os = "linux"))]
fn start_time(pid: u32) -> Option<u32> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).ok()?);
    nix::sys::signal::kill(pid, None).is_ok().then_some(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wal_core::ReadSlot;

    fn words(count: usize) -> Vec<AtomicU32> {
        (0..count).map(|_| AtomicU32::new(0)).collect()
    }

    #[test]
    fn a_holder_is_named_while_it_holds_a_byte_of_the_lock() {
        let words = words(2 * ENTRY);
        let table = ProcessTable::of(&words);
        let place = table.claim().unwrap();
        let read = Lock::Read(ReadSlot::MARKED[1]);
        let named = |lock| table.holders(lock).collect::<Vec<_>>();
        assert!(named(read).is_empty());
        table.note(place, bits(read) | bits(Lock::Write));
        for lock in [read, Lock::Write, Lock::ReadMarks, Lock::Readers] {
            assert_eq!(named(lock), [std::process::id()], "{lock}");
        }
        assert!(named(Lock::Checkpoint).is_empty());
        table.release(place);
        assert!(named(read).is_empty());
    }

    #[test]
    fn a_process_of_the_same_number_that_began_later_is_not_named() {
        let words = words(ENTRY);
        let table = ProcessTable::of(&words);
        let place = table.claim().unwrap();
        table.note(place, bits(Lock::Write));
        words[1].fetch_add(1, Ordering::Relaxed);
        if cfg!(target_os = "linux") {
            assert_eq!(table.holders(Lock::Write).count(), 0);
            assert_eq!(table.claim(), Some(place), "the place of the dead is taken");
        }
    }

    #[test]
    fn a_full_table_has_no_place_and_names_whom_it_has() {
        let words = words(2 * ENTRY);
        let table = ProcessTable::of(&words);
        let (one, two) = (table.claim().unwrap(), table.claim().unwrap());
        assert_ne!(one, two);
        assert_eq!(table.claim(), None);
        table.release(one);
        assert_eq!(table.claim(), Some(one));
    }

    #[test]
    fn garbage_names_nobody() {
        let words: Vec<AtomicU32> = (0..40).map(|_| AtomicU32::new(0xdead_beef)).collect();
        let table = ProcessTable::of(&words);
        assert_eq!(table.holders(Lock::Readers).count(), 0);
    }
}
