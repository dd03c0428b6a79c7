//! `walctl`: see into any live SQLite database in WAL mode, and keep it healthy.
//!
//! | file | what it owns |
//! |---|---|
//! | `commands` | one module for each command: its arguments, what it does, its report |
//! | `output` | reports as text or JSON, colours, tables, progress |
//! | `exit` | the exit codes |
//! | `exporter` | metrics by HTTP or in a file |
//! | `files` | the files of a database for commands that read all of them |
//! | `figures` | the figures of a database at one moment, for `info`, `top` and `metrics` |
//! | `interrupt` | Ctrl-C and SIGTERM |
//! | `look` | what the files of a database contain at one moment |
//! | `sampler` | looks repeated in time, and the rates between them |
//!
//! What a command knows of the format and the protocol it has from the library.

mod commands;
mod exit;
mod exporter;
mod figures;
mod files;
mod interrupt;
mod look;
mod output;
mod sampler;

use std::process::ExitCode;

use clap::Parser as _;

use commands::Arguments;
use output::Output;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(arguments.json, arguments.color);
    let outcome = commands::run(arguments.command, &output);
    exit::of(outcome, &output)
}
