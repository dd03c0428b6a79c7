//! `walctl generate`: man pages, completions and the JSON Schema, for packages.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Subcommand};
use clap_complete::Shell;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::Arguments;
use super::backup::BackupReport;
use super::bench::BenchReport;
use super::checkpoint::CheckpointDone;
use super::doctor::DoctorReport;
use super::frames::{FrameReport, FramesEndReport, TransactionReport};
use super::keep::KeepEvent;
use super::locks::LocksReport;
use super::recover::RecoverReport;
use super::tail::TailReport;
use super::verify::VerifyReport;
use super::wait::WaitReport;
use crate::exit::Exit;
use crate::figures::Figures;
use crate::output::{Output, Report, SCHEMA};
use crate::sampler::Sample;

/// Writes man pages, shell completions and the JSON Schema of the reports.
#[derive(Args)]
#[command(after_help = "Examples:
  walctl generate completions bash > /etc/bash_completion.d/walctl
  walctl generate man /usr/local/share/man/man1
  walctl generate schema > walctl.schema.json")]
pub(crate) struct Generate {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Prints what a shell needs to complete command lines.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Writes the man pages, one for each command.
    Man {
        /// The directory to write them to, which is there.
        directory: PathBuf,
    },
    /// Prints the JSON Schema of all reports.
    Schema,
}

impl Generate {
    pub(crate) fn run(&self, _output: &Output) -> anyhow::Result<Exit> {
        let mut command = Arguments::command();
        match &self.what {
            What::Completions { shell } => {
                // Collected first: the generator panics where its output is closed.
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut command, "walctl", &mut script);
                io::stdout().write_all(&script)?;
            }
            What::Man { directory } => clap_mangen::generate_to(command, directory)
                .with_context(|| format!("{}: cannot write the man pages", directory.display()))?,
            What::Schema => {
                let schema = serde_json::to_string_pretty(&schema())?;
                writeln!(io::stdout(), "{schema}")?;
            }
        }
        Ok(Exit::Done)
    }
}

/// The schema of a line of output: an object of one of the kinds.
fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut kinds: Vec<(&str, Value)> = Vec::new();
    macro_rules! reports {
        ($($report:ty),* $(,)?) => {
            $(kinds.push((<$report>::KIND, generator.subschema_for::<$report>().to_value()));)*
        };
    }
    reports!(Figures, LocksReport);
    reports!(RecoverReport, VerifyReport);
    reports!(TransactionReport, FrameReport, FramesEndReport);
    reports!(CheckpointDone);
    reports!(KeepEvent);
    reports!(WaitReport, TailReport);
    reports!(BackupReport, BenchReport);
    reports!(DoctorReport);
    reports!(Sample);
    let documents: Vec<Value> = kinds
        .into_iter()
        .map(|(kind, report)| {
            json!({
                "properties": {"schema": {"const": SCHEMA}, "kind": {"const": kind}},
                "required": ["schema", "kind"],
                "allOf": [report],
            })
        })
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line that walctl prints with --json",
        "type": "object",
        "oneOf": documents,
        "$defs": generator.take_definitions(true),
    })
}
