//! Waits for the commits of any process, as an observer.
//!
//! # Protocol
//! No lock is held, and no user of the database knows of it. After a write to the log the header
//! of the index is loaded, again and again while a process holds `WRITE`: frames are written
//! before they are published. Once `WRITE` was seen free after the write, and then the header was
//! loaded, each commit whose frames were reported has been seen.
//!
//! This library may store frames to a mapped log, which is no event. Where it has a side file the
//! header is loaded every [`BESIDE_THIS_LIBRARY`], too.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wal::{LockKind, Salts};
use wal_core::Lock;
use wal_core::inspect::{Content, IndexInfo, read_index};
use wal_core::storage::{ByteLocks, LogWatch, OsFile, shm_bytes};
use wal_shm::inspect::DatabaseFile;

use crate::interrupt::Interrupt;
use crate::look::{Look, observe};

/// How long it waits without an event, as one may be lost.
const SAFETY: Duration = Duration::from_secs(1);
/// How long it waits where commits may be no events.
const BESIDE_THIS_LIBRARY: Duration = Duration::from_millis(20);
/// How soon it looks again while a writer publishes, at first and at most.
const PUBLISHING: [Duration; 2] = [Duration::from_micros(50), Duration::from_millis(5)];

/// What was committed last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct State {
    /// The generation of the log.
    pub(super) salts: Salts,
    /// The last committed frame; 0 in a log that was restarted.
    pub(super) max_frame: u32,
    /// The size of the database in pages.
    pub(super) pages: u32,
    /// Counts the commits since the last recovery; `None` where the index does not tell.
    pub(super) change: Option<u32>,
}

impl State {
    /// True if something was committed between `before` and this. A restart of the log, a
    /// checkpoint and a recovery are no commits, but a commit may have come before a restart.
    pub(super) fn is_commit_after(&self, before: Option<&State>) -> bool {
        let Some(before) = before else {
            return self.max_frame > 0;
        };
        if before.salts == self.salts {
            return self.max_frame > before.max_frame;
        }
        self.max_frame > 0 || self.commits_since(before.change).is_some_and(|of| of > 0)
    }

    /// How many commits there were since the count of them was `change`; `None` if that is not
    /// known, as after a recovery, which sets it to 0.
    pub(super) fn commits_since(&self, change: Option<u32>) -> Option<u32> {
        let commits = self.change?.wrapping_sub(change?);
        (commits < u32::MAX / 2).then_some(commits)
    }
}

/// Follows a database.
pub(super) struct Follower {
    pub(super) path: PathBuf,
    watch: Option<LogWatch>,
    interrupt: Interrupt,
    /// What was committed when it was looked at last.
    pub(super) seen: Option<State>,
}

impl Follower {
    /// Follows the database at `path` from now on.
    pub(super) fn of(path: &Path, interrupt: Interrupt) -> anyhow::Result<Self> {
        // Before the first look, so that no commit comes in between.
        let path = crate::look::resolve(path)?;
        let watch = LogWatch::of(&path).ok();
        let look = Look::at(&path)?;
        if let Content::Sqlite(header) = look.database_info.content
            && !header.is_wal()
            && look.log.is_none()
        {
            anyhow::bail!(
                "{}: it is in rollback mode and has no log; set PRAGMA journal_mode = wal",
                path.display()
            );
        }
        let by_index = look.index.as_ref().and_then(state_of);
        let by_log = look.recovered.as_ref().map(|scan| State {
            salts: scan.header.salts,
            max_frame: scan.max_frame(),
            pages: scan.page_count,
            change: None,
        });
        Ok(Follower {
            path,
            watch,
            interrupt,
            seen: by_index.or(by_log),
        })
    }

    /// Waits until something else is published than was seen; `None` if nothing was up to
    /// `deadline`, or the command is asked to end.
    pub(super) fn next(&mut self, deadline: Option<Instant>) -> anyhow::Result<Option<State>> {
        loop {
            if let Some(state) = self.look()? {
                return Ok(Some(state));
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if self.interrupt.is_set() || left == Some(Duration::ZERO) {
                return Ok(None);
            }
            let most = match DatabaseFile::Side.path(&self.path).exists() || self.watch.is_none() {
                true => BESIDE_THIS_LIBRARY,
                false => SAFETY,
            };
            let time = left.map_or(most, |left| left.min(most));
            if self.wait(time)
                && let Some(state) = self.look_while_published(deadline)?
            {
                return Ok(Some(state));
            }
        }
    }

    /// Waits for a write to the log; true if there was one.
    fn wait(&mut self, time: Duration) -> bool {
        let also = self.interrupt.descriptor();
        if let Some(watch) = &mut self.watch {
            if let Ok(is_written) = watch.wait(Some(also), time) {
                return is_written;
            }
            self.watch = None;
        }
        let mut signals = [PollFd::new(also, PollFlags::POLLIN)];
        let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        // An interrupted wait is a short one.
        let _ = poll(&mut signals, time);
        false
    }

    /// Looks until a new state is published, or the writer has released `WRITE` without one.
    fn look_while_published(&mut self, deadline: Option<Instant>) -> anyhow::Result<Option<State>> {
        let [mut pause, longest] = PUBLISHING;
        loop {
            let is_held = self.write_is_held()?;
            if let Some(state) = self.look()? {
                return Ok(Some(state));
            }
            let is_over = deadline.is_some_and(|at| Instant::now() >= at);
            if !is_held || is_over || self.interrupt.is_set() {
                return Ok(None);
            }
            std::thread::sleep(pause);
            pause = longest.min(pause * 2);
        }
    }

    fn shm(&self) -> anyhow::Result<Option<OsFile>> {
        observe(&DatabaseFile::Index.path(&self.path))
    }

    /// Asks the system, by a description of its own, which holds no lock.
    fn write_is_held(&self) -> anyhow::Result<bool> {
        let Some(shm) = self.shm()? else {
            return Ok(false);
        };
        let locks = ByteLocks::new(LockKind::OpenFileDescription);
        let conflict = locks.conflict(shm.as_file()?, shm_bytes::of(Lock::Write));
        Ok(conflict?.is_some())
    }

    /// The state, if it is another than was seen.
    fn look(&mut self) -> anyhow::Result<Option<State>> {
        let Some(shm) = self.shm()? else {
            return Ok(None);
        };
        let state = read_index(&shm)?.as_ref().and_then(state_of);
        let is_new = |state: &State| {
            let seen = self
                .seen
                .map(|seen| (seen.salts, seen.max_frame, seen.change));
            seen != Some((state.salts, state.max_frame, state.change))
        };
        Ok(state.filter(is_new))
    }
}

fn state_of(index: &IndexInfo) -> Option<State> {
    let header = index.valid_header()?;
    Some(State {
        salts: header.salts(),
        max_frame: header.max_frame(),
        pages: header.page_count(),
        change: Some(header.change()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_is_no_commit_and_a_longer_log_is_one() {
        let state = |generation, max_frame| State {
            salts: Salts([generation; 8]),
            max_frame,
            pages: 1,
            change: None,
        };
        let before = state(1, 7);
        assert!(state(1, 8).is_commit_after(Some(&before)));
        assert!(!state(1, 7).is_commit_after(Some(&before)));
        assert!(!state(2, 0).is_commit_after(Some(&before)), "a restart");
        assert!(state(2, 1).is_commit_after(Some(&before)));
        assert!(
            !state(1, 5).is_commit_after(Some(&before)),
            "a power failure"
        );
        assert!(state(1, 1).is_commit_after(None));
        assert!(!state(1, 0).is_commit_after(None));
    }

    #[test]
    fn commit_before_a_restart_is_one_and_a_recovery_is_none() {
        let state = |generation, max_frame, change| State {
            salts: Salts([generation; 8]),
            max_frame,
            pages: 1,
            change: Some(change),
        };
        let before = state(1, 7, 10);
        assert!(state(2, 0, 11).is_commit_after(Some(&before)));
        assert!(!state(2, 0, 10).is_commit_after(Some(&before)));
        assert!(!state(2, 0, 0).is_commit_after(Some(&before)), "a recovery");
        assert!(!state(1, 7, 0).is_commit_after(Some(&before)), "a recovery");
    }
}
