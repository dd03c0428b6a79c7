//! SQL on a database: as little as it takes to run it.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_uchar};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use libsql_ffi as ffi;

use crate::options::{BackendKind, WalOptions};

/// The encoding of texts (`SQLITE_UTF8`).
const UTF8: c_uchar = 1;

/// What the engine says went wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct SqlError {
    /// The extended result code.
    pub code: c_int,
    /// The message.
    pub message: String,
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

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    wal: WalOptions,
    flags: c_int,
    busy_timeout: Duration,
}

impl OpenOptions {
    /// For reading and writing, made if it is not there, without waiting for
    /// others.
    pub fn new(backend: BackendKind) -> Self {
        OpenOptions {
            wal: WalOptions::new(backend),
            flags: ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_URI,
            busy_timeout: Duration::ZERO,
        }
    }

    /// How the log is opened.
    #[must_use]
    pub fn wal(mut self, wal: WalOptions) -> Self {
        self.wal = wal;
        self
    }

    /// Opens for reading alone.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.flags = ffi::SQLITE_OPEN_READONLY | ffi::SQLITE_OPEN_URI;
        self
    }

    /// How long to wait for others.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Opens the database at `path`, or at a `file:` URI.
    ///
    /// # Errors
    /// What the engine says.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Connection, SqlError> {
        let name = c_string(path.as_ref().as_os_str().as_bytes())?;
        // SAFETY: it can be called at any time, any number of times.
        let code = unsafe { ffi::sqlite3_initialize() };
        if code != ffi::SQLITE_OK {
            return Err(SqlError::of_code(code));
        }
        let mut db = ptr::null_mut();
        let manager = self.wal.manager();
        // SAFETY: the engine is initialised; the name ends with a zero.
        let code = unsafe {
            ffi::libsql_open_v3(name.as_ptr(), &raw mut db, self.flags, ptr::null(), manager)
        };
        let Some(db) = NonNull::new(db) else {
            return Err(SqlError::of_code(code));
        };
        // From here on dropping it closes it, whether it was opened well or not.
        let connection = Connection { db };
        connection.check(code)?;
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_extended_result_codes(db.as_ptr(), 1) };
        let timeout = c_int::try_from(self.busy_timeout.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the connection is open.
        connection.check(unsafe { ffi::sqlite3_busy_timeout(db.as_ptr(), timeout) })?;
        Ok(connection)
    }
}

impl SqlError {
    fn of_code(code: c_int) -> Self {
        SqlError {
            code,
            message: ffi::code_to_str(code).to_owned(),
        }
    }
}

fn c_string(bytes: &[u8]) -> Result<CString, SqlError> {
    CString::new(bytes).map_err(|_| SqlError {
        code: ffi::SQLITE_MISUSE,
        message: "a zero byte within a text".to_owned(),
    })
}

/// A connection to a database, on which SQL runs. Use one for each thread.
#[derive(Debug)]
pub struct Connection {
    db: NonNull<ffi::sqlite3>,
}

// SAFETY: the engine is compiled to be used by any thread.
unsafe impl Send for Connection {}

impl Connection {
    /// Opens the database at `path`, shared with other processes, waiting for
    /// them up to five seconds.
    ///
    /// # Errors
    /// What the engine says.
    #[cfg(feature = "shm")]
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SqlError> {
        OpenOptions::new(BackendKind::Shared)
            .busy_timeout(Duration::from_secs(5))
            .open(path)
    }

    /// A connection that was opened by other means, with `libsql_open_v3` or
    /// with libSQL's own log. Dropping this closes it.
    ///
    /// # Safety
    /// `db` is open, and nobody else closes it or uses it at the same time.
    pub unsafe fn from_raw(db: NonNull<ffi::sqlite3>) -> Self {
        Connection { db }
    }

    /// Runs all statements of `sql`, and forgets the rows.
    ///
    /// # Errors
    /// What the engine says of the first that fails.
    pub fn execute(&self, sql: &str) -> Result<(), SqlError> {
        let sql = c_string(sql.as_bytes())?;
        let db = self.db.as_ptr();
        // SAFETY: the connection is open, the text ends with a zero.
        self.check(unsafe {
            ffi::sqlite3_exec(db, sql.as_ptr(), None, ptr::null_mut(), ptr::null_mut())
        })
    }

    /// Runs the one statement of `sql`, and gives its rows.
    ///
    /// # Errors
    /// What the engine says.
    pub fn query(&self, sql: &str) -> Result<Vec<Vec<Value>>, SqlError> {
        let mut statement = self.prepare(sql)?;
        let mut rows = Vec::new();
        while statement.step()? {
            rows.push(
                (0..statement.columns())
                    .map(|at| statement.value(at))
                    .collect(),
            );
        }
        Ok(rows)
    }

    /// Prepares the first statement of `sql`, to be run any number of times.
    ///
    /// # Errors
    /// What the engine says.
    pub fn prepare(&self, sql: &str) -> Result<Statement<'_>, SqlError> {
        let text = c_string(sql.as_bytes())?;
        let mut statement = ptr::null_mut();
        let db = self.db.as_ptr();
        // SAFETY: the connection is open, the text ends with a zero.
        self.check(unsafe {
            ffi::sqlite3_prepare_v2(db, text.as_ptr(), -1, &raw mut statement, ptr::null_mut())
        })?;
        Ok(Statement {
            connection: self,
            statement: NonNull::new(statement).ok_or_else(|| SqlError {
                code: ffi::SQLITE_MISUSE,
                message: "no statement".to_owned(),
            })?,
            _not_shared: PhantomData,
        })
    }

    /// The connection as C knows it, for what this wrapper has not.
    pub fn as_ptr(&self) -> *mut ffi::sqlite3 {
        self.db.as_ptr()
    }

    fn check(&self, code: c_int) -> Result<(), SqlError> {
        if code == ffi::SQLITE_OK {
            return Ok(());
        }
        // SAFETY: the connection is there, opened well or not.
        let message = unsafe { ffi::sqlite3_errmsg(self.db.as_ptr()) };
        Err(SqlError {
            code,
            message: text_at(message),
        })
    }
}

fn text_at(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: texts of the engine end with a zero.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more; statements borrow it.
        unsafe { ffi::sqlite3_close_v2(self.db.as_ptr()) };
    }
}

/// A prepared statement.
#[derive(Debug)]
pub struct Statement<'c> {
    connection: &'c Connection,
    statement: NonNull<ffi::sqlite3_stmt>,
    _not_shared: PhantomData<*mut ()>,
}

impl Statement<'_> {
    /// Sets parameter `at`, the first of which is 1.
    ///
    /// # Errors
    /// What the engine says.
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

    /// Goes on to the next row; false if there is none, and the statement has
    /// been run.
    ///
    /// # Errors
    /// What the engine says.
    pub fn step(&mut self) -> Result<bool, SqlError> {
        // SAFETY: the statement is there.
        match unsafe { ffi::sqlite3_step(self.statement.as_ptr()) } {
            ffi::SQLITE_ROW => Ok(true),
            ffi::SQLITE_DONE => Ok(false),
            code => self.connection.check(code).map(|()| false),
        }
    }

    /// Makes it ready to be run again; parameters stay.
    pub fn reset(&mut self) {
        // SAFETY: the statement is there. What it says was said by `step`.
        unsafe { ffi::sqlite3_reset(self.statement.as_ptr()) };
    }

    /// The number of columns.
    pub fn columns(&self) -> c_int {
        // SAFETY: the statement is there.
        unsafe { ffi::sqlite3_column_count(self.statement.as_ptr()) }
    }

    /// The value of column `at` of this row, the first of which is 0.
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

    fn bytes(&self, at: c_int) -> Vec<u8> {
        let statement = self.statement.as_ptr();
        // SAFETY: the statement is there.
        let start = unsafe { ffi::sqlite3_column_blob(statement, at) }.cast::<u8>();
        // SAFETY: as above.
        let len = unsafe { ffi::sqlite3_column_bytes(statement, at) };
        match usize::try_from(len) {
            Ok(len @ 1..) if !start.is_null() => {
                // SAFETY: the engine says that so many bytes are there.
                unsafe { slice::from_raw_parts(start, len) }.to_vec()
            }
            _ => Vec::new(),
        }
    }
}

impl Drop for Statement<'_> {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more.
        unsafe { ffi::sqlite3_finalize(self.statement.as_ptr()) };
    }
}
