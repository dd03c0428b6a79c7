//! Reads a `-wal` file, and turns one into the other checksum byte order.
//!
//! This reader is deliberately none of the workspace's own: what it says about
//! a fixture must not share a mistake with the library that the fixture tests.
//! It is held against stock SQLite in `facts.rs`.
//!
//! # Layout
//!
//! A 32-byte header, then frames of a 24-byte header and a page each, all
//! integers big-endian. Bit 0 of the magic number says in which order the
//! checksums read their words (SQLite's `walChecksumBytes`, `walDecodeFrame`).

use anyhow::{Context, Result, ensure};
use integration::fixtures::facts::ChecksumOrder;

/// The magic number without its byte-order bit.
const MAGIC: u32 = 0x377f_0682;
/// Bytes of the log's header, and of one frame's.
const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// The order in which a checksum reads the bytes of its 32-bit words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    /// Magic number `0x377f0682`.
    LittleEndian,
    /// Magic number `0x377f0683`.
    BigEndian,
}

impl From<ByteOrder> for ChecksumOrder {
    fn from(order: ByteOrder) -> Self {
        match order {
            ByteOrder::LittleEndian => Self::LittleEndian,
            ByteOrder::BigEndian => Self::BigEndian,
        }
    }
}

impl ByteOrder {
    fn of_magic(magic: u32) -> Self {
        if magic & 1 == 1 {
            Self::BigEndian
        } else {
            Self::LittleEndian
        }
    }

    fn other(self) -> Self {
        match self {
            Self::LittleEndian => Self::BigEndian,
            Self::BigEndian => Self::LittleEndian,
        }
    }

    fn magic(self) -> u32 {
        match self {
            Self::LittleEndian => MAGIC,
            Self::BigEndian => MAGIC | 1,
        }
    }

    fn word(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::LittleEndian => u32::from_le_bytes(bytes),
            Self::BigEndian => u32::from_be_bytes(bytes),
        }
    }
}

/// One frame as it stands in the file, sound or not.
pub(crate) struct Frame {
    pub(crate) page_number: u32,
    /// Database size in pages after this commit; 0 when it is no commit frame.
    pub(crate) commit_size: u32,
    pub(crate) salts: [u32; 2],
    pub(crate) page: Vec<u8>,
}

/// A whole `-wal` file with a sound header.
pub(crate) struct Log {
    pub(crate) byte_order: ByteOrder,
    pub(crate) salts: [u32; 2],
    page_size: usize,
    /// Every whole frame of the file, stale and torn ones included.
    pub(crate) frames: Vec<Frame>,
    /// How many frames from the first on carry this generation's salts and an
    /// unbroken chain of checksums, committed or not.
    pub(crate) valid: usize,
    /// Bytes of a last frame that is not whole.
    pub(crate) trailing_bytes: usize,
}

impl Log {
    /// Reads a log; a file too short for a header is `None`, an unsound header
    /// an error, since no fixture has one.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        if bytes.len() < HEADER_BYTES {
            ensure!(bytes.is_empty(), "a log of {} bytes", bytes.len());
            return Ok(None);
        }
        let magic = number(bytes, 0)?;
        ensure!(magic & !1 == MAGIC, "magic number {magic:#x}");
        let byte_order = ByteOrder::of_magic(magic);
        let page_size = usize::try_from(number(bytes, 8)?)?;
        ensure!(
            page_size.is_power_of_two() && (512..=65536).contains(&page_size),
            "page size {page_size}"
        );
        let salts = [number(bytes, 16)?, number(bytes, 20)?];
        let header_checksum = checksum(byte_order, [0, 0], &bytes[..24]);
        ensure!(
            header_checksum == [number(bytes, 24)?, number(bytes, 28)?],
            "checksum of the log's header"
        );

        let slots = bytes[HEADER_BYTES..].chunks_exact(FRAME_HEADER_BYTES + page_size);
        let trailing_bytes = slots.remainder().len();
        let mut chain = Some(header_checksum);
        let mut frames = Vec::new();
        let mut valid = 0;
        for slot in slots {
            let frame = Frame {
                page_number: number(slot, 0)?,
                commit_size: number(slot, 4)?,
                salts: [number(slot, 8)?, number(slot, 12)?],
                page: slot[FRAME_HEADER_BYTES..].to_vec(),
            };
            let stored = [number(slot, 16)?, number(slot, 20)?];
            chain = chain
                .filter(|_| frame.salts == salts && frame.page_number != 0)
                .map(|before| frame_checksum(byte_order, before, slot))
                .filter(|computed| *computed == stored);
            valid += usize::from(chain.is_some());
            frames.push(frame);
        }
        Ok(Some(Self {
            byte_order,
            salts,
            page_size,
            frames,
            valid,
            trailing_bytes,
        }))
    }

    /// Number of the last commit frame of the valid prefix, 0 if there is none.
    pub(crate) fn committed(&self) -> usize {
        self.frames[..self.valid]
            .iter()
            .rposition(|frame| frame.commit_size != 0)
            .map_or(0, |index| index + 1)
    }

    /// Number of the commit frame before the last one, 0 if there is none.
    pub(crate) fn committed_before_last(&self) -> usize {
        self.frames[..self.committed().saturating_sub(1)]
            .iter()
            .rposition(|frame| frame.commit_size != 0)
            .map_or(0, |index| index + 1)
    }

    /// Offset in the file at which frame `number`, counted from 1, begins.
    pub(crate) fn offset_of(&self, number: usize) -> usize {
        HEADER_BYTES + (number - 1) * (FRAME_HEADER_BYTES + self.page_size)
    }
}

/// The same log with its checksums in the other byte order.
///
/// Every frame must be valid: a stale one has no checksum to carry over.
pub(crate) fn transcode(bytes: &[u8]) -> Result<Vec<u8>> {
    let log = Log::parse(bytes)?.context("an empty log has no byte order")?;
    ensure!(
        log.valid == log.frames.len() && log.trailing_bytes == 0,
        "a log with a stale or torn tail"
    );
    let byte_order = log.byte_order.other();
    let mut result = bytes.to_vec();
    let (header, frames) = result.split_at_mut(HEADER_BYTES);
    header[..4].copy_from_slice(&byte_order.magic().to_be_bytes());
    let mut chain = checksum(byte_order, [0, 0], &header[..24]);
    put_checksum(&mut header[24..], chain);
    for slot in frames.chunks_exact_mut(FRAME_HEADER_BYTES + log.page_size) {
        chain = frame_checksum(byte_order, chain, slot);
        put_checksum(&mut slot[16..24], chain);
    }
    Ok(result)
}

/// A frame's checksum covers its page number, its commit size and its page, and
/// continues from the frame before.
fn frame_checksum(byte_order: ByteOrder, before: [u32; 2], slot: &[u8]) -> [u32; 2] {
    let chain = checksum(byte_order, before, &slot[..8]);
    checksum(byte_order, chain, &slot[FRAME_HEADER_BYTES..])
}

fn checksum(byte_order: ByteOrder, before: [u32; 2], bytes: &[u8]) -> [u32; 2] {
    let [mut first, mut second] = before;
    let (words, _) = bytes.as_chunks::<4>();
    let (pairs, _) = words.as_chunks::<2>();
    for [even, odd] in pairs {
        first = first
            .wrapping_add(byte_order.word(*even))
            .wrapping_add(second);
        second = second
            .wrapping_add(byte_order.word(*odd))
            .wrapping_add(first);
    }
    [first, second]
}

fn put_checksum(target: &mut [u8], [first, second]: [u32; 2]) {
    target[..4].copy_from_slice(&first.to_be_bytes());
    target[4..8].copy_from_slice(&second.to_be_bytes());
}

fn number(bytes: &[u8], offset: usize) -> Result<u32> {
    let field = bytes.get(offset..offset + 4).context("a field cut short")?;
    Ok(u32::from_be_bytes(field.try_into()?))
}
