//! The process's lines: commands come on stdin, answers go to stdout.

use std::io::{self, Write};

use anyhow::{Context, Result};

use super::wire::{Answer, Command};

/// Reads the next command; `None` at the end of stdin.
pub(super) fn read_command() -> Result<Option<Command>> {
    let mut line = String::new();
    if io::stdin().read_line(&mut line)? == 0 {
        return Ok(None);
    }
    serde_json::from_str(&line)
        .map(Some)
        .with_context(|| format!("`{line}` is no command"))
}

/// Writes an answer.
pub(super) fn answer(answer: &Answer) -> Result<()> {
    let mut line = serde_json::to_string(answer)?;
    line.push('\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    Ok(stdout.flush()?)
}
