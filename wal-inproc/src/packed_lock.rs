//! A reader-writer lock that carries a 32-bit value, in one atomic word.
//!
//! Owns the word and its transitions, and nothing that the lock guards. The
//! value of a read slot is its read mark. A reader has to take the slot *and*
//! know that the mark is still the one it chose; with both in one word that is
//! a single compare-and-swap ([`PackedLock::try_read_if`]), where SQLite's
//! `walTryBeginRead` takes the lock and then reads the mark once more.
//!
//! The lock is raw: it hands out no guards, and each successful acquisition is
//! paired by hand with its release. Callers reach it through the RAII guard of
//! `wal-core`, which does the pairing; `unsafe` appears nowhere because the
//! lock gives access to no memory.
//!
//! # Protocol
//!
//! - Nothing blocks. Every acquisition is a try, and it is refused only because
//!   of what the word says, never because its compare-and-swap lost a race: it
//!   then looks again. A refused try does not write to the word.
//! - The value changes only under the exclusive lock, so it stands still for as
//!   long as anybody holds the lock shared. Taking, upgrading, downgrading and
//!   releasing the lock all leave it as it is.
//! - There is no queue and no fairness; waiting is the caller's business.
//!
//! # Ordering
//!
//! | release store | acquire load | what it carries |
//! |---|---|---|
//! | `unlock_write`, `downgrade` | success of `try_read`, `try_read_if`, `try_write`, `try_upgrade` | what the exclusive holder wrote |
//! | `unlock_read` | success of `try_write`, `try_upgrade` | that the reader has finished reading |
//! | `set_value` | `value` | what the setter knew when it chose the value |
//!
//! Every store to the word is a read-modify-write and so prolongs the release
//! sequences before it. This is why a writer that follows many readers
//! synchronises with all of them and not just with the last one to leave.
//!
//! The lock orders what it guards, and is no full fence: a load that has to come
//! after a store of the caller's in the single total order, such as the second look at
//! the wal-index header behind a mark that was set, needs a `SeqCst` fence of the
//! caller's own.

use std::fmt;

use wal_core::sync::{AtomicU64, Ordering};

// Layout of the word, most significant bit first:
//
//      63                     32  31  30                      0
//     +-------------------------+---+-------------------------+
//     | value                   | W | readers                 |
//     +-------------------------+---+-------------------------+
//
// W is set while the lock is held exclusively, and then there are no readers.
// The count of readers is at the bottom so that entering and leaving is adding
// and subtracting one. Carrying out of it would set W, and borrowing would take
// from W and the value; both are ruled out by looking at the count before the
// compare-and-swap.

/// The count of readers.
const READERS: u64 = (1 << 31) - 1;
/// One reader in the count.
const ONE_READER: u64 = 1;
/// Set while the lock is held exclusively.
const WRITER: u64 = 1 << 31;
/// The embedded value.
const VALUE: u64 = (u32::MAX as u64) << VALUE_SHIFT;
/// Where the embedded value begins.
const VALUE_SHIFT: u32 = 32;

const _: () = {
    assert!(VALUE | WRITER | READERS == u64::MAX);
    assert!(VALUE & WRITER == 0 && VALUE & READERS == 0 && WRITER & READERS == 0);
    assert!(VALUE >> VALUE_SHIFT == u32::MAX as u64);
    assert!(WRITER.count_ones() == 1);
    assert!(READERS & ONE_READER == ONE_READER && ONE_READER.trailing_zeros() == 0);
    assert!(READERS <= u32::MAX as u64);
    #[cfg(not(loom))]
    assert!(size_of::<PackedLock>() == 8 && align_of::<PackedLock>() == align_of::<AtomicU64>());
};

/// A raw reader-writer lock with an embedded 32-bit value, in one 64-bit word.
///
/// A release without its acquisition is a bug of the caller. It fails a
/// `debug_assert!`; without debug assertions it is ignored when the word shows
/// that nobody holds the lock in that way, and otherwise it takes away the hold
/// of somebody else. It never damages the other fields of the word.
///
/// The lock is not padded to a cache line; pad it where several stand in a row.
pub struct PackedLock {
    word: AtomicU64,
}

impl PackedLock {
    /// A lock that nobody holds, with `value` embedded.
    #[must_use]
    pub fn new(value: u32) -> Self {
        Self {
            word: AtomicU64::new(with_value(0, value)),
        }
    }

    /// Takes the lock shared. `false` while it is held exclusively, or when the
    /// count of readers is full (2³¹ − 1).
    #[inline]
    #[must_use = "a lock that was taken has to be released"]
    pub fn try_read(&self) -> bool {
        self.acquire(|word| can_read(word).then(|| word + ONE_READER))
    }

    /// Takes the lock shared if the embedded value is `value`, both in the same
    /// compare-and-swap. `false` when the value differs, and where
    /// [`try_read`](Self::try_read) is refused.
    ///
    /// After `true` the value stays what it is until this reader leaves.
    #[inline]
    #[must_use = "a lock that was taken has to be released"]
    pub fn try_read_if(&self, value: u32) -> bool {
        self.acquire(|word| (can_read(word) && value_of(word) == value).then(|| word + ONE_READER))
    }

    /// Takes the lock exclusively. `false` while anybody holds it in any way.
    #[inline]
    #[must_use = "a lock that was taken has to be released"]
    pub fn try_write(&self) -> bool {
        self.acquire(|word| (word & (WRITER | READERS) == 0).then_some(word | WRITER))
    }

    /// Turns the caller's shared lock into the exclusive one, with nobody in
    /// between. `false` when there are other readers; the caller then still
    /// holds the lock shared.
    ///
    /// Two readers that both insist refuse each other for as long as they do:
    /// one of them has to leave.
    #[inline]
    #[must_use = "the lock is exclusive only after `true`"]
    pub fn try_upgrade(&self) -> bool {
        self.acquire(|word| {
            (word & (WRITER | READERS) == ONE_READER).then(|| word - ONE_READER + WRITER)
        })
    }

    /// Turns the caller's exclusive lock into a shared one, with no writer in
    /// between.
    #[inline]
    pub fn downgrade(&self) {
        let held = self.release(|word| (word & WRITER != 0).then(|| word - WRITER + ONE_READER));
        debug_assert!(held, "downgrade of a lock that is not held exclusively");
    }

    /// Releases one shared hold.
    #[inline]
    pub fn unlock_read(&self) {
        let held = self.try_unlock_read();
        debug_assert!(held, "shared release of a lock that has no readers");
    }

    /// Releases one shared hold, if there is one.
    #[inline]
    pub(crate) fn try_unlock_read(&self) -> bool {
        self.release(|word| (word & READERS != 0).then(|| word - ONE_READER))
    }

    /// Releases the exclusive hold.
    #[inline]
    pub fn unlock_write(&self) {
        let word = self.word.fetch_and(!WRITER, Ordering::Release);
        debug_assert!(
            word & WRITER != 0,
            "exclusive release of a lock that is not held exclusively"
        );
    }

    /// The embedded value. For whoever holds the lock it stands still; for
    /// anybody else it is a hint that may be stale on return, to be confirmed
    /// by [`try_read_if`](Self::try_read_if).
    #[inline]
    #[must_use]
    pub fn value(&self) -> u32 {
        value_of(self.word.load(Ordering::Acquire))
    }

    /// Changes the embedded value. Only the exclusive holder may; from anybody
    /// else the call fails a `debug_assert!`, and without debug assertions it
    /// is ignored unless somebody holds the lock exclusively.
    ///
    /// [`value`](Self::value) shows the new value at once, to everybody; the
    /// lock can be taken with it only after the release.
    #[inline]
    pub fn set_value(&self, value: u32) {
        let held = self.release(|word| (word & WRITER != 0).then(|| with_value(word, value)));
        debug_assert!(held, "value set without the exclusive lock");
    }

    /// How many hold the lock shared. A hint: it may be stale on return.
    #[inline]
    #[must_use]
    pub fn readers(&self) -> u32 {
        readers_of(self.word.load(Ordering::Relaxed))
    }

    /// Whether somebody holds the lock exclusively. A hint, unless the caller
    /// holds the lock.
    #[inline]
    #[must_use]
    pub fn is_write_locked(&self) -> bool {
        self.word.load(Ordering::Relaxed) & WRITER != 0
    }

    /// Moves the word to what `next` makes of it and synchronises with the
    /// releases before; `false`, and nothing stored, when `next` refuses.
    #[inline]
    fn acquire(&self, next: impl FnMut(u64) -> Option<u64>) -> bool {
        self.word
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, next)
            .is_ok()
    }

    /// Moves the word to what `next` makes of it and publishes what the caller
    /// did before; `false`, and nothing stored, when `next` refuses.
    #[inline]
    fn release(&self, next: impl FnMut(u64) -> Option<u64>) -> bool {
        self.word
            .fetch_update(Ordering::Release, Ordering::Relaxed, next)
            .is_ok()
    }
}

impl fmt::Debug for PackedLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load(Ordering::Relaxed);
        f.debug_struct("PackedLock")
            .field("value", &value_of(word))
            .field("readers", &readers_of(word))
            .field("write_locked", &(word & WRITER != 0))
            .finish()
    }
}

/// Whether one more reader may enter: no writer is inside, and the count has
/// room for it.
#[inline]
fn can_read(word: u64) -> bool {
    word & WRITER == 0 && word & READERS != READERS
}

#[inline]
fn readers_of(word: u64) -> u32 {
    (word & READERS) as u32
}

#[inline]
fn value_of(word: u64) -> u32 {
    (word >> VALUE_SHIFT) as u32
}

#[inline]
fn with_value(word: u64, value: u32) -> u64 {
    word & !VALUE | u64::from(value) << VALUE_SHIFT
}

// The bounds of the count are out of reach for a caller, so the words at the
// bounds are made by hand.
#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MARK: u32 = 0xdead_beef;

    fn lock_with_readers(readers: u64) -> PackedLock {
        PackedLock {
            word: AtomicU64::new(with_value(readers, MARK)),
        }
    }

    #[test]
    fn the_last_reader_enters_and_one_more_is_refused() {
        let lock = lock_with_readers(READERS - 1);
        assert!(lock.try_read());
        let full = lock.word.load(Ordering::Relaxed);
        assert_eq!(full, with_value(READERS, MARK));

        assert!(!lock.try_read());
        assert!(!lock.try_read_if(MARK));
        assert!(!lock.try_write());
        assert!(!lock.try_upgrade());
        assert_eq!(lock.word.load(Ordering::Relaxed), full);
        assert!(!lock.is_write_locked());
    }

    #[test]
    fn a_full_count_has_room_again_after_one_reader_leaves() {
        let lock = lock_with_readers(READERS);
        lock.unlock_read();
        assert!(lock.try_read_if(MARK));
        assert_eq!(u64::from(lock.readers()), READERS);
        assert_eq!(lock.value(), MARK);
    }

    #[test]
    fn every_pattern_of_the_value_leaves_the_lock_bits_alone() {
        for value in [0, 1, 1 << 31, u32::MAX] {
            let lock = PackedLock::new(value);
            assert_eq!((lock.value(), lock.readers()), (value, 0));
            assert!(!lock.is_write_locked());

            assert!(lock.try_write());
            lock.set_value(!value);
            assert_eq!((lock.value(), lock.readers()), (!value, 0));
            assert!(lock.is_write_locked());
        }
    }
}
