//! What the processes that use the database are.

use std::collections::BTreeMap;
use std::fs;

use wal_shm::inspect::{SideView, Unseen};

use super::facts::Facts;
use super::findings::{Finding, Findings, Severity};

/// A process that has used this many of a hundred descriptors is near its limit.
const NEAR_LIMIT: u64 = 95;

/// Builds of SQLite with the WAL-reset bug, each with the processes that have it.
pub(super) fn old_sqlite(facts: &Facts, findings: &mut Findings) {
    let mut old: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (pid, builds) in &facts.builds {
        for build in builds.iter().filter(|build| build.has_wal_reset_bug()) {
            let name = format!("{build} ({})", build.path.display());
            old.entry(name).or_default().push(*pid);
        }
    }
    for (build, pids) in old {
        findings.add(Finding {
            severity: Severity::Warning,
            name: "old-sqlite",
            what: format!("{} uses {build}", facts.names(&pids)),
            why: "before 3.51.3 a checkpoint beside a commit can lose that commit (WAL-reset bug)",
            advice: "update to SQLite 3.51.3 or later, or to 3.50.7 or 3.44.6 of their series"
                .to_owned(),
            pids,
        });
    }
}

/// Processes in other namespaces of process numbers.
pub(super) fn containers(facts: &Facts, findings: &mut Findings) {
    let inside = |pid: &u32| facts.process(*pid).is_in_container;
    let pids: Vec<u32> = facts.users().into_iter().filter(inside).collect();
    if !pids.is_empty() {
        findings.add(Finding {
            severity: Severity::Note,
            name: "other-containers",
            what: format!("{} runs in another container", facts.names(&pids)),
            why: "what it knows of the other processes is less, so it waits longer for them",
            advice: "share the directory of the database with each container, not the file"
                .to_owned(),
            pids,
        });
    }
    // Where this process sees all, the entries are of hidden processes.
    let is_inside = facts.unseen.contains(&Unseen::OtherContainers.to_string());
    let unnamed = |side: &Option<SideView>| side.as_ref().map_or(0, SideView::unnamed_processes);
    let unnamed = unnamed(&facts.side[0]).min(unnamed(&facts.side[1]));
    let unknown = |sample: &super::facts::Sample| {
        let mut held = sample.census.held();
        held.any(|lock| lock.pid.is_none())
    };
    let has_unknown = is_inside && facts.samples.iter().all(unknown);
    let shows_unnamed = unnamed > 0 && !findings.have("other-containers");
    if shows_unnamed || has_unknown {
        findings.add(Finding {
            severity: Severity::Note,
            name: "unseen-users",
            what: "processes that cannot be seen from here use the database".to_owned(),
            why: "this look cannot check their locks, files and versions",
            advice: "run it on the host, as root".to_owned(),
            pids: Vec::new(),
        });
    }
}

/// Processes that can soon open no more files.
pub(super) fn descriptors(facts: &Facts, findings: &mut Findings) {
    for pid in facts.users() {
        let (Some(limit), Some(used)) = (limit_of(pid), used_by(pid)) else {
            continue;
        };
        if used * 100 < limit * NEAR_LIMIT {
            continue;
        }
        findings.add(Finding {
            severity: Severity::Warning,
            name: "descriptor-limit",
            what: format!("{} has {used} of {limit} files open", facts.name(pid)),
            why: "SQLite fails to open the log or a journal (SQLITE_CANTOPEN)",
            advice: "find what it does not close, or raise its limit (`prlimit --nofile`)"
                .to_owned(),
            pids: vec![pid],
        });
    }
}

/// How many files the process may have open.
fn limit_of(pid: u32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// How many files the process has open.
fn used_by(pid: u32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64)
}
