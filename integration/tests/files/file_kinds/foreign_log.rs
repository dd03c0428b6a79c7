//! A log that cannot follow from the database file beside which it lies: a database was restored
//! beside an old log, or page 1 in the log is none.

use std::fs;
use std::path::Path;

use integration::stock::{StockKind, StockSqlite};
use integration::worker::BackendKind;
use wal::{CheckpointMode, Error, Options, PageNo};
use wal_core::format::{ByteOrder, FRAME_HEADER_LEN, LOG_HEADER_LEN};
use wal_core::storage::beside;

use super::{options, try_open};

/// A log that does not seem to follow is an error.
fn refusing() -> Options {
    options().refuse_foreign_log(true)
}

/// Opens `path` and reads.
fn read(backend: BackendKind, options: &wal::Options, path: &Path) -> wal::Result<u32> {
    let count = match backend {
        BackendKind::Shm => options.open_shm(path)?.begin_read()?.page_count(),
        BackendKind::InProcess => options.open_inproc(path)?.begin_read()?.page_count(),
    };
    Ok(count)
}

/// A database whose log stays, with a backup of an earlier state.
struct Scene {
    folder: tempfile::TempDir,
    stock: StockSqlite,
}

impl Scene {
    fn new(kind: StockKind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let mut scene = Scene {
            stock: StockSqlite::spawn(kind, &path, None).unwrap(),
            folder,
        };
        scene.run("PRAGMA journal_mode=WAL");
        scene.run("PRAGMA wal_autocheckpoint=0");
        scene.run("CREATE TABLE t(a)");
        scene.run("INSERT INTO t VALUES(1)");
        scene
    }

    fn run(&mut self, sql: &str) {
        self.stock.run(sql).unwrap().unwrap();
    }

    /// Moves all to the database file and begins the log anew.
    fn checkpoint(&mut self) {
        self.run("PRAGMA wal_checkpoint(RESTART)");
    }

    fn database(&self) -> Vec<u8> {
        fs::read(self.folder.path().join("app.db")).unwrap()
    }

    fn log(&self) -> Vec<u8> {
        fs::read(self.folder.path().join("app.db-wal")).unwrap()
    }
}

/// The two files in a folder of their own.
fn pair(database: &[u8], log: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    fs::write(&path, database).unwrap();
    fs::write(beside(&path, "-wal"), log).unwrap();
    (folder, path)
}

fn expect_foreign(database: &[u8], log: &[u8]) {
    for backend in [BackendKind::Shm, BackendKind::InProcess] {
        let (_folder, path) = pair(database, log);
        let error = read(backend, &refusing(), &path).unwrap_err();
        assert!(matches!(error, Error::ForeignLog { .. }), "{error:?}");
        for part in ["app.db-wal", "refuse_foreign_log", "backup"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), database, "nothing is moved");
        assert_eq!(fs::read(beside(&path, "-wal")).unwrap(), log);
        read(backend, &options().refuse_foreign_log(false), &path).unwrap();
    }
}

fn expect_own(database: &[u8], log: &[u8]) {
    for backend in [BackendKind::Shm, BackendKind::InProcess] {
        let (_folder, path) = pair(database, log);
        read(backend, &refusing(), &path).unwrap();
    }
}

#[test]
fn database_restored_beside_a_later_log_is_noticed() {
    for kind in StockKind::available() {
        let mut scene = Scene::new(kind);
        scene.checkpoint();
        let backup = scene.database();
        for table in 0..3 {
            scene.run(&format!("CREATE TABLE more{table}(a)"));
            // Another connection reads page 1 anew, so that the counter goes up.
            let path = scene.folder.path().join("app.db");
            let mut other = StockSqlite::spawn(kind, &path, None).unwrap();
            other
                .run("CREATE TABLE other(a); DROP TABLE other")
                .unwrap()
                .unwrap();
        }
        expect_own(&backup, &scene.log());
        scene.checkpoint();
        scene.run("CREATE TABLE last(a)");
        expect_own(&scene.database(), &scene.log());
        expect_foreign(&backup, &scene.log());
    }
}

#[test]
fn database_restored_beside_an_earlier_log_is_noticed() {
    for kind in StockKind::available() {
        let mut scene = Scene::new(kind);
        scene.checkpoint();
        scene.run("CREATE TABLE early(a)");
        let log = scene.log();
        let path = scene.folder.path().join("app.db");
        for table in 0..3 {
            let mut other = StockSqlite::spawn(kind, &path, None).unwrap();
            other
                .run(&format!("CREATE TABLE later{table}(a)"))
                .unwrap()
                .unwrap();
        }
        scene.checkpoint();
        expect_foreign(&scene.database(), &log);
    }
}

#[test]
fn log_without_page_one_beside_a_database_of_another_size_is_noticed() {
    for kind in StockKind::available() {
        let mut scene = Scene::new(kind);
        scene.checkpoint();
        let backup = scene.database();
        scene.run("INSERT INTO t VALUES(zeroblob(40000))");
        scene.checkpoint();
        scene.run("UPDATE t SET a = 2 WHERE a = 1");
        expect_own(&scene.database(), &scene.log());
        expect_foreign(&backup, &scene.log());
    }
}

/// Each state that a checkpoint may leave, whose process is killed then.
#[test]
fn log_that_is_backfilled_to_any_commit_follows() {
    for kind in StockKind::available() {
        let mut scene = Scene::new(kind);
        let path = scene.folder.path().join("app.db");
        scene.checkpoint();
        let mut reader = StockSqlite::spawn(kind, &path, None).unwrap();
        for number in 0..6 {
            // It lets the checkpoint go up to here, so the log does not begin anew.
            for sql in ["BEGIN", "SELECT * FROM t"] {
                reader.run(sql).unwrap().unwrap();
            }
            let mut other = StockSqlite::spawn(kind, &path, None).unwrap();
            let sql = format!("CREATE TABLE t{number}(a)");
            match number % 2 {
                0 => scene.run(&sql),
                _ => drop(other.run(&sql).unwrap().unwrap()),
            }
            scene.run("PRAGMA wal_checkpoint(PASSIVE)");
            expect_own(&scene.database(), &scene.log());
            reader.run("COMMIT").unwrap().unwrap();
        }
        scene.run("PRAGMA wal_checkpoint(PASSIVE)");
        expect_own(&scene.database(), &scene.log());
    }
}

/// Puts `content` at the beginning of page 1 in the frame, and makes all checksums right.
fn forge(log: &[u8], page_size: usize, at: usize, content: &[u8]) -> Vec<u8> {
    use wal_core::format::Checksum;
    let mut log = log.to_vec();
    let order = match log[3] & 1 {
        0 => ByteOrder::Little,
        _ => ByteOrder::Big,
    };
    let mut sum = Checksum::ZERO.update(order, &log[..24]);
    let frames = log[LOG_HEADER_LEN..].chunks_exact_mut(FRAME_HEADER_LEN + page_size);
    for frame in frames {
        if frame[..4] == [0, 0, 0, 1] {
            let at = FRAME_HEADER_LEN + at;
            frame[at..at + content.len()].copy_from_slice(content);
        }
        sum = sum.update(order, &frame[..8]);
        sum = sum.update(order, &frame[FRAME_HEADER_LEN..]);
        frame[16..20].copy_from_slice(&sum.s1.to_be_bytes());
        frame[20..24].copy_from_slice(&sum.s2.to_be_bytes());
    }
    log
}

/// Stock SQLite says that such a database is malformed, and leaves the file alone.
#[test]
fn page_one_of_the_log_that_is_no_header_is_never_moved() {
    let mut scene = Scene::new(StockKind::Bundled);
    scene.checkpoint();
    let database = scene.database();
    scene.run("CREATE TABLE more(a)");
    let page_size = 4096;
    for (at, content) in [
        (0, &[0; 100][..]),
        (0, b"X"),
        (16, &[2, 0]),
        (16, &[0, 3]),
        (19, &[3]),
        (21, &[1]),
    ] {
        let log = forge(&scene.log(), page_size, at, content);
        for backend in [BackendKind::Shm, BackendKind::InProcess] {
            for refuse in [false, true] {
                let (_folder, path) = pair(&database, &log);
                let options = options().refuse_foreign_log(refuse);
                let error = read(backend, &options, &path).unwrap_err();
                assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
                assert!(error.to_string().contains("page 1 in frame"), "{error}");
                let _ = try_open(backend, &options, &path);
                assert_eq!(fs::read(&path).unwrap(), database);
                assert_eq!(fs::read(beside(&path, "-wal")).unwrap(), log);
            }
        }
    }
}

/// A commit of ours beside stock SQLite, which then finds its own counter in the file.
#[test]
fn logs_that_ours_and_stock_wrote_in_turn_follow() {
    for kind in StockKind::available() {
        let mut scene = Scene::new(kind);
        let path = scene.folder.path().join("app.db");
        let ours = refusing().auto_checkpoint(0).open(&path).unwrap();
        for round in 0..8 {
            let mut write = ours.begin_write().unwrap();
            write.page_mut(PageNo::ONE).unwrap()[60] ^= 1;
            write.commit().unwrap();
            scene.run(&format!("CREATE TABLE t{round}(a)"));
            if round % 3 == 0 {
                ours.checkpoint(CheckpointMode::Restart).unwrap();
            }
            expect_own(&scene.database(), &scene.log());
        }
    }
}
