//! Where every value of the bank lies in one snapshot.

use super::BankError;
use super::page::{Geometry, u32_at};
use super::tree::{Location, locate_column, table_root};
use super::value::{Journal, decode, encode};

/// The places of one worker's journal values. Both are on the same page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerRow {
    /// Committed transfers.
    pub transfers: Location,
    /// The digest of those transfers.
    pub digest: Location,
}

impl WorkerRow {
    /// The leaf page of the row.
    #[must_use]
    pub fn page(&self) -> u32 {
        self.transfers.page
    }
}

/// The places of all accounts and journal rows, loaded from one snapshot and
/// good for later ones until an access says [`BankError::Moved`].
#[derive(Debug, Clone)]
pub struct Layout {
    geometry: Geometry,
    allocation: Allocation,
    accounts: Vec<Location>,
    workers: Vec<WorkerRow>,
}

/// What page 1 says of which pages are in use, and of the schema.
///
/// No page is freed, taken from the freelist or appended without a change of
/// one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Allocation {
    pages: u32,
    first_trunk: u32,
    free_pages: u32,
    schema_cookie: u32,
}

impl Allocation {
    fn from_page_one(page_one: &[u8]) -> Result<Self, BankError> {
        let field = |at| {
            u32_at(page_one, at).ok_or(BankError::Corrupt {
                page: 1,
                reason: "shorter than the database header",
            })
        };
        Ok(Self {
            pages: field(28)?,
            first_trunk: field(32)?,
            free_pages: field(36)?,
            schema_cookie: field(40)?,
        })
    }
}

impl Layout {
    /// Walks both tables. All pages must come from the same snapshot.
    ///
    /// # Errors
    /// What `read_page` answers, and a [`BankError`] for a page that is not
    /// sound or a row that cannot be patched in place.
    pub fn load<P: AsRef<[u8]>>(
        mut read_page: impl FnMut(u32) -> anyhow::Result<P>,
    ) -> anyhow::Result<Self> {
        let page_one = read_page(1)?;
        let geometry = Geometry::from_page_one(page_one.as_ref())?;
        let allocation = Allocation::from_page_one(page_one.as_ref())?;
        drop(page_one);

        let account = table_root(geometry, "account", &mut read_page)?;
        let accounts = locate_column(geometry, account, 1, &mut read_page)?;
        let journal = table_root(geometry, "journal", &mut read_page)?;
        let transfers = locate_column(geometry, journal, 1, &mut read_page)?;
        let digests = locate_column(geometry, journal, 2, &mut read_page)?;
        refuse_gaps(&accounts)?;
        refuse_gaps(&transfers)?;
        let workers = transfers
            .into_iter()
            .zip(digests)
            .map(|(transfers, digest)| WorkerRow { transfers, digest })
            .collect();
        Ok(Self {
            geometry,
            allocation,
            accounts,
            workers,
        })
    }

    /// Whether the pages of the tables may be others than when this layout was
    /// loaded. Takes page 1 of the snapshot in which the layout is to be used.
    ///
    /// # Errors
    /// [`BankError::Moved`] if pages were freed, taken or appended or the
    /// schema changed, [`BankError::Corrupt`].
    pub fn check_page_one(&self, page_one: &[u8]) -> Result<(), BankError> {
        if Geometry::from_page_one(page_one)? != self.geometry
            || Allocation::from_page_one(page_one)? != self.allocation
        {
            return Err(BankError::Moved { page: 1 });
        }
        Ok(())
    }

    /// The sizes of the pages.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The places of the balances; the account's id is the index.
    #[must_use]
    pub fn accounts(&self) -> &[Location] {
        &self.accounts
    }

    /// The places of the journal rows; the worker is the index.
    #[must_use]
    pub fn workers(&self) -> &[WorkerRow] {
        &self.workers
    }

    /// The balance at `location` in `page`, which is page `location.page`.
    ///
    /// # Errors
    /// [`BankError::Moved`]: load a new layout. [`BankError::Width`] and
    /// [`BankError::Overflow`] if SQL changed the row so that it cannot be
    /// patched any more. [`BankError::Corrupt`] if `page` has the wrong length.
    pub fn read_balance(&self, page: &[u8], location: Location) -> Result<i64, BankError> {
        let range = location.verify(self.geometry, page)?;
        page.get(range)
            .and_then(|bytes| bytes.first_chunk())
            .map(|bytes| decode(*bytes))
            .ok_or(BankError::Moved {
                page: location.page,
            })
    }

    /// Writes the balance at `location` into `page`: six bytes change, or none
    /// if this fails.
    ///
    /// # Errors
    /// Those of [`Layout::read_balance`], and [`BankError::OutOfRange`] outside
    /// of [`MIN_VALUE`](super::MIN_VALUE)..=[`MAX_VALUE`](super::MAX_VALUE).
    pub fn write_balance(
        &self,
        page: &mut [u8],
        location: Location,
        balance: i64,
    ) -> Result<(), BankError> {
        let bytes = encode(balance)?;
        let range = location.verify(self.geometry, page)?;
        let place = page.get_mut(range).ok_or(BankError::Moved {
            page: location.page,
        })?;
        place.copy_from_slice(&bytes);
        Ok(())
    }

    /// The journal row of a worker, from its page.
    ///
    /// # Errors
    /// Those of [`Layout::read_balance`].
    pub fn read_journal(&self, page: &[u8], row: WorkerRow) -> Result<Journal, BankError> {
        Ok(Journal {
            transfers: self.read_balance(page, row.transfers)?,
            digest: self.read_balance(page, row.digest)?,
        })
    }

    /// Writes the journal row of a worker into its page. After an error the
    /// page may have one of the two values: roll the transaction back.
    ///
    /// # Errors
    /// Those of [`Layout::write_balance`].
    pub fn write_journal(
        &self,
        page: &mut [u8],
        row: WorkerRow,
        journal: Journal,
    ) -> Result<(), BankError> {
        self.write_balance(page, row.transfers, journal.transfers)?;
        self.write_balance(page, row.digest, journal.digest)
    }

    /// The sum of all balances in one snapshot; each page is read once.
    ///
    /// # Errors
    /// What `read_page` answers, and those of [`Layout::read_balance`].
    pub fn total<P: AsRef<[u8]>>(
        &self,
        mut read_page: impl FnMut(u32) -> anyhow::Result<P>,
    ) -> anyhow::Result<i64> {
        let mut total = 0i64;
        for same_page in self.accounts.chunk_by(|a, b| a.page == b.page) {
            let Some(first) = same_page.first() else {
                continue;
            };
            let page = read_page(first.page)?;
            for location in same_page {
                let balance = self.read_balance(page.as_ref(), *location)?;
                total = total
                    .checked_add(balance)
                    .ok_or_else(|| anyhow::anyhow!("the sum of the balances overflows"))?;
            }
        }
        Ok(total)
    }
}

/// Ids are indices, so they must be 0, 1, 2 and so on.
fn refuse_gaps(rows: &[Location]) -> Result<(), BankError> {
    match (0i64..).zip(rows).find(|(due, row)| *due != row.rowid) {
        Some((_, row)) => Err(BankError::Gap { rowid: row.rowid }),
        None => Ok(()),
    }
}
