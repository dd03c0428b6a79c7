//! The tables `wal_info`, `wal_queue` and `wal_locks`.
//!
//! ```sql
//! SELECT frames, backfilled FROM wal_info;  -- how long the log is, and how much is copied
//! SELECT pid, waited_us FROM wal_queue;     -- the writers that wait, the first one first
//! SELECT pid, command, frame FROM wal_locks WHERE lock LIKE 'READ(%'; -- what pins the log
//! ```
//!
//! `wal_locks` looks into other processes of the same user, as far as the system lets it. What
//! could not be seen is in the column `note` of rows that have nothing else.

use std::time::Duration;

use wal_core::inspect::{HeaderState, IndexInfo};
use wal_core::storage::LockKind;
use wal_core::wait::now;
use wal_core::{Lock, LockMode};
use wal_shm::inspect::{Census, HeldLock, LockByte};

use super::table::{self, Cell, Definition, Row};
use crate::ffi::Connection;
use crate::main_file::MainFile;
use crate::vfs::Shim;

static TABLES: [Definition; 3] = [
    Definition {
        name: c"wal_info",
        columns: c"CREATE TABLE wal_info(state TEXT, page_size INTEGER, pages INTEGER, \
            frames INTEGER, backfilled INTEGER, attempted INTEGER, changes INTEGER, salts TEXT, \
            version INTEGER)",
        rows: info,
    },
    Definition {
        name: c"wal_queue",
        columns: c"CREATE TABLE wal_queue(position INTEGER, state TEXT, pid INTEGER, \
            thread INTEGER, waited_us INTEGER, silent_us INTEGER)",
        rows: queue,
    },
    Definition {
        name: c"wal_locks",
        columns: c"CREATE TABLE wal_locks(file TEXT, lock TEXT, mode TEXT, kind TEXT, \
            pid INTEGER, command TEXT, frame INTEGER, note TEXT)",
        rows: locks,
    },
];

/// How long the search for the holders of locks takes at most.
const SEARCH: Duration = Duration::from_millis(200);

pub(super) fn define(shim: &'static Shim, connection: *mut Connection) {
    for definition in &TABLES {
        table::define(shim, connection, definition);
    }
}

/// One row: the newest committed state, and how much of the log is in the database file.
fn info(main: &MainFile) -> Result<Vec<Row>, String> {
    let index = main.inspect().ok_or("the wal-index is not mapped")?;
    let header = index.valid_header();
    let page_size = header.and_then(|header| header.page_size());
    Ok(vec![vec![
        state(&index).into(),
        page_size.map(|size| size.bytes()).into(),
        header.map(|header| header.page_count()).into(),
        index.max_frame().into(),
        index.backfilled().into(),
        index.attempted.into(),
        header.map(|header| header.change()).into(),
        header.map(|header| hex(header.salts().0)).into(),
        Cell::Integer(main.version()),
    ]])
}

fn state(index: &IndexInfo) -> &'static str {
    match index.header {
        HeaderState::Valid(_) => "valid",
        HeaderState::NeverWritten => "never written",
        HeaderState::CopiesDiffer => "being published",
        HeaderState::Damaged => "damaged",
        _ => "of an unknown version",
    }
}

fn hex(bytes: [u8; 8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The writer that has the time slice, at position 0, and those that wait.
fn queue(main: &MainFile) -> Result<Vec<Row>, String> {
    let queue = main.queue();
    let writers = queue.as_ref().and_then(|queue| queue.writers());
    let writers = writers.ok_or("the database has no side file, so its writers do not queue")?;
    let now = now();
    let slice = writers.time_slice(now).map(|slice| {
        vec![
            Cell::Integer(0),
            "has the time slice".into(),
            slice.process.pid().into(),
            slice.thread.into(),
            Cell::Null,
            Cell::Null,
        ]
    });
    let waiting = writers.waiting_writers(now).into_iter().zip(1..);
    let waiting = waiting.map(|(writer, position)| {
        vec![
            Cell::Integer(position),
            "waits".into(),
            writer.process.pid().into(),
            writer.thread.into(),
            micros(writer.waited),
            micros(writer.silent),
        ]
    });
    Ok(slice.into_iter().chain(waiting).collect())
}

fn micros(duration: Duration) -> Cell {
    Cell::Integer(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
}

/// The locks that processes hold on the files of the database. A read lock has the frame up to
/// which its reader reads the log.
fn locks(main: &MainFile) -> Result<Vec<Row>, String> {
    let census = Census::take(main.path(), SEARCH).map_err(|error| error.to_string())?;
    let index = main.inspect();
    let frame = |byte| match byte {
        LockByte::Protocol(Lock::Read(slot)) => index.as_ref()?.mark(slot),
        _ => None,
    };
    let row = |held: &HeldLock| {
        let process = held.pid.and_then(|pid| census.processes.get(&pid));
        let waits = held.is_waited_for.then_some("waits for it");
        vec![
            held.file
                .path(main.path())
                .to_string_lossy()
                .into_owned()
                .into(),
            held.byte.to_string().into(),
            mode(held.mode).into(),
            kind(held.kind).into(),
            held.pid.into(),
            process.and_then(|process| process.command.clone()).into(),
            frame(held.byte).into(),
            waits.into(),
        ]
    };
    let unseen = census.unseen.iter().map(|unseen| {
        let mut row = vec![Cell::Null; 7];
        row.push(unseen.to_string().into());
        row
    });
    Ok(census.locks.iter().map(row).chain(unseen).collect())
}

fn mode(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Shared => "shared",
        LockMode::Exclusive => "exclusive",
    }
}

fn kind(kind: LockKind) -> &'static str {
    match kind {
        LockKind::OpenFileDescription => "OFD",
        LockKind::Classic => "POSIX",
    }
}
