//! A prepared statement: its parameters, and its rows.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uchar};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;

use libsql_ffi as ffi;

use crate::busy;
use crate::connection::Connection;
use crate::value::{SqlError, Value, c_string};

/// The encoding of texts (`SQLITE_UTF8`).
const UTF8: c_uchar = 1;

/// A prepared statement.
#[derive(Debug)]
pub struct Statement<'c> {
    connection: &'c Connection,
    statement: NonNull<ffi::sqlite3_stmt>,
    _not_shared: PhantomData<*mut ()>,
}

impl<'c> Statement<'c> {
    /// The statement that the engine has prepared for `connection`, which this finalizes.
    pub(crate) fn new(connection: &'c Connection, statement: NonNull<ffi::sqlite3_stmt>) -> Self {
        Statement {
            connection,
            statement,
            _not_shared: PhantomData,
        }
    }

    /// The statement as C knows it, for what this wrapper does not have.
    pub fn as_raw(&self) -> NonNull<ffi::sqlite3_stmt> {
        self.statement
    }

    /// Returns how many parameters the statement has: the greatest number of one.
    pub fn parameter_count(&self) -> c_int {
        // SAFETY: the statement is there.
        unsafe { ffi::sqlite3_bind_parameter_count(self.statement.as_ptr()) }
    }

    /// Returns the number of the parameter called `name`, with its `:`, `@` or `$`.
    ///
    /// # Errors
    /// `SQLITE_RANGE` if there is none, `SQLITE_MISUSE` if `name` has a zero byte.
    pub fn parameter_index(&self, name: &str) -> Result<c_int, SqlError> {
        let text = c_string(name.as_bytes())?;
        // SAFETY: the statement is there, the name ends with a zero.
        let at =
            unsafe { ffi::sqlite3_bind_parameter_index(self.statement.as_ptr(), text.as_ptr()) };
        match at {
            0 => Err(SqlError {
                code: ffi::SQLITE_RANGE,
                message: format!("no parameter is called {name:?}; pass its : @ or $ too"),
            }),
            at => Ok(at),
        }
    }

    /// Sets parameter `at`, the first of which is 1. It stays set until it is set again.
    ///
    /// # Errors
    /// `SQLITE_RANGE` if there is no such parameter, `SQLITE_MISUSE` if the statement has been
    /// stepped and not been reset, `SQLITE_TOOBIG`, and `SQLITE_NOMEM`.
    pub fn bind(&mut self, at: c_int, value: &Value) -> Result<(), SqlError> {
        let statement = self.statement.as_ptr();
        // The statement is there, and texts and blobs are copied, in each call.
        let code = match value {
            // SAFETY: as above.
            Value::Null => unsafe { ffi::sqlite3_bind_null(statement, at) },
            // SAFETY: as above.
            Value::Integer(number) => unsafe { ffi::sqlite3_bind_int64(statement, at, *number) },
            // SAFETY: as above.
            Value::Real(number) => unsafe { ffi::sqlite3_bind_double(statement, at, *number) },
            Value::Text(text) => {
                let (start, len) = (text.as_ptr().cast(), text.len() as u64);
                let copied = ffi::SQLITE_TRANSIENT();
                // SAFETY: as above.
                unsafe { ffi::sqlite3_bind_text64(statement, at, start, len, copied, UTF8) }
            }
            Value::Blob(blob) => {
                // The pointer of an empty one is not null, which would be NULL.
                let (start, len) = (blob.as_ptr().cast(), blob.len() as u64);
                let copied = ffi::SQLITE_TRANSIENT();
                // SAFETY: as above.
                unsafe { ffi::sqlite3_bind_blob64(statement, at, start, len, copied) }
            }
        };
        self.connection.check(code)
    }

    /// Sets the parameter called `name`, with its `:`, `@` or `$`.
    ///
    /// ```
    /// # use wal_libsql::{BackendKind, OpenOptions, Value};
    /// # #[cfg(feature = "shm")]
    /// # fn main() -> Result<(), wal_libsql::SqlError> {
    /// let db = OpenOptions::new(BackendKind::Shared).open(":memory:")?;
    /// let mut sum = db.prepare("SELECT :a + :b AS sum")?;
    /// sum.bind_named(":a", &1.into())?;
    /// sum.bind_named(":b", &2.into())?;
    /// assert_eq!(sum.column_names(), ["sum"]);
    /// assert!(sum.step()?);
    /// assert_eq!(sum.value(0), Value::Integer(3));
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "shm"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// As [`Statement::parameter_index`] and [`Statement::bind`].
    pub fn bind_named(&mut self, name: &str, value: &Value) -> Result<(), SqlError> {
        let at = self.parameter_index(name)?;
        self.bind(at, value)
    }

    /// Sets all parameters, in their order.
    ///
    /// # Errors
    /// `SQLITE_RANGE` if the statement has another number of parameters; none is set then. What
    /// [`Statement::bind`] gives.
    pub fn bind_all(&mut self, values: &[Value]) -> Result<(), SqlError> {
        let count = self.parameter_count();
        if usize::try_from(count) != Ok(values.len()) {
            let given = values.len();
            return Err(SqlError {
                code: ffi::SQLITE_RANGE,
                message: format!("{given} values for {count} parameters"),
            });
        }
        (1..)
            .zip(values)
            .try_for_each(|(at, value)| self.bind(at, value))
    }

    /// Sets all parameters to NULL.
    pub fn clear_bindings(&mut self) {
        // SAFETY: the statement is there. It always succeeds.
        unsafe { ffi::sqlite3_clear_bindings(self.statement.as_ptr()) };
    }

    /// Steps to the next row; false if there is none, and the statement has
    /// been run.
    ///
    /// # Errors
    /// What the statement gives; [`SqlError::is_busy`] if another connection blocks it.
    pub fn step(&mut self) -> Result<bool, SqlError> {
        // SAFETY: the statement is there.
        let step = || unsafe { ffi::sqlite3_step(self.statement.as_ptr()) };
        match busy::while_running(self.connection.as_raw(), step) {
            ffi::SQLITE_ROW => Ok(true),
            ffi::SQLITE_DONE => Ok(false),
            code => self.connection.check(code).map(|()| false),
        }
    }

    /// Makes the statement ready to be run again; parameters stay.
    pub fn reset(&mut self) {
        // SAFETY: the statement is there. The error that it returns is that of `step`.
        unsafe { ffi::sqlite3_reset(self.statement.as_ptr()) };
    }

    /// Returns the number of columns; 0 for a statement that has no rows.
    pub fn columns(&self) -> c_int {
        // SAFETY: the statement is there.
        unsafe { ffi::sqlite3_column_count(self.statement.as_ptr()) }
    }

    /// Returns the name of column `at`, the first of which is 0: that of its `AS`, or what the
    /// engine calls it. `None` if there is no such column, or no memory.
    pub fn column_name(&self, at: c_int) -> Option<String> {
        // SAFETY: the statement is there.
        let name = unsafe { ffi::sqlite3_column_name(self.statement.as_ptr(), at) };
        (!name.is_null()).then(|| text_at(name))
    }

    /// Returns the names of all columns.
    pub fn column_names(&self) -> Vec<String> {
        (0..self.columns())
            .map(|at| self.column_name(at).unwrap_or_default())
            .collect()
    }

    /// Returns the value of column `at` of this row, the first of which is 0.
    pub fn value(&self, at: c_int) -> Value {
        let statement = self.statement.as_ptr();
        // SAFETY: the statement is there, for this and the calls below; what
        // is pointed to stays until the next one.
        let kind = unsafe { ffi::sqlite3_column_type(statement, at) };
        match kind {
            ffi::SQLITE_INTEGER => {
                // SAFETY: as above.
                Value::Integer(unsafe { ffi::sqlite3_column_int64(statement, at) })
            }
            ffi::SQLITE_FLOAT => {
                // SAFETY: as above.
                Value::Real(unsafe { ffi::sqlite3_column_double(statement, at) })
            }
            ffi::SQLITE_TEXT => Value::Text(String::from_utf8_lossy(&self.bytes(at)).into_owned()),
            ffi::SQLITE_BLOB => Value::Blob(self.bytes(at)),
            _ => Value::Null,
        }
    }

    /// Returns the values of this row.
    pub fn row(&self) -> Vec<Value> {
        (0..self.columns()).map(|at| self.value(at)).collect()
    }

    fn bytes(&self, at: c_int) -> Vec<u8> {
        let statement = self.statement.as_ptr();
        // SAFETY: the statement is there.
        let start = unsafe { ffi::sqlite3_column_blob(statement, at) }.cast::<u8>();
        // SAFETY: as above.
        let len = unsafe { ffi::sqlite3_column_bytes(statement, at) };
        match usize::try_from(len) {
            Ok(len @ 1..) if !start.is_null() => {
                // SAFETY: the engine has returned that so many bytes are there.
                unsafe { slice::from_raw_parts(start, len) }.to_vec()
            }
            _ => Vec::new(),
        }
    }
}

impl Drop for Statement<'_> {
    fn drop(&mut self) {
        // SAFETY: this is the last use of it.
        unsafe { ffi::sqlite3_finalize(self.statement.as_ptr()) };
    }
}

/// Returns a text of the engine.
pub(crate) fn text_at(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: texts of the engine end with a zero.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}
