//! Stock SQLite writes a database, ours keep a replica of it frame by frame,
//! and stock SQLite reads the replica meanwhile.

use integration::stock::{Rows, StockKind, StockSqlite};
use tempfile::TempDir;
use wal::{CheckpointMode, Database, Error, Options, Tail};

/// An owner of the log's life, here and there.
fn options() -> Options {
    Options::new()
        .auto_checkpoint(0)
        .auto_restart(false)
        .persistent_log(true)
}

fn run(stock: &mut StockSqlite, sql: &str) -> Rows {
    stock.run(sql).unwrap().unwrap()
}

/// All rows, and whether the whole file is sound.
fn content(stock: &mut StockSqlite) -> (Rows, Rows) {
    (
        run(stock, "SELECT n, length(data) FROM rows ORDER BY n"),
        run(stock, "PRAGMA integrity_check"),
    )
}

struct Pair {
    source: Database,
    tail: Tail,
    replica: Database,
    writer: StockSqlite,
    reader: StockSqlite,
    directory: TempDir,
    kind: StockKind,
}

impl Pair {
    fn new(kind: StockKind) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("app.db");
        let mut writer = StockSqlite::spawn(kind, &path, None).unwrap();
        run(&mut writer, "PRAGMA journal_mode=WAL");
        run(&mut writer, "PRAGMA wal_autocheckpoint=0");
        run(
            &mut writer,
            "CREATE TABLE rows(n INTEGER PRIMARY KEY, data)",
        );
        run(&mut writer, "INSERT INTO rows VALUES(1, zeroblob(9000))");
        let source = options().open(&path).unwrap();
        let mut tail = source.tail().unwrap();
        run(&mut writer, "INSERT INTO rows VALUES(2, zeroblob(9000))");
        let copy = directory.path().join("replica.db");
        source.backup(&copy, |_| Ok(())).unwrap();
        let replica = options().open(&copy).unwrap();
        tail.advance().unwrap();
        let mut apply = replica.begin_apply().unwrap();
        apply.apply_frames(tail.log_so_far(), None).unwrap();
        assert_eq!(apply.commit().unwrap(), tail.position());
        let reader = StockSqlite::spawn(kind, &copy, None).unwrap();
        Pair {
            source,
            tail,
            replica,
            writer,
            reader,
            directory,
            kind,
        }
    }

    /// The replica follows, and stock SQLite reads the same from both.
    fn follow(&mut self) {
        let mut apply = self.replica.begin_apply().unwrap();
        apply
            .apply_frames(self.tail.advance().unwrap(), None)
            .unwrap();
        assert_eq!(apply.commit().unwrap(), self.tail.position());
        let (expected, ok) = content(&mut self.writer);
        assert_eq!(ok.text().unwrap(), "ok");
        assert_eq!(content(&mut self.reader), (expected, ok), "{}", self.kind);
    }
}

#[test]
fn a_replica_is_what_stock_sqlite_wrote() {
    for kind in StockKind::available() {
        let mut pair = Pair::new(kind);
        pair.follow();
        for n in 3..40 {
            let insert = format!("INSERT INTO rows VALUES({n}, randomblob({}))", n * 700);
            run(&mut pair.writer, &insert);
            run(
                &mut pair.writer,
                &format!("DELETE FROM rows WHERE n = {}", n / 2),
            );
            if n % 4 == 0 {
                pair.follow();
            }
            if n % 8 == 0 {
                // Both logs begin anew. Stock SQLite may not read the replica
                // meanwhile, and does not, between its statements.
                pair.replica.checkpoint(CheckpointMode::Passive).unwrap();
                pair.source.checkpoint(CheckpointMode::Passive).unwrap();
                let ended = pair.tail.position();
                let timeout = std::time::Duration::from_secs(20);
                assert!(pair.tail.restart_log(timeout).unwrap());
                run(&mut pair.writer, "UPDATE rows SET data = zeroblob(100)");
                let mut apply = pair.replica.begin_apply().unwrap();
                let frames = pair.tail.advance().unwrap();
                apply.apply_frames(frames, Some(ended)).unwrap();
                apply.commit().unwrap();
            }
        }
        pair.follow();
    }
}

#[test]
fn a_replica_knows_where_it_stands_when_it_is_opened_again() {
    for kind in StockKind::available() {
        let mut pair = Pair::new(kind);
        pair.reader.hang_up();
        let stands = pair.tail.position();
        let path = pair.replica.path().to_owned();
        pair.replica.close().unwrap();
        pair.replica = options().open(&path).unwrap();
        let snapshot = *pair.replica.begin_read().unwrap().snapshot();
        assert_eq!(
            (snapshot.salts(), snapshot.max_frame()),
            (stands.salts, stands.frame)
        );
        pair.reader = StockSqlite::spawn(kind, &path, None).unwrap();
        run(&mut pair.writer, "INSERT INTO rows VALUES(70, NULL)");
        pair.follow();
        assert!(pair.directory.path().join("replica.db-wal").exists());
    }
}

#[test]
fn a_replica_that_stock_sqlite_wrote_to_is_told_apart() {
    for kind in StockKind::available() {
        let mut pair = Pair::new(kind);
        // Not the same: that would be the same frame.
        run(&mut pair.reader, "INSERT INTO rows VALUES(80, 'here')");
        run(&mut pair.writer, "INSERT INTO rows VALUES(80, 'there')");
        let mut apply = pair.replica.begin_apply().unwrap();
        let applied = apply.apply_frames(pair.tail.advance().unwrap(), None);
        assert!(
            matches!(applied, Err(Error::Diverged { .. })),
            "{applied:?}"
        );
    }
}
