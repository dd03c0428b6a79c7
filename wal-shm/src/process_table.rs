//! Which processes are attached and which locks each of them holds, so that
//! who waits can say for whom. It is for messages alone: the locks themselves
//! are the system's, which does not tell who holds one that belongs to an open
//! file.
//!
//! # Layout
//! Entries of eight words: process number (0: free), when it started, which locks it holds
//! (bit *i* for lock byte 120 + *i*), its namespaces of process numbers and of clocks, and
//! three that are not used.
//!
//! # Protocol
//! An entry is claimed by changing its process number from 0, or from that of a process that
//! is gone, to [`CLAIMED`], and belongs to the claimant from then on. Process numbers are
//! reused, so a number is valid only for a process that started when the entry says.
//!
//! A number means a process within its namespace only ([`Namespaces`]). A process of another
//! container is not named, and its entry is kept, since nothing here tells whether it is
//! alive. The next first opener frees all entries.

use wal_core::Lock;
use wal_core::sync::{AtomicU32, Ordering};

use crate::namespaces::{Namespaces, Process};

/// The length of an entry in words.
pub(crate) const ENTRY: usize = 8;
/// No process has this number.
const CLAIMED: u32 = u32::MAX;

/// The table, in the words of the side file that it has.
#[derive(Clone, Copy)]
pub(crate) struct ProcessTable<'a> {
    words: &'a [AtomicU32],
    here: Namespaces,
}

/// Which entry of the table it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry(usize);

impl<'a> ProcessTable<'a> {
    /// The table in `words`, as a process in the namespaces `here` sees it.
    pub(crate) fn of(words: &'a [AtomicU32], here: Namespaces) -> Self {
        ProcessTable { words, here }
    }

    /// An entry for this process; `None` if the table is full.
    pub(crate) fn claim(self) -> Option<Entry> {
        let claims = |old: u32, entry: &[AtomicU32]| {
            let pid = &entry[0];
            let claimed = pid.compare_exchange(old, CLAIMED, Ordering::AcqRel, Ordering::Relaxed);
            claimed.is_ok()
        };
        let free = |entry: &[AtomicU32]| claims(0, entry);
        let left = |entry: &[AtomicU32]| {
            self.process_of(entry).is_some_and(|(pid, process)| {
                matches!(process, Process::Gone) && claims(pid, entry)
            })
        };
        let (number, entry) = self
            .entries()
            .find(|(_, entry)| free(entry))
            .or_else(|| self.entries().find(|(_, entry)| left(entry)))?;
        let here = self.here;
        let words = [here.start_of_this_process(), 0, here.numbers, here.clocks];
        for (word, value) in entry[1..].iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
        // Release: pairs with the load in `process_of`, behind which the words above are read.
        entry[0].store(std::process::id(), Ordering::Release);
        Some(number)
    }

    /// Records which locks the process of `entry` holds now.
    pub(crate) fn note(self, entry: Entry, held: u8) {
        if let Some(word) = self.words.get(entry.0 * ENTRY + 2) {
            word.store(u32::from(held), Ordering::Relaxed);
        }
    }

    /// Frees `entry`.
    pub(crate) fn release(self, entry: Entry) {
        if let Some(word) = self.words.get(entry.0 * ENTRY) {
            word.store(0, Ordering::Release);
        }
    }

    /// The processes that hold a byte of `lock`, but for those that cannot be named here.
    pub(crate) fn holders(self, lock: Lock) -> impl Iterator<Item = u32> + 'a {
        let wanted = u32::from(bits(lock));
        self.with_notes(move |held| held & wanted != 0)
            .map(|(pid, _)| pid)
    }

    /// The processes that have an entry, with their notes, but for those that cannot be named
    /// here.
    pub(crate) fn attached(self) -> impl Iterator<Item = (u32, u32)> + 'a {
        self.with_notes(|_| true)
    }

    /// How many entries are of processes that cannot be named here.
    pub(crate) fn unnamed(self) -> usize {
        let processes = self
            .entries()
            .filter_map(|(_, entry)| self.process_of(entry));
        processes
            .filter(|(_, process)| matches!(process, Process::Unknown))
            .count()
    }

    /// Those whose note is `wanted`: a process is looked up only then.
    fn with_notes(
        self,
        wanted: impl Fn(u32) -> bool + 'a,
    ) -> impl Iterator<Item = (u32, u32)> + 'a {
        self.entries().filter_map(move |(_, entry)| {
            let held = entry[2].load(Ordering::Relaxed);
            let (pid, process) = wanted(held).then(|| self.process_of(entry)).flatten()?;
            matches!(process, Process::Running).then_some((pid, held))
        })
    }

    /// The process number in `entry`, and what is known of that process; `None` if the entry
    /// is free or just being claimed.
    fn process_of(self, entry: &[AtomicU32]) -> Option<(u32, Process)> {
        let pid = entry[0].load(Ordering::Acquire);
        let [start, numbers, clocks] = [1, 3, 4].map(|word| entry[word].load(Ordering::Relaxed));
        let of = Namespaces { numbers, clocks };
        let is_process = !matches!(pid, 0 | CLAIMED);
        is_process.then(|| (pid, self.here.look_at(pid, start, of)))
    }

    fn entries(self) -> impl Iterator<Item = (Entry, &'a [AtomicU32])> {
        let entries = self.words.chunks_exact(ENTRY).enumerate();
        entries.map(|(at, entry)| (Entry(at), entry))
    }
}

/// The bits that stand for the bytes of `lock`.
pub(crate) fn bits(lock: Lock) -> u8 {
    let (first, count) = lock.span();
    (first..first + count).fold(0, |bits, byte| bits | 1 << byte)
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
        let table = ProcessTable::of(&words, Namespaces::here());
        let entry = table.claim().unwrap();
        let read = Lock::Read(ReadSlot::MARKED[1]);
        let named = |lock| table.holders(lock).collect::<Vec<_>>();
        assert!(named(read).is_empty());
        table.note(entry, bits(read) | bits(Lock::Write));
        for lock in [read, Lock::Write, Lock::ReadMarks, Lock::Readers] {
            assert_eq!(named(lock), [std::process::id()], "{lock}");
        }
        assert!(named(Lock::Checkpoint).is_empty());
        table.release(entry);
        assert!(named(read).is_empty());
    }

    #[test]
    fn a_process_of_the_same_number_that_began_later_is_not_named() {
        let words = words(ENTRY);
        let table = ProcessTable::of(&words, Namespaces::here());
        let entry = table.claim().unwrap();
        table.note(entry, bits(Lock::Write));
        words[1].fetch_add(1, Ordering::Relaxed);
        if cfg!(target_os = "linux") {
            assert_eq!(table.holders(Lock::Write).count(), 0);
            assert_eq!(
                table.claim(),
                Some(entry),
                "the entry of the dead is reused"
            );
        }
    }

    /// Its number may be that of any process here, or of none.
    #[test]
    fn entry_of_another_container_is_kept_and_not_named() {
        let words = words(ENTRY);
        let table = ProcessTable::of(&words, Namespaces::here());
        for pid in [std::process::id(), u32::try_from(i32::MAX).unwrap()] {
            let entry = table.claim().unwrap();
            table.note(entry, bits(Lock::Write));
            words[0].store(pid, Ordering::Relaxed);
            words[3].fetch_add(1, Ordering::Relaxed);
            assert_eq!(table.holders(Lock::Write).count(), 0);
            assert_eq!(table.claim(), None, "{pid}");
            table.release(entry);
        }
    }

    #[test]
    fn full_table_has_no_entry_and_names_its_processes() {
        let words = words(2 * ENTRY);
        let table = ProcessTable::of(&words, Namespaces::here());
        let (one, two) = (table.claim().unwrap(), table.claim().unwrap());
        assert_ne!(one, two);
        assert_eq!(table.claim(), None);
        table.release(one);
        assert_eq!(table.claim(), Some(one));
    }

    #[test]
    fn garbage_names_nobody() {
        let words: Vec<AtomicU32> = (0..40).map(|_| AtomicU32::new(0xdead_beef)).collect();
        let table = ProcessTable::of(&words, Namespaces::here());
        assert_eq!(table.holders(Lock::Readers).count(), 0);
    }
}
