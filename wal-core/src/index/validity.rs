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
use crate::format::{self, Covered};
use crate::index::{HeaderCell, IndexBlock, WritableBlock};
use crate::storage::File;
use crate::types::Salts;

/// What a log is to an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IndexOf {
    /// The index is that of another log, or of a part of it.
    AnotherLog,
    /// The index covers all that is committed in the log.
    ThisLog,
    /// There is no log, nor was there when the index was recovered, which drew these
    /// salts. Nothing tells whether commits have come to the database file between.
    NoLog(Salts),
}

/// What `log` is to the index that begins with `block_zero`. The caller holds what keeps
/// the log from beginning anew.
///
/// # Errors
/// What reading the log gives.
pub fn index_of(block_zero: &IndexBlock, log: &dyn File) -> Result<IndexOf> {
    let Ok(header) = HeaderCell::of(block_zero).load() else {
        return Ok(IndexOf::AnotherLog);
    };
    let covered = format::is_covered(
        log,
        header.salts(),
        header.max_frame(),
        header.frame_checksum(),
    )?;
    Ok(match covered {
        Covered::Yes => IndexOf::ThisLog,
        Covered::NothingThere if header.is_of_no_log() => IndexOf::NoLog(header.salts()),
        Covered::NothingThere | Covered::No => IndexOf::AnotherLog,
    })
}

/// Makes the next reader of the index recover it. The caller holds Write.
pub fn forget_header(block_zero: &WritableBlock) {
    block_zero.forget_header();
}
