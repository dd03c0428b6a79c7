//! What happens to our files in a child made by `fork`.
//!
//! A child shares the parent's open file descriptions, and with them its OFD
//! locks: an unlock in the child would free the parent's lock, and a
//! descriptor left open in the child would keep a dead parent's locks alive.
//! So a handler that runs in the child closes the child's copies of the
//! descriptors that carry locks, and counts up the generation by which
//! handles know that they are in the child.
//!
//! From then on the number of such a descriptor may belong to any file which the child
//! opens. So the files of this library compare the generation before each system call
//! (`storage/descriptor.rs`).
//!
//! The handler may run while other threads of the parent held any lock, so it
//! touches nothing but atomics and `close`, which is async-signal-safe. A
//! child made by a raw `clone` runs no handler; that is a documented limit.
#![expect(
    clippy::disallowed_types,
    reason = "the handler of `fork` goes by statics, which outlive a model"
)]
#![allow(unsafe_code)] // `pthread_atfork` takes a C function, and the handler closes raw descriptors.

mod number_set;

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use number_set::NumberSet;

static GENERATION: AtomicU32 = AtomicU32::new(0);
/// The numbers of the descriptors that carry locks, those that are parked included.
static DESCRIPTORS: NumberSet = NumberSet::new();

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

/// Registers a descriptor to be closed in children, until it is dropped: before the
/// descriptor is closed, so that its number does not belong to another file yet.
#[derive(Debug)]
pub(crate) struct ClosedInChild {
    descriptor: RawFd,
    generation: ProcessGeneration,
}

impl ClosedInChild {
    /// Registers `descriptor`.
    pub(crate) fn register(descriptor: BorrowedFd<'_>) -> Self {
        let registered = ClosedInChild {
            descriptor: descriptor.as_raw_fd(),
            generation: ProcessGeneration::current(),
        };
        DESCRIPTORS.insert(registered.number());
        registered
    }

    /// True in a child, where the descriptor is closed already and its number
    /// may belong to another file.
    pub(crate) fn is_closed(&self) -> bool {
        self.generation.is_over()
    }

    /// An open descriptor's number is not negative.
    fn number(&self) -> u32 {
        self.descriptor.unsigned_abs()
    }
}

impl Drop for ClosedInChild {
    fn drop(&mut self) {
        if !self.is_closed() {
            DESCRIPTORS.remove(self.number());
        }
    }
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    DESCRIPTORS.drain(|number| {
        // SAFETY: the number was registered by its owner, which neither uses nor closes it
        // once the generation has changed, so this is its only close in the child.
        unsafe { libc::close(number.cast_signed()) };
    });
}
