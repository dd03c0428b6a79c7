//! What can be wrong with a bank's pages, apart from reading them.

use std::fmt;

/// Why a page or a value of the bank was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BankError {
    /// A page breaks the file format, or was handed over in the wrong size.
    Corrupt {
        /// The page, counted from 1.
        page: u32,
        /// The rule that does not hold.
        reason: &'static str,
    },
    /// The row no longer lies where the layout says: load a new layout, which
    /// also tells if the page is corrupt instead.
    Moved {
        /// The page on which the row was expected; 1 if the tables as a whole
        /// may have moved.
        page: u32,
    },
    /// The value is stored in another width than six bytes, so that a patch
    /// would have to move other bytes of the page.
    Width {
        /// The leaf page of the row.
        page: u32,
        /// The row.
        rowid: i64,
        /// The serial type that the record's header gives for the value.
        serial_type: u64,
    },
    /// The row goes on in overflow pages.
    Overflow {
        /// The leaf page of the row.
        page: u32,
        /// The row.
        rowid: i64,
    },
    /// The value would leave serial type 5.
    OutOfRange {
        /// The value, without the offset.
        value: i64,
    },
    /// The schema lists no rowid table of this name.
    NoTable {
        /// The name that was looked for.
        name: String,
    },
    /// The rows of a table are not 0, 1, 2 and so on without a gap.
    Gap {
        /// The rowid that comes where another was due.
        rowid: i64,
    },
}

impl fmt::Display for BankError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt { page, reason } => write!(f, "page {page} is corrupt: {reason}"),
            Self::Moved { page } => write!(f, "rows of page {page} have moved"),
            Self::Width {
                page,
                rowid,
                serial_type,
            } => write!(
                f,
                "row {rowid} on page {page} stores serial type {serial_type}; \
                 our patcher refuses any other than 5"
            ),
            Self::Overflow { page, rowid } => {
                write!(f, "row {rowid} on page {page} goes on in overflow pages")
            }
            Self::OutOfRange { value } => write!(f, "{value} does not fit serial type 5"),
            Self::NoTable { name } => write!(f, "no rowid table is named {name}"),
            Self::Gap { rowid } => write!(f, "row {rowid} comes after a gap"),
        }
    }
}

impl std::error::Error for BankError {}
