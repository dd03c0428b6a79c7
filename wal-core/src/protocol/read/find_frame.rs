//! Which private map of pages to frames a transaction goes by, and who feeds
//! it: see [`crate::index::PageMap`].
//!
//! # Protocol
//! An attachment has one map at a time, which its transactions share. One that
//! reads a log of more than a few blocks takes it up at its first look-up, with
//! a look whether it is still of this log; if it is not, an empty one takes its
//! place. While the transaction keeps its lock the log goes on and does not
//! begin anew, so one look is enough, until the transaction itself moves to
//! another state.
//!
//! A transaction that looks for a page and would pass over two blocks that are
//! not fed feeds one of them first. So no look-up pays for the whole log, and a
//! log that is read once is not paid for more than once. What is left then is
//! fed by a transaction that has looked for so many pages that it costs no more
//! than they did. A log within two blocks is read as without a map, and nothing
//! is taken up.
//!
//! Only who holds Read 1-4 or Write, and has compared the header since, uses a
//! map: slot 0 does not keep the log from beginning anew.
//!
//! # Crash
//! A map is gone with its process.

use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::index::{self, PageMap, block_of_frame, last_frame_of_block};
use crate::protocol::read::kept::Kept;
use crate::protocol::read::snapshot::Snapshot;
use crate::protocol::read::taken_map::TakenMap;
use crate::types::{FrameNo, PageNo};

impl<C: WalCoordination> Kept<'_, C> {
    /// The newest frame of `snapshot` that holds `page`. `taken` is the map of
    /// the transaction that holds the snapshot's lock, if it may use one.
    #[inline]
    pub(in crate::protocol) fn find_frame(
        &self,
        snapshot: &Snapshot,
        taken: Option<&TakenMap>,
        page: PageNo,
    ) -> Result<Option<FrameNo>> {
        if snapshot.reads_database_only() {
            return Ok(None);
        }
        let found = match taken.filter(|_| snapshot.is_worth_a_map()) {
            Some(taken) => self.find_by_map(snapshot, taken, page)?,
            None => index::find(
                self.wal(),
                page.get(),
                snapshot.min_frame,
                snapshot.max_frame(),
            )?,
        };
        Ok(found.and_then(FrameNo::new))
    }

    // Apart, so that short logs are looked through by a short function.
    #[inline(never)]
    fn find_by_map(
        &self,
        snapshot: &Snapshot,
        taken: &TakenMap,
        page: PageNo,
    ) -> Result<Option<u32>> {
        let map = match taken.map.get() {
            Some(map) => map,
            None => {
                // Made outside, so that nobody waits for who reads the log.
                let map = self.take_map_up(snapshot);
                taken.map.get_or_init(|| map)
            }
        };
        let max_frame = snapshot.max_frame();
        if map.is_hungry(max_frame, taken.look()) {
            // If the log cannot be read now, the index serves.
            let _ = map.feed(self.wal(), max_frame, |frame| self.seal_at(frame));
        }
        map.find(self.wal(), page.get(), snapshot.min_frame, max_frame)
    }

    fn take_map_up(&self, snapshot: &Snapshot) -> Arc<PageMap> {
        let shared = self.wal().read_state().map();
        loop {
            let last = shared.current().clone();
            // The log is read without the mutex.
            let is_of_this_log =
                |map: &Arc<PageMap>| map.is_of(snapshot.max_frame(), |frame| self.seal_at(frame));
            if let Some(map) = last.clone().filter(is_of_this_log) {
                return map;
            }
            let mut current = shared.current();
            if current.as_ref().map(Arc::as_ptr) == last.as_ref().map(Arc::as_ptr) {
                return current.insert(Arc::default()).clone();
            }
        }
    }
}

#[cfg(all(feature = "step-points", not(loom)))]
impl<C: WalCoordination> crate::protocol::Wal<C> {
    /// How many frames the map of this attachment has.
    #[doc(hidden)]
    pub fn frames_in_map(&self) -> u32 {
        self.read_state()
            .map()
            .current()
            .as_ref()
            .map_or(0, |map| map.frames())
    }
}

impl Snapshot {
    /// True if a look-up in the index may pass over more than two blocks.
    #[inline]
    fn is_worth_a_map(&self) -> bool {
        // What nearly every log is decides it alone.
        if self.max_frame() <= last_frame_of_block(1) {
            return false;
        }
        let (first, _) = block_of_frame(self.min_frame.max(1));
        let (last, _) = block_of_frame(self.max_frame());
        last > first + 1 && !self.bypasses_log()
    }
}
