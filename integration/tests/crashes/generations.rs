//! Generations of the log are told apart by their salts, however alike they
//! are otherwise.

use integration::stamped;
use std::ops::Range;
use std::path::PathBuf;

use integration::stock::{StockKind, StockSqlite};
use integration::worker::{Settings, SnapshotInfo, Stamp, Worker};
use tempfile::TempDir;

const FIRST: Stamp = Stamp {
    writer: 1,
    sequence: 1,
};
const SECOND: Stamp = Stamp {
    writer: 1,
    sequence: 2,
};

struct Fixture {
    path: PathBuf,
    pages: Range<u32>,
    _directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("app.db");
        let tables = "CREATE TABLE t(a); INSERT INTO t VALUES(0)";
        let pages = stamped::create(&path, 1024, 6, tables).unwrap();
        Fixture {
            path,
            pages,
            _directory: directory,
        }
    }

    fn worker(&self, pread: bool) -> Worker {
        let mut settings = Settings::new(&self.path);
        settings.pread = pread;
        Worker::open(&settings).unwrap()
    }

    /// The newest snapshot, and all stamps in it.
    fn look(&self, reader: &mut Worker) -> (SnapshotInfo, Vec<Option<Stamp>>) {
        let snapshot = reader.begin_read("now").unwrap();
        let stamps = reader.stamps("now", self.pages.clone()).unwrap();
        reader.end_read("now").unwrap();
        (snapshot, stamps)
    }
}

#[test]
fn a_log_of_the_same_length_in_another_generation_is_read_anew() {
    for pread in [false, true] {
        let fixture = Fixture::new();
        let (mut writer, mut reader) = (fixture.worker(pread), fixture.worker(pread));
        let (earlier, later) = (fixture.pages.start, fixture.pages.start + 3);
        writer.commit(earlier..earlier + 3, FIRST).unwrap();
        let (before, _) = fixture.look(&mut reader);
        assert!(writer.checkpoint().unwrap());
        // Other pages, so that the same frames hold something else.
        writer.commit(later..later + 3, SECOND).unwrap();
        let (after, stamps) = fixture.look(&mut reader);
        assert_eq!(after.max_frame, before.max_frame);
        assert_ne!(after.salts, before.salts);
        assert_eq!(stamps, [[Some(FIRST); 3], [Some(SECOND); 3]].concat());
    }
}

#[test]
fn a_log_that_stock_sqlite_began_anew_with_the_same_length_is_read_anew() {
    for kind in StockKind::available() {
        let fixture = Fixture::new();
        let mut reader = fixture.worker(false);
        let mut stock = StockSqlite::spawn(kind, &fixture.path, None).unwrap();
        let page = fixture.pages.start;
        // One frame, as the update of stock SQLite below.
        reader.commit(page..page + 1, FIRST).unwrap();
        let (before, _) = fixture.look(&mut reader);
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        stock.run(checkpoint).unwrap().unwrap();
        stock.run("UPDATE t SET a=1").unwrap().unwrap();
        let (after, stamps) = fixture.look(&mut reader);
        assert_eq!(after.max_frame, before.max_frame);
        assert_ne!(after.salts, before.salts);
        assert_eq!(stamps[0], Some(FIRST), "the log says nothing of it now");
    }
}
