//! One process that has a database open twice: by the library, and by the
//! SQLite that is linked in.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use integration::worker::{HeldByte, Stamp, Worker};
use rusqlite::Connection;
use rusqlite::types::FromSql;
use tempfile::TempDir;
use wal::{Database, Lock, Options, PageNo, ReadTx, Synchronous, WriteTx};
use wal_core::storage::{beside, database_bytes, shm_bytes};

use crate::locks::{self, Owner};
use integration::stamped;

/// The lock byte of writers.
const WRITE: Range<u64> = shm_bytes::of(Lock::Write);
/// The lock bytes of all read slots.
const READS: Range<u64> = 123..shm_bytes::DMS.start;

const STAMP: Stamp = Stamp {
    writer: 1,
    sequence: 1,
};

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Open(Owner),
    /// Begins a transaction, which writes if the owner is the writer.
    Begin(Owner),
    End(Owner),
    Close(Owner),
}

pub(crate) struct Scene {
    path: PathBuf,
    page: u32,
    writer: Owner,
    ours: Option<Database>,
    our_read: Option<ReadTx>,
    our_write: Option<WriteTx>,
    sqlite: Option<Connection>,
    sqlite_has_begun: bool,
    _directory: TempDir,
}

impl Scene {
    pub(crate) fn new(writer: Owner) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("app.db");
        let pages: Range<u32> = stamped::create(&path, 1024, 1, "CREATE TABLE t(a)").unwrap();
        Scene {
            path,
            page: pages.start,
            writer,
            ours: None,
            our_read: None,
            our_write: None,
            sqlite: None,
            sqlite_has_begun: false,
            _directory: directory,
        }
    }

    pub(crate) fn take(&mut self, step: Step) {
        match step {
            Step::Open(Owner::Ours) => {
                self.ours = Some(hasty_options().open(&self.path).unwrap());
            }
            Step::Open(Owner::Sqlite) => {
                let connection = Connection::open(&self.path).unwrap();
                connection.busy_timeout(Duration::ZERO).unwrap();
                // The first statement that reads attaches it.
                let first = "PRAGMA synchronous=OFF; SELECT count(*) FROM t";
                connection.execute_batch(first).unwrap();
                self.sqlite = Some(connection);
            }
            Step::Begin(Owner::Ours) => self.begin_ours(),
            Step::Begin(Owner::Sqlite) => {
                self.run_sqlite(match self.writer {
                    Owner::Sqlite => "BEGIN IMMEDIATE; INSERT INTO t VALUES(1)",
                    Owner::Ours => "BEGIN; SELECT count(*) FROM t",
                });
                self.sqlite_has_begun = true;
            }
            Step::End(Owner::Ours) => {
                self.our_read = None;
                if let Some(write) = self.our_write.take() {
                    write.commit().unwrap();
                }
            }
            Step::End(Owner::Sqlite) => {
                self.run_sqlite("COMMIT");
                self.sqlite_has_begun = false;
            }
            Step::Close(Owner::Ours) => self.ours.take().unwrap().close().unwrap(),
            Step::Close(Owner::Sqlite) => {
                let closed = self.sqlite.take().unwrap().close();
                closed.map_err(|(_, error)| error).unwrap();
            }
        }
    }

    fn begin_ours(&mut self) {
        let database = self.ours.as_ref().unwrap();
        match self.writer {
            Owner::Ours => {
                let mut write = database.begin_write().unwrap();
                let page = write.page_mut(PageNo::new(self.page).unwrap()).unwrap();
                STAMP.write(self.page, page);
                self.our_write = Some(write);
            }
            Owner::Sqlite => self.our_read = Some(database.begin_read().unwrap()),
        }
    }

    fn run_sqlite(&self, sql: &str) {
        self.sqlite.as_ref().unwrap().execute_batch(sql).unwrap();
    }

    /// Each owner holds all that it must hold now, and whoever has closed
    /// holds nothing.
    pub(crate) fn expect_locks(&self) {
        let begun = self.our_read.is_some() || self.our_write.is_some();
        self.expect_locks_of(Owner::Ours, self.ours.is_some(), begun);
        self.expect_locks_of(Owner::Sqlite, self.sqlite.is_some(), self.sqlite_has_begun);
    }

    fn expect_locks_of(&self, owner: Owner, is_open: bool, has_begun: bool) {
        let index = beside(&self.path, "-shm");
        if !is_open {
            assert!(locks::has_none(owner, &self.path), "{owner:?} has closed");
            assert!(locks::has_none(owner, &index), "{owner:?} has closed");
            return;
        }
        let shared = database_bytes::SHARED;
        assert!(
            locks::holds(owner, &self.path, shared, false),
            "SHARED of {owner:?}"
        );
        let holds = |bytes, exclusive| locks::holds(owner, &index, bytes, exclusive);
        assert!(holds(shm_bytes::DMS, false), "DMS of {owner:?}");
        if has_begun {
            // A writer of ours needs no slot.
            if owner == Owner::Sqlite || self.our_read.is_some() {
                assert!(holds(self.read_bytes(owner), false), "Read of {owner:?}");
            }
            if owner == self.writer {
                assert!(holds(WRITE, true), "Write of {owner:?}");
            }
        }
    }

    /// The byte of the owner's read slot; those of all slots where the owner
    /// does not tell which one it has.
    fn read_bytes(&self, owner: Owner) -> Range<u64> {
        match &self.our_read {
            Some(read) if owner == Owner::Ours => {
                shm_bytes::of(Lock::Read(read.snapshot().slot().unwrap()))
            }
            _ => READS,
        }
    }

    /// What stands in the way of another process, as the system tells it.
    pub(crate) fn expect_seen_by(&self, onlooker: &mut Worker) {
        if self.ours.is_none() && self.sqlite.is_none() {
            return;
        }
        let index = beside(&self.path, "-shm");
        let mut seen = |file, byte| onlooker.probe(file, byte).unwrap();
        let shared = Some(HeldByte::Shared);
        assert_eq!(seen(&self.path, database_bytes::SHARED.start), shared);
        assert_eq!(seen(&index, shm_bytes::DMS.start), shared);
        let writes = match self.writer {
            Owner::Ours => self.our_write.is_some(),
            Owner::Sqlite => self.sqlite_has_begun,
        };
        let write = writes.then_some(HeldByte::Exclusive);
        assert_eq!(seen(&index, WRITE.start), write, "WRITE");
    }

    /// Once both have closed, all is there, and sound.
    pub(crate) fn expect_all_there(&self) {
        let connection = Connection::open(&self.path).unwrap();
        let integrity: String = ask(&connection, "PRAGMA integrity_check");
        assert_eq!(integrity, "ok");
        let rows: i64 = ask(&connection, "SELECT count(*) FROM t");
        assert_eq!(rows, i64::from(self.writer == Owner::Sqlite));
        drop(connection);
        let database = hasty_options().open(&self.path).unwrap();
        let read = database.begin_read().unwrap();
        let page = read.page(PageNo::new(self.page).unwrap()).unwrap();
        let stamp = (self.writer == Owner::Ours).then_some(STAMP);
        assert_eq!(Stamp::read(self.page, &page).unwrap(), stamp);
    }

    /// The last closer has left nothing.
    pub(crate) fn expect_files_gone(&self) {
        for suffix in ["-wal", "-shm"] {
            assert!(!beside(&self.path, suffix).exists(), "{suffix} is left");
        }
    }
}

fn ask<T: FromSql>(connection: &Connection, sql: &str) -> T {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Nothing is synced, nobody is waited for.
fn hasty_options() -> Options {
    Options::new()
        .synchronous(Synchronous::Off)
        .busy_timeout(Duration::ZERO)
}
