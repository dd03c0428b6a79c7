//! Lists the transactions, and what lies behind them.

use std::io::{self, Write};

use anyhow::{Context as _, bail};
use wal_core::format::{ByteOrder, Checksum, FrameFault, FrameReader, LogHeader, LoggedFrame};
use wal_core::inspect::{LogEnd, Transaction, Transactions, read_index};
use wal_core::storage::{File as _, OsFile};
use wal_core::{FrameNo, Salts};

use super::Frames;
use super::report::{FrameReport, FramesEndReport, TransactionReport, hex_of};
use crate::exit::Exit;
use crate::output::{Output, Report, STRONG, escape, paint};

/// What the index says of the log.
pub(super) struct Published {
    pub(super) frames: u32,
    backfilled: u32,
}

/// `None` if there is no index of this generation of the log.
pub(super) fn published(
    index: Option<&OsFile>,
    header: &LogHeader,
) -> anyhow::Result<Option<Published>> {
    let info = index.map(|index| read_index(index)).transpose()?.flatten();
    let published = info.as_ref().and_then(|info| {
        let of = info.valid_header()?;
        if of.max_frame() == 0 && of.salts() != header.salts {
            // The log was restarted, for which all of it is in the database file; its new header
            // is written by the next commit.
            let all = u32::MAX;
            return Some(Published {
                frames: all,
                backfilled: all,
            });
        }
        (of.salts() == header.salts).then(|| Published {
            frames: of.max_frame(),
            backfilled: info.backfilled(),
        })
    });
    Ok(published)
}

/// A list that is being printed.
pub(super) struct Listing<'a> {
    pub(super) arguments: &'a Frames,
    pub(super) output: &'a Output,
    pub(super) log: &'a OsFile,
    pub(super) header: LogHeader,
    pub(super) published: Option<Published>,
    /// The newest committed frame of `--page`.
    pub(super) newest: Option<u32>,
    /// The number of the transaction that was read last.
    pub(super) transaction: u64,
    /// Nothing was printed.
    pub(super) is_empty: bool,
}

impl Listing<'_> {
    pub(super) fn heading(&self, path: &str) -> io::Result<()> {
        let header = &self.header;
        let (size, sequence) = (header.page_size, header.sequence);
        writeln!(
            anstream::stdout(),
            "{}: generation {:?}, checkpoint sequence {sequence}, pages of {size} bytes",
            paint(STRONG, escape(path)),
            header.salts,
        )
    }

    pub(super) fn run(mut self, mut transactions: Transactions<'_>) -> anyhow::Result<Exit> {
        let mut last = 0;
        for transaction in transactions.by_ref() {
            let transaction = transaction?;
            last = transaction.last.get();
            self.transaction += 1;
            self.show(&transaction)?;
            if self.arguments.frame.is_some_and(|frame| frame <= last) {
                return Ok(Exit::Done);
            }
        }
        let expected = self
            .published
            .as_ref()
            .map_or(0, |published| published.frames);
        if let Some(end) = transactions.end() {
            if last < expected && !self.is_same_generation()? {
                bail!("the log was restarted while it was read; run the command again");
            }
            self.finish(end, last)?;
        }
        if let (Some(frame), true) = (self.arguments.frame, self.is_empty) {
            bail!("frame {frame} is not committed; the last one is {last} (`--all` shows more)");
        }
        Ok(Exit::Done)
    }

    fn is_same_generation(&self) -> anyhow::Result<bool> {
        let again = FrameReader::of(self.log)?;
        Ok(again.is_some_and(|again| again.header().salts == self.header.salts))
    }

    fn show(&mut self, transaction: &Transaction) -> anyhow::Result<()> {
        let arguments = self.arguments;
        if arguments.page.is_none() && arguments.frame.is_none() {
            let report = self.transaction_report(transaction);
            self.print(&report)?;
        }
        for (at, &page) in transaction.pages.iter().enumerate() {
            let number = frame_at(transaction, at);
            let is_wanted = arguments.page.is_none_or(|wanted| wanted == page)
                && arguments.frame.is_none_or(|wanted| wanted == number);
            if !is_wanted {
                continue;
            }
            let commit_size = match number == transaction.last.get() {
                true => transaction.page_count,
                false => 0,
            };
            let mut report = self.frame_report(number, page, commit_size);
            if arguments.page.is_some() || arguments.frame.is_some() {
                self.read_content(&mut report)?;
            }
            self.print(&report)?;
        }
        Ok(())
    }

    fn print<R: Report>(&mut self, report: &R) -> io::Result<()> {
        self.is_empty = false;
        self.output.print(report)
    }

    fn transaction_report(&self, transaction: &Transaction) -> TransactionReport {
        let last_frame = transaction.last.get();
        let frame = u64::from(self.header.page_size.bytes()) + 24;
        TransactionReport {
            transaction: self.transaction,
            generation: format!("{:?}", self.header.salts),
            first_frame: transaction.first.get(),
            last_frame,
            pages: transaction.distinct_pages(),
            bytes: u64::from(transaction.frames()) * frame,
            page_count: transaction.page_count,
            is_backfilled: self.is_backfilled(last_frame),
        }
    }

    fn is_backfilled(&self, frame: u32) -> Option<bool> {
        let published = self.published.as_ref()?;
        Some(frame <= published.backfilled)
    }

    fn frame_report(&self, frame: u32, page: u32, commit_size: u32) -> FrameReport {
        FrameReport {
            frame,
            page,
            transaction: Some(self.transaction),
            commit_size,
            generation: format!("{:?}", self.header.salts),
            checksum: None,
            content_checksum: None,
            is_newest: self.arguments.page.map(|_| self.newest == Some(frame)),
            is_backfilled: self.is_backfilled(frame),
            fault: None,
            content: None,
        }
    }

    /// Adds the checksums of a committed frame, and its content.
    fn read_content(&self, report: &mut FrameReport) -> anyhow::Result<()> {
        let number = FrameNo::new(report.frame).context("there is no frame 0")?;
        let mut frames = FrameReader::starting_at(self.log, self.header, number)?;
        frames = frames.up_to(report.frame);
        match frames.next_frame()? {
            Some(frame) if frame.fault.is_none() => self.add_content(report, &frame),
            _ => bail!("the log was restarted while it was read; run the command again"),
        }
        Ok(())
    }

    fn add_content(&self, report: &mut FrameReport, frame: &LoggedFrame<'_>) {
        let content = Checksum::ZERO.update(ByteOrder::Big, frame.content);
        report.checksum = Some(hex_of(&frame.checksum.to_be_bytes()));
        report.content_checksum = Some(hex_of(&content.to_be_bytes()));
        report.content = self.arguments.hex.then(|| hex_of(frame.content));
    }

    /// Lists what lies behind the committed frames, or counts it.
    fn finish(&mut self, end: LogEnd, last: u32) -> anyhow::Result<()> {
        if self.arguments.all {
            self.show_leftovers(end, last)?;
        }
        if self.arguments.page.is_some() || self.arguments.frame.is_some() {
            return Ok(());
        }
        let frame = u64::from(self.header.page_size.bytes()) + 24;
        let on_disk = self.log.len()?.saturating_sub(32) / frame;
        let sound = u64::from(last) + u64::from(end.uncommitted);
        let report = FramesEndReport {
            transactions: self.transaction,
            last_frame: last,
            uncommitted: end.uncommitted,
            leftovers: on_disk.saturating_sub(sound),
            fault: end.fault.map(|fault| fault.to_string()),
        };
        Ok(self.output.print(&report)?)
    }

    fn show_leftovers(&mut self, end: LogEnd, last: u32) -> anyhow::Result<()> {
        let Some(first) = FrameNo::new(last.saturating_add(1)) else {
            return Ok(());
        };
        let mut frames = FrameReader::starting_at(self.log, self.header, first)?;
        while let Some(frame) = frames.next_frame()? {
            let (number, page) = (frame.number.get(), frame.page);
            let is_wanted = self.arguments.page.is_none_or(|wanted| wanted == page)
                && self.arguments.frame.is_none_or(|wanted| wanted == number);
            if !is_wanted {
                continue;
            }
            let fault = match frame.fault {
                Some(FrameFault::Salts) => generation(self.header.salts, frame.salts),
                Some(fault) => fault.to_string(),
                None if number < end.frame => "uncommitted".to_owned(),
                None => "behind a frame with a fault".to_owned(),
            };
            let mut report = self.frame_report(number, page, frame.commit_size);
            report.transaction = None;
            report.is_newest = None;
            report.is_backfilled = None;
            report.generation = format!("{:?}", frame.salts);
            report.fault = Some(fault);
            if self.arguments.page.is_some() || self.arguments.frame.is_some() {
                self.add_content(&mut report, &frame);
            }
            self.is_empty = false;
            self.output.print(&report)?;
        }
        Ok(())
    }
}

/// What a frame of generation `older` is in a log of generation `newer`.
fn generation(newer: Salts, older: Salts) -> String {
    match newer.restarts_since(older) {
        Some(1) => "of the generation before".to_owned(),
        Some(restarts) => format!("of {restarts} generations ago"),
        None => "of another generation".to_owned(),
    }
}

/// The number of the frame at place `at` of `transaction`.
pub(super) fn frame_at(transaction: &Transaction, at: usize) -> u32 {
    let behind = u32::try_from(at).unwrap_or(u32::MAX);
    transaction.first.get().saturating_add(behind)
}
