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

/// How many frames the index that begins with `block_zero` has, if these are all that is
/// committed in `log`; `None` if they are not. Without any, nothing tells one empty log
/// from another, between which commits may have come to the database file. The caller holds what keeps the log from beginning
/// anew.
///
/// # Errors
/// What reading the log gives.
pub fn frames_if_index_of(block_zero: &IndexBlock, log: &dyn File) -> Result<Option<u32>> {
    let Ok(header) = HeaderCell::of(block_zero).load() else {
        return Ok(None);
    };
    let is_covered = format::is_covered(
        log,
        header.salts(),
        header.max_frame(),
        header.frame_checksum(),
    )?;
    Ok(is_covered.then(|| header.max_frame()))
}

/// Makes the next reader of the index recover it. The caller holds Write.
pub fn forget_header(block_zero: &IndexBlock) {
    HeaderCell::of(block_zero).forget();
}
