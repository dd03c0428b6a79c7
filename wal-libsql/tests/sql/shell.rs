//! The commands of stock SQLite's shell that scripts use, on our log.

use std::collections::BTreeMap;
use std::path::Path;

use wal_libsql::{BackendKind, Connection, OpenOptions, SqlError, Value, ffi};

/// Connections that a script has open, and the one that it is at.
pub(crate) struct Shell {
    backend: BackendKind,
    connections: BTreeMap<usize, Connection>,
    at: usize,
}

impl Shell {
    pub(crate) fn open(backend: BackendKind, path: &Path) -> Self {
        let mut shell = Shell {
            backend,
            connections: BTreeMap::new(),
            at: 0,
        };
        shell.put(&OpenOptions::new(backend), path).unwrap();
        shell
    }

    /// Runs a line: a command, or a statement.
    pub(crate) fn run(&mut self, line: &str) -> Result<Vec<Vec<Value>>, SqlError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let options = OpenOptions::new(self.backend);
        match words[..] {
            [".connection", "close", number] => {
                self.connections.remove(&number.parse().unwrap());
            }
            [".connection", number] => self.at = number.parse().unwrap(),
            [".open", path] => self.put(&options, Path::new(path))?,
            [".open", "--readonly", path] => self.put(&options.read_only(), Path::new(path))?,
            [".backup", path] => copy(self.here(), &options.open(path)?)?,
            [".restore", path] => copy(&options.open(path)?, self.here())?,
            _ => return self.here().query(line),
        }
        Ok(Vec::new())
    }

    fn here(&self) -> &Connection {
        &self.connections[&self.at]
    }

    fn put(&mut self, options: &OpenOptions, path: &Path) -> Result<(), SqlError> {
        self.connections.remove(&self.at);
        let connection = options.open(path)?;
        connection.execute("PRAGMA foreign_keys = OFF")?;
        self.connections.insert(self.at, connection);
        Ok(())
    }
}

/// Copies a database by the backup interface.
fn copy(from: &Connection, to: &Connection) -> Result<(), SqlError> {
    let main = c"main".as_ptr();
    // SAFETY: both connections are open, the names end with a zero.
    let backup = unsafe {
        ffi::sqlite3_backup_init(to.as_raw().as_ptr(), main, from.as_raw().as_ptr(), main)
    };
    // SAFETY: the backup is there; its steps end with the last one or an error.
    while unsafe { ffi::sqlite3_backup_step(backup, 100) } == ffi::SQLITE_OK {}
    // SAFETY: this is its last use.
    match unsafe { ffi::sqlite3_backup_finish(backup) } {
        ffi::SQLITE_OK => Ok(()),
        code => Err(SqlError {
            code,
            message: ffi::code_to_str(code).to_owned(),
        }),
    }
}
