//! Refuses what the file system has no room for, before it begins.
//!
//! What runs out of room half-way is undone too, but that takes longer: a commit takes
//! its frames back with a sync, a checkpoint has written pages in vain, a backup is
//! removed. So whatever lets a file grow by much asks the file system first: a
//! checkpoint that lets the database file grow, a backup, and a commit, a spill or
//! applied frames that let the log grow by [`LARGE`] or more. Asking takes a
//! microsecond or two, and small commits do not.
//!
//! The answer is a hint. Other programs fill the same disk, quotas are not in it, and
//! some file systems do not tell: then the write that fails says so. Both are
//! [`Error::Io`] of the kind [`std::io::ErrorKind::StorageFull`]
//! ([`Error::is_storage_full`]).
//!
//! A vacuum is not asked about as a whole, for how large the new pages are is known
//! when they are pushed; its spills are, and a rollback leaves nothing of it.

use std::io;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::format::{FRAME_HEADER_LEN, LOG_HEADER_LEN};
use crate::protocol::handle::Wal;
use crate::storage::File;
use crate::testing::rule;

/// From how many bytes on, in one write, the file system is asked before the log grows.
/// Writing as many takes a hundred times as long as asking.
const LARGE: u64 = 1 << 20;

/// Refuses to let `file` grow by `needed` bytes for `operation` if its file system says
/// that it has less.
pub(in crate::protocol) fn check(
    file: &dyn File,
    operation: &'static str,
    needed: u64,
) -> Result<()> {
    match file.free_space() {
        Some(free) if !rule!(FreeSpaceCheck, free >= needed) => {
            let reason = format!("its file system has {free} bytes free, and {needed} are needed");
            let full = io::Error::new(io::ErrorKind::StorageFull, reason);
            Err(Error::io(file.path(), operation, full))
        }
        _ => Ok(()),
    }
}

impl<C: WalCoordination> Wal<C> {
    /// Refuses `count` frames behind frame `max_frame` that let the log grow by more than
    /// there is room for. The caller holds WRITE.
    pub(in crate::protocol) fn check_log_room(&self, max_frame: u32, count: usize) -> Result<()> {
        let page_size = self.config().page_size;
        let frame = FRAME_HEADER_LEN as u64 + u64::from(page_size.bytes());
        let bytes = (count as u64).saturating_mul(frame);
        if bytes < LARGE {
            return Ok(());
        }
        let log = self.storage().log();
        let start = LOG_HEADER_LEN as u64 + u64::from(max_frame) * frame;
        // The frames of an older generation are room that is there.
        match start.saturating_add(bytes).saturating_sub(log.len()?) {
            0 => Ok(()),
            growth => check(log, "write", growth),
        }
    }
}
