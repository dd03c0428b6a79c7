//! The pausing VFS and the stock peers themselves: each test runs with every
//! kind of stock SQLite that this machine has, paused and beside the paused one.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::path::PathBuf;
use std::time::Duration;

use integration::stock::{Control, SqlError, StockKind, StockSqlite};
use rusqlite::types::Value;
use tempfile::TempDir;

/// Longer than any step here takes, so that only a hang gets there.
const WAIT: Duration = Duration::from_secs(60);

/// Shorter than a wait that is meant to end without its event.
const IN_VAIN: Duration = Duration::from_millis(200);

/// A database in WAL mode with an empty log, `t(a)` with one row, in a directory
/// whose name has characters that a URI treats specially.
struct Fixture {
    database: PathBuf,
    /// A connection that stays, so that no other is the first, which would take
    /// WRITE to recover the index and not to commit.
    keeper: Option<StockSqlite>,
    _directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = TempDir::with_prefix("stock 100%?#").unwrap();
        let database = directory.path().join("it's.db");
        let mut keeper = StockSqlite::spawn(StockKind::Bundled, &database, None).unwrap();
        expect_ok(&mut keeper, "PRAGMA journal_mode=WAL; CREATE TABLE t(a)");
        expect_ok(&mut keeper, "INSERT INTO t VALUES(1)");
        expect_ok(&mut keeper, "PRAGMA wal_checkpoint(TRUNCATE)");
        Self {
            database,
            keeper: Some(keeper),
            _directory: directory,
        }
    }

    fn peer(&self, kind: StockKind) -> StockSqlite {
        StockSqlite::spawn(kind, &self.database, None).unwrap()
    }

    fn paused(&self, kind: StockKind, control: &Control) -> StockSqlite {
        StockSqlite::spawn(kind, &self.database, Some(control)).unwrap()
    }
}

/// Every pair of kinds: the one that is stopped, and the one beside it.
fn pairs() -> Vec<(StockKind, StockKind)> {
    let kinds = StockKind::available();
    let pairs = kinds
        .iter()
        .flat_map(|&paused| kinds.iter().map(move |&other| (paused, other)));
    pairs
        .inspect(|(paused, other)| println!("paused: {paused}; beside it: {other}"))
        .collect()
}

fn expect_ok(peer: &mut StockSqlite, sql: &str) {
    peer.run(sql).unwrap().unwrap();
}

fn expect_busy(peer: &mut StockSqlite, sql: &str) {
    let error = peer.run(sql).unwrap().unwrap_err();
    assert!(error.is_busy(), "`{sql}` gave {error}");
}

fn count(peer: &mut StockSqlite) -> i64 {
    let rows = peer.run("SELECT count(*) FROM t").unwrap().unwrap();
    rows.integer().unwrap()
}

fn position(trace: &[String], point: &str) -> usize {
    let found = trace.iter().position(|passed| passed == point);
    found.unwrap_or_else(|| panic!("`{point}` was not passed: {trace:#?}"))
}

#[test]
fn a_writer_stopped_before_its_write_lock_leaves_it_free() {
    for (paused_kind, other_kind) in pairs() {
        let fixture = Fixture::new();
        let control = Control::new().unwrap();
        let mut paused = fixture.paused(paused_kind, &control);
        let mut other = fixture.peer(other_kind);

        control.arm("before shm:lock:EXCLUSIVE:WRITE", 1).unwrap();
        paused.send("INSERT INTO t VALUES(2)").unwrap();
        let stop = control.wait_stopped(WAIT).unwrap();
        assert_eq!(stop, "before shm:lock:EXCLUSIVE:WRITE");
        expect_ok(&mut other, "BEGIN IMMEDIATE");
        expect_ok(&mut other, "ROLLBACK");

        control.go().unwrap();
        paused.finish(WAIT).unwrap().unwrap();
        assert_eq!(count(&mut other), 2);
        paused.close().unwrap();
        other.close().unwrap();
    }
}

#[test]
fn a_writer_stopped_after_its_write_lock_makes_others_busy_until_it_goes_on() {
    for (paused_kind, other_kind) in pairs() {
        let fixture = Fixture::new();
        let control = Control::new().unwrap();
        let mut paused = fixture.paused(paused_kind, &control);
        let mut other = fixture.peer(other_kind);

        control.arm("after shm:lock:EXCLUSIVE:WRITE", 1).unwrap();
        paused.send("INSERT INTO t VALUES(2)").unwrap();
        let stop = control.wait_stopped(WAIT).unwrap();
        assert_eq!(stop, "after shm:lock:EXCLUSIVE:WRITE rc=0");
        expect_busy(&mut other, "BEGIN IMMEDIATE");
        assert_eq!(count(&mut other), 1);
        assert!(
            paused.finish(IN_VAIN).is_err(),
            "a stopped process answered"
        );

        control.go().unwrap();
        paused.finish(WAIT).unwrap().unwrap();
        expect_ok(&mut other, "BEGIN IMMEDIATE; ROLLBACK");
        assert_eq!(count(&mut other), 2);
    }
}

#[test]
fn the_result_of_a_failed_lock_is_reported() {
    for (paused_kind, other_kind) in pairs() {
        let fixture = Fixture::new();
        let control = Control::new().unwrap();
        let mut paused = fixture.paused(paused_kind, &control);
        let mut other = fixture.peer(other_kind);
        expect_ok(&mut other, "BEGIN IMMEDIATE");

        control.arm("after shm:lock:EXCLUSIVE:W*", 1).unwrap();
        paused.send("INSERT INTO t VALUES(2)").unwrap();
        let stop = control.wait_stopped(WAIT).unwrap();
        assert_eq!(stop, "after shm:lock:EXCLUSIVE:WRITE rc=5");
        control.go().unwrap();
        let error = paused.finish(WAIT).unwrap().unwrap_err();
        assert!(error.is_busy(), "{error}");
    }
}

#[test]
fn a_checkpoint_stopped_between_its_header_read_and_backfill_lets_commits_through() {
    for (paused_kind, other_kind) in pairs() {
        let fixture = Fixture::new();
        let control = Control::new().unwrap();
        let mut paused = fixture.paused(paused_kind, &control);
        let mut other = fixture.peer(other_kind);
        expect_ok(&mut other, "INSERT INTO t VALUES(2)");

        control.arm("before shm:lock:EXCLUSIVE:READ0", 1).unwrap();
        paused.send("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
        control.wait_stopped(WAIT).unwrap();
        // The header was read: the frame of this commit is none of the checkpoint's.
        expect_ok(&mut other, "INSERT INTO t VALUES(3)");
        let second = other
            .run("PRAGMA wal_checkpoint(PASSIVE)")
            .unwrap()
            .unwrap();
        assert_eq!(
            second.0[0][0],
            Value::Integer(1),
            "CKPT was free: {second:?}"
        );

        control.go().unwrap();
        let first = paused.finish(WAIT).unwrap().unwrap();
        assert_eq!(first.0, [[0, 1, 1].map(Value::Integer)]);
        let rest = other
            .run("PRAGMA wal_checkpoint(PASSIVE)")
            .unwrap()
            .unwrap();
        assert_eq!(rest.0, [[0, 2, 2].map(Value::Integer)]);
        assert_eq!(count(&mut paused), 3);
        let check = other.run("PRAGMA integrity_check").unwrap().unwrap();
        assert_eq!(check.text().unwrap(), "ok");
    }
}

#[test]
fn a_writer_killed_while_stopped_leaves_no_lock_and_no_row() {
    for (paused_kind, other_kind) in pairs() {
        for point in ["after shm:lock:EXCLUSIVE:WRITE", "after wal:write"] {
            let fixture = Fixture::new();
            let control = Control::new().unwrap();
            let mut paused = fixture.paused(paused_kind, &control);
            let mut other = fixture.peer(other_kind);
            assert_eq!(count(&mut other), 1);

            control.arm(point, 1).unwrap();
            paused.send("INSERT INTO t VALUES(2)").unwrap();
            control.wait_stopped(WAIT).unwrap();
            expect_busy(&mut other, "BEGIN IMMEDIATE");
            paused.kill().unwrap();
            expect_ok(&mut other, "INSERT INTO t VALUES(3)");
            assert_eq!(count(&mut other), 2);
            assert!(control.go().is_err(), "a dead process was let go on");
        }
    }
}

#[test]
fn a_full_checkpoint_syncs_the_log_before_it_writes_the_database() {
    for kind in StockKind::available() {
        let fixture = Fixture::new();
        let control = Control::with_trace().unwrap();
        let mut peer = fixture.paused(kind, &control);
        // Under NORMAL no commit syncs the log, so the sync is the checkpoint's.
        expect_ok(&mut peer, "PRAGMA synchronous=NORMAL");
        expect_ok(&mut peer, "INSERT INTO t VALUES(2)");
        let committed = control.trace().unwrap().len();
        let outcome = peer.run("PRAGMA wal_checkpoint(FULL)").unwrap().unwrap();
        assert_eq!(outcome.0, [[0, 1, 1].map(Value::Integer)]);

        let trace = control.trace().unwrap().split_off(committed);
        let synced = position(&trace, "after wal:sync rc=0");
        let written = position(&trace, "before db:write");
        let durable = position(&trace, "before db:sync");
        assert!(synced < written && written < durable, "{trace:#?}");
    }
}

#[test]
fn the_nth_pass_of_a_point_is_the_one_that_stops() {
    for kind in StockKind::available() {
        let fixture = Fixture::new();
        let control = Control::new().unwrap();
        let mut peer = fixture.paused(kind, &control);
        control.arm("before shm:lock:EXCLUSIVE:WRITE", 2).unwrap();
        expect_ok(&mut peer, "INSERT INTO t VALUES(2)");
        peer.send("INSERT INTO t VALUES(3)").unwrap();
        control.wait_stopped(WAIT).unwrap();
        control.go().unwrap();
        peer.finish(WAIT).unwrap().unwrap();
    }
}

#[test]
fn a_point_armed_at_a_stop_is_the_next_stop() {
    for kind in StockKind::available() {
        let fixture = Fixture::new();
        let control = Control::new().unwrap();
        let mut peer = fixture.paused(kind, &control);
        control.arm("after wal:write", 1).unwrap();
        peer.send("INSERT INTO t VALUES(2)").unwrap();
        control.wait_stopped(WAIT).unwrap();
        control.arm("before shm:unlock:EXCLUSIVE:WRITE", 1).unwrap();
        control.go().unwrap();
        let stop = control.wait_stopped(WAIT).unwrap();
        assert_eq!(stop, "before shm:unlock:EXCLUSIVE:WRITE");
        // The commit is published, though its lock is not yet released.
        let mut other = fixture.peer(StockKind::Bundled);
        assert_eq!(count(&mut other), 2);
        expect_busy(&mut other, "BEGIN IMMEDIATE");
        control.go().unwrap();
        peer.finish(WAIT).unwrap().unwrap();
    }
}

#[test]
fn a_disarmed_process_goes_on_and_its_stop_is_not_taken_for_a_later_one() {
    for kind in StockKind::available() {
        let fixture = Fixture::new();
        let control = Control::new().unwrap();
        let mut peer = fixture.paused(kind, &control);
        control.arm("before wal:write", 1).unwrap();
        peer.send("INSERT INTO t VALUES(2)").unwrap();
        assert!(peer.finish(IN_VAIN).is_err(), "the process did not stop");
        // Its report was sent and nobody read it.
        control.disarm().unwrap();
        peer.finish(WAIT).unwrap().unwrap();
        control.arm("before shm:unmap", 1).unwrap();
        let error = control.wait_stopped(IN_VAIN).unwrap_err();
        assert!(error.to_string().contains("was not reached"), "{error}");
        peer.hang_up();
        assert_eq!(control.wait_stopped(WAIT).unwrap(), "before shm:unmap");
        control.go().unwrap();
        peer.close().unwrap();
    }
}

#[test]
fn a_point_disarmed_before_it_is_reached_stops_nobody() {
    for kind in StockKind::available() {
        let fixture = Fixture::new();
        let control = Control::new().unwrap();
        let mut peer = fixture.paused(kind, &control);
        control.arm("before wal:write", 1).unwrap();
        control.disarm().unwrap();
        expect_ok(&mut peer, "INSERT INTO t VALUES(2)");
        peer.close().unwrap();
    }
}

#[test]
fn the_last_close_can_be_stopped_before_it_deletes_the_log() {
    for kind in StockKind::available() {
        let mut fixture = Fixture::new();
        let log = PathBuf::from(format!("{}-wal", fixture.database.display()));
        let control = Control::new().unwrap();
        let mut peer = fixture.paused(kind, &control);
        expect_ok(&mut peer, "INSERT INTO t VALUES(2)");
        fixture.keeper.take().unwrap().close().unwrap();
        control.arm("before wal:delete", 1).unwrap();
        peer.hang_up();
        control.wait_stopped(WAIT).unwrap();
        assert!(log.exists());
        control.arm("after wal:delete", 1).unwrap();
        control.go().unwrap();
        control.wait_stopped(WAIT).unwrap();
        assert!(!log.exists());
        control.go().unwrap();
        peer.close().unwrap();
    }
}

#[test]
fn a_process_whose_controller_is_gone_goes_on() {
    for kind in StockKind::available() {
        let fixture = Fixture::new();
        let control = Control::new().unwrap();
        let mut peer = fixture.paused(kind, &control);
        control.arm("before wal:write", 1).unwrap();
        peer.send("INSERT INTO t VALUES(2)").unwrap();
        control.wait_stopped(WAIT).unwrap();
        drop(control);
        peer.finish(WAIT).unwrap().unwrap();
        assert_eq!(count(&mut peer), 2);
        // A file that now gets the socket's number must not be taken for it.
        let second = fixture.database.with_file_name("second.db");
        let second = second.to_str().unwrap().replace('\'', "''");
        expect_ok(&mut peer, &format!("ATTACH '{second}' AS second"));
        expect_ok(&mut peer, "CREATE TABLE second.t(a)");
        expect_ok(&mut peer, "INSERT INTO second.t VALUES(1)");
        peer.close().unwrap();
    }
}

#[test]
fn a_control_takes_the_next_process_after_one_that_was_killed() {
    for kind in StockKind::available() {
        let fixture = Fixture::new();
        let control = Control::new().unwrap();
        let first = fixture.paused(kind, &control);
        control.arm("before shm:map", 1).unwrap();
        first.kill().unwrap();
        let error = control.wait_stopped(WAIT).unwrap_err();
        assert!(error.to_string().contains("ended before"), "{error}");

        let mut second = fixture.paused(kind, &control);
        second.send("SELECT count(*) FROM t").unwrap();
        control.wait_stopped(WAIT).unwrap();
        control.go().unwrap();
        let rows = second.finish(WAIT).unwrap().unwrap();
        assert_eq!(rows.integer().unwrap(), 1);
    }
}

#[test]
fn a_control_refuses_what_can_never_stop() {
    let control = Control::new().unwrap();
    assert!(control.arm("shm:map", 1).is_err());
    assert!(control.arm("before shm:map", 0).is_err());
    assert!(control.arm("before shm:map\ngo", 1).is_err());
    assert!(control.wait_stopped(IN_VAIN).is_err());
    assert!(control.go().is_err());
    assert!(control.trace().is_err());
    assert!(control.attach(IN_VAIN).is_err());
}

#[test]
fn both_kinds_give_the_same_values_and_start_without_a_busy_timeout() {
    for kind in StockKind::available() {
        let fixture = Fixture::new();
        let mut peer = fixture.peer(kind);
        let rows = peer
            .run("SELECT 1, 2.5, 'it''s', x'00fF', NULL, 'a' || char(10) || 'b', ''; SELECT -9")
            .unwrap()
            .unwrap();
        let first = vec![
            Value::Integer(1),
            Value::Real(2.5),
            Value::Text("it's".into()),
            Value::Blob(vec![0, 255]),
            Value::Null,
            Value::Text("a\nb".into()),
            Value::Text(String::new()),
        ];
        assert_eq!(rows.0, [first, vec![Value::Integer(-9)]], "{kind}");
        assert!(peer.version().unwrap().starts_with("3."), "{kind}");
        let timeout = peer.run("PRAGMA busy_timeout").unwrap().unwrap();
        assert_eq!(timeout.integer().unwrap(), 0, "{kind} waits for locks");
        peer.close().unwrap();
    }
}

#[test]
fn an_error_of_sqlite_is_reported_with_its_code_and_the_peer_lives_on() {
    for kind in StockKind::available() {
        let fixture = Fixture::new();
        let mut peer = fixture.peer(kind);
        let unknown: SqlError = peer.run("SELECT * FROM nowhere").unwrap().unwrap_err();
        assert_eq!(unknown.code, 1, "{unknown}");
        assert!(unknown.message.contains("no such table"), "{unknown}");

        let mut other = fixture.peer(StockKind::Bundled);
        expect_ok(&mut peer, "BEGIN; SELECT count(*) FROM t");
        expect_ok(&mut other, "INSERT INTO t VALUES(2)");
        let stale = peer.run("INSERT INTO t VALUES(3)").unwrap().unwrap_err();
        let expected = match kind {
            StockKind::Bundled => rusqlite::ffi::SQLITE_BUSY_SNAPSHOT,
            StockKind::Debian => rusqlite::ffi::SQLITE_BUSY,
        };
        assert_eq!(stale.code, expected, "{stale}");
        expect_ok(&mut peer, "ROLLBACK");
        assert_eq!(count(&mut peer), 2);
    }
}

#[test]
fn a_busy_timeout_lets_a_peer_wait_for_the_writer() {
    for (paused_kind, other_kind) in pairs() {
        let fixture = Fixture::new();
        let control = Control::new().unwrap();
        let mut paused = fixture.paused(paused_kind, &control);
        let mut other = fixture.peer(other_kind);
        other.set_busy_timeout(WAIT).unwrap();
        control.arm("after shm:lock:EXCLUSIVE:WRITE", 1).unwrap();
        paused.send("INSERT INTO t VALUES(2)").unwrap();
        control.wait_stopped(WAIT).unwrap();
        other.send("INSERT INTO t VALUES(3)").unwrap();
        assert!(other.finish(IN_VAIN).is_err(), "it did not wait");
        control.go().unwrap();
        paused.finish(WAIT).unwrap().unwrap();
        other.finish(WAIT).unwrap().unwrap();
        assert_eq!(count(&mut other), 3);
    }
}

#[test]
fn a_database_that_cannot_be_opened_is_an_error_at_once() {
    for kind in StockKind::available() {
        let missing = PathBuf::from("/nonexistent/directory/x.db");
        let error = StockSqlite::spawn(kind, &missing, None).unwrap_err();
        assert!(format!("{error:#}").contains("unable to open"), "{error:#}");
    }
}
