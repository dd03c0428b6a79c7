//! `make bench-queue`: writers of stock SQLite in several languages, with and without the
//! extension `wal-queue`, alternately in the same run.
//!
//! | file | what it does |
//! |---|---|
//! | `order` | the order of a writer and its answer |
//! | `writer` | the writers in Rust; those in other languages are in `bench/queue/` and `bench/sql` |
//! | `peers` | where the programs of the writers are |
//! | `rows` | which writers run side by side |
//! | `run` | one round of a row |
//! | `table` | the report, the table and the goals |

mod order;
mod peers;
mod rows;
mod run;
mod table;
pub(crate) mod writer;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use self::rows::{Row, System};
use self::run::Written;
use self::table::Line;
pub(crate) use self::table::{put_into, write};
use crate::measure::Scale;

/// Measures the rows whose writers begin with an entry of `wanted`, prints the table, and
/// returns its lines.
pub(crate) fn measure(
    wanted: &[String],
    scale: Scale,
    rounds: usize,
    scratch: &Path,
) -> Result<Vec<Line>> {
    let library = peers::library()?;
    let group_commit = peers::has_group_commit(&library)?;
    std::fs::create_dir_all(scratch)?;
    let is_wanted = |row: &Row| {
        let begins = |wanted: &String| row.writers.starts_with(wanted.as_str());
        wanted.is_empty() || wanted.iter().any(begins)
    };
    let mut out = std::io::stdout();
    writeln!(out, "{}", table::HEADING)?;
    let mut lines = Vec::new();
    let mut left_out = Vec::new();
    for row in rows::rows(scale).iter().filter(|row| is_wanted(row)) {
        if let Some(why) = row.peers.iter().find_map(|peer| peer.missing()) {
            left_out.push(format!("{}: {why}", row.writers));
            continue;
        }
        let systems = row
            .systems
            .iter()
            .copied()
            .filter(|&system| row.compares(system));
        let systems: Vec<System> = systems
            .filter(|&system| group_commit || system != System::QueueGroup)
            .collect();
        let measured = measure_row(row, &systems, &library, scale, rounds, scratch);
        let measured = measured.with_context(|| row.writers)?;
        for line in &measured {
            writeln!(out, "{}", line.text())?;
            let stock = measured.iter().find(|line| line.system == System::Stock);
            for missed in line.missed(stock) {
                writeln!(out, "    missed: {missed}")?;
            }
        }
        lines.extend(measured);
    }
    if !group_commit {
        left_out.push("group commit: the library does not have it".to_owned());
    }
    left_out.dedup();
    for left_out in left_out {
        writeln!(out, "left out: {left_out}")?;
    }
    Ok(lines)
}

/// The rounds of `systems`, each in turn.
fn measure_row(
    row: &Row,
    systems: &[System],
    library: &Path,
    scale: Scale,
    rounds: usize,
    scratch: &Path,
) -> Result<Vec<Line>> {
    let seconds = scale.duration().as_secs_f64();
    // A small difference is looked for in the row of one process.
    let rounds = match (row.processes, scale) {
        (1, Scale::Full | Scale::Quick) => 4 * rounds + 1,
        _ => rounds,
    };
    let mut written: Vec<Vec<Vec<Written>>> = systems.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (&system, written) in systems.iter().zip(&mut written) {
            let round = run::round(row, system, library, seconds, scratch);
            written.push(round.with_context(|| system.name())?);
        }
    }
    let mut lines = Vec::new();
    for (&system, rounds) in systems.iter().zip(&written) {
        let mut line = |about, queues: Option<bool>| {
            let is_meant =
                |written: &&Written| queues.is_none_or(|queues| written.queues == queues);
            let chosen = rounds
                .iter()
                .map(|round| round.iter().filter(is_meant).collect());
            lines.push(Line::of(
                row,
                system,
                about,
                &chosen.collect::<Vec<_>>(),
                seconds,
            ));
        };
        if system == System::HalfQueue {
            line(Some("with"), Some(true));
            line(Some("without"), Some(false));
        } else {
            line(None, None);
        }
    }
    Ok(lines)
}
