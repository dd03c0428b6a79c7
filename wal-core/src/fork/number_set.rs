//! A set of small numbers that grows, and that a fork handler can walk.
//!
//! # Layout
//! One bit for each number. Chunk *k* holds the numbers from `FIRST · (2^k − 1)` on,
//! `FIRST · 2^k` of them.
//!
//! # Protocol
//! A chunk is allocated before the first number in it is inserted, and is neither moved
//! nor freed. No thread waits for another one, so the set is usable in a child whatever
//! the other threads of its parent were doing.
//!
//! # Ordering
//! The exchange that publishes a chunk releases its zeros; each load of the pointer
//! acquires them. The bits themselves order nothing: one thread at a time owns a number, and
//! the child of a fork has one thread.

use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// How many numbers the first chunk holds. Each chunk has twice as many as the one before.
const FIRST: u64 = 1024;
/// The number of chunks that hold every descriptor number (`i32`).
const CHUNKS: usize = 22;

type Chunk = Box<[AtomicU64]>;

pub(super) struct NumberSet {
    chunks: [AtomicPtr<Chunk>; CHUNKS],
}

impl NumberSet {
    pub(super) const fn new() -> Self {
        NumberSet {
            chunks: [const { AtomicPtr::new(std::ptr::null_mut()) }; CHUNKS],
        }
    }

    pub(super) fn insert(&self, number: u32) {
        let (index, bit) = place(number);
        let chunk = self.chunk(index).unwrap_or_else(|| self.make_chunk(index));
        chunk[bit / 64].fetch_or(1 << (bit % 64), Ordering::Relaxed);
    }

    pub(super) fn remove(&self, number: u32) {
        let (index, bit) = place(number);
        if let Some(chunk) = self.chunk(index) {
            chunk[bit / 64].fetch_and(!(1 << (bit % 64)), Ordering::Relaxed);
        }
    }

    /// Removes all numbers and calls `visit` with each. It allocates nothing and takes no
    /// lock.
    pub(super) fn drain(&self, mut visit: impl FnMut(u32)) {
        for index in 0..CHUNKS {
            let Some(chunk) = self.chunk(index) else {
                continue;
            };
            for (at, word) in chunk.iter().enumerate() {
                let mut bits = word.swap(0, Ordering::Relaxed);
                while bits != 0 {
                    visit(number(index, at * 64 + bits.trailing_zeros() as usize));
                    bits &= bits - 1;
                }
            }
        }
    }

    fn chunk(&self, index: usize) -> Option<&Chunk> {
        // SAFETY: the pointer is null or came from `Box::into_raw` in `make_chunk`, and
        // what it points to is never freed or borrowed mutably.
        unsafe { self.chunks[index].load(Ordering::Acquire).as_ref() }
    }

    #[cold]
    fn make_chunk(&self, index: usize) -> &Chunk {
        let words = (FIRST << index) / 64;
        let made: Chunk = (0..words).map(|_| AtomicU64::new(0)).collect();
        let made = Box::into_raw(Box::new(made));
        let published = self.chunks[index].compare_exchange(
            std::ptr::null_mut(),
            made,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        let chunk = published.map_or_else(
            |other| {
                // SAFETY: it was made above and not published, so this is its only owner.
                drop(unsafe { Box::from_raw(made) });
                other
            },
            |_null| made,
        );
        // SAFETY: it is published, so it came from `Box::into_raw` here or in another
        // thread, and is never freed.
        unsafe { &*chunk }
    }
}

/// The chunk of `number`, and its bit there.
#[allow(clippy::cast_possible_truncation)] // A chunk that is allocated is indexed by `usize`.
fn place(number: u32) -> (usize, usize) {
    let number = u64::from(number);
    let index = (number / FIRST + 1).ilog2();
    (index as usize, (number - first_of(index as usize)) as usize)
}

#[allow(clippy::cast_possible_truncation)] // It was a `u32` when it was inserted.
fn number(index: usize, bit: usize) -> u32 {
    (first_of(index) + bit as u64) as u32
}

fn first_of(index: usize) -> u64 {
    FIRST * ((1 << index) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(set: &NumberSet) -> Vec<u32> {
        let mut numbers = Vec::new();
        set.drain(|number| numbers.push(number));
        numbers
    }

    #[test]
    fn numbers_are_drained_until_they_are_removed() {
        let set = NumberSet::new();
        let numbers = [0, 63, 64, 1023, 1024, 3071, 3072, 100_000];
        for number in numbers {
            assert_eq!(number_of(place(number)), number);
            set.insert(number);
        }
        set.remove(64);
        set.remove(70_000);
        assert_eq!(drained(&set), [0, 63, 1023, 1024, 3071, 3072, 100_000]);
        assert!(drained(&set).is_empty());
    }

    fn number_of((index, bit): (usize, usize)) -> u32 {
        number(index, bit)
    }

    #[test]
    fn the_largest_descriptor_number_has_a_chunk() {
        let (index, _) = place(i32::MAX.unsigned_abs());
        assert_eq!(index, CHUNKS - 1);
    }

    #[test]
    fn threads_that_make_one_chunk_at_once_lose_no_number() {
        const THREADS: u32 = 8;
        let set = NumberSet::new();
        let begun = std::sync::Barrier::new(THREADS as usize);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (set, begun) = (&set, &begun);
                scope.spawn(move || {
                    begun.wait();
                    (0..10).for_each(|n| set.insert(thread + THREADS * 700 * n));
                });
            }
        });
        assert_eq!(drained(&set).len(), THREADS as usize * 10);
    }
}
