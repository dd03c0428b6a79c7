//! `walctl info`

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::processes;
use crate::exit::Exit;
use crate::figures::{CheckpointFigures, Figures, FileFigures, LogFigures, SlotFigures};
use crate::output::units::{bytes, count, duration};
use crate::output::{DIM, GOOD, Output, Report, STRONG, Table, WARN, escape, paint};

/// Shows how long the log is, what a checkpoint would do now, and which process blocks it.
///
/// It acquires no lock and writes nothing. The figures are those of a moment: a database in use
/// may have changed when they are printed.
#[derive(Args)]
#[command(after_help = "Examples:
  walctl info app.db
  walctl info --json app.db | jq '.log.frames - .log.backfilled'")]
pub(crate) struct Info {
    /// The database.
    database: PathBuf,
    /// How long to search for the processes that hold locks.
    #[arg(long, value_name = "TIME", default_value = "500ms")]
    budget: humantime::Duration,
}

impl Info {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let budget: Duration = self.budget.into();
        output.print(&Figures::with_recovery_time(&self.database, budget)?)?;
        Ok(Exit::Done)
    }
}

impl Report for Figures {
    const KIND: &'static str = "info";

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", paint(STRONG, escape(&self.path)))?;
        self.write_database(out)?;
        match &self.log {
            Some(log) => write_log(log, out)?,
            None => line(out, "log", "none")?,
        }
        line(out, "index", self.index)?;
        for (name, files) in by_owner(&self.files) {
            line(out, "owner", &format!("{name}: {files}"))?;
        }
        self.write_slots(out)?;
        self.write_checkpoints(out)?;
        processes::write(&self.processes, out)?;
        for unseen in &self.unseen {
            writeln!(out, "\n{} {unseen}", paint(WARN, "not seen:"))?;
        }
        Ok(())
    }
}

fn line(out: &mut dyn Write, name: &str, value: &str) -> io::Result<()> {
    writeln!(out, "  {} {value}", paint(DIM, format!("{name:<10}")))
}

impl Figures {
    fn write_database(&self, out: &mut dyn Write) -> io::Result<()> {
        let database = &self.database;
        let kind = match (database.kind, database.journal_mode) {
            ("sqlite", Some("wal")) => "SQLite database in WAL mode",
            ("sqlite", _) => "SQLite database in rollback mode: it has no log",
            ("page store", _) => "page store",
            ("damaged page store", _) => "page store whose header is damaged",
            ("newer page store", _) => "page store of a newer version",
            ("empty", _) => "empty file",
            _ => "neither a SQLite database nor a page store, or encrypted",
        };
        line(out, "kind", kind)?;
        let pages = database.pages.map_or("unknown".to_owned(), count);
        let of = database.page_size.map(|size| format!(" of {size} bytes"));
        let size = bytes(database.bytes);
        let of = of.unwrap_or_default();
        line(out, "pages", &format!("{pages}{of}; {size} on disk"))
    }

    fn write_slots(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.slots.is_empty() {
            return Ok(());
        }
        writeln!(out, "\n{}", paint(STRONG, "Read slots"))?;
        let mut table = Table::new(["SLOT", "UP TO FRAME", "HELD", "BY"]).figures([1]);
        for slot in &self.slots {
            let frame = match (slot.slot, slot.frame) {
                (0, _) => "database".to_owned(),
                (_, frame) => frame.map_or("-".to_owned(), count),
            };
            let held = slot.held.unwrap_or("free").to_owned();
            table.row([slot.lock(), frame, held, holders(slot)]);
        }
        table.write(out, "  ")
    }

    fn write_checkpoints(&self, out: &mut dyn Write) -> io::Result<()> {
        let (false, Some(log)) = (self.checkpoints.is_empty(), &self.log) else {
            return Ok(());
        };
        writeln!(out, "\n{}", paint(STRONG, "A checkpoint now"))?;
        for checkpoint in &self.checkpoints {
            let name = format!("{:<9}", checkpoint.mode);
            writeln!(out, "  {name} {}", outcome(checkpoint, log))?;
        }
        Ok(())
    }
}

fn write_log(log: &LogFigures, out: &mut dyn Write) -> io::Result<()> {
    let left = log.frames - log.backfilled.min(log.frames);
    let (frames, size) = (count(log.frames), bytes(log.bytes));
    let left = match left {
        0 => paint(GOOD, "all of them in the database"),
        left => format!("{} of them not yet in the database", count(left)),
    };
    let frames = format!("{frames} frames, {left}; {size} on disk");
    line(out, "log", &frames)?;
    if let Some(seconds) = log.recovery_s {
        let time = duration(Duration::from_secs_f64(seconds));
        line(
            out,
            "recovery",
            &format!("about {time} to rebuild the index after a crash"),
        )?;
    }
    if let Some(generation) = &log.generation {
        let sequence = log.checkpoint_sequence;
        let sequence = sequence.map_or(String::new(), |n| format!(", checkpoint sequence {n}"));
        line(out, "generation", &format!("{generation}{sequence}"))?;
    }
    Ok(())
}

/// The processes that hold a slot.
fn holders(slot: &SlotFigures) -> String {
    let known = slot.holders.iter().map(u32::to_string);
    let unknown = slot.has_unknown_holders.then(|| "unknown".to_owned());
    let all: Vec<String> = known.chain(unknown).collect();
    all.join(", ")
}

/// What a checkpoint would do, in words.
fn outcome(checkpoint: &CheckpointFigures, log: &LogFigures) -> String {
    let moved = checkpoint.backfilled.saturating_sub(log.backfilled);
    let moved = match moved {
        0 => "moves nothing".to_owned(),
        moved => format!("moves {} frames", count(moved)),
    };
    let Some(blocker) = &checkpoint.blocked_by else {
        let end = match checkpoint.mode {
            "restart" => ", and the next commit writes the log from its start",
            "truncate" => ", and cuts the log to nothing",
            _ => "",
        };
        return format!("{moved}{end}");
    };
    let by = match &blocker.holders[..] {
        [] => "a process that is not known".to_owned(),
        [pid] => format!("process {pid}"),
        pids => {
            let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
            format!("processes {}", pids.join(", "))
        }
    };
    let at = match blocker.frame {
        Some(frame) => format!(" at frame {}", count(frame)),
        None => String::new(),
    };
    let lock = &blocker.lock;
    let held = paint(WARN, format!("held back{at} by {by}"));
    format!("{moved}, {held} ({lock})")
}

/// The files of each owner and mode.
fn by_owner(files: &[FileFigures]) -> Vec<(String, String)> {
    let mut owners: Vec<(String, Vec<&str>)> = Vec::new();
    for file in files {
        let name = format!("{} ({})", escape(&file.owner), file.mode);
        match owners.iter_mut().find(|(owner, _)| *owner == name) {
            Some((_, files)) => files.push(file.file),
            None => owners.push((name, vec![file.file])),
        }
    }
    let joined = owners.into_iter();
    joined
        .map(|(name, files)| (name, files.join(", ")))
        .collect()
}
