//! A bank through this library, which has pages and no SQL.
//!
//! # Protocol
//! The layout comes from one snapshot and is proven again in each later one.
//! If rows have moved, it is loaded anew from the same snapshot; a second
//! refusal is an error. A transfer reads all that it will change first, which
//! proves the places, so that a page is never patched in part.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use demo::bank::{BankError, Journal, Layout, Location, WorkerRow};
use wal::generic::{Database, WriteTx};
use wal::{Backend, CheckpointMode, PageNo, PageRef, Snapshot};

use crate::access::{Access, Audit, Committed};
use crate::wire::{LogState, Transfer};

/// A bank that is open through this library.
pub(crate) struct PageBank<B: Backend> {
    database: Database<B>,
    layout: Layout,
}

/// A page as the walks of the bank take it.
struct Bytes<'tx>(PageRef<'tx>);

impl AsRef<[u8]> for Bytes<'_> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl<B: Backend> PageBank<B> {
    pub(crate) fn new(database: Database<B>) -> Result<Self> {
        let read = database.begin_read()?;
        let layout = Layout::load(|number| page(number, |number| read.page(number)))?;
        drop(read);
        Ok(PageBank { database, layout })
    }
}

impl<B: Backend> Access for PageBank<B> {
    fn audit(&mut self) -> Result<Audit> {
        let read = self.database.begin_read()?;
        let read_page = |number| page(number, |number| read.page(number));
        let (total, journal) = with_layout(&mut self.layout, read_page, |layout| {
            Ok((layout.total(read_page)?, read_journal(layout, read_page)?))
        })?;
        Ok(Audit {
            total,
            journal,
            log: Some(log_state(read.snapshot())),
        })
    }

    fn transfer(&mut self, worker: u32, transfer: Transfer, before: Journal) -> Result<Committed> {
        let mut write = self.database.begin_write()?;
        let began = Instant::now();
        let read_page = |number| page(number, |number| write.page(number));
        let entry = with_layout(&mut self.layout, read_page, |layout| {
            Entry::prepare(layout, worker, transfer, read_page)
        })?;
        ensure!(
            entry.found == before,
            "the journal row of writer {worker} holds {:?} instead of {before:?}",
            entry.found
        );
        let journal = entry.write(&self.layout, &mut write)?;
        write.commit()?;
        Ok(Committed { journal, began })
    }

    fn checkpoint(&mut self) -> Result<LogState> {
        let report = self.database.checkpoint(CheckpointMode::Passive)?;
        Ok(LogState {
            frames: report.log_frames,
            backfilled: Some(report.backfilled),
        })
    }

    fn log(&mut self) -> Result<Option<LogState>> {
        let read = self.database.begin_read()?;
        Ok(Some(log_state(read.snapshot())))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.database.close()?)
    }
}

/// The places that a transfer changes, and what they will hold.
struct Entry {
    balances: [(Location, i64); 2],
    row: WorkerRow,
    found: Journal,
    journal: Journal,
}

impl Entry {
    fn prepare<P: AsRef<[u8]>>(
        layout: &Layout,
        worker: u32,
        transfer: Transfer,
        read_page: impl Fn(u32) -> Result<P>,
    ) -> Result<Self> {
        let balance = |account: u32, change: i64| {
            let location = *layout
                .accounts()
                .get(account as usize)
                .with_context(|| format!("the bank has no account {account}"))?;
            let page = read_page(location.page)?;
            let balance = layout.read_balance(page.as_ref(), location)?;
            anyhow::Ok((location, balance + change))
        };
        let row = *layout
            .workers()
            .get(worker as usize)
            .with_context(|| format!("the journal has no row for writer {worker}"))?;
        let found = layout.read_journal(read_page(row.page())?.as_ref(), row)?;
        Ok(Entry {
            balances: [
                balance(transfer.from, -transfer.amount)?,
                balance(transfer.to, transfer.amount)?,
            ],
            row,
            found,
            journal: transfer.entered_in(found),
        })
    }

    fn write<B: Backend>(self, layout: &Layout, write: &mut WriteTx<B>) -> Result<Journal> {
        for (location, balance) in self.balances {
            let page = write.page_mut(PageNo::new(location.page)?)?;
            layout.write_balance(page, location, balance)?;
        }
        let page = write.page_mut(PageNo::new(self.row.page())?)?;
        layout.write_journal(page, self.row, self.journal)?;
        Ok(self.journal)
    }
}

fn page<'tx>(
    number: u32,
    read: impl Fn(PageNo) -> wal::Result<PageRef<'tx>>,
) -> Result<Bytes<'tx>> {
    Ok(Bytes(read(PageNo::new(number)?)?))
}

/// Does `work` with the layout of this snapshot. If rows have moved, the
/// layout is loaded anew and the work done again, once.
fn with_layout<P: AsRef<[u8]>, T>(
    layout: &mut Layout,
    read_page: impl Fn(u32) -> Result<P>,
    work: impl Fn(&Layout) -> Result<T>,
) -> Result<T> {
    let attempt = read_page(1)
        .and_then(|first| Ok(layout.check_page_one(first.as_ref())?))
        .and_then(|()| work(layout));
    match attempt {
        Err(error) if has_moved(&error) => {
            *layout = Layout::load(&read_page)?;
            work(layout)
        }
        attempt => attempt,
    }
}

fn has_moved(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<BankError>(),
        Some(BankError::Moved { .. })
    )
}

/// All journal rows; a page that holds several is read once.
fn read_journal<P: AsRef<[u8]>>(
    layout: &Layout,
    read_page: impl Fn(u32) -> Result<P>,
) -> Result<Vec<Journal>> {
    let mut journal = Vec::with_capacity(layout.workers().len());
    for same_page in layout.workers().chunk_by(|a, b| a.page() == b.page()) {
        let Some(first) = same_page.first() else {
            continue;
        };
        let page = read_page(first.page())?;
        for row in same_page {
            journal.push(layout.read_journal(page.as_ref(), *row)?);
        }
    }
    Ok(journal)
}

fn log_state(snapshot: &Snapshot) -> LogState {
    let frames = snapshot.max_frame();
    LogState {
        frames,
        backfilled: snapshot.bypasses_log().then_some(frames),
    }
}
