//! A store of raw pages is no SQLite database, and stock SQLite says so
//! instead of touching it.

use integration::stock::{StockKind, StockSqlite};
use rusqlite::ErrorCode;
use wal::{DatabaseKind, PageNo, PageSize};

use super::ours;

#[test]
fn a_store_of_raw_pages_is_no_database_to_stock_sqlite() {
    for kind in StockKind::available() {
        for page_size in [512, 4096, 65536] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("raw");
            let options = ours::options()
                .kind(DatabaseKind::RawPages)
                .create(true)
                .page_size(PageSize::new(page_size).unwrap());
            let database = options.open_shm(&path).unwrap();
            let mut write = database.begin_write().unwrap();
            write.page_mut(PageNo::ONE).unwrap().fill(0x5a);
            let second = write.allocate().unwrap();
            write.page_mut(second).unwrap().fill(0xa5);
            write.commit().unwrap();

            // While it is open, with all of it in the log, and afterwards.
            assert_refused(kind, &path);
            let read = database.begin_read().unwrap();
            assert_eq!(read.page_count(), 2);
            assert!(read.page(second).unwrap().iter().all(|byte| *byte == 0xa5));
            drop(read);
            database.close().unwrap();
            let before = std::fs::read(&path).unwrap();
            assert_eq!(before.len(), 2 * page_size as usize);
            assert_refused(kind, &path);
            assert_eq!(std::fs::read(&path).unwrap(), before, "{kind}");
        }
    }
}

fn assert_refused(kind: StockKind, path: &std::path::Path) {
    let mut stock = StockSqlite::spawn(kind, path, None).unwrap();
    for sql in ["SELECT * FROM sqlite_schema", "CREATE TABLE t(a)"] {
        let error = stock.run(sql).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorCode::NotADatabase, "{kind}: {error}");
    }
    stock.close().unwrap();
}
