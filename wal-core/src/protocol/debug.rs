//! What `{:?}` prints of the types of the protocol: the database, and where in it, on one
//! short line. A page, an attachment or a queue of writers would fill a log.

use std::fmt::{DebugStruct, Formatter, Result};

use crate::coordination::WalCoordination;
use crate::protocol::handle::Wal;
use crate::protocol::locking::guard::LockGuard;
use crate::protocol::read::begin::ReadTx;
use crate::protocol::read::hold::HeldSnapshot;
use crate::protocol::read::page_ref::PageRef;
use crate::protocol::read::snapshot::Snapshot;
use crate::protocol::replication::apply::ApplyTx;
use crate::protocol::replication::tail::{RawFrame, ResumedTail, Tail, TailFrames};
use crate::protocol::vacuum::{
    NewPages, OldPages, VacuumCheckpointLock, VacuumLockGuard, VacuumTx,
};
use crate::protocol::write::own_frames::OwnFrames;
use crate::protocol::write::write_tx::{UpgradeRefused, WriteTx};

/// `Debug` of a type by the named values that it prints. There is no bound on the
/// coordination, of which nothing is printed.
macro_rules! debug {
    ($type:ty, $name:literal, |$this:ident| $($field:literal: $value:expr),+) => {
        impl<C: WalCoordination> std::fmt::Debug for $type {
            fn fmt(&self, f: &mut Formatter<'_>) -> Result {
                let $this = self;
                f.debug_struct($name)$(.field($field, &$value))+.finish_non_exhaustive()
            }
        }
    };
}

/// A struct that begins with what all snapshots are known by.
fn of_snapshot<'f, 'g>(
    f: &'f mut Formatter<'g>,
    name: &str,
    path: &std::path::Path,
    snapshot: &Snapshot,
) -> DebugStruct<'f, 'g> {
    let mut fields = f.debug_struct(name);
    fields
        .field("path", &path)
        .field("salts", &snapshot.salts())
        .field("frames", &snapshot.max_frame())
        .field("pages", &snapshot.page_count());
    fields
}

debug!(Wal<C>, "Wal", |wal| "path": wal.path(), "kind": wal.config().kind,
    "page_size": wal.config().page_size, "poisoned": wal.is_poisoned());
debug!(LockGuard<C>, "LockGuard", |guard| "path": guard.wal().path(), "lock": guard.lock());
debug!(VacuumCheckpointLock<C>, "VacuumCheckpointLock", |lock| "path": lock.path());
debug!(VacuumLockGuard<C>, "VacuumLockGuard", |locks| "path": locks.path());
debug!(VacuumTx<C>, "VacuumTx", |vacuum| "tx": vacuum.inner());
debug!(OldPages<C>, "OldPages", |old| "pages": old.page_count());
debug!(NewPages<'_, C>, "NewPages", |new| "pages": new.count());
debug!(UpgradeRefused<C>, "UpgradeRefused", |refused| "error": refused.error,
    "read": refused.read);
debug!(Tail<C>, "Tail", |tail| "path": tail.state().path(), "position": tail.position());
debug!(ResumedTail<C>, "ResumedTail", |resumed| "missed": resumed.missed());
debug!(TailFrames<'_, C>, "TailFrames", |frames| "path": frames.at().path(),
    "next": frames.next_number(), "last": frames.at().snapshot().max_frame());

impl<C: WalCoordination> std::fmt::Debug for ReadTx<C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        of_snapshot(f, "ReadTx", self.path(), &self.snapshot)
            .field("slot", &self.snapshot.slot)
            .finish_non_exhaustive()
    }
}

impl<C: WalCoordination> std::fmt::Debug for HeldSnapshot<C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        of_snapshot(f, "HeldSnapshot", self.path(), self.snapshot())
            .field("slot", &self.snapshot().slot)
            .finish_non_exhaustive()
    }
}

impl<C: WalCoordination> std::fmt::Debug for WriteTx<C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let in_log = |own: &OwnFrames| own.end.max_frame.saturating_sub(own.start.max_frame());
        of_snapshot(f, "WriteTx", self.wal().path(), &self.read.snapshot)
            .field("pages_now", &self.changes.page_count())
            .field("changed_on_heap", &self.changes.dirty().len())
            .field("frames_in_log", &self.own.as_ref().map_or(0, in_log))
            .finish_non_exhaustive()
    }
}

impl<C: WalCoordination> std::fmt::Debug for ApplyTx<C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (path, frames) = (self.path(), self.pending_frames());
        f.debug_struct("ApplyTx")
            .field("path", &path)
            .field("position", &self.position())
            .field("pending", &frames)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for PageRef<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("PageRef")
            .field("bytes", &self.len())
            .field("is_mapped", &self.is_mapped())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RawFrame<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("RawFrame")
            .field("number", &self.number)
            .field("page", &self.page)
            .field("commit_size", &self.commit_size)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Snapshot")
            .field("salts", &self.salts())
            .field("frames", &self.max_frame())
            .field("pages", &self.page_count())
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}
