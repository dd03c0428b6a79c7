//! Keeps the log of one database short.
//!
//! It waits for a write to the log, looks at the index, and runs a checkpoint if that is worth it.
//! While nothing is written it does nothing, but for a look each [`SAFETY`].
//!
//! It observes, and has the database open only while it makes checkpoints. So the last application
//! that closes the database removes the log, and no log stays beside a database that is replaced
//! while no application has it open.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wal::{BusyHandler, Cancel, CheckpointMode, CheckpointOptions, CheckpointReport, Database};
use wal_core::format::FRAME_HEADER_LEN;
use wal_core::inspect::{Content, read_index};
use wal_core::storage::LogWatch;
use wal_shm::inspect::DatabaseFile;

use super::policy::{Limits, LogLength};
use super::report::{KeepEvent, KeepTotals};
use crate::commands::checkpoint::HeldBackFigures;
use crate::commands::open::open;
use crate::interrupt::Interrupt;
use crate::look::{Look, observe};
use crate::output::Output;
use crate::output::units;

/// How long it waits without an event: one may be lost, and stores to a mapped log are none.
const SAFETY: Duration = Duration::from_secs(10);
/// The least time between two looks, so that a busy database costs little.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a restart waits for readers and writers.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it waits after a restart that was held back, at first and at most: the end of a reader
/// is no event.
const RETRY: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];
/// The least time between two events of one kind.
const LINE: Duration = Duration::from_secs(1);

/// Keeps the log of one database short.
pub(super) struct Keeper<'a> {
    path: &'a Path,
    limits: Limits,
    output: &'a Output,
    cancel: &'a Cancel,
    interrupt: Interrupt,
    totals: KeepTotals,
    /// The longest time for which writers waited since the last event.
    held_up: Duration,
    /// The last event, and when it was printed.
    last: Option<(KeepEvent, Instant)>,
}

/// The database while it is there.
struct Kept {
    path: PathBuf,
    /// Where its log is.
    log: PathBuf,
    watch: Option<LogWatch>,
    /// Open while checkpoints follow each other.
    database: Option<Database>,
}

/// How a checkpoint went.
enum Outcome {
    /// It reached its goal, or the command was asked to end.
    Done,
    /// Another checkpoint runs, which ends soon.
    Busy,
    /// A reader or the writers held it back.
    HeldBack,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(
        path: &'a Path,
        limits: Limits,
        output: &'a Output,
        cancel: &'a Cancel,
        interrupt: Interrupt,
    ) -> Self {
        Keeper {
            path,
            limits,
            output,
            cancel,
            interrupt,
            totals: KeepTotals::default(),
            held_up: Duration::ZERO,
            last: None,
        }
    }

    /// Keeps the log short until the command is asked to end. Calls `has_begun` once the
    /// database was tried for the first time.
    pub(super) fn run(mut self, has_begun: impl FnOnce()) {
        let mut has_begun = Some(has_begun);
        let mut pause = RETRY[0];
        while !self.is_over() {
            let found = Kept::find(self.path);
            if let Some(has_begun) = has_begun.take() {
                has_begun();
            }
            match found {
                Ok(kept) => {
                    self.print("watching", None, kept.log_len());
                    match self.keep(kept) {
                        Ok(()) => pause = RETRY[0],
                        Err(error) => self.print("failed", Some(format!("{error:#}")), 0),
                    }
                }
                Err(error) => self.print("waiting", Some(format!("{error:#}")), 0),
            }
            pause = (pause * 2).min(RETRY[1]);
            self.sleep(pause);
        }
        self.last = None;
        self.print("stopped", None, 0);
    }

    fn is_over(&self) -> bool {
        self.interrupt.is_set() || self.cancel.is_cancelled()
    }

    /// Works until the command is asked to end, or the database is gone.
    fn keep(&mut self, mut kept: Kept) -> anyhow::Result<()> {
        let mut retry = RETRY[0];
        while !self.is_over() && kept.path.exists() {
            let mut wait = SAFETY;
            let log = kept.log_length()?;
            match log.and_then(|log| self.limits.checkpoint(log)) {
                None => kept.close()?,
                Some(mode) => match self.checkpoint(&mut kept, mode)? {
                    Outcome::Done => {
                        retry = RETRY[0];
                        wait = Duration::ZERO;
                    }
                    Outcome::Busy => wait = RETRY[0],
                    Outcome::HeldBack => {
                        retry = (retry * 2).min(RETRY[1]);
                        wait = retry;
                    }
                },
            }
            let began = Instant::now();
            kept.wait(self.interrupt, wait);
            // Many commits are looked at together.
            self.sleep(PAUSE.saturating_sub(began.elapsed()));
        }
        kept.close()
    }

    /// Runs a checkpoint.
    fn checkpoint(&mut self, kept: &mut Kept, mode: CheckpointMode) -> anyhow::Result<Outcome> {
        let log_bytes = kept.log_len();
        let options = CheckpointOptions::new(mode)
            .busy(BusyHandler::timeout(PATIENCE).cancelled_by(self.cancel))
            .max_block(self.limits.max_block);
        let before = kept.log_length()?;
        let checkpoint = kept.open().and_then(|of| of.checkpoint_with(options));
        let report = match checkpoint {
            Ok(report) => report,
            Err(wal::Error::Cancelled) => return Ok(Outcome::Done),
            Err(error) if error.is_busy() => return Ok(Outcome::Busy),
            Err(error) => return Err(error.into()),
        };
        let after = kept.log_length()?;
        self.count(&report, before, after);
        let committed = |log: Option<LogLength>| log.map_or(0, |log| log.committed);
        if mode == CheckpointMode::Passive {
            return Ok(match report.held_back_by {
                None => Outcome::Done,
                Some(_) => Outcome::HeldBack,
            });
        }
        if committed(after) < committed(before) {
            // Whatever of the file is left to be cut is cut by the next checkpoints.
            self.totals.restarts += 1;
            self.print("restarted", None, log_bytes);
            return Ok(Outcome::Done);
        }
        let Some(held_back) = &report.held_back_by else {
            return Ok(Outcome::Done);
        };
        self.totals.held_back += 1;
        let held_back = HeldBackFigures::of(held_back);
        self.print_event(KeepEvent {
            held_back_by: Some(held_back),
            ..self.event("held back", kept.log_len())
        });
        Ok(Outcome::HeldBack)
    }

    fn count(
        &mut self,
        report: &CheckpointReport,
        before: Option<LogLength>,
        after: Option<LogLength>,
    ) {
        let held_up = report.writers_held_up;
        self.held_up = self.held_up.max(held_up);
        self.totals.longest_block_s = self.totals.longest_block_s.max(held_up.as_secs_f64());
        self.totals.checkpoints += 1;
        let to_copy = |log: Option<LogLength>| u64::from(log.map_or(0, |log| log.frames_to_copy));
        self.totals.frames += to_copy(before).saturating_sub(to_copy(after));
    }

    fn event(&self, event: &'static str, log_bytes: u64) -> KeepEvent {
        KeepEvent {
            path: self.path.display().to_string(),
            time: units::time(SystemTime::now()),
            event,
            reason: None,
            log_bytes,
            writers_held_up_s: self.held_up.as_secs_f64(),
            held_back_by: None,
            totals: self.totals.clone(),
        }
    }

    fn print(&mut self, event: &'static str, reason: Option<String>, log_bytes: u64) {
        let event = self.event(event, log_bytes);
        self.print_event(KeepEvent { reason, ..event });
    }

    /// Prints an event, unless it says the same as the last one, or one of its kind was printed
    /// just now.
    fn print_event(&mut self, event: KeepEvent) {
        if let Some((last, at)) = &self.last {
            let holders = |event: &KeepEvent| {
                let held_back = event.held_back_by.as_ref();
                held_back.map(|by| by.holders.iter().map(|of| of.pid).collect::<Vec<_>>())
            };
            let is_same = last.event == event.event && last.reason == event.reason;
            let is_known = event.event != "restarted" && holders(last) == holders(&event);
            if is_same && (is_known || at.elapsed() < LINE) {
                return;
            }
        }
        // A reader of a pipe that has gone ends the command.
        if self.output.print(&event).is_err() {
            self.cancel.cancel();
        }
        self.held_up = Duration::ZERO;
        self.last = Some((event, Instant::now()));
    }

    /// Sleeps, or until the command is asked to end.
    fn sleep(&self, time: Duration) {
        let mut signals = [PollFd::new(self.interrupt.descriptor(), PollFlags::POLLIN)];
        let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        // An interrupted sleep is a short one.
        let _ = poll(&mut signals, time);
    }
}

impl Kept {
    /// The database at `path`, if it is there and has a log.
    fn find(path: &Path) -> anyhow::Result<Self> {
        let look = Look::without_recovery(path)?;
        if let Content::Sqlite(header) = look.database_info.content
            && !header.is_wal()
            && look.log.is_none()
        {
            anyhow::bail!("it is in rollback mode, and has no log");
        }
        Ok(Kept {
            log: DatabaseFile::Log.path(&look.path),
            watch: LogWatch::of(&look.path).ok(),
            path: look.path,
            database: None,
        })
    }

    /// Has the database open.
    fn open(&mut self) -> wal::Result<&Database> {
        let opened = match self.database.take() {
            Some(database) => database,
            None => open(&self.path, PATIENCE)?,
        };
        Ok(self.database.insert(opened))
    }

    /// Leaves the database to its applications. If there is none any more, it is left as the last
    /// of them would have left it.
    fn close(&mut self) -> anyhow::Result<()> {
        match self.database.take() {
            Some(database) => Ok(database.close()?),
            None => Ok(()),
        }
    }

    fn log_len(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |log| log.len())
    }

    /// How long the log is; `None` if the index does not tell.
    fn log_length(&self) -> anyhow::Result<Option<LogLength>> {
        let Some(shm) = observe(&DatabaseFile::Index.path(&self.path))? else {
            return Ok(None);
        };
        let Some(index) = read_index(&shm)? else {
            return Ok(None);
        };
        let page_size = index.valid_header().and_then(|header| header.page_size());
        Ok(page_size.map(|page_size| {
            let frame_len = FRAME_HEADER_LEN + page_size.len();
            LogLength::of(&index, frame_len as u64, self.log_len())
        }))
    }

    /// Waits for a write to the log, for `time` at most, or until the command is asked to end.
    fn wait(&mut self, interrupt: Interrupt, time: Duration) {
        let also = Some(interrupt.descriptor());
        let waited = match &mut self.watch {
            Some(watch) => watch.wait(also, time).map(drop),
            None => Err(std::io::ErrorKind::Unsupported.into()),
        };
        if waited.is_err() {
            // Without events it looks once in a while.
            self.watch = None;
            let mut signals = [PollFd::new(interrupt.descriptor(), PollFlags::POLLIN)];
            let time = PollTimeout::try_from(time.min(RETRY[0])).unwrap_or(PollTimeout::MAX);
            let _ = poll(&mut signals, time);
        }
    }
}
