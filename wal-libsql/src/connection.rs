//! A connection to a database, on which SQL runs.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::time::Duration;

use libsql_ffi as ffi;

use crate::busy;
use crate::options::{BackendKind, WalOptions};
use crate::statement::{Statement, text_at};
use crate::value::{SqlError, Value, c_string};

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    wal: WalOptions,
    flags: c_int,
    busy_timeout: Duration,
}

impl OpenOptions {
    /// For reading and writing; the database is made if it is not there. Statements do not
    /// wait for other connections.
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

    /// How long a statement waits for other connections; see [`Connection::busy_timeout`].
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
        connection.busy_timeout(self.busy_timeout)?;
        Ok(connection)
    }
}

/// A connection to a database, on which SQL runs. Use one for each thread.
///
/// ```
/// # use wal_libsql::{BackendKind, OpenOptions, Value};
/// # #[cfg(feature = "shm")]
/// # fn main() -> Result<(), wal_libsql::SqlError> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("app.db");
/// let db = OpenOptions::new(BackendKind::Shared)
///     .busy_timeout(std::time::Duration::from_secs(5))
///     .open(&path)?;
/// db.execute("PRAGMA journal_mode = WAL; CREATE TABLE person(id INTEGER PRIMARY KEY, name)")?;
/// db.execute_with("INSERT INTO person(name) VALUES (?)", &["Ada".into()])?;
/// assert_eq!((db.changes(), db.last_insert_rowid()), (1, 1));
/// let rows = db.query_with("SELECT name FROM person WHERE id = ?", &[1.into()])?;
/// assert_eq!(rows, [[Value::from("Ada")]]);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "shm"))]
/// # fn main() {}
/// ```
#[derive(Debug)]
pub struct Connection {
    db: NonNull<ffi::sqlite3>,
}

// SAFETY: the engine is compiled to be used by any thread.
unsafe impl Send for Connection {}

impl Connection {
    /// Opens the database at `path`, shared with other processes, for which statements
    /// wait up to five seconds.
    ///
    /// # Errors
    /// What the engine says.
    #[cfg(feature = "shm")]
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SqlError> {
        OpenOptions::new(BackendKind::Shared)
            .busy_timeout(Duration::from_secs(5))
            .open(path)
    }

    /// Takes over a connection that was opened by other means: [`Connection::into_raw`], with
    /// `libsql_open_v3` and [`WalOptions::manager`], or with libSQL's own log. Dropping the value
    /// closes it. Its busy handler stays; [`Connection::busy_timeout`] replaces it by the
    /// handler that waits in the writer queue.
    ///
    /// # Safety
    /// `db` is open, and the caller gives up its ownership: no other code closes it. Other code
    /// that still has the pointer uses it on the thread that uses this value only, and not after
    /// it is dropped.
    pub unsafe fn from_raw(db: NonNull<ffi::sqlite3>) -> Self {
        Connection { db }
    }

    /// Gives the connection up without closing it. The caller owns it from now on, and closes
    /// it by `sqlite3_close_v2` or [`Connection::from_raw`]. Its settings stay, its busy handler
    /// and the log beneath among them.
    ///
    /// ```
    /// # use wal_libsql::{BackendKind, Connection, OpenOptions};
    /// # #[cfg(feature = "shm")]
    /// # fn main() -> Result<(), wal_libsql::SqlError> {
    /// let db = OpenOptions::new(BackendKind::Shared).open(":memory:")?.into_raw();
    /// // A driver of its own uses the pointer here, and returns it to be closed.
    /// // SAFETY: `into_raw` gave it, and it is used here alone.
    /// let db = unsafe { Connection::from_raw(db) };
    /// db.execute("SELECT 1")?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "shm"))]
    /// # fn main() {}
    /// ```
    #[must_use = "the connection stays open until it is closed"]
    pub fn into_raw(self) -> NonNull<ffi::sqlite3> {
        ManuallyDrop::new(self).db
    }

    /// The connection as C knows it, for what this wrapper does not have. The value still owns
    /// it: the caller does not close it, nor use it after the value is dropped.
    pub fn as_raw(&self) -> NonNull<ffi::sqlite3> {
        self.db
    }

    /// Lets each statement wait up to `timeout` for other connections; zero is not to wait.
    /// It replaces the busy handler that the connection has.
    ///
    /// A statement that writes waits in the writer queue, with the writers of all processes
    /// that use this library, and is woken when it is the first. The engine waits only before a
    /// transaction has read anything: begin one that reads and then writes by `BEGIN IMMEDIATE`.
    /// `PRAGMA busy_timeout` that runs on this value does the same; read, it is 0, as beside any
    /// busy handler. `sqlite3_busy_timeout` and `sqlite3_busy_handler` replace the handler by a
    /// handler that does not queue.
    ///
    /// `sqlite3_interrupt` ends the wait with `SQLITE_INTERRUPT`.
    ///
    /// # Errors
    /// `SQLITE_NOMEM`.
    pub fn busy_timeout(&self, timeout: Duration) -> Result<(), SqlError> {
        // SAFETY: the connection is open.
        self.check(unsafe { busy::set_timeout(self.db, timeout) })
    }

    /// Runs all statements of `sql`, and discards their rows.
    ///
    /// # Errors
    /// The engine's error for the first statement that fails; later statements do not run.
    pub fn execute(&self, sql: &str) -> Result<(), SqlError> {
        let sql = c_string(sql.as_bytes())?;
        let mut rest = sql.as_c_str();
        while !rest.is_empty() {
            let (statement, tail) = self.prepare_first(rest)?;
            if let Some(mut statement) = statement {
                while statement.step()? {}
            }
            rest = tail;
        }
        Ok(())
    }

    /// Runs the first statement of `sql` with `parameters`, and discards its rows.
    ///
    /// # Errors
    /// As [`Connection::query_with`].
    pub fn execute_with(&self, sql: &str, parameters: &[Value]) -> Result<(), SqlError> {
        let mut statement = self.prepare(sql)?;
        statement.bind_all(parameters)?;
        while statement.step()? {}
        Ok(())
    }

    /// Runs the first statement of `sql`, and returns its rows.
    ///
    /// # Errors
    /// As [`Connection::query_with`].
    pub fn query(&self, sql: &str) -> Result<Vec<Vec<Value>>, SqlError> {
        self.query_with(sql, &[])
    }

    /// Runs the first statement of `sql` with `parameters`, and returns its rows.
    ///
    /// # Errors
    /// The engine's error; `SQLITE_RANGE` for another number of parameters than the statement
    /// has.
    pub fn query_with(&self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, SqlError> {
        let mut statement = self.prepare(sql)?;
        statement.bind_all(parameters)?;
        let mut rows = Vec::new();
        while statement.step()? {
            rows.push(statement.row());
        }
        Ok(rows)
    }

    /// Prepares the first statement of `sql`, to be run any number of times.
    ///
    /// # Errors
    /// The engine's error; `SQLITE_MISUSE` if there is no statement.
    pub fn prepare(&self, sql: &str) -> Result<Statement<'_>, SqlError> {
        let text = c_string(sql.as_bytes())?;
        let (statement, _) = self.prepare_first(&text)?;
        statement.ok_or_else(|| SqlError::misuse("no statement"))
    }

    /// Returns how many rows the last `INSERT`, `UPDATE` or `DELETE` has changed, without those
    /// that triggers have changed.
    pub fn changes(&self) -> u64 {
        // SAFETY: the connection is open.
        let changes = unsafe { ffi::sqlite3_changes64(self.db.as_ptr()) };
        u64::try_from(changes).unwrap_or(0)
    }

    /// Returns how many rows were changed since the connection was opened, with those that
    /// triggers have changed.
    pub fn total_changes(&self) -> u64 {
        // SAFETY: the connection is open.
        let changes = unsafe { ffi::sqlite3_total_changes64(self.db.as_ptr()) };
        u64::try_from(changes).unwrap_or(0)
    }

    /// Returns the rowid of the row that this connection has inserted last; 0 if it has inserted
    /// none.
    pub fn last_insert_rowid(&self) -> i64 {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_last_insert_rowid(self.db.as_ptr()) }
    }

    /// Prepares the first statement of `text`, and returns it, `None` for a comment, with
    /// the rest.
    fn prepare_first<'t>(
        &self,
        text: &'t CStr,
    ) -> Result<(Option<Statement<'_>>, &'t CStr), SqlError> {
        let (mut statement, mut tail) = (ptr::null_mut(), ptr::null());
        // SAFETY: the connection is open, the text ends with a zero.
        let code = unsafe {
            ffi::sqlite3_prepare_v2(
                self.db.as_ptr(),
                text.as_ptr(),
                -1,
                &raw mut statement,
                &raw mut tail,
            )
        };
        self.check(code)?;
        let statement = NonNull::new(statement).map(|statement| Statement::new(self, statement));
        // SAFETY: after a success it is within `text`, or at the zero behind it.
        let rest = unsafe { CStr::from_ptr(tail) };
        let len = text.count_bytes() - rest.count_bytes();
        if mentions_busy_timeout(&text.to_bytes()[..len]) {
            self.adopt_busy_timeout()?;
        }
        Ok((statement, rest))
    }

    /// Replaces the engine's own busy handler, which `PRAGMA busy_timeout` sets when it is
    /// prepared, by the one that waits in the queue.
    fn adopt_busy_timeout(&self) -> Result<(), SqlError> {
        let mut statement = ptr::null_mut();
        let pragma = c"PRAGMA busy_timeout";
        // SAFETY: the connection is open, the text ends with a zero.
        self.check(unsafe {
            ffi::sqlite3_prepare_v2(
                self.db.as_ptr(),
                pragma.as_ptr(),
                -1,
                &raw mut statement,
                ptr::null_mut(),
            )
        })?;
        let Some(statement) = NonNull::new(statement) else {
            return Ok(());
        };
        let mut statement = Statement::new(self, statement);
        // Not 0 if the handler is the engine's own.
        if statement.step()?
            && let Value::Integer(timeout @ 1..) = statement.value(0)
        {
            self.busy_timeout(Duration::from_millis(timeout.unsigned_abs()))?;
        }
        Ok(())
    }

    pub(crate) fn check(&self, code: c_int) -> Result<(), SqlError> {
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

fn mentions_busy_timeout(sql: &[u8]) -> bool {
    const NAME: &[u8] = b"busy_timeout";
    sql.windows(NAME.len())
        .any(|part| part[0] | 0x20 == NAME[0] && part.eq_ignore_ascii_case(NAME))
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: this is the last use of it; statements borrow it.
        unsafe { ffi::sqlite3_close_v2(self.db.as_ptr()) };
    }
}
