//! A log that is longer than its checkpoints should leave it, and what keeps it so.

use std::time::{Duration, SystemTime};

use wal_core::ReadSlot;
use wal_core::format::{FRAME_HEADER_LEN, LOG_HEADER_LEN};
use wal_core::inspect::{Blocker, IndexInfo, forecast};
use wal_core::protocol::CheckpointMode;
use wal_core::{Lock, LockMode, PageSize};
use wal_shm::inspect::LockByte;

use super::facts::{Facts, Sample};
use super::findings::{Finding, Findings, Severity};
use crate::output::units::{bytes, counted, duration};

/// The automatic checkpoint of stock SQLite starts at this many frames.
const AUTO_CHECKPOINT: u32 = 1000;
/// A log of so many of them is long.
const LONG: u32 = 4;
/// A log that is shorter in bytes is never long.
const LONG_BYTES: u64 = 8 << 20;
/// A file that is shorter takes no room worth a word.
const LONG_FILE: u64 = 64 << 20;

/// A log with far more frames than automatic checkpoints leave.
pub(super) fn long_log(facts: &Facts, findings: &mut Findings) {
    let lens = facts.samples.iter().map(|sample| frames(facts, sample));
    let (Some(frames), Some(page_size)) = (lens.min(), facts.page_size()) else {
        return;
    };
    let size = u64::from(frames) * frame_len(page_size);
    if frames <= LONG * AUTO_CHECKPOINT || size <= LONG_BYTES {
        return;
    }
    let (reason, advice, pids) = why_long(facts);
    let (count, size) = (counted(frames, "frame"), bytes(size));
    findings.add(Finding {
        severity: Severity::Warning,
        name: "long-log",
        what: format!("the log has {count} ({size}): {reason}"),
        why: "each reader searches a longer index, a crash costs a longer recovery, and the disk \
              fills",
        advice,
        pids,
    });
}

/// The length of a frame in bytes.
fn frame_len(page_size: PageSize) -> u64 {
    (FRAME_HEADER_LEN + page_size.len()) as u64
}

/// The committed frames of the log in one look.
fn frames(facts: &Facts, sample: &Sample) -> u32 {
    match sample
        .index
        .as_ref()
        .filter(|index| index.valid_header().is_some())
    {
        Some(index) => index.max_frame(),
        // The whole file counts until it is recovered.
        None => match (sample.log, facts.page_size()) {
            (Some(log), Some(size)) => u32::try_from(log.frames_on_disk(size)).unwrap_or(u32::MAX),
            _ => 0,
        },
    }
}

/// What keeps the log long, what to do about it, and the processes that it is about.
fn why_long(facts: &Facts) -> (String, String, Vec<u32>) {
    let path = facts.path.display();
    let checkpoint =
        || format!("run `walctl checkpoint {path}`, or keep it short by `walctl keep`");
    let in_use = facts.is_in_use();
    if !in_use {
        let reason = "no process uses it, and the last one did not checkpoint it";
        return (reason.to_owned(), checkpoint(), Vec::new());
    }
    // What blocks in each look, not what passes. The last look names the holders.
    let blocked = |mode| {
        let in_look = |sample: &Sample| -> Option<Blocker> {
            let index = sample.index.as_ref()?;
            forecast(index, &sample.census.held_locks(), mode)?.blocked_by
        };
        let is_blocked = facts.samples.iter().all(|sample| in_look(sample).is_some());
        is_blocked.then(|| facts.last().and_then(in_look)).flatten()
    };
    let index = facts.last().and_then(|last| last.index);
    let left = index.map_or(0, |index| {
        index.max_frame() - index.backfilled().min(index.max_frame())
    });
    if let Some(blocker) = blocked(CheckpointMode::Passive) {
        return blocked_by(facts, blocker);
    }
    if left > AUTO_CHECKPOINT {
        let reason = format!(
            "{} wait for a checkpoint, and no process makes one",
            counted(left, "frame")
        );
        return (reason, checkpoint(), Vec::new());
    }
    match blocked(CheckpointMode::Restart) {
        Some(blocker) => blocked_by(facts, blocker),
        None => {
            let reason = "all of it is in the database; the next commits restart it";
            (reason.to_owned(), checkpoint(), Vec::new())
        }
    }
}

fn blocked_by(facts: &Facts, blocker: Blocker) -> (String, String, Vec<u32>) {
    let (pids, _) = facts.holders(LockByte::Protocol(blocker.lock));
    let names = facts.names(&pids);
    let lock = LockByte::Protocol(blocker.lock);
    let reason = match (blocker.lock, blocker.frame) {
        (Lock::Checkpoint, _) => {
            format!("{names} holds {lock}, so no other process can checkpoint")
        }
        (Lock::Write, _) => format!("{names} holds {lock}, so the log cannot be restarted"),
        (_, Some(frame)) => format!("{names} reads it up to frame {frame} ({lock})"),
        (_, None) => format!("{names} reads the database file ({lock})"),
    };
    let advice = match blocker.lock {
        Lock::Read(_) => {
            "let that reader end its transaction; readers that follow each other \
                          without a pause need `PRAGMA wal_checkpoint(RESTART)` with a busy timeout"
        }
        _ => "let that process finish, or end it if it hangs",
    };
    (reason, advice.to_owned(), pids)
}

/// A long file with a short log in it: no fault, but a question that people ask.
pub(super) fn long_file(facts: &Facts, findings: &mut Findings) {
    let (Some(last), Some(page_size)) = (facts.last(), facts.page_size()) else {
        return;
    };
    let used = u64::from(frames(facts, last)) * frame_len(page_size);
    let len = facts.log_len();
    if len < LONG_FILE || len / 4 < used + LOG_HEADER_LEN as u64 || findings.have("long-log") {
        return;
    }
    findings.add(Finding {
        severity: Severity::Note,
        name: "long-log-file",
        what: format!(
            "the file of the log has {}, of which {} are used",
            bytes(len),
            bytes(used)
        ),
        why: "it was longer once, and SQLite writes it from its start without making it shorter",
        advice: format!(
            "nothing; for the room, run `walctl checkpoint --mode truncate {}` or set \
             `PRAGMA journal_size_limit`",
            facts.path.display()
        ),
        pids: Vec::new(),
    });
}

/// Readers of an old state.
///
/// The system does not tell since when a lock is held. A reader whose mark lies before the end
/// of the log began before the log was written last, and it did not begin before its process.
/// Its mark stays the same in each look.
pub(super) fn old_readers(facts: &Facts, findings: &mut Findings) {
    for slot in ReadSlot::ALL {
        if slot == ReadSlot::DATABASE {
            continue;
        }
        let Some((frame, behind)) = mark_in_each_look(facts, slot) else {
            continue;
        };
        let (pids, _) = facts.holders(LockByte::Protocol(Lock::Read(slot)));
        let least = facts.log_age().unwrap_or_default().max(facts.span());
        let starts = pids.iter().filter_map(|pid| facts.process(*pid).started);
        let oldest = starts.min();
        let most = oldest.and_then(|start| SystemTime::now().duration_since(start).ok());
        let limit = facts.options.old_reader;
        let severity = match () {
            () if least >= limit => Severity::Warning,
            () if most.is_some_and(|most| most >= limit) => Severity::Note,
            () => continue,
        };
        let names = facts.names(&pids);
        let since = since(least, most);
        findings.add(Finding {
            severity,
            name: "old-reader",
            what: format!(
                "{names} reads an old state: frame {frame}, {} behind, {since} (READ({}))",
                counted(behind, "frame"),
                slot.index()
            ),
            why: "no checkpoint moves a frame past it, and the log grows until it ends",
            advice: "let it end its transaction: an open cursor or a forgotten BEGIN is enough"
                .to_owned(),
            pids,
        });
    }
}

/// The mark of `slot` if readers have held it at the same frame in each look, behind the end
/// of the log, and by how many frames.
fn mark_in_each_look(facts: &Facts, slot: ReadSlot) -> Option<(u32, u32)> {
    let mark = |sample: &Sample| {
        let index = sample.index.as_ref()?;
        let lock = LockByte::Protocol(Lock::Read(slot));
        let is_read =
            |held: &wal_shm::inspect::HeldLock| held.byte == lock && held.mode == LockMode::Shared;
        sample
            .census
            .held()
            .any(is_read)
            .then(|| index.mark(slot))
            .flatten()
    };
    let last = facts.last()?;
    let frame = mark(last)?;
    let end = last.index.as_ref().map(IndexInfo::max_frame)?;
    let is_same = facts
        .samples
        .iter()
        .all(|sample| mark(sample) == Some(frame));
    (is_same && facts.has_looked_enough() && frame < end).then(|| (frame, end - frame))
}

fn since(least: Duration, most: Option<Duration>) -> String {
    let rounded = |time: Duration| {
        duration(Duration::from_millis(
            time.as_millis().try_into().unwrap_or(u64::MAX),
        ))
    };
    match most {
        Some(most) if most > least => {
            format!(
                "for at least {} and at most {}",
                rounded(least),
                rounded(most)
            )
        }
        _ => format!("for at least {}", rounded(least)),
    }
}
