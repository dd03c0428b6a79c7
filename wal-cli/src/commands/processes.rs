//! The processes of a report, as a table.

use std::io::{self, Write};

use crate::figures::ProcessFigures;
use crate::output::{STRONG, Table, WARN, escape, escape_short, paint};

/// How much of a command line is shown, in characters. The JSON has all of it.
const COMMAND_WIDTH: usize = 80;

/// Writes the processes; nothing if there are none.
pub(super) fn write(processes: &[ProcessFigures], out: &mut dyn Write) -> io::Result<()> {
    if processes.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", paint(STRONG, "Processes"))?;
    let mut table = Table::new(["PID", "USER", "STARTED", "COMMAND"]).figures([0]);
    for process in processes {
        table.row([
            process.pid.to_string(),
            escape(process.user.as_deref().unwrap_or("-")).into_owned(),
            process.started.clone().unwrap_or_else(|| "-".to_owned()),
            command(process),
        ]);
    }
    table.write(out, "  ")
}

/// The command line of a process, and whether it is stopped.
pub(super) fn command(process: &ProcessFigures) -> String {
    let command = process.command.as_deref().unwrap_or("(ended, or hidden)");
    let command = escape_short(command, COMMAND_WIDTH);
    match process.is_stopped {
        true => format!("{command} {}", paint(WARN, "(stopped)")),
        false => command,
    }
}
