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

/// The table in Markdown.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut table = String::from(
        "| row | system | median | min – max | p99 µs | worst µs | slowest : fastest |\n\
         |---|---|---|---|---|---|---|\n",
    );
    let optional = |value: Option<f64>| value.map_or(String::new(), figure);
    for row in goals::ROWS {
        for line in lines.iter().filter(|line| line.row == row.id) {
            table += &format!(
                "| {} | {} | {} {} | {} – {} | {} | {} | {} |\n",
                line.row,
                line.label(),
                figure(line.median),
                line.unit,
                figure(line.min),
                figure(line.max),
                optional(line.p99),
                optional(line.worst),
                optional(line.slowest_to_fastest),
            );
        }
    }
    table
}
