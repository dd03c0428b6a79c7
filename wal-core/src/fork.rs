//! What happens to our files in a child made by `fork`.
//!
//! A child shares the parent's open file descriptions, and with them its OFD
//! locks: an unlock in the child would free the parent's lock, and a
//! descriptor left open in the child would keep a dead parent's locks alive.
//! So a handler that runs in the child closes the child's copies of the
//! descriptors that carry locks, and counts up the generation by which
//! handles know that they are in the child.
//!
//! The handler may run while other threads of the parent held any lock, so it
//! touches nothing but atomics and `close`, which is async-signal-safe. A
//! child made by a raw `clone` runs no handler; that is a documented limit.
#![allow(unsafe_code)] // `pthread_atfork` takes a C function, and the handler closes raw descriptors.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// How many descriptors that carry locks a process can have, those that are parked
/// included.
const CAPACITY: usize = 4096;
/// A place of the table that is free.
const FREE: RawFd = -1;
/// A place for a descriptor that is not opened yet.
const RESERVED: RawFd = -2;

static GENERATION: AtomicU32 = AtomicU32::new(0);
static DESCRIPTORS: [AtomicI32; CAPACITY] = [const { AtomicI32::new(FREE) }; CAPACITY];

/// How often this process is a fork: it changes in a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessGeneration(u32);

impl ProcessGeneration {
    /// The generation of this process; installs the handler.
    pub fn current() -> Self {
        static INSTALL: Once = Once::new();
        INSTALL.call_once(|| {
            // SAFETY: the handler is a function that lives for the whole
            // process and does only what is allowed in a child of a process
            // with threads (see the module docs).
            let _out_of_memory = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        });
        ProcessGeneration(GENERATION.load(Ordering::Relaxed))
    }

    /// Counts the forks between the first process and this one. State that a
    /// fork may have caught half-changed is kept per number.
    pub fn number(self) -> u32 {
        self.0
    }

    /// True if a fork lies between this generation and now.
    #[inline]
    pub fn is_over(self) -> bool {
        self.0 != GENERATION.load(Ordering::Relaxed)
    }
}

/// A mapping that a child does not inherit. In a child its place in memory
/// may belong to something else, so it is not undone there.
#[derive(Debug)]
pub struct ParentOnly<T> {
    /// Emptied only by `drop`.
    mapping: Option<T>,
    generation: ProcessGeneration,
}

impl<T> ParentOnly<T> {
    /// Keeps `mapping`, which was made with `MADV_DONTFORK`.
    pub fn new(mapping: T) -> Self {
        ParentOnly {
            mapping: Some(mapping),
            generation: ProcessGeneration::current(),
        }
    }

    /// The mapping; `None` in a child.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        self.mapping.as_ref().filter(|_| !self.generation.is_over())
    }
}

impl<T> Drop for ParentOnly<T> {
    fn drop(&mut self) {
        if self.generation.is_over() {
            std::mem::forget(self.mapping.take());
        }
    }
}

/// A descriptor that is to be closed in children. Forgets it when dropped.
#[derive(Debug)]
pub struct ClosedInChild {
    place: usize,
    generation: ProcessGeneration,
}

impl ClosedInChild {
    /// A place in the table for a descriptor that is to be opened; `None` if the table
    /// is full.
    pub fn reserve() -> Option<Self> {
        let generation = ProcessGeneration::current();
        DESCRIPTORS.iter().enumerate().find_map(|(place, cell)| {
            cell.compare_exchange(FREE, RESERVED, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
                .then(|| ClosedInChild { place, generation })
        })
    }

    /// Enters `descriptor` at this place.
    pub fn register(&self, descriptor: BorrowedFd<'_>) {
        if !self.is_closed() {
            DESCRIPTORS[self.place].store(descriptor.as_raw_fd(), Ordering::Relaxed);
        }
    }

    /// True in a child, where the descriptor is closed already and its number
    /// may belong to another file.
    pub fn is_closed(&self) -> bool {
        self.generation.is_over()
    }
}

impl Drop for ClosedInChild {
    fn drop(&mut self) {
        if !self.is_closed() {
            DESCRIPTORS[self.place].store(FREE, Ordering::Relaxed);
        }
    }
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    for cell in &DESCRIPTORS {
        let descriptor = cell.swap(FREE, Ordering::Relaxed);
        if descriptor >= 0 {
            // SAFETY: the number was registered by its owner, who does not
            // use or close it any more once the generation has changed, so
            // this is its only close in the child.
            unsafe { libc::close(descriptor) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn every_descriptor_stays_in_the_table_until_it_is_dropped() {
        let is_there = |number: RawFd| {
            DESCRIPTORS
                .iter()
                .any(|cell| cell.load(Ordering::Relaxed) == number)
        };
        let files: Vec<_> = (0..3).map(|_| tempfile::tempfile().unwrap()).collect();
        let mut registered: Vec<_> = files
            .iter()
            .map(|file| {
                let place = ClosedInChild::reserve().unwrap();
                place.register(file.as_fd());
                place
            })
            .collect();
        assert!(files.iter().all(|file| is_there(file.as_raw_fd())));
        registered.pop();
        assert!(!is_there(files[2].as_raw_fd()));
        assert!(files[..2].iter().all(|file| is_there(file.as_raw_fd())));
    }
}
