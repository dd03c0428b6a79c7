//! A SQLite database in which stock SQLite counts in the rows of `t`, and ours
//! stamps overflow pages of the blob in `b`, so that each side's commits show
//! in pages that the other leaves alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use integration::stock::{StockKind, StockSqlite};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use wal::LockKind;
use wal_core::LockMode;
use wal_core::storage::{ByteLocks, beside};

use super::{Image, Ours};

/// Lock bytes of `-shm`.
const WRITE: u64 = 120;
const RECOVER: u64 = 122;
const READ_0: u64 = 123;
const DMS: u64 = 128;

/// The files that a scene begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The database alone, as a last closer leaves it.
    Closed,
    /// A log with commits beside it and no index, as a crash leaves them.
    LogLeft,
}

/// The files of each [`Start`], made once.
static TEMPLATE: LazyLock<TempDir> = LazyLock::new(|| {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("app.db");
    let mut stock = StockSqlite::spawn(StockKind::Bundled, &path, None).unwrap();
    let mut run = |sql: &str| stock.run(sql).unwrap().unwrap();
    run("PRAGMA page_size=512; PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF");
    run("CREATE TABLE t(id INTEGER PRIMARY KEY, n, pad); CREATE TABLE b(a); CREATE TABLE u(a)");
    run(
        "WITH RECURSIVE s(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM s WHERE i<6) \
         INSERT INTO t SELECT i, 0, zeroblob(400) FROM s",
    );
    run("INSERT INTO b VALUES(CAST(replace(hex(zeroblob(6000)), '00', 'o') AS BLOB)); VACUUM");
    // Free pages at the end, for VACUUM to give back.
    run("INSERT INTO u VALUES(zeroblob(6000)); DELETE FROM u");
    run("PRAGMA wal_checkpoint(TRUNCATE)");
    fs::copy(&path, directory.path().join("closed.db")).unwrap();
    run("UPDATE t SET n=n+1");
    run("UPDATE t SET n=n+1");
    stock.kill().unwrap();
    directory
});

/// A database in a directory of its own.
pub(crate) struct Scene {
    pub(crate) path: PathBuf,
    _directory: TempDir,
}

impl Scene {
    pub(crate) fn new(start: Start) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("app.db");
        let template = TEMPLATE.path();
        match start {
            Start::Closed => {
                fs::copy(template.join("closed.db"), &path).unwrap();
            }
            Start::LogLeft => {
                fs::copy(template.join("app.db"), &path).unwrap();
                fs::copy(template.join("app.db-wal"), beside(&path, "-wal")).unwrap();
            }
        }
        Scene {
            path,
            _directory: directory,
        }
    }

    pub(crate) fn stock(&self, kind: StockKind) -> StockSqlite {
        StockSqlite::spawn(kind, &self.path, None).unwrap()
    }

    /// A stock peer that stays attached, with the index recovered.
    pub(crate) fn keeper(&self) -> StockSqlite {
        let mut keeper = self.stock(StockKind::Bundled);
        values(&mut keeper).unwrap();
        keeper
    }

    pub(crate) fn file(&self, suffix: &str) -> PathBuf {
        beside(&self.path, suffix)
    }

    /// Makes the index unfit for use, as a writer does that dies while it
    /// stores the header.
    pub(crate) fn damage_index(&self) {
        use std::os::unix::fs::FileExt;
        let index = fs::File::options()
            .write(true)
            .open(self.file("-shm"))
            .unwrap();
        index.write_all_at(&[0xff; 4], 40).unwrap();
    }

    /// True if a new snapshot has to wait for whoever stores the header or
    /// the marks: a first opener resets the index; or the header is not whole,
    /// its writer holds Write, and no recovery has begun; or no slot is to be
    /// had. SQLite looks again for ten seconds then.
    pub(crate) fn reader_waits(&self) -> bool {
        let Some(index) = IndexFile::open(&self.file("-shm")) else {
            return false;
        };
        if index.alone(DMS) {
            return true;
        }
        if !index.header_is_whole() {
            return index.alone(WRITE) && !index.alone(RECOVER);
        }
        index.slot_zero_is_barred() && (1..5).all(|slot| index.alone(READ_0 + slot))
    }

    /// The same for stock SQLite, which does not look for another slot if the
    /// best one is held alone for the moment.
    #[cfg(feature = "test-points")]
    pub(crate) fn stock_reader_waits(&self) -> bool {
        self.reader_waits()
            || IndexFile::open(&self.file("-shm")).is_some_and(|index| {
                index.header_is_whole()
                    && index.slot_zero_is_barred()
                    && index.best_slot().is_some_and(|slot| index.alone(slot))
            })
    }

    /// Lets stock SQLite vouch for the database that both sides are done
    /// with: it is sound, `stock` and `ours` read the same from it, and the
    /// last to close leaves nothing beside it. Returns what the rows of `t`
    /// count and what ours read.
    pub(crate) fn expect_sound(&self, mut stock: StockSqlite, ours: Ours) -> (i64, Image) {
        let image = ours.image().unwrap();
        let count = values(&mut stock).unwrap();
        let checked = stock.run("PRAGMA integrity_check").unwrap().unwrap();
        assert_eq!(checked.text().unwrap(), "ok");
        let truncated = stock.run("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        assert_eq!(truncated.unwrap().0[0][0], Value::Integer(0), "nobody else");
        let stored = Image::of_file(&self.path);
        assert!(stored == image, "ours and stock read different pages");
        ours.close().unwrap();
        stock.close().unwrap();
        for suffix in ["-wal", "-shm"] {
            assert!(!self.file(suffix).exists(), "{suffix} was left behind");
        }
        assert_eq!(self.count_in_file(), count);
        (count, image)
    }

    /// What `t` counts in the database file alone, which is sound: `stock` may
    /// have had pages in its cache that are not there.
    fn count_in_file(&self) -> i64 {
        let uri = format!("file:{}?immutable=1", self.path.display());
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let file = Connection::open_with_flags(uri, flags).unwrap();
        let check = "SELECT integrity_check FROM pragma_integrity_check";
        let checked: String = file.query_row(check, [], |row| row.get(0)).unwrap();
        assert_eq!(checked, "ok", "in the file alone");
        let count = file.query_row("SELECT min(n) FROM t", [], |row| row.get(0));
        count.unwrap()
    }
}

/// What `-shm` holds at the moment, and who has locked what of it.
struct IndexFile {
    bytes: Vec<u8>,
    file: fs::File,
}

impl IndexFile {
    /// `None` if it is not there.
    fn open(path: &Path) -> Option<Self> {
        let file = fs::File::options().read(true).write(true).open(path);
        let bytes = fs::read(path);
        let (bytes, file) = (bytes.ok()?, file.ok()?);
        Some(IndexFile { bytes, file })
    }

    fn header_is_whole(&self) -> bool {
        let bytes = &self.bytes;
        bytes.len() >= 136 && bytes[12] != 0 && bytes[..48] == bytes[48..96]
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    fn slot_zero_is_barred(&self) -> bool {
        self.word(16) != self.word(96) || self.alone(READ_0)
    }

    /// The lock byte of the slot whose mark is the published frame.
    #[cfg(feature = "test-points")]
    fn best_slot(&self) -> Option<u64> {
        let marks = [(4, 116), (3, 112), (2, 108), (1, 104)];
        let mut best = marks.into_iter();
        let (slot, _) = best.find(|&(_, at)| self.word(at) == self.word(16))?;
        Some(READ_0 + slot)
    }

    /// True if somebody holds `byte` alone.
    fn alone(&self, byte: u64) -> bool {
        let locks = ByteLocks::new(LockKind::OpenFileDescription);
        let holder = locks.conflict(&self.file, byte..byte + 1).unwrap();
        holder.is_some_and(|held| held.mode == LockMode::Exclusive)
    }
}

/// What the rows of `t` count, all of them the same; or SQLite's error.
pub(crate) fn values(stock: &mut StockSqlite) -> Result<i64, integration::stock::SqlError> {
    let rows = stock.run("SELECT min(n), max(n) FROM t").unwrap()?;
    let [low, high] = rows.0[0].as_slice() else {
        panic!("two columns were asked for");
    };
    assert_eq!(low, high, "a commit is there in part");
    match low {
        Value::Integer(count) => Ok(*count),
        other => panic!("a count that is no integer: {other:?}"),
    }
}
