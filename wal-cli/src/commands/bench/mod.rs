//! `walctl bench`: what a machine and a file system give.
//!
//! | file | what it owns |
//! |---|---|
//! | `measure` | the measurements, each within its part of the time |
//! | `folder` | the temporary folder, which is removed at every end but SIGKILL |
//! | `judgement` | what a figure means for a user of a database |

mod folder;
mod judgement;
mod measure;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use wal::Synchronous;
use wal_shm::inspect::{FileSystem, FileSystemType};

use self::folder::Folder;
use self::measure::Run;
use crate::exit::Exit;
use crate::interrupt;
use crate::output::{Output, Report, STRONG, Table, WARN, escape, paint, units};

/// Measures what this machine and this file system give.
///
/// It says how long a sync takes, which decides how many durable commits a disk can do, and
/// how fast locks, wake-ups, commits and reads of this library are there.
#[derive(Args)]
#[command(after_help = "Examples:
  walctl bench /var/lib/app               where the database is, or is to be
  walctl bench /var/lib/app --seconds 60  long enough to see how steady the disk is
  walctl bench /mnt/new --json            to compare disks

It writes up to 100 MB to a folder of its own in DIRECTORY and removes that at its end. Other
programs that use the disk meanwhile slow it down, and are slowed down.")]
pub(crate) struct Bench {
    /// The directory to measure in.
    directory: PathBuf,
    /// How long all measurements take together.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
}

/// What a machine and a file system give.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BenchReport {
    /// The directory, without symbolic links.
    directory: String,
    /// The type of its file system.
    file_system: String,
    /// Whether locks and shared memory reach all users of files on it: false on a network
    /// file system, or one that is shared between a host and its guests.
    is_shared_memory_sound: bool,
    /// The space that is free, in bytes.
    free_bytes: u64,
    /// How long 4 KiB take that are appended to a file and synced (`fdatasync`).
    sync_append: Latency,
    /// How long 4 KiB take that overwrite a part of a file and are synced.
    sync_overwrite: Latency,
    /// How many bytes a second are written one after the other, with their sync.
    write_bytes_per_s: f64,
    /// How long a lock on a byte of a file takes, with its release, in seconds.
    lock_s: f64,
    /// How long a commit without syncs and the wake-up of a thread that waits for it take.
    wake_up: Latency,
    /// The commits of one page by one writer of this library.
    commits: Vec<CommitRate>,
    /// How long a read transaction of one page takes, in seconds.
    read_s: f64,
    /// What is wrong with this place for a database, a sentence each.
    warnings: Vec<String>,
    /// How long all of it took, in seconds.
    elapsed_s: f64,
}

/// Times of one operation that was repeated.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Latency {
    /// How often it was done.
    count: u64,
    /// Half of the times were no longer, in seconds.
    median_s: f64,
    /// 99 of 100 were no longer, in seconds.
    p99_s: f64,
    /// The longest one, in seconds.
    max_s: f64,
}

/// How fast commits are.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CommitRate {
    /// `off`, `normal` or `full`, as `PRAGMA synchronous`.
    synchronous: &'static str,
    /// How many there are in a second, with the automatic checkpoints.
    per_s: f64,
}

const LEVELS: [(Synchronous, &str); 3] = [
    (Synchronous::Off, "off"),
    (Synchronous::Normal, "normal"),
    (Synchronous::Full, "full"),
];

impl Bench {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let started = Instant::now();
        let interrupt = interrupt::catch()?;
        let folder = Folder::make(&self.directory)?;
        let file_system = FileSystemType::of(folder.path())?;
        let is_network = matches!(FileSystem::of(folder.path())?, FileSystem::Network(_));
        let total = Duration::from_secs(u64::from(self.seconds));
        let mut run = Run::new(&folder, total, interrupt, output.progress("measuring", 100));
        let mut report = BenchReport {
            directory: folder.parent().display().to_string(),
            file_system: file_system.to_string(),
            is_shared_memory_sound: !is_network,
            free_bytes: folder::free_bytes(folder.parent())?,
            sync_append: run.sync_append()?,
            sync_overwrite: run.sync_overwrite()?,
            write_bytes_per_s: run.write()?,
            lock_s: run.lock()?,
            wake_up: run.wake_up()?,
            commits: Vec::new(),
            read_s: run.read()?,
            warnings: Vec::new(),
            elapsed_s: 0.0,
        };
        for (level, synchronous) in LEVELS {
            let per_s = run.commits(level, synchronous)?;
            report.commits.push(CommitRate { synchronous, per_s });
        }
        drop(run);
        report.warnings = judgement::warnings(&report, file_system);
        folder.remove()?;
        report.elapsed_s = started.elapsed().as_secs_f64();
        output.print(&report)?;
        Ok(Exit::Done)
    }
}

impl Report for BenchReport {
    const KIND: &'static str = "bench";

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let directory = paint(STRONG, escape(&self.directory));
        let free = units::bytes(self.free_bytes);
        writeln!(out, "{directory}: {}, {free} free", self.file_system)?;
        let mut table = Table::new(["", "median", "99 %", "longest"]).figures([1, 2, 3]);
        for (name, times) in [
            ("append 4 KiB and sync", &self.sync_append),
            ("overwrite 4 KiB and sync", &self.sync_overwrite),
            ("commit and wake a waiter", &self.wake_up),
        ] {
            let times = [times.median_s, times.p99_s, times.max_s].map(judgement::short);
            let [median, p99, max] = times;
            table.row([name.to_owned(), median, p99, max]);
        }
        for (name, time) in [
            ("lock and release a byte", self.lock_s),
            ("read transaction of a page", self.read_s),
        ] {
            table.row([
                name.to_owned(),
                judgement::short(time),
                String::new(),
                String::new(),
            ]);
        }
        table.write(out, "  ")?;
        for sentence in judgement::sentences(self) {
            writeln!(out, "{sentence}")?;
        }
        for warning in &self.warnings {
            writeln!(out, "{} {warning}", paint(WARN, "warning:"))?;
        }
        Ok(())
    }
}
