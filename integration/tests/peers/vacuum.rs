//! All pages of a SQLite database are replaced while stock SQLite has it open.
//!
//! What to replace them by is told by stock SQLite itself: `VACUUM INTO` gives
//! the pages of the same database without the free ones, with other roots for
//! its B-trees and another schema cookie.

use std::path::{Path, PathBuf};
use std::time::Duration;

use integration::stock::{StockKind, StockSqlite};
use tempfile::TempDir;
use wal::{Database, Error, Options, PageNo, VacuumOptions, VacuumReport};
use wal_core::storage::beside;

const SUM: &str = "SELECT count(*), sum(length(b)) FROM kept";

struct Scene {
    path: PathBuf,
    copy: PathBuf,
    stock: StockSqlite,
    database: Database,
    _directory: TempDir,
}

impl Scene {
    /// A database whose first half is free, open in stock SQLite and in ours.
    fn new(kind: StockKind) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("app.db");
        let copy = directory.path().join("copy.db");
        let mut stock = StockSqlite::spawn(kind, &path, None).unwrap();
        for sql in [
            "PRAGMA journal_mode=WAL",
            "CREATE TABLE dropped(b)",
            "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<100) \
                INSERT INTO dropped SELECT randomblob(900) FROM n",
            "CREATE TABLE kept(a INTEGER PRIMARY KEY, b)",
            "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<100) \
                INSERT INTO kept SELECT i, randomblob(800+i) FROM n",
            "DROP TABLE dropped",
            &format!("VACUUM INTO '{}'", copy.display()),
        ] {
            stock.run(sql).unwrap().unwrap();
        }
        let database = Options::new()
            .busy_timeout(Duration::ZERO)
            .open(&path)
            .unwrap();
        Scene {
            path,
            copy,
            stock,
            database,
            _directory: directory,
        }
    }

    /// Replaces the pages by those of the copy.
    fn vacuum(&self, options: &VacuumOptions) -> wal::Result<VacuumReport> {
        let size = self.database.page_size().len();
        let mut copy = std::fs::read(&self.copy).unwrap();
        // The copy is in rollback mode, by its bytes 18 and 19.
        copy[18..20].fill(2);
        self.database.vacuum(options, |old, new| {
            assert!(old.page_count() as usize > copy.len() / size);
            assert_eq!(old.page(PageNo::ONE)?[..16], copy[..16]);
            copy.chunks(size)
                .try_for_each(|page| new.push(page).map(drop))
        })
    }

    fn ask(&mut self, sql: &str) -> String {
        format!("{:?}", self.stock.run(sql).unwrap().unwrap())
    }

    fn len(&self, path: &Path) -> u64 {
        path.metadata().unwrap().len()
    }

    fn assert_vacuumed(&mut self, rows: &str) {
        assert_eq!(self.ask(SUM), rows);
        let check = self.ask("PRAGMA integrity_check");
        assert!(check.contains("ok"), "{check}");
        assert_eq!(self.len(&self.path), self.len(&self.copy));
        assert_eq!(self.len(&beside(&self.path, "-wal")), 0);
        self.stock
            .run("INSERT INTO kept VALUES(1000, 'x')")
            .unwrap()
            .unwrap();
    }
}

#[test]
fn stock_sqlite_goes_on_with_a_database_that_was_rewritten() {
    for kind in StockKind::available() {
        for options in [VacuumOptions::new(), VacuumOptions::new().exclusive()] {
            let mut scene = Scene::new(kind);
            let rows = scene.ask(SUM);
            let report = scene.vacuum(&options.clone().btrees_rewritten()).unwrap();
            assert!(report.pages_after < report.pages_before, "{report:?}");
            let checkpoint = report.checkpoint.unwrap();
            assert_eq!(checkpoint.held_back_by, None, "{kind}, {options:?}");
            scene.assert_vacuumed(&rows);
        }
    }
}

#[test]
fn a_reader_of_stock_sqlite_keeps_its_state_while_a_database_is_rewritten() {
    for kind in StockKind::available() {
        let mut scene = Scene::new(kind);
        let rows = scene.ask(SUM);
        scene.ask("BEGIN");
        assert_eq!(scene.ask(SUM), rows);
        let shuts_out = scene.vacuum(&VacuumOptions::new().exclusive().btrees_rewritten());
        assert!(
            matches!(shuts_out, Err(Error::Busy { .. })),
            "{shuts_out:?}"
        );
        let report = scene.vacuum(&VacuumOptions::new().btrees_rewritten());
        let checkpoint = report.unwrap().checkpoint.unwrap();
        assert!(checkpoint.held_back_by.is_some(), "{kind}: {checkpoint:?}");
        assert_eq!(scene.ask(SUM), rows);
        scene.ask("COMMIT");
        scene
            .database
            .checkpoint(wal::CheckpointMode::Truncate)
            .unwrap();
        scene.assert_vacuumed(&rows);
    }
}

#[test]
fn pages_of_a_sqlite_database_are_not_moved_by_mistake() {
    let mut scene = Scene::new(StockKind::Bundled);
    let rows = scene.ask(SUM);
    let unsaid = scene.vacuum(&VacuumOptions::new());
    assert!(matches!(unsaid, Err(Error::Refused { .. })), "{unsaid:?}");
    let before = std::fs::read(&scene.path).unwrap();
    let same_cookie =
        scene
            .database
            .vacuum(&VacuumOptions::new().btrees_rewritten(), |old, new| {
                (1..=old.page_count())
                    .try_for_each(|page| new.push(&old.page(PageNo::new(page)?)?).map(drop))
            });
    assert!(
        matches!(same_cookie, Err(Error::Refused { .. })),
        "{same_cookie:?}"
    );
    assert_eq!(std::fs::read(&scene.path).unwrap(), before);
    assert_eq!(scene.ask(SUM), rows);
}
