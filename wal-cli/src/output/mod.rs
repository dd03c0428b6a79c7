//! What a command prints: one report after the other, as text or as JSON.
//!
//! With `--json` each report is one line, an object with `schema` ([`SCHEMA`]), `kind` (which
//! report it is) and the fields of the report. `walctl generate schema` prints the JSON Schema
//! of all reports. A field is never removed or given another meaning under one version.

mod escape;
mod progress;
mod style;
mod table;
pub(crate) mod units;

use std::io::{self, IsTerminal as _, Write};

use schemars::JsonSchema;
use serde::Serialize;

pub(crate) use escape::{escape, escape_short};
pub(crate) use progress::Progress;
pub(crate) use style::{BAD, DIM, GOOD, STRONG, WARN, paint};
pub(crate) use table::Table;

/// The version of the form of all reports.
pub(crate) const SCHEMA: &str = "walctl/1";

/// What a command has to report.
pub(crate) trait Report: Serialize + JsonSchema {
    /// The name of its form.
    const KIND: &'static str;

    /// Writes it for people. Styles are removed where they do not belong.
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// Where reports go.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
}

/// When output has colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Serialize)]
struct Document<'a, R> {
    schema: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    report: &'a R,
}

impl Output {
    pub(crate) fn new(json: bool, color: Color) -> Self {
        match color {
            Color::Auto => {}
            Color::Always => anstream::ColorChoice::Always.write_global(),
            Color::Never => anstream::ColorChoice::Never.write_global(),
        }
        Output { json }
    }

    /// Prints a report, at once.
    pub(crate) fn print<R: Report>(&self, report: &R) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        if self.json {
            let document = Document {
                schema: SCHEMA,
                kind: R::KIND,
                report,
            };
            serde_json::to_writer(&mut out, &document)?;
            writeln!(out)?;
        } else {
            report.write_text(&mut out)?;
        }
        out.flush()
    }

    /// Writes an error to stderr, in one line.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        let mut err = anstream::stderr().lock();
        // A stderr that is closed takes no message about that either.
        let _ = writeln!(
            err,
            "{}: {}",
            paint(BAD, "walctl"),
            escape(&format!("{error:#}"))
        );
    }

    /// True if reports are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// True if a person looks on and can press keys: reports are text, and both streams are a
    /// terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        !self.json && io::stdout().is_terminal() && io::stdin().is_terminal()
    }

    /// Progress over `total` units on stderr, if a person looks on and it takes over a second.
    pub(crate) fn progress(&self, what: &'static str, total: u64) -> Progress {
        Progress::new(what, total, !self.json)
    }
}
