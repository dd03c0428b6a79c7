//! Logs of pages of 512 bytes, for tests.
#![allow(clippy::unwrap_used)]

use crate::format::{
    ByteOrder, Checksum, FRAME_HEADER_LEN, FrameHeader, LOG_HEADER_LEN, LogHeader, LogScan,
};
use crate::index::{IndexHeader, WritableBlock, build_block};
use crate::types::{PageNo, PageSize, Salts};

/// The bytes of a log, and what the next frame goes on from.
#[derive(Clone)]
pub(super) struct SampleLog {
    bytes: Vec<u8>,
    /// The end of the frames of this generation.
    end: usize,
    header: LogHeader,
    checksum: Checksum,
}

impl SampleLog {
    /// An empty log whose first salt is `salt`.
    pub(super) fn new(salt: u8) -> Self {
        let salts = Salts([0, 0, 0, salt, 5, 5, 5, 5]);
        let header = LogHeader {
            byte_order: ByteOrder::NATIVE,
            page_size: PageSize::MIN,
            sequence: 0,
            salts,
        };
        let (bytes, checksum) = header.encode();
        SampleLog {
            bytes: bytes.to_vec(),
            end: LOG_HEADER_LEN,
            header,
            checksum,
        }
    }

    /// The same with a transaction of a database of 9 pages.
    pub(super) fn commit(self, pages: &[u32]) -> Self {
        self.commit_of(pages, 9)
    }

    /// The same with a transaction that leaves a database of `page_count` pages; 0 commits
    /// nothing.
    pub(super) fn commit_of(mut self, pages: &[u32], page_count: u32) -> Self {
        for (at, &page) in pages.iter().enumerate() {
            let is_last = at + 1 == pages.len();
            self.add(page, if is_last { page_count } else { 0 });
        }
        self
    }

    fn add(&mut self, page: u32, commit_size: u32) {
        let content = Self::content(page, self.end);
        let header = FrameHeader {
            page: PageNo::new(page).unwrap(),
            commit_size,
            salts: self.header.salts,
        };
        let order = self.header.byte_order;
        let (head, checksum) = header.encode(order, self.checksum, &content);
        self.checksum = checksum;
        let end = self.end + FRAME_HEADER_LEN + content.len();
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[self.end..][..FRAME_HEADER_LEN].copy_from_slice(&head);
        self.bytes[self.end + FRAME_HEADER_LEN..end].copy_from_slice(&content);
        self.end = end;
    }

    /// What a frame of `page` at `offset` holds.
    pub(super) fn content(page: u32, offset: usize) -> Vec<u8> {
        let factor = u32::try_from(offset).unwrap();
        let words = (0..128_u32).map(|word| (word ^ page).wrapping_mul(factor));
        let words = words.flat_map(u32::to_be_bytes);
        words.collect()
    }

    /// The next generation, over the frames of this one.
    pub(super) fn restarted(mut self) -> Self {
        self.header.salts = self.header.salts.next();
        let (header, checksum) = self.header.encode();
        self.bytes[..LOG_HEADER_LEN].copy_from_slice(&header);
        self.checksum = checksum;
        self.end = LOG_HEADER_LEN;
        self
    }

    /// Some transactions of up to 5 frames, some frames without a commit, and maybe leftovers.
    pub(super) fn random(rng: &mut fastrand::Rng) -> Self {
        let mut log = Self::new(rng.u8(1..200));
        for _ in 0..rng.usize(1..3) {
            log = log.restarted();
            for _ in 0..rng.usize(0..5) {
                let pages: Vec<u32> = (0..rng.usize(1..6)).map(|_| rng.u32(1..10)).collect();
                log = log.commit(&pages);
            }
        }
        match rng.bool() {
            true => log.commit_of(&[1, 2], 0),
            false => log,
        }
    }

    /// Where frame `number` is.
    pub(super) fn offset(number: u32) -> usize {
        LOG_HEADER_LEN + (number as usize - 1) * (FRAME_HEADER_LEN + 512)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }
}

/// The bytes of the wal-index that a recovery of `scan` builds.
pub(super) fn shm_of(scan: &LogScan) -> Vec<u8> {
    let header = IndexHeader::empty().with_generation(
        scan.header.salts,
        scan.header.byte_order,
        scan.checksum,
    );
    let header = header.recovered(scan.header.page_size, scan.max_frame(), scan.page_count);
    let mut bytes = Vec::new();
    let mut pages = &scan.pages[..];
    for index in 0.. {
        let room = if index == 0 { 4062 } else { 4096 };
        let (here, rest) = pages.split_at(room.min(pages.len()));
        let block = WritableBlock::zeroed();
        build_block(&block, index, here);
        if index == 0 {
            block.store_header(&header);
        }
        bytes.extend(bytes_of(&block, index));
        pages = rest;
        if pages.is_empty() {
            return bytes;
        }
    }
    bytes
}

fn bytes_of(block: &WritableBlock, index: u32) -> Vec<u8> {
    let head = if index == 0 {
        block.header_words()
    } else {
        &[]
    };
    let words = head.iter().chain(block.pages(index));
    let mut bytes: Vec<u8> = words.flat_map(|word| word.load().to_ne_bytes()).collect();
    bytes.extend(
        block
            .slots()
            .iter()
            .flat_map(|slot| slot.load().to_ne_bytes()),
    );
    bytes
}
