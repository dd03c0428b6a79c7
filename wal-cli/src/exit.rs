//! The exit codes, and how an error ends the command.

use std::io;
use std::process::ExitCode;

use crate::interrupt;
use crate::output::Output;

/// How a command ended. The numbers are documented in `walctl --help` and docs/operating.md.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Exit {
    /// It is done, and nothing is wrong.
    Done = 0,
    /// It could not do what it was asked for.
    Failed = 1,
    // 2 is a wrong command line; clap ends the process with it.
    /// A lock or a timeout stopped it; the same command can succeed later.
    Busy = 3,
    /// `doctor` has a warning.
    Warning = 4,
    /// `doctor` or `verify` found damage, or a danger to data.
    Damage = 5,
}

/// The exit code of `outcome`; an error is written to stderr in one line.
pub(crate) fn of(outcome: anyhow::Result<Exit>, output: &Output) -> ExitCode {
    let exit = match outcome {
        Ok(exit) => exit,
        // The reader of a pipe has all that it wanted (`walctl frames | head`).
        Err(error) if is_broken_pipe(&error) => Exit::Done,
        Err(error) => {
            output.error(&error);
            match error.downcast_ref::<wal::Error>() {
                Some(error) if error.is_busy() => Exit::Busy,
                _ => Exit::Failed,
            }
        }
    };
    match interrupt::signal() {
        // As a shell reports a process that the signal ended.
        Some(signal) if exit != Exit::Done => ExitCode::from(128 + signal),
        _ => ExitCode::from(exit as u8),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|e| e.downcast_ref::<io::Error>());
    causes.any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
