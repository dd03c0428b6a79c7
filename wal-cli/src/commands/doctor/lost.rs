//! Locks that were lost, and files that were removed or replaced under their users.
//!
//! # The rule
//! A connection of SQLite in WAL mode opens the log after it has SHARED on the database, and
//! closes it before it releases SHARED (`sqlite3PagerSharedLock`, `sqlite3WalClose`). It holds
//! DMS as long as it has `-shm` open, apart from a moment at each end. So a process that has
//! the log open and no lock on the database has lost it: a close of the database file anywhere
//! in the process drops all its locks on that file. A connection that has read nothing has
//! neither lock nor log.
//!
//! This library keeps descriptors of the database and of `-shm` without locks after their last
//! use, but none of the log. A child of a fork has the descriptors of its parent and none of
//! its locks. A program that only looks has all files open, none of them to be written.

use std::collections::BTreeSet;

use wal_core::LockMode;
use wal_shm::inspect::{DatabaseFile, LockByte, OpenFile, Unseen};

use super::facts::{Facts, Sample};
use super::findings::{Finding, Findings, Severity};

/// What a process has of the files in one look.
struct Has<'a> {
    open: Vec<&'a OpenFile>,
    sample: &'a Sample,
    pid: u32,
}

impl<'a> Has<'a> {
    fn of(sample: &'a Sample, pid: u32) -> Self {
        let open = sample.open.iter().filter(|open| open.pid == pid).collect();
        Has { open, sample, pid }
    }

    fn files(&self, file: DatabaseFile) -> impl Iterator<Item = &&'a OpenFile> {
        self.open.iter().filter(move |open| open.file == file)
    }

    fn has_log(&self) -> bool {
        self.files(DatabaseFile::Log).next().is_some()
    }

    fn may_write(&self) -> bool {
        self.open.iter().any(|open| open.may_write)
    }

    /// Whether it has `file` open and no lock on it, by the locks of its descriptors and by
    /// the system's list.
    fn lacks_lock(&self, file: DatabaseFile) -> bool {
        // Where the system lists no locks, nothing can be said.
        let is_blind = |unseen: &Unseen| matches!(unseen, Unseen::NoLockList { .. });
        if self.sample.census.unseen.iter().any(is_blind) {
            return false;
        }
        let is_listed = || {
            let mut held = self.sample.census.held();
            held.any(|lock| lock.file == file && lock.pid == Some(self.pid))
        };
        let mut files = self.files(file).peekable();
        files.peek().is_some() && files.all(|open| !open.has_locks) && !is_listed()
    }

    /// Whether it has the whole database to itself, and needs no index.
    fn is_exclusive(&self) -> bool {
        let mut held = self.sample.census.held();
        held.any(|lock| {
            lock.byte == LockByte::Shared
                && lock.mode == LockMode::Exclusive
                && lock.pid == Some(self.pid)
        })
    }

    fn has_lost_shared(&self) -> bool {
        self.has_log() && self.may_write() && self.lacks_lock(DatabaseFile::Database)
    }

    fn has_lost_dms(&self) -> bool {
        let may_write = self.files(DatabaseFile::Index).any(|open| open.may_write);
        self.has_log() && may_write && self.lacks_lock(DatabaseFile::Index) && !self.is_exclusive()
    }

    /// Whether it uses a `file` that is not the one that lies there.
    fn uses_replaced(&self, file: DatabaseFile) -> bool {
        let is_replaced = |open: &&&OpenFile| !open.is_current;
        let mut replaced = self.files(file).filter(is_replaced);
        match file {
            DatabaseFile::Log => replaced.any(|open| open.may_write),
            // One without a lock may be kept for later use only.
            _ => {
                let log_is_replaced = || self.files(DatabaseFile::Log).any(|log| !log.is_current);
                replaced.any(|open| open.has_locks || log_is_replaced())
            }
        }
    }
}

/// Whether `is_so` for the process in each look.
fn always(facts: &Facts, pid: u32, is_so: impl Fn(&Has<'_>) -> bool) -> bool {
    let samples = &facts.samples;
    facts.has_looked_enough() && samples.iter().all(|sample| is_so(&Has::of(sample, pid)))
}

/// Processes that have the log open and have lost a lock.
pub(super) fn locks(facts: &Facts, findings: &mut Findings) {
    for pid in facts.users() {
        let lost_shared = always(facts, pid, |has| has.has_lost_shared());
        let lost_dms = always(facts, pid, |has| has.has_lost_dms());
        let lost = match (lost_shared, lost_dms) {
            (false, false) => continue,
            (true, false) => "SHARED on the database",
            (false, true) => "DMS on the index",
            (true, true) => "SHARED on the database nor DMS on the index",
        };
        let name = facts.name(pid);
        let parent = facts.process(pid).parent.filter(|parent| {
            let holds = |has: &Has<'_>| has.has_log() && !has.has_lost_shared();
            always(facts, *parent, holds)
        });
        findings.add(match parent {
            Some(parent) => Finding {
                severity: Severity::Note,
                name: "inherited-files",
                what: format!("{name} has inherited the files of process {parent} by a fork"),
                why: "it has no locks of its own, so it loses data if it uses the connection",
                advice: "open the database after the fork, in each process by itself".to_owned(),
                pids: vec![pid],
            },
            None => Finding {
                severity: Severity::Danger,
                name: "lost-locks",
                what: match (lost_shared, lost_dms) {
                    (true, true) => format!("{name} has the log open, but holds neither {lost}"),
                    _ => format!("{name} has the log open, but does not hold {lost}"),
                },
                why: "another process takes itself for the last user and deletes the log under it",
                advice: format!(
                    "stop the writes of process {pid}, run `walctl backup`, and restart it; it \
                     must not open and close these files besides SQLite (use the VFS \
                     `unix`, and copy them in another process)"
                ),
                pids: vec![pid],
            },
        });
    }
}

/// Processes that use files which were removed, renamed or replaced.
pub(super) fn removed_files(facts: &Facts, findings: &mut Findings) {
    let kinds = [
        (DatabaseFile::Database, "deleted-database", "the database"),
        (DatabaseFile::Log, "deleted-log", "a log"),
        (DatabaseFile::Index, "deleted-index", "a wal-index"),
    ];
    for pid in facts.users() {
        for (file, kind, what) in kinds {
            if !always(facts, pid, |has| has.uses_replaced(file)) {
                continue;
            }
            let name = facts.name(pid);
            let path = facts.path.display();
            findings.add(Finding {
                severity: Severity::Danger,
                name: kind,
                what: format!("{name} uses {what} that was deleted or replaced"),
                why: match file {
                    DatabaseFile::Index => "its locks exclude no other process, so both write",
                    _ => "what it commits there is lost when it ends",
                },
                advice: format!(
                    "stop its writes, run `walctl recover {path} --from-pid {pid} --to NEW` while \
                     it lives, then restart it"
                ),
                pids: vec![pid],
            });
        }
    }
}

/// Processes with different indexes.
pub(super) fn generations(facts: &Facts, findings: &mut Findings) {
    let with_old = |pid: &u32| findings.accuse("deleted-index", *pid);
    let (old, others): (Vec<u32>, Vec<u32>) = facts.users().into_iter().partition(with_old);
    let is_current = |has: &Has<'_>| {
        let mut index = has.files(DatabaseFile::Index);
        index.any(|open| open.is_current && open.has_locks)
    };
    let others = others.into_iter();
    let new: BTreeSet<u32> = others
        .filter(|pid| always(facts, *pid, is_current))
        .collect();
    if old.is_empty() || new.is_empty() {
        return;
    }
    let new: Vec<u32> = new.into_iter().collect();
    findings.add(Finding {
        severity: Severity::Danger,
        name: "two-generations",
        what: format!(
            "{} and {} use different indexes of this database",
            facts.names(&old),
            facts.names(&new)
        ),
        why: "neither sees the locks and commits of the other, and both write the database",
        advice: "stop all writes, recover the log of the old one by `walctl recover --from-pid`, \
                 and restart all processes"
            .to_owned(),
        pids: old.into_iter().chain(new).collect(),
    });
}
