//! How long the database file is, and how many pages the database has.
//!
//! # Protocol
//! While a snapshot is read nobody cuts the file below what it counts, but for pages
//! that are in no frame: a checkpoint of an older state, which is past its last look at
//! the header, may cut those that a commit has added since without writing them, as
//! SQLite does with pages that are free again. So a
//! length that was seen will do for all that is read of a snapshot, and for later ones in
//! which nobody can have cut it since. Only bytes within that length are read from the mapping:
//! beyond the end of the file they would be a signal.
//!
//! # Crash
//! A checkpoint that dies has said before how far it goes.

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::format::DatabaseHeader;
use crate::index::IndexHeader;
use crate::protocol::config::DatabaseKind;
use crate::protocol::handle::Wal;
use crate::protocol::read::kept::Kept;
use crate::sync::Ordering;
use crate::types::Salts;

/// An odd number without a pattern (the golden ratio).
const MIXER: u64 = 0x9e37_79b9_7f4a_7c15;

impl<C: WalCoordination> Wal<C> {
    /// A checkpoint of a peer may have cut the database file between two
    /// snapshots, never within one: so its length is looked at again when a
    /// checkpoint may have begun or ended since, or the database has another size.
    /// One that cuts the file says before up to which frame it goes, and cuts it
    /// to the size that the database has there.
    #[inline(always)]
    pub(super) fn look_at_database_again(
        &self,
        header: &IndexHeader,
        min_frame: u32,
    ) -> Result<()> {
        let attempted = self.checkpoint_info()?.attempted();
        let Salts(salts) = header.salts();
        // Mixed so that no two of them are the same in practice.
        let mix = |state: u64, word: u32| {
            (state ^ u64::from(word))
                .wrapping_mul(MIXER)
                .rotate_left(29)
        };
        let commits = match header.page_count() {
            0 => commits_behind_an_empty_log(self),
            _ => Some(0),
        };
        let words = [
            attempted,
            min_frame,
            header.page_count(),
            commits.unwrap_or(0),
        ];
        let state = words.into_iter().fold(u64::from_ne_bytes(salts), mix);
        if self.read_state().length_was_seen_in(state) && commits.is_some() {
            return Ok(());
        }
        // Forgotten first: whoever finds the new state here does not go by a
        // length from before.
        if let Some(mapped) = self.mapped_database() {
            mapped.forget_len();
        }
        self.read_state().note_length_seen_in(state);
        Ok(())
    }
}

impl<C: WalCoordination> Kept<'_, C> {
    /// How many pages the database has in the state that `header` publishes, and the lock
    /// keeps.
    #[inline]
    pub(in crate::protocol) fn page_count(self, header: &IndexHeader) -> Result<u32> {
        match header.page_count() {
            0 => self.page_count_of_file(),
            count => Ok(count),
        }
    }

    fn page_count_of_file(self) -> Result<u32> {
        // Nothing was committed to the log since it was recovered empty, so
        // the file says how long it is (`pagerPagecount`, `lockBtree`). In one
        // state of the log it does not change, so the length that was seen in
        // this one will do. Should it be another one, the first page of a SQLite
        // database may count more pages than were seen.
        let wal = self.wal();
        if wal.config().kind != DatabaseKind::Sqlite {
            return self.pages_in_file();
        }
        let count = self.page_count_in_page_one()?;
        if let Some(count) = count
            && count <= self.pages_in_file()?
        {
            return Ok(count);
        }
        if let Some(mapped) = wal.mapped_database() {
            mapped.forget_len();
        }
        let pages = self.pages_in_file()?;
        match self.page_count_in_page_one()? {
            Some(count) if count > pages => Err(Error::corrupt(
                wal.path(),
                format!("its header speaks of {count} pages, the file has {pages}"),
            )),
            Some(count) => Ok(count),
            None => Ok(pages),
        }
    }

    fn pages_in_file(self) -> Result<u32> {
        let (wal, file) = (self.wal(), self.wal().storage().database());
        let len = match wal.mapped_database() {
            Some(mapped) => mapped.len()?,
            None => file.len()?,
        };
        // The size of a page is a power of two.
        let bytes = wal.config().page_size.bytes();
        let pages = (len + u64::from(bytes - 1)) >> bytes.trailing_zeros();
        u32::try_from(pages)
            .map_err(|_| Error::corrupt(file.path(), "it has more pages than can be numbered"))
    }

    fn page_count_in_page_one(self) -> Result<Option<u32>> {
        let mut page_one = [0; DatabaseHeader::LEN];
        self.read_page_one(&mut page_one)?;
        Ok(DatabaseHeader::decode(&page_one).and_then(|header| header.page_count))
    }
}

/// A number that goes up while the log is as it was when it was recovered
/// empty: it may have been another one, and have been recovered again. `None`
/// if nothing tells, because others do not keep up the index of who only
/// reads.
fn commits_behind_an_empty_log<C: WalCoordination>(wal: &Wal<C>) -> Option<u32> {
    let wait_state = wal
        .coordination()
        .wait_state()
        .filter(|_| !wal.config().read_only);
    wait_state.map(|wait_state| wait_state.commits().word().load(Ordering::SeqCst))
}
