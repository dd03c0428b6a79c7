//! A log, an index and a database file that do not belong together.

use std::time::{Duration, Instant};

use wal_core::FrameNo;
use wal_core::format::{frame_offset, scan};
use wal_core::inspect::{Content, HeaderState, Watch, read_database, why_log_does_not_follow};
use wal_core::storage::File;
use wal_core::{Lock, PageSize};
use wal_shm::inspect::{DatabaseFile, LockByte};

use super::facts::{Facts, Sample};
use super::findings::{Finding, Findings, Severity};
use crate::look::observe;

/// A log that is longer is not compared with the database, for the time that takes.
const COMPARED: u64 = 256 << 20;
/// How often a comparison is begun anew while the database is in use.
const ATTEMPTS: usize = 5;
/// How long it takes at most, apart from the last attempt.
const TIME: Duration = Duration::from_secs(2);

/// A log beside a database from which it cannot follow.
pub(super) fn foreign_log(facts: &Facts, findings: &mut Findings) {
    let Some(reason) = reason_against(facts) else {
        return;
    };
    let is_empty = facts.database_len() == Some(0);
    findings.add(Finding {
        severity: Severity::Danger,
        name: if is_empty {
            "empty-database"
        } else {
            "foreign-log"
        },
        what: format!("the log does not follow from the database: {reason}"),
        why: match is_empty {
            true => "stock SQLite deletes the log of an empty database when it opens it",
            false => "the next checkpoint writes pages of another database over this one",
        },
        advice: "keep copies of both files, let no process open them, and see what \
                 `walctl verify` says; after a restore, remove the old `-wal` and `-shm`"
            .to_owned(),
        pids: Vec::new(),
    });
}

/// Two comparisons of one state have to say the same: the database may be in use.
fn reason_against(facts: &Facts) -> Option<&'static str> {
    let (database, _) = facts.database.as_ref()?;
    let log = facts.log.as_ref()?;
    if facts.log_len() > COMPARED {
        return None;
    }
    if let Some(reason) = salts_against(facts) {
        return Some(reason);
    }
    let shm = observe(&DatabaseFile::Index.path(&facts.path)).ok()?;
    let index = shm.as_ref().map(|shm| shm as &dyn File);
    let begin = Instant::now();
    let mut against = None;
    for _ in 0..ATTEMPTS {
        if begin.elapsed() > TIME {
            return None;
        }
        let watch = Watch::begin(database, Some(log), index).ok()?;
        let scan = scan(log).ok()??;
        let reason = why_log_does_not_follow(database, log, &scan).ok()?;
        let is_in_place =
            |file: &wal_core::storage::OsFile| file.is_still_at_its_path().unwrap_or(false);
        let holds = watch.holds().ok()? && is_in_place(database) && is_in_place(log);
        match reason {
            None => return None,
            Some(_) if !holds => against = None,
            Some(reason) if against == Some(reason) => return against,
            Some(reason) => against = Some(reason),
        }
    }
    None
}

/// Of a database in use: the log has the salts of its index. A writer stores the header of the
/// log before it publishes a commit of it.
fn salts_against(facts: &Facts) -> Option<&'static str> {
    let differs = |sample: &Sample| {
        let header = sample.index.as_ref()?.valid_header()?;
        let log = sample.log.as_ref()?.valid_header();
        let is_other = log.is_none_or(|log| log.salts != header.salts());
        Some(sample.is_settled && header.max_frame() > 0 && is_other && is_used(sample))
    };
    let all = facts
        .samples
        .iter()
        .all(|sample| differs(sample) == Some(true));
    (all && facts.has_looked_enough()).then_some("its salts are not those of the index")
}

/// Whether a process has the index mapped.
fn is_used(sample: &Sample) -> bool {
    sample.census.held().any(|lock| lock.byte == LockByte::Dms)
}

/// A log without a database, an index without a log.
pub(super) fn missing_files(facts: &Facts, findings: &mut Findings) {
    if facts.database.is_none() {
        let has_frames = facts.log.as_ref().and_then(|log| scan(log).ok().flatten());
        let has_frames = has_frames.is_some_and(|scan| !scan.pages.is_empty());
        if !findings.have("deleted-database") {
            findings.add(Finding {
                severity: if has_frames {
                    Severity::Danger
                } else {
                    Severity::Warning
                },
                name: "log-without-database",
                what: match has_frames {
                    true => "there is a log with commits, but no database file".to_owned(),
                    false => "there is a log, but no database file".to_owned(),
                },
                why: "a database that is created here deletes the log or is overwritten by it",
                advice: "put the database back beside its log, or move the log away".to_owned(),
                pids: Vec::new(),
            });
        }
        return;
    }
    let lacks_log = |sample: &Sample| sample.log.is_none() && sample.index.is_some();
    if !facts.samples.iter().all(lacks_log) || findings.have("deleted-log") {
        return;
    }
    let is_live = facts.samples.iter().all(is_used);
    let index = facts.last().and_then(|last| last.index);
    let left = index.map_or(0, |index| {
        index.max_frame() - index.backfilled().min(index.max_frame())
    });
    findings.add(Finding {
        severity: match (is_live, left) {
            (true, _) => Severity::Danger,
            (false, 0) => Severity::Note,
            (false, _) => Severity::Warning,
        },
        name: "missing-log",
        what: match (is_live, left) {
            (true, _) => "processes use the index, but its log is gone".to_owned(),
            (false, 0) => "there is an index, but no log".to_owned(),
            (false, left) => {
                format!("there is an index, but no log; {left} frames were only there")
            }
        },
        why: match is_live {
            true => "what these processes commit is lost when they end",
            false => "the log was removed, or a process ended while it closed the database",
        },
        advice: match is_live {
            true => "find the process that has it by `sudo walctl doctor`, and stop its writes",
            false => {
                "put the log back if you have it; else nothing: the next user rebuilds the index"
            }
        }
        .to_owned(),
        pids: Vec::new(),
    });
}

/// An index that names more frames than the log has.
pub(super) fn index_against_log(facts: &Facts, findings: &mut Findings) {
    let is_cut = |sample: &Sample| {
        let header = sample.index.as_ref()?.valid_header()?;
        let last = FrameNo::new(header.max_frame())?;
        let page_size = header.page_size()?;
        let len = sample.log.as_ref()?.len;
        let is_short = len < end_of(last, page_size);
        (sample.is_settled && is_short).then_some((last.get(), len))
    };
    let cuts: Vec<_> = facts.samples.iter().filter_map(is_cut).collect();
    let Some(&(frames, len)) = cuts.first() else {
        return;
    };
    if cuts.len() < facts.samples.len() || !facts.has_looked_enough() {
        return;
    }
    findings.add(Finding {
        severity: Severity::Danger,
        name: "log-cut",
        what: format!("the index names {frames} frames, but the log ends after {len} bytes"),
        why: "commits of the missing part are lost, and readers of it fail",
        advice: "stop all writes, keep copies of the files, and run `walctl verify`, then \
                 `walctl recover`"
            .to_owned(),
        pids: Vec::new(),
    });
}

/// Where the frame ends.
fn end_of(frame: FrameNo, page_size: PageSize) -> u64 {
    let len = wal_core::format::FRAME_HEADER_LEN + page_size.len();
    frame_offset(frame, page_size) + len as u64
}

/// An index whose header is not sound while no process holds a lock to change it.
pub(super) fn unsound_index(facts: &Facts, findings: &mut Findings) {
    let is_free = |sample: &Sample| {
        let changes = [Lock::Write, Lock::Recover, Lock::Checkpoint].map(LockByte::Protocol);
        !sample
            .census
            .held()
            .any(|lock| changes.contains(&lock.byte))
    };
    let state = |sample: &Sample| sample.index.as_ref().map(|index| index.header);
    let (Some(last), true) = (facts.last().and_then(state), facts.has_looked_enough()) else {
        return;
    };
    if !facts
        .samples
        .iter()
        .all(|sample| is_free(sample) && state(sample) == Some(last))
    {
        return;
    }
    let (severity, name, what, why, advice) = match last {
        HeaderState::CopiesDiffer => (
            Severity::Note,
            "interrupted-commit",
            "the two copies of the header of the index differ, and no writer is at work",
            "a writer died while it published a commit",
            "nothing: the next user rebuilds the index from the log",
        ),
        HeaderState::Damaged => (
            Severity::Warning,
            "damaged-index",
            "the checksum of the header of the index is wrong",
            "a program other than SQLite has written to it, or memory is faulty",
            "the next user rebuilds the index from the log; find out what wrote to `-shm`",
        ),
        HeaderState::UnknownVersion(_) => (
            Severity::Warning,
            "unknown-index",
            "the index is of a version that this program does not know",
            "its locks and marks may mean something else",
            "use the `walctl` that belongs to the newest SQLite on this machine",
        ),
        _ => return,
    };
    findings.add(Finding {
        severity,
        name,
        what: what.to_owned(),
        why,
        advice: advice.to_owned(),
        pids: Vec::new(),
    });
}

/// What the database file holds now; `None` if it is missing or cannot be read.
pub(super) fn content(facts: &Facts) -> Option<Content> {
    let (database, _) = facts.database.as_ref()?;
    Some(read_database(database).ok()?.content)
}
