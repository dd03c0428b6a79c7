//! A reader that is alone in its slot goes on at the newest state without another slot.
//!
//! # Protocol
//! There are four marks for all readers, and a reader that moves by another slot holds
//! two of them for a moment, or, if the others are taken, stays at a mark below its
//! state. So the only holder of a slot raises the mark where it is
//! ([`WalCoordination::raise_mark`]), where the backend can tell that it is: the in-process
//! one can, the shared one cannot.
//!
//! The slot is held all the time, so the log does not restart, and no checkpoint goes
//! beyond the old mark before it has seen the new one. Both are at most the state that is
//! read then. The header is compared again behind the backfilled count, as at the beginning
//! of a read transaction: a checkpoint moves a page by its newest frame, and skips it if
//! that is beyond the mark. So the count that a checkpoint of a newer state has stored says
//! nothing about an older one, though that has as many frames. What is moved later is in
//! the log too, to which the transaction goes by its own, smaller count.
//!
//! # Crash
//! The mark of a dead reader is changed by the next holder of its slot.
#![allow(unsafe_code)] // Raising a mark gives the old state up: pages may be read from it.

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::protocol::locking::guard::LocksHeld;
use crate::protocol::read::begin::ReadTx;
use crate::protocol::read::snapshot::Snapshot;
use crate::protocol::read::taken_map::TakenMap;
use crate::testing::rule;
use crate::types::ReadSlot;

impl<C: WalCoordination> ReadTx<C> {
    /// Moves to the newest state within the slot. Returns false if other readers share the
    /// slot, the backend cannot tell, or a writer commits at the same time; after that, and
    /// after an error, the transaction is at the state and the mark that it was at.
    pub(in crate::protocol) fn move_in_slot(&mut self) -> Result<bool> {
        let wal = self.wal().clone();
        wal.check_process()?;
        let marked = self
            .snapshot
            .slot
            .filter(|slot| *slot != ReadSlot::DATABASE);
        let Some(slot) = marked.filter(|_| !wal.config().read_only) else {
            return Ok(false);
        };
        let Some(header) = wal.load_snapshot(&LocksHeld::NOTHING)? else {
            return Ok(false);
        };
        // A recovery may have found less than was published; what is read of it takes a
        // slot as any new reader does.
        if header.max_frame() < self.snapshot.max_frame() {
            return Ok(false);
        }
        // All that can fail comes before the old state is given up.
        let min_frame = wal.first_in_log(&header)?;
        if !rule!(RaiseHeaderRecheck, wal.header_cell()?.is(&header)) {
            return Ok(false);
        }
        wal.look_at_database_again(&header, min_frame)?;
        // SAFETY: the slot is held until this returns.
        let page_count = unsafe { wal.kept(1, 0) }.page_count(&header)?;
        // SAFETY: the transaction is borrowed exclusively, so nothing borrows a page that
        // was read by it; and it reads at `header` from here on.
        if !unsafe { self.guard.raise_mark(header.max_frame()) }? {
            return Ok(false);
        }
        self.snapshot = Snapshot {
            header,
            slot: Some(slot),
            min_frame,
            page_count,
        };
        self.map = TakenMap::default();
        Ok(true)
    }
}
