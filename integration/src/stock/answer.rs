//! What a peer answers: rows, or an error that SQLite reported.

use std::fmt;

use anyhow::{Result, bail, ensure};
use rusqlite::ErrorCode;
use rusqlite::types::Value;

/// The rows that a line of SQL gave, those of all its statements together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rows(pub Vec<Vec<Value>>);

impl Rows {
    /// The only value of the only row.
    ///
    /// # Errors
    ///
    /// When there are more, or none.
    pub fn value(&self) -> Result<&Value> {
        match self.0.as_slice() {
            [row] if row.len() == 1 => Ok(&row[0]),
            rows => bail!("one row of one value was expected, not {rows:?}"),
        }
    }

    /// The only value, an integer.
    ///
    /// # Errors
    ///
    /// When there are more, or none, or it is of another type.
    pub fn integer(&self) -> Result<i64> {
        match self.value()? {
            Value::Integer(integer) => Ok(*integer),
            other => bail!("an integer was expected, not {other:?}"),
        }
    }

    /// The only value, a text.
    ///
    /// # Errors
    ///
    /// When there are more, or none, or it is of another type.
    pub fn text(&self) -> Result<&str> {
        match self.value()? {
            Value::Text(text) => Ok(text),
            other => bail!("a text was expected, not {other:?}"),
        }
    }
}

/// An error that SQLite itself reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError {
    /// SQLite's result code: extended from [`Bundled`](super::StockKind::Bundled), primary from
    /// [`Debian`](super::StockKind::Debian).
    pub code: i32,
    /// SQLite's message.
    pub message: String,
}

impl SqlError {
    /// What the primary code stands for.
    #[must_use]
    pub fn kind(&self) -> ErrorCode {
        rusqlite::ffi::Error::new(self.code).code
    }

    /// True of `SQLITE_BUSY` and its extended codes.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.kind() == ErrorCode::DatabaseBusy
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for SqlError {}

/// The bytes that a blob's digits stand for, as both kinds of peer write them.
pub(super) fn blob_from_hex(hex: &str) -> Result<Vec<u8>> {
    ensure!(
        hex.is_ascii() && hex.len().is_multiple_of(2),
        "`{hex}` is no blob"
    );
    (0..hex.len())
        .step_by(2)
        .map(|at| Ok(u8::from_str_radix(&hex[at..at + 2], 16)?))
        .collect()
}
