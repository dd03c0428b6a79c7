//! A log that is longer than its checkpoints should leave it, and what keeps it so.

use std::collections::BTreeSet;
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
const LONG_BYTES: u64 = 16 << 20;
/// A file that is shorter takes no room worth a word.
const LONG_FILE: u64 = 16 << 20;

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
    let reason = why_long(facts);
    let (count, size) = (counted(frames, "frame"), bytes(size));
    findings.add(Finding {
        severity: reason.severity,
        name: "long-log",
        what: format!("the log has {count} ({size}): {}", reason.what),
        why: "each reader searches a longer index, a crash costs a longer recovery, and the disk \
              fills",
        advice: reason.advice,
        pids: reason.pids,
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

/// Why the log is long.
struct Reason {
    severity: Severity,
    what: String,
    advice: String,
    pids: Vec<u32>,
}

/// What keeps the log long, what to do about it, and the processes that it is about.
fn why_long(facts: &Facts) -> Reason {
    let path = facts.path.display();
    let advice = format!("run `walctl checkpoint {path}`, or keep it short by `walctl keep`");
    let warning = |what: String| Reason {
        severity: Severity::Warning,
        what,
        advice: advice.clone(),
        pids: Vec::new(),
    };
    if !facts.is_in_use() {
        return warning("no process uses it, and the last one did not checkpoint it".to_owned());
    }
    if let Some(blocker) = lasting_blocker(facts, CheckpointMode::Passive) {
        return blocked_by(facts, blocker);
    }
    let left = facts.samples.iter().map(frames_to_backfill).min();
    let left = left.unwrap_or_default();
    if left > AUTO_CHECKPOINT && !is_checkpointed(facts) {
        let left = counted(left, "frame");
        return warning(format!(
            "{left} wait for a checkpoint, and no process makes one"
        ));
    }
    match lasting_blocker(facts, CheckpointMode::Restart) {
        Some(blocker) => blocked_by(facts, blocker),
        None => Reason {
            severity: Severity::Note,
            ..warning("it is in the database or on its way there, and will be restarted".to_owned())
        },
    }
}

/// What blocks a checkpoint of `mode` in each look: the same lock at the same frame, and not
/// several processes one after the other.
fn lasting_blocker(facts: &Facts, mode: CheckpointMode) -> Option<Blocker> {
    let in_look = |sample: &Sample| -> Option<Blocker> {
        let index = sample.index.as_ref()?;
        forecast(index, &sample.census.held_locks(), mode)?.blocked_by
    };
    let last = in_look(facts.last()?)?;
    let is_same = |sample: &Sample| {
        let held_by = |sample: &Sample| holders_in(sample, last.lock);
        in_look(sample) == Some(last) && Some(held_by(sample)) == facts.last().map(held_by)
    };
    // Writers and checkpointers acquire and release their locks all the time.
    let is_at_rest = match last.lock {
        Lock::Write => facts.same_writer().is_some(),
        Lock::Checkpoint => !is_checkpointed(facts),
        _ => true,
    };
    (facts.has_looked_enough() && facts.samples.iter().all(is_same) && is_at_rest).then_some(last)
}

/// The processes that hold `lock`.
fn holders_in(sample: &Sample, lock: Lock) -> BTreeSet<Option<u32>> {
    let byte = LockByte::Protocol(lock);
    let held = sample.census.held().filter(|held| held.byte == byte);
    held.map(|held| held.pid).collect()
}

/// The committed frames that are not in the database file.
fn frames_to_backfill(sample: &Sample) -> u32 {
    sample.index.map_or(0, |index| {
        index.max_frame().saturating_sub(index.backfilled())
    })
}

/// Whether frames were backfilled, or the log restarted, from one look to another.
fn is_checkpointed(facts: &Facts) -> bool {
    let state = |sample: &Sample| {
        let index = sample.index?;
        Some((index.valid_header()?.salts(), index.backfilled()))
    };
    let mut states = facts.samples.iter().map(state);
    let first = states.next();
    states.any(|state| Some(state) != first)
}

fn blocked_by(facts: &Facts, blocker: Blocker) -> Reason {
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
    Reason {
        severity: Severity::Warning,
        what: reason,
        advice: advice.to_owned(),
        pids,
    }
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
