//! The scripts. A statement is a line.

use crate::comparison::{ours, same_on_both, same_on_each_backend, stock};
use crate::needs::Need;

const ROWS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)";

#[test]
fn schema_and_indices() {
    let outcome = same_on_each_backend(&format!(
        "PRAGMA journal_mode = WAL;
CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT UNIQUE, c BLOB);
CREATE INDEX t_c ON t(c, b);
{ROWS} INSERT INTO t SELECT i, 'b' || i, CAST('c' || (i % 7) AS BLOB) FROM n;
INSERT INTO t VALUES (1, 'again', NULL);
INSERT INTO t VALUES (5000, 'b7', NULL);
SELECT count(*), sum(a) FROM t WHERE c = CAST('c3' AS BLOB);
ALTER TABLE t ADD COLUMN d DEFAULT 'it''s';
UPDATE t SET d = NULL WHERE a % 2;
DELETE FROM t WHERE a BETWEEN 100 AND 1500;
CREATE VIEW v AS SELECT count(*) AS n, max(b) AS m FROM t;
SELECT * FROM v;
CREATE TRIGGER g AFTER DELETE ON t BEGIN INSERT INTO log VALUES (old.a); END;
CREATE TABLE log(x);
DELETE FROM t WHERE a < 10;
SELECT * FROM log;
DROP INDEX t_c;
SELECT * FROM nowhere;
REINDEX;
ANALYZE;
SELECT count(*) FROM t;"
    ));
    assert_eq!(outcome.errors().len(), 3, "{:?}", outcome.errors());
}

#[test]
fn large_blobs() {
    same_on_each_backend(
        "PRAGMA journal_mode = WAL;
CREATE TABLE b(id INTEGER PRIMARY KEY, x BLOB);
INSERT INTO b VALUES (1, zeroblob(3000000)), (2, zeroblob(100)), (3, zeroblob(70000));
UPDATE b SET x = replace(hex(zeroblob(300000)), '0', 'a') WHERE id = 2;
SELECT id, length(x) FROM b;
PRAGMA wal_checkpoint(TRUNCATE);
DELETE FROM b WHERE id = 1;
SELECT id, length(x), substr(x, 1000, 5) FROM b;",
    );
}

/// With ten pages of cache nearly every page is written to the log before the
/// commit, and again. How often depends on the other tests of the process,
/// whose caches are in one account with this one, so frames are not counted.
#[test]
fn savepoints_and_rollbacks_with_a_small_cache() {
    same_on_each_backend(&format!(
        "PRAGMA journal_mode = WAL;
PRAGMA cache_size = 10;
CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);
CREATE INDEX t_b ON t(b);
BEGIN;
{ROWS} INSERT INTO t SELECT i, hex(zeroblob(i % 300)) || i FROM n;
SAVEPOINT one;
UPDATE t SET b = b || 'x' WHERE a % 3 = 0;
SAVEPOINT two;
DELETE FROM t WHERE a % 5 = 0;
UPDATE t SET b = 'y' || b WHERE a % 3 = 0;
ROLLBACK TO two;
SELECT count(*), sum(length(b)) FROM t;
UPDATE t SET b = b || 'z' WHERE a % 4 = 0;
ROLLBACK TO one;
SELECT count(*), sum(length(b)) FROM t;
UPDATE t SET b = b || 'w' WHERE a % 7 = 0;
RELEASE one;
COMMIT;
SELECT count(*), sum(length(b)) FROM t;
BEGIN;
DELETE FROM t WHERE a % 2;
{ROWS} INSERT INTO t SELECT i + 10000, 'new' || i FROM n;
ROLLBACK;
SELECT count(*), sum(length(b)) FROM t;
BEGIN;
UPDATE t SET b = 'same' WHERE a = 3 OR a = 1999;
INSERT OR ROLLBACK INTO t VALUES (3, 'twice');
SELECT count(*), sum(length(b)) FROM t;
BEGIN;
{ROWS} UPDATE t SET b = b || (SELECT count(*) FROM n) WHERE a < 900;
INSERT OR FAIL INTO t VALUES (3, 'twice');
COMMIT;
PRAGMA integrity_check;
PRAGMA wal_checkpoint(TRUNCATE);
BEGIN;
SAVEPOINT first;
UPDATE t SET b = 'q' || b;
ROLLBACK TO first;
UPDATE t SET b = 'r' || b WHERE a < 50;
COMMIT;
PRAGMA integrity_check;
SELECT count(*), sum(length(b)) FROM t;"
    ));
}

#[test]
fn page_sizes_from_512_to_65536() {
    for size in [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
        let outcome = same_on_each_backend(&format!(
            "PRAGMA page_size = {size};
PRAGMA journal_mode = WAL;
CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);
{ROWS} INSERT INTO t SELECT i, hex(zeroblob(i % 50)) FROM n;
PRAGMA page_size;
PRAGMA wal_checkpoint;
UPDATE t SET b = b || '!' WHERE a % 11 = 0;
SELECT count(*), sum(length(b)) FROM t;"
        ));
        let told = size.to_string();
        assert!(outcome.rows().contains(&told), "{:?}", outcome.rows());
    }
}

#[test]
fn attached_databases_and_transactions_over_both() {
    same_on_each_backend(
        "PRAGMA journal_mode = WAL;
ATTACH '{dir}/other.db' AS other;
PRAGMA other.journal_mode = WAL;
CREATE TABLE t(a);
CREATE TABLE other.u(a);
BEGIN;
INSERT INTO t VALUES (1);
INSERT INTO u VALUES (2);
COMMIT;
BEGIN;
INSERT INTO t VALUES (3);
INSERT INTO u VALUES (4);
ROLLBACK;
INSERT INTO t SELECT a FROM u;
SELECT * FROM t, u;
DETACH other;
SELECT * FROM u;",
    );
}

#[test]
fn vacuum_and_auto_vacuum() {
    for auto in ["NONE", "FULL", "INCREMENTAL"] {
        same_on_each_backend(&format!(
            "PRAGMA auto_vacuum = {auto};
PRAGMA journal_mode = WAL;
CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);
{ROWS} INSERT INTO t SELECT i, hex(zeroblob(300)) FROM n;
DELETE FROM t WHERE a % 4;
PRAGMA page_count;
PRAGMA incremental_vacuum(20);
PRAGMA page_count;
PRAGMA wal_checkpoint(TRUNCATE);
VACUUM;
PRAGMA page_count;
SELECT count(*), sum(length(b)) FROM t;
BEGIN;
VACUUM;
COMMIT;"
        ));
    }
}

#[test]
fn checkpoints_of_each_mode() {
    same_on_each_backend(
        "PRAGMA journal_mode = WAL;
PRAGMA wal_autocheckpoint = 0;
CREATE TABLE t(a);
PRAGMA wal_checkpoint(PASSIVE);
INSERT INTO t VALUES (1);
INSERT INTO t VALUES (2);
PRAGMA wal_checkpoint(FULL);
PRAGMA wal_checkpoint(FULL);
INSERT INTO t VALUES (3);
PRAGMA wal_checkpoint(RESTART);
INSERT INTO t VALUES (4);
PRAGMA wal_checkpoint;
PRAGMA wal_checkpoint(TRUNCATE);
PRAGMA wal_checkpoint(PASSIVE);
BEGIN;
INSERT INTO t VALUES (5);
PRAGMA wal_checkpoint(FULL);
COMMIT;
PRAGMA wal_checkpoint(FULL);
SELECT * FROM t;",
    );
}

#[test]
fn in_and_out_of_wal_mode() {
    same_on_each_backend(
        "PRAGMA journal_mode = DELETE;
CREATE TABLE t(a);
PRAGMA journal_mode = WAL;
INSERT INTO t VALUES (1);
PRAGMA journal_mode = DELETE;
INSERT INTO t VALUES (2);
PRAGMA journal_mode = WAL;
INSERT INTO t VALUES (3);
BEGIN;
PRAGMA journal_mode = DELETE;
COMMIT;
PRAGMA journal_mode = TRUNCATE;
PRAGMA page_size = 1024;
VACUUM;
PRAGMA page_size;
PRAGMA journal_mode = WAL;
INSERT INTO t VALUES (4);
PRAGMA journal_mode = OFF;
INSERT INTO t VALUES (5);
PRAGMA journal_mode = WAL;
SELECT * FROM t;",
    );
}

#[test]
fn exclusive_locking() {
    for pragmas in [
        "PRAGMA locking_mode = EXCLUSIVE;\nPRAGMA journal_mode = WAL;",
        "PRAGMA journal_mode = WAL;\nPRAGMA locking_mode = EXCLUSIVE;",
    ] {
        same_on_both(&format!(
            "{pragmas}
CREATE TABLE t(a);
INSERT INTO t VALUES (1);
SELECT * FROM t;
PRAGMA wal_checkpoint(TRUNCATE);
INSERT INTO t VALUES (2);
PRAGMA wal_checkpoint(FULL);
PRAGMA locking_mode = NORMAL;
INSERT INTO t VALUES (3);
PRAGMA wal_checkpoint(RESTART);
SELECT * FROM t;
PRAGMA locking_mode;
PRAGMA journal_mode = DELETE;"
        ));
    }
}

#[test]
fn exclusive_locking_keeps_others_out() {
    let outcome = same_on_both(
        "PRAGMA journal_mode = WAL;
CREATE TABLE t(a);
.connection 1
.open {dir}/main.db
SELECT count(*) FROM t;
.connection 0
PRAGMA locking_mode = EXCLUSIVE;
INSERT INTO t VALUES (1);
.connection close 1
INSERT INTO t VALUES (2);
.connection 1
.open {dir}/main.db
SELECT count(*) FROM t;
.connection 0
PRAGMA wal_checkpoint(TRUNCATE);
PRAGMA locking_mode = NORMAL;
INSERT INTO t VALUES (3);
.connection 1
SELECT count(*) FROM t;
INSERT INTO t VALUES (4);
.connection 0
SELECT count(*) FROM t;
PRAGMA journal_mode = DELETE;
.connection close 1
PRAGMA journal_mode = DELETE;",
    );
    assert_eq!(outcome.errors().len(), 3, "{:?}", outcome.errors());
}

/// Who is in the way of a writer and of each checkpoint: an old snapshot, a
/// reader, a writer.
#[test]
fn connections_in_each_others_way() {
    let outcome = same_on_both(
        "PRAGMA journal_mode = WAL;
PRAGMA wal_autocheckpoint = 0;
CREATE TABLE t(a);
BEGIN;
SELECT count(*) FROM t;
.connection 1
.open {dir}/main.db
PRAGMA wal_autocheckpoint = 0;
INSERT INTO t VALUES (1);
PRAGMA wal_checkpoint(PASSIVE);
PRAGMA wal_checkpoint(FULL);
PRAGMA wal_checkpoint(RESTART);
PRAGMA wal_checkpoint(TRUNCATE);
.connection 0
INSERT INTO t VALUES (2);
SELECT count(*) FROM t;
COMMIT;
BEGIN;
SELECT count(*) FROM t;
.connection 1
PRAGMA wal_checkpoint(FULL);
PRAGMA wal_checkpoint(RESTART);
PRAGMA wal_checkpoint(TRUNCATE);
BEGIN IMMEDIATE;
INSERT INTO t VALUES (3);
.connection 2
.open {dir}/main.db
INSERT INTO t VALUES (4);
BEGIN EXCLUSIVE;
SELECT count(*) FROM t;
PRAGMA wal_checkpoint(PASSIVE);
PRAGMA wal_checkpoint(FULL);
PRAGMA wal_checkpoint(TRUNCATE);
PRAGMA journal_mode = DELETE;
.connection 1
COMMIT;
.connection 0
COMMIT;
.connection 2
INSERT INTO t VALUES (5);
PRAGMA wal_checkpoint(TRUNCATE);
PRAGMA wal_checkpoint(TRUNCATE);
SELECT a FROM t;",
    );
    assert_eq!(outcome.errors().len(), 4, "{:?}", outcome.errors());
}

#[test]
fn read_only_opens() {
    let outcome = same_on_both(
        "PRAGMA journal_mode = WAL;
CREATE TABLE t(a);
INSERT INTO t VALUES (1);
.connection 1
.open --readonly {dir}/main.db
SELECT * FROM t;
INSERT INTO t VALUES (2);
PRAGMA wal_checkpoint(TRUNCATE);
BEGIN;
SELECT * FROM t;
.connection 0
INSERT INTO t VALUES (3);
.connection 1
SELECT * FROM t;
COMMIT;
SELECT * FROM t;
.connection close 0
SELECT * FROM t;
.connection 0
.open {dir}/main.db
.connection close 1
ATTACH 'file:{dir}/main.db?mode=ro' AS r;
SELECT * FROM r.t;
DELETE FROM r.t;
INSERT INTO main.t VALUES (4);
SELECT * FROM r.t;",
    );
    assert_eq!(outcome.errors().len(), 3, "{:?}", outcome.errors());
}

#[test]
fn backups_into_and_out_of_a_log() {
    same_on_both(&format!(
        "PRAGMA journal_mode = WAL;
CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);
{ROWS} INSERT INTO t SELECT i, hex(zeroblob(i % 50)) FROM n;
.backup {{dir}}/copy.db
VACUUM INTO '{{dir}}/into.db';
DELETE FROM t WHERE a > 10;
ATTACH '{{dir}}/copy.db' AS copy;
PRAGMA copy.integrity_check;
PRAGMA copy.journal_mode;
SELECT count(*), sum(length(b)) FROM copy.t;
DETACH copy;
.connection 1
.open {{dir}}/main.db
SELECT count(*) FROM t;
.connection 0
.restore {{dir}}/copy.db
.connection 1
SELECT count(*) FROM t;
.restore {{dir}}/into.db
.connection 0
SELECT count(*), sum(length(b)) FROM t;
PRAGMA journal_mode;
PRAGMA wal_checkpoint(TRUNCATE);
PRAGMA integrity_check;"
    ));
}

/// The engine checkpoints by its own WAL hook.
#[test]
fn automatic_checkpoints_and_the_size_of_the_log() {
    same_on_each_backend(&format!(
        "PRAGMA journal_mode = WAL;
PRAGMA wal_autocheckpoint = 10;
PRAGMA journal_size_limit = 20000;
CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);
{ROWS} INSERT INTO t SELECT i, hex(zeroblob(i % 50)) FROM n;
PRAGMA wal_checkpoint;
INSERT INTO t VALUES (3000, 'x');
INSERT INTO t VALUES (3001, 'x');
PRAGMA wal_checkpoint;
PRAGMA wal_autocheckpoint = 0;
{ROWS} UPDATE t SET b = b || (SELECT count(*) FROM n);
INSERT INTO t VALUES (3002, 'x');
PRAGMA wal_checkpoint;"
    ));
}

#[test]
fn a_mapped_database_that_shrinks() {
    same_on_both(&format!(
        "PRAGMA journal_mode = WAL;
PRAGMA mmap_size = 100000000;
CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);
{ROWS} INSERT INTO t SELECT i, hex(zeroblob(500)) FROM n;
PRAGMA wal_checkpoint(TRUNCATE);
SELECT count(*), sum(length(b)) FROM t;
.connection 1
.open {{dir}}/main.db
PRAGMA mmap_size = 100000000;
SELECT count(*), sum(length(b)) FROM t;
DELETE FROM t WHERE a > 100;
VACUUM;
PRAGMA wal_checkpoint(TRUNCATE);
.connection 0
PRAGMA wal_checkpoint(TRUNCATE);
SELECT count(*), sum(length(b)) FROM t;
{ROWS} INSERT INTO t SELECT i + 5000, hex(zeroblob(500)) FROM n;
PRAGMA wal_checkpoint(TRUNCATE);
.connection 1
PRAGMA wal_checkpoint(TRUNCATE);
SELECT count(*), sum(length(b)) FROM t;"
    ));
}

/// Locks in files of their own keep no program out that has POSIX locks, so
/// there is no log with such a file system.
#[test]
fn a_file_system_without_shared_memory() {
    let outcome = same_on_both(
        "PRAGMA journal_mode = WAL;
CREATE TABLE t(a);
ATTACH 'file:{dir}/other.db?vfs=unix-dotfile' AS other;
PRAGMA other.journal_mode = WAL;
CREATE TABLE other.u(a);
INSERT INTO u VALUES (1);
SELECT * FROM u;
.connection 1
.open file:{dir}/main.db?vfs=unix-dotfile
SELECT * FROM t;
.connection 0
SELECT * FROM t;",
    );
    assert_eq!(outcome.errors(), ["unable to open database file"]);
}

/// Databases without a file have no log.
#[test]
fn databases_in_memory() {
    same_on_each_backend(
        "PRAGMA journal_mode = WAL;
CREATE TABLE t(a);
ATTACH 'file:{dir}/none?vfs=memdb' AS shared;
PRAGMA shared.journal_mode = WAL;
CREATE TABLE shared.u(a);
INSERT INTO u VALUES (1);
ATTACH ':memory:' AS own;
PRAGMA own.journal_mode = WAL;
CREATE TABLE own.v(a);
INSERT INTO v VALUES (2);
SELECT * FROM u, v;",
    );
}

#[test]
fn a_log_that_each_left_is_read_by_the_other() {
    if !Need::Shell.is_met("a log that our SQL and stock SQLite write in turn") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("main.db");
    ours(&path, "PRAGMA journal_mode = WAL;\nCREATE TABLE t(a);");
    // Each keeps its log, by a connection that stays.
    let keeper = wal_libsql::Connection::open(&path).unwrap();
    keeper.query("SELECT * FROM t").unwrap();
    for turn in 0..20 {
        let insert = format!("INSERT INTO t VALUES ({turn});\nSELECT count(*), sum(a) FROM t;");
        let outcome = if turn % 2 == 0 {
            ours(&path, &insert)
        } else {
            stock(&path, &insert)
        };
        let sum = turn * (turn + 1) / 2;
        assert_eq!(outcome.rows(), [format!("{},{sum}", turn + 1)]);
        assert_eq!(outcome.errors(), [""; 0]);
    }
    assert!(dir.path().join("main.db-wal").exists());
}
