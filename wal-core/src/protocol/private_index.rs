//! An index that one process keeps for itself, because it may not write the
//! shared one and nobody else is there who keeps that up to date.
//!
//! # Protocol
//! Such an index is recovered from the log like any other, in memory that no
//! other process sees. Nobody updates it when the log grows or begins anew, so
//! each reader asks, with its lock held, whether it still is the index of the
//! log; if not, its header is forgotten, and recovery comes by itself
//! (`walBeginShmUnreliable`).

use crate::error::Result;
use crate::format;
use crate::index::{HeaderCell, IndexBlock};
use crate::io::File;

/// True if the index that begins with `block_zero` covers all that is
/// committed in `log`. The caller holds what keeps the log from beginning
/// anew.
///
/// # Errors
/// What reading the log gives.
pub fn is_index_of(block_zero: &IndexBlock, log: &dyn File) -> Result<bool> {
    match HeaderCell::of(block_zero).load() {
        Ok(header) => format::is_covered(
            log,
            header.salts(),
            header.max_frame(),
            header.frame_checksum(),
        ),
        Err(_) => Ok(false),
    }
}

/// Makes the next reader of the index recover it. The caller holds Write.
pub fn forget_header(block_zero: &IndexBlock) {
    HeaderCell::of(block_zero).forget();
}
