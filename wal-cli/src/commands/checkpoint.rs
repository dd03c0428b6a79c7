//! `walctl checkpoint`

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use schemars::JsonSchema;
use serde::Serialize;
use wal::{
    BusyHandler, CheckpointMode, CheckpointOptions, CheckpointProgress, CheckpointReport, HeldBack,
};
use wal_core::Lock;
use wal_shm::inspect::{LockByte, ProcessInfo};

use super::open::{PATIENCE, open};
use super::processes;
use crate::exit::Exit;
use crate::figures::ProcessFigures;
use crate::interrupt;
use crate::look::resolve;
use crate::output::units::{bytes, count, duration};
use crate::output::{Output, Report, WARN, escape, paint};

/// Moves the frames of the log into the database file.
///
/// Passive copies what it can and keeps no writer waiting. Full copies all; restart lets the log be
/// written from its start again; truncate cuts it to nothing, too. These wait for readers and
/// writers up to `--timeout`, but keep writers waiting for `--max-block` at once only.
///
/// The database is opened as by any program that uses it: where no other program has it open,
/// the log is gone at the end.
#[derive(Args)]
#[command(after_help = "Examples:
  walctl checkpoint app.db
  walctl checkpoint app.db --mode truncate --timeout 30s
  walctl checkpoint app.db --mode restart --max-block 5ms

It ends with 3 if it did not get as far as the mode asks for, and says what held it back.")]
pub(crate) struct Checkpoint {
    /// The database.
    database: PathBuf,
    /// How far to go.
    #[arg(long, value_enum, default_value_t = Mode::Passive)]
    mode: Mode,
    /// How long to wait for readers and writers.
    #[arg(long, value_name = "TIME", default_value = "5s")]
    timeout: humantime::Duration,
    /// For how long writers may be kept waiting at once.
    #[arg(long, value_name = "TIME", default_value = "20ms")]
    max_block: humantime::Duration,
}

/// How far a checkpoint goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Mode {
    /// Copies what it can without waiting.
    Passive,
    /// Copies all.
    Full,
    /// Copies all, and the log is written from its start.
    Restart,
    /// Copies all, and cuts the log to nothing.
    Truncate,
}

impl From<Mode> for CheckpointMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Passive => CheckpointMode::Passive,
            Mode::Full => CheckpointMode::Full,
            Mode::Restart => CheckpointMode::Restart,
            Mode::Truncate => CheckpointMode::Truncate,
        }
    }
}

/// What a checkpoint did.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CheckpointDone {
    /// The path of the database, without symbolic links.
    path: String,
    /// `passive`, `full`, `restart` or `truncate`.
    mode: &'static str,
    /// The committed frames that are in the log afterwards.
    log_frames: u32,
    /// Those of them that are in the database file.
    backfilled: u32,
    /// Bytes that were cut from the log file.
    log_bytes_cut: u64,
    /// Bytes that were cut from the database file.
    database_bytes_cut: u64,
    /// The longest time for which writers were kept waiting at once, in seconds.
    writers_held_up_s: f64,
    /// How long it took, in seconds.
    seconds: f64,
    /// What held it back; null if nothing did.
    held_back_by: Option<HeldBackFigures>,
}

/// What held a checkpoint back.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub(crate) struct HeldBackFigures {
    /// The name of the lock in SQLite, or `READ(1-4)` for any reader of the log.
    pub(crate) lock: String,
    /// The frame up to which its holders read the log; null if they are no readers of older
    /// states.
    pub(crate) frame: Option<u32>,
    /// The processes that hold it, as far as they are known.
    pub(crate) holders: Vec<ProcessFigures>,
}

impl Checkpoint {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let cancel = interrupt::cancel()?;
        let database = open(&resolve(&self.database)?, PATIENCE)?;
        let began = Instant::now();
        let timeout: Duration = self.timeout.into();
        let mut shown = output.progress("copying", 0);
        let mut progress = |state: CheckpointProgress| {
            shown.set(state.copied as u64, state.pages as u64);
        };
        let options = CheckpointOptions::new(self.mode.into())
            .busy(BusyHandler::timeout(timeout).cancelled_by(&cancel))
            .max_block(self.max_block.into())
            .progress(&mut progress);
        let outcome = database.checkpoint_with(options);
        drop(shown);
        let report = CheckpointDone {
            path: database.path().display().to_string(),
            mode: self.mode.name(),
            ..CheckpointDone::of(&outcome?, began.elapsed())
        };
        database.close()?;
        output.print(&report)?;
        Ok(match report.held_back_by {
            None => Exit::Done,
            Some(_) => Exit::Busy,
        })
    }
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Passive => "passive",
            Mode::Full => "full",
            Mode::Restart => "restart",
            Mode::Truncate => "truncate",
        }
    }
}

impl CheckpointDone {
    fn of(report: &CheckpointReport, time: Duration) -> Self {
        CheckpointDone {
            path: String::new(),
            mode: "",
            log_frames: report.log_frames,
            backfilled: report.backfilled,
            log_bytes_cut: report.log_bytes_cut,
            database_bytes_cut: report.database_bytes_cut,
            writers_held_up_s: report.writers_held_up.as_secs_f64(),
            seconds: time.as_secs_f64(),
            held_back_by: report.held_back_by.as_ref().map(HeldBackFigures::of),
        }
    }
}

impl HeldBackFigures {
    pub(crate) fn of(held_back: &HeldBack) -> Self {
        let processes = held_back.holders.iter().map(|pid| ProcessInfo::of(*pid));
        HeldBackFigures {
            lock: match held_back.lock {
                Lock::ReadMarks => "READ(1-4)".to_owned(),
                Lock::Readers => "READ(0-4)".to_owned(),
                lock => LockByte::Protocol(lock).to_string(),
            },
            frame: held_back.mark,
            holders: processes
                .map(|process| ProcessFigures::of(&process))
                .collect(),
        }
    }
}

impl fmt::Display for HeldBackFigures {
    /// `READ(1) at frame 7 of process 12 (python3 app.py)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lock)?;
        if let Some(frame) = self.frame {
            write!(f, " at frame {}", count(frame))?;
        }
        let holders = self.holders.iter();
        let holders: Vec<String> = holders
            .map(|process| format!("process {} ({})", process.pid, processes::command(process)))
            .collect();
        match &holders[..] {
            [] => f.write_str(" of a process that is not known"),
            holders => write!(f, " of {}", holders.join(", ")),
        }
    }
}

impl Report for CheckpointDone {
    const KIND: &'static str = "checkpoint";

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let (frames, backfilled) = (self.log_frames, self.backfilled);
        let left = match frames - backfilled.min(frames) {
            0 if frames == 0 => "the log is empty".to_owned(),
            0 => format!(
                "all {} frames of the log are in the database",
                count(frames)
            ),
            left => format!(
                "{} of {} frames are in the database, {} are left",
                count(backfilled),
                count(frames),
                count(left)
            ),
        };
        let time = duration(Duration::from_secs_f64(self.seconds));
        let held_up = match Duration::from_secs_f64(self.writers_held_up_s) {
            Duration::ZERO => "no writer waited".to_owned(),
            held_up => format!("writers waited for {} at most", duration(held_up)),
        };
        writeln!(out, "{}: {left} ({time}; {held_up})", escape(&self.path))?;
        if self.log_bytes_cut > 0 {
            writeln!(out, "{} were cut from the log", bytes(self.log_bytes_cut))?;
        }
        if let Some(held_back) = &self.held_back_by {
            writeln!(out, "{} {held_back}", paint(WARN, "held back by"))?;
        }
        Ok(())
    }
}
