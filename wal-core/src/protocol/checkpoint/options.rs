//! What a checkpoint is asked for, and what it reports.

use std::fmt;
use std::time::Duration;

use crate::protocol::locking::busy::BusyHandler;
use crate::types::Lock;

/// How far a checkpoint goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub enum CheckpointMode {
    /// Copies what can be copied without waiting for anybody.
    #[default]
    Passive,
    /// Waits for the writer and for readers of older states, then copies
    /// everything.
    Full,
    /// As Full, then waits until nobody reads the log, so that the next
    /// commit begins it anew.
    Restart,
    /// As Restart, and cuts the log to nothing.
    Truncate,
}

/// How far a checkpoint has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CheckpointProgress {
    /// The pages that are written to the database file.
    pub copied: usize,
    /// The pages that this checkpoint copies in all.
    pub pages: usize,
}

/// What a checkpoint is asked to do.
pub struct CheckpointOptions<'a> {
    pub(in crate::protocol) mode: CheckpointMode,
    pub(in crate::protocol) up_to: u32,
    pub(in crate::protocol) busy: BusyHandler,
    pub(in crate::protocol) progress: Option<&'a mut dyn FnMut(CheckpointProgress)>,
    /// Whether those in the way are named.
    pub(in crate::protocol) names_holders: bool,
    /// Whether Restart begins the log anew itself. The next commit would, but
    /// only if no reader has come to the log before it.
    pub(in crate::protocol) begins_anew: bool,
    /// For how long writers wait at once, in a mode beyond Passive.
    pub(in crate::protocol) max_block: Option<Duration>,
}

impl fmt::Debug for CheckpointOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointOptions")
            .field("mode", &self.mode)
            .field("up_to", &self.up_to)
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}

impl<'a> CheckpointOptions<'a> {
    /// A checkpoint of `mode` that waits for nobody and tells no progress.
    pub fn new(mode: CheckpointMode) -> Self {
        CheckpointOptions {
            mode,
            up_to: u32::MAX,
            busy: BusyHandler::FAIL,
            progress: None,
            names_holders: true,
            begins_anew: false,
            max_block: None,
        }
    }

    /// A passive checkpoint as it is tried after commits, again and again: it
    /// does not say which processes are in its way, for finding that out takes
    /// longer than a commit.
    pub fn automatic() -> Self {
        CheckpointOptions {
            names_holders: false,
            ..Self::new(CheckpointMode::Passive)
        }
    }

    /// A passive checkpoint that copies no frame beyond `frame`.
    pub fn passive_up_to(frame: u32) -> Self {
        CheckpointOptions {
            up_to: frame,
            ..Self::new(CheckpointMode::Passive)
        }
    }

    /// What to do while a writer or a reader is in the way. A passive
    /// checkpoint never asks; a cancellation ends it too.
    #[must_use]
    pub fn busy(mut self, busy: impl Into<BusyHandler>) -> Self {
        self.busy = busy.into();
        self
    }

    /// Keeps writers waiting for no longer than `max_block` at once, plus one step: the copy and
    /// sync of a few pages ([`CheckpointReport::writers_held_up`]). A mode beyond Passive then
    /// copies while writers go on, and tries to reach its goal within this time, again and again
    /// until the busy handler gives up. Between two tries writers are left alone for at least
    /// four times as long. Restart restarts the log itself, and another checkpoint is waited for.
    /// No effect on Passive, which keeps no writer waiting.
    #[must_use]
    pub fn max_block(mut self, max_block: Duration) -> Self {
        self.max_block = Some(max_block);
        self
    }

    /// Calls `progress` each time pages were written.
    #[must_use]
    pub fn progress(mut self, progress: &'a mut dyn FnMut(CheckpointProgress)) -> Self {
        self.progress = Some(progress);
        self
    }
}

/// Who stood in a checkpoint's way.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HeldBack {
    /// The lock that was not to be had.
    pub lock: Lock,
    /// The read mark behind it: those who hold it read the log up to this
    /// frame. `None` if it is no reader of the log that is in the way.
    pub mark: Option<u32>,
    /// The processes that hold the lock, as far as the system tells; this
    /// process may be among them.
    pub holders: Vec<u32>,
}

impl HeldBack {
    pub(super) fn unnamed(lock: Lock) -> Self {
        HeldBack {
            lock,
            mark: None,
            holders: Vec::new(),
        }
    }
}

/// What a checkpoint found and did.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// The committed frames in the log now.
    pub log_frames: u32,
    /// Those of them that are in the database file now.
    pub backfilled: u32,
    /// Bytes that were cut from the log file.
    pub log_bytes_cut: u64,
    /// Bytes that were cut from the database file.
    pub database_bytes_cut: u64,
    /// Why the checkpoint did not get as far as its mode goes; `None` if it
    /// did.
    pub held_back_by: Option<HeldBack>,
    /// The longest time for which the checkpoint held `WRITE` without a break, in which no other
    /// user could begin to write; zero if it never held it.
    pub writers_held_up: Duration,
}

impl CheckpointReport {
    /// True if the database file holds all that was committed.
    pub fn is_complete(&self) -> bool {
        self.backfilled == self.log_frames
    }
}
