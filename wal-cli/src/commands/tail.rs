//! `walctl tail`

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use wal_core::format::FRAME_HEADER_LEN;
use wal_core::inspect::{Transaction, Transactions};
use wal_core::storage::OsFile;
use wal_shm::inspect::DatabaseFile;

use super::follow::{Follower, State};
use crate::exit::Exit;
use crate::figures::hexadecimal;
use crate::interrupt;
use crate::look::observe;
use crate::output::units::{bytes, count};
use crate::output::{DIM, Output, Report, WARN, paint};

/// Lists the commits in the log, and with `--follow` each commit as it happens.
///
/// It acquires no lock and writes nothing. So a writer may restart the log before a commit was
/// read; then it says how many commits were missed.
#[derive(Args)]
#[command(after_help = "Examples:
  walctl tail app.db
  walctl tail --follow app.db
  walctl tail --follow --json app.db | jq -r '.frames'")]
pub(crate) struct Tail {
    /// The database.
    database: PathBuf,
    /// Goes on with each commit as it happens, until it is stopped.
    #[arg(long, short)]
    follow: bool,
    /// How many of the last commits in the log to list.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    lines: usize,
}

/// A commit, or a gap in what is known.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TailReport {
    /// `commit`, or `restart` where the log was restarted.
    event: &'static str,
    /// The generation of the log, by its salts in hexadecimal digits.
    generation: String,
    /// The first frame of the commit; 0 for a restart.
    first_frame: u32,
    /// The frames of the commit; 0 for a restart.
    frames: u32,
    /// The different pages that it wrote.
    pages_written: usize,
    /// The size of the database in pages after it.
    pages: u32,
    /// The bytes that it takes in the log.
    bytes: u64,
    /// Of a restart: the commits that could not be read, or null if that is not known.
    missed: Option<u32>,
}

impl Tail {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let mut follower = Follower::of(&self.database, interrupt::catch()?)?;
        let mut reader = Reader::default();
        if let Some(state) = follower.seen {
            let mut last = VecDeque::new();
            reader.read(&follower, &state, |report| {
                last.push_back(report);
                if last.len() > self.lines {
                    last.pop_front();
                }
                Ok(())
            })?;
            for report in &last {
                output.print(report)?;
            }
            reader.change = state.change;
        }
        if !self.follow {
            return Ok(Exit::Done);
        }
        while let Some(state) = follower.next(None)? {
            reader.follow(&follower, &state, |report| output.print(&report))?;
            follower.seen = Some(state);
        }
        Ok(Exit::Done)
    }
}

/// Reads the transactions of the log from where it stopped.
#[derive(Default)]
struct Reader {
    /// The last transaction that was read of the present generation.
    last: Option<Transaction>,
    /// The commits that were read or are known to be missed, as the index counts them.
    change: Option<u32>,
}

impl Reader {
    /// Reads what was committed up to `state`, over a restart of the log.
    fn follow(
        &mut self,
        follower: &Follower,
        state: &State,
        mut print: impl FnMut(TailReport) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        let seen = follower.seen.map(|seen| seen.salts);
        let is_restart = seen.is_some_and(|seen| seen != state.salts);
        let mut read = Vec::new();
        if is_restart {
            self.last = None;
        }
        self.read(follower, state, |report| {
            read.push(report);
            Ok(())
        })?;
        let commits = u32::try_from(read.len()).unwrap_or(u32::MAX);
        let all = state.commits_since(self.change);
        let missed = all.and_then(|all| all.checked_sub(commits));
        if is_restart {
            print(TailReport::restart(state, missed))?;
        }
        // What was published and could not be read is reported with the next restart, which kept
        // it from being read.
        self.change = match (self.change, is_restart) {
            (Some(before), false) if all.is_some() => Some(before.wrapping_add(commits)),
            _ => state.change,
        };
        read.into_iter().try_for_each(print)?;
        Ok(())
    }

    fn read(
        &mut self,
        follower: &Follower,
        state: &State,
        mut report: impl FnMut(TailReport) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        let Some(log) = observe(&DatabaseFile::Log.path(&follower.path))? else {
            return Ok(());
        };
        let Some(transactions) = self.rest(&log, state)? else {
            return Ok(());
        };
        let frame_len = (FRAME_HEADER_LEN + transactions.header().page_size.len()) as u64;
        for transaction in transactions.up_to(state.max_frame) {
            let transaction = transaction?;
            report(TailReport::commit(&transaction, frame_len))?;
            self.last = Some(transaction);
        }
        Ok(())
    }

    /// The transactions that were not read; `None` if the log is of another generation by now.
    fn rest<'l>(&self, log: &'l OsFile, state: &State) -> anyhow::Result<Option<Transactions<'l>>> {
        let Some(all) = Transactions::of(log)? else {
            return Ok(None);
        };
        if all.header().salts != state.salts {
            return Ok(None);
        }
        let header = *all.header();
        Ok(Some(match &self.last {
            Some(last) => Transactions::behind(log, header, last.last.get(), last.checksum),
            None => all,
        }))
    }
}

impl TailReport {
    fn commit(transaction: &Transaction, frame_len: u64) -> Self {
        TailReport {
            event: "commit",
            generation: hexadecimal(transaction.salts),
            first_frame: transaction.first.get(),
            frames: transaction.frames(),
            pages_written: transaction.distinct_pages(),
            pages: transaction.page_count,
            bytes: u64::from(transaction.frames()) * frame_len,
            missed: None,
        }
    }

    fn restart(state: &State, missed: Option<u32>) -> Self {
        TailReport {
            event: "restart",
            generation: hexadecimal(state.salts),
            first_frame: 0,
            frames: 0,
            pages_written: 0,
            pages: state.pages,
            bytes: 0,
            missed,
        }
    }
}

impl Report for TailReport {
    const KIND: &'static str = "tail";

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let generation = paint(DIM, &self.generation);
        if self.event == "restart" {
            let missed = match self.missed {
                Some(0) => "no commit was missed".to_owned(),
                Some(missed) => paint(WARN, format!("{} commits were missed", count(missed))),
                None => paint(WARN, "commits may have been missed"),
            };
            return writeln!(out, "{generation}  the log was restarted; {missed}");
        }
        let last = self.first_frame + self.frames - 1;
        let frames = match self.frames {
            1 => format!("frame {}", count(last)),
            _ => format!("frames {}-{}", count(self.first_frame), count(last)),
        };
        writeln!(
            out,
            "{generation}  {frames:<24} {:>6} pages, {:>10}; the database has {} pages",
            self.pages_written,
            bytes(self.bytes),
            count(self.pages)
        )
    }
}
