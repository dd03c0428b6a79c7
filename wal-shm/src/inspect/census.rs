//! The locks on the files of a database, and their holders.
//!
//! # Protocol
//! 1. The system's list of locks is read, which names the processes that own POSIX locks.
//! 2. Only if it has locks of open file descriptions on these files: the processes that have an
//!    entry in the side file or are named in the list are searched for the descriptors that
//!    have them. Only if a lock is left, all processes are, first for files with the right
//!    names, then for all files.
//! 3. A lock that is left may have been released since. The list and the
//!    descriptors are read again, a bounded number of times. What is left then is named
//!    by the side file, if its holder has an entry there.
//!
//! These steps do not observe one state. A process that acquires and releases all the time
//! may be seen with a lock or without.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use wal_core::inspect::HeldLocks;
use wal_core::storage::LockKind;
use wal_core::{LockMode, Result};

use super::holders::{self, Found, Holder};
use super::listed_lock::ListedLock;
use super::lock_byte::parts_of;
use super::lock_list;
use super::watched::WatchedFiles;
use super::{DatabaseFile, LockByte, ProcessInfo, SideView};
use crate::namespaces::Namespaces;

/// The namespace of process numbers in which the system starts (`PROC_PID_INIT_INO`).
const FIRST_NAMESPACE: u32 = 0xEFFF_FFFC;

/// How the holder of a lock was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum FoundBy {
    /// The system's list of locks names it, or no process.
    LockList,
    /// It has a descriptor with the lock.
    Descriptor,
    /// It has noted in the side file that it holds the lock.
    SideFile,
}

/// A lock of one holder.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HeldLock {
    /// The file that it is on.
    pub file: DatabaseFile,
    /// What it is.
    pub byte: LockByte,
    /// The bytes; `u64::MAX` ends a range that has no end.
    pub bytes: Range<u64>,
    /// How it is held.
    pub mode: LockMode,
    /// Whether it belongs to the process or to an open file description.
    pub kind: LockKind,
    /// Whether its process waits for it in the system, and does not hold it. SQLite and this
    /// library never do.
    pub is_waited_for: bool,
    /// The process; `None` if it is not known. A description that a child has inherited is
    /// held by both, and listed with each.
    pub pid: Option<u32>,
    /// How the process was found.
    pub found_by: FoundBy,
}

/// What a census could not see.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Unseen {
    /// The system does not list locks: nothing is known.
    NoLockList {
        /// Why.
        reason: String,
    },
    /// Processes outside the container of this one: their POSIX locks are not listed, and
    /// their open file description locks have no process.
    OtherContainers,
    /// Locks whose holders were not found, for the reasons that follow.
    Holders {
        /// How many.
        locks: usize,
    },
    /// Processes of other users, into which this one may not look.
    OtherUsers {
        /// How many.
        processes: usize,
    },
    /// Processes that were not looked at within the time.
    OutOfTime {
        /// How many.
        processes: usize,
    },
}

impl Unseen {
    /// What a walk through the processes has not seen.
    pub(super) fn of_walk(refused: usize, left: usize) -> Vec<Self> {
        let refused = (refused > 0).then_some(Unseen::OtherUsers { processes: refused });
        let left = (left > 0).then_some(Unseen::OutOfTime { processes: left });
        refused.into_iter().chain(left).collect()
    }
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unseen::NoLockList { reason } => write!(
                f,
                "the system does not list locks, so no holder is known: {reason}"
            ),
            Unseen::OtherContainers => f.write_str(
                "processes outside this container are not seen; run it on the host to see them",
            ),
            Unseen::Holders { locks } => write!(f, "the holders of {locks} locks were not found"),
            Unseen::OtherUsers { processes } => write!(
                f,
                "{processes} processes of other users were not looked into; run it as root"
            ),
            Unseen::OutOfTime { processes } => write!(
                f,
                "{processes} processes were not looked into in time; allow more time"
            ),
        }
    }
}

/// The locks on the files of a database, and the processes that hold them.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Census {
    /// The locks, in the order of files and bytes.
    pub locks: Vec<HeldLock>,
    /// The processes that hold or wait for them, by their numbers.
    pub processes: BTreeMap<u32, ProcessInfo>,
    /// What could not be seen; empty if nothing is missing.
    pub unseen: Vec<Unseen>,
}

impl Census {
    /// Counts the locks on the files of `database`. The search for the holders of open file
    /// description locks takes no longer than `budget`, apart from the call at its end.
    ///
    /// On systems other than Linux nothing is seen, and [`Unseen::NoLockList`] is returned.
    ///
    /// # Errors
    /// [`wal_core::Error::Io`] if the database is not there, or its directory may not be
    /// searched.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use wal_shm::inspect::Census;
    ///
    /// let census = Census::take("app.db".as_ref(), Duration::from_millis(200))?;
    /// for lock in &census.locks {
    ///     let holder = lock.pid.and_then(|pid| census.processes.get(&pid));
    ///     println!("{} {:?} {:?}", lock.byte, lock.mode, holder);
    /// }
    /// for unseen in &census.unseen {
    ///     println!("not seen: {unseen}");
    /// }
    /// # Ok::<(), wal_core::Error>(())
    /// ```
    pub fn take(database: &Path, budget: Duration) -> Result<Self> {
        let deadline = Instant::now() + budget;
        let watched = WatchedFiles::of(database)?;
        let mut census = Census::default();
        let list = || lock_list::read(|lock| watched.find(lock.file).is_some());
        let listed = match list() {
            Ok(listed) => listed,
            Err(e) => {
                let reason = format!("{}: {e}", lock_list::PATH);
                census.unseen.push(Unseen::NoLockList { reason });
                return Ok(census);
            }
        };
        if is_in_container() {
            census.unseen.push(Unseen::OtherContainers);
        }
        let (of_descriptions, of_processes) = by_owner(listed);
        let mut holders: Vec<Holder> = of_processes.into_iter().map(Holder::listed).collect();
        if !of_descriptions.is_empty() {
            let side = SideView::of(database).ok().flatten();
            let attached = side.map_or_else(Vec::new, |side| side.processes());
            let likely = attached.iter().map(|process| process.pid);
            let likely = likely.chain(holders.iter().filter_map(|holder| holder.pid));
            let again = || Ok(by_owner(list()?).0);
            let likely = likely.collect();
            let mut found = holders::find(&watched, &of_descriptions, likely, again, deadline);
            if found.unknown() > 0 {
                holders::name_by(&attached, &watched, &mut found.holders);
            }
            census.add_unseen(&found);
            holders.extend(found.holders);
        }
        census.locks = locks_of(holders, &watched);
        let pids = census.locks.iter().filter_map(|lock| lock.pid);
        census.processes = pids.map(|pid| (pid, ProcessInfo::of(pid))).collect();
        Ok(census)
    }

    fn add_unseen(&mut self, found: &Found) {
        let locks = found.unknown();
        if locks == 0 {
            return;
        }
        self.unseen.push(Unseen::Holders { locks });
        self.unseen
            .extend(Unseen::of_walk(found.refused, found.left));
    }

    /// The locks that are held, without those that a process waits for.
    pub fn held(&self) -> impl Iterator<Item = &HeldLock> {
        self.locks.iter().filter(|lock| !lock.is_waited_for)
    }

    /// Which locks of the protocol are held, for [`wal_core::inspect::forecast`].
    pub fn held_locks(&self) -> HeldLocks {
        let mut locks = HeldLocks::default();
        for held in self.held() {
            if let LockByte::Protocol(lock) = held.byte {
                locks.add(lock, held.mode);
            }
        }
        locks
    }
}

/// The locks of open file descriptions, and those of processes.
fn by_owner(listed: Vec<ListedLock>) -> (Vec<ListedLock>, Vec<ListedLock>) {
    let of_description = |lock: &ListedLock| lock.belongs_to_description;
    listed.into_iter().partition(of_description)
}

/// A lock for each holder and each lock byte.
fn locks_of(holders: Vec<Holder>, watched: &WatchedFiles) -> Vec<HeldLock> {
    let mut locks = Vec::new();
    for holder in holders {
        let Some(file) = watched.find(holder.lock.file) else {
            continue;
        };
        for (byte, bytes) in parts_of(file, &holder.lock.bytes()) {
            locks.push(HeldLock {
                file,
                byte,
                bytes,
                mode: holder.lock.mode(),
                kind: holder.lock.kind(),
                is_waited_for: holder.lock.is_waited_for,
                pid: holder.pid,
                found_by: holder.found_by,
            });
        }
    }
    locks.sort_by_key(|lock| (lock.file, lock.bytes.start, lock.pid));
    locks
}

/// True if there may be processes that this one does not see.
fn is_in_container() -> bool {
    Namespaces::here().numbers != FIRST_NAMESPACE
}
