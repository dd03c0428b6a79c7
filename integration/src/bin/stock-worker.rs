//! Stock SQLite, the bundled one, as a process: `stock-worker DATABASE
//! [EXTENSION…]`.
//!
//! Each line of stdin is SQL, one statement or several; the answer on stdout is
//! its rows and then one line that says how it ended (`stock::wire`). Opening
//! the database is answered first, unasked. Extensions are loaded in their
//! order, and the database is opened through the VFS that is the default then,
//! or through the VFS `pausing` if that is the only extension. The connection
//! is closed and the process ends when stdin does.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use integration::stock::{self, PAUSING_VFS, SqlError, wire};
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::ValueRef;
use rusqlite::{Batch, Connection, OpenFlags, Row};

fn main() -> Result<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    let database = arguments.next().context("usage: DATABASE [EXTENSION…]")?;
    let extensions: Vec<OsString> = arguments.collect();
    let mut out = BufWriter::new(io::stdout().lock());

    let opened = open(&database, &extensions);
    answer(&mut out, opened.as_ref().map(|_| ()))?;
    let Ok(connection) = opened else {
        return Ok(ExitCode::FAILURE);
    };
    for line in io::stdin().lock().lines() {
        let outcome = execute(&connection, &line?, &mut out);
        answer(&mut out, outcome.as_ref().copied())?;
    }
    connection.close().map_err(|(_, error)| error)?;
    Ok(ExitCode::SUCCESS)
}

fn open(database: &OsString, extensions: &[OsString]) -> Result<Connection> {
    for library in extensions {
        stock::load(library)?;
    }
    let flags = OpenFlags::default();
    let is_paused = matches!(extensions, [only] if only == PAUSING_VFS);
    let connection = match is_paused {
        true => Connection::open_with_flags_and_vfs(database, flags, c"pausing")?,
        false => Connection::open_with_flags(database, flags)?,
    };
    // rusqlite's own default would hide every conflict for five seconds.
    connection.busy_timeout(Duration::ZERO)?;
    Ok(connection)
}

/// Runs the statements of a line up to the first that fails.
fn execute(connection: &Connection, sql: &str, out: &mut impl Write) -> Result<()> {
    let mut batch = Batch::new(connection, sql);
    while let Some(mut statement) = batch.next()? {
        let columns = statement.column_count();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            writeln!(out, "{}", wire::encode_row(&cells(row, columns)?)?)?;
        }
    }
    Ok(())
}

fn cells<'row>(row: &'row Row<'_>, columns: usize) -> rusqlite::Result<Vec<ValueRef<'row>>> {
    (0..columns).map(|column| row.get_ref(column)).collect()
}

/// Writes the last line of an answer and hands the whole over.
fn answer(out: &mut impl Write, outcome: Result<(), &anyhow::Error>) -> io::Result<()> {
    match outcome {
        Ok(()) => writeln!(out, "{}", wire::OK)?,
        Err(error) => writeln!(out, "{}", wire::encode_error(&sql_error(error)))?,
    }
    out.flush()
}

/// SQLite's code and message; `SQLITE_ERROR` for what is no error of SQLite's.
fn sql_error(error: &anyhow::Error) -> SqlError {
    let sqlite = error
        .downcast_ref::<rusqlite::Error>()
        .and_then(rusqlite::Error::sqlite_error);
    SqlError {
        code: sqlite.map_or(rusqlite::ffi::SQLITE_ERROR, |sqlite| sqlite.extended_code),
        message: error.to_string(),
    }
}
