//! A log by stock SQLite whose frames fill more than two blocks of the
//! wal-index.

use std::fs;

use fixtures::{DATABASE, INDEX, LOG, copy_folder, file_digests};
use integration::folder::FolderState;
use integration::reading::{Contents, Opener};
use integration::worker::BackendKind;
use rusqlite::Connection;
use tempfile::TempDir;

use super::peer::Peer;

const PAGE_SIZE: usize = 512;
/// Blocks 0 and 1 have room for this many frames.
const TWO_BLOCKS: usize = 4062 + 4096;

/// The files of a live database, and what SQLite says is in them.
struct LongLog {
    files: TempDir,
    expected: Contents,
}

impl LongLog {
    /// Rewrites random rows, one or several a commit, until the log is long
    /// enough.
    fn write() -> Self {
        let live = TempDir::new().unwrap();
        let path = live.path().join(DATABASE);
        let stock = Connection::open(&path).unwrap();
        stock
            .execute_batch(&format!(
                "PRAGMA page_size = {PAGE_SIZE}; PRAGMA journal_mode = wal;
                 PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = OFF;
                 CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB NOT NULL);
                 WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids LIMIT 600)
                 INSERT INTO t SELECT id, zeroblob(300) FROM ids;"
            ))
            .unwrap();
        let mut rng = fastrand::Rng::with_seed(7);
        while fs::metadata(live.path().join(LOG)).unwrap().len()
            < ((TWO_BLOCKS + 500) * (PAGE_SIZE + 24)) as u64
        {
            let step = rng.i64(3..300);
            let sql = "UPDATE t SET body = randomblob(300) WHERE id % ?1 = 0";
            stock.execute(sql, [step]).unwrap();
        }
        let files = TempDir::new().unwrap();
        copy_folder(live.path(), files.path()).unwrap();
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        let frames = stock
            .query_row("PRAGMA wal_checkpoint", [], |row| row.get::<_, i64>(1))
            .unwrap();
        stock.query_row(sql, [], |_| Ok(())).unwrap();
        let expected = Contents {
            page_size: PAGE_SIZE,
            max_frame: usize::try_from(frames).unwrap(),
            pages: file_digests(&path, PAGE_SIZE).unwrap(),
        };
        assert!(expected.max_frame > TWO_BLOCKS, "{frames} frames");
        LongLog { files, expected }
    }

    fn copy(&self) -> TempDir {
        let copy = TempDir::new().unwrap();
        copy_folder(self.files.path(), copy.path()).unwrap();
        copy
    }
}

#[test]
fn a_log_of_three_index_blocks_is_recovered_and_checkpointed() {
    let log = LongLog::write();
    for opener in Opener::ALL {
        let copy = log.copy();
        let path = copy.path().join(DATABASE);
        assert_eq!(opener.read(&path).unwrap(), log.expected, "{opener:?}");
        let left = file_digests(&path, PAGE_SIZE).unwrap();
        assert_eq!(left, log.expected.pages, "{opener:?}");
        assert_eq!(FolderState::of(copy.path()).unwrap().names(), [DATABASE]);
    }
}

#[test]
fn stock_sqlites_own_index_of_three_blocks_is_read() {
    let log = LongLog::write();
    for opener in Opener::ALL {
        if opener.backend == BackendKind::InProcess {
            continue;
        }
        let copy = log.copy();
        let index = copy.path().join(INDEX);
        let _peer = Peer::attach(&index);
        let before = fs::read(&index).unwrap();
        let read = opener.read(&copy.path().join(DATABASE)).unwrap();
        assert_eq!(read, log.expected, "{opener:?}");
        let after = fs::read(&index).unwrap();
        assert_eq!(before[..96], after[..96], "the index was built again");
    }
}
