//! Which read slots linger: their lock stays for a moment when a reader ends,
//! so that the next one needs no system call ([`WalCoordination::linger`]).
//!
//! # Protocol
//! A lock that lingers is that of a reader that is not there, so it must not
//! keep a log from being checkpointed and from beginning anew for long, with
//! whatever others do meanwhile:
//! - Slot 0 lingers: its reader has found all of the log in the database file,
//!   so a checkpoint has nothing to do before the next commit; and it holds up
//!   no restart.
//! - A slot with a mark lingers only if that was the end of the log when its
//!   reader began, and the
//!   log shorter than what checkpoints wait for (`wal_autocheckpoint`). In a
//!   longer one each reader gives its slot back, so a process that reads holds
//!   up no more checkpoints than one of stock SQLite. It lingers there all the
//!   same if the last commit is of one who
//!   [keeps the log short](super::auto_checkpoint) and waits for readers, which
//!   stock SQLite does not: it tries behind each commit, and once in vain is
//!   always in vain. In a log that is far too long it does not: the waiting was in
//!   vain, too, or somebody else's checkpoints keep it from being due.
//! - A process that takes another slot gives back what lingers.
//!
//! Joining a lock that lingers is taking it: the mark and the header are
//! compared again once it is held, whoever took it from the system, and when.
//!
//! # Crash
//! The locks of the dead are free.

use super::Wal;
use crate::coordination::{ReadSlot, WalCoordination};
use crate::index::IndexHeader;

/// A log of this many frames is checkpointed by whoever does it automatically
/// (`SQLITE_DEFAULT_WAL_AUTOCHECKPOINT`).
const CHECKPOINTED: u32 = 1000;

impl<C: WalCoordination> Wal<C> {
    /// Whether `slot` may linger behind a reader of the state that `header`
    /// publishes, with all before `min_frame` in the database file.
    pub(super) fn may_linger(&self, slot: ReadSlot, header: &IndexHeader, min_frame: u32) -> bool {
        let max_frame = header.max_frame();
        if slot == ReadSlot::DATABASE {
            return true;
        }
        min_frame <= max_frame
            && (max_frame < CHECKPOINTED || self.is_cared_for(header))
            && self.coordination.mark(slot) == max_frame
    }

    fn is_cared_for(&self, header: &IndexHeader) -> bool {
        let room = self.coordination.waiting_room();
        room.is_some_and(|room| room.cared_for().is_said(header.change()))
    }
}
