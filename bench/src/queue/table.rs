//! What was measured: lines of the report and of the table, and the goals that they miss.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::order::Synchronous;
use super::rows::{Row, System};
use super::run::Written;
use crate::report::figure;

/// A line of the report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    /// How the writers are called.
    pub(crate) writers: &'static str,
    /// How many processes write, of which this line is about those that it names.
    pub(crate) processes: usize,
    /// How long a transaction sleeps before it commits, in milliseconds.
    pub(crate) pause_ms: u32,
    /// `PRAGMA synchronous`.
    pub(crate) synchronous: Synchronous,
    /// Which processes load the library.
    pub(crate) system: System,
    /// The processes that this line is about, where the row has two kinds of them.
    pub(crate) about: Option<&'static str>,
    /// The unit of `median`, `min` and `max`.
    pub(crate) unit: &'static str,
    /// Whether `less` or `more` of it is better.
    pub(crate) better: &'static str,
    /// The median of the rounds.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
    /// The commits of the slowest process by those of the fastest; the median of the rounds.
    pub(crate) slowest_to_fastest: f64,
    /// The wait that 1 % of the transactions exceed, in milliseconds.
    pub(crate) p99_ms: f64,
    /// The longest wait, in milliseconds.
    pub(crate) longest_ms: f64,
    /// How often a writer gave up.
    pub(crate) locked: u64,
}

/// The heading of the table.
pub(crate) const HEADING: &str = "writers              n  pause  sync    system               commits/s  slow:fast  \
     longest ms   p99 ms  locked";

impl Line {
    /// The outcome of `rounds`, each of `seconds`.
    #[allow(clippy::cast_precision_loss)] // Counts, for people to read.
    pub(crate) fn of(
        row: &Row,
        system: System,
        about: Option<&'static str>,
        rounds: &[Vec<&Written>],
        seconds: f64,
    ) -> Self {
        let rate = |round: &Vec<&Written>| {
            round
                .iter()
                .map(|written| written.outcome.commits as f64)
                .sum::<f64>()
                / seconds
        };
        let all = || rounds.iter().flatten().map(|written| &written.outcome);
        let mut waits: Vec<u32> = all()
            .flat_map(|outcome| &outcome.waits_us)
            .copied()
            .collect();
        waits.sort_unstable();
        let at = waits.len().saturating_sub(1 + waits.len() / 100);
        let ms = |wait: Option<&u32>| wait.map_or(0.0, |&wait| f64::from(wait) / 1000.0);
        let rates = sorted(rounds.iter().map(rate));
        let fairness = sorted(rounds.iter().map(|round| slowest_to_fastest(round)));
        Line {
            writers: row.writers,
            processes: row.processes,
            pause_ms: row.pause_ms,
            synchronous: row.synchronous,
            system,
            about,
            unit: "commits/s",
            better: "more",
            median: rates[rates.len() / 2],
            min: rates[0],
            max: rates[rates.len() - 1],
            slowest_to_fastest: fairness[fairness.len() / 2],
            p99_ms: ms(waits.get(at)),
            longest_ms: ms(waits.last()),
            locked: all().map(|outcome| outcome.locked).sum(),
        }
    }

    /// The system, and which of its processes.
    fn label(&self) -> String {
        match self.about {
            Some(about) => format!("{}: {about}", self.system.name()),
            None => self.system.name().to_owned(),
        }
    }

    /// The line of the table.
    pub(crate) fn text(&self) -> String {
        format!(
            "{:18} {:>3}  {:>2} ms  {:6}  {:20} {:>9}  {:>9.3}  {:>10.1} {:>8.1}  {:>6}",
            self.writers,
            self.processes,
            self.pause_ms,
            self.synchronous.name(),
            self.label(),
            figure(self.median),
            self.slowest_to_fastest,
            self.longest_ms,
            self.p99_ms,
            self.locked,
        )
    }

    /// The goals that this line misses, beside the line `stock` of the same row.
    pub(crate) fn missed(&self, stock: Option<&Line>) -> Vec<String> {
        let mut missed = Vec::new();
        if matches!(self.system, System::Stock | System::HalfQueue) {
            return missed;
        }
        let mut goal = |reached: bool, text: String| {
            if !reached {
                missed.push(text);
            }
        };
        goal(
            self.locked == 0,
            format!("{} times locked, not 0", self.locked),
        );
        if self.processes > 1 {
            let fairness = self.slowest_to_fastest;
            goal(
                fairness >= 0.9,
                format!("slowest : fastest {fairness:.2}, not 0.9"),
            );
        }
        if self.synchronous == Synchronous::Normal && self.pause_ms == 0 && self.processes > 1 {
            #[allow(clippy::cast_precision_loss)] // A number of processes.
            let bound = 2.0 * self.processes as f64;
            let longest = self.longest_ms;
            goal(
                longest <= bound,
                format!("longest wait {longest:.1} ms, not {bound} ms"),
            );
        }
        if let Some(stock) = stock {
            let least = match (self.processes, self.synchronous) {
                (1, _) => 0.97,
                (_, Synchronous::Full) => 1.0,
                (_, Synchronous::Normal) => 0.9,
            };
            let ratio = self.median / stock.median;
            goal(
                ratio >= least,
                format!("{ratio:.2} of stock's commits, not {least}"),
            );
        }
        missed
    }
}

const BEGIN: &str = "<!-- queue -->";
const END: &str = "<!-- end of queue -->";

/// Puts the table of `lines` into `document`.
pub(crate) fn put_into(document: &Path, lines: &[Line]) -> Result<()> {
    let mut table = String::from(
        "| writers | n | pause | sync | | commits/s | slowest : fastest | longest wait | p99 | locked |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for line in lines {
        writeln!(
            table,
            "| {} | {} | {} ms | {} | {} | {} | {:.2} | {:.0} ms | {:.1} ms | {} |",
            line.writers,
            line.processes,
            line.pause_ms,
            line.synchronous.name(),
            line.label(),
            figure(line.median),
            line.slowest_to_fastest,
            line.longest_ms,
            line.p99_ms,
            line.locked,
        )?;
    }
    let text = std::fs::read_to_string(document)?;
    let (before, rest) = text.split_once(BEGIN).context("no place for the table")?;
    let (_, after) = rest.split_once(END).context("no end of the table")?;
    std::fs::write(document, format!("{before}{BEGIN}\n{table}{END}{after}"))?;
    Ok(())
}

/// The commits of the slowest process by those of the fastest.
#[allow(clippy::cast_precision_loss)] // Counts, for people to read.
fn slowest_to_fastest(round: &[&Written]) -> f64 {
    let commits = || round.iter().map(|written| written.outcome.commits);
    commits().min().unwrap_or(0) as f64 / commits().max().unwrap_or(0).max(1) as f64
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Writes a report, a line for each object.
pub(crate) fn write(path: &Path, lines: &[Line]) -> Result<()> {
    let objects = lines.iter().map(serde_json::to_string);
    let objects: Vec<String> = objects.collect::<Result<_, _>>()?;
    std::fs::write(path, format!("[\n{}\n]\n", objects.join(",\n")))?;
    Ok(())
}
