//! Values of rows and parameters, and errors of the engine.

use std::ffi::{CString, c_int};

use libsql_ffi as ffi;

/// An error of the engine.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct SqlError {
    /// The extended result code.
    pub code: c_int,
    /// The message.
    pub message: String,
}

impl SqlError {
    pub(crate) fn of_code(code: c_int) -> Self {
        SqlError {
            code,
            message: ffi::code_to_str(code).to_owned(),
        }
    }

    pub(crate) fn misuse(message: impl Into<String>) -> Self {
        SqlError {
            code: ffi::SQLITE_MISUSE,
            message: message.into(),
        }
    }

    /// True if another connection blocked the statement for longer than the timeout
    /// ("database is locked"), or has written since the transaction began to read
    /// (`SQLITE_BUSY_SNAPSHOT`). Roll the transaction back, and run it again from its beginning.
    ///
    /// ```
    /// # use wal_libsql::{Connection, SqlError};
    /// fn transfer(db: &Connection) -> Result<(), SqlError> {
    ///     loop {
    ///         match db.execute("BEGIN IMMEDIATE; UPDATE account SET balance = 0; COMMIT") {
    ///             Err(error) if error.is_busy() => eprintln!("still waiting"),
    ///             done => return done,
    ///         }
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.code & 0xff == ffi::SQLITE_BUSY
    }
}

/// Returns `text` as C takes it.
pub(crate) fn c_string(text: &[u8]) -> Result<CString, SqlError> {
    CString::new(text).map_err(|_| SqlError::misuse("a zero byte within a text"))
}

/// A value of a row, or of a parameter.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// NULL.
    Null,
    /// INTEGER.
    Integer(i64),
    /// REAL.
    Real(f64),
    /// TEXT.
    Text(String),
    /// BLOB.
    Blob(Vec<u8>),
}

macro_rules! from_integer {
    ($($kind:ty),*) => {
        $(impl From<$kind> for Value {
            fn from(number: $kind) -> Self {
                Value::Integer(number.into())
            }
        })*
    };
}

from_integer!(bool, i8, i16, i32, i64, u8, u16, u32);

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Value::Real(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<&[u8]> for Value {
    fn from(blob: &[u8]) -> Self {
        Value::Blob(blob.to_owned())
    }
}

impl From<Vec<u8>> for Value {
    fn from(blob: Vec<u8>) -> Self {
        Value::Blob(blob)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    /// `None` is NULL.
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}
