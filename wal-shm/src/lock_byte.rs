//! One lock byte, as the threads of this process hold it: a word for each stripe of
//! threads, so that readers on different processors do not wait for each other.
//!
//! # Protocol
//! What the system holds for this process is changed under the mutex of the table, in
//! all words one after the other. As long as a word says that the system's shared lock
//! is held, readers count themselves in and out there without the mutex. So whoever
//! takes that away, or the byte alone, [closes](LockByte::close) each word by an exchange
//! that fails if anybody is counted in, and opens those before again if one fails. Who
//! comes meanwhile finds the word closed, and waits for the mutex.
//!
//! A reader that leaves on another thread is counted out of any word.
//!
//! # Ordering
//! Counting in acquires and counting out releases, so that whoever takes the byte
//! exclusively, by exchanges that acquire, comes behind the readers. Of two who leave,
//! each counts itself out and then looks at all words, both `SeqCst`: one of them sees
//! that nobody is left.

use crossbeam_utils::CachePadded;
use wal_core::stripes;

use crate::sync::atomic::{AtomicU32, Ordering};

/// The system's shared lock is held: whoever counts itself in has it too.
const SYSTEM: u32 = 1 << 31;
/// Somebody came since the last sweep.
const TOUCHED: u32 = 1 << 30;
/// The byte is held exclusively.
const EXCLUSIVE: u32 = 1 << 29;
/// The number of shared holders.
const COUNT: u32 = EXCLUSIVE - 1;

/// What the system holds for this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Nothing.
    Free,
    /// The shared lock, whoever uses it.
    Shared,
    /// The exclusive one, or it is being asked for that.
    Exclusive,
}

impl State {
    fn of(word: u32) -> Self {
        match word & (SYSTEM | EXCLUSIVE) {
            0 => State::Free,
            SYSTEM => State::Shared,
            _ => State::Exclusive,
        }
    }

    /// `word` with this state. Nobody is in a byte that is free, nor was there.
    fn put_into(self, word: u32) -> u32 {
        let rest = word & !(SYSTEM | EXCLUSIVE);
        match self {
            State::Free => 0,
            State::Shared => rest | SYSTEM,
            State::Exclusive => rest | EXCLUSIVE,
        }
    }
}

/// A lock byte. What is said to be under the mutex is called with the mutex of the
/// table held.
#[derive(Debug)]
pub(crate) struct LockByte {
    words: Box<[CachePadded<AtomicU32>]>,
}

impl LockByte {
    /// A byte that is free, with a word for each of `stripes`, a power of two.
    pub(crate) fn new(stripes: usize) -> Self {
        LockByte {
            words: (0..stripes).map(|_| CachePadded::default()).collect(),
        }
    }

    #[inline]
    fn mine(&self) -> &AtomicU32 {
        stripes::mine::<CachePadded<_>>(&self.words)
    }

    /// Counts the caller in, if the system's shared lock is held already.
    #[inline]
    pub(crate) fn join(&self) -> bool {
        let joined = |word: u32| (word & SYSTEM != 0).then_some((word + 1) | TOUCHED);
        change(self.mine(), joined)
    }

    /// Counts the caller in. Under the mutex; the system's shared lock is held.
    pub(crate) fn enter(&self) {
        if self.state() != State::Shared {
            self.open(State::Shared);
        }
        change(self.mine(), |word| Some((word + 1) | TOUCHED));
    }

    /// Counts one out who was counted in, by any thread.
    #[inline]
    pub(crate) fn leave(&self) {
        // SeqCst: see `Keeper::is_awake` for who leaves a lock that lingers.
        let out = |word: u32| (word & COUNT != 0).then(|| word - 1);
        let left = stripes::leave(&self.words, |word| change(word, &out));
        debug_assert!(left, "a shared lock is given back that nobody holds");
    }

    /// True if anybody is counted in.
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

    /// Lets nobody in any more, says that the system holds `state`, and tells what it
    /// was; `None`, and nothing is changed, if anybody has the byte. Under the mutex.
    pub(crate) fn close(&self, state: State) -> Option<State> {
        // Else readers would wait for the mutex for the sake of who is refused.
        if self.is_shared() {
            return None;
        }
        let before = self.state();
        let close = |word: u32| (word & (COUNT | EXCLUSIVE) == 0).then(|| state.put_into(word));
        let refused = self.words.iter().position(|word| !change(word, close));
        match refused {
            None => Some(before),
            Some(refused) => {
                set(&self.words[..refused], before);
                None
            }
        }
    }

    /// Says what the system holds now. Under the mutex; to say that it holds nothing,
    /// nobody may be counted in.
    pub(crate) fn open(&self, state: State) {
        set(&self.words, state);
    }

    /// True if the system's shared lock is held and somebody came since this was last
    /// forgotten.
    pub(crate) fn is_touched(&self) -> bool {
        let touched = |word: u32| word & SYSTEM != 0 && word & TOUCHED != 0;
        let mut words = self.words.iter();
        words.any(|word| touched(word.load(Ordering::SeqCst)))
    }

    /// Forgets that somebody came.
    pub(crate) fn forget_touch(&self) {
        for word in &self.words {
            word.fetch_and(!TOUCHED, Ordering::SeqCst);
        }
    }

    /// True if the system's shared lock is held and nobody uses it.
    pub(crate) fn lingers(&self) -> bool {
        self.state() == State::Shared && !self.is_shared()
    }
}

fn set(words: &[CachePadded<AtomicU32>], state: State) {
    for word in words {
        change(word, |word| Some(state.put_into(word)));
    }
}

#[inline]
fn change(word: &AtomicU32, change: impl FnMut(u32) -> Option<u32>) -> bool {
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
    fn who_leaves_on_another_thread_is_counted_out() {
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
        assert!(byte.lingers() && byte.is_touched());
        byte.forget_touch();
        assert!(!byte.is_touched());
        assert_eq!(byte.close(State::Exclusive), Some(State::Shared));
        assert!(!byte.join());
        byte.open(State::Shared);
        assert!(byte.join());
    }

    /// Readers of all stripes beside one who takes the byte alone, as the table does.
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
