//! The plots, and the table in the document.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::goals::{self, Row};
use crate::report::{self, Line};

const BEGIN: &str = "<!-- table -->";
const END: &str = "<!-- end of table -->";

/// Draws a plot for each group of rows, and puts the table into `document`.
pub(crate) fn draw(lines: &[Line], plots: &Path, document: &Path) -> Result<()> {
    std::fs::create_dir_all(plots)?;
    for (name, title, rows) in [
        (
            "reads",
            "Reads",
            &["R1", "R2d", "R2w", "R3-1k", "R3-10k", "R3-100k", "R3-1M"][..],
        ),
        (
            "writes",
            "Commits of one process",
            &["W1", "W1c", "W2", "W3"],
        ),
        (
            "processes",
            "Several processes or threads",
            &[
                "W2p-8", "W2p-16", "W2t-8", "W2t-16", "W2n", "M1r", "M1w", "N1",
            ],
        ),
        (
            "checkpoints",
            "Checkpoints and recovery",
            &["C1-off", "C1-on", "C2-100k", "C2-500k"],
        ),
    ] {
        std::fs::write(plots.join(format!("{name}.svg")), plot(title, rows, lines))?;
    }
    let text = std::fs::read_to_string(document)?;
    let (before, rest) = text.split_once(BEGIN).context("no place for the table")?;
    let (_, after) = rest.split_once(END).context("no end of the table")?;
    let tables = format!(
        "{}\nMedians of five rounds; min and max are in `bench/report.json`.\n\n{}\n\
         Latencies in µs: the tail, the longest in any round, and slowest : fastest of the\n\
         processes.\n\n{}",
        rows_table(lines),
        report::medians(lines),
        report::latencies(lines)
    );
    std::fs::write(document, format!("{before}{BEGIN}\n{tables}{END}{after}"))?;
    Ok(())
}

/// What each row is, and whether its goal was reached is for the reader.
fn rows_table(lines: &[Line]) -> String {
    let mut table = String::from("| row | work | what is not equal | goal |\n|---|---|---|---|\n");
    let is_there = |row: &&Row| lines.iter().any(|line| line.row == row.id);
    for row in goals::ROWS.iter().filter(is_there) {
        let Row {
            id,
            title,
            compared,
            goal,
            ..
        } = row;
        table += &format!("| {id} | {title} | {compared} | {goal} |\n");
    }
    table
}

/// Where bars begin, how long they are at most, and how high.
const LEFT: f64 = 190.0;
const LONGEST: f64 = 500.0;
const HEIGHT: f64 = 18.0;

fn colour(line: &Line) -> &'static str {
    match (line.system.as_str(), line.backend.as_deref()) {
        ("wal", Some("inproc")) => "#7fb3d5",
        ("wal", Some("shm, group commit")) => "#2e86c1",
        ("wal", _) => "#1f618d",
        ("sqlite", _) => "#ca6f1e",
        ("sqlite-mmap", _) => "#e59866",
        ("lmdb", _) => "#7d8f69",
        ("redb", _) => "#af7ac5",
        _ => "#b2babb",
    }
}

/// Bars for each row, on a scale of its own from nothing on: their lengths are
/// what was measured.
fn plot(title: &str, rows: &[&str], lines: &[Line]) -> String {
    let mut body = String::new();
    let mut y = 58.0;
    for row in rows.iter().filter_map(|id| goals::find(id)) {
        let bars: Vec<&Line> = lines.iter().filter(|line| line.row == row.id).collect();
        if !bars.is_empty() {
            y = group(&mut body, row, &bars, y);
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"860\" height=\"{y}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"30\" font-size=\"18\" fill=\"#1b2631\">{title}</text>\n{body}</svg>\n"
    )
}

fn group(body: &mut String, row: &Row, bars: &[&Line], y: f64) -> f64 {
    let better = if row.more {
        "more is better"
    } else {
        "less is better"
    };
    let _ = writeln!(
        body,
        "<text x=\"16\" y=\"{y}\" fill=\"#1b2631\"><tspan font-weight=\"bold\">{}</tspan> {} \
         <tspan fill=\"#808b96\">({}, {better})</tspan></text>",
        row.id, row.title, row.unit
    );
    let most = bars.iter().map(|line| line.median).fold(0.0, f64::max);
    let mut y = y + 8.0;
    for line in bars {
        let length = (line.median / most * LONGEST).max(1.0);
        let text = y + HEIGHT * 0.7;
        let _ = writeln!(
            body,
            "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\" fill=\"#424949\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{}\" width=\"{length:.1}\" height=\"{}\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{text}\" fill=\"#424949\">{}</text>",
            LEFT - 8.0,
            line.label(),
            y + 2.0,
            HEIGHT - 4.0,
            colour(line),
            LEFT + length + 6.0,
            report::figure(line.median),
        );
        y += HEIGHT;
    }
    y + 28.0
}
