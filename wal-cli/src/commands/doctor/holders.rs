//! Processes that hold locks and do not go on.

use std::collections::BTreeSet;

use wal_core::Lock;
use wal_core::wait::now;
use wal_shm::inspect::{DatabaseFile, LockByte, SideView};

use super::facts::{Facts, LONG_WRITE};
use super::findings::{Finding, Findings, Severity};
use crate::output::units::duration;

/// Processes that hold locks and are stopped, or wait for a disk.
pub(super) fn stopped(facts: &Facts, findings: &mut Findings) {
    let attached = |side: &Option<SideView>| -> Vec<u32> {
        let processes = side.as_ref().map_or_else(Vec::new, SideView::processes);
        processes.into_iter().map(|process| process.pid).collect()
    };
    let attached = attached(&facts.side[1]);
    for pid in facts.users() {
        let process = wal_shm::inspect::ProcessInfo::of(pid);
        let locks = locks_of(facts, pid);
        if locks.is_empty() || !(process.is_stopped || process.is_uninterruptible) {
            continue;
        }
        let holds_protocol = locks.iter().any(|(_, blocks)| *blocks);
        let names: Vec<&str> = locks.iter().map(|(name, _)| name.as_str()).collect();
        let (name, names) = (facts.name(pid), names.join(", "));
        let finding = match process.is_stopped {
            true => Finding {
                severity: if holds_protocol {
                    Severity::Warning
                } else {
                    Severity::Note
                },
                name: "stopped-holder",
                what: format!("{name} is stopped and holds {names}"),
                why: match (holds_protocol, attached.contains(&pid)) {
                    (false, _) => "it blocks no reader or writer, but the log is not removed",
                    (true, true) => {
                        "peer processes wait for it; a READ lock may be one whose release it has delayed"
                    }
                    (true, false) => "writers, checkpoints or both wait for it",
                },
                advice: format!("`kill -CONT {pid}`, or leave its debugger"),
                pids: vec![pid],
            },
            // A commit waits for a disk, too: only one that makes no progress is reported.
            false if holds_protocol && facts.same_writer() == Some(pid) => Finding {
                severity: Severity::Warning,
                name: "disk-wait",
                what: format!("{name} waits for a disk and holds {names}"),
                why: "writers wait for it, and it cannot be ended",
                advice: "see whether the disk or its network fails (`dmesg`)".to_owned(),
                pids: vec![pid],
            },
            false => continue,
        };
        findings.add(finding);
    }
}

/// The locks that the process has held in each look, and whether another process may wait for
/// each.
fn locks_of(facts: &Facts, pid: u32) -> BTreeSet<(String, bool)> {
    let of_look = |sample: &super::facts::Sample| -> BTreeSet<(String, bool)> {
        let held = sample.census.held();
        let own = held.filter(|lock| lock.pid == Some(pid) && lock.file != DatabaseFile::Side);
        own.map(|lock| {
            let blocks = matches!(
                lock.byte,
                LockByte::Protocol(_) | LockByte::Pending | LockByte::Reserved
            );
            (lock.byte.to_string(), blocks)
        })
        .collect()
    };
    let mut looks = facts.samples.iter().map(of_look);
    let first = looks.next().unwrap_or_default();
    looks.fold(first, |all, look| &all & &look)
}

/// A writer that holds WRITE for long without a commit.
pub(super) fn long_write(facts: &Facts, findings: &mut Findings) {
    let Some(pid) = facts.same_writer().filter(|_| facts.span() >= LONG_WRITE) else {
        return;
    };
    let name = facts.name(pid);
    let span = duration(std::time::Duration::from_millis(
        facts.span().as_millis().try_into().unwrap_or(u64::MAX),
    ));
    let lock = LockByte::Protocol(Lock::Write);
    findings.add(Finding {
        severity: Severity::Warning,
        name: "long-write",
        what: format!("{name} has held {lock} for at least {span} without a commit"),
        why: "all other writers wait, or fail with SQLITE_BUSY",
        advice: "let it commit or roll back; do slow work before BEGIN IMMEDIATE".to_owned(),
        pids: vec![pid],
    });
}

/// Entries of the writer queue whose processes have ended.
pub(super) fn dead_waiters(facts: &Facts, findings: &mut Findings) {
    let dead = |side: &Option<SideView>| -> BTreeSet<u32> {
        let Some(side) = side else {
            return BTreeSet::new();
        };
        let waiting = side.wait_state().writer_queue().waiting_writers(now());
        let pids = waiting.iter().filter_map(|writer| writer.process.pid());
        pids.filter(|pid| wal_shm::inspect::ProcessInfo::of(*pid).command.is_none())
            .collect()
    };
    let [first, last] = &facts.side;
    let pids: Vec<u32> = (&dead(first) & &dead(last)).into_iter().collect();
    if pids.is_empty() {
        return;
    }
    findings.add(Finding {
        severity: Severity::Note,
        name: "dead-waiter",
        what: format!("the writer queue has entries of processes that have ended: {pids:?}"),
        why: "the next writers skip them after a moment",
        advice: "nothing".to_owned(),
        pids,
    });
}
