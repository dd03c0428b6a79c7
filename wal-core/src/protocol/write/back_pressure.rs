//! Lets writers wait while the log is too long, if that was asked for.
//!
//! # Protocol
//! A reader that does not end keeps the log from beginning anew, and writers
//! that go on let it grow without a bound. A writer that finds more frames
//! than it is to find moves them, waits for readers and begins the log anew,
//! as a Truncate checkpoint does that does not cut, before it takes Write. To
//! leave the last step to its own commit would not do: a reader that came in
//! between would have the log go on. While it fails the writer waits, and holds
//! nothing. It is a courtesy of this handle: others may have no limit.

use std::sync::Arc;
use std::time::Duration;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::protocol::checkpoint::options::{CheckpointMode, CheckpointOptions};
use crate::protocol::handle::Wal;
use crate::protocol::locking::busy::Waiter;
use crate::testing::rule;
use crate::types::Lock;
use crate::wait::POLL_INTERVAL;

/// How long readers are waited for with WRITE held: most of them end within it.
const FOR_READERS: Duration = Duration::from_millis(1);

impl<C: WalCoordination> Wal<C> {
    /// Waits until the log has less than [`crate::protocol::WalConfig::max_log_frames`].
    pub(super) fn wait_for_short_log(self: &Arc<Self>, waiter: &mut Waiter) -> Result<()> {
        while let Some(frames) = too_many_frames(self)? {
            let Some(lock) = lock_in_the_way(self)? else {
                return Ok(());
            };
            if lock == Lock::Write && self.waits_for_itself(waiter) {
                return Err(self.busy_after(lock, waiter));
            }
            if !waiter.pause(lock, POLL_INTERVAL)? {
                observe!(self, LogFull { frames, lock });
                return Err(Error::LogFull {
                    path: self.path().to_owned(),
                    frames,
                    lock,
                    holders: self.coordination().holders(lock),
                });
            }
        }
        Ok(())
    }
}

/// The length of the log, if it is too long.
fn too_many_frames<C: WalCoordination>(wal: &Wal<C>) -> Result<Option<u32>> {
    let most = wal.config().max_log_frames;
    if most == 0 || wal.block_zero()?.is_none() {
        return Ok(None);
    }
    // Whoever begins to write mends a header that is not whole.
    let header = wal.header_cell()?.load().ok();
    let frames = header.map(|header| header.max_frame());
    Ok(frames.filter(|&frames| !rule!(LogFrameLimit, frames < most)))
}

/// Begins the log anew; `Some` is the lock that is not to be had for it. Who
/// has left that to others waits for them.
fn lock_in_the_way<C: WalCoordination>(wal: &Arc<Wal<C>>) -> Result<Option<Lock>> {
    if !wal.config().auto_actions.restart {
        return Ok(Some(Lock::ReadMarks));
    }
    let options = CheckpointOptions {
        begins_anew: true,
        ..CheckpointOptions::new(CheckpointMode::Restart).busy(FOR_READERS)
    };
    match wal.checkpoint_with(options) {
        Ok(report) => Ok(report.held_back_by.map(|held| held.lock)),
        Err(Error::Busy { lock, .. }) => Ok(Some(lock)),
        Err(e) => Err(e),
    }
}
