//! One lock byte, as the threads of this process hold it: a word for each stripe of
//! threads, so that readers on different processors do not wait for each other.
//!
//! # Protocol
//! What the system holds for this process changes under the mutex of the table, in
//! all words one after the other. As long as a word says that the system's shared lock
//! is held, readers count themselves in and out there without the mutex. So a thread that
//! releases that lock, or acquires the byte exclusively, first [closes](LockByte::close)
//! each word by an exchange that fails if a reader is counted in; if one fails, it opens
//! the words before it again. A reader that finds its word closed waits for the mutex.
//!
//! A reader that leaves on another thread is counted out of any word.
//!
//! # Ordering
//! Counting in acquires and counting out releases, so what a thread does under the
//! exclusive lock, which it gets by exchanges that acquire, is ordered behind the readers.
//! Of two readers that leave, each counts itself out and then loads all words, both
//! `SeqCst`: one of them sees that no reader is left.

use crossbeam_utils::CachePadded;
use wal_core::stripes;
use wal_core::sync::{AtomicU64, Ordering};

/// The number of shared holders.
const COUNT: u64 = EXCLUSIVE - 1;
/// The byte is held exclusively.
const EXCLUSIVE: u64 = 1 << 30;
/// The system's shared lock is held: a thread that counts itself in holds it too.
const SYSTEM: u64 = 1 << 31;
/// One in the upper half, which counts the shared holders that ever came, and wraps.
const ARRIVAL: u64 = 1 << 32;

/// What the system holds for this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Nothing.
    Free,
    /// The shared lock, whether or not a reader uses it.
    Shared,
    /// The exclusive one, or it is being asked for that.
    Exclusive,
}

impl State {
    fn of(word: u64) -> Self {
        match word & (SYSTEM | EXCLUSIVE) {
            0 => State::Free,
            SYSTEM => State::Shared,
            _ => State::Exclusive,
        }
    }

    /// `word` with this state.
    fn put_into(self, word: u64) -> u64 {
        let rest = word & !(SYSTEM | EXCLUSIVE);
        match self {
            State::Free => rest,
            State::Shared => rest | SYSTEM,
            State::Exclusive => rest | EXCLUSIVE,
        }
    }
}

/// A lock byte. "Under the mutex" means that the caller holds the mutex of the table.
#[derive(Debug)]
pub(crate) struct LockByte {
    words: Box<[CachePadded<AtomicU64>]>,
}

impl LockByte {
    /// A byte that is free, with a word for each of `stripes`, a power of two.
    pub(crate) fn new(stripes: usize) -> Self {
        LockByte {
            words: (0..stripes).map(|_| CachePadded::default()).collect(),
        }
    }

    #[inline]
    fn mine(&self) -> &AtomicU64 {
        stripes::mine::<CachePadded<_>>(&self.words)
    }

    /// Counts the caller in, if the system's shared lock is held already.
    #[inline]
    pub(crate) fn join(&self) -> bool {
        change(self.mine(), |word| {
            (word & SYSTEM != 0).then_some(word.wrapping_add(ARRIVAL + 1))
        })
    }

    /// Counts the caller in. Under the mutex; the system's shared lock is held.
    pub(crate) fn enter(&self) {
        if self.state() != State::Shared {
            self.open(State::Shared);
        }
        change(self.mine(), |word| Some(word.wrapping_add(ARRIVAL + 1)));
    }

    /// Counts one out who was counted in, by any thread.
    #[inline]
    pub(crate) fn leave(&self) {
        // SeqCst: see `LockTable::unlock_delayed`.
        let out = |word: u64| (word & COUNT != 0).then(|| word - 1);
        let left = stripes::leave(&self.words, |word| change(word, &out));
        debug_assert!(left, "a shared lock is released that is not held");
    }

    /// True if a reader is counted in.
    pub(crate) fn is_shared(&self) -> bool {
        let words = self.words.iter();
        words
            .map(|word| word.load(Ordering::SeqCst))
            .any(|word| word & COUNT != 0)
    }

    /// What the system holds; for good only under the mutex.
    pub(crate) fn state(&self) -> State {
        State::of(self.words[0].load(Ordering::SeqCst))
    }

    /// Refuses new readers, stores that the system holds `state`, and returns what it held
    /// before; `None`, and nothing changes, if the byte is in use. Under the mutex.
    pub(crate) fn close(&self, state: State) -> Option<State> {
        // Without this look, readers would wait for the mutex although the close fails.
        if self.is_shared() {
            return None;
        }
        let before = self.state();
        let close = |word: u64| (word & (COUNT | EXCLUSIVE) == 0).then(|| state.put_into(word));
        let refused = self.words.iter().position(|word| !change(word, close));
        match refused {
            None => Some(before),
            Some(refused) => {
                set(&self.words[..refused], before);
                None
            }
        }
    }

    /// Stores what the system holds now. Under the mutex; for [`State::Free`] no reader may
    /// be counted in.
    pub(crate) fn open(&self, state: State) {
        set(&self.words, state);
    }

    /// How many shared holders have come so far; it wraps.
    pub(crate) fn arrivals(&self) -> u32 {
        let arrivals = |word: &CachePadded<AtomicU64>| word.load(Ordering::Relaxed) / ARRIVAL;
        let all = self.words.iter().map(arrivals).sum::<u64>();
        // The low half.
        u32::try_from(all % ARRIVAL).unwrap_or(0)
    }

    /// True if the system's shared lock is held and no reader uses it.
    pub(crate) fn is_unused(&self) -> bool {
        self.state() == State::Shared && !self.is_shared()
    }
}

fn set(words: &[CachePadded<AtomicU64>], state: State) {
    for word in words {
        change(word, |word| Some(state.put_into(word)));
    }
}

#[inline]
fn change(word: &AtomicU64, change: impl FnMut(u64) -> Option<u64>) -> bool {
    word.fetch_update(Ordering::SeqCst, Ordering::Relaxed, change)
        .is_ok()
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU32};
    use std::thread;

    #[test]
    fn reader_that_leaves_on_another_thread_is_counted_out() {
        let byte = LockByte::new(4);
        assert!(!byte.join(), "the system holds nothing");
        byte.enter();
        assert!(byte.join());
        for left in 1..=2 {
            assert_eq!(byte.close(State::Free), None);
            assert_eq!(byte.state(), State::Shared);
            // Threads of every stripe.
            thread::scope(|scope| scope.spawn(|| byte.leave()).join().unwrap());
            assert_eq!(byte.is_shared(), left < 2);
        }
        assert!(byte.is_unused());
        assert_eq!(byte.arrivals(), 2);
        assert_eq!(byte.close(State::Exclusive), Some(State::Shared));
        assert!(!byte.join());
        byte.open(State::Shared);
        assert!(byte.join());
        assert_eq!(byte.arrivals(), 3);
    }

    #[test]
    fn arrivals_wrap_and_change_neither_count_nor_state() {
        let byte = LockByte::new(1);
        byte.enter();
        byte.words[0].fetch_or(!(ARRIVAL - 1), Ordering::SeqCst);
        assert_eq!(byte.arrivals(), u32::MAX);
        assert!(byte.join());
        assert_eq!(byte.arrivals(), 0);
        byte.leave();
        assert!(byte.is_shared() && byte.state() == State::Shared);
        byte.leave();
        assert!(byte.is_unused());
    }

    /// Readers of all stripes beside a thread that acquires the byte exclusively, as the
    /// table does.
    #[test]
    fn nobody_is_in_while_the_byte_is_held_alone() {
        let (byte, mutex) = (LockByte::new(4), Mutex::new(()));
        let (inside, over) = (AtomicU32::new(0), AtomicBool::new(false));
        let reads = AtomicU32::new(0);
        let read = || {
            while !over.load(Ordering::Relaxed) {
                if !byte.join() {
                    let _mutex = mutex.lock().unwrap();
                    if byte.state() == State::Exclusive {
                        continue;
                    }
                    byte.enter();
                }
                inside.fetch_add(1, Ordering::SeqCst);
                inside.fetch_sub(1, Ordering::SeqCst);
                // Some holds are given back on another thread.
                match reads.fetch_add(1, Ordering::Relaxed) % 16 {
                    0 => thread::scope(|scope| scope.spawn(|| byte.leave()).join().unwrap()),
                    _ => byte.leave(),
                }
            }
        };
        let mut in_the_way = 0;
        thread::scope(|scope| {
            (0..4).for_each(|_| drop(scope.spawn(read)));
            let mut held = 0;
            // Nothing panics before the readers are told that it is over.
            while in_the_way == 0 && (held < 500 || reads.load(Ordering::Relaxed) < 20_000) {
                let _mutex = mutex.lock().unwrap();
                if byte.close(State::Exclusive).is_some() {
                    in_the_way = inside.load(Ordering::SeqCst);
                    held += 1;
                    byte.open(State::Free);
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(in_the_way, 0, "readers are in");
        assert!(!byte.is_shared());
    }
}
