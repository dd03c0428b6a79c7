//! How many system calls an operation needs: a process does it *n* times and
//! 2 *n* times under strace, and the difference is divided by *n*.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::processes;
use crate::systems::{self, Durability, Settings, System};
use crate::worker::{Order, Role};

const TIMES: u32 = 1000;

/// Under strace a call takes longer than two reads may be apart by default.
const READ_LOCK_DELAY: Duration = Duration::from_millis(500);

/// Prints a table.
pub(crate) fn count(scratch: &Path) -> Result<()> {
    let mut out = std::io::stdout();
    if Command::new("strace")
        .arg("-V")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        writeln!(out, "not counted: strace is not installed")?;
        return Ok(());
    }
    std::fs::create_dir_all(scratch)?;
    writeln!(
        out,
        "| operation | wal (shm) | wal (inproc) | sqlite | lmdb |\n|---|---|---|---|---|"
    )?;
    for (name, durability, reads) in [
        ("read transaction of one page", Durability::Normal, true),
        ("commit of one page, NORMAL", Durability::Normal, false),
        ("commit of one page, FULL", Durability::Full, false),
    ] {
        let role = if reads { Role::Reads } else { Role::Writes };
        write!(out, "| {name} |")?;
        for system in [System::Shm, System::Inproc, System::Sqlite, System::Lmdb] {
            let directory = tempfile::tempdir_in(scratch)?;
            let mut order = Order {
                system,
                directory: directory.path().to_owned(),
                settings: Settings {
                    read_lock_delay: Some(READ_LOCK_DELAY),
                    ..Settings::new(durability, false)
                },
                records: 10,
                role: role(TIMES),
                duration: Duration::from_secs(60),
                seed: 1,
            };
            systems::fill(
                &mut *systems::open(system, directory.path(), order.settings)?,
                10,
            )?;
            let once = calls(&order)?;
            order.role = role(2 * TIMES);
            let twice = calls(&order)?;
            write!(out, " {:.1} |", (twice - once) / f64::from(TIMES))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// How many system calls the process of `order` makes.
fn calls(order: &Order) -> Result<f64> {
    let trace = order.directory.join("trace");
    let mut process = Command::new("strace")
        .args(["-f", "-c", "-o"])
        .arg(&trace)
        .args(processes::command(order)?)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    writeln!(process.stdin.take().context("no input")?)?;
    anyhow::ensure!(process.wait()?.success(), "a process failed");
    let summary = std::fs::read_to_string(&trace)?;
    let total = summary.lines().last().context("no summary")?;
    let calls = total.split_whitespace().nth(3).context("no total")?;
    Ok(calls.parse()?)
}
