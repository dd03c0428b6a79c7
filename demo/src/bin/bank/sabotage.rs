//! Breaks a bank, so that a test can show that each check notices.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rusqlite::Connection;

use crate::arguments::Sabotage;
use crate::assignment::Role;
use crate::member::{Member, State};

/// What is broken while the members work.
pub(crate) fn meanwhile(kind: Sabotage, path: &Path, members: &[Member]) -> Result<()> {
    match kind {
        Sabotage::UnbalanceMeanwhile => unbalance(path),
        Sabotage::Hang => members
            .iter()
            .find(|member| member.role() == Role::Reader && member.state == State::Running)
            .context("no reader to stop")?
            .signal(Signal::SIGSTOP),
        Sabotage::LoseTransfer | Sabotage::Unbalance | Sabotage::Damage => Ok(()),
    }
}

/// What is broken when all members have ended.
pub(crate) fn after_the_end(kind: Sabotage, path: &Path) -> Result<()> {
    match kind {
        Sabotage::LoseTransfer => execute(
            path,
            "UPDATE journal SET transfers = transfers - 1 WHERE worker = 0",
        ),
        Sabotage::Unbalance => unbalance(path),
        Sabotage::Damage => damage(path),
        Sabotage::UnbalanceMeanwhile | Sabotage::Hang => Ok(()),
    }
}

fn unbalance(path: &Path) -> Result<()> {
    execute(
        path,
        "UPDATE account SET balance = balance + 1 WHERE id = 0",
    )
}

fn execute(path: &Path, sql: &str) -> Result<()> {
    let mut connection = Connection::open(path)?;
    // SQLite's own busy timeout sleeps for so long between two attempts that
    // writers who never pause leave it no gap.
    connection.busy_handler(Some(|attempts| {
        std::thread::sleep(Duration::from_micros(200));
        attempts < 25_000
    }))?;
    ensure!(connection.execute(sql, [])? == 1, "{sql}: not one row");
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

/// The number of free pages stands at offset 36 of page 1. The log may be
/// there still and have a newer page 1, so SQLite removes it first.
fn damage(path: &Path) -> Result<()> {
    execute(path, "UPDATE account SET balance = balance WHERE id = 0")?;
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    file.write_all_at(&1u32.to_be_bytes(), 36)?;
    Ok(())
}
