//! `walctl frames`

mod listing;
mod report;

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use wal_core::inspect::Transactions;
use wal_shm::inspect::DatabaseFile;

use self::listing::{Listing, frame_at, published};
pub(crate) use self::report::{FrameReport, FramesEndReport, TransactionReport};
use crate::exit::Exit;
use crate::look::{observe, resolve};
use crate::output::{Output, escape};

/// Lists the transactions and frames of the log.
///
/// Each frame is checked against the one before it. The list ends with the last committed frame
/// of the moment at which it began. It acquires no lock and writes nothing.
#[derive(Args)]
#[command(after_help = "Examples:
  walctl frames app.db                    each transaction with its frames
  walctl frames app.db | head -20         reads no more than it prints
  walctl frames app.db --page 7           the history of page 7
  walctl frames app.db --page 7 --hex     each version of page 7
  walctl frames app.db --frame 12 --hex   the content of frame 12
  walctl frames app.db --all              what is left of older generations, too")]
pub(crate) struct Frames {
    /// The database.
    database: PathBuf,
    /// Lists the versions of this page alone.
    #[arg(long, value_name = "NUMBER", group = "selection")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    page: Option<u32>,
    /// Lists this frame alone.
    #[arg(long, value_name = "NUMBER", group = "selection")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    frame: Option<u32>,
    /// Prints the content of the page or frame in hexadecimal digits.
    #[arg(long, requires = "selection")]
    hex: bool,
    /// Lists frames behind the last commit, too: of a transaction that is not committed, and
    /// leftovers of older generations.
    #[arg(long)]
    all: bool,
    /// Reads this log instead of the one beside the database.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

impl Frames {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let database = resolve(&self.database)?;
        observe(&database)?.with_context(|| format!("{}: it was removed", database.display()))?;
        let path = self.log.clone();
        let path = path.unwrap_or_else(|| DatabaseFile::Log.path(&database));
        let log = match observe(&path)? {
            Some(log) => log,
            None if self.log.is_some() => bail!("{}: there is no such file", path.display()),
            None => {
                return Ok(self.nothing(output, &path.display().to_string(), "there is no log")?);
            }
        };
        let Some(transactions) = Transactions::of(&log)? else {
            let shown = path.display().to_string();
            return Ok(self.nothing(output, &shown, "the log is empty: it has no valid header")?);
        };
        let index = match &self.log {
            Some(_) => None,
            None => observe(&DatabaseFile::Index.path(&database))?,
        };
        let published = published(index.as_ref(), transactions.header())?;
        let transactions = match &published {
            Some(published) if !self.all => transactions.up_to(published.frames),
            _ => transactions,
        };
        let mut listing = Listing {
            arguments: self,
            output,
            log: &log,
            header: *transactions.header(),
            published,
            newest: None,
            transaction: 0,
            is_empty: true,
        };
        if let (false, true) = (
            output.is_json(),
            self.page.is_none() && self.frame.is_none(),
        ) {
            listing.heading(&path.display().to_string())?;
        }
        listing.newest = self.newest_frame(transactions.clone())?;
        listing.run(transactions)
    }

    /// The newest committed frame of the page that was asked for.
    fn newest_frame(&self, transactions: Transactions<'_>) -> anyhow::Result<Option<u32>> {
        let Some(page) = self.page else {
            return Ok(None);
        };
        let mut newest = None;
        for transaction in transactions {
            let transaction = transaction?;
            let at = transaction.pages.iter().rposition(|&of| of == page);
            newest = at.map_or(newest, |at| Some(frame_at(&transaction, at)));
        }
        Ok(newest)
    }

    fn nothing(&self, output: &Output, path: &str, why: &str) -> io::Result<Exit> {
        if !output.is_json() {
            writeln!(io::stdout(), "{}: {why}", escape(path))?;
        }
        Ok(Exit::Done)
    }
}
