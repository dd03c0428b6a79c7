//! What a lock keeps of the two files, and the only place that reads bytes of a mapping.
//!
//! # Protocol
//! A page is handed out without a copy only if nobody changes it as long as it is
//! looked at:
//!
//! - A frame is written once, above the published ones, and written over only after a
//!   restart of the log. `READ(1)` to `READ(4)`, `WRITE` and `CKPT` keep the log from
//!   being restarted, each of them. `READ(0)` does so while not all of the log is in the
//!   database file.
//! - A page of the database file is written by a checkpoint alone. `READ(0)` excludes
//!   one; a mark keeps it from copying a frame beyond the mark; and a page whose newest
//!   frame was copied before a transaction began is not copied again, but by the same
//!   bytes.
//!
//! [`Kept`] stands for that. It is made where the lock is at hand, and borrows what
//! holds it, and so does each page that it gives: no page outlives its lock, whatever
//! becomes too old, is given up or is closed in the meantime.
//!
//! That locks exclude, and that every program which writes the files goes by them, is the
//! promise of whoever made the attachment ([`Wal::new_mapped`]). Without it pages are
//! copied ([`Wal::new`]).
#![allow(unsafe_code)] // Bytes that are mapped are seen as slices.

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::format::{Checksum, FRAME_HEADER_LEN, frame_offset};
use crate::index::Seal;
use crate::protocol::handle::Wal;
use crate::protocol::read::page_ref::PageRef;
use crate::protocol::read::snapshot::Snapshot;
use crate::protocol::read::taken_map::TakenMap;
use crate::storage::MappedFile;
use crate::types::{FrameNo, PageNo};

/// Frames `first..=last` of the log, and the pages of the database file that a snapshot
/// takes from there, neither of which change as long as `'k`.
///
/// The way of a read passes it by reference. A copy of three fields that were only just
/// stored is one wide load, for which the processor waits until the stores are done.
#[derive(Debug)]
pub(in crate::protocol) struct Kept<'k, C: WalCoordination> {
    wal: &'k Wal<C>,
    first: u32,
    last: u32,
}

impl<C: WalCoordination> Clone for Kept<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C: WalCoordination> Copy for Kept<'_, C> {}

impl<C: WalCoordination> Wal<C> {
    /// What the caller's lock keeps: frames `first..=last`, and the pages of the
    /// database file that it takes.
    ///
    /// # Safety
    /// As long as the result, or a page that it gave, is in use, a lock is held that
    /// keeps these frames and those pages as they are (module docs, "Protocol").
    #[inline(always)]
    pub(in crate::protocol) unsafe fn kept(&self, first: u32, last: u32) -> Kept<'_, C> {
        Kept {
            wal: self,
            first,
            last,
        }
    }

    /// The mapping of the log, if pages are read from it.
    #[inline]
    pub(in crate::protocol) fn mapped_log(&self) -> Option<&MappedFile> {
        self.storage().log().mapped().filter(|_| self.is_mapped())
    }

    /// The mapping of the database file, if pages are read from it.
    #[inline]
    pub(super) fn mapped_database(&self) -> Option<&MappedFile> {
        self.storage()
            .database()
            .mapped()
            .filter(|_| self.is_mapped())
    }
}

impl<'k, C: WalCoordination> Kept<'k, C> {
    /// The attachment.
    #[inline]
    pub(in crate::protocol) fn wal(&self) -> &'k Wal<C> {
        self.wal
    }

    /// The content of `page`, if it is one of `snapshot`, whose lock keeps this. `map` is
    /// as for [`Kept::find_frame`].
    #[inline]
    pub(in crate::protocol) fn page(
        &self,
        snapshot: &Snapshot,
        map: Option<&TakenMap>,
        page: PageNo,
    ) -> Result<PageRef<'k>> {
        self.wal.check_process()?;
        snapshot.check_page(page, self.wal.config().page_size)?;
        match self.find_frame(snapshot, map, page)? {
            Some(frame) => self.page_of_frame(frame),
            None => self.page_of_database(snapshot, page),
        }
    }

    /// The page in `frame`.
    #[inline]
    pub(in crate::protocol) fn page_of_frame(self, frame: FrameNo) -> Result<PageRef<'k>> {
        let len = self.wal.config().page_size.len();
        let offset = self.offset_of(frame)? + FRAME_HEADER_LEN as u64;
        if let Some(mapped) = self.wal.mapped_log() {
            // SAFETY: the frame is kept as long as `'k`, by every program that keeps the
            // protocol (`offset_of`, `Wal::kept`). `Wal::new_mapped` says that no other
            // one writes the file, and that the mapping is of the log.
            return unsafe { mapped.slice(offset, len) }.map(PageRef::borrowed);
        }
        let mut copy = vec![0; len].into_boxed_slice();
        self.read_log(offset, &mut copy)?;
        Ok(PageRef::copied(copy))
    }

    /// Reads from byte `skip` of `frame` on, the 24 bytes of its header included, into
    /// `buffer`: as much as there is of the frame.
    pub(in crate::protocol) fn read_frame(
        self,
        frame: FrameNo,
        skip: usize,
        buffer: &mut [u8],
    ) -> Result<()> {
        self.wal.check_process()?;
        let offset = self.offset_of(frame)? + skip as u64;
        let rest = FRAME_HEADER_LEN + self.wal.config().page_size.len() - skip;
        let len = buffer.len().min(rest);
        let buffer = &mut buffer[..len];
        if let Some(mapped) = self.wal.mapped_log() {
            // SAFETY: as in `page_of_frame`. A header may be written over by the writer
            // of its frame alone, who is not reading it at the same time.
            buffer.copy_from_slice(unsafe { mapped.slice(offset, len) }?);
            return Ok(());
        }
        self.read_log(offset, buffer)
    }

    /// The header of `frame`; zeros for frame 0, which is none.
    pub(in crate::protocol) fn seal_at(self, frame: u32) -> Result<Seal> {
        let mut seal = [0; FRAME_HEADER_LEN];
        if let Some(frame) = FrameNo::new(frame) {
            self.read_frame(frame, 0, &mut seal)?;
        }
        Ok(seal)
    }

    /// The checksum at the end of `frame`, as it stands in the log.
    pub(in crate::protocol) fn checksum_at(self, frame: u32) -> Result<Checksum> {
        let [.., a, b, c, d, e, f, g, h] = self.seal_at(frame)?;
        Ok(Checksum::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    /// Where `frame` begins in the log. One that is not kept is refused.
    #[inline]
    fn offset_of(self, frame: FrameNo) -> Result<u64> {
        if (self.first..=self.last).contains(&frame.get()) {
            return Ok(frame_offset(frame, self.wal.config().page_size));
        }
        Err(self.refuse(frame))
    }

    #[cold]
    fn refuse(self, frame: FrameNo) -> Error {
        let reason = format!("{frame:?} is none that this transaction keeps in the log");
        Error::refused(self.wal.path(), "reading a frame", reason)
    }

    fn read_log(self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let log = self.wal.storage().log();
        if log.read_at(buffer, offset)? < buffer.len() {
            let reason = "it ends before a frame that the wal-index names";
            return Err(Error::corrupt(log.path(), reason));
        }
        Ok(())
    }

    /// The content of `page`, which has no frame in `snapshot`, whose lock keeps this.
    #[inline]
    fn page_of_database(&self, snapshot: &Snapshot, page: PageNo) -> Result<PageRef<'k>> {
        let size = self.wal.config().page_size;
        let offset = page.offset(size);
        if let Some(mapped) = self.wal.mapped_database() {
            // SAFETY: the page is kept as long as `'k`, by every program that keeps the
            // protocol (`Wal::kept`). `Wal::new_mapped` says that no other one writes the
            // file, and that the mapping is of the database file.
            return match unsafe { mapped.slice(offset, size.len()) } {
                Ok(bytes) => Ok(PageRef::borrowed(bytes)),
                Err(Error::Corrupt { .. }) if !snapshot.reads_database_only() => {
                    self.never_written(page)
                }
                Err(e) => Err(e),
            };
        }
        let file = self.wal.storage().database();
        let mut copy = vec![0; size.len()].into_boxed_slice();
        if file.read_at(&mut copy, offset)? < copy.len() {
            if snapshot.reads_database_only() {
                return Err(Error::corrupt(
                    file.path(),
                    format!("it ends before {page:?}"),
                ));
            }
            return self.never_written(page);
        }
        Ok(PageRef::copied(copy))
    }

    /// A page that the snapshot counts but that is in neither file. SQLite
    /// does not write a page that was added and freed in one transaction, so
    /// while the log is not backfilled the file may be too short for it. Once
    /// all is backfilled, the file has its full length.
    fn never_written(self, page: PageNo) -> Result<PageRef<'k>> {
        let (file, size) = (self.wal.storage().database(), self.wal.config().page_size);
        if file.len()? >= page.offset(size) + size.len() as u64 {
            return Err(Error::corrupt(
                file.path(),
                format!("{page:?} cannot be mapped"),
            ));
        }
        Ok(PageRef::zeros(size))
    }

    /// Reads the first bytes of the database file into `buffer`, if it has so many by the
    /// length that was seen.
    pub(super) fn read_page_one(self, buffer: &mut [u8]) -> Result<()> {
        if let Some(mapped) = self.wal.mapped_database()
            && mapped.len()? >= buffer.len() as u64
        {
            // SAFETY: as in `page_of_database`.
            buffer.copy_from_slice(unsafe { mapped.slice(0, buffer.len()) }?);
            return Ok(());
        }
        self.wal.storage().database().read_at(buffer, 0).map(drop)
    }
}
