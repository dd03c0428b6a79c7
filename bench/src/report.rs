//! What was measured: the file `report.json`, and the table.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::goals;
use crate::systems::System;

/// One round of one system.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// What the row is about.
    pub(crate) value: f64,
    /// The latency that 1 % exceed (in rows of many commits, 0.1 %).
    pub(crate) tail: Option<f64>,
    /// The longest latency.
    pub(crate) worst: Option<f64>,
    /// The work of the slowest process by that of the fastest.
    pub(crate) fairness: Option<f64>,
}

/// A line of the report.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    /// The row.
    pub(crate) row: String,
    /// The system.
    pub(crate) system: String,
    /// The backend of this library.
    pub(crate) backend: Option<String>,
    /// The unit of all figures but the last.
    pub(crate) unit: String,
    /// Whether `less` or `more` is better.
    pub(crate) better: String,
    /// The median of the rounds.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
    /// The latency in microseconds that 1 % exceed, or 0.1 % where processes
    /// commit; the median of the rounds.
    pub(crate) p99: Option<f64>,
    /// The longest latency in microseconds in any round.
    pub(crate) worst: Option<f64>,
    /// The work of the slowest process by that of the fastest.
    pub(crate) slowest_to_fastest: Option<f64>,
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

impl Line {
    /// What the rounds of `system` in `row` come to.
    pub(crate) fn of(row: &goals::Row, system: System, samples: &[Sample]) -> Option<Self> {
        let values = || samples.iter().map(|sample| sample.value);
        let tails = samples.iter().filter_map(|sample| sample.tail);
        let worst = samples.iter().filter_map(|sample| sample.worst);
        let fairness = samples.iter().filter_map(|sample| sample.fairness);
        Some(Line {
            row: row.id.to_owned(),
            system: system.name().to_owned(),
            backend: system.backend().map(str::to_owned),
            unit: row.unit.to_owned(),
            better: row.better().to_owned(),
            median: median(values().collect())?,
            min: values().min_by(f64::total_cmp)?,
            max: values().max_by(f64::total_cmp)?,
            p99: median(tails.collect()),
            worst: worst.max_by(f64::total_cmp),
            slowest_to_fastest: median(fairness.collect()),
        })
    }

    /// The system, with the backend.
    pub(crate) fn label(&self) -> String {
        match &self.backend {
            Some(backend) => format!("{} ({backend})", self.system),
            None => self.system.clone(),
        }
    }
}

/// Reads a report.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

/// Writes a report, a line for each object.
pub(crate) fn write(path: &Path, lines: &[Line]) -> Result<()> {
    let objects: Vec<String> = lines
        .iter()
        .map(serde_json::to_string)
        .collect::<Result<_, _>>()?;
    std::fs::write(path, format!("[\n{}\n]\n", objects.join(",\n")))?;
    Ok(())
}

/// A figure with three digits that mean something.
pub(crate) fn figure(value: f64) -> String {
    match value {
        v if v >= 1_000_000.0 => format!("{:.2} M", v / 1e6),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// The columns of the tables: a title, and the systems in it, by label.
const COLUMNS: [(&str, &[&str]); 6] = [
    ("wal, shm", &["wal (shm)", "wal (shm, group commit)"]),
    ("wal, inproc", &["wal (inproc)"]),
    ("SQLite", &["sqlite", "sqlite-mmap"]),
    ("LMDB", &["lmdb"]),
    ("redb", &["redb"]),
    ("machine", &["limit"]),
];

/// The medians in Markdown, a row of the report in each line.
pub(crate) fn medians(lines: &[Line]) -> String {
    let figures = |line: &Line| Some(figure(line.median));
    matrix(lines, "unit", |row| row.unit, figures)
}

/// The latencies in Markdown: of which 1 % or 0.1 % are longer, the longest,
/// and how fair it was.
pub(crate) fn latencies(lines: &[Line]) -> String {
    let figures = |line: &Line| {
        let (tail, worst) = (line.p99?, line.worst?);
        let fairness = line.slowest_to_fastest.map(|fair| format!(", {fair:.2}"));
        let fairness = fairness.unwrap_or_default();
        Some(format!("{} / {}{fairness}", figure(tail), figure(worst)))
    };
    matrix(lines, "tail", |row| row.tail(), figures)
}

fn matrix(
    lines: &[Line],
    title: &str,
    about: impl Fn(&goals::Row) -> &str,
    figures: impl Fn(&Line) -> Option<String>,
) -> String {
    let titles = COLUMNS.map(|(title, _)| title).join(" | ");
    let mut table = format!("| row | {title} | {titles} |\n|---|---|---|---|---|---|---|---|\n");
    for row in goals::ROWS {
        let cell = |systems: &[&str]| {
            let of_row = lines.iter().filter(|line| line.row == row.id);
            let mut found: Vec<String> = Vec::new();
            for line in of_row.filter(|line| systems.contains(&line.label().as_str())) {
                if let Some(figures) = figures(line) {
                    found.push(match line.label().as_str() {
                        "sqlite-mmap" => format!("mmap {figures}"),
                        "wal (shm, group commit)" => format!("group commit {figures}"),
                        _ => figures,
                    });
                }
            }
            found.join("; ")
        };
        let cells = COLUMNS.map(|(_, systems)| cell(systems));
        if cells.iter().any(|cell| !cell.is_empty()) {
            table += &format!("| {} | {} | {} |\n", row.id, about(row), cells.join(" | "));
        }
    }
    table
}
