//! One module for each command: its arguments, what it does, its report.

mod backup;
mod bench;
mod checkpoint;
mod doctor;
mod follow;
mod frames;
mod generate;
mod info;
mod keep;
mod locks;
mod metrics;
mod open;
mod processes;
mod recover;
mod tail;
mod top;
mod verify;
mod wait;

use clap::{Parser, Subcommand};

use crate::exit::Exit;
use crate::output::{Color, Output};

/// Sees into a live SQLite database in WAL mode, and keeps it healthy.
///
/// It works on the files alone: whichever program uses the database, in whichever language,
/// goes on and needs no change. Page stores of the Rust library `wal` are databases, too.
#[derive(Parser)]
#[command(name = "walctl", version, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Prints each report as one line of JSON (`walctl generate schema`).
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Colours in the output.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = Color::Auto)]
    pub(crate) color: Color,
}

const AFTER_HELP: &str = "\
Examples:
  walctl info app.db              how long the log is, and which process keeps it long
  walctl doctor app.db            what is wrong, and what to do about it
  walctl checkpoint app.db        moves the log into the database
  walctl keep app.db              keeps the log short from now on
  walctl backup app.db copy.db    copies the database while others write

Exit codes:
  0  done, and nothing is wrong
  1  failed: the message says why
  2  wrong command line
  3  busy: a lock or a timeout stopped it; the same command can succeed later
  4  doctor: a warning
  5  doctor, verify: damage, or danger to data
  128 + the signal's number  ended by Ctrl-C or another signal";

#[derive(Subcommand)]
pub(crate) enum Command {
    Info(info::Info),
    Locks(locks::Locks),
    Doctor(doctor::Doctor),
    Verify(verify::Verify),
    Checkpoint(checkpoint::Checkpoint),
    Keep(keep::Keep),
    Top(top::Top),
    Wait(wait::Wait),
    Tail(tail::Tail),
    Frames(frames::Frames),
    Backup(backup::Backup),
    Recover(recover::Recover),
    Metrics(metrics::Metrics),
    Bench(bench::Bench),
    Generate(generate::Generate),
}

pub(crate) fn run(command: Command, output: &Output) -> anyhow::Result<Exit> {
    match command {
        Command::Info(info) => info.run(output),
        Command::Locks(locks) => locks.run(output),
        Command::Doctor(doctor) => doctor.run(output),
        Command::Verify(verify) => verify.run(output),
        Command::Checkpoint(checkpoint) => checkpoint.run(output),
        Command::Keep(keep) => keep.run(output),
        Command::Top(top) => top.run(output),
        Command::Wait(wait) => wait.run(output),
        Command::Tail(tail) => tail.run(output),
        Command::Frames(frames) => frames.run(output),
        Command::Backup(backup) => backup.run(output),
        Command::Recover(recover) => recover.run(output),
        Command::Metrics(metrics) => metrics.run(output),
        Command::Bench(bench) => bench.run(output),
        Command::Generate(generate) => generate.run(output),
    }
}
