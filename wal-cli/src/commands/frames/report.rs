//! The reports, and how they are written for people.

use std::io::{self, Write};

use schemars::JsonSchema;
use serde::Serialize;

use crate::output::units::{bytes, counted};
use crate::output::{DIM, GOOD, Report, STRONG, WARN, paint};

/// A transaction in the log.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TransactionReport {
    /// Its number in this generation of the log, from 1 on.
    pub(super) transaction: u64,
    /// The generation of the log, by its salts in hexadecimal digits.
    pub(super) generation: String,
    /// Its first frame.
    pub(super) first_frame: u32,
    /// Its last frame, which commits it.
    pub(super) last_frame: u32,
    /// How many different pages it wrote.
    pub(super) pages: usize,
    /// The bytes of its frames in the log.
    pub(super) bytes: u64,
    /// The size of the database in pages after it.
    pub(super) page_count: u32,
    /// Whether all of its frames are in the database file, too; null if there is no index that
    /// tells.
    pub(super) is_backfilled: Option<bool>,
}

/// A frame of the log.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FrameReport {
    /// Its number.
    pub(super) frame: u32,
    /// The page that it holds.
    pub(super) page: u32,
    /// The number of its transaction; null behind the last commit.
    pub(super) transaction: Option<u64>,
    /// The size of the database in pages, if it commits a transaction; else 0.
    pub(super) commit_size: u32,
    /// The generation that it belongs to, by its salts.
    pub(super) generation: String,
    /// Its checksum, which continues that of the frame before; null where the content of the
    /// frame was not asked for.
    pub(super) checksum: Option<String>,
    /// A checksum of the content alone: the same for the same content. Null as `checksum`.
    pub(super) content_checksum: Option<String>,
    /// Whether it is the newest committed version of its page; null where only `--page` tells.
    pub(super) is_newest: Option<bool>,
    /// Whether it is in the database file, too; null if there is no index that tells.
    pub(super) is_backfilled: Option<bool>,
    /// What it is, if it is not committed: `uncommitted`, or why it is no part of the log.
    pub(super) fault: Option<String>,
    /// The content in hexadecimal digits, with `--hex`.
    pub(super) content: Option<String>,
}

/// The end of the log.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FramesEndReport {
    /// The committed transactions that were read.
    pub(super) transactions: u64,
    /// The last committed frame.
    pub(super) last_frame: u32,
    /// The frames without a fault behind it.
    pub(super) uncommitted: u32,
    /// The whole frames behind those.
    pub(super) leftovers: u64,
    /// Why the first frame of the leftovers is no part of the log; null if it was not looked at.
    pub(super) fault: Option<String>,
}

/// The hexadecimal digits of `bytes`.
pub(super) fn hex_of(bytes: &[u8]) -> String {
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
