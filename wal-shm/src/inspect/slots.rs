//! The read slots with their marks and holders.

use wal_core::inspect::IndexInfo;
use wal_core::{Lock, LockMode, ReadSlot};

use super::{Census, LockByte};

/// A read slot.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SlotInfo {
    /// Which one.
    pub slot: ReadSlot,
    /// The frame up to which its readers read the log. Of slot 0, whose readers read the
    /// database file, it is that up to which the log is backfilled. `None` if it has no mark.
    pub frame: Option<u32>,
    /// How it is held; `None` if it is free.
    pub mode: Option<LockMode>,
    /// The processes that hold it, as far as they are known.
    pub holders: Vec<u32>,
    /// Whether there are holders that are not known.
    pub has_unknown_holders: bool,
}

impl Census {
    /// The five read slots, with the marks that `index` has.
    ///
    /// A mark may be of a moment before or after that of its holders: a reader that has just
    /// begun may have raised it.
    pub fn slots(&self, index: &IndexInfo) -> [SlotInfo; 5] {
        let held = self.held_locks();
        ReadSlot::ALL.map(|slot| {
            let lock = Lock::Read(slot);
            let is_of_slot = |byte| byte == LockByte::Protocol(lock);
            let holders = || self.held().filter(|held| is_of_slot(held.byte));
            SlotInfo {
                slot,
                frame: index.mark(slot),
                mode: held.mode(lock),
                holders: holders().filter_map(|held| held.pid).collect(),
                has_unknown_holders: holders().any(|held| held.pid.is_none()),
            }
        })
    }
}
