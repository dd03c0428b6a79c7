//! Block 0 of the wal-index, as SQLite has mapped it.
//!
//! # Protocol
//! The extension loads words of the index, and stores none. It sees the index through the mapping
//! of SQLite, since another descriptor of the file would drop SQLite's locks when it is closed.
//!
//! # Ordering
//! SQLite unmaps the index in `xShmUnmap` and `xClose`. A file forgets its block there, with its
//! mutex held, so a thread that has the mutex and finds the block there may load.
#![allow(unsafe_code)] // The wal-index is memory that SQLite has mapped.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use wal_core::index::{BLOCK_LEN, IndexBlock, IndexHeader, publication_hint, published_header};
use wal_core::inspect::{IndexInfo, inspect_index};

use crate::ffi;

/// Block 0 of the wal-index, until it is unmapped. It is used with the mutex of its file held.
#[derive(Clone, Copy)]
pub(crate) struct Block(NonNull<IndexBlock>);

// SAFETY: the block is atomics, which all threads may load.
unsafe impl Send for Block {}

impl Block {
    /// What `xShmMap` has mapped; `None` if it is not block 0.
    ///
    /// # Safety
    /// The method was called with `region`, `len` and `out`, and has returned `code`.
    pub(crate) unsafe fn of_map(
        region: c_int,
        len: c_int,
        code: c_int,
        out: *mut *mut c_void,
    ) -> Option<Self> {
        if region != 0 || code != ffi::OK || usize::try_from(len) != Ok(BLOCK_LEN) {
            return None;
        }
        // SAFETY: the method has stored where the region is, or null.
        let block = NonNull::new(unsafe { *out })?;
        Some(Block(block.cast()))
    }

    fn words(&self) -> &IndexBlock {
        // SAFETY: the block is mapped as long as the file has it, and the caller has the mutex.
        unsafe { self.0.as_ref() }
    }

    /// A number that changes with each commit of any process.
    pub(crate) fn publication(self) -> u64 {
        publication_hint(self.words())
    }

    /// The header that is published; `None` if it cannot be read at this moment.
    pub(crate) fn header(self) -> Option<IndexHeader> {
        published_header(self.words())
    }

    /// What the index says.
    pub(crate) fn inspect(self) -> IndexInfo {
        inspect_index(self.words())
    }
}
