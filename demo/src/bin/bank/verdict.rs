//! The checks after the last process has gone: by this library first, which
//! then closes last and removes the log, by stock SQLite second.
//!
//! Whichever process closed last before, it may have been stock SQLite, which
//! knows nothing of the side file and leaves it. So the first thing that is
//! shown here is that this library takes a left side file for what it is.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use demo::bank::check_with_stock_sqlite;

use crate::access::{Access, Audit};
use crate::arguments::BackendName;
use crate::assignment::Setup;
use crate::pages::PageBank;
use crate::story::Story;

pub(crate) fn check(setup: &Setup, backend: BackendName, story: &mut Story) -> Result<()> {
    let audit = match backend {
        BackendName::Shm => read(PageBank::new(setup.options().open_shm(&setup.path)?)?),
        BackendName::Inproc => read(PageBank::new(setup.options().open_inproc(&setup.path)?)?),
    }
    .context("reading the bank with this library")?;
    check_nothing_left(&setup.path).context("after the last close by this library")?;
    ensure!(
        audit.total == setup.total(),
        "money is not conserved: the balances add up to {} instead of {}",
        audit.total,
        setup.total()
    );
    let kills = &mut story.kills;
    let ledgers = story
        .ours
        .ledgers
        .iter_mut()
        .chain(&mut story.stock.ledgers);
    for (worker, (ledger, row)) in ledgers.zip(&audit.journal).enumerate() {
        let in_flight = ledger
            .settle(*row)
            .with_context(|| format!("writer {worker}"))?;
        kills.count(in_flight);
    }
    check_by_stock_sqlite(setup, &audit)?;
    check_nothing_left(&setup.path).context("after the last close by stock SQLite")
}

fn read(mut bank: PageBank<impl wal::Backend>) -> Result<Audit> {
    let audit = bank.audit()?;
    Box::new(bank).close()?;
    Ok(audit)
}

fn check_by_stock_sqlite(setup: &Setup, audit: &Audit) -> Result<()> {
    let facts =
        check_with_stock_sqlite(&setup.path).context("reading the bank with stock SQLite")?;
    ensure!(
        facts.is_sound(),
        "PRAGMA integrity_check of stock SQLite complains: {}",
        facts.integrity.join("; ").replace('\n', " ")
    );
    ensure!(
        facts.accounts == setup.accounts && facts.total == audit.total,
        "stock SQLite finds {} in {} accounts, this library {} in {}",
        facts.total,
        facts.accounts,
        audit.total,
        setup.accounts
    );
    ensure!(
        facts.journal == audit.journal,
        "stock SQLite and this library do not read the same journal"
    );
    Ok(())
}

/// The last closer removes the log, the wal-index and the side file.
fn check_nothing_left(path: &Path) -> Result<()> {
    for suffix in ["-wal", "-shm", "-coord"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        ensure!(
            !PathBuf::from(&beside).try_exists()?,
            "{} is still there",
            beside.display()
        );
    }
    Ok(())
}
