//! The rounds of a row on one log, in a process of their own.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::engine::Log;
use crate::rows;

/// The process.
pub(crate) struct Rounds {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Rounds {
    /// Starts it; it has made its database when this returns.
    pub(crate) fn start(row: &str, log: Log, path: &Path, divide: u32) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["row", row, log.name()])
            .arg(path)
            .arg(divide.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take().context("no input")?;
        let output = BufReader::new(process.stdout.take().context("no output")?);
        let mut rounds = Rounds {
            process,
            input,
            output,
        };
        ensure!(rounds.line()? == "ready", "a process did not start");
        Ok(rounds)
    }

    /// Runs a round: a figure.
    pub(crate) fn next(&mut self) -> Result<f64> {
        writeln!(self.input)?;
        Ok(self.line()?.parse()?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The process's end.
pub(crate) fn serve(row: &str, log: Log, path: &Path, divide: u32) -> Result<()> {
    let row = rows::ROWS.iter().find(|known| known.name == row);
    let mut round = (row.context("no such row")?.build)(log, path, divide)?;
    println!("ready");
    for line in std::io::stdin().lines() {
        line?;
        println!("{}", round()?);
    }
    Ok(())
}
