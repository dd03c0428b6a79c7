//! The same work on this library and on its peers, in one run: SQLite, LMDB,
//! redb, and what the machine gives.
//!
//! | file | what it does |
//! |---|---|
//! | `goals` | the rows, what is compared in each, and what was to be reached |
//! | `rows` | which systems run in which row, and how |
//! | `systems` | the systems behind one trait |
//! | `measure` | rounds and times |
//! | `reads`, `writes`, `checkpoints`, `limits` | rows of one process |
//! | `processes`, `worker` | rows of several, and one of these |
//! | `system_calls` | counts them |
//! | `delayed_release` | short checkpoints beside processes that read at several rates |
//! | `queue` | writers of stock SQLite with and without the extension `wal-queue` |
//! | `log_writes` | what a frame costs without anything else |
//! | `report`, `plots` | the outcome |

mod checkpoints;
mod delayed_release;
mod goals;
mod limits;
mod log_writes;
mod measure;
mod plots;
mod processes;
mod queue;
mod reads;
mod report;
mod rows;
mod system_calls;
mod systems;
mod worker;
mod writes;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::measure::Scale;
use crate::report::{Line, Sample};
use crate::systems::System;

/// The same work on this library and on its peers.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Do,
}

/// How much is measured.
#[derive(Args)]
struct Effort {
    /// In two minutes.
    #[arg(long)]
    quick: bool,
    /// To see that it runs.
    #[arg(long, conflicts_with = "quick")]
    tiny: bool,
    /// How many rounds.
    #[arg(long)]
    rounds: Option<usize>,
}

impl Effort {
    fn scale(&self) -> Scale {
        Scale::of(self.quick, self.tiny)
    }

    /// The rounds that are asked for; else those of the scale, from full to tiny.
    fn rounds(&self, full: usize, quick: usize, tiny: usize) -> usize {
        let default = self.scale().choose(full, quick, tiny);
        self.rounds.unwrap_or(default)
    }
}

#[derive(Subcommand)]
enum Do {
    /// Runs rows and writes the report.
    Run {
        /// Which rows: all that begin like one of these.
        #[arg(long, value_delimiter = ',')]
        rows: Vec<String>,
        #[command(flatten)]
        effort: Effort,
        /// Where the report goes.
        #[arg(long, default_value = "bench/report.json")]
        report: PathBuf,
        /// Where databases are made; a directory on a disk.
        #[arg(long, default_value = "target")]
        scratch: PathBuf,
    },
    /// Draws the plots of a report, and puts its table into the document.
    Plots {
        /// The report.
        #[arg(long, default_value = "bench/report.json")]
        report: PathBuf,
        /// Where the plots go.
        #[arg(long, default_value = "docs/plots")]
        plots: PathBuf,
        /// The document.
        #[arg(long, default_value = "docs/performance.md")]
        document: PathBuf,
    },
    /// Counts the system calls of an operation, with strace.
    SystemCalls {
        /// Where databases are made.
        #[arg(long, default_value = "target")]
        scratch: PathBuf,
    },
    /// Measures what it takes to bring a frame into a log.
    LogWrites {
        /// Where files are made; a directory on a disk.
        #[arg(long, default_value = "target")]
        scratch: PathBuf,
    },
    /// Measures which share of checkpoints is short beside processes that read at several
    /// rates, with and without delayed release of their locks.
    DelayedRelease {
        /// How many checkpoints, and stops, for each share.
        #[arg(long, default_value_t = 200)]
        rounds: u32,
        /// Where databases are made.
        #[arg(long, default_value = "target")]
        scratch: PathBuf,
    },
    /// Compares writers of stock SQLite with and without the extension `wal-queue`.
    Queue {
        /// Which rows: all whose writers begin with an entry of this list.
        #[arg(long, value_delimiter = ',')]
        rows: Vec<String>,
        #[command(flatten)]
        effort: Effort,
        /// Where the report goes.
        #[arg(long, default_value = "bench/queue/report.json")]
        report: PathBuf,
        /// The document that gets the table.
        #[arg(long)]
        document: Option<PathBuf>,
        /// Where databases are made; a directory on a disk.
        #[arg(long, default_value = "target")]
        scratch: PathBuf,
    },
    /// A writer of `queue`, with stock SQLite.
    #[command(hide = true)]
    QueueWriter {
        /// What it does.
        order: String,
    },
    /// A writer of `queue`, with page transactions.
    #[command(hide = true)]
    QueuePageWriter {
        /// What it does.
        order: String,
    },
    /// One reader of `delayed-release`.
    #[command(hide = true)]
    Reader {
        /// What it does.
        order: String,
    },
    /// One process of a row.
    #[command(hide = true)]
    Worker {
        /// What it does.
        order: String,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Do::Run {
            rows,
            effort,
            report,
            scratch,
        } => {
            let rounds = effort.rounds(5, 2, 1);
            run(&rows, effort.scale(), rounds, &report, &scratch)
        }
        Do::Plots {
            report,
            plots,
            document,
        } => plots::draw(&report::read(&report)?, &plots, &document),
        Do::SystemCalls { scratch } => system_calls::count(&scratch),
        Do::LogWrites { scratch } => log_writes::measure(&scratch),
        Do::DelayedRelease { rounds, scratch } => delayed_release::measure(&scratch, rounds),
        Do::Queue {
            rows,
            effort,
            report,
            document,
            scratch,
        } => {
            let rounds = effort.rounds(3, 1, 1);
            let lines = queue::measure(&rows, effort.scale(), rounds, &scratch)?;
            queue::write(&report, &lines)?;
            document.map_or(Ok(()), |document| queue::put_into(&document, &lines))
        }
        Do::QueueWriter { order } => queue::writer::run_stock(&order),
        Do::QueuePageWriter { order } => queue::writer::run_pages(&order),
        Do::Reader { order } => delayed_release::run_reader(&order),
        Do::Worker { order } => worker::run(&order),
    }
}

fn run(
    wanted: &[String],
    scale: Scale,
    rounds: usize,
    report: &Path,
    scratch: &Path,
) -> Result<()> {
    let is_wanted = |id: &str| match wanted {
        [] => scale == Scale::Full || !rows::is_long(id),
        wanted => wanted.iter().any(|wanted| id.starts_with(wanted.as_str())),
    };
    std::fs::create_dir_all(scratch)?;
    let mut lines = Vec::new();
    let mut out = std::io::stdout();
    for row in goals::ROWS.iter().filter(|row| is_wanted(row.id)) {
        writeln!(out, "{}: {}, {}", row.id, row.title, row.unit)?;
        let measured = measure_row(row, scale, rounds, scratch);
        for line in measured.with_context(|| format!("row {}", row.id))? {
            writeln!(
                out,
                "  {:14} {:>10} {}  ({} – {}){}",
                line.label(),
                report::figure(line.median),
                line.unit,
                report::figure(line.min),
                report::figure(line.max),
                tails(&line)
            )?;
            lines.push(line);
        }
    }
    report::write(report, &lines)
}

fn tails(line: &Line) -> String {
    let mut tails = String::new();
    for (name, value) in [
        ("tail", line.p99),
        ("worst", line.worst),
        ("slowest : fastest", line.slowest_to_fastest),
    ] {
        if let Some(value) = value {
            tails += &format!(", {name} {}", report::figure(value));
        }
    }
    tails
}

/// The rounds of all systems, each in turn.
fn measure_row(row: &goals::Row, scale: Scale, rounds: usize, scratch: &Path) -> Result<Vec<Line>> {
    let mut benches = Vec::new();
    for &system in rows::systems(row.id) {
        let directory = tempfile::tempdir_in(scratch)?;
        let bench = rows::build(row.id, system, directory.path(), scale);
        let bench = bench.with_context(|| format!("{system:?}"))?;
        benches.push((system, bench, Vec::<Sample>::new(), directory));
    }
    for _ in 0..rounds {
        for (system, bench, samples, _) in &mut benches {
            let sample = bench.round();
            samples.push(sample.with_context(|| format!("{system:?}"))?);
        }
    }
    let line =
        |(system, _, samples, _): &(System, _, Vec<Sample>, _)| Line::of(row, *system, samples);
    Ok(benches.iter().filter_map(line).collect())
}
