//! The processes that hold locks of open file descriptions, which the system lists without.
//!
//! # Protocol
//! A lock in the list and the same lock of a descriptor are put together. Several descriptions
//! may hold the same shared lock; then as many are expected as the list has. A lock without a
//! descriptor may have been released between the two looks, so both are repeated. The look in
//! which the fewest are left counts.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use wal_core::Lock;

use super::descriptors::{Descriptor, Which, walk};
use super::listed_lock::ListedLock;
use super::lock_byte::parts_of;
use super::watched::WatchedFiles;
use super::{AttachedProcess, FoundBy, LockByte, process};

/// How often the descriptors of a file are looked at for a lock that the system lists. A
/// transaction that holds it for microseconds may have ended at each look.
const LOOKS: usize = 16;

/// A holder of a listed lock, or a process that waits for it.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) lock: ListedLock,
    pub(super) pid: Option<u32>,
    pub(super) found_by: FoundBy,
}

impl Holder {
    pub(super) fn listed(lock: ListedLock) -> Self {
        Holder {
            pid: lock.pid,
            lock,
            found_by: FoundBy::LockList,
        }
    }
}

/// What the search for holders has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) holders: Vec<Holder>,
    /// How many processes may not be looked into.
    pub(super) refused: usize,
    /// How many processes were left when the time was over.
    pub(super) left: usize,
}

impl Found {
    /// How many locks have no known holder.
    pub(super) fn unknown(&self) -> usize {
        unknown(&self.holders)
    }
}

/// Searches for the holders of `listed` until `deadline`: among the processes `likely`, then
/// among all. `list` reads the list once more.
pub(super) fn find(
    watched: &WatchedFiles,
    listed: &[ListedLock],
    likely: Vec<u32>,
    list: impl Fn() -> io::Result<Vec<ListedLock>>,
    deadline: Instant,
) -> Found {
    let mut found = Found {
        holders: put_together(listed, &[], watched),
        ..Found::default()
    };
    let all = || process::all().unwrap_or_default();
    let likely: &dyn Fn() -> Vec<u32> = &|| likely.clone();
    for (processes, which) in [
        (likely, Which::Named),
        (&all, Which::Named),
        (&all, Which::All),
    ] {
        let is_too_long = which == Which::All && found.left > 0;
        if found.unknown() == 0 || is_too_long {
            break;
        }
        let walk = walk(watched, &processes(), which, deadline);
        (found.refused, found.left) = (walk.refused, walk.left);
        found.look(watched, &walk.descriptors, &list, deadline);
    }
    found
}

impl Found {
    /// Looks for the holders among the processes that have `descriptors`.
    fn look(
        &mut self,
        watched: &WatchedFiles,
        descriptors: &[Descriptor],
        list: impl Fn() -> io::Result<Vec<ListedLock>>,
        deadline: Instant,
    ) {
        for look in 0..LOOKS {
            let is_over = look > 0 && Instant::now() >= deadline;
            if self.unknown() == 0 || is_over || descriptors.is_empty() {
                break;
            }
            let Ok(listed) = list() else { break };
            self.keep_better(put_together(&listed, descriptors, watched));
        }
    }

    fn keep_better(&mut self, holders: Vec<Holder>) {
        if unknown(&holders) < self.unknown() {
            self.holders = holders;
        }
    }
}

fn unknown(holders: &[Holder]) -> usize {
    let unknown = holders.iter().filter(|holder| holder.pid.is_none());
    unknown.count()
}

/// The holders of the locks in `listed`, among the processes that have `descriptors`.
fn put_together(
    listed: &[ListedLock],
    descriptors: &[Descriptor],
    watched: &WatchedFiles,
) -> Vec<Holder> {
    let locks = descriptors.iter().flat_map(|descriptor| {
        let locks = descriptor.locks(watched).into_iter();
        locks.map(|lock| (lock, descriptor.pid))
    });
    join(listed, locks)
}

/// The holders of the locks in `listed`, by the process of each lock in `locks`.
fn join(listed: &[ListedLock], locks: impl Iterator<Item = (ListedLock, u32)>) -> Vec<Holder> {
    let mut expected: BTreeMap<&ListedLock, (usize, Vec<u32>)> = BTreeMap::new();
    for lock in listed {
        expected.entry(lock).or_default().0 += 1;
    }
    for (lock, pid) in locks {
        if let Some((_, pids)) = expected.get_mut(&lock) {
            pids.push(pid);
        }
    }
    let mut holders = Vec::new();
    for (lock, (count, mut pids)) in expected {
        let unknown = count.saturating_sub(pids.len());
        pids.sort_unstable();
        pids.dedup();
        let known = pids.into_iter().map(|pid| (Some(pid), FoundBy::Descriptor));
        let unknown = (0..unknown).map(|_| (None, FoundBy::LockList));
        holders.extend(known.chain(unknown).map(|(pid, found_by)| Holder {
            lock: lock.clone(),
            pid,
            found_by,
        }));
    }
    holders
}

/// Names holders that were not found by what the processes of this library have noted in the
/// side file: each has the locks of an attachment, and those of its note.
pub(super) fn name_by(
    attached: &[AttachedProcess],
    watched: &WatchedFiles,
    holders: &mut [Holder],
) {
    for at in 0..holders.len() {
        let lock = holders[at].lock.clone();
        if holders[at].pid.is_some() {
            continue;
        }
        let Some(file) = watched.find(lock.file) else {
            continue;
        };
        let holds = |noted: &[Lock]| {
            let mut parts = parts_of(file, &lock.bytes()).into_iter();
            parts.all(|(byte, _)| match byte {
                LockByte::Protocol(lock) => noted.contains(&lock),
                LockByte::Dms | LockByte::Shared | LockByte::Attached => true,
                _ => false,
            })
        };
        let is_known = |pid| {
            holders
                .iter()
                .any(|known| known.lock == lock && known.pid == Some(pid))
        };
        let mut candidates = attached.iter().filter(|process| holds(&process.locks));
        if let Some(process) = candidates.find(|process| !is_known(process.pid)) {
            holders[at].pid = Some(process.pid);
            holders[at].found_by = FoundBy::SideFile;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(line: &str) -> ListedLock {
        ListedLock::parse(&format!("1: OFDLCK ADVISORY {line} 0")).unwrap()
    }

    fn joined(listed: &[&str], held: &[(&str, u32)]) -> Vec<Option<u32>> {
        let listed: Vec<ListedLock> = listed.iter().map(|line| lock(line)).collect();
        let held = held.iter().map(|&(line, pid)| (lock(line), pid));
        join(&listed, held)
            .into_iter()
            .map(|holder| holder.pid)
            .collect()
    }

    const DMS: &str = "READ -1 fe:00:7 0";
    const WRITE: &str = "WRITE -1 fe:00:7 0";

    #[test]
    fn lock_of_several_descriptions_names_each_process_once() {
        let none: [Option<u32>; 0] = [];
        assert_eq!(joined(&[], &[(DMS, 7)]), none);
        assert_eq!(
            joined(&[DMS, DMS, DMS], &[(DMS, 7), (DMS, 8)]),
            [Some(7), Some(8), None]
        );
        assert_eq!(joined(&[DMS, DMS], &[(DMS, 7), (DMS, 7)]), [Some(7)]);
        assert_eq!(
            joined(&[DMS], &[(DMS, 7), (DMS, 8)]),
            [Some(7), Some(8)],
            "inherited"
        );
        assert_eq!(joined(&[DMS, WRITE], &[(WRITE, 9)]), [None, Some(9)]);
    }
}
