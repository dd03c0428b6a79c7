//! Rebuilds the wal-index from the log, which is the truth.
//!
//! # Protocol
//! The caller holds Write; Checkpoint and Recover are added, so that nobody
//! writes, checkpoints or recovers meanwhile, and others can tell that a
//! recovery is running. Readers are *not* shut out: a header can be damaged
//! while they read, so every block is built in private memory first and only
//! words that differ are stored. What a reader can see does not change,
//! because it comes from the same log (`walIndexRecover`).
//!
//! The backfilled count goes back to 0: it was no more than a cache, and too
//! low is always safe. Marks of slots that are in use stay.
//!
//! # Crash
//! The header is stored last. A recovery that dies before leaves a damaged
//! header, and the next one begins again.

use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::format::{self, LogScan};
use crate::index::{self, IndexHeader, MARK_NOT_USED, last_frame_of_block};
use crate::protocol::handle::Wal;
use crate::protocol::locking::guard::LocksHeld;
use crate::testing::rule;
use crate::types::{Lock, LockMode, ReadSlot};

impl<C: WalCoordination> Wal<C> {
    /// Rebuilds the index. The caller holds Write. `None` if a checkpointer
    /// is in the way, which goes away by itself.
    pub(super) fn recover(
        self: &Arc<Self>,
        held: &LocksHeld<'_, C>,
    ) -> Result<Option<IndexHeader>> {
        debug_assert!(held.write.is_some());
        let beside_write = if held.checkpoint.is_some() {
            Lock::Recover
        } else {
            Lock::CheckpointAndRecover
        };
        let Some(_recovering) = self.try_lock(beside_write, LockMode::Exclusive)? else {
            return Ok(None);
        };
        let scan = format::scan(self.storage().log())?;
        if let Some(scan) = &scan {
            check_log_page_size(self, scan)?;
            self.check_log_follows(scan)?;
            self.checkpoint_state().set_sequence(scan.header.sequence);
        }
        rebuild_blocks(self, scan.as_ref().map_or(&[], |scan| &scan.pages))?;
        // Whatever damaged the index may have come to the map too.
        self.read_state().forget_map();
        let header = publish_recovered(self, scan.as_ref())?;
        self.storage().log_recovered(header.max_frame());
        observe!(
            self,
            Recovered {
                frames: header.max_frame()
            }
        );
        Ok(Some(header))
    }
}

fn recovered_header(scan: &LogScan) -> IndexHeader {
    let generation = IndexHeader::empty().with_generation(
        scan.header.salts,
        scan.header.byte_order,
        scan.checksum,
    );
    if scan.pages.is_empty() {
        return generation;
    }
    generation.recovered(scan.header.page_size, scan.max_frame(), scan.page_count)
}

fn check_log_page_size<C: WalCoordination>(wal: &Wal<C>, scan: &LogScan) -> Result<()> {
    let (expected, found) = (wal.config().page_size, scan.header.page_size);
    // A log without a commit says nothing about the database.
    if found == expected || scan.pages.is_empty() {
        return Ok(());
    }
    Err(Error::PageSizeMismatch {
        path: wal.storage().log().path().to_owned(),
        expected: expected.bytes(),
        found: found.bytes(),
    })
}

fn rebuild_blocks<C: WalCoordination>(wal: &Wal<C>, mut pages: &[u32]) -> Result<()> {
    for index in 0.. {
        let before = if index == 0 {
            0
        } else {
            last_frame_of_block(index - 1)
        };
        let room = (last_frame_of_block(index) - before) as usize;
        let (here, rest) = pages.split_at(room.min(pages.len()));
        index::build_block(wal.coordination().grow(index)?, index, here);
        pages = rest;
        if pages.is_empty() {
            break;
        }
    }
    Ok(())
}

fn publish_recovered<C: WalCoordination>(
    wal: &Arc<Wal<C>>,
    scan: Option<&LogScan>,
) -> Result<IndexHeader> {
    let header = scan.map_or_else(IndexHeader::of_empty_log, recovered_header);
    let block_zero = wal.writable_block_zero()?;
    rule!(RecoveryResetsBackfilled, {
        block_zero.set_backfilled(0);
    });
    rule!(RecoveryRaisesAttempted, {
        block_zero.set_attempted(header.max_frame());
    });
    for slot in ReadSlot::MARKED {
        // A slot in use keeps its mark: its reader still relies on it.
        let exclusive = wal.try_lock(Lock::Read(slot), LockMode::Exclusive)?;
        if rule!(BusyMarksStay, exclusive.is_some()) {
            let first = slot == ReadSlot::MARKED[0] && header.max_frame() > 0;
            wal.set_mark(
                slot,
                if first {
                    header.max_frame()
                } else {
                    MARK_NOT_USED
                },
            );
        }
    }
    block_zero.store_header(&header);
    Ok(header)
}
