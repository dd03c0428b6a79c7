//! One sync for the commits of many.
//!
//! # Protocol
//! With [`crate::protocol::WalConfig::group_commit`] a commit at [`crate::protocol::Synchronous::Full`]
//! writes and publishes its frames, gives Write back, and waits until the log
//! is synced as far as its last frame. One of those who wait leads. It
//! 1. loads the header, and has from it how far the log is written;
//! 2. syncs the log;
//! 3. tells that this generation is synced so far, or that a sync has failed
//!    in it;
//! 4. steps down and wakes the others.
//!
//! Those who wait let others run for a while before they sleep: to sleep and to be
//! woken takes more of the processor than a commit.
//!
//! Frames that the header covers were written before it was stored, so a sync
//! that begins behind the load of the header has all of them. What is published
//! while it runs may or may not be in it, and waits for the next one.
//!
//! A peer that syncs nothing may move the frames to the database file and begin
//! the log anew, before they were synced. So who finds its frames synced looks
//! whether the log is still of its generation: the header says so before the
//! first frame is overwritten. If it is not, the commit is in the database
//! file, which is synced, and then the log, so that no older frames come before
//! it. In this order: the other one would leave a new log over a database file
//! that has not yet what the old log had.
//!
//! Salts of zero, which stock SQLite may write to a log header, name no generation
//! ([`crate::types::Salts`]). A commit to such a log shares no sync: it syncs the database
//! file and the log itself.
//!
//! The steps are those of a [`GroupMember`]: an attachment of this library, or a connection of
//! stock SQLite whose syncs the crate `wal-queue` postpones.
//!
//! A sync that failed is not tried again by those who wait for it. The next one
//! who comes with a durable commit [writes the log again](crate::protocol::durability::rewrite_log).
//!
//! # Crash
//! A leader that dies has told nothing; the next one to wake leads. Who dies
//! waiting has left a commit that everybody sees and that the next sync covers.

use std::sync::Arc;
use std::time::Instant;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::index::IndexHeader;
use crate::protocol::config::Synchronous;
use crate::protocol::handle::Wal;
use crate::protocol::locking::pause::pause_before;
use crate::sync::AtomicU32;
use crate::testing::{Point, rule, step};
use crate::types::Salts;
use crate::wait::{LEASE, SyncedLog, WaitState, now, yield_until};

/// How often a header that is being stored is looked at again.
const LOOKS: u32 = 8;

/// When the frames of a commit are synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::protocol) enum CommitSync {
    /// At once, before anybody sees them, if each commit is to be durable.
    BeforeVisible,
    /// Before anybody sees them, with those of other threads, after Write was
    /// passed on: they are left unpublished.
    Pipelined,
    /// After everybody sees them, with those of others.
    Shared,
}

/// A user of a log whose commits share their syncs with those of peers. The caller of
/// [`wait_until_synced`] is one thread of it.
#[doc(hidden)]
pub trait GroupMember {
    /// Why a commit is not known to be durable.
    type Error;

    /// The published header; `None` if it cannot be read at this moment.
    fn published(&self) -> Option<IndexHeader>;

    /// Syncs the log. It records a failure ([`super::record_failed_sync`]) before it returns.
    ///
    /// # Errors
    /// That of the sync.
    fn sync_log(&self) -> Result<(), Self::Error>;

    /// Syncs the database file, without `CKPT`.
    ///
    /// # Errors
    /// That of the sync.
    fn sync_database(&self) -> Result<(), Self::Error>;

    /// The error of a commit whose sync has failed for another member.
    fn failed_elsewhere(&self) -> Self::Error;

    /// Sleeps until `word` is not `seen`, or until `deadline`, or less.
    fn sleep(&self, word: &AtomicU32, seen: u32, deadline: Instant);

    /// Wakes each sleeper on `word`.
    fn wake(&self, word: &AtomicU32);

    /// Calls `sync` while no other thread of this member is in such a call.
    fn lead(&self, sync: impl FnOnce() -> Result<(), Self::Error>) -> Result<(), Self::Error> {
        sync()
    }

    /// True if a sync by this member fails in any case.
    fn is_poisoned(&self) -> bool {
        false
    }

    /// A sync has failed for another member.
    fn poison(&self) {}
}

impl<C: WalCoordination> Wal<C> {
    /// Where a commit that begins now shares its sync, if it does.
    pub(in crate::protocol) fn shared_sync(&self) -> Option<&WaitState> {
        let shares = self.config().group_commit && self.tuning().synchronous() == Synchronous::Full;
        self.coordination().wait_state().filter(|_| shares)
    }

    /// Returns once what `published` covers is durable. Write is not held.
    ///
    /// # Errors
    /// [`Error::DurabilityUnknown`] if a sync has failed.
    pub(in crate::protocol) fn sync_with_others(
        self: &Arc<Self>,
        wait_state: &WaitState,
        published: &IndexHeader,
    ) -> Result<()> {
        let synced = wait_until_synced(self, wait_state.synced(), published);
        synced.map_err(|source| Error::DurabilityUnknown {
            path: self.storage().log().path().to_owned(),
            source: Box::new(source),
        })
    }

    pub(super) fn failed_elsewhere(&self) -> Error {
        let source = std::io::Error::other("it failed for another user of the log");
        Error::io(self.storage().log().path(), "sync", source)
    }
}

impl<C: WalCoordination> GroupMember for Arc<Wal<C>> {
    type Error = Error;

    fn published(&self) -> Option<IndexHeader> {
        self.header_cell().ok()?.load().ok()
    }

    fn sync_log(&self) -> Result<()> {
        Wal::sync_log(self)
    }

    fn sync_database(&self) -> Result<()> {
        self.sync_database_beside_checkpoints()
    }

    fn failed_elsewhere(&self) -> Error {
        Wal::failed_elsewhere(self)
    }

    fn sleep(&self, word: &AtomicU32, seen: u32, deadline: Instant) {
        Wal::sleep(self, Some((word, seen)), deadline);
    }

    fn wake(&self, word: &AtomicU32) {
        self.coordination().wake(word);
    }

    /// A thread of this process that took over from another waits for it here, and may find
    /// that it has nothing left to do.
    fn lead(&self, sync: impl FnOnce() -> Result<()>) -> Result<()> {
        let _one_at_a_time = self.durability_state().lead();
        sync()
    }

    fn is_poisoned(&self) -> bool {
        Wal::is_poisoned(self)
    }

    fn poison(&self) {
        Wal::poison(self);
    }
}

/// Returns once what `commit` covers is durable: `member` has published it, and has released
/// `WRITE`, and its frames are in the log.
///
/// # Errors
/// Of `member`, if a sync has failed: the outcome of the commit is unknown.
#[doc(hidden)]
pub fn wait_until_synced<M: GroupMember>(
    member: &M,
    log: &SyncedLog,
    commit: &IndexHeader,
) -> Result<(), M::Error> {
    let (salts, frame) = (commit.salts(), commit.max_frame());
    loop {
        // Before it is asked how far the log is synced: what a sync that failed has
        // lost may be missing behind a later one that did not.
        let is_sound = rule!(FailedGroupSyncIsFinal, !log.has_failed(salts));
        if !is_sound {
            member.poison();
            return Err(member.failed_elsewhere());
        }
        // A sync by this attachment would fail, and be told of a log that others may
        // have mended by now.
        let may_lead = rule!(LeaderIsNotPoisoned, !member.is_poisoned());
        if !may_lead {
            return Err(member.failed_elsewhere());
        }
        // Without a name neither a sync nor the end of the generation is known.
        if log.covers(salts, frame) || salts.names_none() {
            return sync_database_if_gone(member, salts);
        }
        if let Some(lead) = log.try_lead(now()) {
            let led = member.lead(|| lead_sync(member, log, commit));
            step(Point::Wake);
            if log.step_down(lead) {
                member.wake(log.done().word());
            }
            led?;
            continue;
        }
        if yield_until(|| log.covers(salts, frame) || !log.is_led(now())) {
            continue;
        }
        let seen = log.done().prepare_wait();
        // Looked at again once the wish to be woken is there to be seen.
        if log.is_led(now()) && !log.covers(salts, frame) && !log.has_failed(salts) {
            step(Point::WaitForSync);
            member.sleep(log.done().word(), seen, Instant::now() + LEASE);
        }
    }
}

/// Syncs the log for all that is published by now, and records how far.
fn lead_sync<M: GroupMember>(
    member: &M,
    log: &SyncedLog,
    commit: &IndexHeader,
) -> Result<(), M::Error> {
    let salts = commit.salts();
    // Checked again as the leader: the leader before it records a failure
    // before it steps down.
    let is_sound = rule!(FailedGroupSyncIsFinal, !log.has_failed(salts));
    if !is_sound || log.covers(salts, commit.max_frame()) {
        return Ok(());
    }
    let up_to = published_in(member, salts);
    rule!(CommitSync, {
        step(Point::CommitSync);
        member.sync_log()?;
    });
    // Its own frames were published before it came here, whatever the
    // header says by now. If their generation is gone, this ends the wait,
    // and the look at the header that follows decides.
    log.raise(salts, up_to.unwrap_or(0).max(commit.max_frame()));
    Ok(())
}

/// If the log is not of generation `salts` any more, or it cannot be told,
/// makes durable what was moved to the database file, and what is in the
/// log.
fn sync_database_if_gone<M: GroupMember>(member: &M, salts: Salts) -> Result<(), M::Error> {
    if rule!(SyncedGenerationCheck, published_in(member, salts).is_some()) {
        return Ok(());
    }
    member.sync_database()?;
    member.sync_log()
}

/// How far generation `salts` is published; `None` if the log is of another
/// one, or if the header cannot be made out.
fn published_in<M: GroupMember>(member: &M, salts: Salts) -> Option<u32> {
    for attempt in 1..=LOOKS {
        pause_before(attempt);
        if let Some(header) = member.published() {
            let is_there = header.salts().name_same(salts);
            return is_there.then(|| header.max_frame());
        }
    }
    None
}
