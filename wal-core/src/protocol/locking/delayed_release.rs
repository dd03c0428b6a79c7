//! Delayed release of read locks: a backend may keep the lock of a read slot for a moment
//! when its last reader ends, so that the next one needs no system call
//! ([`WalCoordination::unlock_delayed`]).
//!
//! # Protocol
//! To every peer such a lock is that of a reader. It must not block a checkpoint or a
//! restart of the log for longer than a reader that begins and ends its transactions:
//! - Release is delayed only while the lock serves the newest state ([`serves_newest`]).
//!   After a commit the next reader takes another slot, and the lock would only block the
//!   checkpoint of that commit. This covers slot 0: its lock is kept only while all of the
//!   log is in the database file, when no checkpoint is due.
//! - At a slot with a mark, release is delayed only if the log is shorter than what
//!   checkpoints wait for (`wal_autocheckpoint`). In a longer one each reader releases its
//!   lock, so a process that reads blocks no more checkpoints than one of stock SQLite.
//!   The exception is a log whose last commit is of a writer that
//!   [keeps the log short](crate::protocol::checkpoint::automatic): its checkpoints wait for readers.
//!   Stock SQLite tries once after each commit and does not wait.
//! - A process that acquires another slot releases every lock that it does not use.
//! - A checkpoint of this library *reclaims* such locks: it notifies
//!   [`WaitState::reclaim`](crate::wait::WaitState::reclaim), on which the sweepers of
//!   all processes wait, and retries for a bounded moment, whatever its mode and its busy
//!   handler ([`Reclaim`]). It does so only where a sweeper has noted that the release of
//!   that slot is delayed now, so a checkpoint that a real reader holds back does not wait.
//!
//! Joining a lock whose release is delayed is acquiring it: the mark and the header are
//! compared again once it is held, whenever the system granted it.
//!
//! # Crash
//! The locks of a dead process are free. A process that is stopped keeps its lock; its
//! note expires, so a checkpoint stops waiting for it after some milliseconds.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::index::IndexHeader;
use crate::protocol::handle::Wal;
use crate::protocol::locking::guard::LockGuard;
use crate::types::{Lock, LockMode, ReadSlot};

/// Frames in the log from which checkpoints run automatically
/// (`SQLITE_DEFAULT_WAL_AUTOCHECKPOINT`).
const CHECKPOINTED: u32 = 1000;

/// How long an operation retries after it has reclaimed a lock. A sweeper that gets a
/// processor releases it within some hundred microseconds.
const RECLAIM_WAIT: Duration = Duration::from_millis(2);
/// How long it sleeps before the first retry; each later sleep is twice as long.
const FIRST_RETRY: Duration = Duration::from_micros(20);

/// One operation that reclaims read locks: once, and with one deadline for all of them.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Reclaim {
    deadline: Option<Instant>,
}

impl<C: WalCoordination> Wal<C> {
    /// Whether the release of `slot` may be delayed after a reader of the state that `header`
    /// publishes, with all before `min_frame` in the database file.
    pub(in crate::protocol) fn may_delay_release(
        &self,
        slot: ReadSlot,
        header: &IndexHeader,
        min_frame: u32,
    ) -> bool {
        let max_frame = header.max_frame();
        slot == ReadSlot::DATABASE
            || min_frame <= max_frame
                && (max_frame < CHECKPOINTED || is_of_checkpointing_writer(self, header))
    }

    /// Acquires `lock`, which is one of readers, exclusively. If it is busy because peers
    /// delay its release, reclaims it and retries until the deadline of `reclaim`.
    pub(in crate::protocol) fn try_lock_or_reclaim(
        self: &Arc<Self>,
        lock: Lock,
        reclaim: &mut Reclaim,
    ) -> Result<Option<LockGuard<C>>> {
        let mut tried = self.try_lock(lock, LockMode::Exclusive)?;
        if tried.is_some() || !is_release_delayed(self, lock) {
            return Ok(tried);
        }
        let deadline = *reclaim.deadline.get_or_insert_with(|| {
            self.reclaim(lock);
            Instant::now() + RECLAIM_WAIT
        });
        let mut pause = FIRST_RETRY;
        while tried.is_none() && Instant::now() < deadline {
            thread::sleep(pause);
            pause *= 2;
            tried = self.try_lock(lock, LockMode::Exclusive)?;
        }
        Ok(tried)
    }

    /// If `lock` is one of readers, asks all peers to release what they do not use. For other
    /// locks that would only do harm: the holder of CKPT may be a foreign peer that waits
    /// for a slot.
    pub(in crate::protocol) fn reclaim(&self, lock: Lock) {
        let of_readers = matches!(lock, Lock::Read(_) | Lock::ReadMarks | Lock::Readers);
        if let Some(wait_state) = self.coordination().wait_state()
            && of_readers
        {
            self.notify(wait_state.reclaim());
        }
    }
}

fn is_of_checkpointing_writer<C: WalCoordination>(wal: &Wal<C>, header: &IndexHeader) -> bool {
    let wait_state = wal.coordination().wait_state();
    wait_state.is_some_and(|wait_state| wait_state.checkpointing_commit().matches(header.change()))
}

/// True if a process may hold a slot of `lock` without using it. No lock but those of
/// readers is ever noted.
fn is_release_delayed<C: WalCoordination>(wal: &Wal<C>, lock: Lock) -> bool {
    let wait_state = wal.coordination().wait_state();
    wait_state.is_some_and(|wait_state| wait_state.delayed().includes(lock))
}
