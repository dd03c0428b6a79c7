//! Random scripts with a small cache: what is written before the commit, and
//! taken back.

use crate::comparison::same_on_each_backend;

const SCRIPTS: u64 = 6;

#[test]
fn random_transactions_with_a_small_cache() {
    let first = std::env::var("WAL_TEST_SEED")
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    for seed in (0..SCRIPTS).map(|number| first.wrapping_add(number)) {
        println!("WAL_TEST_SEED={seed}");
        same_on_each_backend(&script(seed));
    }
}

fn script(seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let page_size = 512 << random.u32(0..8);
    let auto_vacuum = random.u32(0..3);
    let mut script = format!(
        "PRAGMA page_size = {page_size};
PRAGMA auto_vacuum = {auto_vacuum};
PRAGMA journal_mode = WAL;
PRAGMA cache_size = 10;
PRAGMA wal_autocheckpoint = 50;
CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);
CREATE INDEX t_b ON t(b);
"
    );
    for _ in 0..150 {
        script += &line(&mut random);
        script.push('\n');
    }
    script + "COMMIT;\nPRAGMA integrity_check;\nSELECT count(*), sum(length(b)) FROM t;"
}

/// Many of the lines are errors where they stand, and must be on both.
fn line(random: &mut fastrand::Rng) -> String {
    let (row, rows) = (random.u32(1..3000), random.u32(1..400));
    let len = random.u32(0..300);
    match random.u32(0..20) {
        0..5 => format!(
            "WITH RECURSIVE n(i) AS (SELECT {row} UNION ALL SELECT i + 1 FROM n WHERE i < {row} + {rows}) \
             INSERT OR REPLACE INTO t SELECT i, hex(zeroblob({len})) || i FROM n;"
        ),
        5..7 => format!("UPDATE t SET b = b || 'u' WHERE a BETWEEN {row} AND {row} + {rows};"),
        7..9 => format!("DELETE FROM t WHERE a BETWEEN {row} AND {row} + {rows};"),
        9 => "BEGIN;".to_owned(),
        10..12 => format!("SAVEPOINT s{};", random.u32(0..3)),
        12..14 => format!("ROLLBACK TO s{};", random.u32(0..3)),
        14 => format!("RELEASE s{};", random.u32(0..3)),
        15 => "COMMIT;".to_owned(),
        16 => "ROLLBACK;".to_owned(),
        // The other modes tell how many frames there were.
        17 => "PRAGMA wal_checkpoint(TRUNCATE);".to_owned(),
        18 => format!("PRAGMA incremental_vacuum({rows});"),
        _ => format!("SELECT count(*), sum(length(b)) FROM t WHERE a < {row};"),
    }
}
