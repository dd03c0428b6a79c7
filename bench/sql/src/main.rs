//! The same engine, libSQL, on its own log and on ours: only the log differs.
//!
//! A program of its own, because libSQL and SQLite cannot be linked into one. It
//! runs each log in a process of its own, because connections of one process
//! share the memory of their caches.
#![allow(clippy::print_stdout)]

mod engine;
mod queue_writer;
mod rounds;
mod rows;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::engine::Log;
use crate::rounds::Rounds;

const BEGIN: &str = "<!-- sql -->";
const END: &str = "<!-- end of sql -->";

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Do,
}

#[derive(Subcommand)]
enum Do {
    /// Runs rows and writes the report.
    Run {
        /// Which rows: all that begin like one of these.
        #[arg(long, value_delimiter = ',')]
        rows: Vec<String>,
        /// How many rounds.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// What is done is divided by this.
        #[arg(long, default_value_t = 1)]
        divide: u32,
        /// Where databases are made; a directory on a disk.
        #[arg(long, default_value = "target")]
        scratch: PathBuf,
        /// Where the report goes.
        #[arg(long, default_value = "bench/sql/report.json")]
        report: PathBuf,
        /// The document that gets the table.
        #[arg(long)]
        document: Option<PathBuf>,
    },
    /// A row on one log: a round for each line that comes.
    #[command(hide = true)]
    Row {
        /// Which row.
        name: String,
        /// Which log.
        log: Log,
        /// Which database.
        path: PathBuf,
        /// What is done is divided by this.
        divide: u32,
    },
    /// A writer of `make bench-queue`.
    #[command(hide = true)]
    QueueWriter {
        /// What it does.
        order: String,
    },
    /// One process of a row.
    #[command(hide = true)]
    Worker {
        /// Which log.
        log: Log,
        /// Which database.
        path: PathBuf,
        /// For how long, in milliseconds.
        milliseconds: u64,
    },
}

/// A line of the report.
#[derive(Serialize)]
struct Line {
    row: &'static str,
    system: Log,
    unit: &'static str,
    better: &'static str,
    median: f64,
    min: f64,
    max: f64,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Do::Row {
            name,
            log,
            path,
            divide,
        } => rounds::serve(&name, log, &path, divide),
        Do::QueueWriter { order } => queue_writer::run(&order),
        Do::Worker {
            log,
            path,
            milliseconds,
        } => rows::work(log, &path, milliseconds),
        Do::Run {
            rows: wanted,
            rounds,
            divide,
            scratch,
            report,
            document,
        } => {
            std::fs::create_dir_all(&scratch)?;
            let mut lines = Vec::new();
            let mut table =
                String::from("| row | libSQL's log | ours | ratio |\n|---|---|---|---|\n");
            let is_wanted = |row: &&rows::Row| {
                let begins = |wanted: &String| row.name.starts_with(wanted.as_str());
                wanted.is_empty() || wanted.iter().any(begins)
            };
            for row in rows::ROWS.iter().filter(is_wanted) {
                let [theirs, ours] = measure(row, rounds, divide, &scratch)
                    .with_context(|| format!("row {}", row.name))?;
                let ratio = match row.more {
                    true => ours.median / theirs.median,
                    false => theirs.median / ours.median,
                };
                let line = format!(
                    "| {} | {:.2} {unit} | {:.2} {unit} | {ratio:.2} |\n",
                    row.name,
                    theirs.median,
                    ours.median,
                    unit = row.unit
                );
                print!("{line}");
                table += &line;
                lines.extend([theirs, ours]);
            }
            std::fs::write(report, serde_json::to_string_pretty(&lines)? + "\n")?;
            match document {
                Some(document) => put_into(&document, &table),
                None => Ok(()),
            }
        }
    }
}

fn put_into(document: &std::path::Path, table: &str) -> Result<()> {
    let text = std::fs::read_to_string(document)?;
    let (before, rest) = text.split_once(BEGIN).context("no place for the table")?;
    let (_, after) = rest.split_once(END).context("no end of the table")?;
    let text = format!("{before}{BEGIN}\n{table}{END}{after}");
    Ok(std::fs::write(document, text)?)
}

/// Both logs in turn.
fn measure(
    row: &rows::Row,
    rounds: usize,
    divide: u32,
    scratch: &std::path::Path,
) -> Result<[Line; 2]> {
    let mut samples = [Vec::new(), Vec::new()];
    let mut benches = Vec::new();
    for log in [Log::Theirs, Log::Ours] {
        let directory = tempfile::tempdir_in(scratch)?;
        let path = directory.path().join("app.db");
        benches.push((Rounds::start(row.name, log, &path, divide)?, directory));
    }
    for _ in 0..rounds {
        for ((bench, _), samples) in benches.iter_mut().zip(&mut samples) {
            samples.push(bench.next()?);
        }
    }
    let line = |system, samples: &mut Vec<f64>| {
        samples.sort_by(f64::total_cmp);
        Line {
            row: row.name,
            system,
            unit: row.unit,
            better: if row.more { "more" } else { "less" },
            median: samples[samples.len() / 2],
            min: samples[0],
            max: samples[samples.len() - 1],
        }
    };
    let [theirs, ours] = &mut samples;
    Ok([line(Log::Theirs, theirs), line(Log::Ours, ours)])
}
