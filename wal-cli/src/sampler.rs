//! Looks at a database repeated in time, and what has happened between them.
//!
//! A look reads a few hundred bytes of each file. The census of lock holders can walk through
//! `/proc`, so it is taken seldom: not before [`CENSUS_INTERVAL`] has passed, nor twenty
//! times as long as the last one took.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use schemars::JsonSchema;
use serde::Serialize;
use wal::{Lock, Salts};
use wal_core::ReadSlot;
use wal_core::index::IndexHeader;
use wal_core::inspect::IndexInfo;
use wal_core::wait::now;
use wal_shm::inspect::{Census, LockByte, SideView};

use crate::figures::{Figures, ProcessFigures};
use crate::look::{Look, resolve};
use crate::output::units;

/// The time between two walks through the lock holders, at least.
const CENSUS_INTERVAL: Duration = Duration::from_secs(2);
/// How many times as long as a census takes none is taken.
const CENSUS_SHARE: u32 = 20;
/// How long a census may search for the holders of locks.
const CENSUS_BUDGET: Duration = Duration::from_millis(250);

/// A database at one moment, and what has happened since the look before.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Sample {
    /// The figures.
    pub(crate) figures: Figures,
    /// What the processes are doing; a process with several locks has several rows.
    pub(crate) roles: Vec<RoleFigures>,
    /// The writers in the queue for WRITE, the first to go first. Only writers of this
    /// library wait in it.
    pub(crate) queue: Vec<WaitingFigures>,
    /// What has happened since the first look.
    pub(crate) totals: Totals,
    /// How often it happened in a second since the look before; null at the first look, and
    /// where the index tells nothing.
    pub(crate) rates: Option<Rates>,
    /// How old the list of lock holders is, in seconds.
    pub(crate) census_age_s: f64,
    /// How long the look took, in seconds.
    pub(crate) look_s: f64,
}

/// What a process is doing, by a lock that it holds or a slot of the queue that it occupies.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct RoleFigures {
    /// `writer`, `checkpointer`, `recoverer`, `reader`, `waiting` or `idle`.
    pub(crate) role: &'static str,
    /// The process; null if it is not known.
    pub(crate) pid: Option<u32>,
    /// The frame up to which a reader reads the log; null for other roles.
    pub(crate) frame: Option<u32>,
    /// For how long it was seen in this role, at least, in seconds.
    pub(crate) seen_s: f64,
}

/// A writer in the queue.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct WaitingFigures {
    /// Its process; null if that is in another container.
    pub(crate) pid: Option<u32>,
    /// Its thread.
    pub(crate) thread: u32,
    /// For how long it has waited, in seconds.
    pub(crate) waited_s: f64,
}

/// What has happened since the first look, and before it as far as the files tell.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, JsonSchema)]
pub(crate) struct Totals {
    /// Commits; the first look counts those since the last recovery.
    pub(crate) commits: u64,
    /// Frames of commits; the first look counts those in the log.
    pub(crate) frames: u64,
    /// Restarts of the log.
    pub(crate) restarts: u64,
    /// Recoveries of the index that were noticed.
    pub(crate) recoveries: u64,
}

/// Events in a second.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize, JsonSchema)]
pub(crate) struct Rates {
    /// Commits in a second.
    pub(crate) commits: f64,
    /// Frames of commits in a second.
    pub(crate) frames: f64,
    /// By how many bytes the log file grew in a second; negative if it was cut.
    pub(crate) log_bytes: f64,
}

/// Looks at one database again and again.
#[derive(Debug)]
pub(crate) struct Sampler {
    path: PathBuf,
    census: Option<Counted>,
    /// Since when each holder is seen with the same lock and mark.
    seen: HashMap<(Option<u32>, &'static str, Option<u32>), Instant>,
    before: Option<Before>,
    totals: Totals,
}

#[derive(Debug)]
struct Counted {
    census: Census,
    at: Instant,
    took: Duration,
}

/// What of a header tells what has happened since another one.
#[derive(Clone, Copy, Debug)]
struct Published {
    salts: Salts,
    commits: u32,
    frames: u32,
}

impl Published {
    fn of(header: &IndexHeader) -> Self {
        Published {
            salts: header.salts(),
            commits: header.change(),
            frames: header.max_frame(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Before {
    at: Instant,
    published: Published,
    totals: Totals,
    log_bytes: u64,
}

impl Sampler {
    pub(crate) fn new(path: &Path) -> Self {
        Sampler {
            path: path.to_owned(),
            census: None,
            seen: HashMap::new(),
            before: None,
            totals: Totals::default(),
        }
    }

    /// The path of the database, as it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks. An error tells that the database is not there now; it may be at the next look.
    pub(crate) fn look(&mut self) -> anyhow::Result<Sample> {
        let began = Instant::now();
        let time = units::time(SystemTime::now());
        let path = resolve(&self.path)?;
        // As in `Figures::of`: the holders before the marks.
        self.count_holders(&path)?;
        let look = Look::without_recovery(&path)?;
        // A side file that cannot be read, by its mode or because it is replaced at this
        // moment, shows no queue.
        let queue = SideView::of(&path).ok().flatten();
        let queue = queue.map(|view| waiting(&view)).unwrap_or_default();
        let header = look.index.as_ref().and_then(IndexInfo::valid_header);
        let log_bytes = look.log.as_ref().map_or(0, |(_, info)| info.len);
        let sequence = look.log.as_ref().and_then(|(_, info)| info.valid_header());
        let sequence = sequence.map_or(0, |header| header.sequence);
        let rates = self.advance(header, sequence, log_bytes, began);
        let (roles, figures, census_age_s) = match &self.census {
            Some(counted) => {
                let roles = roles(&counted.census, look.index.as_ref(), &queue);
                let figures = Figures::put_together(time, &look, &counted.census);
                (roles, figures, counted.at.elapsed().as_secs_f64())
            }
            None => {
                let figures = Figures::put_together(time, &look, &Census::default());
                (Vec::new(), figures, 0.0)
            }
        };
        let roles = self.since(roles, began);
        Ok(Sample {
            figures,
            roles,
            queue,
            totals: self.totals,
            rates,
            census_age_s,
            look_s: began.elapsed().as_secs_f64(),
        })
    }

    fn count_holders(&mut self, path: &Path) -> anyhow::Result<()> {
        let is_due = self.census.as_ref().is_none_or(|counted| {
            counted.at.elapsed() >= CENSUS_INTERVAL.max(counted.took * CENSUS_SHARE)
        });
        if is_due {
            let began = Instant::now();
            let census = Census::take(path, CENSUS_BUDGET)?;
            self.census = Some(Counted {
                census,
                at: began,
                took: began.elapsed(),
            });
        }
        Ok(())
    }

    /// Counts what has happened since the header before. A header that is not sound is
    /// skipped: the next sound one is compared with the last sound one.
    fn advance(
        &mut self,
        header: Option<&IndexHeader>,
        sequence: u32,
        log_bytes: u64,
        at: Instant,
    ) -> Option<Rates> {
        let published = Published::of(header?);
        match self.before {
            None => {
                self.totals = Totals {
                    commits: published.commits.into(),
                    frames: published.frames.into(),
                    restarts: sequence.into(),
                    recoveries: 0,
                };
            }
            Some(before) => count_between(&mut self.totals, before.published, published),
        }
        let totals = self.totals;
        let before = self.before.replace(Before {
            at,
            published,
            totals,
            log_bytes,
        })?;
        let seconds = at.duration_since(before.at).as_secs_f64().max(1e-6);
        let growth = log_bytes as f64 - before.log_bytes as f64;
        Some(Rates {
            commits: (totals.commits - before.totals.commits) as f64 / seconds,
            frames: (totals.frames - before.totals.frames) as f64 / seconds,
            log_bytes: growth / seconds,
        })
    }

    /// Notes since when each row is seen, and forgets the rows that are gone.
    fn since(&mut self, mut rows: Vec<RoleFigures>, at: Instant) -> Vec<RoleFigures> {
        let mut seen = HashMap::new();
        for row in &mut rows {
            let key = (row.pid, row.role, row.frame);
            let since = self.seen.get(&key).copied().unwrap_or(at);
            if row.role != "waiting" {
                row.seen_s = at.duration_since(since).as_secs_f64();
            }
            seen.insert(key, since);
        }
        self.seen = seen;
        rows
    }
}

/// Counts what has happened between two headers. The counter of commits wraps at 32 bits, and
/// a recovery sets it to 0. Salt 1 is incremented at each restart, and random in a new log.
fn count_between(totals: &mut Totals, before: Published, now: Published) {
    const HALF: u32 = u32::MAX / 2;
    let commits = now.commits.wrapping_sub(before.commits);
    if commits <= HALF {
        totals.commits += u64::from(commits);
    } else {
        totals.commits += u64::from(now.commits);
        totals.recoveries += 1;
    }
    if now.salts == before.salts {
        totals.frames += u64::from(now.frames.saturating_sub(before.frames));
    } else {
        let restarts = first_salt(now.salts).wrapping_sub(first_salt(before.salts));
        // More restarts than commits are none: it is a new log.
        let is_same_log = restarts <= commits && commits <= HALF;
        totals.restarts += u64::from(if is_same_log { restarts } else { 1 });
        totals.frames += u64::from(now.frames);
    }
}

fn first_salt(Salts([a, b, c, d, ..]): Salts) -> u32 {
    u32::from_be_bytes([a, b, c, d])
}

fn waiting(view: &SideView) -> Vec<WaitingFigures> {
    let mut writers = view.wait_state().writer_queue().waiting_writers(now());
    writers.sort_by_key(|writer| writer.ahead);
    let all = writers.into_iter().map(|writer| WaitingFigures {
        pid: writer.process.pid(),
        thread: writer.thread,
        waited_s: writer.waited.as_secs_f64(),
    });
    all.collect()
}

/// The rows of the processes, those that keep others waiting first.
fn roles(census: &Census, index: Option<&IndexInfo>, queue: &[WaitingFigures]) -> Vec<RoleFigures> {
    let row = |role, pid, frame, seen_s| RoleFigures {
        role,
        pid,
        frame,
        seen_s,
    };
    let mut rows: Vec<RoleFigures> = Vec::new();
    for held in census.held() {
        let (role, frame) = match held.byte {
            LockByte::Protocol(Lock::Write) => ("writer", None),
            LockByte::Protocol(Lock::Checkpoint) => ("checkpointer", None),
            LockByte::Protocol(Lock::Recover) => ("recoverer", None),
            LockByte::Protocol(Lock::Read(slot)) => ("reader", frame_of(index, slot)),
            _ => continue,
        };
        rows.push(row(role, held.pid, frame, 0.0));
    }
    for waiting in queue {
        rows.push(row("waiting", waiting.pid, None, waiting.waited_s));
    }
    for pid in census.processes.keys() {
        if rows.iter().all(|row| row.pid != Some(*pid)) {
            rows.push(row("idle", Some(*pid), None, 0.0));
        }
    }
    rows
}

fn frame_of(index: Option<&IndexInfo>, slot: ReadSlot) -> Option<u32> {
    index.and_then(|index| index.mark(slot))
}

impl Sample {
    /// The frames between the oldest reader of the log and its end; 0 if none is behind.
    pub(crate) fn oldest_reader_lag(&self) -> u32 {
        let frames = self.figures.log.as_ref().map_or(0, |log| log.frames);
        let pins = crate::figures::pins(&self.figures.slots, frames);
        let oldest = pins.filter_map(|slot| slot.frame).min();
        oldest.map_or(0, |frame| frames - frame)
    }

    /// The committed frames that are not in the database file.
    pub(crate) fn not_backfilled(&self) -> u32 {
        let log = self.figures.log.as_ref();
        log.map_or(0, |log| log.frames.saturating_sub(log.backfilled))
    }

    /// The process of a row.
    pub(crate) fn process(&self, row: &RoleFigures) -> Option<&ProcessFigures> {
        row.pid.and_then(|pid| self.figures.process(pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(salt: u32, commits: u32, frames: u32) -> Published {
        let [a, b, c, d] = salt.to_be_bytes();
        Published {
            salts: Salts([a, b, c, d, 9, 9, 9, 9]),
            commits,
            frames,
        }
    }

    fn between(before: Published, after: Published) -> (u64, u64, u64, u64) {
        let mut totals = Totals::default();
        count_between(&mut totals, before, after);
        (
            totals.commits,
            totals.frames,
            totals.restarts,
            totals.recoveries,
        )
    }

    #[test]
    fn commits_of_one_generation_are_counted() {
        assert_eq!(between(header(7, 2, 10), header(7, 5, 16)), (3, 6, 0, 0));
        assert_eq!(between(header(7, 2, 10), header(7, 2, 10)), (0, 0, 0, 0));
    }

    #[test]
    fn restarts_are_counted_by_the_first_salt() {
        assert_eq!(between(header(7, 2, 10), header(8, 3, 4)), (1, 4, 1, 0));
        assert_eq!(between(header(7, 2, 10), header(10, 9, 4)), (7, 4, 3, 0));
        let wrapped = between(header(u32::MAX, 2, 10), header(0, 3, 4));
        assert_eq!(wrapped, (1, 4, 1, 0));
    }

    #[test]
    fn counter_of_commits_wraps() {
        let before = header(7, u32::MAX - 1, 10);
        assert_eq!(between(before, header(7, 1, 16)), (3, 6, 0, 0));
    }

    #[test]
    fn counter_that_falls_is_a_recovery() {
        assert_eq!(between(header(7, 5, 10), header(7, 0, 10)), (0, 0, 0, 1));
        assert_eq!(between(header(7, 5, 10), header(99, 1, 3)), (1, 3, 1, 1));
    }
}
