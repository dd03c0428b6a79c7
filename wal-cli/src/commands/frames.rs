//! `walctl frames`

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use wal_core::format::{ByteOrder, Checksum, FrameFault, FrameReader, LogHeader, LoggedFrame};
use wal_core::inspect::{LogEnd, Transaction, Transactions, read_index};
use wal_core::storage::{File as _, OsFile};
use wal_core::{FrameNo, Salts};
use wal_shm::inspect::DatabaseFile;

use crate::exit::Exit;
use crate::look::{observe, resolve};
use crate::output::units::{bytes, counted};
use crate::output::{DIM, GOOD, Output, Report, STRONG, WARN, escape, paint};

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
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    page: Option<u32>,
    /// Lists this frame alone.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    frame: Option<u32>,
    /// Prints the content of the page or frame in hexadecimal digits.
    #[arg(long)]
    hex: bool,
    /// Lists frames behind the last commit, too: of a transaction that is not committed, and
    /// leftovers of older generations.
    #[arg(long)]
    all: bool,
    /// Reads this log instead of the one beside the database.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// A transaction in the log.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TransactionReport {
    /// Its number in this generation of the log, from 1 on.
    transaction: u64,
    /// The generation of the log, by its salts in hexadecimal digits.
    generation: String,
    /// Its first frame.
    first_frame: u32,
    /// Its last frame, which commits it.
    last_frame: u32,
    /// How many different pages it wrote.
    pages: usize,
    /// The bytes of its frames in the log.
    bytes: u64,
    /// The size of the database in pages after it.
    page_count: u32,
    /// Whether all of its frames are in the database file, too; null if there is no index that
    /// tells.
    is_backfilled: Option<bool>,
}

/// A frame of the log.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FrameReport {
    /// Its number.
    frame: u32,
    /// The page that it holds.
    page: u32,
    /// The number of its transaction; null behind the last commit.
    transaction: Option<u64>,
    /// The size of the database in pages, if it commits a transaction; else 0.
    commit_size: u32,
    /// The generation that it belongs to, by its salts.
    generation: String,
    /// Its checksum, which continues that of the frame before; null where the content of the
    /// frame was not asked for.
    checksum: Option<String>,
    /// A checksum of the content alone: the same for the same content. Null as `checksum`.
    content_checksum: Option<String>,
    /// Whether it is the newest committed version of its page; null where only `--page` tells.
    is_newest: Option<bool>,
    /// Whether it is in the database file, too; null if there is no index that tells.
    is_backfilled: Option<bool>,
    /// What it is, if it is not committed: `uncommitted`, or why it is no part of the log.
    fault: Option<String>,
    /// The content in hexadecimal digits, with `--hex`.
    content: Option<String>,
}

/// The end of the log.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FramesEndReport {
    /// The committed transactions that were read.
    transactions: u64,
    /// The last committed frame.
    last_frame: u32,
    /// The frames without a fault behind it.
    uncommitted: u32,
    /// The whole frames behind those.
    leftovers: u64,
    /// Why the first frame of the leftovers is no part of the log; null if it was not looked at.
    fault: Option<String>,
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

fn frame_at(transaction: &Transaction, at: usize) -> u32 {
    let behind = u32::try_from(at).unwrap_or(u32::MAX);
    transaction.first.get().saturating_add(behind)
}

/// What the index says of the log.
struct Published {
    frames: u32,
    backfilled: u32,
}

/// `None` if there is no index of this generation of the log.
fn published(index: Option<&OsFile>, header: &LogHeader) -> anyhow::Result<Option<Published>> {
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

struct Listing<'a> {
    arguments: &'a Frames,
    output: &'a Output,
    log: &'a OsFile,
    header: LogHeader,
    published: Option<Published>,
    /// The newest committed frame of `--page`.
    newest: Option<u32>,
    /// The number of the transaction that was read last.
    transaction: u64,
    /// Nothing was printed.
    is_empty: bool,
}

impl Listing<'_> {
    fn heading(&self, path: &str) -> io::Result<()> {
        let header = &self.header;
        let (size, sequence) = (header.page_size, header.sequence);
        writeln!(
            anstream::stdout(),
            "{}: generation {:?}, checkpoint sequence {sequence}, pages of {size} bytes",
            paint(STRONG, escape(path)),
            header.salts,
        )
    }

    fn run(mut self, mut transactions: Transactions<'_>) -> anyhow::Result<Exit> {
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

fn hex_of(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |four: u8| char::from(DIGITS[usize::from(four)]);
    let digits = bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    digits.collect()
}

impl Report for TransactionReport {
    const KIND: &'static str = "transaction";

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let number = paint(STRONG, format!("transaction {}", self.transaction));
        let (first, last) = (self.first_frame, self.last_frame);
        let (pages, size) = (self.pages, bytes(self.bytes));
        let frames = match first == last {
            true => format!("frame {first}"),
            false => format!("frames {first} to {last}"),
        };
        let pages = counted(pages as u64, "page");
        let backfilled = match self.is_backfilled {
            Some(true) => paint(GOOD, ", in the database"),
            _ => String::new(),
        };
        let after = counted(self.page_count, "page");
        writeln!(
            out,
            "{number}: {frames}, {pages}, {size}; {after} after it{backfilled}"
        )
    }
}

impl Report for FrameReport {
    const KIND: &'static str = "frame";

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut parts = vec![format!("frame {:<8} page {:<8}", self.frame, self.page)];
        if let (Some(checksum), Some(content)) = (&self.checksum, &self.content_checksum) {
            if let Some(transaction) = self.transaction {
                parts.push(format!("transaction {transaction:<6}"));
            }
            parts.push(format!("checksum {checksum} content {content}"));
        }
        if self.commit_size != 0 {
            parts.push("commit".to_owned());
        }
        if self.is_newest == Some(true) {
            parts.push(paint(GOOD, "newest"));
        }
        if self.is_backfilled == Some(true) && self.checksum.is_some() {
            parts.push("in the database".to_owned());
        }
        parts.extend(self.fault.as_ref().map(|fault| paint(WARN, fault)));
        writeln!(out, "  {}", parts.join(" ").trim_end())?;
        match &self.content {
            Some(content) => write_dump(out, content),
            None => Ok(()),
        }
    }
}

/// Writes 16 bytes a line: their offset, their digits, and the letters among them.
fn write_dump(out: &mut dyn Write, hex: &str) -> io::Result<()> {
    let value = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).unwrap_or_default();
        u8::from_str_radix(text, 16).unwrap_or(0)
    };
    let content: Vec<u8> = hex.as_bytes().chunks(2).map(value).collect();
    let mut before: Option<&[u8]> = None;
    let mut is_left_out = false;
    for (line, bytes) in content.chunks(16).enumerate() {
        // As `hexdump` does it.
        if before == Some(bytes) {
            if !is_left_out {
                writeln!(out, "    *")?;
            }
            is_left_out = true;
            continue;
        }
        (before, is_left_out) = (Some(bytes), false);
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let letter = |byte: &u8| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        };
        let letters: String = bytes.iter().map(letter).collect();
        let offset = paint(DIM, format!("{:05x}", line * 16));
        writeln!(out, "    {offset}  {}  {letters}", digits.join(" "))?;
    }
    Ok(())
}

impl Report for FramesEndReport {
    const KIND: &'static str = "frames-end";

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let transactions = counted(self.transactions, "transaction");
        writeln!(out, "{transactions}, {}", counted(self.last_frame, "frame"))?;
        if self.uncommitted > 0 {
            let frames = counted(self.uncommitted, "frame");
            writeln!(out, "  behind them {frames} without a commit")?;
        }
        match (&self.fault, self.leftovers) {
            (_, 0) => Ok(()),
            (Some(fault), left) => {
                let left = counted(left, "leftover");
                writeln!(out, "  behind them {left}: {fault}")
            }
            (None, left) => {
                let left = counted(left, "frame");
                writeln!(out, "  behind them {left}; see --all")
            }
        }
    }
}
